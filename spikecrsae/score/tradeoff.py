"""The trade-off curve of the paper: misses against false alarms while the amplitude threshold of one unit is raised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spikecrsae.data.sorting import SortingData
from spikecrsae.errors import InputError
from spikecrsae.score.matching import Trains, match_counts
from spikecrsae.score.metrics import Comparison


@dataclass(frozen=True)
class Tradeoff:
    """One point per threshold, ascending: threshold in the recording's unit, miss and false_alarm as fractions.

    The first point keeps every spike: it is the sorting as it stands.
    """

    threshold: np.ndarray
    miss: np.ndarray
    false_alarm: np.ndarray


def tradeoff_curve(
    truth: np.ndarray, test: np.ndarray, amplitudes: np.ndarray, tolerance: int, n_thresholds: int = 200
) -> Tradeoff:
    """Sweep a threshold over the absolute amplitudes of the test unit that matches best.

    truth (n_truth,) and test (n_test,) are samples (int64), amplitudes (n_test,) those of the test spikes. At each
    threshold the spikes at or above it are scored anew: miss = 1 - tp / n_truth, false alarm = 1 - tp / n_kept. Thresholds
    are the amplitudes themselves, at most n_thresholds of them at even ranks; at least one spike is always
    kept. Raises InputError without truth, or where amplitudes and spikes differ in number.
    """
    size = np.abs(np.asarray(amplitudes, dtype=np.float64))
    if len(truth) == 0:
        raise InputError("the truth has no spikes, so a miss rate does not exist; give a truth with spikes.")
    if len(size) != len(test):
        raise InputError(f"{len(size)} amplitudes for {len(test)} spikes; every spike needs one.")
    threshold = np.unique(size)
    if len(threshold) > n_thresholds:
        threshold = threshold[np.unique(np.linspace(0, len(threshold) - 1, n_thresholds).round().astype(int))]
    miss, false_alarm = np.empty(len(threshold)), np.empty(len(threshold))
    for k, least in enumerate(threshold):
        kept = np.asarray(test)[size >= least]
        tp = match_counts({"truth": truth}, {"test": kept}, tolerance)[0, 0]
        miss[k], false_alarm[k] = 1.0 - tp / len(truth), 1.0 - tp / len(kept)
    return Tradeoff(threshold, miss, false_alarm)


def best_match_curves(comparison: Comparison, truth: Trains, sorting: SortingData) -> dict[str, Tradeoff]:
    """The curve of every truth unit that some unit of the sorting matches best, by the name of the truth unit."""
    curves = {}
    for name, unit in comparison.best_match.items():
        mine = sorting.spikes[sorting.spikes["unit"] == int(unit)]
        curves[name] = tradeoff_curve(truth[name], mine["sample"], mine["amplitude"], comparison.tolerance)
    return curves
