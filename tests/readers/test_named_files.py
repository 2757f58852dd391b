"""What is named is what is read, and not its neighbours; several files of one channel each; folders of files of one session."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from helpers import other_vendors as others
from helpers import recording_files as files
from helpers import vendor_files as vendors
from helpers.command_line import spikecrsae

from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers import open_recording, open_session

FS = files.FS


def first_samples(recording, scale: float, n: int = 600) -> np.ndarray:
    return recording.traces(0, n) / scale


def neuralynx_folder(folder: Path, names: list[str], **facts) -> np.ndarray:
    """Files in the given order of channels, which is not that of their names; returns the stored numbers."""
    raw = others.signal(len(names))
    for number, name in enumerate(names):
        others.neuralynx_channel(folder / f"{name}.ncs", name, number, raw[:, number], **facts)
    return raw


def legacy_folder(folder: Path, kinds: tuple[str, ...] = ("CH1", "CH2", "CH3", "CH10", "AUX1", "ADC1")) -> np.ndarray:
    raw = others.signal(len(kinds))
    for number, kind in enumerate(kinds):
        others.open_ephys_channel(folder / f"100_{kind}.continuous", raw[:, number], first=4096)
    return raw


# One file, and its neighbours


def test_one_file_of_open_ephys_first_format(tmp_path):
    raw = legacy_folder(tmp_path)
    recording = open_recording(tmp_path / "100_CH2.continuous")
    assert (recording.channel_ids, recording.sampling_frequency, recording.n_samples) == (("CH2",), FS, 10_240)
    assert (recording.amplitude_unit, recording.start_time_s) == ("uV", 4096 / FS)
    np.testing.assert_allclose(first_samples(recording, 0.195), raw[:600, 1:2], rtol=1e-5)


def test_one_session_of_open_ephys_first_format(tmp_path):
    """A second recording is written into the same folder, with _2 at the end of the names."""
    raw = legacy_folder(tmp_path, ("CH1", "CH2"))
    for number in (1, 2):
        others.open_ephys_channel(tmp_path / f"100_CH{number}_2.continuous", raw[::-1, number - 1])
    assert len(open_recording(tmp_path).parts) == 2
    recording = open_recording(tmp_path / "100_CH1_2.continuous")
    assert (recording.channel_ids, recording.parts) == (("CH1",), ())
    np.testing.assert_allclose(first_samples(recording, 0.195), raw[::-1][:600, :1], rtol=1e-5)


def test_one_depth_of_an_alpha_omega_folder(tmp_path):
    raw = others.signal(6)
    for depth in range(3):
        channels = {f"RAW {i + 1:02d}": (FS, raw[:, 2 * depth + i]) for i in range(2)}
        others.alpha_omega(tmp_path / f"LT1D{depth}.500F0001.mpx", channels, start_s=10.0 * depth)
    files.refused(InputError, tmp_path, "at 3 depths or places (LT1D0.500, LT1D1.500, LT1D2.500)", "batch")
    for depth in range(3):
        recording = open_recording(tmp_path / f"LT1D{depth}.500F0001.mpx")
        assert (recording.parts, recording.n_channels, recording.start_time_s) == ((), 2, 10.0 * depth)
        stored = recording.raw(0, 600)
        np.testing.assert_array_equal(stored, raw[:600, 2 * depth : 2 * depth + 2])
    (tmp_path / "map.lsx").write_text("C:\\data\\LT1D1.500F0001.mpx\n")
    np.testing.assert_array_equal(open_recording(tmp_path / "map.lsx").raw(0, 600), raw[:600, 2:4])
    with (tmp_path / "map.lsx").open("a") as index:
        index.write("C:\\data\\LT1D2.500F0001.mpx\n")
    files.refused(InputError, tmp_path / "map.lsx", "at 2 depths or places (LT1D1.500, LT1D2.500)", f"'{tmp_path}/*.mpx'")


@pytest.mark.parametrize("stems", [("LT1D-2.500F0001", "LT1D-2.500F0002"), ("F240101-0001", "F240101-0002")])
def test_files_of_alpha_omega_at_one_depth_are_one_recording(tmp_path, stems):
    for number, stem in enumerate(stems):
        others.alpha_omega(tmp_path / f"{stem}.mpx", {"RAW 01": (FS, others.signal(1)[:, 0])}, start_s=10.0 * number)
    assert len(open_recording(tmp_path).parts) == 2


def test_one_block_and_one_channel_of_a_tdt_tank(tmp_path):
    raw, tank = others.signal(4), tmp_path / "tank"
    for number in range(2):
        others.tdt_block(tank / f"Block-{number + 1}", {"Wave": (FS, raw + number)}, in_files=True)
    assert len(open_recording(tank).parts) == 2
    for place in (tank / "Block-2", tank / "Block-2" / "tank_Block-2.tsq", tank / "Block-2" / "tank_Block-2.tev"):
        recording = open_recording(place)
        assert (recording.parts, recording.channel_ids) == ((), ("Wave 1", "Wave 2", "Wave 3", "Wave 4"))
        np.testing.assert_array_equal(recording.raw(100, 700), raw[100:700] + 1)
    recording = open_recording(tank / "Block-1" / "tank_Block-1_Wave_Ch3.sev")
    np.testing.assert_array_equal(recording.raw(100, 700), raw[100:700, 2:3])


def test_a_file_inside_the_folder_of_a_stream(tmp_path, monkeypatch):
    channels = {f"CH{i + 1}": "uV" for i in range(4)}
    first, second = others.signal(4, seed=1), others.signal(4, seed=2)
    place = others.open_ephys_streams(
        tmp_path / "experiment1" / "recording1", {"Probe-A": (FS, channels, first), "Probe-B": (FS, channels, second)}
    )
    files.refused(UsageError, place, "Probe-A", "Probe-B", "--stream")
    monkeypatch.chdir(place / "continuous" / "Probe-A")
    for named in (".", "continuous.dat"):
        np.testing.assert_allclose(first_samples(open_recording(named), 0.195), first[:600], rtol=1e-5)
    for named in ("../..", "..", "../../.."):
        assert open_recording(named, stream="Probe-B").raw(0, 1).tolist() == second[:1].tolist()
    for name, raw in (("Probe-A", first), ("Probe-B", second)):
        folder = place / "continuous" / name
        for named in (folder, folder / "continuous.dat", folder / "sample_numbers.npy"):
            np.testing.assert_allclose(first_samples(open_recording(named), 0.195), raw[:600], rtol=1e-5)


def test_amplifier_dat_beside_its_header(tmp_path):
    written = vendors.intan_folder(tmp_path)
    recording = open_recording(written.path / "amplifier.dat")
    assert recording.channel_ids == ("A-000", "A-001", "A-002", "A-003")
    assert (recording.sampling_frequency, recording.amplitude_unit) == (FS, "uV")
    np.testing.assert_allclose(recording.traces(0, 3000), written.traces[:3000], rtol=1e-5)
    files.refused(InputError, written.path / "time.dat", "no continuous signal")


def test_one_file_of_an_intan_folder_with_a_file_for_each_channel(tmp_path):
    written = vendors.intan_folder(tmp_path)
    raw = np.fromfile(written.path / "amplifier.dat", "<i2").reshape(-1, 4)
    (written.path / "amplifier.dat").unlink()
    for number in range(4):
        raw[:, number].tofile(written.path / f"amp-A-{number:03d}.dat")
    assert open_recording(written.path).n_channels == 4
    recording = open_recording(written.path / "amp-A-002.dat")
    assert recording.channel_ids == ("A-002",)
    np.testing.assert_array_equal(recording.raw(0, 600), raw[:600, 2:3])
    some = [written.path / f"amp-A-{number:03d}.dat" for number in (3, 1)]
    together = open_session(some)
    assert (together.channel_ids, together.n_samples) == (("A-001", "A-003"), len(raw))
    np.testing.assert_array_equal(together.raw(0, 600), raw[:600, [1, 3]])


def test_a_file_of_detected_spikes_beside_a_recording(tmp_path):
    legacy_folder(tmp_path)
    (tmp_path / "SE0.spikes").write_bytes(b"\0" * 2048)
    files.refused(InputError, tmp_path / "SE0.spikes", "only detected spikes", "continuous signal")


# Several files of one channel each


def test_four_channel_files_are_a_tetrode(tmp_path):
    names = ["CSC1", "CSC2", "CSC10", "CSC11"]
    raw = neuralynx_folder(tmp_path, names)
    paths = [tmp_path / f"{name}.ncs" for name in sorted(names)]
    recording = open_session(paths)
    assert recording.channel_ids == tuple(names) and recording.parts == ()
    assert (recording.n_samples, recording.start_time_s) == (10_240, 1.0)
    np.testing.assert_allclose(first_samples(recording, 0.1), raw[:600], rtol=1e-5)
    assert any("4 files are channels" in note and "--files session" in note for note in recording.notes)
    chosen = open_session(paths, channels="CSC10,0", groups="CSC10,CSC1")
    assert chosen.channel_ids == ("CSC10", "CSC1") and chosen.groups == {"0": (0,), "1": (1,)}
    result = spikecrsae("info", *paths, "--json")
    assert json.loads(result.stdout)["channel_ids"] == names


def test_files_that_follow_one_another_are_a_session(tmp_path):
    raw = others.signal(1)[:, 0]
    paths = [
        others.neuralynx_channel(tmp_path / f"{name}.ncs", "CSC1", 0, raw, start_s=start)
        for name, start in (("morning", 1.0), ("noon", 101.0))
    ]
    recording = open_session(paths)
    assert [part.start_time_s for part in recording.parts] == [1.0, 101.0] and recording.n_channels == 1


def test_files_of_one_start_and_different_length_are_neither(tmp_path):
    raw = others.signal(2)
    paths = [
        others.neuralynx_channel(tmp_path / f"CSC{i + 1}.ncs", f"CSC{i + 1}", i, raw[: 10_240 - 512 * i, i])
        for i in range(2)
    ]
    with pytest.raises(UsageError, match="start at the same time, 1 s, and differ in length"):
        open_session(paths)


def test_auxiliary_files_among_channel_files_are_left_out(tmp_path):
    raw = legacy_folder(tmp_path)
    recording = open_session(sorted(tmp_path.glob("*.continuous")))
    assert recording.channel_ids == ("CH1", "CH2", "CH3", "CH10")
    np.testing.assert_allclose(first_samples(recording, 0.195), raw[:600, :4], rtol=1e-5)
    assert any("files left out" in note and "100_AUX1.continuous" in note for note in recording.notes)


def test_raw_files_without_clock_and_names_are_what_the_user_says(tmp_path):
    """Equal length is all that tells them apart then; a note says what they were taken for, and how to have the other."""
    raw = others.signal(2)
    paths = [tmp_path / "one.dat", tmp_path / "two.dat"]
    for number, path in enumerate(paths):
        raw[:, number].tofile(path)
    facts = {"sampling_frequency": FS, "n_channels": 1, "dtype": "int16"}
    recording = open_session(paths, **facts)
    assert recording.channel_ids == ("one", "two")
    np.testing.assert_array_equal(recording.raw(0, 600), raw[:600])
    assert any("neither a start time nor a channel's name" in note for note in recording.notes)
    session = open_session(paths, **facts, files="session")
    assert (session.n_channels, session.n_samples, len(session.parts)) == (1, 2 * len(raw), 2)
    raw[:-1, 1].tofile(paths[1])
    assert len(open_session(paths, **facts).parts) == 2
    with pytest.raises(UsageError, match="cannot be channels of one recording"):
        open_session(paths, **facts, files="channels")
    with pytest.raises(UsageError, match="files"):
        open_session(paths, **facts, files="both")


def test_files_with_several_channels_are_a_session(tmp_path):
    one, two = (vendors.intan(tmp_path / name) for name in map(_made(tmp_path), ("a", "b")))
    recording = open_session([one.path, two.path])
    assert (recording.n_channels, len(recording.parts)) == (4, 2)


def _made(folder: Path):
    def make(name: str) -> Path:
        (folder / name).mkdir()
        return folder / name

    return make


# Folders


def test_a_folder_of_one_minute_files_is_one_session(tmp_path):
    written = vendors.intan(tmp_path)
    content = written.path.read_bytes()
    written.path.unlink()
    day = tmp_path / "day"
    day.mkdir()
    for name in ("m_240101_235900", "m_240102_000000", "m_240102_000100"):
        (day / f"{name}.rhd").write_bytes(content)
    recording = open_recording(day)
    n = len(written.traces)
    assert (recording.n_samples, recording.n_channels, recording.source) == (3 * n, 4, day)
    assert [Path(part.name).stem[-13:] for part in recording.parts] == ["240101_235900", "240102_000000", "240102_000100"]
    np.testing.assert_allclose(recording.traces(n, n + 500), written.traces[:500], rtol=1e-5)
    (day / "m_240102_120000.rhd").write_bytes(content)
    files.refused(InputError, day, "m_240102_120000.rhd begins", "after m_240102_000100.rhd has ended")
    (day / "m_240102_120000.rhd").rename(day / "other_240102_000200.rhd")
    files.refused(InputError, day, "give one file of it")


@pytest.mark.parametrize("writer", [files.open_ephys, files.neuralynx, vendors.intan_folder, vendors.spikeglx])
@pytest.mark.parametrize("name", [".", "..", "slash"])
def test_a_folder_by_any_name(tmp_path, monkeypatch, writer, name):
    written = writer(tmp_path)
    (written.path / "deep").mkdir()
    monkeypatch.chdir(written.path / "deep" if name == ".." else written.path)
    path = f"{written.path}{os.sep}" if name == "slash" else name
    with open_recording(path) as recording:
        assert recording.n_channels == files.N_CHANNELS
    assert json.loads(spikecrsae("info", path, "--json").stdout)["channels"] == files.N_CHANNELS


def test_the_result_of_the_current_folder_has_its_name(tmp_path, monkeypatch):
    written = files.open_ephys(tmp_path, name="session")
    monkeypatch.chdir(written.path)
    result = spikecrsae("sort", ".", "--epochs", 1, "--device", "cpu", "--quiet")
    assert result.exit_code in (0, 5), result.stderr
    assert (tmp_path / "session.sorted" / "run.json").is_file()
    result = spikecrsae("batch", ".", "-o", tmp_path / "all", "--epochs", 1, "--device", "cpu", "--quiet")
    assert result.exit_code == 0, result.stderr
    assert len(list((tmp_path / "all").glob("session-*/run.json"))) == 1
