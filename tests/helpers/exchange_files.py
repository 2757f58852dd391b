"""Small recordings in the formats in which laboratories exchange data: MATLAB, NumPy, SpikeInterface, MountainSort, HDF5 of
Multi Channel Systems; see recording_files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from helpers.recording_files import FS, N_CHANNELS, Written, stored

_INFO = [("ChannelID", "<i4"), ("RowIndex", "<i4"), ("GroupID", "<i4"), ("Label", h5py.string_dtype("ascii")),
         ("RawDataType", h5py.string_dtype("ascii")), ("Unit", h5py.string_dtype("ascii")), ("Exponent", "<i4"), ("ADZero", "<i4"),
         ("Tick", "<i8"), ("ConversionFactor", "<i8")]  # fmt: skip


def mcs_stream(group: h5py.Group, raw: np.ndarray, stamps: list, labels: list[str], **facts) -> None:
    """An analog stream after Multi Channel Systems' HDF5 protocol; raw (n_samples, n_channels) is stored in reverse rows."""
    n = raw.shape[1]
    group.attrs.update({name: np.bytes_(value) for name, value in facts.items()})
    group["ChannelData"] = raw.T[::-1]
    group["ChannelDataTimeStamps"] = np.array(stamps, "<i8")
    info = np.zeros(n, _INFO)
    info["ChannelID"] = np.arange(n)
    info["RowIndex"], info["Label"], info["Unit"], info["RawDataType"] = np.arange(n)[::-1], labels, "V", "Int"
    info["Exponent"], info["ADZero"], info["Tick"], info["ConversionFactor"] = -12, 100, round(1e6 / FS), 195312
    group["InfoChannel"] = info


def mcs_hdf5(folder: Path, stamps: list | None = None) -> Written:
    """Electrodes, the same filtered, and digital inputs."""
    raw, path = stored("<i4"), folder / "mea.h5"
    stamps = stamps or [[2_000_000, 0, len(raw) - 1]]
    with h5py.File(path, "w") as file:
        file.attrs["McsHdf5ProtocolType"] = np.bytes_("RawData")
        place = file.create_group("Data/Recording_0/AnalogStream")
        names = [f"E{i + 1}" for i in range(N_CHANNELS)]
        source = {"DataSubType": "Electrode", "Label": "Filter Data  \r\n", "StreamGUID": "b", "SourceStreamGUID": "a"}
        mcs_stream(place.create_group("Stream_0"), raw // 2, stamps, names, **source)
        acquired = {
            "DataSubType": "Electrode",
            "Label": "Electrode Raw Data  \r\n",
            "StreamGUID": "a",
            "SourceStreamGUID": "0",
        }
        mcs_stream(place.create_group("Stream_1"), raw, stamps, names, **acquired)
        mcs_stream(
            place.create_group("Stream_2"),
            raw[:, :1],
            stamps,
            ["D1"],
            DataSubType="Digital",
            Label="Digital Data",
            StreamGUID="c",
        )
    return Written(path, (raw - 100) * 0.195312, "uV", "int32", start_time_s=2.0)


WRITERS: tuple[Callable[[Path], Written], ...] = (mcs_hdf5,)
