"""Small recordings in the formats in which laboratories exchange data: MATLAB, NumPy, SpikeInterface, MountainSort, HDF5 of
Multi Channel Systems; see recording_files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import scipy.io

from helpers.recording_files import FS, N_CHANNELS, Written, stored
from helpers.vendor_files import pack

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
    stamps = stamps or [[10_000, 0, len(raw) - 1]]
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
    return Written(path, (raw - 100) * 0.195312, "uV", "int32", start_time_s=0.01)


def matlab(folder: Path) -> Written:
    """MATLAB 5, packed (its default, -v7), as wave_clus reads it, beside what else may stand there."""
    raw, path = stored(), folder / "wave_clus.mat"
    values = {
        "data": raw.T,
        "sr": FS,
        "OriginalFile": "C:/rec/" + 200 * "a",
        "par": {"sr": 1.0},
        "spike_times": np.arange(500.0),
    }
    scipy.io.savemat(path, values, do_compression=True)
    return Written(path, raw.astype(float), "ADC", "int16")


def matlab_trials(folder: Path) -> Written:
    """Trials of UltraMegaSort2000: a cell of matrices (n_samples, n_channels), here in a struct, in mV."""
    raw, path = stored("float32"), folder / "trials.mat"
    cell = np.empty(2, object)
    cell[0], cell[1] = raw[:25_000], raw[25_000:]
    scipy.io.savemat(path, {"session": {"data": cell, "Fs": FS, "units": "mV", "gain": 0.5}, "Fs": 1.0})
    return Written(path, raw * 500.0, "uV", "float32")


def matlab_variable(file: h5py.File, name: str, value: np.ndarray | str) -> None:
    """A variable as MATLAB 7.3 stores it: transposed, with its class."""
    is_text = isinstance(value, str)
    data = np.array([[ord(letter)] for letter in value], "uint16") if is_text else np.atleast_2d(value).T
    file[name] = data
    kind = "char" if is_text else {"float64": "double", "float32": "single"}.get(str(data.dtype), str(data.dtype))
    file[name].attrs["MATLAB_class"] = np.bytes_(kind)


def matlab_7_3(folder: Path, interval: float = 1e3 / FS) -> Written:
    """MATLAB 7.3 with the names of Quiroga's simulations: an interval in ms, and another vector as long as the data."""
    raw, path = stored("float64"), folder / "simulation.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        matlab_variable(file, "data", raw)
        matlab_variable(file, "OVERLAP_DATA", raw[:, 0])
        matlab_variable(file, "samplingInterval", np.array(interval))
        matlab_variable(file, "OriginalFile", "simulation " * 20)
        file["#refs#/a"] = np.arange(500.0)[None]
        matlab_variable(file, "cellnames", np.zeros(2))
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + b" " * 8 + b"\x00\x02IM")
    return Written(path, raw, "ADC", "float64")


def mtscomp(folder: Path) -> Written:
    """A raw file that mtscomp has packed, without SpikeGLX."""
    raw, path = stored("<i2"), folder / "packed.bin"
    raw.tofile(path)
    pack(path, round(FS), N_CHANNELS)
    path.unlink()
    return Written(path.with_suffix(".cbin"), raw.astype(float), "ADC", "int16")


def npy(folder: Path) -> Written:
    raw = stored()
    np.save(folder / "a.npy", raw)
    return Written(folder / "a.npy", raw.astype(float), "ADC", "int16", {"sampling_frequency": FS})


def npy_transposed(folder: Path) -> Written:
    """One row per channel, as many have it."""
    raw = stored("float32")
    np.save(folder / "b.npy", raw.T.copy())
    return Written(folder / "b.npy", raw, "ADC", "float32", {"sampling_frequency": FS})


def mountainsort(folder: Path) -> Written:
    """A dataset of MountainSort: raw.mda with 32-bit lengths, rate and positions beside it."""
    raw, place = stored("<i2"), folder / "dataset"
    place.mkdir()
    (place / "raw.mda").write_bytes(np.array([-4, 2, 2, N_CHANNELS, len(raw)], "<i4").tobytes() + raw.tobytes())
    (place / "params.json").write_text('{"samplerate": 20000, "spike_sign": -1}')
    (place / "geom.csv").write_text("0,0\n0,20\n20,0\n20,20\n")
    return Written(place, raw.astype(float), "ADC", "int16")


def spikeinterface_binary(folder: Path, **changes) -> Written:
    """A binary folder as SpikeInterface 0.105 saves it, of one segment whose times begin at 4 s."""
    raw, place = stored("<i2"), folder / "saved"
    (place / "properties").mkdir(parents=True)
    raw.tofile(place / "traces_cached_seg0.raw")
    (4.0 + np.arange(len(raw)) / FS).tofile(place / "times_cached_seg0.raw")
    facts = {"file_paths": ["traces_cached_seg0.raw"], "sampling_frequency": FS, "t_starts": None, "num_channels": N_CHANNELS,
             "dtype": "<i2", "channel_ids": ["a", "b", "c", "d"], "time_axis": 0, "file_offset": 0, "gain_to_uV": None,
             "offset_to_uV": None}  # fmt: skip
    kind = "spikeinterface.core.binaryrecordingextractor.BinaryRecordingExtractor"
    description = {
        "class": kind,
        "module": "spikeinterface",
        "version": "0.105.3",
        "kwargs": facts | changes,
        "relative_paths": True,
        "annotations": {},
        "properties": {},
    }
    (place / "binary.json").write_text(json.dumps(description))
    kind = "spikeinterface.core.binaryfolder.BinaryFolderRecording"
    saved = {
        "class": kind,
        "module": "spikeinterface",
        "version": "0.105.3",
        "kwargs": {"folder_path": "."},
        "relative_paths": True,
        "annotations": {},
        "properties": {},
    }
    (place / "si_folder.json").write_text(json.dumps(saved))
    np.save(place / "properties" / "gain_to_uV.npy", np.array([0.1, 0.1, 0.1, 0.2]))
    np.save(place / "properties" / "offset_to_uV.npy", np.array([0, 0, 0, 5]))
    return Written(place, raw * np.array([0.1, 0.1, 0.1, 0.2]) + np.array([0, 0, 0, 5]), "uV", "int16", start_time_s=4.0)


WRITERS: tuple[Callable[[Path], Written], ...] = (
    mcs_hdf5, matlab, matlab_trials, matlab_7_3, mtscomp, npy, npy_transposed, mountainsort, spikeinterface_binary,
)  # fmt: skip
