"""Test what a sorting says about its errors against known spikes: calibration of probabilities and coverage of intervals.

Public as `spikecrsae.calibration`. Probabilities are calibrated if a part p of the spikes with probability p is right
(Naeini et al. 2015, AAAI, for the expected calibration error; Brier 1950).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spikecrsae.data.sorting import SortingData
from spikecrsae.errors import InputError, UsageError
from spikecrsae.score.matching import agreement, label_spikes, match_counts, match_units_one_to_one
from spikecrsae.units import tolerance_to_samples

#: In the log loss, probabilities are kept at least this far from 0 and 1.
SMALLEST = 1e-7
#: Rates for which a unit has an estimate and an interval; the probability that the interval holds the true rate.
RATES, INTERVAL = ("false_alarm", "miss"), 0.9


@dataclass(frozen=True)
class ReliabilityCurve:
    """Bins of equal counts, the least probable spikes first. Each (n_bins,): mean probability, part of right spikes,
    number of spikes."""

    probability: np.ndarray
    right: np.ndarray
    n_spikes: np.ndarray


def reliability_curve(probability: np.ndarray, right: np.ndarray, n_bins: int = 10, seed: int = 0) -> ReliabilityCurve:
    """Return the mean probability and the part of right spikes in bins of equal counts.

    probability (n,): from 0 to 1. right (n,) bool. Spikes of equal probability are put in random order (seed), so that
    bins that share them agree. Raises UsageError for n_bins below 1, InputError for probabilities outside 0 to 1 or
    another length.
    """
    probability, right = _checked(probability, right)
    if n_bins < 1:
        raise UsageError(f"n_bins = {n_bins} must be at least 1; 10 is usual.")
    order = np.lexsort((np.random.default_rng(seed).random(len(right)), probability))
    bins = [part for part in np.array_split(order, n_bins) if len(part)]
    return ReliabilityCurve(
        np.array([probability[part].mean() for part in bins]),
        np.array([right[part].mean() for part in bins]),
        np.array([len(part) for part in bins], np.int64),
    )


def expected_calibration_error(probability: np.ndarray, right: np.ndarray, n_bins: int = 10, seed: int = 0) -> float:
    """Return the mean, over the spikes, of |mean probability - part of right spikes| of their bin; NaN without a spike.
    Arguments and errors as in `reliability_curve`."""
    curve = reliability_curve(probability, right, n_bins, seed)
    return (
        float(np.average(np.abs(curve.probability - curve.right), weights=curve.n_spikes)) if len(curve.n_spikes) else np.nan
    )


def least_certain(probability: np.ndarray, part: float = 0.1, seed: int = 0) -> np.ndarray:
    """Return the indices of that part of the spikes which has the smallest probabilities, the smallest first; ties in
    random order."""
    probability = np.asarray(probability, float)
    order = np.lexsort((np.random.default_rng(seed).random(len(probability)), probability))
    return order[: round(part * len(order))]


def brier_score(probability: np.ndarray, right: np.ndarray) -> float:
    """Return the mean squared difference of probability and truth, 0 to 1; NaN without a spike. Errors as in
    `reliability_curve`."""
    probability, right = _checked(probability, right)
    return float(np.mean((probability - right) ** 2)) if len(right) else np.nan


def log_loss(probability: np.ndarray, right: np.ndarray) -> float:
    """Return the mean of -log(probability given to the truth), in nats; NaN without a spike. Errors as in
    `reliability_curve`."""
    probability, right = _checked(probability, right)
    p = np.clip(probability, SMALLEST, 1 - SMALLEST)
    return float(-np.mean(np.where(right, np.log(p), np.log1p(-p)))) if len(right) else np.nan


def coverage(low: np.ndarray, high: np.ndarray, true: np.ndarray) -> float:
    """Return the part of the intervals (n,) that hold the true values (n,), bounds included; NaN without an interval.
    Raises InputError where the lengths differ."""
    low, high, true = (np.asarray(values, float) for values in (low, high, true))
    if not len(low) == len(high) == len(true):
        raise InputError(
            f"{len(low)} lower and {len(high)} upper bounds for {len(true)} values; give one of each for every value."
        )
    # a rate is a quotient of counts: rounding must not decide
    inside = (low <= true + 1e-9) & (true <= high + 1e-9)
    return float(inside.mean()) if len(true) else np.nan


def _checked(probability: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probability, right = np.asarray(probability, float), np.asarray(right, bool)
    if probability.shape != right.shape or probability.ndim != 1:
        raise InputError(f"probabilities {probability.shape} and truth {right.shape} must be two arrays of one length.")
    if not np.all((probability >= 0) & (probability <= 1)):
        raise InputError(
            "probabilities must lie from 0 to 1, none missing; sort the recording again if an earlier version sorted it."
        )
    return probability, right


@dataclass(frozen=True)
class JudgedSpikes:
    """Spikes that are known to be right or false, and the units they are assigned to.

    probability, right (bool), unit (number) of each spike (n,), in the order of the sorting. units: numbers (n_units,) of the units
    whose neuron is known; neuron: its name; n_spikes: spikes of the unit; n_true: of its neuron; shared: spikes that match.
    """

    probability: np.ndarray
    right: np.ndarray
    unit: np.ndarray
    units: np.ndarray
    neuron: tuple[str, ...]
    n_spikes: np.ndarray
    n_true: np.ndarray
    shared: np.ndarray

    @property
    def false_alarm(self) -> np.ndarray:
        """Part of each unit's spikes that are not its neuron's, (n_units,)."""
        return 1 - self.shared / self.n_spikes

    @property
    def miss(self) -> np.ndarray:
        """Part of each neuron's spikes that its unit lacks, (n_units,)."""
        return 1 - self.shared / np.maximum(self.n_true, 1)

    def to_dict(self) -> dict[str, Any]:
        """Return the measures of the spikes' probabilities as plain values, for JSON."""
        curve, low = reliability_curve(self.probability, self.right), least_certain(self.probability)
        n_false = int(np.count_nonzero(~self.right))
        return {
            "n_spikes": len(self.right),
            "n_false": n_false,
            "expected_calibration_error": expected_calibration_error(self.probability, self.right),
            "expected_calibration_error_least_certain": expected_calibration_error(self.probability[low], self.right[low]),
            "false_in_least_certain": np.count_nonzero(~self.right[low]) / n_false if n_false else np.nan,
            "brier_score": brier_score(self.probability, self.right),
            "log_loss": log_loss(self.probability, self.right),
            "reliability": {name: values.tolist() for name, values in vars(curve).items()},
        }


def judged_spikes(
    truth: Mapping[str, np.ndarray], sorting: SortingData, tolerance_ms: float = 0.4, exhaustive: bool = False
) -> JudgedSpikes:
    """Compare the spikes of a sorting with known spikes (name of the neuron -> samples, int64).

    A unit's neuron is the one with which it shares most spikes, matched one to one within tolerance_ms. If the truth is not
    exhaustive, a unit is left out to which the one-to-one assignment of `compare` gives another neuron or none: nothing is
    known about it.
    """
    tolerance = tolerance_to_samples(tolerance_ms, sorting.sampling_frequency)
    trains, names = sorting.trains(), list(truth)
    counts = match_counts(truth, trains, tolerance)
    n_true, n_test = (np.array([len(train) for train in side.values()], np.int64) for side in (truth, trains))
    partner = {j: i for i, j in match_units_one_to_one(agreement(counts, n_true, n_test)).items()}
    best = counts.argmax(axis=0) if len(names) else np.zeros(0, np.int64)
    known = [j for j in range(len(best)) if n_test[j] and (exhaustive or partner.get(j) == best[j])]
    right, chosen = np.zeros(len(sorting.spikes), bool), np.zeros(len(sorting.spikes), bool)
    for j in known:
        mine = np.flatnonzero(sorting.spikes["unit"] == sorting.unit_ids[j])
        labels = label_spikes(np.asarray(truth[names[best[j]]]), sorting.spikes["sample"][mine], tolerance)
        right[mine], chosen[mine] = labels.test_right, True
    units = sorting.unit_ids[known]
    return JudgedSpikes(
        sorting.spikes["probability"][chosen].astype(np.float64),
        right[chosen],
        sorting.spikes["unit"][chosen],
        units,
        tuple(names[best[j]] for j in known),
        n_test[known],
        n_true[best[known]],
        np.array([np.count_nonzero(right[sorting.spikes["unit"] == unit]) for unit in units], np.int64),
    )


def interval_coverage(judged: JudgedSpikes, sorting: SortingData) -> dict[str, dict[str, Any]]:
    """Return, for false_alarm and miss, the coverage of the intervals and their mean width. Coverage is given for the
    n_units units that have such errors, and for the n_without_error others. Left out are a rate that the unit table does not have,
    and units without an interval."""
    rows = [int(np.flatnonzero(sorting.unit_ids == unit)[0]) for unit in judged.units]
    found = {}
    for rate in RATES:
        if f"{rate}_low" not in sorting.units:
            continue
        low, high = (np.asarray(sorting.units[f"{rate}_{end}"], float)[rows] for end in ("low", "high"))
        true = getattr(judged, rate)
        known = np.isfinite(low) & np.isfinite(high)
        low, high, true = low[known], high[known], true[known]
        some = true > 0
        found[rate] = {
            "n_units": int(some.sum()),
            "coverage": coverage(low[some], high[some], true[some]),
            "n_without_error": int((~some).sum()),
            "coverage_without_error": coverage(low[~some], high[~some], true[~some]),
            "mean_width": float(np.mean(high - low)) if len(true) else np.nan,
        }
    return found
