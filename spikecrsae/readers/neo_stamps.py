"""Gaps inside a segment of neo's: counts of samples that the file holds and neo leaves out of account."""

from __future__ import annotations

import datetime
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.errors import InputError
from spikecrsae.readers.assemble import Found
from spikecrsae.readers.stamps import Stretch, counted_stretches

#: Bytes of the header of a Neuralynx file.
_NCS_HEADER = 16_384


def reader_arguments(name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments with which a reader of neo makes a gap a new segment where it would refuse the file, and keeps the file's clock."""
    if name == "NeuralynxRawIO":
        return {**arguments, "keep_original_times": True, "gap_tolerance_ms": _half_a_sample_ms(arguments)}
    if name == "BlackrockRawIO":
        return {**arguments, "gap_tolerance_ms": 0.0}
    return {**arguments, "ignore_integrity_checks": True} if name == "IntanRawIO" else arguments


def _half_a_sample_ms(arguments: dict[str, Any]) -> float:
    """Half a period in ms of the fastest Neuralynx file that will be read: its stamps are rounded, and jitter less."""
    folder = Path(arguments.get("dirname") or ".")
    names = arguments.get("include_filenames") or [path.name for path in folder.glob("*.ncs")]
    rates = [1000.0]
    for name in names:
        with (folder / name).open("rb") as file:
            found = re.search(rb"-SamplingFrequency\s+([\d.]+)", file.read(_NCS_HEADER))
        rates += [float(found[1])] if found else []
    return 500 / max(rates)


def with_stretches(found: Found, reader: Any, block: int, segment: int, rows: np.ndarray) -> Found:
    """What was found in a segment on channels of these `rows` of the header, on the clock of the file and without what was filled
    into its gaps.

    Raises InputError where a count of samples is not larger than the one before.
    """
    kind = type(reader).__name__
    if kind == "BrainVisionRawIO":
        return replace(found, stretches=_brainvision_stretches(found, Path(reader.filename)))
    if kind == "OpenEphysBinaryRawIO":
        path, numbers = _open_ephys_numbers(_buffer(reader, block, segment, rows))
    elif kind == "IntanRawIO":
        path, numbers = found.path, reader.get_intan_timestamps()
    elif kind == "SpikeGadgetsRawIO":
        path, numbers = found.path, _spikegadgets_numbers(reader)
    else:
        return found
    if numbers is None or len(numbers) != found.n_samples or found.sampling_frequency is None:
        return found
    try:
        stretches = counted_stretches(numbers, found.sampling_frequency, f"{path}: the numbers of the samples")
    except InputError as error:
        raise InputError(f"{error} Repair them, or read the samples as raw binary.") from error
    return replace(found, stretches=stretches, start_time_s=stretches[0].start_time_s)


def _buffer(reader: Any, block: int, segment: int, rows: np.ndarray) -> dict[str, Any]:
    """Where the samples of these channels stand."""
    found: dict[str, Any] = reader._buffer_descriptions[block][segment][
        reader.header["signal_channels"]["buffer_id"][rows[0]]
    ]
    return found


def _open_ephys_numbers(buffer: dict[str, Any]) -> tuple[Path, np.ndarray | None]:
    """The file with the number of each sample beside those of a stream, and these; None where it holds seconds."""
    folder = Path(buffer["file_path"]).parent
    path = folder / "sample_numbers.npy"
    path = path if path.is_file() else folder / "timestamps.npy"
    numbers = np.load(path, mmap_mode="r", allow_pickle=False) if path.is_file() else np.zeros(0)
    return path, numbers if numbers.ndim == 1 and numbers.dtype.kind in "iu" else None


def _spikegadgets_numbers(reader: Any) -> np.ndarray:
    """The time stamp of each packet. Where every thousandth is in its place, the others are not read: they lie all over the file."""
    packets, at = reader._raw_memmap, reader._timestamp_byte
    some = packets[np.r_[0 : len(packets) : 1000, -1], at : at + 4].copy().view("<u4")[:, 0].astype(np.int64)
    first, last = int(some[0]), int(some[-1])
    if last - first == len(packets) - 1 and (np.diff(some[:-1]) == 1000).all():
        return np.arange(first, last + 1)
    return packets[:, at : at + 4].copy().view("<u4")[:, 0]


def _brainvision_stretches(found: Found, header: Path) -> tuple[Stretch, ...]:
    """What begins at the markers New Segment, at the dates that these bear; one without a date follows at once."""
    name = re.search(r"^MarkerFile\s*=\s*(.+)$", header.read_text("utf-8", "replace"), re.MULTILINE)
    path = header.with_name(name[1].strip().replace("$b", header.stem)) if name else header
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    marks = re.findall(r"^Mk\d+=New Segment,[^,\n]*,(\d+)(?:,[^,\n]*,[^,\n]*,(\d{20}))?", text, re.MULTILINE)
    assert found.sampling_frequency is not None
    begins = {int(place) - 1: date for place, date in marks if 1 < int(place) <= found.n_samples}
    firsts = [0, *sorted(begins)]
    dates = [next((date for place, date in marks if int(place) == 1), ""), *(begins[first] for first in firsts[1:])]
    stretches: list[Stretch] = []
    for first, end, date in zip(firsts, [*firsts[1:], found.n_samples], dates, strict=True):
        time = found.start_time_s
        if stretches:
            time = stretches[-1].start_time_s + stretches[-1].n_samples / found.sampling_frequency
        if date and dates[0]:
            time = max(time, found.start_time_s + (_marked(date) - _marked(dates[0])).total_seconds())
        stretches.append(Stretch(first, end - first, time))
    return tuple(stretches)


def _marked(date: str) -> datetime.datetime:
    """A date of Brain Products': year to second, and microseconds."""
    return datetime.datetime.strptime(date, "%Y%m%d%H%M%S%f")
