"""Folders as laboratories have them: a neighbour that is shorter or empty, endings in capitals, one recording below, links."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from helpers import other_vendors as others
from helpers import recording_files as files
from helpers import vendor_files as vendors

from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers import open_recording, open_session

FS = files.FS


def stored(recording) -> np.ndarray:
    """What the file stores of the channels in use."""
    return recording.read_raw(0, recording.n_samples)[:, list(recording.channels)]


# Open Ephys' first format, one file per channel


def test_a_named_channel_is_read_in_full_beside_a_shorter_one(tmp_path):
    raw = others.signal(2)
    long = others.open_ephys_channel(tmp_path / "100_CH1.continuous", raw[:, 0])
    short = others.open_ephys_channel(tmp_path / "100_CH2.continuous", raw[:4096, 1])
    np.testing.assert_array_equal(stored(open_recording(long)), raw[:, :1])
    both = open_recording(tmp_path)
    np.testing.assert_array_equal(stored(both), raw[:4096])
    assert any("4096 samples that all have are read, and more are in 100_CH1.continuous" in note for note in both.notes)
    with pytest.raises(UsageError, match=r"100_CH1.continuous 10240, .*100_CH2.continuous 4096"):
        open_session([long, short])


def test_channels_that_hold_no_sample_are_left_out_of_a_folder(tmp_path):
    raw = others.signal(1)
    others.open_ephys_channel(tmp_path / "100_CH1.continuous", raw[:, 0])
    empty = others.open_ephys_channel(tmp_path / "100_CH2.continuous", raw[:0, 0])
    recording = open_recording(tmp_path)
    assert recording.channel_ids == ("CH1",)
    assert any("which hold no sample: 100_CH2.continuous" in note for note in recording.notes)
    files.refused(InputError, empty, "holds no sample")


def test_two_processors_of_one_folder_are_two_streams(tmp_path):
    """A filter's output is saved beside its input, under another processor's number."""
    raw = others.signal(4)
    for number, name in enumerate(("100_CH1", "100_CH2", "101_CH1", "101_CH2")):
        others.open_ephys_channel(tmp_path / f"{name}.continuous", raw[:, number])
    np.testing.assert_array_equal(stored(open_recording(tmp_path / "101_CH2.continuous")), raw[:, 3:])
    pair = open_session([tmp_path / "101_CH2.continuous", tmp_path / "101_CH1.continuous"])
    np.testing.assert_array_equal(stored(pair), raw[:, 2:])
    files.refused(UsageError, tmp_path, "'100 Signals CH' (2 channels", "'101 Signals CH'", "--stream")
    np.testing.assert_array_equal(stored(open_recording(tmp_path, stream="101 CH")), raw[:, 2:])


def test_names_that_are_only_numbers(tmp_path):
    raw = others.signal(3)
    for column, number in enumerate((1, 2, 10)):
        others.open_ephys_channel(tmp_path / f"100_{number}.continuous", raw[:, column])
    recording = open_recording(tmp_path)
    assert (recording.channel_ids, recording.amplitude_unit) == (("1", "2", "10"), "uV")
    np.testing.assert_array_equal(stored(recording), raw)


# Neuralynx


def neuralynx(folder: Path, names: tuple[str, ...], ending: str = "ncs") -> np.ndarray:
    raw = others.signal(len(names))
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        others.neuralynx_channel(folder / f"{name}.{ending}", name, number, raw[:, number])
    return raw


def test_neuralynx_files_that_end_after_their_header_are_left_out(tmp_path):
    raw = neuralynx(tmp_path, ("CSC1", "CSC2"))
    (tmp_path / "CSC3.ncs").write_bytes((tmp_path / "CSC1.ncs").read_bytes()[:16_384])
    (tmp_path / "Events.nev").write_bytes(b"written by another program".ljust(20_000))
    recording = open_recording(tmp_path)
    assert recording.channel_ids == ("CSC1", "CSC2")
    np.testing.assert_array_equal(stored(recording), raw)
    assert any("a header and no sample: CSC3.ncs" in note for note in recording.notes)
    files.refused(InputError, tmp_path / "CSC3.ncs", "holds no sample")


def test_neuralynx_files_of_several_lengths_are_named(tmp_path):
    raw = neuralynx(tmp_path, ("CSC1", "CSC2", "CSC3"))
    others.neuralynx_channel(tmp_path / "CSC3.ncs", "CSC3", 2, raw[:4096, 2])
    files.refused(InputError, tmp_path, "most files have 20 records, and CSC3.ncs 8")
    np.testing.assert_array_equal(stored(open_session([tmp_path / "CSC2.ncs", tmp_path / "CSC1.ncs"])), raw[:, :2])


def test_files_in_another_order_than_time_are_told(tmp_path):
    """As a shell lists rec1, rec10 and rec2."""
    raw = others.signal(2)
    paths = []
    for name, start_s in (("rec1", 1.0), ("rec10", 90.0), ("rec2", 11.0)):
        (tmp_path / name).mkdir()
        paths.append(others.neuralynx_channel(tmp_path / name / "CSC1.ncs", "CSC1", 0, raw[:, 0], start_s=start_s))
    session = open_session(paths)
    assert [part.start_time_s for part in session.parts] == [1.0, 90.0, 11.0]
    (note,) = [note for note in session.notes if "order of time" in note]
    assert "CSC1.ncs starts at 11 s on its clock and the file before it at 90 s" in note
    assert not any("order of time" in note for note in open_session([paths[0], paths[2], paths[1]]).notes)


def test_files_of_one_channel_name_that_may_be_channels_are_told(tmp_path):
    raw = others.signal(2)
    paths = [others.open_ephys_channel(tmp_path / f"{100 + k}_CH1.continuous", raw[:, k]) for k in range(2)]
    session = open_session(paths)
    assert (session.n_samples, session.n_channels) == (2 * len(raw), 1)
    assert any("one after the other" in note and "--files channels" in note for note in session.notes)
    np.testing.assert_array_equal(stored(open_session(paths, files="channels")), raw)
    assert not any("--files channels" in note for note in open_session(paths, files="session").notes)


def test_files_that_may_be_of_two_probes_are_told(tmp_path):
    paths = []
    for probe in range(2):
        (tmp_path / f"probe{probe}").mkdir()
        written = vendors.spikeglx(tmp_path / f"probe{probe}")
        paths.append(next(written.path.glob("*.ap.bin")).rename(tmp_path / f"run_g0_t0.imec{probe}.ap.bin"))
        next(written.path.glob("*.ap.meta")).rename(paths[-1].with_suffix(".meta"))
    session = open_session(paths)
    assert len(session.parts) == 2
    assert any(
        "one after the other; if they are of one moment, as of several probes, sort" in note for note in session.notes
    )
    assert not any("of one moment" in note for note in open_session(paths, files="session").notes)


def test_a_second_recording_in_a_neuralynx_folder_is_named(tmp_path):
    """Cheetah writes a second recording beside the first, with _0001 at the end of the names."""
    raw = neuralynx(tmp_path, ("CSC1", "CSC2"))
    for number, name in enumerate(("CSC1", "CSC2")):
        others.neuralynx_channel(tmp_path / f"{name}_0001.ncs", name, number, raw[::-1, number], start_s=90.0)
    files.refused(InputError, tmp_path, "several recordings of the same channels", "CSC1_0001.ncs", "by name")
    second = open_session([tmp_path / "CSC1_0001.ncs", tmp_path / "CSC2_0001.ncs"])
    assert (second.channel_ids, second.start_time_s) == (("CSC1", "CSC2"), 90.0)
    np.testing.assert_array_equal(stored(second), raw[::-1])
    both = open_session([tmp_path / "CSC1.ncs", tmp_path / "CSC1_0001.ncs"])
    assert [part.start_time_s for part in both.parts] == [1.0, 90.0]


# Endings in capitals, folders in folders, links


def test_endings_in_capitals(tmp_path):
    raw = neuralynx(tmp_path / "nlx", ("TT1_1", "TT1_2"), "NCS")
    np.testing.assert_array_equal(stored(open_recording(tmp_path / "nlx")), raw)
    np.testing.assert_array_equal(stored(open_recording(tmp_path / "nlx" / "TT1_2.NCS")), raw[:, 1:])
    (tmp_path / "ao").mkdir()
    others.alpha_omega(tmp_path / "ao" / "D1.MPX", {"RAW 01": (FS, raw[:, 0])})
    np.testing.assert_array_equal(stored(open_recording(tmp_path / "ao")), raw[:, :1])
    written = vendors.intan(tmp_path)
    capitals = written.path.rename(tmp_path / "tetrode.RHD")
    np.testing.assert_allclose(open_recording(capitals).traces(0, 100), written.traces[:100], atol=0.01)
    utah = vendors.blackrock(tmp_path).path.rename(tmp_path / "utah.NS5")
    files.refused(InputError, utah, "rename the file to utah.ns5")


def test_one_recording_below_the_folder_is_read_and_several_are_listed(tmp_path):
    raw = neuralynx(tmp_path / "mouse" / "day 1", ("CSC1", "CSC2"))
    recording = open_recording(tmp_path)
    np.testing.assert_array_equal(stored(recording), raw)
    assert any("day 1 is read, the only one there" in note for note in recording.notes)
    neuralynx(tmp_path / "mouse" / "day 2", ("CSC1", "CSC2"))
    files.refused(InputError, tmp_path, "several recordings", "day 1", "day 2", "give one of them")
    np.save(tmp_path / "mouse" / "day 1" / "other.npy", raw)
    assert open_recording(tmp_path / "mouse" / "day 1").channel_ids == ("CSC1", "CSC2")
    np.save(tmp_path / "other.npy", raw)
    files.refused(InputError, tmp_path, "several recordings", "other.npy")


def test_a_link_to_a_file_of_a_folder(tmp_path):
    raw = others.signal(2)
    place = tmp_path / "experiment1" / "recording1"
    others.open_ephys_streams(place, {"Rhythm": (FS, {"CH1": "uV", "CH2": "uV"}, raw)})
    os.symlink(place / "continuous" / "Rhythm" / "continuous.dat", tmp_path / "today.dat")
    recording = open_recording(tmp_path / "today.dat")
    assert (recording.channel_ids, recording.sampling_frequency) == (("CH1", "CH2"), FS)
    np.testing.assert_array_equal(stored(recording), raw)
    assert recording.source == tmp_path / "today.dat"
    target = next(vendors.spikeglx(tmp_path).path.glob("*.ap.bin"))
    os.symlink(target, tmp_path / "probe.bin")
    np.testing.assert_array_equal(stored(open_recording(tmp_path / "probe.bin")), stored(open_recording(target)))


# Names that exist twice


def test_a_channel_name_of_two_probes_asks_for_the_stream(tmp_path):
    raw = others.signal(4)
    streams = {probe: (FS, {"CH1": "uV", "CH2": "uV"}, raw[:, 2 * k : 2 * k + 2]) for k, probe in enumerate("AB")}
    path = others.open_ephys_streams(tmp_path / "experiment1" / "recording1", streams)
    files.refused(UsageError, path, "CH1 in several streams", "'A'", "'B'", "--stream", channels="CH1")
    np.testing.assert_array_equal(stored(open_recording(path, channels="CH1", stream="B")), raw[:, 2:3])


def test_a_channel_by_name_and_by_number_is_one(tmp_path):
    neuralynx(tmp_path, ("CSC1", "CSC2", "CSC3"))
    files.refused(UsageError, tmp_path, "twice", "to one group", groups="CSC1,0+1")
    files.refused(UsageError, tmp_path, "each to be named once", channels="CSC1,0")


def test_a_name_that_is_a_number_is_told_from_a_position(tmp_path):
    raw = others.signal(3)
    for column, number in enumerate((1, 2, 10)):
        others.open_ephys_channel(tmp_path / f"100_{number}.continuous", raw[:, column])
    recording = open_recording(tmp_path, channels="1,2")
    np.testing.assert_array_equal(stored(recording), raw[:, 1:])
    assert "channels taken: 1 (named 2), 2 (named 10)" in recording.notes
