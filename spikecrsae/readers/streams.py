"""Streams of the formats that are read here, behind the part of neo.rawio's interface that `recording_over` uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

#: read(start, stop) -> stored numbers (stop - start, n_channels).
Read = Callable[[int, int], np.ndarray]

_CHANNEL = [
    ("name", "U64"), ("id", "U64"), ("sampling_rate", "f8"), ("dtype", "U16"), ("units", "U64"), ("gain", "f8"), ("offset", "f8"),
    ("stream_id", "U128"),
]  # fmt: skip


@dataclass(frozen=True)
class StreamSegment:
    """Signal without a gap: `n_samples` from `start_time_s` (the file's own clock) on."""

    start_time_s: float
    n_samples: int
    read: Read


#: A segment that one stream lacks and another has.
_MISSING = StreamSegment(0.0, 0, lambda start, stop: np.zeros((0, 0)))


@dataclass(frozen=True)
class Stream:
    """Channels that were sampled together.

    names, units, gains, offsets have one entry per channel: stored * gain + offset is in the channel's unit, which is
    empty where the file names none. positions (n_channels, 2) in um, and groups: of each channel, or None. neural: signal of
    electrodes, unfiltered where there is a choice. notes: what a user should know of it.
    """

    name: str
    rate: float
    dtype: np.dtype
    names: Sequence[str]
    units: Sequence[str]
    gains: Sequence[float] | np.ndarray
    offsets: Sequence[float] | np.ndarray
    segments: Sequence[StreamSegment]
    positions: np.ndarray | None = None
    groups: Sequence[str] | None = None
    neural: bool = False
    notes: tuple[str, ...] = ()

    def part(self, channels: Sequence[int] | None) -> Stream:
        """The same of some of its channels, by position; of all for None. Its segments stay as they are."""
        if channels is None:
            return self
        positions = None if self.positions is None else self.positions[channels]
        groups = None if self.groups is None else [self.groups[c] for c in channels]
        return replace(self, positions=positions, groups=groups)


class StreamReader:
    """Streams as a reader of neo shows them: one block with their segments."""

    def __init__(self, streams: Sequence[Stream], files: Sequence[Any] = ()) -> None:
        """files: what is closed with the reader."""
        self._streams, self._files = list(streams), files
        self.stream_of_name = {stream.name: stream for stream in streams}
        channels = [
            (name, name, stream.rate, str(stream.dtype), unit, gain, offset, stream.name)
            for stream in streams
            for name, unit, gain, offset in zip(stream.names, stream.units, stream.gains, stream.offsets, strict=True)
        ]
        self.header = {
            "signal_streams": np.array([(s.name, s.name) for s in streams], [("name", "U128"), ("id", "U128")]),
            "signal_channels": np.array(channels, _CHANNEL),
            "spike_channels": np.array([]),
        }

    def block_count(self) -> int:
        return 1

    def segment_count(self, block: int) -> int:
        return max(len(stream.segments) for stream in self._streams)

    def _at(self, segment: int, stream: int) -> StreamSegment:
        segments = self._streams[stream].segments
        return segments[segment] if segment < len(segments) else _MISSING

    def get_signal_size(self, block: int, segment: int, stream: int) -> int:
        return self._at(segment, stream).n_samples

    def get_signal_t_start(self, block: int, segment: int, stream: int) -> float:
        return self._at(segment, stream).start_time_s

    def get_signal_sampling_rate(self, stream: int) -> float:
        return self._streams[stream].rate

    def get_analogsignal_chunk(
        self,
        block_index: int,
        seg_index: int,
        i_start: int,
        i_stop: int,
        stream_index: int,
        channel_indexes: Sequence[int] | slice = slice(None),
    ) -> np.ndarray:
        return self._at(seg_index, stream_index).read(i_start, i_stop)[:, channel_indexes]

    def close(self) -> None:
        for file in self._files:
            file.close()
