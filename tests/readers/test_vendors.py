"""What is particular to single vendors' formats that are read here, or that neo is helped with."""

from __future__ import annotations

import h5py
import numpy as np
from helpers import recording_files as files
from helpers import vendor_files as vendors

from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers import open_recording

# Axona


def test_the_tetrodes_of_axona_that_were_recorded_are_groups(tmp_path):
    path = vendors.axona(tmp_path, (3, 6)).path
    recording = open_recording(path)
    assert recording.channel_ids == ("3a", "3b", "3c", "3d", "6a", "6b", "6c", "6d")
    assert recording.groups == {"3": (0, 1, 2, 3), "6": (4, 5, 6, 7)}
    np.testing.assert_array_equal(recording.raw(1000, 1100)[:, :4], files.stored()[1000:1100])
    np.testing.assert_array_equal(open_recording(path.with_suffix(".set")).raw(5, 12), recording.raw(5, 12))


def test_axona_agrees_with_neo_where_the_first_tetrodes_were_recorded(tmp_path):
    import neo.rawio

    path = vendors.axona(tmp_path, (1, 2, 3)).path
    path.with_suffix(".1").unlink()
    theirs, ours = neo.rawio.AxonaRawIO(str(path)), open_recording(path)
    theirs.parse_header()
    channels = theirs.header["signal_channels"]
    np.testing.assert_array_equal(
        theirs.get_analogsignal_chunk(i_start=100, i_stop=1100, stream_index=0), ours.raw(100, 1100)
    )
    np.testing.assert_allclose(channels["gain"], ours.gain, rtol=1e-6)
    assert (tuple(channels["name"]), channels["sampling_rate"][0]) == (ours.channel_ids, ours.sampling_frequency)


def test_axona_without_a_raw_recording(tmp_path):
    path = vendors.axona(tmp_path).path
    files.refused(InputError, path.with_suffix(".1"), "detected waveforms", ".bin")
    path.write_bytes(path.read_bytes()[:-7])
    files.refused(InputError, path, "packets", "cut off")
    path.unlink()
    files.refused(InputError, path.with_suffix(".set"), "detected waveforms", ".bin")


# Spike2


def test_channels_of_spike2_are_one_recording_whatever_their_gains(tmp_path):
    slow, fast = files.stored("<i2")[:3000, 0], files.stored("<i2")[:, 1]
    path = vendors.spike2(tmp_path, (("angle", "deg", files.FS, fast), ("ECG", "mV", files.FS / 20, slow))).path
    recording = open_recording(path, stream="tet 1, tet 2, tet 3, tet 4")
    np.testing.assert_array_equal(recording.raw(8000, 9000), files.stored()[8000:9000])
    np.testing.assert_allclose(recording.gain, np.array([0.5, 0.5, 0.25, 1.0]) / 6553.6)
    heart = open_recording(path, stream="ECG")
    assert (heart.n_channels, heart.sampling_frequency, heart.n_samples) == (1, 1000.0, 3000)
    np.testing.assert_array_equal(open_recording(path, stream="angle").raw(0, 100)[:, 0], fast[:100])
    files.refused(UsageError, path, "tet 1, tet 2, tet 3, tet 4", "'angle'", "'ECG'", stream="nothing")


# Open Ephys


def test_a_rate_of_open_ephys_that_is_a_text(tmp_path):
    """As the GUI 0.4.5 writes it."""
    written = files.open_ephys(tmp_path)
    path = next(written.path.rglob("structure.oebin"))
    path.write_text(path.read_text().replace(f'"sample_rate": {files.FS}', '"sample_rate": "20000"'))
    assert '"20000"' in path.read_text()
    recording = open_recording(written.path)
    assert (recording.sampling_frequency, recording.start_time_s) == (files.FS, 2.0)
    np.testing.assert_allclose(recording.traces(0, 500), written.traces[:500], rtol=1e-6)


# MaxWell


def test_recordings_of_maxtwo_are_segments(tmp_path):
    path = vendors.maxwell(tmp_path, ("rec0000", "rec0001")).path
    recording = open_recording(path)
    assert [(part.first, part.start_time_s) for part in recording.parts] == [(0, 0.0), (files.N_SAMPLES, 10.0)]
    assert recording.channel_ids == ("ch3 elec300", "ch5 elec500", "ch7 elec700", "ch11 elec1100")
    np.testing.assert_array_equal(recording.channel_positions[:, 0], [52.5, 87.5, 122.5, 192.5])
    recording.close()
    second = open_recording(path, segment=1)
    assert (second.parts, second.start_time_s, second.n_samples) == ((), 10.0, files.N_SAMPLES)
    second.close()


def test_lost_frames_of_maxtwo_are_seams(tmp_path):
    path = vendors.maxwell(tmp_path).path
    frames = 77 + np.arange(files.N_SAMPLES) + 5000 * (np.arange(files.N_SAMPLES) >= 12_345)
    with h5py.File(path, "r+") as file:
        file["wells/well000/rec0000/groups/routed/frame_nos"] = frames
    recording = open_recording(path)
    rest = files.N_SAMPLES - 12_345
    assert [(p.first, p.n_samples, p.start_time_s) for p in recording.parts] == [
        (0, 12_345, 0.0),
        (12_345, rest, 17_345 / files.FS),
    ]
    np.testing.assert_array_equal(recording.raw(12_340, 12_350), files.stored("<u2")[12_340:12_350, [1, 3, 0, 2]])
    recording.close()
    with h5py.File(path, "r+") as file:
        file["wells/well000/rec0000/groups/routed/frame_nos"][500] = 0
    files.refused(InputError, path, "do not increase", "sample 499 has 576, sample 500 0")


def test_recordings_of_maxtwo_with_other_electrodes_are_streams(tmp_path):
    path = vendors.maxwell(tmp_path, ("rec0000", "rec0001"), ((3, 5, 7, 11), (3, 5))).path
    files.refused(UsageError, path, "well000 rec0000", "well000 rec0001", "--stream")
    recording = open_recording(path, stream="well000 rec0001")
    assert recording.channel_ids == ("ch3 elec300", "ch5 elec500")
    np.testing.assert_array_equal(recording.raw(0, 100), files.stored("<u2")[:100, [1, 3]])
    recording.close()


def test_the_first_format_of_maxone_has_a_row_for_every_channel(tmp_path):
    raw, path = files.stored("<u2"), tmp_path / "maxone.h5"
    with h5py.File(path, "w") as file:
        file["version"], file["sig"] = np.array([b"20160704"]), np.hstack([raw, raw + 1]).T
        file["settings/gain"] = np.array([512.0])
        row = [("channel", "<i4"), ("electrode", "<i4"), ("x", "<f8"), ("y", "<f8")]
        file["mapping"] = np.array([(6, 60, 0, 0), (-1, 1, 1, 1), (2, 20, 17.5, 0)], row)
    recording = open_recording(path)
    np.testing.assert_array_equal(recording.raw(0, 100), np.stack([raw[:100, 2] + 1, raw[:100, 2]], axis=1))
    np.testing.assert_allclose(recording.gain, 3.3e6 / 1024 / 512)
    assert recording.sampling_frequency == 20_000.0
    recording.close()


def test_maxwell_agrees_with_neo(tmp_path):
    import neo.rawio

    path = vendors.maxwell(tmp_path).path
    theirs, ours = neo.rawio.MaxwellRawIO(str(path)), open_recording(path)
    theirs.parse_header()
    channels = theirs.header["signal_channels"]
    assert sorted(channels["name"]) == sorted(ours.channel_ids)
    np.testing.assert_allclose(channels["gain"], ours.gain)
    # neo names rows in the order of the mapping, whichever channels they are
    rows = theirs.get_analogsignal_chunk(i_start=0, i_stop=100, stream_index=0)
    np.testing.assert_array_equal(rows[:, [1, 3, 0, 2]], ours.raw(0, 100))
    theirs.h5_file.close()
    ours.close()
