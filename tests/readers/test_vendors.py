"""What is particular to single vendors' formats that are read here, or that neo is helped with."""

from __future__ import annotations

import numpy as np
from helpers import recording_files as files
from helpers import vendor_files as vendors

from spikecrsae.errors import InputError
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
