"""Loud events of high-passed traces: where they are, how long and how steep they are, and whether all channels show the same."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy.ndimage import maximum_filter1d, median_filter

from spikecrsae.preprocess.noise import LEAST_NOISE
from spikecrsae.system.compiled import compiled
from spikecrsae.system.robust import deviation_about_zero
from spikecrsae.units import ms_to_samples

#: A loud event exceeds so many noise levels, and so many times the signal about it: half of SURROUNDINGS_MS is quieter.
LOUD, SURROUNDINGS_MS = 10.0, 65
#: Of two peaks closer than this the larger one is the event.
APART_MS = 0.75
#: An event lasts as long as there is no pause of twice PAUSE_MS below this share of its peak; what it disturbs, as long as
#: there is none below EDGE noise levels.
SHARE, EDGE, PAUSE_MS = 0.2, 4.0, 0.3
#: Bounds of an event on each side of its peak.
LONGEST_MS, MOST_DISTURBED_MS = 30.0, 3.0
#: The shape of an event by which it is compared with others: from before to after its peak, at so many times and channels.
BEFORE_MS, AFTER_MS, SHAPE_TIMES, SHAPE_CHANNELS = 0.5, 0.8, 14, 16
#: Numbers that all shapes together hold at most; the loudest events are kept.
MOST_NUMBERS = 2**24


@dataclass(frozen=True)
class Events:
    """Loud events in order of time, each field (n, ...).

    sample: of the peak; size: of the peak in units of noise; channel, value: of the peak, in the recording's unit; jump: largest
    change from one sample to the next on that channel, as a part of the range of values about the peak; sameness: 1 where all
    channels show the same values, 1 / n_channels where one channel shows any; first, end: samples [first, end) that the event
    lasts; phases: excursions to one side or the other, of at least SHARE of the peak, on its channel; from_, to: samples that it
    disturbs; shape (n, n_numbers): values about the peak.
    """

    sample: np.ndarray
    size: np.ndarray
    channel: np.ndarray
    value: np.ndarray
    jump: np.ndarray
    sameness: np.ndarray
    first: np.ndarray
    end: np.ndarray
    phases: np.ndarray
    from_: np.ndarray
    to: np.ndarray
    shape: np.ndarray

    def __len__(self) -> int:
        return len(self.sample)

    def select(self, which: np.ndarray) -> Events:
        return Events(*(getattr(self, f.name)[which] for f in fields(self)))

    @classmethod
    def joined(cls, parts: list[Events]) -> Events:
        """All events, without the quietest where their shapes hold more than MOST_NUMBERS."""
        events = cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))
        most = MOST_NUMBERS // max(1, events.shape.shape[1])
        if len(events) <= most:
            return events
        return events.select(np.argsort(-events.size, kind="stable")[:most])

    def in_order(self) -> Events:
        """The same events by their samples."""
        return self.select(np.argsort(self.sample, kind="stable"))


def find_events(
    traces: np.ndarray, kept: np.ndarray, rms: np.ndarray, core: slice, start: int, fs: float, loud: float = LOUD
) -> Events:
    """Find the loud events of high-passed traces (n_samples, n_channels), which begin at sample `start`, with peaks in the `core`.

    kept (bool, n_samples): samples outside gaps and stuck values. rms (n_bins, n_channels): root mean square of consecutive bins that divide the traces.
    loud: how many times the noise, and what is usual about it, an event exceeds.
    """
    sample = traces[::8][kept[::8]]
    level = deviation_about_zero(sample, axis=0).astype(np.float32) if len(sample) else np.zeros(traces.shape[1], np.float32)
    # a channel without noise tells of no event
    level[level < LEAST_NOISE] = np.inf
    size = _largest(traces, level)
    size[~kept] = 0
    width = len(traces) // len(rms)
    scale = np.maximum(1.0, median_filter((rms / level).max(axis=1), SURROUNDINGS_MS, mode="nearest")).astype(np.float32)
    apart = ms_to_samples(APART_MS, fs)
    peaks = core.start + np.flatnonzero(size[core] >= loud * scale[np.arange(core.start, core.stop) // width])
    peaks = peaks[size[peaks] == maximum_filter1d(size, 2 * apart + 1)[peaks]]
    pause = max(1, ms_to_samples(PAUSE_MS, fs))
    envelope = maximum_filter1d(size, 2 * pause + 1) if len(peaks) else size
    limits = (ms_to_samples(LONGEST_MS, fs), ms_to_samples(MOST_DISTURBED_MS, fs), max(1, ms_to_samples(1.0, fs)), pause)
    rows = _measured(traces, level, size, envelope, peaks, scale[peaks // width], *limits)
    times = np.unique(np.linspace(-ms_to_samples(BEFORE_MS, fs), ms_to_samples(AFTER_MS, fs), SHAPE_TIMES).astype(np.int64))
    channels = np.unique(np.linspace(0, traces.shape[1] - 1, min(SHAPE_CHANNELS, traces.shape[1])).astype(np.int64))
    around = np.clip(peaks[:, None] + times, 0, len(traces) - 1)
    shape = traces[around][:, :, channels] / level[channels]
    bounds = rows[:, 4:8].astype(np.int64) + start
    return Events(
        sample=peaks + start,
        size=size[peaks],
        channel=rows[:, 0].astype(np.int64),
        value=rows[:, 1],
        jump=rows[:, 2],
        sameness=rows[:, 3],
        first=bounds[:, 0],
        end=bounds[:, 1],
        phases=rows[:, 8].astype(np.int64),
        from_=bounds[:, 2],
        to=bounds[:, 3],
        shape=shape.reshape(len(peaks), len(times) * len(channels)),
    )


@compiled
def _largest(traces: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Per sample (n_samples,) the largest absolute value over the channels, in units of `level` (n_channels,)."""
    n_samples, n_channels = traces.shape
    size = np.zeros(n_samples, np.float32)
    for i in range(n_samples):
        for c in range(n_channels):
            size[i] = max(size[i], abs(traces[i, c]) / level[c])
    return size


@compiled
def _measured(
    traces: np.ndarray,
    level: np.ndarray,
    size: np.ndarray,
    envelope: np.ndarray,
    peaks: np.ndarray,
    scale: np.ndarray,
    longest: int,
    most: int,
    near: int,
    pause: int,
) -> np.ndarray:
    """Rows (n, 9) of channel, value, jump, sameness, first, end, from, to, phases of events at `peaks`."""
    n_samples, n_channels = traces.shape
    rows = np.zeros((len(peaks), 9))
    for e in range(len(peaks)):
        peak = peaks[e]
        channel = 0
        for c in range(n_channels):
            if abs(traces[peak, c]) / level[c] > abs(traces[peak, channel]) / level[channel]:
                channel = c
        low, high, jump = traces[peak, channel], traces[peak, channel], 0.0
        for i in range(max(1, peak - near), min(n_samples, peak + near + 1)):
            low, high = min(low, traces[i, channel]), max(high, traces[i, channel])
            jump = max(jump, abs(traces[i, channel] - traces[i - 1, channel]))
        least = max(SHARE * size[peak], EDGE * scale[e])
        first, end = peak, peak + 1
        while first > 0 and peak - first < longest and envelope[first - 1] >= least:
            first -= 1
        while end < n_samples and end - peak < longest and envelope[end] >= least:
            end += 1
        from_, to = first, end
        while from_ > 0 and first - from_ < most and envelope[from_ - 1] >= EDGE * scale[e]:
            from_ -= 1
        while to < n_samples and to - end < most and envelope[to] >= EDGE * scale[e]:
            to += 1
        first, end = min(first + pause, peak), max(end - pause, peak + 1)
        together, alone, phases, last = 0.0, 0.0, 0, 0.0
        for i in range(first, end):
            total = 0.0
            for c in range(n_channels):
                total += traces[i, c]
                alone += traces[i, c] * traces[i, c]
            together += total * total
            value = traces[i, channel]
            if abs(value) >= SHARE * abs(traces[peak, channel]) and (phases == 0 or value * last < 0):
                phases, last = phases + 1, value
        rows[e, 0], rows[e, 1], rows[e, 2] = channel, traces[peak, channel], jump / (high - low)
        rows[e, 3] = together / (n_channels * alone)
        rows[e, 4], rows[e, 5], rows[e, 6], rows[e, 7] = first, end, from_, to
        rows[e, 8] = phases
    return rows
