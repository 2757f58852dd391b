"""Every reader passes one suite; then what is particular to each, and every way in which a file is refused."""

from __future__ import annotations

import tracemalloc
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest
import recording_files as files

from spikecrsae.errors import InputError, SpikeCRsAEError, UsageError
from spikecrsae.readers import ReadOptions, open_recording, parse_channels, read_probe

FS = files.FS


@pytest.fixture(scope="module", params=files.WRITERS, ids=lambda writer: writer.__name__)
def written(request, tmp_path_factory) -> files.Written:
    return request.param(tmp_path_factory.mktemp(request.param.__name__))


@pytest.fixture
def opened(written):
    recording = open_recording(written.path, **written.options)
    yield recording
    recording.close()


def refused(kind: type[SpikeCRsAEError], path: Path, *words: str, **options) -> str:
    """The message with which `path` is refused: one line that names the path and the words."""
    with pytest.raises(kind) as caught:
        open_recording(path, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message
    return message


# One suite for all


def test_facts(written, opened):
    assert (opened.n_samples, opened.n_channels) == written.traces.shape
    assert opened.sampling_frequency == pytest.approx(written.fs, rel=1e-6)
    assert opened.amplitude_unit == written.unit
    assert np.dtype(opened.dtype) == np.dtype(written.dtype)
    assert opened.start_time_s == pytest.approx(written.start_time_s)
    assert opened.source == written.path


def test_traces_have_the_known_amplitude(written, opened):
    traces = opened.traces(1000, 3000)
    assert traces.dtype == np.float32
    np.testing.assert_allclose(traces, written.traces[1000:3000], rtol=1e-5, atol=1e-4)


def test_chunks_together_are_the_whole(written, opened):
    chunks = list(opened.chunks(7777, margin=50))
    whole = np.concatenate([chunk.traces[chunk.core] for chunk in chunks])
    np.testing.assert_array_equal(whole, opened.traces(0, opened.n_samples))
    np.testing.assert_allclose(whole, written.traces, rtol=1e-5, atol=1e-4)
    assert (chunks[0].left, chunks[0].right) == (0, 50)
    assert (chunks[-1].left, chunks[-1].right) == (50, 0)


def test_ranges_are_clipped_at_the_ends(opened):
    n = opened.n_samples
    np.testing.assert_array_equal(opened.traces(-100, 20), opened.traces(0, 20))
    np.testing.assert_array_equal(opened.traces(n - 20, n + 100), opened.traces(n - 20, n))
    assert opened.traces(n + 5, n + 10).shape == (0, opened.n_channels)


def test_channels_are_selected_in_the_order_asked(written):
    recording = open_recording(written.path, **written.options, channels="2-3,0")
    try:
        np.testing.assert_allclose(recording.traces(0, 50), written.traces[:50, [2, 3, 0]], rtol=1e-5, atol=1e-4)
        assert recording.channels == (2, 3, 0)
    finally:
        recording.close()


def test_opening_and_reading_a_chunk_takes_no_memory_for_the_rest(written):
    open_recording(written.path, **written.options).close()  # what is imported or cached once does not count
    size = written.traces.shape[0] * written.traces.shape[1] * np.dtype(written.dtype).itemsize
    tracemalloc.start()
    recording = open_recording(written.path, **written.options)
    recording.traces(20_000, 21_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    recording.close()
    # Time stamps have to be looked at, once; half of the file is far above all other needs.
    allowed = 4 * files.N_SAMPLES * 8 if "stamps" in written.path.name else size / 2
    assert peak < allowed


def test_a_file_of_several_channels_has_distinct_ids(opened):
    assert len(set(opened.channel_ids)) == opened.n_channels


def test_an_unknown_channel_is_refused(written):
    with pytest.raises(UsageError, match="channels 0 to 3"):
        open_recording(written.path, **written.options, channels=[0, 4])


# Options and the side file


@pytest.mark.parametrize(("text", "channels"), [("0", (0,)), ("0,2-5", (0, 2, 3, 4, 5)), (" 3 , 1 - 2 ", (3, 1, 2))])
def test_channel_lists(text, channels):
    assert parse_channels(text) == channels


@pytest.mark.parametrize("text", ["", "a", "1,", "5-2", "-1", "1-2-3", "0,0", "1.5", "0-3,2"])
def test_bad_channel_lists(text):
    with pytest.raises(UsageError, match="channels"):
        parse_channels(text)


@pytest.mark.parametrize(
    "values",
    [
        {"sampling_frequency": 0},
        {"sampling_frequency": float("nan")},
        {"sampling_frequency": "fast"},
        {"n_channels": -1},
        {"n_channels": 1.5},
        {"dtype": "complex64"},
        {"dtype": "int17"},
        {"axis": 2},
        {"gain": 0},
        {"gain": "x"},
        {"offset": float("inf")},
    ],
)
def test_bad_options(values):
    with pytest.raises(UsageError, match=next(iter(values))):
        ReadOptions(**values)


def test_an_option_that_does_not_exist(tmp_path):
    written = files.mearec(tmp_path)
    with pytest.raises(UsageError, match="colour"):
        open_recording(written.path, colour="red")


def test_an_option_that_the_format_would_ignore(tmp_path):
    assert "MEArec" in refused(UsageError, files.mearec(tmp_path).path, "--series", series="Raw")
    refused(UsageError, files.nwb(tmp_path).path, "--dataset", dataset="traces")


def test_told_facts_go_before_the_file(tmp_path):
    written = files.hdf5_millivolts(tmp_path)
    recording = open_recording(written.path, ReadOptions(sampling_frequency=10_000), gain=2.0)
    np.testing.assert_allclose(recording.traces(0, 5), 2.0 * files.stored()[:5])
    assert recording.sampling_frequency == 10_000
    assert any("20000" in note and "10000" in note for note in recording.notes)
    recording.close()


def test_side_file_errors(tmp_path):
    written = files.raw_little(tmp_path)
    side = tmp_path / "little.dat.toml"
    for text, word in (("n_chan = 4", "n_chan"), ("= 4", "TOML"), ("axis = 7", "axis")):
        side.write_text(text)
        with pytest.raises(UsageError, match=word) as caught:
            open_recording(written.path)
        assert str(side) in str(caught.value)


def test_side_file_may_hold_every_option():
    assert {f.name for f in fields(ReadOptions)} >= {"stream", "segment", "series", "probe"}


# Raw binary


@pytest.mark.parametrize("missing", ["sampling_frequency", "n_channels", "dtype"])
def test_raw_binary_guesses_no_fact(tmp_path, missing):
    written = files.raw_little(tmp_path)
    options = {name: value for name, value in written.options.items() if name != missing}
    refused(UsageError, written.path, "--" + missing.replace("_", "-"), "little.dat.toml", **options)


def test_raw_binary_of_wrong_size(tmp_path):
    path = tmp_path / "cut.dat"
    path.write_bytes(b"\1" * 4001)
    refused(InputError, path, "4001 bytes", sampling_frequency=FS, n_channels=4, dtype="int16")


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    written = files.raw_little(tmp_path)
    recording = open_recording(written.path, **written.options)
    written.path.write_bytes(written.path.read_bytes()[:8000])
    with pytest.raises(InputError, match="cannot be read"):
        recording.traces(0, 2000)


# HDF5


def hdf5(path: Path, **datasets) -> Path:
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file[name] = data
    return path


def test_paths_that_nothing_reads(tmp_path):
    refused(InputError, tmp_path / "missing.h5", "does not exist")
    refused(InputError, tmp_path, "no reader")
    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    refused(InputError, text, "not HDF5")
    empty = tmp_path / "empty.h5"
    empty.touch()
    refused(InputError, empty, "empty")
    refused(InputError, tmp_path, "give one file of it", "empty.h5, text.h5")
    pl2 = tmp_path / "session.pl2"
    pl2.write_bytes(b"PLEX")
    refused(InputError, pl2, "convert to .plx")
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG")
    refused(InputError, picture, "no reader")
    (tmp_path / "sorting.h5").touch()
    refused(InputError, tmp_path, "result folder")


def test_a_truncated_hdf5_file(tmp_path):
    written = files.hdf5_unsigned(tmp_path)
    content = written.path.read_bytes()
    written.path.write_bytes(content[: len(content) // 2])
    refused(InputError, written.path, "truncated")


def test_hdf5_without_traces(tmp_path):
    refused(InputError, hdf5(tmp_path / "none.h5", names=[b"a"], few=[1.0, 2.0]), "no traces", "/few")
    refused(InputError, hdf5(tmp_path / "bare.h5"), "no dataset at all")


def test_hdf5_with_several_candidates(tmp_path):
    path = hdf5(tmp_path / "two.h5", lfp=np.zeros((1000, 4)), wide=np.zeros((2000, 4)))
    refused(UsageError, path, "/lfp", "/wide", "--dataset")
    refused(UsageError, path, "/lfp", "no dataset other", dataset="other")
    recording = open_recording(path, dataset="wide", sampling_frequency=FS)
    assert recording.n_samples == 2000
    recording.close()


def test_hdf5_with_one_candidate_under_another_name(tmp_path):
    recording = open_recording(hdf5(tmp_path / "one.h5", lfp=np.zeros((1000, 4))), sampling_frequency=FS)
    assert any("/lfp" in note for note in recording.notes)
    recording.close()


def test_hdf5_without_sampling_frequency(tmp_path):
    refused(InputError, hdf5(tmp_path / "rate.h5", traces=np.zeros((1000, 4))), "--sampling-frequency")


def test_time_is_not_told_by_the_shape(tmp_path):
    path = hdf5(tmp_path / "wide.h5", traces=np.zeros((4, 1000)))
    refused(UsageError, path, "--axis", sampling_frequency=FS)
    recording = open_recording(path, sampling_frequency=FS, axis=1)
    assert (recording.n_samples, recording.n_channels) == (1000, 4)
    recording.close()


@pytest.mark.parametrize("name", ["waveforms", "snippets", "spikes", "anything"])
def test_snippets_are_refused_with_the_reason(tmp_path, name):
    path = hdf5(tmp_path / "cut.h5", **{name: np.zeros((500, 32, 4)), "timestamps": np.arange(500.0)})
    refused(InputError, path, "detected waveforms", "continuous signal", f"/{name}")
    refused(InputError, path, "two axes", dataset=name)


@pytest.mark.parametrize("dtype", ["complex64", "S3", "bool"])
def test_traces_that_are_no_real_numbers(tmp_path, dtype):
    path = hdf5(tmp_path / "kind.h5", traces=np.zeros((1000, 4), dtype))
    refused(InputError, path, "real numbers", sampling_frequency=FS)


def test_a_single_wire_may_be_one_dimensional(tmp_path):
    recording = open_recording(hdf5(tmp_path / "wire.h5", traces=np.arange(1000)), sampling_frequency=FS)
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
    path = hdf5(tmp_path / "rate.h5", traces=np.zeros((1000, 4)))
    with pytest.raises(InputError):
        open_recording(path)
    with h5py.File(path, "r+") as file:  # HDF5 refuses to write to a file that is still open for reading
        file.attrs["fs"] = FS
    open_recording(path).close()


def test_gain_of_the_wrong_length(tmp_path):
    refused(UsageError, files.hdf5_unsigned(tmp_path).path, "3 values", gain=[1.0, 2.0, 3.0])


# MEArec and NWB


def test_old_mearec_files_are_noted_and_have_positions(tmp_path):
    recording = open_recording(files.mearec_transposed(tmp_path).path)
    assert any("transposed" in note for note in recording.notes)
    np.testing.assert_array_equal(recording.channel_positions, [[0, -24], [0, -8], [0, 8], [0, 24]])
    recording.close()


def test_mearec_templates_are_no_recording(tmp_path):
    path = hdf5(tmp_path / "templates.h5", templates=np.zeros((10, 4, 200)))
    with h5py.File(path, "r+") as file:
        file.attrs["mearec_version"] = "1.9.0"
    refused(InputError, path, "without recordings")


def test_nwb_positions_without_relative_ones(tmp_path):
    recording = open_recording(files.nwb(tmp_path).path, channels="1,2")
    np.testing.assert_array_equal(recording.channel_positions, [[0, 20], [20, 0]])
    assert recording.channel_ids == ("11", "12")
    recording.close()


def test_nwb_with_several_series(tmp_path):
    path = tmp_path / "two.nwb"
    files.write_nwb(path, files.stored(), series=("Raw", "LFP"))
    refused(UsageError, path, "/acquisition/Raw", "/acquisition/LFP", "--series")
    refused(UsageError, path, "'Other'", series="Other")
    for name in ("LFP", "acquisition/LFP"):
        open_recording(path, series=name).close()


@pytest.mark.parametrize("fault", ["gap", "jitter", "back", "twice", "nan"])
def test_irregular_time_stamps_are_refused(tmp_path, fault):
    stamps = np.arange(files.N_SAMPLES) / FS
    if fault == "gap":
        stamps[30_000:] += 1.0
    elif fault == "jitter":
        stamps[100] += 0.02 / FS
    elif fault == "back":
        stamps = stamps[::-1]
    elif fault == "twice":
        stamps[500] = stamps[499]
    else:
        stamps[77] = np.nan
    path = tmp_path / "stamps.nwb"
    files.write_nwb(path, files.stored(), timestamps=stamps)
    refused(InputError, path, "time stamps")


def test_nwb_without_a_continuous_series(tmp_path):
    path = hdf5(tmp_path / "spikes.nwb", **{"acquisition/snips/data": np.zeros((10, 4, 30))})
    with h5py.File(path, "r+") as file:
        file.attrs["nwb_version"] = "2.0"
    refused(InputError, path, "without an ElectricalSeries")
    with h5py.File(path, "r+") as file:
        file["acquisition/snips"].attrs["neurodata_type"] = "SpikeEventSeries"
    refused(InputError, path, "detected waveforms", "/acquisition/snips")


# neo


def test_several_streams_are_listed(tmp_path):
    path = files.open_ephys(tmp_path, streams=("Acq-1.A", "Acq-1.B")).path
    refused(UsageError, path, "Acq-1.A", "Acq-1.B", "--stream")
    refused(UsageError, path, "'nothing'", stream="nothing")
    for stream in ("Acq-1.B", "1", 1):
        assert open_recording(path, stream=stream).n_channels == files.N_CHANNELS


def test_several_segments_are_listed(tmp_path):
    path = files.open_ephys(tmp_path, recordings=2).path
    refused(UsageError, path, "--segment", "3.000 s from 2.000 s", "from 4.000 s")
    refused(UsageError, path, "no segment 2", segment=2)
    assert open_recording(path, segment=1).start_time_s == pytest.approx(4.0)


def test_one_file_of_a_neuralynx_folder(tmp_path):
    written = files.neuralynx(tmp_path)
    recording = open_recording(written.path / "CSC2.ncs")
    assert recording.n_channels == 1
    np.testing.assert_allclose(recording.traces(0, 600), written.traces[:600, 2:3], rtol=1e-5)


def test_a_damaged_file_of_a_known_format(tmp_path):
    path = tmp_path / "broken.rhd"
    path.write_bytes(b"\0" * 300)
    refused(InputError, path, "neo", "Intan")


def test_a_channel_that_is_no_voltage(tmp_path):
    path = files.brainvision(tmp_path).path
    path.write_text(path.read_text(encoding="utf-8").replace("0.4,µV", "0.4,C"), encoding="utf-8")
    assert open_recording(path).amplitude_unit == "ADC"
    assert open_recording(path, channels="0-2").amplitude_unit == "uV"


# Geometry


def probe_file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_probeinterface_json(tmp_path):
    probeinterface = pytest.importorskip("probeinterface")
    probe = probeinterface.generate_tetrode()
    probe.set_device_channel_indices([3, 2, 1, 0])
    path = tmp_path / "tetrode.json"
    probeinterface.write_probeinterface(str(path), probe)
    recording = open_recording(files.hdf5_millivolts(tmp_path).path, probe=path, channels="1-3")
    np.testing.assert_allclose(recording.channel_positions, probe.contact_positions[[2, 1, 0]])
    recording.close()


def test_prb_with_groups_and_ranges(tmp_path):
    text = "total_nb_channels = 8\nchannel_groups = {\n 0: {'channels': list(range(4)), 'geometry': {i: (0, 10) for i in []}},\n}\n"
    with pytest.raises(InputError, match="literal"):
        read_probe(probe_file(tmp_path / "comprehension.prb", text))
    text = (
        "channel_groups = {0: {'channels': list(range(0, 2)), 'geometry': {0: (0, 0), 1: (0, 20)}},"
        " 1: {'channels': [2, 3], 'geometry': [(50, 0), (50, 20)]}}"
    )
    probe = read_probe(probe_file(tmp_path / "good.prb", text))
    assert probe.groups == {"0": (0, 1), "1": (2, 3)}
    assert probe.positions == {0: (0, 0), 1: (0, 20), 2: (50, 0), 3: (50, 20)}


def test_prb_is_never_executed(tmp_path):
    mark = tmp_path / "executed"
    text = f"channel_groups = {{0: {{'channels': [open({str(mark)!r}, 'w')]}}}}"
    with pytest.raises(InputError, match="nothing is run"):
        read_probe(probe_file(tmp_path / "evil.prb", text))
    assert not mark.exists()


def test_prb_without_geometry_gives_groups(tmp_path):
    probe = probe_file(tmp_path / "bare.prb", "channel_groups = {1: {'channels': [0, 1, 2, 3]}}")
    assert read_probe(probe).groups == {"1": (0, 1, 2, 3)}
    recording = open_recording(files.hdf5_millivolts(tmp_path).path, probe=probe)
    assert recording.channel_positions is None
    assert any("no contact positions" in note for note in recording.notes)
    recording.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        "x = 1",
        "channel_groups = 3",
        "channel_groups = {0: {'channels': [0, 0]}}",
        "channel_groups = {0: {'channels': [0], 'geometry': {0: (0, 1e999)}}}",
        '{"probes": [{"contact_positions": [[0, 0], [0, 1]], "device_channel_indices": [0]}]}',
        '{"probes": [{"contact_positions": [[0, 0], [0, 1]], "device_channel_indices": [0, 0]}]}',
    ],
)
def test_bad_probe_files(tmp_path, text):
    path = probe_file(tmp_path / "bad.prb", text)
    with pytest.raises(InputError, match=r"bad\.prb"):
        read_probe(path)


def test_a_probe_that_misses_a_channel(tmp_path):
    probe = probe_file(
        tmp_path / "two.prb", "channel_groups = {0: {'channels': [0, 1], 'geometry': {0: (0, 0), 1: (0, 9)}}}"
    )
    path = files.hdf5_millivolts(tmp_path).path
    with pytest.raises(InputError, match=r"channels \[2, 3\]"):
        open_recording(path, probe=probe)
    open_recording(path, probe=probe, channels="0,1").close()


@pytest.mark.parametrize(
    ("stored", "flat"),
    [
        ([[0, 1, 2], [0, 3, 4]], [[1, 2], [3, 4]]),
        ([[5, 1, 2], [5, 1, 4]], [[0, 2], [0, 4]]),
        ([[0, 0], [0, 5]], [[0, 0], [0, 5]]),
        ([[1, 1], [1, 1]], None),
        ([[0, np.nan], [1, 1]], None),
    ],
)
def test_positions_are_flattened(tmp_path, stored, flat):
    path = hdf5(tmp_path / "flat.h5", traces=np.zeros((1000, 2)), channel_positions=np.array(stored, float))
    recording = open_recording(path, sampling_frequency=FS)
    if flat is None:
        assert recording.channel_positions is None
        assert any("positions" in note for note in recording.notes)
    else:
        np.testing.assert_array_equal(recording.channel_positions, flat)
    recording.close()


# Real files


def test_real_nwb_agrees_with_pynwb(data_dir):
    pynwb = pytest.importorskip("pynwb")
    path = data_dir / "synth_tetrode5.nwb"
    recording = open_recording(path)
    with pynwb.NWBHDF5IO(str(path), "r") as io:
        series = io.read().acquisition["ElectricalSeries"]
        expected = series.data[100_000:101_000] * series.conversion * 1e6
        assert recording.sampling_frequency == series.rate
    np.testing.assert_allclose(recording.traces(100_000, 101_000), expected, rtol=1e-5)
    assert (recording.n_channels, recording.amplitude_unit, recording.n_samples) == (4, "uV", 3_600_000)
    recording.close()


def test_real_mearec(data_dir):
    recording = open_recording(data_dir / "mearec_tetrode6.h5")
    assert (recording.format, recording.sampling_frequency, recording.n_samples) == ("MEArec", 32000.0, 3_840_000)
    np.testing.assert_array_equal(recording.channel_positions, [[0, -24], [0, -8], [0, 8], [0, 24]])
    recording.close()


def test_real_raw_binary_is_the_hdf5_copy(data_dir):
    raw = open_recording(data_dir / "hc1_d533101_5s.dat", sampling_frequency=10_000, n_channels=4, dtype="uint16")
    copy = open_recording(data_dir / "hc1_d533101_5s.h5")
    np.testing.assert_array_equal(raw.traces(0, 50_000), copy.traces(0, 50_000))
    assert raw.amplitude_unit == copy.amplitude_unit == "ADC"
    copy.close()
