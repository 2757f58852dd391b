"""The first format of Open Ephys: one .continuous file per channel, of which those are read that are named."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikecrsae.errors import InputError
from spikecrsae.readers.neural import is_other_input, natural_key
from spikecrsae.readers.streams import Stream, StreamReader, StreamSegment

_HEADER, _SAMPLES = 1024, 1024
_RECORD = np.dtype([("timestamp", "<i8"), ("rest", "S4"), ("samples", ">i2", _SAMPLES), ("mark", "S10")])
#: A file's name: processor and perhaps its stream, channel, number of the recording from the second on, as in 100_CH1_2.
_NAME = re.compile(r"(?:(.*)_)?([^_]*[^\W\d_][^_]*)(?:_(\d+))?")


@dataclass(frozen=True)
class _File:
    """One channel in one recording. source: what stands before the channel's name; stamps (n_records,): the number of each record's
    first sample; samples (n_records, 1024)."""

    path: Path
    source: str
    channel: str
    number: int
    rate: float
    gain: float
    stamps: np.ndarray
    samples: np.ndarray

    @property
    def stream(self) -> tuple[str, str, float]:
        """What is alike in files of one stream: source, kind of channel (CH, AUX, ADC) and rate."""
        return self.source, re.split(r"\d", self.channel)[0], self.rate


def read_open_ephys_legacy(path: Path) -> StreamReader:
    """The streams of a .continuous file, or of those in a folder: a stream for each processor and kind of channel.

    Where the files of a stream do not have the same records, those that all have are read, and a note says so. Raises InputError where
    a file is cut off, its time stamps do not increase, or a channel is missing in one of several recordings.
    """
    paths = [path] if path.is_file() else [file for file in path.iterdir() if file.suffix.lower() == ".continuous"]
    paths.sort(key=lambda file: natural_key(file.name))
    empty = [file for file in paths if file.stat().st_size < _HEADER + _RECORD.itemsize] if len(paths) > 1 else []
    note = (f"files left out, which hold no sample: {', '.join(file.name for file in empty)}",) if empty else ()
    streams: dict[tuple[str, str, float], list[_File]] = {}
    for file in paths:
        if file not in empty:
            found = _open(file)
            streams.setdefault(found.stream, []).append(found)
    several = len({source for source, _, _ in streams}) > 1
    found_streams = [
        _stream(f"{source} Signals {kind}" if several else f"Signals {kind}".rstrip(), files, note)
        for (source, kind, _), files in streams.items()
    ]
    return StreamReader(sorted(found_streams, key=lambda stream: not stream.neural))


def _open(path: Path) -> _File:
    with path.open("rb") as file:
        header = file.read(_HEADER).decode("latin-1")
    facts = dict(re.findall(r"header\.(\w+)\s*=\s*'?([^';]*)'?;", header))
    try:
        rate, gain = float(facts["sampleRate"]), float(facts["bitVolts"])
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path}: its header of {_HEADER} bytes does not give {error}; the file is damaged, or no .continuous file of Open Ephys."
        ) from error
    n_records = (path.stat().st_size - _HEADER) // _RECORD.itemsize
    if n_records < 1:
        raise InputError(f"{path} holds no sample: it ends after its header of {_HEADER} bytes. Give a file with samples.")
    records = np.memmap(path, _RECORD, "r", _HEADER, shape=(n_records,))
    stamps = np.ascontiguousarray(records["timestamp"])
    if len(back := np.flatnonzero(np.diff(stamps) <= 0)):
        last = int(back[0] + 1) * _SAMPLES - 1
        raise InputError(
            f"{path}: the time stamps do not increase: the record that ends with sample {last} has {stamps[back[0]]}, the one from sample "
            f"{last + 1} on {stamps[back[0] + 1]}. Repair the file, or move it away to sort the other channels."
        )
    name = facts.get("channel", "")
    pattern = rf"(?:(.*)_)?({re.escape(name)})(?:_(\d+))?"
    parts = (name and re.fullmatch(pattern, path.stem)) or _NAME.fullmatch(path.stem)
    source, channel, number = parts.groups() if parts else (*path.stem.rpartition("_")[::2], None)
    return _File(path, source or "", channel, int(number or 1), rate, gain, stamps, records["samples"])


def _stream(name: str, files: Sequence[_File], note: tuple[str, ...]) -> Stream:
    """The channels of one stream, their recordings one after the other and divided where records are missing."""
    recordings: dict[int, list[_File]] = {}
    for file in files:
        recordings.setdefault(file.number, []).append(file)
    segments, notes = [], list(note)
    first = next(iter(recordings.values()))
    for _, members in sorted(recordings.items()):
        if [file.channel for file in members] != [file.channel for file in first]:
            raise InputError(
                f"{members[0].path.parent}: the recordings of {name} have different channels: {', '.join(file.path.name for file in first)}, and "
                f"{', '.join(file.path.name for file in members)}. Give the files of one recording."
            )
        shared = members[0].stamps
        for file in members[1:]:
            shared = shared if np.array_equal(shared, file.stamps) else np.intersect1d(shared, file.stamps)
        if not len(shared):
            raise InputError(
                f"{members[0].path} and the files with it have no record of the same time in common; give one of them."
            )
        if longer := [file.path.name for file in members if len(file.stamps) > len(shared)]:
            notes.append(
                f"not all files have the same records: {len(shared) * _SAMPLES} samples that all have are read, and more are in "
                f"{', '.join(longer)}; leave the shortest file out to read them"
            )
        places = [np.searchsorted(file.stamps, shared) for file in members]
        for begin, end in _stretches(shared):
            segments.append(_segment(members, [place[begin:end] for place in places], shared[begin] / members[0].rate))
    names = [file.channel for file in first]
    return Stream(
        name=name,
        rate=files[0].rate,
        dtype=np.dtype("int16"),
        names=names,
        units=["V" if is_other_input(channel) else "uV" for channel in names],
        gains=[file.gain for file in first],
        offsets=np.zeros(len(names)),
        segments=segments,
        neural=not is_other_input(names[0]),
        notes=tuple(notes),
    )


def _stretches(stamps: np.ndarray) -> list[tuple[int, int]]:
    """First and last record (exclusive) of each stretch in which records follow one another."""
    begins = np.r_[0, np.flatnonzero(np.diff(stamps) != _SAMPLES) + 1]
    return list(zip(begins.tolist(), [*begins[1:].tolist(), len(stamps)], strict=True))


def _segment(files: Sequence[_File], places: Sequence[np.ndarray], start_s: float) -> StreamSegment:
    def read(start: int, stop: int) -> np.ndarray:
        first, last = start // _SAMPLES, -(-stop // _SAMPLES)
        columns = [file.samples[place[first:last]].reshape(-1) for file, place in zip(files, places, strict=True)]
        return np.stack(columns, axis=1).astype(np.int16)[start - first * _SAMPLES : stop - first * _SAMPLES]

    return StreamSegment(float(start_s), len(places[0]) * _SAMPLES, read)
