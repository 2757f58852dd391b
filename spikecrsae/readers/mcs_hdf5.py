"""HDF5 files of Multi Channel Systems (Multi Channel DataManager's export, protocol RawData), read with h5py alone."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from spikecrsae.data.recording import Recording
from spikecrsae.errors import InputError
from spikecrsae.readers.hdf5 import recording_of_file, slicer, text, unwritten
from spikecrsae.readers.neo_signals import recording_over
from spikecrsae.readers.read_options import ReadOptions
from spikecrsae.readers.streams import Read, Stream, StreamReader, StreamSegment
from spikecrsae.system.safe_hdf5 import attribute, whole

_FACTS = ("RowIndex", "Label", "Unit", "Exponent", "ADZero", "Tick", "ConversionFactor")


def is_mcs(file: h5py.File) -> bool:
    """Whether the content is that of Multi Channel Systems."""
    return "McsHdf5ProtocolType" in file.attrs or "Data/Recording_0/AnalogStream" in file


def read_mcs(path: Path, options: ReadOptions) -> Recording:
    """A Recording over an analog stream in its unit: of electrodes, and not computed from another stream, unless told.

    Recordings of a file, and what its time stamps show as parts, are segments. Raises InputError where there is no analog stream,
    or its channels are not described; UsageError where several streams leave a choice.
    """
    options.refuse_others(path, "HDF5 of Multi Channel Systems", ("stream", "segment"))

    def make(file: h5py.File) -> Recording:
        return recording_over(StreamReader(_streams(file, path), [file]), "MCS HDF5", path, options)

    return recording_of_file(path, make)


def _streams(file: h5py.File, path: Path) -> list[Stream]:
    groups: dict[str, list[h5py.Group]] = {}
    for number in range(len(file["Data"])):
        for name, group in file.get(f"Data/Recording_{number}/AnalogStream", {}).items():
            if "ChannelData" in group and "InfoChannel" in group:
                groups.setdefault(name, []).append(group)
    if not groups:
        raise InputError(
            f"{path} holds no analog stream (Data/Recording_0/AnalogStream); export one with the signal of the electrodes."
        )
    ids = {text(attribute(group, "StreamGUID")) for parts in groups.values() for group in parts}
    return [_stream(name, parts, ids, path) for name, parts in groups.items()]


def _stream(name: str, groups: list[h5py.Group], ids: set[str], path: Path) -> Stream:
    """One stream of all recordings of a file: stored less ADZero, times ConversionFactor and 10^Exponent, is in Unit."""
    info = whole(groups[0]["InfoChannel"])
    if missing := set(_FACTS) - set(info.dtype.names or ()):
        raise InputError(
            f"{path}: {groups[0].name}/InfoChannel lacks {', '.join(sorted(missing))}; the file is damaged; use another copy."
        )
    gains = info["ConversionFactor"] * 10.0 ** info["Exponent"]
    label = text(attribute(groups[0], "Label", b"")).strip()
    is_computed = text(attribute(groups[0], "SourceStreamGUID", b"")) in ids
    return Stream(
        name=f"{name} {label}".strip(),
        rate=1e6 / float(info["Tick"][0]),  # microseconds
        dtype=groups[0]["ChannelData"].dtype,
        names=[text(label).strip() for label in info["Label"]],
        units=[text(unit).strip() for unit in info["Unit"]],
        gains=gains,
        offsets=-info["ADZero"] * gains,
        segments=[segment for group in groups for segment in _segments(group, info["RowIndex"], path)],
        neural=text(attribute(groups[0], "DataSubType", b"")).strip() == "Electrode" and not is_computed,
    )


def _segments(group: h5py.Group, rows: np.ndarray, path: Path) -> list[StreamSegment]:
    """What lies between gaps: rows of first time stamp (microseconds), first and last sample."""
    data = group["ChannelData"]
    unwritten(data, path)
    read = slicer(data, 1)
    stamps = whole(group["ChannelDataTimeStamps"]) if "ChannelDataTimeStamps" in group else [[0, 0, data.shape[1] - 1]]
    return [StreamSegment(time * 1e-6, int(last - first) + 1, _from(read, int(first), rows)) for time, first, last in stamps]


def _from(read: Read, first: int, rows: np.ndarray) -> Read:
    return lambda start, stop: read(first + start, first + stop)[:, rows]
