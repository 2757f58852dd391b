"""Gaps that vendors' files tell and neo does not: they are segments, and times are those of the file."""

from __future__ import annotations

import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import recording_files as files
from helpers import vendor_files as vendors

from spikecrsae.errors import InputError
from spikecrsae.readers import open_recording, open_session

FS = files.FS
N = files.N_SAMPLES
#: Two gaps: before these samples so many are missing.
LOST = {20_480: 60_000, 40_960: 512}


def numbers(first: int = 0) -> np.ndarray:
    """The number of each sample."""
    counts = first + np.arange(N)
    for begin, n in LOST.items():
        counts[begin:] += n
    return counts


def open_ephys(folder: Path, name: str, counts: np.ndarray) -> Path:
    written = files.open_ephys(folder)
    path = next(folder.rglob("sample_numbers.npy"))
    path.unlink()
    np.save(path.with_name(name), counts)
    return written.path


def old_open_ephys(folder: Path, counts: np.ndarray, channels: int = 4) -> Path:
    """The first format of Open Ephys: one .continuous file per channel, records of 1024 samples with their own time stamp."""
    layout = np.dtype([("stamp", "<i8"), ("n", "<u2"), ("number", "<u2"), ("samples", ">i2", 1024), ("mark", "u1", 10)])
    header = (
        "header.format = 'Open Ephys Data Format'; \nheader.version = 0.4; \nheader.header_bytes = 1024;\n"
        "header.description = 'each record contains one 64-bit timestamp, one 16-bit sample count (N), 1 uint16 recordingNumber, N "
        "16-bit samples, and one 10-byte record marker (0 1 2 3 4 5 6 7 8 255)'; \nheader.date_created = '1-Jan-2024 120000';\n"
        f"header.channel = 'CH1';\nheader.channelType = 'Continuous';\nheader.sampleRate = {FS:g};\nheader.blockLength = 1024;\n"
        "header.bufferSize = 1024;\nheader.bitVolts = 0.195;\n"
    )
    root = folder / "old"
    root.mkdir()
    n = len(counts) // 1024
    for channel in range(channels):
        records = np.zeros(n, layout)
        records["stamp"], records["n"] = counts[: n * 1024 : 1024], 1024
        records["samples"] = files.stored()[: n * 1024, channel].reshape(n, 1024)
        records["mark"] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 255]
        (root / f"100_CH{channel + 1}.continuous").write_bytes(header.encode().ljust(1024) + records.tobytes())
    return root


def neuralynx(folder: Path, counts: np.ndarray) -> Path:
    written = files.neuralynx(folder)
    layout = np.dtype([("stamp", "<u8"), ("rest", "V12"), ("samples", "V1024")])
    for path in written.path.glob("*.ncs"):
        content = path.read_bytes()
        records = np.frombuffer(content[16384:], layout).copy()
        records["stamp"] = np.round(counts[: len(records) * 512 : 512] / FS * 1e6)
        path.write_bytes(content[:16384] + records.tobytes())
    return written.path


def intan_folder(folder: Path, counts: np.ndarray) -> Path:
    written = vendors.intan_folder(folder)
    counts.astype("<i4").tofile(written.path / "time.dat")
    return written.path


def intan_file(folder: Path, counts: np.ndarray) -> Path:
    """One .rhd whose blocks of 128 samples bear these numbers."""
    written = vendors.intan(folder)
    content = written.path.read_bytes()
    size = 128 * 4 + 128 * 4 * 2 + 32 * 3 * 2 + 2
    n = N // 128
    blocks = np.frombuffer(content[-n * size :], np.dtype([("stamps", "<i4", 128), ("rest", f"V{size - 512}")])).copy()
    blocks["stamps"] = counts[: n * 128].reshape(n, 128)
    written.path.write_bytes(content[: -n * size] + blocks.tobytes())
    return written.path


def blackrock_ptp(folder: Path, counts: np.ndarray) -> Path:
    """Blackrock NSx 3.0 with the Precision Time Protocol: one packet per sample, stamps in ns."""
    path, channel, fs = folder / "utah.ns5", "<2sH16sBBhhhh16sIIHIIH", 30_000
    size = 314 + 4 * struct.calcsize(channel)
    clock = (2024, 1, 1, 1, 12, 0, 0, 0)
    content = struct.pack("<8sBBI16s256sII8HI", b"BRSMPGRP", 3, 0, size, b"30 kS/s", b"", 1, 1_000_000_000, *clock, 4)
    for i in range(4):
        scale = (-32764, 32764, -8191, 8191)
        content += struct.pack(channel, b"CC", i + 1, b"elec%d" % (i + 1), 0, i, *scale, b"uV", 300, 1, 1, 7_500_000, 3, 1)
    packets = np.zeros(N, [("mark", "u1"), ("stamp", "<u8"), ("n", "<u4"), ("samples", "<i2", 4)])
    packets["mark"], packets["n"], packets["samples"] = 1, 1, files.stored()
    packets["stamp"] = np.round(counts / fs * 1e9)
    path.write_bytes(content + packets.tobytes())
    return path


def maxwell(folder: Path, counts: np.ndarray) -> Path:
    """MaxWell's MaxTwo: one well, routed channels, the number of each frame."""
    path = folder / "wells.raw.h5"
    with h5py.File(path, "w") as file:
        file["version"] = np.array([b"20190530"])
        place = file.create_group("wells/well000/rec0000")
        place["settings/sampling"], place["settings/lsb"] = np.array([FS]), np.array([6e-6])
        table = np.zeros(4, [("channel", "<i4"), ("electrode", "<i4"), ("x", "<f8"), ("y", "<f8")])
        table["channel"] = table["electrode"] = np.arange(4)
        place["settings/mapping"] = table
        place["groups/routed/raw"] = files.stored("uint16").T
        place["groups/routed/frame_nos"] = counts.astype("<u8")
    return path


def spikegadgets(folder: Path, counts: np.ndarray) -> Path:
    """SpikeGadgets' .rec: a header in XML, then a packet for each sample."""
    channels = "".join(
        f'<SpikeNTrode id="{i + 1}" spikeScalingToUv="0.195"><SpikeChannel hwChan="{i}"/></SpikeNTrode>' for i in range(4)
    )
    header = (
        f'<?xml version="1.0"?>\n<Configuration>\n<GlobalConfiguration/>\n<HardwareConfiguration samplingRate="{FS:g}" numChannels="4">'
        f'<Device name="Controller_DIO" numBytes="1"/></HardwareConfiguration>\n<SpikeConfiguration chanPerChip="4">{channels}'
        "</SpikeConfiguration>\n</Configuration>\n"
    )
    packets = np.zeros(N, [("sync", "u1"), ("digital", "u1"), ("stamp", "<u4"), ("samples", "<i2", 4)])
    packets["sync"], packets["stamp"], packets["samples"] = 0x55, counts, files.stored()
    path = folder / "maze.rec"
    path.write_bytes(header.encode() + packets.tobytes())
    return path


WRITERS = {
    "Open Ephys, sample_numbers.npy": (lambda folder, counts: open_ephys(folder, "sample_numbers.npy", counts), FS, 40_000),
    "Open Ephys before 0.6, timestamps.npy": (
        lambda folder, counts: open_ephys(folder, "timestamps.npy", counts),
        FS,
        40_000,
    ),
    "Open Ephys, .continuous": (old_open_ephys, FS, 40_000),
    "Neuralynx": (neuralynx, FS, 40_000),
    "Intan, one file per signal type": (intan_folder, FS, 40_000),
    "Intan, one file": (intan_file, FS, -1024),
    "Blackrock, Precision Time Protocol": (blackrock_ptp, 30_000.0, 40_000),
    "MaxWell": (maxwell, FS, 0),
    "SpikeGadgets": (spikegadgets, FS, 40_000),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_gap_is_a_segment_with_the_times_of_the_file(tmp_path, name):
    writer, fs, first = WRITERS[name]
    counts = numbers(first)
    recording = open_recording(writer(tmp_path, counts))
    n = recording.n_samples
    assert N - 1024 < n <= N
    assert [part.first for part in recording.parts] == [0, *LOST]
    assert [part.n_samples for part in recording.parts] == [20_480, 20_480, n - 40_960]
    assert recording.sampling_frequency == pytest.approx(fs, rel=1e-4)
    samples = np.array([0, 20_479, 20_480, 40_959, 40_960, n - 1])
    np.testing.assert_allclose(recording.timeline.seconds(samples), counts[samples] / fs, atol=2e-5)
    (note,) = [note for note in recording.notes if "signal is missing" in note]
    assert "between samples 20479 and 20480" in note and "between samples 40959 and 40960" in note
    assert f"{60_000 / fs:g} s" in note
    for start, stop in ((0, 2000), (20_470, 20_490), (40_000, 42_000), (n - 100, n), (1023, 1025)):
        expected = files.stored("uint16" if name == "MaxWell" else "<i2")[start:stop].astype(float)
        scale = recording.gain[0]
        np.testing.assert_allclose(recording.traces(start, stop) - recording.offset[0], expected * scale
                                   if recording.dtype != "uint16" or name == "MaxWell" else (expected + 32768) * scale, atol=0.02)  # fmt: skip
    recording.close()


@pytest.mark.parametrize("name", [name for name in WRITERS if not name.startswith(("Neuralynx", "Blackrock"))])
@pytest.mark.parametrize("shift", [-1024, -5000])
def test_numbers_that_do_not_increase_are_refused_with_the_samples(tmp_path, name, shift):
    counts = np.arange(N) + 40_000
    counts[20_480:] += shift
    with pytest.raises(InputError, match=r"do not increase.*sample 20479 .*sample 20480") as caught:
        open_recording(WRITERS[name][0](tmp_path, counts))
    assert "\n" not in str(caught.value)


def test_steady_numbers_start_at_the_time_of_the_file(tmp_path):
    for name, (writer, fs, first) in WRITERS.items():
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        recording = open_recording(writer(folder, first + np.arange(N)))
        assert recording.parts == (), name
        assert recording.start_time_s == pytest.approx(first / fs, abs=1e-6), name
        assert not [note for note in recording.notes if "missing" in note]
        recording.close()


def test_files_of_one_channel_each_keep_their_common_gaps(tmp_path):
    folder = neuralynx(tmp_path, numbers(40_000))
    paths = sorted(folder.glob("*.ncs"))
    recording = open_session(paths)
    assert recording.n_channels == 4
    assert [part.first for part in recording.parts] == [0, *LOST]
    assert recording.timeline.seconds(20_480) == pytest.approx((40_000 + 20_480 + 60_000) / FS, abs=2e-5)
    recording.close()
    (tmp_path / "other").mkdir()
    counts = np.arange(N) + 40_000
    counts[10_240:] += 60_512
    odd = neuralynx(tmp_path / "other", counts) / paths[3].name
    paths[3].write_bytes(odd.read_bytes())
    with pytest.raises(InputError, match="gaps before samples"):
        open_session(paths)


def test_segments_of_neo_are_on_the_clock_of_the_file_unless_it_is_set_back(tmp_path):
    path = vendors.blackrock(tmp_path, blocks=2).path
    recording = open_recording(path)
    np.testing.assert_allclose(recording.timeline.seconds([0, N - 1, N]), [1.0, 3.0 - 1 / 30_000, 5.0])
    assert [note for note in recording.notes if f"2 s between samples {N - 1} and {N}" in note]
    recording.close()
    content = path.read_bytes()
    second = len(content) - N * 8 - 9
    path.write_bytes(content[: second + 1] + struct.pack("<I", 0) + content[second + 5 :])
    recording = open_recording(path)
    assert [part.start_time_s for part in recording.parts] == [1.0, 0.0]
    np.testing.assert_allclose(recording.timeline.seconds([0, N]), [1.0, 3.0])
    assert [note for note in recording.notes if "clock starts anew 1 time" in note]
    assert not [note for note in recording.notes if "missing" in note]
    recording.close()
    recording = open_recording(vendors.plexon(tmp_path, pause_s=2.0).path)
    np.testing.assert_allclose(recording.timeline.seconds([0, N // 2]), [0.0, N / 2 / FS + 2.0], atol=1e-4)
    recording.close()


def test_new_segments_of_brain_vision_are_segments_at_their_dates(tmp_path):
    written = files.brainvision(tmp_path)
    head = "Brain Vision Data Exchange Marker File, Version 1.0\n[Marker Infos]\n"
    marks = ("Mk1=New Segment,,1,1,0,20240102235959500000", "Mk2=Stimulus,S1,5000,1,0", "Mk3=New Segment,,20001,1,0,20240103000003500000",
             "Mk4=New Segment,,50001,1,0")  # fmt: skip
    (tmp_path / "bv.vmrk").write_text(head + "\n".join(marks) + "\n")
    recording = open_recording(written.path)
    assert [(part.first, part.n_samples) for part in recording.parts] == [(0, 20_000), (20_000, 30_000), (50_000, 10_000)]
    assert [part.start_time_s for part in recording.parts] == pytest.approx([0.0, 4.0, 5.5])
    (note,) = [note for note in recording.notes if "missing" in note]
    assert "1 place: 3 s between samples 19999 and 20000" in note
    np.testing.assert_allclose(recording.traces(19_990, 20_010), written.traces[19_990:20_010], rtol=1e-5, atol=1e-4)
    recording.close()


def test_neuralynx_stamps_with_jitter_are_no_gaps(tmp_path):
    counts = np.arange(N) + 40_000.0
    counts += np.repeat(np.random.default_rng(0).uniform(-0.2, 0.2, N // 512 + 1), 512)[:N]
    recording = open_recording(neuralynx(tmp_path, counts))
    assert recording.parts == ()
    assert recording.start_time_s == pytest.approx(2.0, abs=2e-5)
