"""HDF5 files of MaxWell Biosystems: MaxOne, and MaxTwo with several wells and recordings, read with h5py alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import h5py
import numpy as np

from spikecrsae.data.recording import Recording
from spikecrsae.errors import InputError
from spikecrsae.readers.hdf5 import number, recording_of_file, slicer, unwritten
from spikecrsae.readers.neo_signals import recording_over
from spikecrsae.readers.read_options import ReadOptions
from spikecrsae.readers.streams import Read, Stream, StreamReader, StreamSegment
from spikecrsae.system.safe_hdf5 import whole

#: Rate of the first format (version 20160704), which does not say it.
_FIRST_HZ = 20_000.0


def is_maxwell(file: h5py.File) -> bool:
    """Whether the content is MaxWell's."""
    return "wells" in file or ("sig" in file and "mapping" in file)


def read_maxwell(path: Path, options: ReadOptions) -> Recording:
    """A Recording over one well, in uV, with the positions of its electrodes; its recordings are segments as long as they have the
    same electrodes, and streams of their own where these differ.

    Raises InputError where nothing was recorded or the samples cannot be unpacked; UsageError where several wells leave a choice.
    """
    options.refuse_others(path, "a file of MaxWell", ("stream", "segment"))

    def make(file: h5py.File) -> Recording:
        return recording_over(StreamReader(_streams(file, path), [file]), "MaxWell", path, options)

    return recording_of_file(path, make)


def _streams(file: h5py.File, path: Path) -> list[Stream]:
    if "wells" not in file:
        return [_stream("well000", [_Part(file, file["sig"], file["mapping"], path)], path)]
    streams = []
    for well, recordings in file["wells"].items():
        alike: dict[tuple, list[tuple[str, _Part]]] = {}
        for name, group in recordings.items():
            if "groups/routed/raw" in group:
                part = _Part(group, group["groups/routed/raw"], group["settings/mapping"], path)
                alike.setdefault((*part.channels, part.rate, part.step), []).append((name, part))
        for parts in alike.values():
            name = well if len(alike) == 1 else f"{well} {'+'.join(name for name, _ in parts)}"
            streams.append(_stream(name, [part for _, part in parts], path))
    if not streams:
        raise InputError(f"{path} holds no routed channels (wells/*/*/groups/routed/raw); record with routed electrodes.")
    return streams


class _Part:
    """One recording of a well: its samples (n_rows, n_samples) and, of those rows that have an electrode, numbers and places."""

    def __init__(self, group: h5py.Group, data: h5py.Dataset, mapping: h5py.Dataset, path: Path) -> None:
        settings, self.data = group["settings"], data
        unwritten(data, path)
        table = whole(mapping)
        table = table[table["channel"] >= 0]
        stored = whole(data.parent["channels"]).tolist() if "channels" in data.parent else None
        # MaxOne's first format has a row for every channel, later ones have one for every routed channel
        rows = table["channel"] if data.shape[0] > len(table) else np.arange(len(table))
        if stored is not None:
            table = table[np.isin(table["channel"], stored)]
            rows = np.array([stored.index(channel) for channel in table["channel"]])
        self.rows, self.channels = rows, tuple(table["channel"].tolist())
        self.electrodes, self.positions = table["electrode"].tolist(), np.stack([table["x"], table["y"]], axis=1)
        self.rate = float(settings["sampling"][0]) if "sampling" in settings else _FIRST_HZ
        self.step = float(settings["lsb"][0]) * 1e6 if "lsb" in settings else self._step(settings)
        self.started_ms = number(group["start_time"]) if "start_time" in group else None

    @staticmethod
    def _step(settings: h5py.Group) -> float | None:
        """uV of one step of a converter of 10 bits and 3.3 V, where the gain is known."""
        return 3.3e6 / (1024 * float(settings["gain"][0])) if "gain" in settings else None


def _stream(name: str, parts: list[_Part], path: Path) -> Stream:
    head, n, segments, time = parts[0], len(parts[0].rows), [], 0.0
    for part in parts:
        if part.started_ms is not None and head.started_ms is not None:
            time = (part.started_ms - head.started_ms) / 1e3
        read = _rows(part, path)
        for first, n_samples, frame in _without_gaps(part, path):
            segments.append(StreamSegment(time + frame / part.rate, n_samples, _from(read, first)))
        time = segments[-1].start_time_s + segments[-1].n_samples / part.rate
    return Stream(
        name=name,
        rate=head.rate,
        dtype=head.data.dtype,
        names=[f"ch{channel} elec{electrode}" for channel, electrode in zip(head.channels, head.electrodes, strict=True)],
        units=["uV" if head.step else ""] * n,
        gains=np.full(n, head.step or 1.0),
        offsets=np.zeros(n),
        segments=segments,
        positions=head.positions,
        neural=True,
    )


def _without_gaps(part: _Part, path: Path) -> list[tuple[int, int, int]]:
    """(first sample, number of samples, frame since the recording began) of what was recorded without a lost frame.

    Raises InputError where frame numbers do not increase.
    """
    n = part.data.shape[1]
    frames = whole(part.data.parent["frame_nos"]).astype(np.int64) if "frame_nos" in part.data.parent else np.zeros(0)
    if len(frames) != n:
        return [(0, n, 0)]
    steps = np.diff(frames)
    if len(back := np.flatnonzero(steps <= 0)):
        last, (before, after) = int(back[0]), frames[back[0] : back[0] + 2]
        raise InputError(
            f"{path}: the frame numbers do not increase: sample {last} has {before}, sample {last + 1} {after}. The file is damaged; repair it, "
            "or read its samples as raw binary."
        )
    firsts = [0, *(np.flatnonzero(steps > 1) + 1).tolist(), n]
    return [(first, end - first, int(frames[first] - frames[0])) for first, end in itertools.pairwise(firsts)]


def _from(read: Read, first: int) -> Read:
    return lambda start, stop: read(first + start, first + stop)


def _rows(part: _Part, path: Path) -> Read:
    read, rows = slicer(part.data, 1), part.rows
    try:
        read(0, 1)
    except OSError as error:
        raise InputError(
            f"{path}: its samples cannot be unpacked ({error}); they need the HDF5 plugin of MaxWell Biosystems, in the folder that the "
            "environment variable HDF5_PLUGIN_PATH names."
        ) from error
    return lambda start, stop: read(start, stop)[:, rows]
