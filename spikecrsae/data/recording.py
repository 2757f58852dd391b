"""Recording: traces that are read when asked for, and the physical facts that belong to them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.data.artefacts import Pulses
from spikecrsae.data.timeline import Timeline
from spikecrsae.errors import InputError, UsageError
from spikecrsae.system.text import counted

#: A recording is processed in blocks of this many samples, counted from its first one, each by itself. So no bit of the
#: result depends on how many are held at once, in which process, and on which machine.
BLOCK = 2**16
#: Larger numbers are no voltages, and sums of their squares overflow float32. No gain is larger, and none smaller than its
#: inverse.
LARGEST_SAMPLE = 1e15
#: Rates are taken for equal up to this relative difference, which moves a time by 4 ms in an hour.
_SAME_RATE = 1e-6
#: No clock shows a time of so many seconds, 30,000 years; beyond it a sample is no longer told from the next.
LATEST_S = 1e12


@dataclass(frozen=True)
class Chunk:
    """A stretch of traces with margins.

    `traces` (n_samples, n_channels) covers [start - left, stop + right); the margins are shorter at the
    ends of the recording. `core` is the part inside the margins.
    """

    start: int
    stop: int
    left: int
    right: int
    traces: np.ndarray

    @property
    def core(self) -> slice:
        return slice(self.left, self.left + self.stop - self.start)


@dataclass(frozen=True)
class Segment:
    """One of several files or segments that make up a recording: `n_samples` from sample `first` on; `start_time_s` is the
    time of its first sample on its own clock. `same_clock`: this is the clock of the part before it, after a gap."""

    name: str
    first: int
    n_samples: int
    start_time_s: float
    same_clock: bool = False


@dataclass(frozen=True)
class Recording:
    """An extracellular recording whose signal is read on demand.

    read_raw(start, stop) returns the stored numbers of all stored channels, shape (stop - start, n_stored).
    `channels` are the stored columns in use; gain and offset have one value per channel in use and turn stored
    numbers into `amplitude_unit` ("uV" where the gain is known, else "ADC", stored numbers).
    `channel_positions` is (n_channels, 2) in um or None. `start_time_s` is the file's own time of sample 0.
    `channel_groups` names the group of each channel in use, "" for a channel of none; None where all are one group.
    `time_range` (first, end) are the samples to be sorted, None for all. `parts` are the files or segments of the recording, one
    after the other, and empty if there is one only. No filter runs from one part to the next. `pulses` are artefacts of a repeated
    shape: they are subtracted in `traces`, not in `raw`.
    """

    read_raw: Callable[[int, int], np.ndarray]
    n_samples: int
    sampling_frequency: float
    channels: tuple[int, ...]
    channel_ids: tuple[str, ...]
    gain: np.ndarray
    offset: np.ndarray
    amplitude_unit: str
    source: Path
    format: str
    dtype: str
    channel_positions: np.ndarray | None = None
    start_time_s: float = 0.0
    channel_groups: tuple[str, ...] | None = None
    time_range: tuple[int, int] | None = None
    parts: tuple[Segment, ...] = ()
    notes: tuple[str, ...] = ()
    pulses: tuple[Pulses, ...] = ()
    close: Callable[[], None] = field(default=lambda: None, repr=False)

    def __post_init__(self) -> None:
        if not (np.isfinite(self.sampling_frequency) and self.sampling_frequency > 0):
            raise InputError(
                f"{self.source}: sampling frequency {self.sampling_frequency} Hz is not a positive number; "
                "give the true one with --sampling-frequency."
            )
        if self.n_samples < 1 or not self.channels:
            raise InputError(
                f"{self.source}: {self.n_samples} samples on {len(self.channels)} channels; "
                "a recording needs at least one of each."
            )
        n = len(self.channels)
        if len(self.channel_ids) != n or self.gain.shape != (n,) or self.offset.shape != (n,):
            raise InputError(f"{self.source}: channel ids, gains and offsets must have one value for each of {n} channels.")
        for name, values, least in (("gain", self.gain, 1 / LARGEST_SAMPLE), ("offset", self.offset, 0.0)):
            # a NaN makes the comparison false
            if len(bad := values[~((np.abs(values) >= least) & (np.abs(values) <= LARGEST_SAMPLE))]):
                raise InputError(
                    f"{self.source}: {name} {bad[0]:g} must have a magnitude from {least:g} to {LARGEST_SAMPLE:g}; "
                    f"give the true one with --{name}."
                )
        if not abs(self.start_time_s) < LATEST_S:
            raise InputError(
                f"{self.source}: it starts at {self.start_time_s:g} s; a start time must lie between -{LATEST_S:g} and "
                f"{LATEST_S:g} s. Correct it in the file."
            )
        if self.channel_positions is not None and self.channel_positions.shape != (n, 2):
            raise InputError(
                f"{self.source}: channel positions have shape {self.channel_positions.shape}; it must be ({n}, 2)."
            )

    def __repr__(self) -> str:
        channels, rate = counted(self.n_channels, "channel"), f"{self.sampling_frequency:.10g} Hz"
        return f"<Recording: {channels}, {self.in_range().duration_s:.6g} s at {rate} from {self.source}>"

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def n_channels(self) -> int:
        """Number of channels in use."""
        return len(self.channels)

    @property
    def duration_s(self) -> float:
        """Length of the recording in seconds."""
        return self.n_samples / self.sampling_frequency

    @property
    def timeline(self) -> Timeline:
        """The recording's clock: the first file's own, across its gaps. A file on another
        clock begins where the last one ends."""
        times = [self.start_time_s]
        for before, part in zip(self.parts, self.parts[1:], strict=False):
            clocks = part.start_time_s - before.start_time_s
            times.append(times[-1] + (clocks if part.same_clock else before.n_samples / self.sampling_frequency))
        firsts = [0, *(part.first for part in self.parts[1:])]
        return Timeline(np.array(firsts, np.int64), np.array(times), self.sampling_frequency)

    @property
    def end_time_s(self) -> float:
        """Time on the recording's clock at which it ends."""
        return float(self.timeline.intervals_s([0, self.n_samples])[0, 1])

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Channels, by position from 0, of each named group, in the order of their first channels; empty where there are
        none."""
        found: dict[str, list[int]] = {}
        for channel, name in enumerate(self.channel_groups or ()):
            if name:
                found.setdefault(name, []).append(channel)
        return {name: tuple(channels) for name, channels in found.items()}

    def raw(self, start: int, stop: int) -> np.ndarray:
        """Stored numbers of the channels in use, (stop - start, n_channels), clipped to the recording; read only."""
        start, stop = max(0, start), min(self.n_samples, stop)
        stored = np.asarray(self.read_raw(start, stop))
        return stored if self.channels == tuple(range(stored.shape[1])) else stored[:, list(self.channels)]

    def traces(self, start: int, stop: int) -> np.ndarray:
        """float32 traces (stop - start, n_channels) in `amplitude_unit`, clipped to the recording."""
        values = self.raw(start, stop).astype(np.float64)
        values *= _one_if_shared(self.gain)
        values += _one_if_shared(self.offset)
        for pulses in self.pulses:
            pulses.subtract(values, max(0, start))
        return values.astype(np.float32)

    def chunks(self, chunk_size: int, margin: int = 0) -> Iterator[Chunk]:
        """Yield the whole recording in order, `chunk_size` samples at a time, with `margin` samples on each side."""
        for start in range(0, self.n_samples, chunk_size):
            stop = min(start + chunk_size, self.n_samples)
            left, right = min(margin, start), min(margin, self.n_samples - stop)
            yield Chunk(start, stop, left, right, self.traces(start - left, stop + right))

    def select(self, indices: Sequence[int]) -> Recording:
        """The same recording on some of its channels, by position from 0.

        Raises UsageError for an index that does not exist or is given twice.
        """
        picked = [int(i) for i in indices]
        bad = [i for i in picked if not 0 <= i < self.n_channels]
        if bad or not picked or len(set(picked)) != len(picked):
            raise UsageError(
                f"channels {picked} cannot be selected: {self.source} has channels 0 to {self.n_channels - 1}, "
                "each to be named once."
            )
        return replace(
            self,
            channels=tuple(self.channels[i] for i in picked),
            channel_ids=tuple(self.channel_ids[i] for i in picked),
            gain=self.gain[picked],
            offset=self.offset[picked],
            channel_positions=None if self.channel_positions is None else self.channel_positions[picked],
            channel_groups=None if self.channel_groups is None else tuple(self.channel_groups[i] for i in picked),
            pulses=tuple(pulses.select(picked) for pulses in self.pulses),
        )

    def between(self, start_s: float | None, stop_s: float | None) -> Recording:
        """The same recording, of which only start_s to stop_s will be sorted: seconds on its own clock, None for its ends.

        Raises UsageError where these times are not within it, or not in order.
        """
        if start_s is None and stop_s is None:
            return self
        first = 0 if start_s is None else round(float(self.timeline.samples(start_s)))
        end = self.n_samples if stop_s is None else round(float(self.timeline.samples(stop_s)))
        if not 0 <= first < end <= self.n_samples:
            asked = f"{'its start' if start_s is None else f'{start_s:.10g} s'} to {'its end' if stop_s is None else f'{stop_s:.10g} s'}"
            raise UsageError(
                f"{asked} is no part of {self.source}, which lasts from {self.start_time_s:.10g} to {self.end_time_s:.10g} s; give "
                "--start-s and --stop-s between these times, the earlier one first, and not both in one gap."
            )
        return replace(self, time_range=(first, end))

    def in_range(self) -> Recording:
        """The samples to be sorted, as a recording of their own; the recording itself if these are all."""
        if self.time_range is None:
            return self
        first, end = self.time_range
        parts = [(part, max(first, part.first), min(end, part.first + part.n_samples)) for part in self.parts]
        fs = self.sampling_frequency
        return replace(
            self,
            read_raw=lambda start, stop: self.read_raw(first + start, first + stop),
            n_samples=end - first,
            start_time_s=float(self.timeline.seconds(first)),
            time_range=None,
            pulses=tuple(pulses.later(-first) for pulses in self.pulses),
            parts=tuple(
                replace(
                    part, first=low - first, n_samples=high - low, start_time_s=part.start_time_s + (low - part.first) / fs
                )
                for part, low, high in parts
                if low < high
            ),
        )


def refuse_impossible(recording: Recording, raw: np.ndarray, start: int) -> None:
    """Raise InputError where stored samples (n_samples, n_channels) from `start` on are not finite, or too large for voltages:
    as they are stored, or in the recording's unit."""
    if not raw.size:
        return
    gain, offset = np.abs(recording.gain), np.abs(recording.offset)
    whole = np.iinfo(raw.dtype) if raw.dtype.kind in "iu" else None
    # what the number type can hold decides for most; only where it may be too large are the samples looked at
    most = float(whole.max) + 1 if whole else 0.0
    if whole is None or _scaled(most, gain, offset).max() >= LARGEST_SAMPLE:
        most = max(-float(raw.min()), float(raw.max()))
    # a NaN makes the comparison false
    if most < LARGEST_SAMPLE and _scaled(most, gain, offset).max() < LARGEST_SAMPLE:
        return
    size = np.abs(raw.astype(np.float64))
    sound = (size < LARGEST_SAMPLE) & (_scaled(np.minimum(size, LARGEST_SAMPLE), gain, offset) < LARGEST_SAMPLE)
    if sound.all():
        return
    row, channel = np.argwhere(~sound)[0]
    value, factor = raw[row, channel], recording.gain[channel]
    scale = "" if not np.isfinite(value) or factor == 1 else f" with a gain of {factor:g}"
    in_memory = recording.format == "array"
    remedy = "Replace such samples" if in_memory else "Repair the file"
    raise InputError(
        f"{recording.source}: sample {start + row} of channel {recording.channel_ids[channel]} is {value}{scale}; every sample must be "
        f"finite and below {LARGEST_SAMPLE:g}. {remedy}, leave the channel out with --channels, or check {'' if in_memory else '--dtype and '}--gain."
    )


def _scaled(size: np.ndarray | float, gain: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The largest magnitude that samples of this one can have in the recording's unit."""
    return np.asarray(size * gain + offset)


def _one_if_shared(values: np.ndarray) -> np.ndarray:
    """The channels' value where it is the same for all, else their values: numpy is slow along an axis of few numbers."""
    return values[0] if (values == values[0]).all() else values


def joined(recordings: Sequence[Recording], names: Sequence[str], one_clock: bool = False) -> Recording:
    """Join recordings, one after the other, into one whose parts have these `names`; a recording with parts keeps its own.
    `one_clock`: their start times are on one clock, which is used wherever it has not been set back.

    Raises InputError where their channels, sampling frequency, scale, number type or groups differ.
    """
    first = recordings[0]
    for other, name in zip(recordings[1:], names[1:], strict=True):
        for what, mine, its in _facts_to_share(first, other):
            if mine != its:
                raise InputError(f"{name} has {what} {its} and {names[0]} {mine}; they must agree. Sort them one by one.")
    edges = np.cumsum([0, *(recording.n_samples for recording in recordings)]).tolist()

    def read(start: int, stop: int) -> np.ndarray:
        pieces = [
            recording.read_raw(max(start, low) - low, min(stop, high) - low)
            for recording, low, high in zip(recordings, edges, edges[1:], strict=False)
            if start < high and stop > low
        ]
        return np.concatenate(pieces) if len(pieces) > 1 else pieces[0] if pieces else first.read_raw(0, 0)

    def close() -> None:
        for recording in recordings:
            recording.close()

    parts = [
        replace(part, first=low + part.first)
        for name, low, recording in zip(names, edges, recordings, strict=False)
        for part in recording.parts or [Segment(name, 0, recording.n_samples, recording.start_time_s)]
    ]
    if one_clock:
        half = 0.5 / first.sampling_frequency
        ends = [part.start_time_s + part.n_samples / first.sampling_frequency for part in parts]
        parts[1:] = [
            replace(part, same_clock=part.start_time_s > end - half) for end, part in zip(ends, parts[1:], strict=False)
        ]
    return replace(
        first,
        read_raw=read,
        n_samples=edges[-1],
        parts=tuple(parts),
        notes=tuple(dict.fromkeys(note for recording in recordings for note in recording.notes)),
        close=close,
    )


def _facts_to_share(first: Recording, other: Recording) -> list[tuple[str, object, object]]:
    """(what, its value in the one, in the other) of all that must be the same in recordings that are joined."""
    # rates that are measured by time stamps differ in their last digits
    same_rate = math.isclose(first.sampling_frequency, other.sampling_frequency, rel_tol=_SAME_RATE)
    return [
        (
            "sampling frequency",
            first.sampling_frequency,
            first.sampling_frequency if same_rate else other.sampling_frequency,
        ),
        ("number of channels", first.n_channels, other.n_channels),
        ("stored channels", first.channels, other.channels),
        ("channels", first.channel_ids, other.channel_ids),
        ("gain", first.gain.tolist(), other.gain.tolist()),
        ("offset", first.offset.tolist(), other.offset.tolist()),
        ("amplitudes in", first.amplitude_unit, other.amplitude_unit),
        ("number type", first.dtype, other.dtype),
        ("groups", first.channel_groups, other.channel_groups),
    ]


def check_traces(traces: np.ndarray, name: str) -> None:
    """Raise InputError where traces are no real numbers (n_samples, n_channels), or seem to be transposed."""
    if traces.ndim != 2 or traces.dtype.kind not in "iuf":
        raise InputError(
            f"{name}: traces of type {traces.dtype} and shape {traces.shape} must be real numbers (n_samples, n_channels)."
        )
    if traces.shape[1] > traces.shape[0] > 0:
        raise InputError(
            f"{name}: traces have shape {traces.shape}, more channels than samples; they seem to be transposed. The shape must be "
            "(n_samples, n_channels): give traces.T."
        )


def recording_from_array(
    traces: np.ndarray, sampling_frequency: float, *, amplitude_unit: str = "uV", name: str = "array", **facts: Any
) -> Recording:
    """A Recording over an array (n_samples, n_channels) in memory; `facts` are further Recording fields.

    Raises InputError as check_traces does.
    """
    traces = np.asarray(traces)
    check_traces(traces, name)
    n = traces.shape[1]
    return Recording(
        read_raw=lambda start, stop: traces[start:stop],
        n_samples=traces.shape[0],
        sampling_frequency=float(sampling_frequency),
        channels=tuple(range(n)),
        channel_ids=tuple(str(i) for i in range(n)),
        gain=np.ones(n),
        offset=np.zeros(n),
        amplitude_unit=amplitude_unit,
        source=Path(name),
        format="array",
        dtype=str(traces.dtype),
        **facts,
    )
