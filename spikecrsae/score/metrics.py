"""How good a sorting is: accuracy, precision, recall and the paper's miss and false alarm, per truth unit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from spikecrsae.errors import UsageError
from spikecrsae.score.matching import Trains, agreement, match_counts, match_units_best, match_units_one_to_one
from spikecrsae.system.text import counted, unknown_name
from spikecrsae.units import tolerance_to_samples

MATCH_SCORE = 0.5
BEST_MATCH_SCORE = 0.1
WELL_DETECTED_SCORE = 0.8
REDUNDANT_SCORE = 0.2
OVERMERGED_SCORE = 0.2
#: Numbers of a UnitScore: its properties, and all of them.
_DERIVED = ("fn", "fp", "accuracy", "precision", "recall", "miss", "false_alarm", "well_detected")
_NUMBERS = ("n_truth", "n_test", "tp", *_DERIVED)


@dataclass(frozen=True)
class UnitScore:
    """One truth unit against the test unit it is matched with (test is None, and tp, fp and n_test 0, without one).

    accuracy = tp / (tp + fn + fp), precision = tp / (tp + fp), recall = tp / (tp + fn), each 0 where tp is 0;
    miss = 1 - recall and false_alarm = 1 - precision, the paper's terms.
    """

    truth: str
    test: str | None
    n_truth: int
    n_test: int
    tp: int

    @property
    def fn(self) -> int:
        return self.n_truth - self.tp

    @property
    def fp(self) -> int:
        return self.n_test - self.tp

    @property
    def accuracy(self) -> float:
        return self.tp / (self.n_truth + self.n_test - self.tp) if self.tp else 0.0

    @property
    def precision(self) -> float:
        return self.tp / self.n_test if self.tp else 0.0

    @property
    def recall(self) -> float:
        return self.tp / self.n_truth if self.tp else 0.0

    @property
    def miss(self) -> float:
        return 1.0 - self.recall

    @property
    def false_alarm(self) -> float:
        return 1.0 - self.precision

    @property
    def well_detected(self) -> bool:
        return self.accuracy >= WELL_DETECTED_SCORE

    def to_dict(self) -> dict[str, Any]:
        """Every number under its name, for JSON and tables."""
        return asdict(self) | {name: getattr(self, name) for name in _DERIVED}


@dataclass(frozen=True)
class Comparison:
    """A sorting against the truth.

    truth_names, test_names: the units. counts (n_truth, n_test) int64 and agreement (n_truth, n_test): every pair.
    one_to_one: truth name -> test name of the Hungarian assignment (agreement >= 0.5); best_match: truth name -> name of
    the test unit that agrees best (>= 0.1), which may serve several. rows and best_rows: one UnitScore per
    truth unit under the two. false_positive_units, redundant_units and overmerged_units are None unless the truth is
    exhaustive.
    """

    sampling_frequency: float
    tolerance: int
    truth_names: tuple[str, ...]
    test_names: tuple[str, ...]
    counts: np.ndarray
    agreement: np.ndarray
    one_to_one: dict[str, str]
    best_match: dict[str, str]
    rows: tuple[UnitScore, ...]
    best_rows: tuple[UnitScore, ...]
    false_positive_units: tuple[str, ...] | None = None
    redundant_units: tuple[str, ...] | None = None
    overmerged_units: tuple[str, ...] | None = None

    def __repr__(self) -> str:
        truth, test = counted(len(self.truth_names), "true unit"), counted(len(self.test_names), "unit")
        return f"<Comparison: {test} with {truth}, {len(self.well_detected)} well detected, mean accuracy {self.mean('accuracy'):.3f}>"

    @property
    def well_detected(self) -> tuple[str, ...]:
        """Truth units whose one-to-one partner agrees with at least 0.8."""
        return tuple(row.truth for row in self.rows if row.well_detected)

    def mean(self, name: str) -> float:
        """Mean of one number of the one-to-one rows ("accuracy", "miss", ...) over the truth units; nan without any.

        Raises UsageError for a name that is none of these numbers.
        """
        if name not in _NUMBERS:
            raise UsageError(unknown_name(name, _NUMBERS, f"a row has {', '.join(_NUMBERS)}"))
        return float(np.mean([getattr(row, name) for row in self.rows])) if self.rows else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain Python values, for JSON."""
        result = {
            "sampling_frequency": self.sampling_frequency,
            "tolerance_samples": self.tolerance,
            "truth_units": list(self.truth_names),
            "test_units": list(self.test_names),
            "match_counts": self.counts.tolist(),
            "agreement": self.agreement.tolist(),
            "one_to_one": [row.to_dict() for row in self.rows],
            "best_match": [row.to_dict() for row in self.best_rows],
            "well_detected": list(self.well_detected),
        }
        for name in ("false_positive_units", "redundant_units", "overmerged_units"):
            if getattr(self, name) is not None:
                result[name] = list(getattr(self, name))
        return result


def compare(
    truth: Trains,
    test: Trains,
    sampling_frequency: float,
    tolerance_ms: float = 0.4,
    exhaustive: bool = False,
    symmetric: bool = False,
) -> Comparison:
    """Compare spike trains (name -> samples, int64) with the truth, in SpikeInterface's numbers.

    exhaustive: every neuron of the recording is in the truth, so that units without a partner are false. symmetric: neither
    side is the truth; of the counts of both directions the larger one is taken, as SpikeInterface's compare_two_sorters
    does. Raises UsageError where the tolerance or the sampling frequency is not a number that makes sense.
    """
    if not (np.isfinite(tolerance_ms) and tolerance_ms >= 0):
        raise UsageError(f"tolerance {tolerance_ms} ms must be 0 or more; 0.4 is usual.")
    if not (np.isfinite(sampling_frequency) and sampling_frequency > 0):
        raise UsageError(f"sampling frequency {sampling_frequency} Hz must be above 0.")
    truth_names, test_names = tuple(truth), tuple(test)
    n_truth = np.array([len(truth[name]) for name in truth_names], dtype=np.int64)
    n_test = np.array([len(test[name]) for name in test_names], dtype=np.int64)
    tolerance = tolerance_to_samples(tolerance_ms, sampling_frequency)
    counts = match_counts(truth, test, tolerance)
    if symmetric:
        counts = np.maximum(counts, match_counts(test, truth, tolerance).T)
    scores = agreement(counts, n_truth, n_test)
    matches = {
        "one_to_one": match_units_one_to_one(scores, MATCH_SCORE),
        "best_match": match_units_best(scores, BEST_MATCH_SCORE),
    }

    def rows(match: Mapping[int, int]) -> tuple[UnitScore, ...]:
        return tuple(
            UnitScore(name, test_names[match[i]], int(n_truth[i]), int(n_test[match[i]]), int(counts[i, match[i]]))
            if i in match
            else UnitScore(name, None, int(n_truth[i]), 0, 0)
            for i, name in enumerate(truth_names)
        )

    named: dict[str, Any] = {
        key: {truth_names[i]: test_names[j] for i, j in match.items()} for key, match in matches.items()
    }
    extra = _wrong_units(scores, test_names, **matches) if exhaustive else {}
    return Comparison(
        sampling_frequency=float(sampling_frequency),
        tolerance=tolerance,
        truth_names=truth_names,
        test_names=test_names,
        counts=counts,
        agreement=scores,
        rows=rows(matches["one_to_one"]),
        best_rows=rows(matches["best_match"]),
        **named,
        **extra,
    )


def _wrong_units(
    scores: np.ndarray, test_names: Sequence[str], one_to_one: dict[int, int], best_match: dict[int, int]
) -> dict[str, Any]:
    """Test units that no neuron needs: false (none agrees), redundant (a second copy), overmerged (two neurons in one)."""
    truth_of = match_units_best(scores.T, BEST_MATCH_SCORE)
    found = set(one_to_one.values())
    false, redundant, overmerged = [], [], []
    for j, name in enumerate(test_names):
        i = truth_of.get(j)
        if j not in found:
            if i is None or scores[i, j] < REDUNDANT_SCORE:
                false.append(name)
            elif best_match.get(i) != j:
                redundant.append(name)
        if np.count_nonzero(scores[:, j] > OVERMERGED_SCORE) > 1:
            overmerged.append(name)
    return {
        "false_positive_units": tuple(false),
        "redundant_units": tuple(redundant),
        "overmerged_units": tuple(overmerged),
    }
