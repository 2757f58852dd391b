"""Hybrid self-test: copies of each unit's template are added to the user's own recording at known times, it is sorted
again with the same settings, and what became of the copies says how well each unit can be found there.

The idea of a hybrid recording: Harris et al. 2000 (J. Neurophysiol. 84:401), Rossant et al. 2016 (Nat. Neurosci. 19:634);
SpikeForest and SpikeInterface move the copies to other channels, where they are neurons of their own. A tetrode has no
other channels, and the question is about this unit among these neighbours: the copies stay where the unit is, and join it.

All units are copied in one recording, so there is one further sorting. The unit that a first unit has become is the one
whose spikes agree best with the first unit's spikes and copies, one to one. With n_u spikes and c_u copies of unit u, each of
its copies stands for w_u = n_u / c_u real spikes. Then

    recall    = copies of u that the unit has, within TOLERANCE_MS, one to one, over c_u
    precision = T / (T + F),  T = w_u * copies of u that it has,  F = what else it has that the first unit had not:
                a spike next to a copy (of v) counts w_v: so many real spikes of v are taken for u;
                a spike next to a spike of the first sorting counts 0: the copies speak for these, with known truth;
                a spike next to neither counts 1: the signal there was nobody's spike before.

What this cannot see: errors that both sortings make at the real spikes. Where two neurons are one unit, copies of their mean
join it, and recall and precision are high; spikes of a distant neuron that both sortings give to the unit count as its own.
Copies vary in amplitude as the model has it, and neither in shape nor with the last interval as bursts do; where real spikes
do, recall is too high.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace

import numpy as np
from scipy import signal as sps
from scipy.linalg import toeplitz
from scipy.stats import norm

from spikecrsae.config import PreprocessConfig
from spikecrsae.crsae.priors import prior_of
from spikecrsae.csc.subsample import shift_in_time
from spikecrsae.data.intervals import in_any, widened
from spikecrsae.data.recording import Recording
from spikecrsae.data.sorting import SortingData
from spikecrsae.errors import InputError, ReadError
from spikecrsae.pipeline.learned import LearnedCache
from spikecrsae.pipeline.outcome import Outcome
from spikecrsae.pipeline.self_test_verdict import (
    Copies,
    at_copies,
    difference,
    judge,
    matches_of,
    rates_before,
    recalibrated,
    with_recall,
)
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.preprocess.filters import design_filter
from spikecrsae.progress import Observer
from spikecrsae.units import ms_to_samples

log = logging.getLogger(__name__)

#: Copies of a unit: LEAST_COPIES, or this part of its spikes where that is more, but never more than it has spikes. 200 give
#: a recall of 0.9 with a standard error of 0.02; more would crowd the recording, and fewer of a busy unit would each stand
#: for too many spikes.
LEAST_COPIES, COPIED_PART = 200, 0.2
#: A copy keeps this distance from the unit's own spikes and from other copies of it.
REST_MS = 2.0
#: Weight of the copies' energy against their misfit, where the high-pass filter is undone.
RIDGE = 1e-3


def self_test(
    recording: Recording, outcome: Outcome, observer: Observer | None = None, cache: LearnedCache | None = None
) -> Outcome:
    """The outcome of sorting the recording, with the columns hybrid_recall, hybrid_precision and hybrid_injected per unit.
    The copies update probabilities and rates (self_test_verdict); the columns false_alarm_before and miss_before say what these were.

    Sorts once more; cache: that of the first sorting; this one has an entry of its own. Where the hybrid recording
    cannot be sorted, the columns are NaN and a warning says why.
    """
    observer, began = observer or Observer(), time.perf_counter()
    sorting, config = outcome.sorting, outcome.config
    copies = draw_copies(sorting, config.runtime.seed)
    waveforms = unfiltered(sorting.templates, config.preprocess, sorting.sampling_frequency)
    warnings = outcome.warnings
    stage = _OneStage(observer, outcome.stage_seconds)
    again = None
    try:
        if len(copies):
            hybrid = with_copies(recording, copies, waveforms, sorting.peak_index)
            again = sort_group(hybrid, config, stage, cache=cache and cache.part("self-test")).sorting
    except ReadError:
        raise
    except InputError as error:
        warnings = (*warnings, f"no self-test: {error}")
    matches = matches_of(sorting, copies, again) if again else []
    columns = judge(sorting, copies, matches if again else None)
    known = at_copies(sorting, copies, matches)
    tested, said = recalibrated(sorting, known)
    found = (columns["hybrid_recall"] * columns["hybrid_injected"])[columns["hybrid_injected"] > 0].sum()
    units = with_recall(tested.units | rates_before(sorting.units) | columns)
    lowered = np.any(tested.spikes["probability"] < sorting.spikes["probability"])
    summary = f"{found:.0f} of {len(copies)} injected spikes found{'; probabilities lowered' if lowered else ''}"
    observer.finish(summary if again else "not done")
    for line in filter(None, (difference(sorting.units, columns), said)):
        log.info("self-test: %s", line)
    return replace(
        outcome,
        sorting=replace(tested, units=units),
        stage_seconds=outcome.stage_seconds | {"self-test": round(time.perf_counter() - began, 3)},
        warnings=warnings,
    )


def draw_copies(sorting: SortingData, seed: int) -> Copies:
    """Times, scales and shifts of the copies of every unit.

    Times are uniform over the samples that keep REST_MS from the unit's own spikes and from each other, and a template from
    what is left out and from the recording's ends, so that copies overlap with other units as often as chance has it. Scales
    have the unit's learned spread about `unselected_scale`.
    """
    rng = np.random.default_rng([seed, 1])
    rest, margin = ms_to_samples(REST_MS, sorting.sampling_frequency), sorting.templates.shape[2]
    ends = [(0, 0), (sorting.n_samples, sorting.n_samples)]
    closed = widened([*ends, *sorting.excluded], margin, sorting.n_samples)
    spread, parts = amplitude_spread(sorting), []
    usual = unselected_scale(sorting.model, spread)
    # twenty draws for each copy, more where much is left out, leave enough also where a unit fires a hundred times per second
    crowd = 20 * sorting.n_samples / max(sorting.n_samples - np.diff(sorting.excluded).sum(), 1)
    for row, unit in enumerate(sorting.unit_ids):
        own = sorting.spike_samples(unit)
        n_wanted = min(len(own), max(LEAST_COPIES, round(COPIED_PART * len(own))))
        near_own = widened(np.stack([own, own + 1], axis=1), rest, sorting.n_samples)
        drawn = np.sort(rng.integers(0, sorting.n_samples, int(min(crowd, 2000) * n_wanted)))
        drawn = drawn[~in_any(closed, drawn) & ~in_any(near_own, drawn)]
        drawn = drawn[np.diff(drawn, prepend=-rest - 1) > rest]
        sample = np.sort(rng.permutation(drawn)[:n_wanted])
        scale = np.maximum(usual[row] * rng.normal(1.0, spread[row], len(sample)), 0.1)
        parts.append((sample, np.full(len(sample), row), scale, rng.uniform(-0.5, 0.5, len(sample))))
    columns = [np.concatenate(c) for c in zip(*parts, strict=True)] if parts else [np.zeros(0, np.int64)] * 4
    order = np.lexsort((columns[1], columns[0]))
    return Copies(*(column[order] for column in columns))


def amplitude_spread(sorting: SortingData) -> np.ndarray:
    """Spread (n_units,) of every unit's amplitudes relative to their mean: that of the prior where it has one, else that of the
    spikes, from the upper half and without what noise adds."""
    if "spread" in sorting.model:
        return sorting.model["spread"]
    spread = np.zeros(sorting.n_units)
    for row, unit in enumerate(sorting.unit_ids):
        middle, high = np.percentile(sorting.spikes["amplitude"][sorting.spikes["unit"] == unit], [50, 84])
        seen = (high - middle) / max(abs(middle), 1e-9)
        spread[row] = np.sqrt(max(seen**2 - 1 / sorting.model["whitened_norm"][row] ** 2, 0.0))
    return spread


def unselected_scale(model: dict[str, np.ndarray], spread: np.ndarray) -> np.ndarray:
    """Mean amplitude (n_units,) of all spikes of each unit, where that of the spikes that were found is 1.

    A weak unit's template is the mean of the spikes that noise has lifted over the threshold, and too large: copies of it
    would be found too easily. The amplitude that the decoder sees is x ~ N(c, s^2 + 1 / ||h||^2), found where it exceeds the
    prior's threshold; c, from 0.5 to 1, is such that E[x | found] = 1. model: the prior's parameters, whitened_norm ||h||.
    """
    energy = model["whitened_norm"] ** 2
    threshold = prior_of(model).shrinkage(energy).needed() / energy
    deviation = np.sqrt(spread**2 + 1 / energy)
    scale = np.linspace(0.5, 1.0, 501)[:, None]
    above = (threshold - scale) / deviation
    mean_of_found = scale + deviation * np.exp(norm.logpdf(above) - norm.logsf(above))
    return scale[np.abs(mean_of_found - 1).argmin(axis=0), 0]


def unfiltered(templates: np.ndarray, config: PreprocessConfig, sampling_frequency: float) -> np.ndarray:
    """Waveforms (n_units, n_channels, n_times) that the zero-phase filter turns into the templates, float64.

    Templates are high-passed; added as they are, they would be high-passed twice, which alters them by a tenth. Ridge
    regression on the filter's response within the window, min ||F w - t||^2 + RIDGE ||w||^2.
    """
    n_times = templates.shape[2]
    sos, margin = design_filter(config, sampling_frequency)
    middle = max(margin, n_times)
    pulse = np.zeros(2 * middle + 1)
    pulse[middle] = 1.0
    response = toeplitz(sps.sosfiltfilt(sos, pulse, padlen=0)[middle : middle + n_times])
    undo = np.linalg.solve(response @ response + RIDGE * np.eye(n_times), response)
    return templates.astype(np.float64) @ undo.T


def with_copies(recording: Recording, copies: Copies, waveforms: np.ndarray, peak_index: np.ndarray) -> Recording:
    """The recording with copies of waveforms (n_units, n_channels, n_times; in amplitude_unit) added as it is read.

    A copy begins peak_index (n_units,) samples before its own. Stored whole numbers stay whole and in the range of their
    type, as if the amplifier had digitised the sum; a stretch without a copy is read as it is.
    """
    n_times, columns = waveforms.shape[2], list(recording.channels)
    first = copies.sample - peak_index[copies.unit]
    order = np.argsort(first, kind="stable")
    first = first[order]
    stored = waveforms / recording.gain[:, None]

    def read(start: int, stop: int) -> np.ndarray:
        values = np.asarray(recording.read_raw(start, stop))
        low, high = np.searchsorted(first, [start - n_times + 1, stop])
        if low == high:
            return values
        added = np.zeros((stop - start + 2 * n_times, len(columns)))
        for begin, k in zip(first[low:high] - start + n_times, order[low:high], strict=True):
            copy = copies.scale[k] * shift_in_time(stored[copies.unit[k]], copies.shift[k])
            added[begin : begin + n_times] += copy.T
        values = values.copy()
        values[:, columns] = _added(values[:, columns], added[n_times:-n_times])
        return values

    return replace(recording, read_raw=read)


def _added(values: np.ndarray, added: np.ndarray) -> np.ndarray:
    """values + added in the type of values; whole numbers rounded, and kept from wrapping round."""
    if values.dtype.kind not in "iu":
        return (values + added).astype(values.dtype)
    limits = np.iinfo(values.dtype)
    return np.clip(values.astype(np.int64) + np.rint(added).astype(np.int64), limits.min, limits.max).astype(values.dtype)


class _OneStage(Observer):
    """The stages of the second sorting as one stage, self-test, whose work is the milliseconds that the first one took."""

    def __init__(self, observer: Observer, seconds: dict[str, float]) -> None:
        self._observer = observer
        self._work = {stage: round(1000 * s) for stage, s in seconds.items()}
        observer.start("self-test", max(1, sum(self._work.values())))

    def start(self, stage: str, total: int | None = None) -> None:
        self._stage, self._here, self._total = stage, self._work.get(stage, 0), total
        self._done, self._told = 0, 0

    def advance(self, n: int = 1) -> None:
        self._done += n
        if self._total:
            self._tell(min(self._here, self._here * self._done // self._total))

    def finish(self, summary: str = "") -> None:
        log.info("second sorting, %s: %s", self._stage, summary)
        self._tell(self._here)

    def _tell(self, work: int) -> None:
        if work > self._told:
            self._observer.advance(work - self._told)
            self._told = work
