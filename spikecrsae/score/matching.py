"""Which spikes of two trains are the same event, and which units belong together.

The counts are those of SpikeInterface (comparison.make_match_count_matrix), to the spike, also in bursts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Trains = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Labels:
    """Fate of every spike of one truth train and one test train, in the order in which the spikes were given.

    truth_found (n_truth,): True is a true positive, False a miss. test_right (n_test,): True is a true positive,
    False a false alarm.
    """

    truth_found: np.ndarray
    test_right: np.ndarray


def match_counts(truth: Trains, test: Trains, tolerance: int) -> np.ndarray:
    """Matched spikes of every pair of units, (n_truth_units, n_test_units) int64.

    Spikes (samples, int64) match where they are at most `tolerance` samples apart, each truth spike at most once.
    In a burst shorter than the tolerance the sweep can meet a test spike twice, so a count is clipped to the number of
    test spikes, as SpikeInterface does.
    """
    truth_trains = [np.sort(train) for train in truth.values()]
    test_trains = [np.sort(train) for train in test.values()]
    counts = np.zeros((len(truth_trains), len(test_trains)), dtype=np.int64)
    for i, a in enumerate(truth_trains):
        for j, b in enumerate(test_trains):
            counts[i, j] = min(len(_sweep(a, b, tolerance)[0]), len(b))
    return counts


def label_spikes(truth: np.ndarray, test: np.ndarray, tolerance: int) -> Labels:
    """True positives, misses and false alarms between two trains of samples (int64), for pictures and lists.

    The pairs are those that match_counts counts, less the few (in bursts) in which a test spike comes a second time:
    both sides always have the same number of true positives.
    """
    truth_order, test_order = np.argsort(truth, kind="stable"), np.argsort(test, kind="stable")
    matched, partner = _sweep(np.asarray(truth)[truth_order], np.asarray(test)[test_order], tolerance)
    partner, first = np.unique(partner, return_index=True)
    truth_found, test_right = np.zeros(len(truth), bool), np.zeros(len(test), bool)
    truth_found[truth_order[matched[first]]] = True
    test_right[test_order[partner]] = True
    return Labels(truth_found, test_right)


def _sweep(truth: np.ndarray, test: np.ndarray, tolerance: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the truth spikes that match and of their partners; both trains ascending.

    Each truth spike takes the first test spike within reach, or the second where the first is the one that was taken
    last. Only where the windows of two neighbouring truth spikes overlap does the order matter.
    """
    first = np.searchsorted(test, truth - tolerance, side="left")
    end = np.searchsorted(test, truth + tolerance, side="right")
    reach = np.flatnonzero(end > first)
    first, end = first[reach], end[reach]
    partner, matched = first.copy(), np.ones(len(reach), bool)
    for k in np.flatnonzero(first[1:] < end[:-1]) + 1:
        if first[k] == partner[k - 1]:
            # An unmatched spike keeps `first` as its partner, which is then the test spike that was taken last.
            if first[k] + 1 < end[k]:
                partner[k] += 1
            else:
                matched[k] = False
    return reach[matched], partner[matched]


def agreement(counts: np.ndarray, n_truth: np.ndarray, n_test: np.ndarray) -> np.ndarray:
    """tp / (n_truth + n_test - tp) for every pair; 0 for two empty trains.

    counts (n_truth_units, n_test_units); n_truth (n_truth_units,) and n_test (n_test_units,) spikes per unit.
    """
    union = np.asarray(n_truth)[:, None] + np.asarray(n_test)[None, :] - counts
    return counts / np.where(union == 0, 1, union)


def match_units_one_to_one(scores: np.ndarray, least: float = 0.5) -> dict[int, int]:
    """Truth index -> test index, the assignment with the largest total agreement (Hungarian) among scores >= least."""
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(np.where(scores < least, 0.0, scores), maximize=True)
    return {int(i): int(j) for i, j in zip(rows, columns, strict=True) if scores[i, j] >= least}


def match_units_best(scores: np.ndarray, least: float = 0.1) -> dict[int, int]:
    """Truth index -> the test index of the largest agreement, where >= least; a test unit may serve several."""
    if scores.shape[1] == 0:
        return {}
    return {i: int(j) for i, j in enumerate(scores.argmax(axis=1)) if scores[i, j] >= least}
