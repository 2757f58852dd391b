"""Formats in which laboratories exchange data: each fact from the file where it holds it, one clear question where not."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from helpers import exchange_files as exchange
from helpers import recording_files as files

from spikecrsae.errors import InputError
from spikecrsae.readers import open_recording

FS, N = files.FS, files.N_CHANNELS

# HDF5 of Multi Channel Systems


def test_the_acquired_electrodes_of_mcs_are_taken_and_others_on_request(tmp_path):
    written = exchange.mcs_hdf5(tmp_path)
    recording = open_recording(written.path)
    assert recording.channel_ids == ("E1", "E2", "E3", "E4")
    assert any("Electrode Raw Data" in note and "--stream" in note for note in recording.notes)
    filtered = open_recording(written.path, stream="Stream_0 Filter Data")
    np.testing.assert_array_equal(filtered.raw(0, 100), files.stored()[:100] // 2)
    assert open_recording(written.path, stream=2).channel_ids == ("D1",)


def test_a_gap_of_mcs_is_a_seam(tmp_path):
    written = exchange.mcs_hdf5(tmp_path, [[2_000_000, 0, 19_999], [7_500_000, 20_000, 59_999]])
    recording = open_recording(written.path)
    assert [(p.first, p.n_samples, p.start_time_s) for p in recording.parts] == [(0, 20_000, 2.0), (20_000, 40_000, 7.5)]
    np.testing.assert_array_equal(recording.raw(19_990, 20_010), files.stored()[19_990:20_010])
    second = open_recording(written.path, segment=1)
    np.testing.assert_array_equal(second.raw(0, 10), files.stored()[20_000:20_010])


def test_mcs_without_an_analog_stream(tmp_path):
    path = exchange.mcs_hdf5(tmp_path).path
    with h5py.File(path, "r+") as file:
        del file["Data/Recording_0/AnalogStream"]
    files.refused(InputError, path, "no analog stream")


def test_mcs_agrees_with_spikeinterface(tmp_path):
    extractors = pytest.importorskip("spikeinterface.extractors")
    written = exchange.mcs_hdf5(tmp_path, [[0, 0, files.N_SAMPLES - 1]])
    theirs, ours = extractors.read_mcsh5(written.path, stream_id=1), open_recording(written.path)
    assert theirs.get_sampling_frequency() == ours.sampling_frequency
    assert theirs.get_num_samples() == ours.n_samples
    np.testing.assert_allclose(theirs.get_channel_gains(), ours.gain)
    # it takes rows for channels, whatever RowIndex says
    np.testing.assert_array_equal(theirs.get_traces(end_frame=1000)[:, ::-1], ours.raw(0, 1000))
    ours.close()
