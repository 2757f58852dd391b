"""Intervals of a recording that are left out: read from text, joined, bridged.

An array (n, 2) of samples holds intervals [first, end), ascending and apart. An empty one, [s, s), is a seam: signal ends
before sample s and other signal begins there.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from spikecrsae.data.recording import Recording
from spikecrsae.errors import InputError, UsageError
from spikecrsae.system.files import refuse_unreadable
from spikecrsae.system.text import is_number, read_text

NONE = np.zeros((0, 2), np.int64)
NONE.setflags(write=False)
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
#: Endings of files that hold intervals, and their largest size.
_TABLES, _MOST_TABLE_MB = (".csv", ".tsv", ".txt"), 100
_INTERVAL = re.compile(rf"\s*({_NUMBER})\s*-\s*({_NUMBER})\s*")


def parse_intervals(text: str, recording: Recording) -> np.ndarray:
    """The intervals (n, 2) of `12.5-13.1,40-41`, seconds on the recording's clock (sample 0 is at its start_time_s).

    Raises UsageError for one that is no interval, is reversed or reaches out of the recording, and where nothing is left.
    """
    found = [_samples(start, stop, recording) for start, stop in intervals_s(text)]
    intervals = widened(found, 0, recording.n_samples)
    if (intervals[:, 1] - intervals[:, 0]).sum() >= recording.n_samples:
        raise UsageError(f"--exclude-s {text} leaves nothing of {recording.source}; leave out less.")
    return intervals


def gaps_from_the_start(text: str, recording: Recording) -> np.ndarray:
    """What is left out of a recording's time range before anything of it is seen, (n, 2) in samples of the range: the intervals
    of `text`, as parse_intervals reads them, and the seams. Raises UsageError as that does, and where nothing is left."""
    given = parse_intervals(text, recording)
    first, end = recording.time_range or (0, recording.n_samples)
    inside = within(given, first, end) - first
    if np.diff(inside).sum() >= end - first:
        raise UsageError(f"--exclude-s {text} leaves nothing between --start-s and --stop-s; leave out less.")
    return widened(np.concatenate([inside, seams(recording.in_range())]), 0, end - first)


def intervals_s(text: str) -> list[tuple[float, float]]:
    """Parse `12.5-13.1,40-41`, in which a word may also be the name of a CSV file of start,stop, into (start, stop) in s. Raises UsageError
    for what is not an interval, or is reversed, InputError for a file that holds no intervals."""
    found = []
    for word in interval_words(text):
        matched = _INTERVAL.fullmatch(word)
        found += [(float(matched[1]), float(matched[2]))] if matched else _of_file(Path(word))
    return found


def interval_words(text: str) -> list[str]:
    """The intervals and names of files that `text` names, files with their full path; nothing is read. Raises UsageError as
    intervals_s."""
    words = [word for word in map(str.strip, text.split(",")) if word]
    for place, word in enumerate(words):
        matched = _INTERVAL.fullmatch(word)
        if matched and not float(matched[1]) < float(matched[2]):
            raise UsageError(f"{word!r} in exclude_s: the start must come before the stop; write the earlier time first.")
        if not matched and (os.path.isfile(word) or Path(word).suffix.lower() in _TABLES):
            words[place] = os.path.abspath(word)
        elif not matched:
            raise UsageError(
                f"{word!r} in exclude_s is not an interval; write start-stop in seconds, such as 12.5-13.1, or give a CSV file of them."
            )
    return words


def _of_file(path: Path) -> list[tuple[float, float]]:
    """The intervals of a CSV file, start,stop in seconds in each row, after a first row of names where there is one."""
    refuse_unreadable(path, "the intervals of --exclude-s")
    rows = [row for row in csv.reader(read_text(path, _MOST_TABLE_MB).splitlines()) if any(word.strip() for word in row)]
    found, first, last = [], 0, 1
    if rows and not any(is_number(word) for word in rows[0]):
        names = [word.strip().lower().removesuffix("_s") for word in rows.pop(0)]
        if "start" in names and "stop" in names:
            first, last = names.index("start"), names.index("stop")
    for row in rows:
        try:
            start, stop = float(row[first]), float(row[last])
        except (ValueError, IndexError):
            raise InputError(
                f"{path}: {','.join(row)!r} is not an interval; every row of --exclude-s needs start,stop in seconds."
            ) from None
        if not start < stop:
            raise InputError(f"{path}: {','.join(row)!r}: the start must come before the stop.")
        found.append((start, stop))
    if not found:
        raise InputError(f"{path} holds no interval; every row of --exclude-s needs start,stop in seconds.")
    return found


def _samples(start: float, stop: float, recording: Recording) -> tuple[int, int]:
    """The samples [first, end) from start to stop, in s on the recording's clock. Raises UsageError where they reach out of it."""
    begin, end, fs = recording.start_time_s, recording.end_time_s, recording.sampling_frequency
    if start < begin - 1 / fs or stop > end + 1 / fs or not math.isfinite(stop):
        raise UsageError(
            f"--exclude-s {start:.10g}-{stop:.10g} is not within {recording.source}, which lasts from {begin:.10g} to "
            f"{end:.10g} s; "
            "give times between these."
        )
    first, last = recording.timeline.samples([start, stop]).round().astype(int).tolist()
    return first, last


def seams(recording: Recording) -> np.ndarray:
    """The seams (n, 2) between the parts of a recording."""
    firsts = np.array([part.first for part in recording.parts[1:]], np.int64)
    return np.stack([firsts, firsts], axis=1)


def common(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """The intervals (n, 2) that lie both in the first and in the second ones."""
    edges = np.concatenate([first[:, 0], second[:, 0], first[:, 1], second[:, 1]])
    order = np.argsort(edges, kind="stable")
    n_begin = len(first) + len(second)
    covered = np.cumsum(np.where(order < n_begin, 1, -1))
    edges = edges[order]
    both = np.flatnonzero(covered[:-1] == 2) if len(edges) else np.zeros(0, np.int64)
    found = np.stack([edges[both], edges[both + 1]], axis=1) if len(both) else NONE
    return np.asarray(found[found[:, 1] > found[:, 0]])


def lengths_before(intervals: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """How many of the samples before each of these (n,) lie in the intervals (n, 2), which are ascending and apart."""
    sums = np.r_[0, np.cumsum(intervals[:, 1] - intervals[:, 0])]
    begun = np.searchsorted(intervals[:, 0], samples, "right")
    ends = np.r_[0, intervals[:, 1]][begun]
    return np.asarray(sums[begun] - np.maximum(ends - samples, 0) * (begun > 0))


def inside(intervals: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Which samples from start to stop (bool, stop - start) lie in one of the intervals [first, end), (n, 2)."""
    here = within(intervals, start, stop) - start
    steps = np.zeros(stop - start + 1, np.int32)
    np.add.at(steps, here[:, 0], 1)
    np.subtract.at(steps, here[:, 1], 1)
    return np.asarray(np.cumsum(steps[:-1]) > 0)


def within(intervals: np.ndarray, start: int, stop: int) -> np.ndarray:
    """The parts (n, 2) of the intervals that lie between start and stop."""
    return np.asarray(np.clip(intervals[(intervals[:, 0] < stop) & (intervals[:, 1] > start)], start, stop))


def in_any(intervals: np.ndarray, samples: np.ndarray) -> np.ndarray:
    """Which of the samples (bool, n) lie in one of the intervals (n, 2)."""
    before = np.searchsorted(intervals[:, 0], samples, "right")
    return np.searchsorted(intervals[:, 1], samples, "right") < before


def widened(intervals: np.ndarray | Iterable[tuple[int, int]], reach: int, n_samples: int) -> np.ndarray:
    """Intervals (n, 2), ascending and apart, that cover the given ones (any order) and `reach` samples on both sides."""
    given = intervals if isinstance(intervals, np.ndarray) else np.array([*intervals])
    given = given.reshape(-1, 2).astype(np.int64)
    first, end = np.maximum(given[:, 0] - reach, 0), np.minimum(given[:, 1] + reach, n_samples)
    order = np.lexsort((end, first))
    first, end = first[order], np.maximum.accumulate(end[order])
    begins = np.r_[True, first[1:] > end[:-1]][: len(first)]
    return np.stack([first[begins], end[np.r_[begins[1:], True][: len(end)]]], axis=1)


def bridged(recording: Recording, gaps: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Traces (stop - start, n_channels) of the recording, in a gap half a cosine from the sample before to the one after it."""
    here = gaps[(gaps[:, 0] < stop) & (gaps[:, 1] > start) & (gaps[:, 0] < gaps[:, 1])]
    traces = recording.traces(start, stop)
    if not len(here):
        return traces

    def values_at(samples: np.ndarray) -> np.ndarray:
        values = np.zeros((len(samples), recording.n_channels), np.float32)
        known = (samples >= start) & (samples < stop)
        values[known] = traces[samples[known] - start]
        # only those of the first and the last gap can lie outside
        for place in np.flatnonzero(~known):
            values[place] = recording.traces(int(samples[place]), int(samples[place]) + 1)[0]
        return values

    first, end = here.T
    after = values_at(np.where(end < recording.n_samples, end, first - 1))
    before = values_at(np.where(first > 0, first - 1, np.minimum(end, recording.n_samples - 1)))
    low, high = np.maximum(first, start), np.minimum(end, stop)
    of_gap = np.repeat(np.arange(len(here)), high - low)
    samples = np.arange(len(of_gap)) - np.repeat(np.cumsum(high - low) - (high - low), high - low) + low[of_gap]
    share = 0.5 - 0.5 * np.cos(np.pi * (samples - first[of_gap] + 1) / (end - first + 1)[of_gap])
    traces[samples - start] = before[of_gap] + share[:, None] * (after - before)[of_gap]
    return traces
