"""Every reader passes one suite; then what is particular to each, and every way in which a file is refused."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from helpers import exchange_files as exchange
from helpers import recording_files as files
from helpers import vendor_files as vendors

from spikecrsae.errors import InputError, ReadError, UsageError
from spikecrsae.readers import open_recording

FS = files.FS


@pytest.fixture(
    scope="module", params=(*files.WRITERS, *vendors.WRITERS, *exchange.WRITERS), ids=lambda writer: writer.__name__
)
def written(request, tmp_path_factory) -> files.Written:
    return request.param(tmp_path_factory.mktemp(request.param.__name__))


@pytest.fixture
def opened(written):
    recording = open_recording(written.path, **written.options)
    yield recording
    recording.close()


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
    size = max(size, written.path.stat().st_size)  # Axona stores 64 channels, whichever were recorded
    tracemalloc.start()
    recording = open_recording(written.path, **written.options)
    recording.traces(20_000, 21_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    recording.close()
    # Time stamps have to be looked at, once; half of the file is far above all other needs.
    has_stamps = "stamps" in written.path.name or recording.format in ("neo Intan", "SpikeInterface")
    # A packed chunk is unpacked whole: a second of it, whatever the length of the recording.
    is_packed = written.path.suffix == ".cbin" or (written.path / "run_g0_t0.imec0.ap.cbin").exists()
    allowed = 4 * files.N_SAMPLES * 8 if has_stamps else 2**20 if is_packed else size / 2
    is_loaded = any("loaded into memory" in note for note in recording.notes)
    assert peak < (4 * size if is_loaded else allowed)


def test_a_file_of_several_channels_has_distinct_ids(opened):
    assert len(set(opened.channel_ids)) == opened.n_channels


def test_an_unknown_channel_is_refused(written):
    with pytest.raises(UsageError, match="channels 0 to 3"):
        open_recording(written.path, **written.options, channels=[0, 4])


# Raw binary


@pytest.mark.parametrize("missing", ["sampling_frequency", "n_channels", "dtype"])
def test_raw_binary_guesses_no_fact(tmp_path, missing):
    written = files.raw_little(tmp_path)
    options = {name: value for name, value in written.options.items() if name != missing}
    files.refused(UsageError, written.path, "--" + missing.replace("_", "-"), "little.dat.toml", **options)


def test_raw_binary_of_wrong_size(tmp_path):
    path = tmp_path / "cut.dat"
    path.write_bytes(b"\1" * 4001)
    files.refused(InputError, path, "4001 bytes", sampling_frequency=FS, n_channels=4, dtype="int16")


@pytest.mark.parametrize(
    ("stored", "told", "words"),
    [
        ("uint16", "float32", ("--dtype float32 is wrong", "e-3", "int16 or uint16")),
        ("int16", "float32", ("--dtype float32 is wrong", "e-3", "int16 or uint16")),
        ("int32", "float64", ("--dtype float64 is wrong", "int16 or uint16")),
        ("int32", "int16", ("--dtype int16 is wrong", "0 or -1", "int32")),
        (">i4", ">i2", ("--dtype >i2 is wrong", "0 or -1", "int32")),
    ],
)
def test_raw_binary_of_another_type_is_refused(tmp_path, stored, told, words):
    """Where the numbers themselves show it; 2000 is the middle of a converter of 12 bits."""
    path, middle = tmp_path / "a.dat", 2000 * (stored == "uint16")
    (np.random.default_rng(1).normal(middle, 30, (20_000, 4))).astype(stored).tofile(path)
    options = {"sampling_frequency": FS, "n_channels": 4}
    files.refused(InputError, path, *words, **options, dtype=told)
    np.testing.assert_allclose(open_recording(path, **options, dtype=stored).raw(0, 20_000).mean(), middle, atol=1)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_floats_in_any_unit_are_no_other_type(tmp_path, scale):
    values = np.random.default_rng(1).normal(0, 30 * scale, (20_000, 4)).astype("float32")
    values[:, 1] = 0.0  # a dead channel
    values.tofile(tmp_path / "a.dat")
    recording = open_recording(tmp_path / "a.dat", sampling_frequency=FS, n_channels=4, dtype="float32")
    np.testing.assert_array_equal(recording.raw(0, 20_000), values)


def test_a_dead_channel_is_no_half_of_a_number(tmp_path):
    values = np.random.default_rng(1).normal(0, 30, (20_000, 2)).astype("int16") * np.array([1, 0], "int16")
    values.tofile(tmp_path / "a.dat")
    assert open_recording(tmp_path / "a.dat", sampling_frequency=FS, n_channels=2, dtype="int16").n_channels == 2


def test_many_channels_without_groups_are_said(tmp_path):
    path, options = tmp_path / "a.dat", {"sampling_frequency": FS, "n_channels": 16, "dtype": "int16"}
    np.random.default_rng(1).normal(0, 30, (20_000, 16)).astype("int16").tofile(path)
    (note,) = open_recording(path, **options).notes
    assert "16 channels" in note and "--groups" in note and "0-3,4-7,8-11,12-15" in note
    for known in ({"groups": "0-3,4-7,8-11,12-15"}, {"groups": "all"}, {"channels": "4-7"}):
        assert not any("without groups" in note for note in open_recording(path, **options, **known).notes)


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    written = files.raw_little(tmp_path)
    recording = open_recording(written.path, **written.options)
    written.path.write_bytes(written.path.read_bytes()[:8000])
    with pytest.raises(ReadError, match="has become shorter while it was read"):
        recording.traces(0, 2000)
    written.path.unlink()
    with pytest.raises(ReadError, match="has vanished while it was read"):
        recording.traces(0, 2000)


# HDF5


def test_paths_that_nothing_reads(tmp_path):
    files.refused(InputError, tmp_path / "missing.h5", "does not exist")
    files.refused(InputError, tmp_path, "no reader")
    text = tmp_path / "text.h5"
    text.write_text("not HDF5")
    files.refused(InputError, text, "not HDF5")
    empty = tmp_path / "empty.h5"
    empty.touch()
    files.refused(InputError, empty, "empty")
    files.refused(InputError, tmp_path, "give one file of it", "empty.h5, text.h5")
    pl2 = tmp_path / "session.pl2"
    pl2.write_bytes(b"PLEX")
    files.refused(InputError, pl2, "convert to .plx")
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"\x89PNG")
    files.refused(InputError, picture, "no reader")
    (tmp_path / "sorting.h5").touch()
    files.refused(InputError, tmp_path, "result folder")


# neo


def test_several_streams_are_listed(tmp_path):
    path = files.open_ephys(tmp_path, streams=("Acq-1.A", "Acq-1.B")).path
    files.refused(UsageError, path, "Acq-1.A", "Acq-1.B", "--stream")
    files.refused(UsageError, path, "'nothing'", stream="nothing")
    for stream in ("Acq-1.B", "1", 1):
        assert open_recording(path, stream=stream).n_channels == files.N_CHANNELS


def test_a_segment_is_chosen_from_the_list(tmp_path):
    path = files.open_ephys(tmp_path, recordings=2).path
    files.refused(UsageError, path, "no segment 2", "--segment", "3.000 s from 2.000 s", "from 4.000 s", segment=2)
    assert open_recording(path, segment=1).start_time_s == pytest.approx(4.0)


def test_the_neural_stream_among_several_is_taken(tmp_path):
    """A file with auxiliary channels, or with field potentials beside, needs no --stream; a note says what was taken."""
    for written in (vendors.intan(tmp_path), vendors.spikeglx(tmp_path)):
        recording = open_recording(written.path)
        (note,) = [note for note in recording.notes if "--stream" in note]
        assert "amplifier" in note or "imec0.ap" in note
    recording = open_recording(tmp_path / "run_g0", stream="imec0.lf")
    assert recording.sampling_frequency == pytest.approx(FS / 12, rel=1e-5)
    assert open_recording(tmp_path / "tetrode_240101_120000.rhd", stream=1).n_channels == 3


def test_one_file_of_a_spikeglx_folder(tmp_path):
    written = vendors.spikeglx(tmp_path, triggers=2)
    assert len(open_recording(written.path).parts) == 2
    recording = open_recording(written.path / "run_g0_t1.imec0.ap.bin")
    assert (recording.parts, recording.start_time_s, recording.n_samples) == ((), 6.0, files.N_SAMPLES)
    files.refused(InputError, written.path / "run_g0_t0.imec0.lf.bin", "only field potentials", "--stream")
    field = open_recording(written.path / "run_g0_t0.imec0.lf.bin", stream="imec0.lf")
    assert field.sampling_frequency == pytest.approx(FS / 12, rel=1e-5) and field.start_time_s == pytest.approx(
        1.0, abs=1e-3
    )


def test_pauses_of_a_blackrock_file_are_seams(tmp_path):
    recording = open_recording(vendors.blackrock(tmp_path, blocks=2).path)
    assert [(part.first, part.start_time_s) for part in recording.parts] == [(0, 1.0), (files.N_SAMPLES, 5.0)]


def test_pauses_of_a_plexon_file_are_seams(tmp_path):
    written = vendors.plexon(tmp_path, pause_s=7.0)
    recording = open_recording(written.path)
    half = files.N_SAMPLES // 2
    assert [(part.first, part.n_samples) for part in recording.parts] == [(0, half), (half, half - 1)]
    assert [part.start_time_s for part in recording.parts] == pytest.approx([0.0, half / FS + 7.0])
    np.testing.assert_allclose(recording.traces(0, files.N_SAMPLES), written.traces, rtol=1e-5, atol=1e-4)
    assert open_recording(written.path, segment=1).n_samples == half - 1


def test_one_file_of_a_neuralynx_folder(tmp_path):
    written = files.neuralynx(tmp_path)
    recording = open_recording(written.path / "CSC2.ncs")
    assert recording.n_channels == 1
    np.testing.assert_allclose(recording.traces(0, 600), written.traces[:600, 2:3], rtol=1e-5)


def test_a_damaged_file_of_a_known_format(tmp_path):
    path = tmp_path / "broken.rhd"
    path.write_bytes(b"\0" * 300)
    files.refused(InputError, path, "neo", "Intan")


def test_a_channel_that_is_no_voltage(tmp_path):
    path = files.brainvision(tmp_path).path
    path.write_text(path.read_text(encoding="utf-8").replace("0.4,µV", "0.4,C"), encoding="utf-8")
    recording = open_recording(path)
    assert (recording.channel_ids, recording.amplitude_unit) == (("E0", "E1", "E2"), "uV")
    assert any("3 E3" in note and "left out" in note for note in recording.notes)
    assert open_recording(path, channels="E3").amplitude_unit == "ADC"


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
