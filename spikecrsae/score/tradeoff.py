"""The trade-off curve of the paper: misses against false alarms while the threshold of one unit is raised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spikecrsae.data.sorting import SortingData
from spikecrsae.errors import InputError, UsageError
from spikecrsae.score.matching import Trains, match_counts
from spikecrsae.score.metrics import Comparison
from spikecrsae.system.text import unknown_name

#: What the threshold of a curve may apply to.
CURVES = ("amplitude", "component")


@dataclass(frozen=True)
class Tradeoff:
    """One point per threshold, ascending: threshold in the recording's unit; of the n_truth true spikes, `found` are found
    among the `n_kept` spikes at or above the threshold.

    kind: what the threshold applies to, one of CURVES. With "amplitude" the first point keeps every spike: it is the sorting
    as it stands.
    """

    threshold: np.ndarray
    found: np.ndarray
    n_kept: np.ndarray
    n_truth: int
    kind: str = "amplitude"

    @property
    def misses(self) -> np.ndarray:
        """True spikes that are not found, per point."""
        return self.n_truth - self.found

    @property
    def false_alarms(self) -> np.ndarray:
        """Spikes without a true one, per point."""
        return self.n_kept - self.found

    @property
    def miss(self) -> np.ndarray:
        """Fraction of the true spikes that are not found, per point."""
        return np.asarray(1.0 - self.found / self.n_truth)

    @property
    def false_alarm(self) -> np.ndarray:
        """Fraction of the kept spikes that are false, per point."""
        return np.asarray(1.0 - self.found / self.n_kept)


def tradeoff_curve(
    truth: np.ndarray,
    test: np.ndarray,
    amplitudes: np.ndarray,
    tolerance: int,
    n_thresholds: int = 200,
    kind: str = "amplitude",
) -> Tradeoff:
    """Sweep a threshold over the absolute amplitudes of the test unit that matches best.

    truth (n_truth,) and test (n_test,) are samples (int64), amplitudes (n_test,) those of the test spikes. At each
    threshold the spikes at or above it are scored anew. Thresholds are the amplitudes themselves, at most n_thresholds of them
    at even ranks; at least one spike is always kept. kind: see Tradeoff. Raises InputError without truth, or where amplitudes
    and spikes differ in number.
    """
    size = np.abs(np.asarray(amplitudes, dtype=np.float64))
    if len(truth) == 0:
        raise InputError("the truth has no spikes, so a miss rate does not exist; give a truth with spikes.")
    if len(size) != len(test):
        raise InputError(f"{len(size)} amplitudes for {len(test)} spikes; every spike needs one.")
    threshold = np.unique(size)
    if len(threshold) > n_thresholds:
        threshold = threshold[np.unique(np.linspace(0, len(threshold) - 1, n_thresholds).round().astype(int))]
    found, n_kept = np.empty(len(threshold), np.int64), np.empty(len(threshold), np.int64)
    for k, least in enumerate(threshold):
        kept = np.asarray(test)[size >= least]
        found[k], n_kept[k] = match_counts({"truth": truth}, {"test": kept}, tolerance)[0, 0], len(kept)
    return Tradeoff(threshold, found, n_kept, len(truth), kind)


def component_spikes(sorting: SortingData, unit_id: int) -> tuple[np.ndarray, np.ndarray]:
    """Find the spikes of one unit in its component h_c * x_c on the unit's peak channel (Sec. VII-B of the paper).

    Each spike of the code stands at the local extreme of the component, in the direction of the template's peak, that is
    uphill from it. Spikes of the code with the same extreme are one spike; one where the component has the opposite sign is none.
    Returns the samples (n,) int64 of the extremes, ascending, and their absolute heights (n,) in the recording's unit. Where
    spikes do not overlap these are the samples and amplitudes of the sorting. Raises InputError for a unit that is not there or
    has no template.
    """
    if unit_id not in sorting.unit_ids:
        raise InputError(f"the sorting has no unit {unit_id}; give one of its unit_ids.")
    row, peaks = list(sorting.unit_ids).index(unit_id), sorting.peaks
    if row >= len(sorting.templates) or not peaks.size[row] > 0:
        raise InputError(
            f"the sorting has no template of unit {unit_id}, and so no component of it; use the amplitude curve."
        )
    mine = sorting.spikes[sorting.spikes["unit"] == unit_id]
    if not len(mine):
        return np.zeros(0, np.int64), np.zeros(0)
    peak = int(sorting.peak_index[row])
    template = sorting.templates[row, peaks.channel[row]].astype(np.float64)
    # a zero at each end, so that the neighbours of every sample of a spike are there
    shape = np.pad(template / template[peaks.index[row]], 1)
    sample = mine["sample"][:, None] + np.arange(-1, len(template) + 1) - peak
    covered, place = np.unique(sample, return_inverse=True)
    place = place.reshape(sample.shape)
    component = np.bincount(place.ravel(), (mine["amplitude"][:, None] * shape).ravel(), len(covered))
    steps = np.stack([component, np.r_[-np.inf, component[:-1]], np.r_[component[1:], -np.inf]])
    uphill = np.arange(len(covered)) + np.array([0, -1, 1])[steps.argmax(axis=0)]
    at = np.unique(place[:, peak + 1])
    at = at[component[at] > 0]
    while np.any(uphill[at] != at):
        at = np.unique(uphill[at])
    return covered[at], component[at]


def best_match_curves(
    comparison: Comparison, truth: Trains, sorting: SortingData, kind: str = "amplitude"
) -> dict[str, Tradeoff]:
    """Compute the curve of every truth unit that some unit of the sorting matches best, by the name of the truth unit.

    kind: what the threshold applies to: "amplitude", that of each spike, or "component", the unit's separated signal (see
    component_spikes). Raises UsageError for another word.
    """
    if kind not in CURVES:
        raise UsageError(unknown_name(kind, CURVES, f"a threshold applies to {' or '.join(CURVES)}"))
    curves = {}
    for name, unit in comparison.best_match.items():
        if kind == "component":
            samples, sizes = component_spikes(sorting, int(unit))
        else:
            mine = sorting.spikes[sorting.spikes["unit"] == int(unit)]
            samples, sizes = mine["sample"], mine["amplitude"]
        curves[name] = tradeoff_curve(truth[name], samples, sizes, comparison.tolerance, kind=kind)
    return curves
