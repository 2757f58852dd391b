"""Recordings on disk for the reader tests: one writer per layout, all from the same stored numbers; and how to refuse one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest

from spikecrsae.errors import SpikeCRsAEError
from spikecrsae.readers import open_recording

FS = 20000.0
N_SAMPLES, N_CHANNELS = 60_000, 4


@dataclass(frozen=True)
class Written:
    """A file or folder, the options it needs, and what a reader must find in it. traces: (n_samples, n_channels)."""

    path: Path
    traces: np.ndarray
    unit: str
    dtype: str
    options: dict = field(default_factory=dict)
    start_time_s: float = 0.0
    fs: float = FS


def stored(dtype: str = "int16") -> np.ndarray:
    """Stored numbers (n_samples, n_channels): noise, and twenty spikes a second of one neuron."""
    rng = np.random.default_rng(7)
    values = rng.integers(-300, 300, (N_SAMPLES, N_CHANNELS))
    shape = -2600 * np.exp(-((np.arange(-10, 11) / 3) ** 2))
    for at in range(400, N_SAMPLES - 400, 1000):
        start = at + int(rng.integers(-300, 300))
        values[start : start + 21] += np.outer(shape, [1.0, 0.6, 0.2, 0.0]).astype(int)
    return (values + 3000 * (np.dtype(dtype).kind == "u")).astype(dtype)


def hdf5_millivolts(folder: Path) -> Written:
    raw, path = stored(), folder / "mv.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("traces", data=raw, chunks=(1000, N_CHANNELS), compression="gzip", compression_opts=1)
        file["traces"].attrs.update({"sampling_frequency": FS, "units": "mV", "gain": 0.001, "offset": 0.5})
    return Written(path, raw * 1.0 + 500.0, "uV", "int16")


def hdf5_unsigned(folder: Path) -> Written:
    raw, path = stored("uint16"), folder / "adc.h5"
    with h5py.File(path, "w") as file:
        file["traces"] = raw
        file.attrs["fs"] = FS
    return Written(path, raw.astype(float), "ADC", "uint16")


def hdf5_channels_first(folder: Path) -> Written:
    raw, path = stored("float32"), folder / "rows.h5"
    with h5py.File(path, "w") as file:
        file["session/lfp"] = np.zeros((5000, 2))
        file["session/raw"] = raw.T
        file["session/raw"].attrs.update({"sampling_rate": FS, "unit": "V"})
    return Written(path, raw * 1e6, "uV", "float32", {"dataset": "session/raw", "axis": 1})


def write_mearec(path: Path, recordings: np.ndarray, version: str | None) -> None:
    with h5py.File(path, "w") as file:
        if version:
            file.attrs["mearec_version"] = version
        file["recordings"] = recordings
        file["channel_positions"] = np.array([[0.0, 0.0, z] for z in (-24, -8, 8, 24)])
        file["info/recordings/fs"] = FS
        file["info/recordings/gain"] = "null"
        file["spiketrains/0/times"] = np.array([0.1, 0.5])
        file["spiketrains/1/times"] = np.array([0.25])


def mearec(folder: Path) -> Written:
    raw = stored("float32")
    write_mearec(folder / "mearec.h5", raw, "1.9.0")
    return Written(folder / "mearec.h5", raw, "uV", "float32")


def mearec_transposed(folder: Path) -> Written:
    raw = stored("float32")
    write_mearec(folder / "mearec_old.h5", raw.T, None)
    return Written(folder / "mearec_old.h5", raw, "uV", "float32")


def write_nwb(
    path: Path, raw: np.ndarray, *, series: tuple[str, ...] = ("Raw",), timestamps: np.ndarray | None = None
) -> None:
    """The part of NWB that readers use, written with h5py alone."""
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.6.0"
        table = file.create_group("general/extracellular_ephys/electrodes")
        table["id"] = np.arange(10, 10 + N_CHANNELS)
        table["rel_x"], table["rel_y"] = np.full(N_CHANNELS, np.nan), np.full(N_CHANNELS, np.nan)
        table["x"], table["y"], table["z"] = np.array([0.0, 0, 20, 20]), np.array([0.0, 20, 0, 20]), np.zeros(N_CHANNELS)
        for name in series:
            group = file.create_group(f"acquisition/{name}")
            group.attrs["neurodata_type"] = "ElectricalSeries"
            group["data"] = raw
            group["data"].attrs.update({"conversion": 1e-7, "offset": 2e-6, "unit": "volts"})
            group["channel_conversion"] = np.array([1.0, 2.0, 1.0, 0.5])
            group["electrodes"] = np.arange(N_CHANNELS)
            group["electrodes"].attrs["table"] = table.ref
            if timestamps is None:
                group["starting_time"] = 12.5
                group["starting_time"].attrs["rate"] = FS
            else:
                group["timestamps"] = timestamps
        file["units/spike_times"] = 12.5 + np.array([0.1, 0.2, 0.3, 0.15])
        file["units/spike_times_index"] = np.array([3, 4])
        file["units/id"] = np.array([5, 9])


def nwb(folder: Path) -> Written:
    raw = stored()
    write_nwb(folder / "raw.nwb", raw)
    return Written(folder / "raw.nwb", raw * 0.1 * np.array([1, 2, 1, 0.5]) + 2.0, "uV", "int16", start_time_s=12.5)


def nwb_timestamps(folder: Path) -> Written:
    raw = stored()
    write_nwb(folder / "stamps.nwb", raw, timestamps=3.0 + np.arange(N_SAMPLES) / FS)
    return Written(folder / "stamps.nwb", raw * 0.1 * np.array([1, 2, 1, 0.5]) + 2.0, "uV", "int16", start_time_s=3.0)


def nwb_pynwb(folder: Path) -> Written:
    """The same through the reference library, with chunks and compression."""
    from datetime import UTC, datetime

    import pynwb
    from pynwb.ecephys import ElectricalSeries

    raw, path = stored(), folder / "pynwb.nwb"
    content = pynwb.NWBFile(
        session_description="test", identifier="test", session_start_time=datetime(2024, 1, 1, tzinfo=UTC)
    )
    device = content.create_device(name="wire")
    group = content.create_electrode_group(name="tetrode", description="test", location="unknown", device=device)
    for i in range(N_CHANNELS):
        content.add_electrode(group=group, location="unknown", rel_x=float(10 * i), rel_y=0.0)
    region = content.create_electrode_table_region(region=list(range(N_CHANNELS)), description="all")
    data = pynwb.H5DataIO(raw, compression="gzip", compression_opts=1, chunks=(5000, N_CHANNELS))
    content.add_acquisition(
        ElectricalSeries(name="Raw", data=data, electrodes=region, rate=FS, starting_time=1.0, conversion=2e-7)
    )
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(content)
    return Written(path, raw * 0.2, "uV", "int16", start_time_s=1.0)


def raw_little(folder: Path) -> Written:
    raw, path = stored("<i2"), folder / "little.dat"
    raw.tofile(path)
    options = {"sampling_frequency": FS, "n_channels": N_CHANNELS, "dtype": "int16"}
    return Written(path, raw.astype(float), "ADC", "int16", options)


def raw_big_with_side_file(folder: Path) -> Written:
    raw, path = stored(">i2"), folder / "big.raw"
    raw.tofile(path)
    facts = (
        f'sampling_frequency = {FS}\nn_channels = {N_CHANNELS}\ndtype = ">i2"\ngain = [0.1, 0.1, 0.1, 0.2]\noffset = -1.0\n'
    )
    (folder / "big.raw.toml").write_text(facts)
    return Written(path, raw * np.array([0.1, 0.1, 0.1, 0.2]) - 1.0, "uV", ">i2")


def brainvision(folder: Path) -> Written:
    """Brain Products' core data format: text header, text markers, binary signal."""
    raw = stored("<i2")
    raw.tofile(folder / "bv.eeg")
    channels = "\n".join(f"Ch{i + 1}=E{i},,{0.1 * (i + 1)},{unit}" for i, unit in enumerate(("µV", "µV", "mV", "µV")))
    (folder / "bv.vhdr").write_text(
        "Brain Vision Data Exchange Header File Version 1.0\n[Common Infos]\nDataFile=bv.eeg\nMarkerFile=bv.vmrk\n"
        "DataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        f"NumberOfChannels={N_CHANNELS}\nSamplingInterval={1e6 / FS}\n[Binary Infos]\nBinaryFormat=INT_16\n"
        f"[Channel Infos]\n{channels}\n",
        encoding="utf-8",
    )
    (folder / "bv.vmrk").write_text(
        "Brain Vision Data Exchange Marker File, Version 1.0\n[Marker Infos]\nMk1=New Segment,,1,1,0\n"
    )
    return Written(folder / "bv.vhdr", raw * np.array([0.1, 0.2, 300.0, 0.4]), "uV", "int16")


def neuroscope(folder: Path) -> Written:
    """NeuroScope: interleaved .dat, facts in an .xml of the same name."""
    raw = stored("<i2")
    raw.tofile(folder / "ns.dat")
    group = "".join(f"<channel>{i}</channel>" for i in range(N_CHANNELS))
    (folder / "ns.xml").write_text(
        f"<parameters><acquisitionSystem><nBits>16</nBits><nChannels>{N_CHANNELS}</nChannels><samplingRate>{FS:g}</samplingRate>"
        "<voltageRange>20</voltageRange><amplification>1000</amplification><offset>0</offset></acquisitionSystem>"
        f"<anatomicalDescription><channelGroups><group>{group}</group></channelGroups></anatomicalDescription></parameters>"
    )
    return Written(folder / "ns.dat", raw * (20.0 / 2**16 / 1000 * 1e6), "uV", "int16")


def open_ephys(folder: Path, streams: tuple[str, ...] = ("Acq-100.A",), recordings: int = 1, name: str = "oe") -> Written:
    """Open Ephys binary: a folder tree with structure.oebin and one continuous.dat per stream and recording."""
    raw, root = stored("<i2"), folder / name
    for number in range(1, recordings + 1):
        place = root / "experiment1" / f"recording{number}"
        listing = []
        for stream in streams:
            data = place / "continuous" / stream
            data.mkdir(parents=True)
            raw.tofile(data / "continuous.dat")
            np.save(data / "sample_numbers.npy", 40_000 * number + np.arange(N_SAMPLES))
            channels = [{"channel_name": f"CH{i + 1}", "bit_volts": 0.195, "units": "uV"} for i in range(N_CHANNELS)]
            listing.append(
                {"folder_name": f"{stream}/", "sample_rate": FS, "num_channels": N_CHANNELS, "channels": channels}
            )
        (place / "structure.oebin").write_text(json.dumps({"GUI version": "0.6.0", "continuous": listing, "events": []}))
    return Written(root, raw * 0.195, "uV", "int16", start_time_s=2.0)


def neuralynx(folder: Path) -> Written:
    """Neuralynx: one .ncs per channel, a 16 kB text header and records of 512 samples."""
    raw = stored("<i2")[: N_SAMPLES // 512 * 512]
    root = folder / "nlx"
    root.mkdir()
    records = len(raw) // 512
    layout = [("timestamp", "<u8"), ("channel", "<u4"), ("rate", "<u4"), ("valid", "<u4"), ("samples", "<i2", 512)]
    for i in range(N_CHANNELS):
        table = np.zeros(records, layout)
        table["timestamp"] = 1_000_000 + np.round(np.arange(records) * 512 / FS * 1e6)
        table["channel"], table["rate"], table["valid"] = i, FS, 512
        table["samples"] = raw[:, i].reshape(-1, 512)
        header = (
            "######## Neuralynx Data File Header\r\n## File Name test.ncs\r\n## Time Opened (m/d/y): 1/2/2020  (h:m:s.ms) 1:2:3.4\r\n"
            "## Time Closed (m/d/y): 1/2/2020  (h:m:s.ms) 1:3:3.4\r\n-CheetahRev 5.7.4\r\n-FileType CSC\r\n-RecordSize 1044\r\n"
            f"-AcqEntName CSC{i}\r\n-ADChannel {i}\r\n-ADBitVolts 0.0000001\r\n-SamplingFrequency {FS:g}\r\n-InputRange 3000\r\n"
            "-InputInverted False\r\n-HardwareSubSystemType DigitalLynxSX\r\n-NumADChannels 1\r\n"
        )
        (root / f"CSC{i}.ncs").write_bytes(header.encode("latin-1").ljust(16384, b"\0") + table.tobytes())
    return Written(root, raw * 0.1, "uV", "int16", start_time_s=1.0)


WRITERS: tuple[Callable[[Path], Written], ...] = (
    hdf5_millivolts,
    hdf5_unsigned,
    hdf5_channels_first,
    mearec,
    mearec_transposed,
    nwb,
    nwb_timestamps,
    nwb_pynwb,
    raw_little,
    raw_big_with_side_file,
    brainvision,
    neuroscope,
    open_ephys,
    neuralynx,
)


def hdf5(path: Path, **datasets) -> Path:
    """An HDF5 file with these datasets."""
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file[name] = data
    return path


def refused(kind: type[SpikeCRsAEError], path: Path, *words: str, **options) -> str:
    """The message with which `path` is refused as a recording: one line that names the path and the words."""
    with pytest.raises(kind) as caught:
        open_recording(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message
    return message
