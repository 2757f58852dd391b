"""Further formats: each is opened with its field's own reader, and the spikes in it are those of the sorting."""

from __future__ import annotations

import csv
import json
import logging
from dataclasses import replace
from xml.etree import ElementTree

import h5py
import numpy as np
import pytest
from helpers.command_line import spikecrsae
from helpers.recording_files import write_nwb
from helpers.sortings import FS, N_SAMPLES, START_S, exported, make_sorting, write_sorted
from scipy.signal import butter, sosfiltfilt

from spikecrsae.exports.export import export
from spikecrsae.readers import open_recording
from spikecrsae.run.curated import open_sorting

pytestmark = pytest.mark.slow


@pytest.fixture
def made(tmp_path):
    """Three units on a tetrode of which channel 3 was left out."""
    return write_sorted(tmp_path, masked=(3,))


def assert_same_trains(read, sorting) -> None:
    """`read` is a sorting as SpikeInterface sees it, under our unit ids."""
    assert list(read.unit_ids) == list(sorting.unit_ids)
    assert read.get_sampling_frequency() == FS
    for unit in sorting.unit_ids:
        np.testing.assert_array_equal(read.get_unit_spike_train(unit), sorting.spike_samples(unit))


# ---- Phy

SIZES = [(1, 50, 4), (3, 90, 4), (1, 50, 1), (3, 90, 1), (0, 0, 4), (0, 0, 1), (2, 1, 4), (1, 1, 1), (1, 2, 4), (2, 0, 4)]


@pytest.mark.parametrize(("n_units", "n_spikes", "n_channels"), SIZES)
@pytest.mark.parametrize("with_recording", [True, False])
def test_phylib_opens_every_size(tmp_path, n_units, n_spikes, n_channels, with_recording):
    model_of = pytest.importorskip("phylib.io.model", reason="phylib is not installed (pip install phylib)")
    made = write_sorted(tmp_path, n_units=n_units, n_spikes=n_spikes, n_channels=n_channels)
    model = model_of.load_model(exported(made, "phy", with_recording) / "params.py")
    real = np.flatnonzero(model.spike_templates < n_units)
    np.testing.assert_array_equal(model.spike_samples[real], made.sorting.spikes["sample"])
    np.testing.assert_array_equal(model.spike_clusters[real], made.sorting.spikes["unit"])
    assert model.n_spikes - len(real) == max(0, 2 - n_spikes)
    assert model.sample_rate == FS
    n_times = model.n_samples_waveforms
    for row in range(model.n_templates):
        template = model.get_template(row)
        assert template.template.shape == (n_times, len(template.channel_ids))
        assert np.abs(template.template).max() == pytest.approx(float(row < n_units))
    channels, some = np.arange(n_channels), np.arange(min(model.n_spikes, 20))
    for cluster in model.cluster_ids:
        assert len(model.get_cluster_spikes(cluster))
        assert model.get_cluster_mean_waveforms(cluster).mean_waveforms.shape[0] == n_times
    if not with_recording:
        assert model.traces is None and model.features is None
        return
    assert model.traces.shape == (N_SAMPLES, n_channels)
    np.testing.assert_array_equal(model.traces[100:200], made.stored[100:200])
    assert model.get_waveforms(some, channels).shape == (len(some), n_times, n_channels)
    assert model.get_features(some, channels).shape == (len(some), n_channels, 3)
    # depths only where Phy's cluster numbers are templates, as in a folder that nobody has curated
    if n_spikes > 1:
        assert np.isfinite(model.get_depths()).all()


def test_phy_shows_the_channels_templates_and_labels(made):
    model_of = pytest.importorskip("phylib.io.model", reason="phylib is not installed (pip install phylib)")
    model = model_of.load_model(exported(made, "phy") / "params.py")
    sorting = made.sorting
    assert model.channel_mapping.tolist() == [0, 1, 2]
    assert model.channel_positions.tolist() == [[0, 0], [0, 25], [0, 50]]
    half = model.n_samples_waveforms // 2
    for row, peak in enumerate(sorting.peak_index):
        shown = np.zeros((model.n_samples_waveforms, 3))
        template = model.get_template(row)
        shown[:, template.channel_ids] = template.template
        height = np.abs(sorting.templates[row]).max()
        np.testing.assert_allclose(height * shown[half - peak : half - peak + 40], sorting.templates[row, :3].T, atol=1e-4)
    np.testing.assert_array_equal(model.amplitudes, sorting.spikes["amplitude"])
    np.testing.assert_array_equal(model.spike_attributes["probability"], sorting.spikes["probability"])
    assert model.metadata["group"] == {0: "good", 1: "mua", 2: "noise"}
    assert "drift" not in model.metadata and "snr" not in model.metadata
    # the first component carries the spikes: a unit is largest on its own channel
    features = np.abs(model.get_features(np.arange(90), np.arange(3))[:, :, 0])
    assert features.argmax(axis=1).tolist() == sorting.spikes["unit"].tolist()


def test_unknown_probabilities_are_not_written_for_phy(tmp_path):
    spikes = make_sorting().spikes.copy()
    spikes["probability"] = np.nan
    folder = exported(write_sorted(tmp_path, spikes=spikes), "phy")
    assert (folder / "amplitudes.npy").is_file() and not (folder / "spike_probability.npy").exists()


def test_phys_table_has_few_columns_or_all(tmp_path):
    """Of a sorting with every column; all of them are properties where SpikeInterface reads the folder."""
    extractors = pytest.importorskip("spikeinterface.extractors")
    sorting = make_sorting(3, 90)
    quality = {name: np.array([0.1, 0.2, 0.3]) for name in ("snr", "isi_violations", "miss", "false_alarm")}
    made = write_sorted(tmp_path, replace(sorting, units=sorting.units | quality))
    for columns, further in (("few", set()), ("all", {"label", "drift", "curation_id"})):
        folder = tmp_path / columns
        words = [] if columns == "few" else ["--columns", "all"]
        result = spikecrsae("export", made.folder, "-o", folder, *words)
        assert result.exit_code == 0, result.stderr
        found = {file.stem.removeprefix("cluster_") for file in folder.glob("cluster_*.tsv")} - {"info"}
        assert found >= further
        assert columns == "all" or found == {"group", "KSLabel", *quality}
        info = list(csv.DictReader((folder / "cluster_info.tsv").read_text().splitlines(), delimiter="\t"))
        assert set(info[0]) == {"cluster_id", "amp", "ch", "depth", "fr", "n_spikes", "sh", *found}
        assert [row["group"] for row in info] == ["good", "mua", "noise"]
        assert [int(row["n_spikes"]) for row in info] == np.bincount(sorting.spikes["unit"]).tolist()
        assert [float(row["depth"]) for row in info] == [25.0 * int(row["ch"]) for row in info]
        read = extractors.read_phy(folder)
        np.testing.assert_allclose(read.get_property("snr"), quality["snr"])
        assert list(read.get_property("quality")) == ["good", "mua", "noise"]
    assert spikecrsae("export", made.folder, "--to", "csv", "--columns", "all").exit_code == 2


@pytest.mark.parametrize(("n_units", "n_spikes", "n_channels"), [*SIZES[:4], (2, 2, 4)])
def test_spikeinterface_reads_phy_and_kilosort(tmp_path, n_units, n_spikes, n_channels):
    extractors = pytest.importorskip("spikeinterface.extractors")
    made = write_sorted(tmp_path, n_units=n_units, n_spikes=n_spikes, n_channels=n_channels)
    folder = exported(made, "phy")
    for read in (extractors.read_phy, extractors.read_kilosort):
        sorting = read(folder)
        assert_same_trains(sorting, made.sorting)
        assert list(sorting.get_property("quality")) == ["good", "mua", "noise"][:n_units]
    good = extractors.read_kilosort(folder, keep_good_only=True)
    assert list(good.unit_ids) == [0]


def test_placeholders_are_named_and_stay_out_of_everything_else(tmp_path, caplog):
    extractors = pytest.importorskip("spikeinterface.extractors")
    made = write_sorted(tmp_path, n_units=2, n_spikes=1)
    with caplog.at_level(logging.WARNING, "spikecrsae"):
        folder = exported(made, "phy")
    assert "1 of cluster 2 are placeholders" in caplog.text
    read = extractors.read_phy(folder)
    assert dict(zip(read.unit_ids.tolist(), read.get_property("quality"), strict=True))[2] == "noise"
    assert len(open_sorting(folder)[0].spikes) == 1


def test_phy_uses_a_flat_recording_where_it_lies(tmp_path, made):
    flat = tmp_path / "tetrode.dat"
    np.column_stack([np.zeros(N_SAMPLES, np.int16), made.stored]).tofile(flat)
    sorting, run = open_sorting(made.folder)
    options = {"sampling_frequency": FS, "n_channels": 5, "dtype": "int16", "channels": "1-4"}
    folder = export(sorting, run, "phy", tmp_path / "sub" / "phy", open_recording(flat, **options))
    assert not (folder / "recording.dat").exists()
    model_of = pytest.importorskip("phylib.io.model", reason="phylib is not installed (pip install phylib)")
    model = model_of.load_model(folder / "params.py")
    assert model.n_channels_dat == 5 and model.channel_mapping.tolist() == [1, 2, 3]
    np.testing.assert_array_equal(model.traces[500:600], made.stored[500:600, :3])


def test_phy_knows_groups_without_positions(tmp_path):
    sorting = make_sorting(n_channels=5, groups=[0, 0, 1, 1, 1])
    channels = {name: values for name, values in sorting.channels.items() if name != "positions"}
    made = write_sorted(tmp_path, replace(sorting, channels=channels))
    folder = exported(made, "phy")
    positions = np.load(folder / "channel_positions.npy")
    assert len(np.unique(positions, axis=0)) == 5
    assert np.load(folder / "channel_shanks.npy").tolist() == [0, 0, 1, 1, 1]
    # units 0 and 1 are on the group of two channels: the nearest channel of the other fills up
    assert np.load(folder / "pc_feature_ind.npy").tolist() == [[0, 1, 2], [0, 1, 2], [2, 3, 4]]
    model_of = pytest.importorskip("phylib.io.model", reason="phylib is not installed (pip install phylib)")
    assert sorted(model_of.load_model(folder / "params.py").get_template(0).channel_ids) == [0, 1]


# ---- NWB


@pytest.mark.parametrize(
    ("n_units", "n_spikes", "unit"), [(3, 90, "uV"), (1, 1, "uV"), (0, 0, "uV"), (2, 0, "uV"), (3, 90, "ADC")]
)
def test_nwb_is_valid(tmp_path, n_units, n_spikes, unit):
    pynwb = pytest.importorskip("pynwb")
    made = write_sorted(tmp_path, make_sorting(n_units, n_spikes, unit=unit))
    path = exported(made, "nwb", with_recording=False)
    assert pynwb.validate(path=str(path)) == []
    with pynwb.NWBHDF5IO(str(path), "r") as reader:
        file = reader.read()
        units = file.units
        assert len(units) == n_units
        assert units.resolution == pytest.approx(1 / FS)
        assert json.loads(file.notes)["spikecrsae"] == "test"
        for row in range(n_units):
            train = made.sorting.spike_samples(row)
            np.testing.assert_array_equal(np.round((units["spike_times"][row] - START_S) * FS), train)


def test_nwb_holds_electrodes_waveforms_and_what_was_left_out(made):
    pynwb = pytest.importorskip("pynwb")
    with pynwb.NWBHDF5IO(str(exported(made, "nwb")), "r") as reader:
        file = reader.read()
        electrodes, units = file.electrodes.to_dataframe(), file.units.to_dataframe()
        intervals = file.invalid_times.to_dataframe()
        before = file.units.waveform_time_before_peak_in_ms
    assert electrodes["channel_name"].tolist() == ["c0", "c1", "c2", "c3"]
    assert electrodes["left_out"].tolist() == [False, False, False, True]
    assert electrodes["rel_y"].tolist() == [0, 25, 50, 75]
    assert units["label"].tolist() == ["single", "multi", "noise"]
    peak = round(before * FS / 1000)
    for row, unit in units.iterrows():
        assert unit["electrodes"].index.tolist() == [0, 1, 2]
        assert unit["waveform_mean"].shape[1] == 3
        largest = np.unravel_index(np.abs(unit["waveform_mean"]).argmax(), unit["waveform_mean"].shape)
        assert largest == (peak, row)
        assert np.abs(unit["waveform_mean"]).max() == pytest.approx((100 + 20 * row) * 1e-6, rel=1e-5)
        np.testing.assert_allclose(unit["obs_intervals"], [[12.5, 14.4], [14.45, 14.5]])
        np.testing.assert_allclose(
            unit["spike_amplitudes"], made.sorting.spikes["amplitude"][made.sorting.spikes["unit"] == row]
        )
        np.testing.assert_array_equal(
            unit["spike_probabilities"], made.sorting.spikes["probability"][made.sorting.spikes["unit"] == row]
        )
    np.testing.assert_allclose(intervals[["start_time", "stop_time"]], [[14.4, 14.45]])


def test_spikeinterface_reads_the_nwb(made):
    extractors = pytest.importorskip("spikeinterface.extractors")
    pytest.importorskip("pynwb")
    assert_same_trains(extractors.read_nwb_sorting(exported(made, "nwb"), t_start=START_S), made.sorting)


def test_nwb_takes_over_when_the_session_began(tmp_path):
    pynwb = pytest.importorskip("pynwb")
    source = tmp_path / "source.nwb"
    write_nwb(source, np.zeros((N_SAMPLES, 4), np.int16))
    with h5py.File(source, "a") as file:
        file["session_start_time"] = "2024-03-05T09:30:00+01:00"
    recording = open_recording(source)
    path = export(make_sorting(), {}, "nwb", tmp_path / "out.nwb", recording)
    recording.close()
    with pynwb.NWBHDF5IO(str(path), "r") as reader:
        assert reader.read().session_start_time.isoformat() == "2024-03-05T09:30:00+01:00"
    with pynwb.NWBHDF5IO(str(export(make_sorting(), {}, "nwb", tmp_path / "unknown.nwb")), "r") as reader:
        file = reader.read()
        assert file.session_start_time.year == 1970 and "not known" in file.session_description


# ---- MATLAB, neo, CSV


@pytest.mark.parametrize(("n_units", "n_spikes"), [(3, 90), (1, 1), (0, 0)])
def test_matlab_reads_what_is_written(tmp_path, n_units, n_spikes):
    from scipy.io import loadmat

    made = write_sorted(tmp_path, n_units=n_units, n_spikes=n_spikes)
    read, sorting = loadmat(exported(made, "mat"), squeeze_me=False), made.sorting
    for name in ("sample", "unit", "amplitude", "shift", "probability"):
        np.testing.assert_array_equal(read[name].ravel(), sorting.spikes[name])
        assert read[name].dtype == sorting.spikes[name].dtype
    np.testing.assert_array_equal(np.round((read["time_s"].ravel() - START_S) * FS), sorting.spikes["sample"])
    np.testing.assert_array_equal(read["templates"].reshape(sorting.templates.shape), sorting.templates)
    np.testing.assert_array_equal(read["excluded"], sorting.excluded)
    units = read["units"][0, 0]
    assert [str(label[0]) for label in units["label"].ravel()] == sorting.units["label"].tolist()
    np.testing.assert_array_equal(units["drift"].ravel(), sorting.units["drift"])
    assert [str(name[0]) for name in read["channels"][0, 0]["ids"].ravel()] == ["c0", "c1", "c2", "c3"]
    assert json.loads(read["provenance"][0])["spikecrsae"] == "test"


@pytest.mark.parametrize(("n_units", "n_spikes"), [(3, 90), (1, 1), (1, 5), (0, 0), (2, 1)])
def test_neo_reads_the_block(tmp_path, n_units, n_spikes):
    import neo

    made = write_sorted(tmp_path, n_units=n_units, n_spikes=n_spikes)
    trains = neo.NeoMatlabIO(str(exported(made, "neo"))).read_block().segments[0].spiketrains
    assert len(trains) == n_units
    for unit, train in enumerate(trains):
        start, stop = (float(t.rescale("s")) for t in (train.t_start, train.t_stop))
        assert (start, stop) == (START_S, START_S + N_SAMPLES / FS)
        rate = float(train.sampling_rate.rescale("Hz"))
        samples = np.round((train.rescale("s").magnitude - start) * rate)
        np.testing.assert_array_equal(samples, made.sorting.spike_samples(unit))
        assert train.annotations["unit"] == unit and train.name == f"unit {unit}"
        assert train.annotations["label"] == made.sorting.units["label"][unit]
        mine = made.sorting.spikes["unit"] == unit
        np.testing.assert_allclose(
            np.atleast_1d(train.annotations["spike_probability"]), made.sorting.spikes["probability"][mine]
        )


def test_csv_is_that_of_the_result(made):
    folder = exported(made, "csv")
    for name in ("spikes.csv", "units.csv"):
        assert (folder / name).read_bytes() == (made.folder / name).read_bytes()


# ---- Klusters


def test_klusters_files_say_what_its_manual_asks_for(tmp_path):
    made = write_sorted(tmp_path, n_units=4, n_spikes=80, n_channels=5, groups=[0, 0, 1, 1, 1], masked=(4,))
    folder, sorting = exported(made, "klusters"), made.sorting
    root = ElementTree.parse(folder / "recording.xml").getroot()
    assert root.findtext("acquisitionSystem/nChannels") == "5"
    assert float(root.findtext("acquisitionSystem/samplingRate")) == FS
    skipped = [c.text for c in root.iterfind("anatomicalDescription//channel") if c.get("skip") == "1"]
    assert skipped == ["4"]
    groups = root.findall("spikeDetection/channelGroups/group")
    assert [[c.text for c in group.find("channels")] for group in groups] == [["0", "1"], ["2", "3"]]
    gain = (
        float(root.findtext("acquisitionSystem/voltageRange"))
        / 2**16
        / float(root.findtext("acquisitionSystem/amplification"))
    )
    sections = butter(3, 400, "highpass", fs=FS, output="sos")
    highpassed = sosfiltfilt(sections, 0.5 * made.stored, axis=0)
    for number, units in ((1, [0, 1]), (2, [2, 3])):
        mine = sorting.spikes[np.isin(sorting.spikes["unit"], units)]
        clusters = np.loadtxt(folder / f"recording.clu.{number}", int)
        assert clusters[0] == 2
        np.testing.assert_array_equal(clusters[1:], mine["unit"] + 2)
        np.testing.assert_array_equal(np.loadtxt(folder / f"recording.res.{number}", int), mine["sample"])
        lines = (folder / f"recording.fet.{number}").read_text().splitlines()
        features = np.array([line.split() for line in lines[1:]], int)
        assert features.shape == (len(mine), int(lines[0])) == (40, 7)
        np.testing.assert_array_equal(features[:, -1], mine["sample"])
        n_times, peak = (int(groups[number - 1].findtext(name)) for name in ("nSamples", "peakSampleIndex"))
        waveforms = np.fromfile(folder / f"recording.spk.{number}", "<i2").reshape(len(mine), n_times, 2)
        window = mine["sample"][:, None] + np.arange(n_times) - peak
        np.testing.assert_allclose(waveforms * gain * 1e6, highpassed[window][:, :, units], atol=0.02)


def test_spikeinterface_reads_klusters(made):
    extractors = pytest.importorskip("spikeinterface.extractors")
    pytest.importorskip("lxml", reason="SpikeInterface reads NeuroScope with lxml, which is not installed")
    read = extractors.read_neuroscope_sorting(exported(made, "klusters"))
    for ours, theirs in zip(made.sorting.unit_ids, read.unit_ids, strict=True):
        np.testing.assert_array_equal(read.get_unit_spike_train(theirs), made.sorting.spike_samples(ours))


@pytest.mark.parametrize(("n_units", "n_spikes"), [(0, 0), (1, 1)])
def test_klusters_without_recording_or_spikes(tmp_path, caplog, n_units, n_spikes):
    made = write_sorted(tmp_path, n_units=n_units, n_spikes=n_spikes)
    with caplog.at_level(logging.WARNING, "spikecrsae"):
        folder = exported(made, "klusters", with_recording=False)
    assert ".spk" in caplog.text
    names = {"recording.xml", "recording.clu.1", "recording.res.1", "manifest.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert (folder / "recording.clu.1").read_text() == ("1\n2\n" if n_spikes else "0\n")
    place = folder.parent / "again"
    assert {path.name for path in exported(made, "klusters", place=place).iterdir()} > names
