"""Estimate the false alarms and misses of every unit with 90 % intervals, from its spikes' probabilities and its own
features.

docs/model.md, "Rates and their intervals". The number of errors is Poisson, with an uncertain mean. The mean is Gamma
distributed about the one that the model expects; or the unit has a contamination (decode.probability), or a loss that no
spike shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from spikecrsae.decode.probability import LEAST_FOREIGN, NO_RIVAL, Judgement, SpikeFacts, rival_chance

#: Probability on each side of an interval that holds the true rate in 90 % of the cases.
TAIL = 0.05
#: Shapes of two Gamma distributions: of the errors expected from the spikes, and of a contamination about its estimate
#: from pairs.
TOLD_SHAPE, CONTAMINATION_SHAPE = 1.0, 4.0
#: Part lost of the spikes that overlap (within half a template of another unit's), and part lost of all spikes.
LOST_CROWDED, LOST_ANYWHERE = 0.003, 0.0005
#: Probability that a unit has lost a part of its spikes, up to LARGEST_LOSS, to another unit; its contamination is added
#: to it.
SPLIT, LARGEST_LOSS = 0.03, 0.6
#: A contamination above MANY means a unit of many neurons. It misses nearly all spikes of any one of them: these parts.
MANY, MISSED_OF_MANY = 0.7, np.array([0.9, 0.95, 0.98])
#: Equally probable values that stand for a distribution.
_VALUES = (np.arange(5) + 0.5) / 5


@dataclass(frozen=True)
class Rates:
    """An estimate and the bounds of its interval, each (n_units,), from 0 to 1; NaN for a unit without a spike."""

    estimate: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def columns(self, name: str) -> dict[str, np.ndarray]:
        """Return the columns of units.csv that begin with this name."""
        return {name: self.estimate, f"{name}_low": self.low, f"{name}_high": self.high}

    def select(self, units: np.ndarray) -> Rates:
        return Rates(self.estimate[units], self.low[units], self.high[units])


def count_quantile(means: np.ndarray, weights: np.ndarray, level: float, most: int) -> int:
    """Return the quantile `level` of a mixture of Poisson distributions (means, weights, each (n,)): the smallest number
    that is not exceeded with that probability; at most `most`."""
    low, high = -1, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if weights @ special.pdtr(middle, means) >= level else (middle, high)
    return high


def false_alarms(unit: np.ndarray, judgement: Judgement) -> Rates:
    """Estimate the part of each unit's spikes that it did not fire. unit (n_spikes,): of the judged spikes. The estimate
    is the mean of their probabilities of being false."""
    n_units = len(judgement.contamination)
    counts = np.bincount(unit, minlength=n_units)
    # the part of foreign spikes that is always assumed is known no better than what the spikes tell
    told = np.bincount(unit, 1 - judgement.isolated, n_units) + counts * LEAST_FOREIGN
    shares = judgement.shares - LEAST_FOREIGN
    rates = Rates(*np.full((3, n_units), np.nan))
    rates.estimate[:] = np.bincount(unit, 1 - judgement.probability, n_units) / np.where(counts > 0, counts, np.nan)
    around = special.gammaincinv(CONTAMINATION_SHAPE, _VALUES) / CONTAMINATION_SHAPE
    for row in np.flatnonzero(counts):
        likely = judgement.contamination[row] > 1e-4
        foreign = np.minimum(np.outer(shares[likely], around), 1).ravel() * counts[row]
        weights = np.repeat(judgement.contamination[row, likely], len(around)) / len(around)
        means = (_told(told[row])[:, None] + foreign).ravel()
        weights = np.tile(weights / weights.sum(), len(_VALUES)) / len(_VALUES)
        bounds = [count_quantile(means, weights, level, int(counts[row])) for level in (TAIL, 1 - TAIL)]
        rates.low[row], rates.high[row] = np.array(bounds) / counts[row]
    return _holding_estimate(rates, counts)


def misses(spikes: SpikeFacts, rival: np.ndarray, judgement: Judgement, below: np.ndarray, left_out: np.ndarray) -> Rates:
    """Estimate the part of each neuron's spikes that its unit lacks. The estimate is what the spikes tell, or the
    median of the posterior where that is larger.

    rival (n_spikes,): the best other unit. below (n_units,): part of the amplitudes below the threshold. left_out (n_units,):
    outliers, most of which are the unit's. All these count as missed, with spikes assigned to a rival and some that
    overlap.
    """
    n_units = len(below)
    counts = np.bincount(spikes.unit, minlength=n_units)
    contamination = judgement.contamination @ judgement.shares
    own = np.maximum(np.bincount(spikes.unit, judgement.probability, n_units), 1)
    rivalled = spikes.over_rival < NO_RIVAL
    elsewhere = np.bincount(rival[rivalled], rival_chance(spikes.over_rival[rivalled]), n_units)
    crowded = np.bincount(spikes.unit, spikes.gap < 0.5, n_units)
    told = left_out + elsewhere + counts * below / np.maximum(1 - below, 1e-3)
    told += LOST_CROWDED * crowded + LOST_ANYWHERE * counts
    lost = (np.arange(20) + 0.5) / 20 * LARGEST_LOSS
    rates = Rates(*np.full((3, n_units), np.nan))
    for row in np.flatnonzero(counts):
        many = contamination[row] if contamination[row] > MANY else 0.0
        split = min(SPLIT + (0 if many else contamination[row]), 0.9)
        parts = [
            _told(told[row]),
            told[row] + own[row] * lost / (1 - lost),
            own[row] * MISSED_OF_MANY / (1 - MISSED_OF_MANY),
        ]
        shares = ((1 - split) * (1 - many), split * (1 - many), many)
        weights = np.concatenate([np.full(len(part), share / len(part)) for part, share in zip(parts, shares, strict=True)])
        most = int(100 * (own[row] + told[row])) + 100
        found = np.array([count_quantile(np.concatenate(parts), weights, q, most) for q in (TAIL, 0.5, 1 - TAIL)])
        rates.low[row], rates.estimate[row], rates.high[row] = found / (own[row] + found)
        rates.estimate[row] = max(rates.estimate[row], told[row] / (own[row] + told[row]))
    return _holding_estimate(rates, counts)


def _holding_estimate(rates: Rates, counts: np.ndarray) -> Rates:
    """Return the rates with intervals that hold their estimates: bounds are whole numbers of spikes, estimates are not. The upper bound
    is at least the rate of which so few spikes (n_units,) would show nothing with probability TAIL."""
    unseen = 1 - TAIL ** (1 / np.where(counts > 0, counts, np.nan))
    high = np.maximum.reduce([rates.high, rates.estimate, unseen])
    return Rates(rates.estimate, np.minimum(rates.low, rates.estimate), high)


def after_test(before: Rates, injected: np.ndarray, found: np.ndarray) -> Rates:
    """Update the misses by the self-test: of `injected` spikes (n_units,) `found` were found. Units without any stay as
    they are.

    The posterior before the test is taken as a Beta distribution with its estimate and the width of its interval. The test
    is a binomial experiment that updates it.
    """
    tested = (injected > 0) & np.isfinite(before.estimate)
    part = np.clip(before.estimate[tested], 0, 1)
    deviation = np.maximum(before.high - before.low, 1e-3)[tested] / (2 * special.ndtri(1 - TAIL))
    worth = np.maximum(part * (1 - part) / deviation**2 - 1, 1.0)
    missed = part * worth + 0.5 + (injected - found)[tested]
    kept = (1 - part) * worth + 0.5 + found[tested]
    after = Rates(*(values.copy() for values in (before.estimate, before.low, before.high)))
    for values, level in ((after.low, TAIL), (after.estimate, 0.5), (after.high, 1 - TAIL)):
        values[tested] = special.betaincinv(missed, kept, level)
    return after


def _told(mean: float) -> np.ndarray:
    """Values that stand for the Gamma distribution about the mean number of errors that the spikes tell of."""
    return np.asarray(mean * special.gammaincinv(TOLD_SHAPE, _VALUES) / TOLD_SHAPE)
