"""Formats in which laboratories exchange data: each fact from the file where it holds it, one clear question where not."""

from __future__ import annotations

import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from helpers import exchange_files as exchange
from helpers import recording_files as files

from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers import neo as neo_module
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


# MATLAB


def test_the_unit_of_a_sampling_interval_is_the_one_that_gives_a_rate_of_spikes(tmp_path):
    for interval, unit in ((1 / FS, " s"), (1e3 / FS, " ms"), (1e6 / FS, " us")):
        recording = open_recording(exchange.matlab_7_3(tmp_path, interval).path)
        assert recording.sampling_frequency == pytest.approx(FS)
        assert any("sampling interval" in note and note.endswith(unit) for note in recording.notes)
        recording.close()


def test_trials_are_parts_and_facts_stand_beside_the_traces(tmp_path):
    recording = open_recording(exchange.matlab_trials(tmp_path).path)
    assert [(part.first, part.n_samples) for part in recording.parts] == [(0, 25_000), (25_000, 35_000)]
    assert recording.sampling_frequency == FS


def test_a_cell_of_matlab_7_3_is_trials_too(tmp_path):
    path, raw = tmp_path / "a.mat", files.stored()
    with h5py.File(path, "w") as file:
        for name, trial in (("#refs#/a", raw[:30_000]), ("#refs#/b", raw[30_000:])):
            exchange.matlab_variable(file, name, trial)
        file["data"] = np.array([[file["#refs#/a"].ref], [file["#refs#/b"].ref]], h5py.ref_dtype)
        file["data"].attrs["MATLAB_class"] = np.bytes_("cell")
        exchange.matlab_variable(file, "Fs", np.array(FS))
    recording = open_recording(path)
    assert [part.n_samples for part in recording.parts] == [30_000, 30_000]
    np.testing.assert_array_equal(recording.raw(29_990, 30_010), raw[29_990:30_010])
    recording.close()


def test_a_file_that_another_program_writes_like_matlab_7_3(tmp_path):
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["data"], file["samplingInterval"] = files.stored()[:, :1], np.array([[1e3 / FS]])
        file["OriginalFile"] = np.full((300, 1), 65, "uint16")
    recording = open_recording(tmp_path / "a.mat")
    assert (recording.sampling_frequency, recording.n_channels) == (FS, 1)
    recording.close()


def test_a_matlab_rate_that_is_text(tmp_path):
    path, raw = tmp_path / "text.mat", files.stored()
    scipy.io.savemat(path, {"rec": {"data": raw, "sr": "24000"}})
    recording = open_recording(path)
    assert (recording.sampling_frequency, recording.n_samples) == (24_000.0, len(raw))
    assert any(f"loaded into memory ({raw.nbytes / 1e6:.3g} MB)" in note for note in recording.notes)
    scipy.io.savemat(path, {"data": raw, "sr": "as usual"})
    files.refused(InputError, path, "--sampling-frequency")
    path = files.hdf5(tmp_path / "text.h5", traces=raw)
    with h5py.File(path, "a") as file:
        file.attrs["fs"] = "24000"
    assert open_recording(path).sampling_frequency == 24_000.0


def test_an_empty_npy_holds_no_sample(tmp_path):
    np.save(tmp_path / "empty.npy", np.zeros((0, 4)))
    files.refused(InputError, tmp_path / "empty.npy", "holds no sample", "(0, 4)")


def test_a_matlab_file_agrees_with_scipy(tmp_path):
    path = exchange.matlab(tmp_path).path
    theirs, recording = scipy.io.loadmat(path), open_recording(path)
    np.testing.assert_array_equal(recording.raw(0, 500), theirs["data"].T[:500])
    assert recording.sampling_frequency == theirs["sr"].item()
    assert any("MB" in note and "7.3" in note for note in recording.notes)


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_a_matlab_file_asks_one_question(tmp_path, version):
    def write(**values) -> Path:
        if version == "5":
            scipy.io.savemat(tmp_path / "a.mat", values)
        else:
            with h5py.File(tmp_path / "a.mat", "w") as file:
                for name, value in values.items():
                    exchange.matlab_variable(file, name, value)
        return tmp_path / "a.mat"

    long, wide = np.zeros((1, 5000)), np.zeros((5000, 4))
    files.refused(InputError, write(data=wide), "--sampling-frequency")
    files.refused(UsageError, write(left=long, right=wide, sr=FS), "left, right", "--dataset")
    assert open_recording(tmp_path / "a.mat", dataset="right").n_channels == 4
    files.refused(UsageError, tmp_path / "a.mat", "no variable lost", "left", dataset="lost")
    # what wave_clus writes
    files.refused(
        InputError, write(spikes=np.zeros((500, 64)), index=np.zeros((1, 500)), sr=FS), "only detected waveforms", "spikes"
    )
    files.refused(
        InputError,
        write(spikes=np.zeros((500, 64)), cluster_class=np.zeros((500, 2)), inspk=np.zeros((500, 10))),
        "waveforms",
    )
    files.refused(InputError, write(sr=FS, name="mouse"), "no traces", "sr", "name")


def test_a_matlab_file_that_declares_more_than_it_holds(tmp_path):
    path = tmp_path / "a.mat"
    scipy.io.savemat(path, {"data": np.zeros((100, 4)), "sr": FS})
    content = bytearray(path.read_bytes())
    place = content.index(np.array([100, 4], "<i4").tobytes())
    content[place : place + 4] = np.array([2**30], "<i4").tobytes()
    path.write_bytes(content)
    files.refused(InputError, path, "declares", "damaged")


def test_a_damaged_matlab_file(tmp_path):
    path = exchange.matlab(tmp_path).path
    path.write_bytes(path.read_bytes()[:50_000])
    files.refused(InputError, path, "cannot be read")


# Arrays


def test_an_array_of_channels_first_is_said(tmp_path):
    path = exchange.npy_transposed(tmp_path).path
    files.refused(InputError, path, "--sampling-frequency")
    recording = open_recording(path, sampling_frequency=FS)
    assert any("(4, 60000), read transposed" in note for note in recording.notes)
    files.refused(InputError, path, "4 samples on 60000 channels", sampling_frequency=FS, axis=0)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((100, 40, 4)), "waveforms"),
        (np.zeros((0, 4)), "(0, 4)"),
        (np.zeros((200, 4), complex), "real numbers"),
        (np.array([None] * 200), "holds objects"),
    ],
)
def test_arrays_that_are_no_traces(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    files.refused(InputError, tmp_path / "a.npy", words, sampling_frequency=FS)
    np.savez(tmp_path / "a.npz", a=np.zeros(3))
    files.refused(InputError, tmp_path / "a.npz", "numpy.save")


def test_mountainsort(tmp_path):
    place = exchange.mountainsort(tmp_path).path
    recording = open_recording(place / "raw.mda")
    np.testing.assert_array_equal(recording.channel_positions, [[0, 0], [0, 20], [20, 0], [20, 20]])
    np.testing.assert_array_equal(recording.raw(0, 10), files.stored()[:10])
    (place / "params.json").unlink()
    files.refused(InputError, place / "raw.mda", "--sampling-frequency")
    header = np.array([-3, 4, -2], "<i4").tobytes() + np.array([2, 500], "<i8").tobytes()
    values = np.arange(1000, dtype="<f4")
    (tmp_path / "long.mda").write_bytes(header + values.tobytes())
    np.testing.assert_array_equal(
        open_recording(tmp_path / "long.mda", sampling_frequency=FS).raw(0, 500), values.reshape(500, 2)
    )
    (tmp_path / "long.mda").write_bytes(header + values.tobytes()[:-8])
    files.refused(InputError, tmp_path / "long.mda", "(2, 500)", "cut off")
    (place / "firings.mda").write_bytes((place / "raw.mda").read_bytes())
    files.refused(InputError, place / "firings.mda", "sorting of MountainSort")


def test_mountainsort_agrees_with_spikeinterface(tmp_path):
    extractors = pytest.importorskip("spikeinterface.extractors")
    place = exchange.mountainsort(tmp_path).path
    theirs, ours = extractors.read_mda_recording(place), open_recording(place)
    np.testing.assert_array_equal(theirs.get_traces(start_frame=100, end_frame=900), ours.raw(100, 900))
    np.testing.assert_array_equal(theirs.get_channel_locations(), ours.channel_positions)
    assert (theirs.get_num_samples(), theirs.get_sampling_frequency()) == (ours.n_samples, ours.sampling_frequency)


# SpikeInterface


@pytest.mark.parametrize("kind", ["binary", "zarr"])
def test_what_spikeinterface_saves_is_what_it_opens(tmp_path, kind):
    """Names, scale, geometry of a part of the probe's contacts, groups, segments and their times."""
    si, probeinterface = pytest.importorskip("spikeinterface"), pytest.importorskip("probeinterface")
    raw = files.stored()
    theirs = si.NumpyRecording([raw[:20_000], raw[20_000:]], FS, channel_ids=["a", "b", "c", "d"])
    theirs.set_channel_gains([0.1, 0.2, 0.3, 0.4])
    theirs.set_channel_offsets(1.0)
    probe = probeinterface.generate_tetrode()
    probe.set_device_channel_indices([3, 2, 0, 1])
    theirs.set_probe(probe)
    theirs.set_property("group", ["x", "x", "y", "y"])
    theirs.set_times(10 + np.arange(20_000) / FS, segment_index=0)
    theirs.set_times(20 + np.arange(40_000) / FS, segment_index=1)
    theirs = theirs.select_channels(["d", "b", "c"])
    place = tmp_path / ("a.zarr" if kind == "zarr" else "a")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it does not know where it came from
        theirs.save(folder=place, format=kind, n_jobs=1, progress_bar=False, verbose=False)
    ours = open_recording(place)
    assert ours.channel_ids == ("d", "b", "c")
    assert [(p.n_samples, p.start_time_s) for p in ours.parts] == [(20_000, 10.0), (40_000, 20.0)]
    np.testing.assert_allclose(ours.channel_positions, theirs.get_channel_locations())
    assert ours.channel_groups == ("y", "x", "y")
    np.testing.assert_allclose(
        ours.traces(100, 900),
        theirs.get_traces(segment_index=0, start_frame=100, end_frame=900, return_in_uV=True),
        rtol=1e-6,
    )
    np.testing.assert_array_equal(open_recording(place, segment=1).raw(0, 500), raw[20_000:20_500][:, [3, 1, 2]])


@pytest.mark.parametrize("kind", ["binary", "zarr"])
def test_gaps_in_the_times_of_spikeinterface(tmp_path, kind):
    """A gap parts a segment, a clock that runs a little faster tells the rate, jitter does neither."""
    si = pytest.importorskip("spikeinterface")
    raw = files.stored()
    theirs = si.NumpyRecording([raw[:20_000], raw[20_000:]], FS)
    jitter = np.random.default_rng(0).uniform(-0.2, 0.2, 40_000) / FS
    theirs.set_times(10 + np.arange(20_000) / FS + 2.5 * (np.arange(20_000) >= 7000), segment_index=0)
    theirs.set_times(20 + np.arange(40_000) / FS / 1.001 + jitter, segment_index=1)
    place = tmp_path / ("a.zarr" if kind == "zarr" else "a")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it does not know where it came from
        theirs.save(folder=place, format=kind, n_jobs=1, progress_bar=False, verbose=False)
    ours = open_recording(place)
    assert [p.n_samples for p in ours.parts] == [7000, 13_000, 40_000]
    np.testing.assert_allclose([p.start_time_s for p in ours.parts], [10.0, 12.85, 20.0], atol=1e-5)
    np.testing.assert_allclose(ours.sampling_frequency, 1.001 * FS, rtol=1e-6)
    np.testing.assert_array_equal(ours.raw(6990, 7010), raw[6990:7010])
    np.testing.assert_array_equal(open_recording(place, segment=1).raw(0, 20), raw[7000:7020])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda times: np.r_[times[:100], times[99], times[101:]], "sample 99 is at 4.00495 s and sample 100 at 4.00495 s"),
        (lambda times: times[:-1], "59999, and it has 60000 samples"),
        (lambda times: 1000 * times, "tell 20 Hz, and the recording has 20000 Hz"),
    ],
    ids=["a duplicate", "one too few", "ms"],
)
@pytest.mark.parametrize("ending", ["raw", "npy"])
def test_times_of_spikeinterface_that_cannot_be(tmp_path, change, words, ending):
    place = exchange.spikeinterface_binary(tmp_path).path
    times = change(np.fromfile(place / "times_cached_seg0.raw"))
    if ending == "npy":
        (place / "times_cached_seg0.raw").unlink()
        np.save(place / "times_cached_seg0.npy", times)
    else:
        times.tofile(place / "times_cached_seg0.raw")
    files.refused(InputError, place, words, "Repair them")


def test_older_folders_of_spikeinterface(tmp_path):
    """Before 0.95 another file, before 0.101 another name for the number of channels; channels first, an offset, a start time."""
    written = exchange.spikeinterface_binary(tmp_path, time_axis=1, file_offset=64, t_starts=[7.5])
    facts = written.path / "binary.json"
    facts.write_text(facts.read_text().replace("num_channels", "num_chan"))
    facts.rename(written.path / "cached.json")
    (written.path / "times_cached_seg0.raw").unlink()
    (written.path / "traces_cached_seg0.raw").write_bytes(bytes(64) + files.stored().T.tobytes())
    for path in (written.path, written.path / "cached.json"):
        recording = open_recording(path)
        np.testing.assert_allclose(recording.traces(500, 900), written.traces[500:900], rtol=1e-6)
        assert (recording.start_time_s, recording.n_samples) == (7.5, files.N_SAMPLES)


def test_one_segment_of_a_folder_of_spikeinterface(tmp_path):
    names = ["traces_cached_seg0.raw", "traces_cached_seg1.raw"]
    place = exchange.spikeinterface_binary(tmp_path, file_paths=names).path
    files.stored("<i2")[:25_000].tofile(place / names[1])
    assert len(open_recording(place).parts) == 2
    recording = open_recording(place / names[1])
    assert (recording.n_samples, recording.channel_ids, recording.start_time_s) == (25_000, ("a", "b", "c", "d"), 0.0)
    options = {"sampling_frequency": 1.0, "n_channels": 2, "dtype": "int16"}
    assert open_recording(place / names[1], **options).format == "raw binary"


def test_a_folder_of_spikeinterface_leads_out_of_no_folder(tmp_path):
    files.raw_little(tmp_path)
    place = exchange.spikeinterface_binary(tmp_path, file_paths=["../little.dat"]).path
    files.refused(InputError, place, "little.dat", "missing")


@pytest.mark.parametrize("fault", ["cut", "no facts", "sorting"])
def test_a_folder_of_spikeinterface_that_is_no_recording(tmp_path, fault):
    place = exchange.spikeinterface_binary(tmp_path).path
    if fault == "cut":
        (place / "traces_cached_seg0.raw").write_bytes(bytes(1001))
        files.refused(InputError, place, "1001 bytes", "cut off")
    elif fault == "no facts":
        (place / "binary.json").write_text('{"kwargs": {"dtype": "<i2"}}')
        files.refused(InputError, place, "binary.json", "does not describe")
    else:
        (place / "binary.json").unlink()
        files.refused(InputError, place, "no binary folder", "format='binary'")


def test_zarr_without_spikeinterface(tmp_path, monkeypatch):
    (tmp_path / "a.zarr" / "channel_ids").mkdir(parents=True)
    (tmp_path / "a.zarr" / ".zattrs").write_text("{}")
    monkeypatch.setitem(sys.modules, "spikeinterface", None)
    files.refused(InputError, tmp_path / "a.zarr", "pip install spikeinterface", "spikecrsae[formats]")


# Packages


@pytest.mark.parametrize(("name", "package"), [("a.edf", "pyedflib"), ("a.smrx", "sonpy"), ("a.nix", "nixio")])
def test_a_format_whose_package_is_missing(tmp_path, monkeypatch, name, package):
    with h5py.File(tmp_path / "a.nix", "w") as file:
        file.attrs["format"] = "nix"
    (tmp_path / "a.edf").write_bytes(b"0".ljust(1000))
    (tmp_path / "a.smrx").write_bytes(bytes(1000))
    monkeypatch.setattr(neo_module, "find_spec", lambda wanted: None if wanted == package else find_spec(wanted))
    message = files.refused(InputError, tmp_path / name, f"pip install {package}", 'pip install "spikecrsae[formats]"')
    assert "damaged" not in message


def test_edf_agrees_with_pyedflib(tmp_path):
    pyedflib = pytest.importorskip("pyedflib")
    raw, path = files.stored().astype(np.int32), tmp_path / "a.edf"
    with pyedflib.EdfWriter(str(path), N, pyedflib.FILETYPE_EDFPLUS) as writer:
        ends = {"physical_max": 3276.7, "physical_min": -3276.8, "digital_max": 32767, "digital_min": -32768}
        writer.setSignalHeaders([{"label": f"E{i}", "dimension": "uV", "sample_frequency": FS, **ends} for i in range(N)])
        writer.writeSamples(list(raw.T.copy()), digital=True)
    recording = open_recording(path)
    assert (recording.sampling_frequency, recording.amplitude_unit) == (FS, "uV")
    # neo's scale has one step more than EDF's, which is half a step at the ends
    np.testing.assert_allclose(recording.traces(0, 1000), raw[:1000] * 0.1, atol=0.06)


def test_a_matlab_file_has_a_gain_for_each_channel_and_none_of_zero(tmp_path):
    raw = np.random.default_rng(0).integers(-100, 100, (5000, 4)).astype(np.int16)
    facts = {"data": raw, "sr": 20000.0, "units": "uV"}
    gains = np.array([0.5, 1.0, 2.0, 4.0])
    scipy.io.savemat(tmp_path / "each.mat", {**facts, "gain": gains})
    recording = open_recording(tmp_path / "each.mat")
    np.testing.assert_allclose(recording.traces(0, 100), raw[:100] * gains)
    recording.close()
    scipy.io.savemat(tmp_path / "zero.mat", {**facts, "gain": 0.0})
    with pytest.raises(InputError, match="gain 0"):
        open_recording(tmp_path / "zero.mat")
