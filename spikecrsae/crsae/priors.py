"""Priors of a spike's amplitude: each has a shrinkage and an M-step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar, Self

import numpy as np

from spikecrsae.csc.pursuit import L1
from spikecrsae.csc.shrinkage import SpikeShrinkage

#: Amplitude spread before anything is known, and the standard deviation of its logarithm (a log-normal prior): a unit's own
#: spikes decide, unless they are few or so small that noise hides their spread.
FIRST_SPREAD, SPREAD_DEVIATION = 0.1, 1.0
#: Where the most probable spread is sought.
_LOG_SPREADS = np.log(np.geomspace(1e-3, 1.0, 150))
#: Two quantiles tell as much about the width of a sample as this share of its spikes does in full.
_QUANTILE_SHARE = 0.5
#: lambda before anything is known, about sqrt(2 log(C N_e)) of a minute (Sec. VI-C), and the number of spikes as which it
#: counts.
FIRST_LAMBDA, LAMBDA_COUNT = 5.0, 10


@dataclass(frozen=True)
class Prior:
    """The prior of spikes. Fields: one array (n_units,) for each of its parameters, with its value before anything is known as
    metadata `start`.

    A prior is a subclass with `shrinkage` and `maximise`; encoder, training, curation and decoding need nothing else of it.
    """

    name: ClassVar[str]
    #: Whether it has a size that it expects of each unit's spikes.
    sized: ClassVar[bool] = True

    @classmethod
    def first(cls, n_units: int) -> Self:
        """Return the prior of so many units before anything is known about them."""
        return cls(*(np.full(n_units, f.metadata["start"]) for f in fields(cls)))

    def select(self, units: Sequence[int] | np.ndarray) -> Self:
        """Return the prior of these units only (indices or mask)."""
        return type(self)(*(getattr(self, f.name)[units] for f in fields(self)))

    def joined(self, other: Self) -> Self:
        """Return the prior of these units and, after them, those of the other."""
        return type(self)(*(np.concatenate([getattr(p, f.name) for p in (self, other)]) for f in fields(self)))

    def parameters(self) -> dict[str, np.ndarray]:
        """Return every parameter (n_units,) by its name in files."""
        return {f.metadata.get("name", f.name): getattr(self, f.name) for f in fields(self)}

    @classmethod
    def of_parameters(cls, parameters: Mapping[str, np.ndarray]) -> Self:
        """Return the prior that has these `parameters`."""
        return cls(*(parameters[f.metadata.get("name", f.name)] for f in fields(cls)))

    @property
    def l1(self) -> L1 | None:
        """The convex problem whose solution says where spikes may be; None if they may be anywhere."""
        return None

    def admitting(self, amplitude: np.ndarray) -> Self:
        """Return the prior that expects spikes with these amplitudes (n_units,), relative to the templates."""
        return self

    def shrinkage(self, energy: np.ndarray) -> SpikeShrinkage:
        """Return the shrinkage for templates of this energy ||h||^2 / sigma^2, (n_units,)."""
        raise NotImplementedError

    def maximise(self, unit: np.ndarray, amplitude: np.ndarray, energy: np.ndarray, n_positions: int | np.ndarray) -> Self:
        """Do the M-step: return the prior with new parameters for units that have spikes; the others keep theirs.

        unit, amplitude (n_spikes,): of the spikes, amplitudes by least squares and relative to the new templates. energy
        (n_units,): of the templates. n_positions: among which each unit's spikes were found, one number or (n_units,).
        """
        raise NotImplementedError


@dataclass(frozen=True)
class SpikeSlab(Prior):
    """A spike has the amplitude a ~ N(1, spread^2) relative to its template, and costs `penalty` in log odds."""

    name = "spike-slab"
    spread: np.ndarray = field(metadata={"start": FIRST_SPREAD})
    penalty: np.ndarray = field(metadata={"start": 8.0})

    def admitting(self, amplitude: np.ndarray) -> SpikeSlab:
        """Return the prior with a spread that reaches from the templates to these amplitudes."""
        return SpikeSlab(np.hypot(self.spread, 1 - amplitude), self.penalty)

    def shrinkage(self, energy: np.ndarray) -> SpikeShrinkage:
        """Shrink to the amplitude (b + 1/s^2) / (g + 1/s^2), benchmarks/notebook/mathematics.md, "Two priors"."""
        precision = 1.0 / self.spread**2
        offset = -0.5 * precision - 0.5 * np.log1p(energy / precision) - self.penalty
        return SpikeShrinkage(precision, energy + precision, offset)

    def maximise(
        self, unit: np.ndarray, amplitude: np.ndarray, energy: np.ndarray, n_positions: int | np.ndarray
    ) -> SpikeSlab:
        """Do the M-step. Spread: that of the amplitudes, less what noise adds. Penalty: minus the log of the rate per
        position."""
        counts = np.bincount(unit, minlength=len(energy))
        spread = self.spread.copy()
        for c in np.flatnonzero(counts):
            spread[c] = learned_spread(amplitude[unit == c], energy[c])
        return SpikeSlab(spread, np.where(counts > 0, np.log(n_positions / (counts + 1.0)), self.penalty))


@dataclass(frozen=True)
class Laplace(Prior):
    """The paper's prior, one-sided: codes are exponential with the weight `lam` of the l1 penalty, one for every unit.

    lam is in units of 1 / sigma and belongs to atoms of unit norm.
    """

    name, sized = "laplace", False
    lam: np.ndarray = field(metadata={"start": FIRST_LAMBDA, "name": "lambda"})

    @property
    def l1(self) -> L1:
        """The convex problem whose solution says where spikes may be."""
        return L1(self.lam, True)

    def shrinkage(self, energy: np.ndarray) -> SpikeShrinkage:
        """Drop the penalty where the l1 codes are not zero (relaxed lasso, Meinshausen 2007): the amplitude is b / g where
        the correlation with the unit-norm atom exceeds lambda."""
        nothing = np.zeros(len(energy))
        return SpikeShrinkage(nothing, energy.astype(np.float64), -0.5 * self.lam**2)

    def maximise(
        self, unit: np.ndarray, amplitude: np.ndarray, energy: np.ndarray, n_positions: int | np.ndarray
    ) -> Laplace:
        """Do the M-step. lambda_c is the correlation above which a spike is more probable than noise, for exponential
        amplitudes with the unit's mean and for the unit's rate.

        The optimum of Eq. 22 counts every silent position as a code of size 0 and then makes every code 0
        (benchmarks/notebook/mathematics.md, "Two priors"); so rate and mean size are learned separately, as in a
        Bernoulli-Laplace prior. For a rate of one in C N_e positions it is the paper's lambda_0 = sqrt(2 log(C N_e)), nearly.
        """
        counts = np.bincount(unit, minlength=len(energy))
        mean = np.bincount(unit, amplitude, len(energy)) / np.maximum(counts, 1) * np.sqrt(energy)
        mean = np.maximum(mean, 1.0)
        odds = np.log(n_positions / (counts + 1.0)) + np.log(mean) - 0.5 * np.log(2 * np.pi)
        learned = 1 / mean + np.sqrt(2 * np.maximum(odds, 0.5))
        weight = counts / (counts + LAMBDA_COUNT)
        lam = np.exp(weight * np.log(learned) + (1 - weight) * np.log(FIRST_LAMBDA))
        return Laplace(np.where(counts > 0, lam, self.lam))


def as_if_clear(unit: np.ndarray, amplitude: np.ndarray, clear: np.ndarray) -> np.ndarray:
    """Return amplitudes (n_spikes,) for an M-step without what louder noise adds. Those of spikes that are not clear
    (bool) are replaced by those of the unit's clear spikes, in turn. Units without a clear spike keep theirs."""
    if clear.all():
        return amplitude
    amplitude = amplitude.copy()
    for c in np.unique(unit[~clear]):
        mine = unit == c
        if (mine & clear).any():
            amplitude[mine & ~clear] = np.resize(amplitude[mine & clear], np.count_nonzero(mine & ~clear))
    return amplitude


def learned_spread(amplitudes: np.ndarray, energy: float) -> float:
    """Return the most probable spread of a unit's amplitudes (least squares, about 1), to whose variance noise adds 1 /
    energy.

    Only the upper half is used: small spikes of other neurons would widen the prior, which would then let in more of them.
    The prior of the spread is log-normal; the spread is sought from 0.001 to 1.
    """
    seen = float(np.subtract(*np.percentile(amplitudes, [84, 50]))) ** 2
    # two quantiles are taken from as many amplitudes
    noise, n = 1 / max(energy, 1e-9), _QUANTILE_SHARE * max(len(amplitudes) - 2, 0)

    variance = np.exp(2 * _LOG_SPREADS) + noise
    away = (_LOG_SPREADS - np.log(FIRST_SPREAD)) / SPREAD_DEVIATION
    cost = 0.5 * n * (np.log(variance) + seen / variance) + 0.5 * away**2
    best = int(np.clip(cost.argmin(), 1, len(cost) - 2))
    # a parabola through three points of the grid
    low, middle, high = cost[best - 1 : best + 2]
    step = 0.5 * (low - high) / max(low - 2 * middle + high, 1e-12)
    return float(np.exp(_LOG_SPREADS[best] + np.clip(step, -1, 1) * (_LOG_SPREADS[1] - _LOG_SPREADS[0])))


#: The priors by the names that infer.prior takes.
PRIORS: dict[str, type[Prior]] = {prior.name: prior for prior in (SpikeSlab, Laplace)}


def prior_of(parameters: Mapping[str, np.ndarray]) -> Prior:
    """Return the prior whose parameters are among these, (n_units,) by name. Raises KeyError where there is none."""
    for prior in PRIORS.values():
        if prior.first(0).parameters().keys() <= parameters.keys():
            return prior.of_parameters(parameters)
    raise KeyError(f"none of the priors {', '.join(PRIORS)} has parameters among {', '.join(parameters)}")
