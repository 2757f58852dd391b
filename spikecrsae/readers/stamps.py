"""Time stamps of samples: the rate they tell, and the stretches between places where signal is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import h5py
import numpy as np

from spikecrsae.errors import InputError

#: Stamps that are read at once, where their chunks in the file are not larger; and numbers of samples.
_BLOCK, _NUMBERS = 2**14, 2**12
#: The period is the median over runs of so many samples: longer ones round less, shorter ones are hit by fewer gaps. A prime, so that
#: stamps at the ends of runs are not all rounded alike.
_RUN = 101
#: Blocks of which that median is taken.
_SOME = 64
#: A stretch begins at its first stamp where that is within this part of a sample of the regular clock.
_EXACT = 0.1
#: Stamps on each side of a step, over which jitter is averaged, tell whether a sample is missing there.
_AROUND = 50
#: Steps beyond this many samples more than one are gaps; jitter below half a sample makes none larger than one.
_SURE, _POSSIBLE = 1.5, 0.5
#: So many gaps there may be in any case; more must leave stretches of so many samples on average.
_ANY_GAPS, _LEAST_STRETCH = 20, 100
#: Rounding moves times in s by less than this.
_ROUNDING_S = 1e-9
#: A stretch may be shorter or longer than its samples at the common rate by this part and one sample.
_SAME_RATE = 0.01


@dataclass(frozen=True)
class Stretch:
    """Samples without a gap: n_samples from sample `first` on, which is at start_time_s on the file's clock."""

    first: int
    n_samples: int
    start_time_s: float


@dataclass(frozen=True)
class Stamps:
    """What time stamps tell: sampling_frequency (Hz), the stretches, the largest deviation in s of a step from a period
    (jitter_s), and of a stamp from the regular clock of its stretch (drift_s)."""

    sampling_frequency: float
    stretches: tuple[Stretch, ...]
    jitter_s: float
    drift_s: float


def counted_stretches(numbers: np.ndarray, sampling_frequency: float, name: str) -> tuple[Stretch, ...]:
    """The stretches in which `numbers` (n_samples,), counts of samples since the clock began, go on by one.

    numbers may be a memory map, which is read in blocks. Raises InputError, naming the samples, where one is not larger than
    the one before it; `name` says whose they are.
    """
    begins = [0]
    for first, _, stored in _blocks(numbers, after=1, least=_NUMBERS):
        values = stored.astype(np.int64)
        steps = np.diff(values)
        _refuse_backward(steps, values, first, name, "")
        begins += (first + 1 + np.flatnonzero(steps > 1)).tolist()
        _refuse_shreds(begins[1:], first + len(values), name)
    ends = [*begins[1:], len(numbers)]
    return tuple(
        Stretch(begin, end - begin, float(numbers[begin] / sampling_frequency))
        for begin, end in zip(begins, ends, strict=True)
    )


def regular_stretches(stamps: np.ndarray | h5py.Dataset, name: str) -> Stamps:
    """The rate and the stretches that time stamps (n_samples,) in s tell, at least two; they are read in blocks.

    Jitter below half a sample is no gap: a step is one where the stamps of 50 samples before it and after it, on average, lie
    more than half a sample apart beyond a period. The rate is the least-squares slope of all stretches together, in whole Hz
    where jitter leaves that open. Raises InputError, naming the samples, where stamps do not increase, or
    stretches differ in their rate.
    """
    period = _median_period(stamps)
    begins, jitter_s, marks = _gaps(stamps, period, name)
    firsts = np.array([0, *begins])
    lengths = np.diff(np.r_[firsts, len(stamps)])
    stretch = np.searchsorted(firsts, marks[:, 0], "right") - 1
    edges = np.flatnonzero(np.r_[True, np.diff(stretch) > 0, True])
    reference, last = marks[edges[:-1], 1], marks[edges[1:] - 1, 1]
    _refuse_other_rates(firsts, lengths, last - reference, period, name)
    sample, time = marks[:, 0] - firsts[stretch], marks[:, 1] - reference[stretch]
    n, i, t, ii, it = (
        np.bincount(stretch, values) for values in (np.ones(len(sample)), sample, time, sample**2, sample * time)
    )
    spread = (ii - i * i / n).sum()
    rate = float(spread / (it - i * t / n).sum()) if spread > 0 else 1 / period
    whole = round(rate)
    if whole > 0 and abs(1 / whole - 1 / rate) * lengths.max() < jitter_s / 2 + _ROUNDING_S:
        rate = float(whole)
    starts = reference + t / n - i / n / rate
    starts = np.where(np.abs(starts - reference) < _EXACT / rate, reference, starts)
    drift_s = np.abs(starts[stretch] + sample / rate - marks[:, 1]).max()
    found = zip(firsts.tolist(), lengths.tolist(), starts.tolist(), strict=True)
    return Stamps(rate, tuple(Stretch(*one) for one in found), jitter_s, float(drift_s))


def _blocks(
    stamps: np.ndarray | h5py.Dataset, before: int = 0, after: int = 0, least: int | None = None
) -> Iterator[tuple[int, int, np.ndarray]]:
    """(start, first, values) of blocks of at least so many, from stamp `start` on, with so many stamps `before` and `after` them, of which `first` is
    the number."""
    size = _block_size(stamps, least or _BLOCK)
    for start in range(0, len(stamps), size):
        first = max(start - before, 0)
        yield start, first, np.asarray(stamps[first : start + size + after])


def _block_size(stamps: np.ndarray | h5py.Dataset, least: int) -> int:
    """Stamps that are read at once: a chunk of an HDF5 file is decompressed whole."""
    return int(max(least, (getattr(stamps, "chunks", None) or (0,))[0]))


def _refuse_backward(steps: np.ndarray, values: np.ndarray, first: int, name: str, unit: str) -> None:
    """Raise InputError where a step (n - 1,) between values (n,), from sample `first` on, is not positive."""
    # a stamp that is no number makes the comparison false
    if not len(steps) or (steps.min() > 0 and steps.max() < np.inf):
        return
    bad = np.flatnonzero(~((steps > 0) & np.isfinite(steps)))
    at = int(bad[0])
    how = "a duplicate" if steps[at] == 0 else "which is earlier" if -np.inf < steps[at] < 0 else "which is no time"
    coarse = ""
    if values.dtype == np.float32:
        coarse = f" They are stored as float32, whose steps there are {np.spacing(values[at]):.1g} s."
    raise InputError(
        f"{name} do not increase: sample {first + at} is at {values[at]:.10g}{unit} and sample {first + at + 1} at "
        f"{values[at + 1]:.10g}{unit}, {how}.{coarse}"
    )


def _refuse_shreds(begins: list[int], n_samples: int, name: str) -> None:
    """Raise InputError where there are so many gaps that nothing is left between them, as in counts of something else."""
    if len(begins) > max(_ANY_GAPS, n_samples / _LEAST_STRETCH):
        raise InputError(
            f"{name} have {len(begins)} gaps in the first {n_samples} samples, the first between samples {begins[0] - 1} "
            f"and {begins[0]}: they count something else, or their clock is not steady."
        )


def _median_period(stamps: np.ndarray | h5py.Dataset) -> float:
    """The median step in s, over runs of samples of some of the blocks; not finite where stamps are not."""
    run = int(np.clip(len(stamps) // 16, 1, _RUN))
    size = _block_size(stamps, _BLOCK)
    starts = np.arange(0, len(stamps), size)
    starts = starts[:: max(len(starts) // _SOME, 1)]
    ends = [np.asarray(stamps[start : start + size + 1], np.float64)[::run] for start in starts]
    return float(np.median(np.concatenate([np.diff(times) for times in ends]))) / run


def _gaps(stamps: np.ndarray | h5py.Dataset, period: float, name: str) -> tuple[list[int], float, np.ndarray]:
    """Samples at which signal begins anew, ascending; the largest deviation in s of the other steps from a period; and marks
    (n, 2), numbers of samples and their times: of every _RUN-th one, and of those on both sides of a gap."""
    found: list[int] = []
    jitter, marks = 0.0, []
    for start, first, stored in _blocks(stamps, _AROUND, _AROUND):
        with np.errstate(invalid="ignore"):  # of stamps that are infinite
            _refuse_backward(np.diff(stored), stored, first, name, " s")
        times = stored.astype(np.float64)
        late = np.diff(times) / period - 1
        begins = _begins(times, late, period) if late.max(initial=0.0) > _POSSIBLE else np.zeros(0, np.int64)
        end = first + len(times)
        end -= _AROUND if end < len(stamps) else 0
        own = begins[(first + begins > start) & (first + begins <= end)]
        found += (first + own).tolist()
        _refuse_shreds(found, first + len(times), name)
        others = np.delete(late, begins - 1)
        jitter = max(jitter, period * float(max(others.max(initial=0.0), -others.min(initial=0.0))))
        marked = np.unique(
            np.r_[start - first : end - first : _RUN, own - 1, own, len(times) - 1][: -1 if end < len(stamps) else None]
        )
        marks.append(np.stack([first + marked, times[marked]], axis=1))
    return found, jitter, np.unique(np.concatenate(marks), axis=0)


def _begins(times: np.ndarray, late: np.ndarray, period: float) -> np.ndarray:
    """Places in a block of stamps at which signal begins anew, ascending. late (n - 1,): steps less one period, in periods."""
    sums = np.r_[0.0, np.cumsum(times - times[0] - period * np.arange(len(times)))]
    sure = np.flatnonzero(late > _SURE) + 1
    possible = np.flatnonzero((late > _POSSIBLE) & (late <= _SURE)) + 1
    return _with_possible(sure, possible, sums, period)


def _with_possible(begins: np.ndarray, possible: np.ndarray, sums: np.ndarray, period: float) -> np.ndarray:
    """`begins`, where signal begins anew, and those of the `possible` places before which a sample is missing. sums (n + 1,):
    cumulative, of the stamps in s less their number times the period."""
    while True:
        # the means of the stamps before and after a place do not reach beyond the next gap
        limits = np.r_[0, begins, len(sums) - 1]
        following = np.searchsorted(limits, possible, "right")
        low = np.maximum(possible - _AROUND, limits[following - 1])
        high = np.minimum(possible + _AROUND, limits[following])
        shift = (sums[high] - sums[possible]) / (high - possible) - (sums[possible] - sums[low]) / np.maximum(
            possible - low, 1
        )
        missing = np.flatnonzero((shift > 0.5 * period) & (possible > low))
        if not len(missing):
            return begins
        # jitter beside a gap sees it too: of places near each other the clearest is taken first
        groups = np.split(missing, np.flatnonzero(np.diff(possible[missing]) > _AROUND) + 1)
        begins = np.sort(np.r_[begins, [possible[group[shift[group].argmax()]] for group in groups]])


def _refuse_other_rates(firsts: np.ndarray, lengths: np.ndarray, last_s: np.ndarray, period: float, name: str) -> None:
    """Raise InputError where a stretch, of `lengths` samples and lasting last_s, is shorter or longer than at the usual period."""
    wrong = np.flatnonzero(np.abs(last_s / period - (lengths - 1)) > 1 + _SAME_RATE * lengths)
    if len(wrong):
        first, n = int(firsts[wrong[0]]), int(lengths[wrong[0]])
        raise InputError(
            f"{name} are irregular: samples {first} to {first + n - 1} take {last_s[wrong[0]]:.6g} s, where {n - 1} steps of the usual "
            f"{period:.6g} s are {(n - 1) * period:.6g} s."
        )
