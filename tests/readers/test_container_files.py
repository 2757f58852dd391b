"""HDF5, MEArec and NWB files that hold more, less, or other things than one recording."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from helpers import recording_files as files

from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers import open_recording
from spikecrsae.system.safe_hdf5 import open_hdf5

FS = files.FS


def test_a_truncated_hdf5_file(tmp_path):
    written = files.hdf5_unsigned(tmp_path)
    content = written.path.read_bytes()
    written.path.write_bytes(content[: len(content) // 2])
    files.refused(InputError, written.path, f"the file is cut off: {len(content) / 2e6:.1f} of {len(content) / 1e6:.1f} MB")
    written.path.write_bytes(content[:-1])
    files.refused(InputError, written.path, f"the file is cut off: {len(content) - 1} of {len(content)} bytes")
    written.path.write_bytes(content[:4] + b"x" + content[5:])
    files.refused(InputError, written.path, "not HDF5")
    with pytest.raises(InputError, match="not a readable HDF5 file: damaged, or another format"):
        open_hdf5(written.path)


def test_hdf5_without_traces(tmp_path):
    files.refused(InputError, files.hdf5(tmp_path / "none.h5", names=[b"a"], few=[1.0, 2.0]), "no traces", "/few")
    files.refused(InputError, files.hdf5(tmp_path / "bare.h5"), "no dataset at all")


def test_hdf5_with_several_candidates(tmp_path):
    path = files.hdf5(tmp_path / "two.h5", lfp=np.zeros((1000, 4)), wide=np.zeros((2000, 4)))
    files.refused(UsageError, path, "/lfp", "/wide", "--dataset")
    files.refused(UsageError, path, "/lfp", "no dataset other", dataset="other")
    recording = open_recording(path, dataset="wide", sampling_frequency=FS)
    assert recording.n_samples == 2000
    recording.close()


def test_hdf5_with_one_candidate_under_another_name(tmp_path):
    recording = open_recording(files.hdf5(tmp_path / "one.h5", lfp=np.zeros((1000, 4))), sampling_frequency=FS)
    assert any("/lfp" in note for note in recording.notes)
    recording.close()


def test_hdf5_without_sampling_frequency(tmp_path):
    files.refused(InputError, files.hdf5(tmp_path / "rate.h5", traces=np.zeros((1000, 4))), "--sampling-frequency")


def test_time_is_not_told_by_the_shape(tmp_path):
    path = files.hdf5(tmp_path / "wide.h5", traces=np.zeros((4, 1000)))
    files.refused(UsageError, path, "--axis", sampling_frequency=FS)
    recording = open_recording(path, sampling_frequency=FS, axis=1)
    assert (recording.n_samples, recording.n_channels) == (1000, 4)
    recording.close()


@pytest.mark.parametrize("name", ["waveforms", "snippets", "spikes", "anything"])
def test_snippets_are_refused_with_the_reason(tmp_path, name):
    path = files.hdf5(tmp_path / "cut.h5", **{name: np.zeros((500, 32, 4)), "timestamps": np.arange(500.0)})
    files.refused(InputError, path, "detected waveforms", "continuous signal", f"/{name}")
    files.refused(InputError, path, "two axes", dataset=name)


@pytest.mark.parametrize("dtype", ["complex64", "S3", "bool"])
def test_traces_that_are_no_real_numbers(tmp_path, dtype):
    path = files.hdf5(tmp_path / "kind.h5", traces=np.zeros((1000, 4), dtype))
    files.refused(InputError, path, "real numbers", sampling_frequency=FS)


def test_a_single_wire_may_be_one_dimensional(tmp_path):
    recording = open_recording(files.hdf5(tmp_path / "wire.h5", traces=np.arange(1000)), sampling_frequency=FS)
    np.testing.assert_array_equal(recording.traces(5, 8), [[5], [6], [7]])
    recording.close()


def test_unsigned_data_are_kept_and_noted(tmp_path):
    recording = open_recording(files.hdf5_unsigned(tmp_path).path)
    assert any("unsigned" in note for note in recording.notes)
    recording.close()


def test_reading_after_close_is_an_error_of_ours(tmp_path):
    recording = open_recording(files.hdf5_unsigned(tmp_path).path)
    recording.close()
    with pytest.raises(InputError, match="closed"):
        recording.traces(0, 10)


def test_a_refused_file_is_closed(tmp_path):
    path = files.hdf5(tmp_path / "rate.h5", traces=np.zeros((1000, 4)))
    with pytest.raises(InputError):
        open_recording(path)
    with h5py.File(path, "r+") as file:  # HDF5 refuses to write to a file that is still open for reading
        file.attrs["fs"] = FS
    open_recording(path).close()


def test_gain_of_the_wrong_length(tmp_path):
    files.refused(UsageError, files.hdf5_unsigned(tmp_path).path, "3 values", gain=[1.0, 2.0, 3.0])


# MEArec and NWB


def test_old_mearec_files_are_noted_and_have_positions(tmp_path):
    recording = open_recording(files.mearec_transposed(tmp_path).path)
    assert any("transposed" in note for note in recording.notes)
    np.testing.assert_array_equal(recording.channel_positions, [[0, -24], [0, -8], [0, 8], [0, 24]])
    recording.close()


def test_mearec_templates_are_no_recording(tmp_path):
    path = files.hdf5(tmp_path / "templates.h5", templates=np.zeros((10, 4, 200)))
    with h5py.File(path, "r+") as file:
        file.attrs["mearec_version"] = "1.9.0"
    files.refused(InputError, path, "without recordings")


def test_nwb_positions_without_relative_ones(tmp_path):
    recording = open_recording(files.nwb(tmp_path).path, channels="1,2")
    np.testing.assert_array_equal(recording.channel_positions, [[0, 20], [20, 0]])
    assert recording.channel_ids == ("11", "12")
    recording.close()


def test_nwb_channels_have_the_names_of_the_electrodes_table(tmp_path):
    path = tmp_path / "named.nwb"
    files.write_nwb(path, files.stored())
    with h5py.File(path, "a") as file:
        file["general/extracellular_ephys/electrodes/channel_name"] = np.array([b"CH10", b"CH2", b"CH1", b"ADC1"])
    assert open_recording(path).channel_ids == ("CH10", "CH2", "CH1")
    assert open_recording(path, channels="CH1,CH10").channels == (2, 0)
    with h5py.File(path, "a") as file:
        file["general/extracellular_ephys/electrodes/channel_name"][:] = b"CH1"
    assert open_recording(path).channel_ids == ("10", "11", "12", "13")


def test_nwb_with_several_series(tmp_path):
    path = tmp_path / "two.nwb"
    files.write_nwb(path, files.stored(), series=("Raw", "LFP"))
    files.refused(UsageError, path, "/acquisition/Raw", "/acquisition/LFP", "--series")
    files.refused(UsageError, path, "'Other'", series="Other")
    for name in ("LFP", "acquisition/LFP"):
        open_recording(path, series=name).close()


@pytest.mark.parametrize("fault", ["back", "twice", "nan"])
def test_irregular_time_stamps_are_refused(tmp_path, fault):
    stamps = np.arange(files.N_SAMPLES) / FS
    if fault == "back":
        stamps = stamps[::-1]
    elif fault == "twice":
        stamps[500] = stamps[499]
    else:
        stamps[77] = np.nan
    path = tmp_path / "stamps.nwb"
    files.write_nwb(path, files.stored(), timestamps=stamps)
    files.refused(InputError, path, "time stamps")


def test_nwb_without_a_continuous_series(tmp_path):
    path = files.hdf5(tmp_path / "spikes.nwb", **{"acquisition/snips/data": np.zeros((10, 4, 30))})
    with h5py.File(path, "r+") as file:
        file.attrs["nwb_version"] = "2.0"
    files.refused(InputError, path, "without an ElectricalSeries")
    with h5py.File(path, "r+") as file:
        file["acquisition/snips"].attrs["neurodata_type"] = "SpikeEventSeries"
    files.refused(InputError, path, "detected waveforms", "/acquisition/snips")
