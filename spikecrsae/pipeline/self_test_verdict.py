"""What became of the copies of the self-test: recall and precision of units, and probabilities that are recalibrated by them.

The definitions of recall and precision are in pipeline.self_test.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spikecrsae.data.sorting import SortingData
from spikecrsae.decode.quality import label_units
from spikecrsae.decode.rates import Rates, after_test
from spikecrsae.decode.recalibration import Recalibration
from spikecrsae.score import agreement, label_spikes, match_counts, match_units_one_to_one
from spikecrsae.units import ms_to_samples, tolerance_to_samples

#: A spike and a copy are the same event within this time.
TOLERANCE_MS = 0.4
#: A spike is next to another event within this time, half a usual template.
REACH_MS = 1.0
#: A unit is lost where no unit of the second sorting agrees with it by so much.
LEAST_AGREEMENT = 0.1


@dataclass(frozen=True)
class Copies:
    """Copies of units' templates: sample (n,) int64 of the largest deflection, ascending; unit (n,), row of the unit table;
    scale (n,), 1 for the template itself; shift (n,), samples by which it comes later than `sample`, from -0.5 to 0.5."""

    sample: np.ndarray
    unit: np.ndarray
    scale: np.ndarray
    shift: np.ndarray

    def __len__(self) -> int:
        return len(self.sample)

    def of(self, unit: int) -> np.ndarray:
        """Samples of one unit's copies, ascending."""
        return self.sample[self.unit == unit]


@dataclass(frozen=True)
class Match:
    """What has become of a unit: row in the first sorting; the samples and probabilities (n,) of its spikes in the second one; right
    (bool, n): those that are a spike or a copy of the unit; n_found: copies that are among them."""

    row: int
    sample: np.ndarray
    probability: np.ndarray
    right: np.ndarray
    n_found: int


def matches_of(sorting: SortingData, copies: Copies, again: SortingData) -> list[Match]:
    """The units that the second sorting has found again, each with the unit that agrees best, one to one."""
    tolerance = tolerance_to_samples(TOLERANCE_MS, sorting.sampling_frequency)
    own = [sorting.spike_samples(unit) for unit in sorting.unit_ids]
    known = {str(row): np.concatenate([own[row], copies.of(row)]) for row in range(sorting.n_units)}
    trains = again.trains()
    scores = agreement(
        match_counts(known, trains, tolerance),
        np.array([len(t) for t in known.values()]),
        np.array([len(t) for t in trains.values()]),
    )
    found = []
    for row, partner in match_units_one_to_one(scores, LEAST_AGREEMENT).items():
        mine = again.spikes[again.spikes["unit"] == again.unit_ids[partner]]
        labels = label_spikes(known[str(row)], mine["sample"], tolerance)
        n_found = int(labels.truth_found[len(own[row]) :].sum())
        found.append(Match(row, mine["sample"], mine["probability"].astype(float), labels.test_right, n_found))
    return found


def judge(sorting: SortingData, copies: Copies, matches: list[Match] | None) -> dict[str, np.ndarray]:
    """The columns of the self-test, (n_units,) each, by the definitions of this module; `matches` with the sorting of the hybrid
    recording, None where there is none.

    hybrid_recall is 0 and hybrid_precision NaN for a unit that was lost; both are NaN where nothing was injected.
    """
    injected = np.bincount(copies.unit, minlength=sorting.n_units).astype(np.int64)
    recall = np.where(injected > 0, np.nan if matches is None else 0.0, np.nan)
    precision = np.full(sorting.n_units, np.nan)
    events = _Events.of(sorting, copies)
    for match in matches or ():
        row = match.row
        false = events.weigh(match.sample[~match.right], ms_to_samples(REACH_MS, sorting.sampling_frequency))
        if injected[row]:
            recall[row] = match.n_found / injected[row]
        if match.n_found:
            true = events.copy_weight[row] * match.n_found
            precision[row] = true / (true + false)
    return {"hybrid_recall": recall, "hybrid_precision": precision, "hybrid_injected": injected}


@dataclass(frozen=True)
class KnownSpikes:
    """Spikes of the second sorting that the copies judge, each (n,): probability, right (bool), and weight, the real spikes that
    the copy stands for."""

    probability: np.ndarray
    right: np.ndarray
    weight: np.ndarray

    def __len__(self) -> int:
        return len(self.right)


def at_copies(sorting: SortingData, copies: Copies, matches: list[Match]) -> KnownSpikes:
    """The spikes of the second sorting of which the copies tell whether they are right.

    A spike that is a copy of its unit is right. One to which a copy is nearer than any spike of the first sorting, and that is neither
    a copy nor a spike of its unit, is false. Units labelled artefact or noise do not count.
    """
    tolerance, reach = (ms_to_samples(ms, sorting.sampling_frequency) for ms in (TOLERANCE_MS, REACH_MS))
    events = _Events.of(sorting, copies)
    parts = [(np.zeros(0), np.zeros(0, bool), np.zeros(0))]
    for match in matches:
        if "label" in sorting.units and sorting.units["label"][match.row] in ("artefact", "noise"):
            continue
        nearest, distance = events.nearest(match.sample)
        # a copy keeps REST_MS from its unit's own spikes
        is_copy = match.right & (_distances(copies.of(match.row), match.sample) <= tolerance)
        is_false = ~match.right & (distance <= reach) & (events.weight[nearest] > 0)
        weight = np.where(is_copy, events.copy_weight[match.row], events.weight[nearest])
        known = is_copy | is_false
        parts.append((match.probability[known], is_copy[known], weight[known]))
    return KnownSpikes(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _distances(events: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Distance of each of the samples to the nearest of the events, ascending; infinite without one."""
    padded = np.concatenate([[-np.inf], events, [np.inf]])
    after = np.searchsorted(padded, samples)
    return np.minimum(padded[after] - samples, samples - padded[after - 1])


def recalibrated(sorting: SortingData, known: KnownSpikes) -> tuple[SortingData, str]:
    """The sorting with probabilities and false alarms as the known spikes demand, and how far they were off, in words.

    Probabilities fall where they were too high, and never rise: copies show neither noise nor neurons that are no unit.
    """
    before = sorting.spikes["probability"].astype(float)
    if not len(known) or np.isnan(before).any() or np.isnan(known.probability).any() or "false_alarm" not in sorting.units:
        return sorting, ""
    after = Recalibration.of(known.probability, known.right, known.weight).lowered(before)
    if "label" in sorting.units:  # what is no neuron has no probability of its own
        after = np.where(np.isin(sorting.units["label"], ("artefact", "noise"))[sorting.unit_rows], before, after)
    spikes = sorting.spikes.copy()
    spikes["probability"] = after
    false, expected = (np.average(part, weights=known.weight) for part in (~known.right, 1 - known.probability))
    units = sorting.units | with_more_errors(sorting.units, sorting.unit_rows, after - before)
    said = f"{false:.2%} of the spikes found at copies are false where {expected:.2%} were expected"
    return replace(sorting, spikes=spikes, units=units), said


def with_more_errors(units: dict[str, np.ndarray], row: np.ndarray, change: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of the false alarms after the probabilities of the spikes of units `row` changed.

    The upper bound grows as the estimate does. The lower bound stays: the copies are not the spikes that it counts.
    """
    n_units = len(units["false_alarm"])
    counts = np.maximum(np.bincount(row, minlength=n_units), 1)
    before = np.asarray(units["false_alarm"], float)
    after = np.clip(before - np.bincount(row, change, n_units) / counts, 0, 1)
    ratio = np.divide(after, before, out=np.ones(n_units), where=before > 0)
    high = np.minimum(units["false_alarm_high"] * np.maximum(ratio, 1), 1)
    return {"false_alarm": after, "false_alarm_high": np.maximum(high, after)}


@dataclass(frozen=True)
class _Events:
    """All that is known to be in a hybrid recording: sample (n,), ascending, and how many false spikes one beside it is
    worth. copy_weight (n_units,): the real spikes that a copy of a unit stands for."""

    sample: np.ndarray
    weight: np.ndarray
    copy_weight: np.ndarray

    @classmethod
    def of(cls, sorting: SortingData, copies: Copies) -> _Events:
        injected = np.bincount(copies.unit, minlength=sorting.n_units)
        n_spikes = np.array([len(sorting.spike_samples(unit)) for unit in sorting.unit_ids], np.int64)
        weight = n_spikes / np.maximum(injected, 1)
        sample = np.concatenate([sorting.spikes["sample"], copies.sample])
        worth = np.concatenate([np.zeros(len(sorting.spikes)), weight[copies.unit]])
        order = np.argsort(sample, kind="stable")
        return cls(sample[order], worth[order], weight)

    def nearest(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The event nearest to each of the samples (n,), by its place here, and its distance."""
        after = np.clip(np.searchsorted(self.sample, samples), 1, max(len(self.sample) - 1, 1))
        pair = np.minimum(np.stack([after - 1, after]), len(self.sample) - 1)
        distance = np.abs(self.sample[pair] - samples)
        return np.take_along_axis(pair, distance.argmin(axis=0)[None], axis=0)[0], distance.min(axis=0)

    def weigh(self, samples: np.ndarray, reach: int) -> float:
        """What these spikes (n,) are worth together: each as the nearest event says, 1 where there is none within reach."""
        nearest, distance = self.nearest(samples)
        return float(np.where(distance <= reach, self.weight[nearest], 1.0).sum())


def with_recall(units: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The unit table with the misses (decode.rates) that the found copies speak for, and the labels that follow.

    A unit that the second sorting has lost says nothing of its spikes here: its misses stay.
    """
    if "miss" not in units:
        return units
    recall = np.nan_to_num(units["hybrid_recall"])
    injected = np.where(recall > 0, units["hybrid_injected"], 0)
    before = Rates(*(np.asarray(units[name], float) for name in ("miss", "miss_low", "miss_high")))
    after = units | after_test(before, injected, recall * injected).columns("miss")
    return after | {"label": label_units(after)}


def rates_before(units: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns false_alarm_before and miss_before: the rates that the sorting without copies gave."""
    return {f"{name}_before": units[name] for name in ("false_alarm", "miss") if name in units}


def difference(units: dict[str, np.ndarray], columns: dict[str, np.ndarray]) -> str:
    """How far the estimated misses are from those of the copies, in words."""
    known = (columns["hybrid_injected"] > 0) & (np.nan_to_num(columns["hybrid_recall"]) > 0)
    if "miss" not in units or not known.any():
        return ""
    missed = 1 - np.average(columns["hybrid_recall"][known], weights=columns["hybrid_injected"][known])
    said = np.average(units["miss"][known], weights=columns["hybrid_injected"][known])
    return f"{missed:.1%} of the copies are missed where {said:.1%} were expected"
