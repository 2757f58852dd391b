"""Recordings that SpikeInterface has saved: binary folders, read here, and zarr, through SpikeInterface."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.data.recording import Recording
from spikecrsae.errors import InputError
from spikecrsae.readers.assemble import missing_package
from spikecrsae.readers.binary import raw_rows
from spikecrsae.readers.geometry import read_probe
from spikecrsae.readers.neo_signals import recording_over
from spikecrsae.readers.read_options import ReadOptions, numeric_dtype
from spikecrsae.readers.stamps import regular_stretches
from spikecrsae.readers.streams import Read, Stream, StreamReader, StreamSegment
from spikecrsae.system.safe_hdf5 import load_npy
from spikecrsae.system.text import read_text

#: The file with the facts of a binary folder, today and before version 0.95.
_FACTS = ("binary.json", "cached.json")
#: A probe of some thousand contacts has several MB of annotations.
_MOST_MB = 64
#: Time stamps may tell another rate than the description by this part, as where they are those of another device.
_SAME_RATE = 0.01
#: The samples of one segment.
_SEGMENT = re.compile(r"traces_cached_seg\d+\.raw")


def is_spikeinterface(path: Path) -> bool:
    """Whether a folder is a recording of SpikeInterface, or a sorting, or a file is the description or the samples of one."""
    if path.is_dir():
        return any((path / name).is_file() for name in (*_FACTS, "si_folder.json")) or _is_zarr(path)
    is_segment = _SEGMENT.fullmatch(path.name) and any((path.parent / name).is_file() for name in _FACTS)
    return path.name in (*_FACTS, "si_folder.json") or bool(is_segment)


def _is_zarr(folder: Path) -> bool:
    return (folder / ".zattrs").is_file() and (folder / "channel_ids").is_dir()


def read_spikeinterface(path: Path, options: ReadOptions) -> Recording:
    """A Recording over what SpikeInterface has saved: gains and offsets (else ADC), positions, groups, segments.

    Raises InputError where the folder is no recording, a file of it is missing or cut off, or zarr is not installed.
    """
    options.refuse_others(path, "a recording of SpikeInterface", ("segment",))
    folder = path if path.is_dir() else path.parent
    if _is_zarr(folder):
        return recording_over(StreamReader([_zarr(folder)]), "SpikeInterface zarr", path, options)
    facts = next((folder / name for name in _FACTS if (folder / name).is_file()), None)
    if facts is None:
        raise InputError(
            f"{path} is no binary folder or zarr folder that SpikeInterface saved; save one with recording.save(folder=..., format='binary')."
        )
    only = path.name if _SEGMENT.fullmatch(path.name) else None
    return recording_over(StreamReader([_binary(folder, facts, only)]), "SpikeInterface", path, options)


def _binary(folder: Path, path: Path, only: str | None) -> Stream:
    """The recording that a description tells of; only: the one file that is wanted of it."""
    try:
        facts = json.loads(read_text(path, _MOST_MB))["kwargs"]
        n = int(facts["num_channels"] if "num_channels" in facts else facts["num_chan"])
        dtype, rate, names = numeric_dtype(facts["dtype"]), float(facts["sampling_frequency"]), facts["file_paths"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} does not describe a binary recording ({error!r}); save the recording again.") from error
    # a folder may have been moved, and no name in it leads to another one
    files = [folder / Path(str(name).replace("\\", "/")).name for name in names]
    if lost := [file.name for file in files if not file.is_file()]:
        raise InputError(f"{folder}: {', '.join(lost)} of {path.name} is missing; copy the whole folder again.")
    starts = facts.get("t_starts") or [None] * len(files)
    gains, offsets = (_property(folder, name, facts.get(name)) for name in ("gain_to_uV", "offset_to_uV"))
    groups = _property(folder, "group", None)
    wanted = [k for k, file in enumerate(files) if only in (None, file.name)]
    segments = [_segment(k, files[k], starts[k], n, dtype, facts) for k in wanted]
    segments, rate = _by_times(segments, [_times(folder, k) for k in wanted], rate, path)
    return Stream(
        name="recording",
        rate=rate,
        dtype=dtype,
        names=[str(name) for name in facts.get("channel_ids") or range(n)],
        **_scale(n, gains, offsets),
        segments=segments,
        positions=_positions(folder, n),
        groups=None if groups is None else [str(group) for group in groups],
        neural=True,
    )


def _scale(n: int, gains: np.ndarray | None, offsets: np.ndarray | None) -> dict[str, Any]:
    """Scale of a stream's n channels: in uV, or where SpikeInterface knows no gain in stored numbers."""
    if gains is None or offsets is None:
        return {"units": [""] * n, "gains": np.ones(n), "offsets": np.zeros(n)}
    return {"units": ["uV"] * n, "gains": gains, "offsets": offsets}


def _segment(number: int, file: Path, start: float | None, n: int, dtype: np.dtype, facts: dict) -> StreamSegment:
    skipped = int(facts.get("file_offset") or 0)
    n_samples, rest = divmod(file.stat().st_size - skipped, n * dtype.itemsize)
    if rest or n_samples < 0:
        raise InputError(
            f"{file} has {file.stat().st_size} bytes, no multiple of {n} channels of {dtype}; it is cut off. Copy it again."
        )
    read: Read = raw_rows(file, dtype, n, skipped)
    if facts.get("time_axis", 0) == 1:
        rows = np.memmap(file, dtype, "r", skipped, (n, n_samples)).T
        read = lambda begin, end: rows[begin:end]  # noqa: E731
    return StreamSegment(float(start or 0.0), n_samples, read)


def _times(folder: Path, number: int) -> np.ndarray | None:
    """The time stamps in s of a segment's samples, where they were saved; not loaded."""
    raw, array = (folder / f"times_cached_seg{number}.{ending}" for ending in ("raw", "npy"))
    if raw.is_file():
        return np.memmap(raw, "<f8", "r")
    return np.load(array, mmap_mode="r", allow_pickle=False) if array.is_file() else None


def _by_times(
    segments: Sequence[StreamSegment], times: Sequence[np.ndarray | None], rate: float, path: Path
) -> tuple[list[StreamSegment], float]:
    """The segments, parted where time stamps in s (one array for each, or None) have gaps; and the rate, that of the longest
    segment with stamps where the given one would be a sample off in it.

    Raises InputError where stamps do not increase, are another number than the samples, or tell quite another rate.
    """
    found, longest = [], 0
    told_rate = rate
    for number, (segment, stamps) in enumerate(zip(segments, times, strict=True)):
        if stamps is None or segment.n_samples < 2:
            found.append(segment if stamps is None else replace(segment, start_time_s=float(stamps[0])))
            continue
        name = f"{path}: the time stamps of segment {number}"
        remedy = "Repair them, or save the recording again without times."
        if len(stamps) != segment.n_samples:
            raise InputError(f"{name} are {len(stamps)}, and it has {segment.n_samples} samples. {remedy}")
        try:
            told = regular_stretches(stamps, name)
        except InputError as error:
            raise InputError(f"{error} {remedy}") from error
        if abs(told.sampling_frequency / rate - 1) > _SAME_RATE:
            raise InputError(f"{name} tell {told.sampling_frequency:.6g} Hz, and the recording has {rate:.6g} Hz. {remedy}")
        if segment.n_samples > longest:
            longest, off = segment.n_samples, abs(told.sampling_frequency / rate - 1) * segment.n_samples
            told_rate = told.sampling_frequency if off >= 1 else rate
        for stretch in told.stretches:
            read = functools.partial(_rows_from, segment.read, stretch.first)
            found.append(StreamSegment(stretch.start_time_s, stretch.n_samples, read))
    return found, told_rate


def _rows_from(read: Read, first: int, start: int, stop: int) -> np.ndarray:
    return read(first + start, first + stop)


def _property(folder: Path, name: str, told: Any) -> np.ndarray | None:
    """A property of the channels, from its file or else as told."""
    file = folder / "properties" / f"{name}.npy"
    return load_npy(file) if file.is_file() else None if told is None else np.asarray(told)


def _positions(folder: Path, n: int) -> np.ndarray | None:
    """Of the contacts in the order of the channels that they are wired to; a part of them keeps the numbers of the whole."""
    file = next((folder / name for name in ("probegroup.json", "probe.json") if (folder / name).is_file()), None)
    places = {} if file is None else read_probe(file).positions
    return np.array([places[channel] for channel in sorted(places)]) if len(places) == n else None


def _zarr(folder: Path) -> Stream:
    try:
        import spikeinterface
    except ImportError as error:
        raise missing_package(folder, "zarr of SpikeInterface", "spikeinterface") from error
    recording = spikeinterface.load(folder)
    n, numbers = recording.get_num_channels(), range(recording.get_num_segments())
    segments, rate = _by_times(
        [
            StreamSegment(
                float(recording.get_start_time(k)), int(recording.get_num_samples(k)), functools.partial(_rows, recording, k)
            )
            for k in numbers
        ],
        [recording.get_times(k) if recording.has_time_vector(k) else None for k in numbers],
        float(recording.get_sampling_frequency()),
        folder,
    )
    gains, offsets = recording.get_channel_gains(), recording.get_channel_offsets()
    groups = recording.get_property("group")
    return Stream(
        name="recording",
        rate=rate,
        dtype=np.dtype(recording.get_dtype()),
        names=[str(name) for name in recording.get_channel_ids()],
        **_scale(n, gains, offsets),
        segments=segments,
        positions=recording.get_channel_locations() if recording.has_probe() else None,
        groups=None if groups is None else [str(group) for group in groups],
        neural=True,
    )


def _rows(recording: Any, segment: int, start: int, stop: int) -> np.ndarray:
    return recording.get_traces(segment_index=segment, start_frame=start, end_frame=stop)
