"""Phy, both ways: merges, splits and labels that were made in Phy are what score and export see."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import spikecrsae
from helpers.sortings import FS, START_S, exported, make_sorting, write_sorted

from spikecrsae.data.sorting import LARGEST_UNIT
from spikecrsae.errors import InputError, OutputError
from spikecrsae.exports.export import export
from spikecrsae.readers import read_truth
from spikecrsae.run.curated import open_sorting, read_curated

pytestmark = pytest.mark.slow


def curate(folder: Path, clusters: np.ndarray, groups: dict[int, str]) -> None:
    """What Phy leaves when it saves: new clusters, and the groups of those that have one."""
    np.save(folder / "spike_clusters.npy", np.asarray(clusters, np.int32))
    rows = "".join(f"{cluster}\t{group}\n" for cluster, group in sorted(groups.items()))
    (folder / "cluster_group.tsv").write_text("cluster_id\tgroup\n" + rows)
    (folder / "cluster_info.tsv").write_text("cluster_id\tgroup\n" + rows)


@pytest.fixture
def made(tmp_path):
    return write_sorted(tmp_path, n_units=4, n_spikes=80)


@pytest.fixture
def folder(made):
    """Units 0 and 2 are merged into 4 (three spikes of 0 are gone to 5 before), unit 3 is split into 6 and 7, 1 stays."""
    folder = exported(made, "phy")
    clusters = made.sorting.spikes["unit"].copy()
    of_0, of_3 = (np.flatnonzero(clusters == unit) for unit in (0, 3))
    clusters[np.isin(clusters, [0, 2])] = 4
    clusters[of_0[:5]] = 5
    clusters[of_3[::2]], clusters[of_3[1::2]] = 6, 7
    curate(folder, clusters, {1: "noise", 4: "good", 6: "mua", 7: "unsorted"})
    return folder


def test_an_untouched_folder_is_the_sorting(made):
    sorting, run = open_sorting(exported(made, "phy"))
    original, told = open_sorting(made.folder)
    assert run == told
    np.testing.assert_array_equal(sorting.spikes, original.spikes)
    np.testing.assert_array_equal(sorting.unit_ids, original.unit_ids)
    for name in ("templates", "templates_whitened", "peak_index"):
        np.testing.assert_allclose(getattr(sorting, name), getattr(original, name), rtol=1e-6)
    np.testing.assert_allclose(sorting.templates_std, original.templates_std, rtol=1e-4)
    for name, column in original.units.items():
        np.testing.assert_array_equal(sorting.units[name], column)
    for name, column in original.channels.items():
        np.testing.assert_array_equal(sorting.channels[name], column)
    assert sorting.curation == original.curation
    assert (sorting.start_time_s, sorting.excluded.tolist()) == (START_S, [[38_000, 39_000]])


def test_merges_splits_and_labels(made, folder):
    sorting, _ = read_curated(folder)
    before = made.sorting
    assert sorting.unit_ids.tolist() == [1, 4, 5, 6, 7]
    # 5 has no group of its own: the label of the unit that most of its spikes come from; 7 was left unsorted
    assert sorting.units["label"].tolist() == ["noise", "single", "single", "multi", "unsorted"]
    merged = np.sort(np.concatenate([before.spike_samples(0)[5:], before.spike_samples(2)]))
    np.testing.assert_array_equal(sorting.spike_samples(4), merged)
    np.testing.assert_array_equal(sorting.spike_samples(6), before.spike_samples(3)[::2])
    np.testing.assert_array_equal(sorting.spike_samples(7), before.spike_samples(3)[1::2])
    for name in ("sample", "amplitude", "shift"):
        np.testing.assert_array_equal(sorting.spikes[name], before.spikes[name])
    assert sorting.units["n_spikes"].tolist() == [20, 35, 5, 10, 10]


def test_a_template_is_the_mean_of_the_spikes_own_templates(made, folder):
    sorting, _ = read_curated(folder)
    before, place = made.sorting.templates, made.sorting.peak_index
    for unit, source in ((1, 1), (5, 0), (6, 3), (7, 3)):
        row = sorting.unit_ids.tolist().index(unit)
        np.testing.assert_allclose(sorting.templates[row], before[source], rtol=1e-6)
        assert sorting.peak_index[row] == place[source]
    # unit 2 has most spikes of 4: unit 0, whose peak comes two samples earlier, is moved onto it
    assert place[2] - place[0] == 2
    moved = np.pad(before[0], ((0, 0), (2, 0)))[:, :40]
    np.testing.assert_allclose(sorting.templates[1], (15 * moved + 20 * before[2]) / 35, atol=1e-5)
    assert sorting.peak_index[1] == place[2]
    apart = ((moved - before[2]) ** 2) * (15 * 20 / 35**2)
    np.testing.assert_allclose(sorting.templates_std[1][:, 2:], np.sqrt(25 + apart)[:, 2:], rtol=1e-4)


def test_columns_are_kept_or_computed_or_unknown(made, folder):
    sorting, _ = read_curated(folder)
    units, before = sorting.units, made.sorting.units
    assert set(units) == set(before)
    np.testing.assert_array_equal(units["drift"], [before["drift"][1], *[np.nan] * 4])
    np.testing.assert_array_equal(units["curation_id"], [11, *[np.nan] * 4])
    assert units["firing_rate"][0] == before["firing_rate"][1]  # kept
    np.testing.assert_allclose(units["firing_rate"][1:], np.array([35, 5, 10, 10]) / (39_000 / FS))
    assert units["peak_channel"].tolist() == [1, 2, 0, 3, 3]
    np.testing.assert_allclose(units["amplitude"], np.abs(sorting.templates).max(axis=(1, 2)))
    np.testing.assert_allclose(units["snr"][1:], units["amplitude"][1:] / 5)
    model, before = sorting.model, made.sorting.model
    assert model.keys() == before.keys() and model["sigma"] == before["sigma"]
    for name in ("spread", "penalty", "whitened_norm"):
        np.testing.assert_array_equal(model[name], [before[name][1], *[np.nan] * 4])
    for name in ("spread_history", "penalty_history"):
        np.testing.assert_array_equal(model[name][:, 0], before[name][:, 1])
        assert model[name].shape == (len(before[name]), 5) and np.isnan(model[name][:, 1:]).all()
    decisions = {row["cluster"]: row for row in sorting.curation if row["decision"] == "phy"}
    assert set(decisions) == {4, 5, 6, 7}
    assert decisions[4]["units"] == [10, 12] and decisions[4]["n_spikes"] == [15, 20]


def test_refractory_violations_of_a_merged_unit_know_no_dead_time(tmp_path):
    from spikecrsae.decode.quality import refractory_violations

    sorting = make_sorting(2, 80)
    sorting.spikes["sample"] = np.repeat(300 + 800 * np.arange(40), 2) + np.tile([0, 5], 40)
    ratios = {"isi_violations_ratio": np.zeros(2), "rp_contamination": np.zeros(2)}
    folder = exported(write_sorted(tmp_path, replace(sorting, units=sorting.units | ratios)), "phy")
    curate(folder, np.full(80, 2), {2: "good"})
    units = read_curated(folder)[0].units
    # 0.25 ms apart, within the 0.7 ms after a spike in which the decoder finds no other of the same unit
    assert units["isi_violations"] == pytest.approx([100 * 40 / 79])
    expected = refractory_violations(sorting.spikes["sample"], FS, 39_000, dead_time=0)
    for name in ratios:
        assert units[name] == pytest.approx([expected[name]])


def test_score_sees_the_curation(made, folder, tmp_path):
    truth = tmp_path / "truth.csv"
    merged = np.sort(np.concatenate([made.sorting.spike_samples(0), made.sorting.spike_samples(2)]))
    truth.write_text("sample\n" + "".join(f"{sample}\n" for sample in merged))
    result = spikecrsae("score", folder, "--truth", truth, "--json")
    assert result.exit_code == 0, result.stderr
    row = json.loads(result.stdout)["one_to_one"][0]
    assert (row["test"], row["tp"], row["n_truth"]) == ("4", 35, 40)
    assert not (folder / "tradeoff.csv").exists()  # Phy would take it for a table of clusters
    out = tmp_path / "curve"
    out.mkdir()
    assert spikecrsae("score", folder, "--truth", truth, "-o", out).exit_code == 0
    assert (out / "tradeoff.csv").is_file()


@pytest.mark.parametrize("kind", ["nwb", "mat", "csv", "neo", "klusters", "phy"])
def test_export_takes_the_curated_folder(made, folder, kind):
    result = spikecrsae("export", folder, "--to", kind)
    assert result.exit_code == 0, result.stderr
    place = Path(result.stdout.strip())
    assert place.parent == folder.with_name("phy-curated")
    if kind == "csv":
        table = (place / "units.csv").read_text().splitlines()
        assert [line.split(",")[:2] for line in table[1:]] == [
            ["1", "noise"], ["4", "single"], ["5", "single"], ["6", "multi"], ["7", "unsorted"]
        ]  # fmt: skip
    if kind == "nwb":
        pynwb = pytest.importorskip("pynwb")
        assert pynwb.validate(path=str(place)) == []
    if kind == "phy":
        again, curated = open_sorting(place)[0], open_sorting(folder)[0]
        np.testing.assert_array_equal(again.spikes, curated.spikes)
        np.testing.assert_array_equal(again.units["label"], curated.units["label"])
        groups = dict(line.split("\t") for line in (place / "cluster_group.tsv").read_text().splitlines())
        assert groups == {"cluster_id": "group", "1": "noise", "4": "good", "5": "good", "6": "mua", "7": "unsorted"}


def test_params_py_stands_for_its_folder(folder, tmp_path):
    params = folder / "params.py"
    assert spikecrsae("show", params).stdout == spikecrsae("show", folder).stdout != ""
    words = ["--truth", params, "--json"]
    results = [json.loads(spikecrsae("score", path, *words).stdout) for path in (params, folder)]
    assert results[0]["one_to_one"] == results[1]["one_to_one"]
    assert all(row["accuracy"] == 1 for row in results[0]["one_to_one"])
    place = Path(spikecrsae("export", params, "--to", "mat").stdout.strip())
    assert place.parent == folder.with_name("phy-curated")
    (folder / "original_sorting.h5").unlink()  # as another program's folder, whose rate is in params.py
    other = spikecrsae("score", params, *words)
    assert other.exit_code == 0, other.stderr
    assert all(row["accuracy"] == 1 for row in json.loads(other.stdout)["one_to_one"])


def test_phylib_opens_what_it_saved_and_what_is_exported_again(made, folder):
    model_of = pytest.importorskip("phylib.io.model", reason="phylib is not installed (pip install phylib)")
    model = model_of.load_model(folder / "params.py")
    assert model.cluster_ids.tolist() == [1, 4, 5, 6, 7]
    clusters = model.spike_clusters.copy()
    clusters[np.isin(clusters, [6, 7])] = 8
    model.save_spike_clusters(clusters)
    model.save_metadata("group", {1: "mua", 4: "good", 5: None, 8: "good"})
    sorting, _ = read_curated(folder)
    assert sorting.unit_ids.tolist() == [1, 4, 5, 8]
    assert sorting.units["label"].tolist() == ["multi", "single", "single", "single"]
    row = sorting.unit_ids.tolist().index(8)  # split and merged again: the unit itself, under another number
    np.testing.assert_allclose(sorting.templates[row], made.sorting.templates[3], rtol=1e-6)
    assert sorting.units["drift"][row] == made.sorting.units["drift"][3]
    place = export(sorting, {}, "phy", folder.parent / "again")
    again = model_of.load_model(place / "params.py")
    assert again.cluster_ids.tolist() == [1, 4, 5, 8]
    assert again.metadata["group"] == {1: "mua", 4: "good", 5: "good", 8: "good"}


@pytest.mark.filterwarnings("ignore")
def test_phy_itself_merges_splits_and_saves(made, tmp_path, monkeypatch):
    pytest.importorskip("phy.apps.template", reason="Phy is not installed (pip install phy PyQtWebEngine)")
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    from phy.apps.template import TemplateController
    from phy.gui.qt import create_app
    from phylib.io.model import load_model

    folder = exported(made, "phy")
    create_app()
    model = load_model(folder / "params.py")
    controller = TemplateController(model=model, dir_path=folder, config_dir=tmp_path / "config")
    for unit in range(4):
        assert controller._get_template_waveforms(unit).data.shape[0] == 1
        assert controller._get_waveforms(unit).data.shape[2] == 4
        # amplitudes are in uV
        assert controller.get_mean_spike_template_amplitudes(unit) == pytest.approx(100 + 20 * unit, rel=0.02)
    supervisor = controller.supervisor
    supervisor.merge([0, 2])
    supervisor.clustering.split(np.flatnonzero(supervisor.clustering.spike_clusters == 1)[:7])
    supervisor.label("group", "noise", cluster_ids=[3])
    supervisor.save()
    sorting = read_curated(folder)[0]
    assert sorting.unit_ids.tolist() == [3, 4, 5, 6]
    assert sorting.units["n_spikes"].tolist() == [20, 40, 7, 13]
    assert sorting.units["label"][0] == "noise"


def test_spikeinterface_reads_the_curated_folder(folder):
    extractors = pytest.importorskip("spikeinterface.extractors")
    read, sorting = extractors.read_phy(folder), read_curated(folder)[0]
    for unit in (1, 4, 6, 7):  # SpikeInterface drops a cluster without group
        np.testing.assert_array_equal(read.get_unit_spike_train(unit), sorting.spike_samples(unit))


def test_curation_is_never_overwritten(made, folder):
    sorting, run = open_sorting(made.folder)
    with pytest.raises(OutputError, match=r"changed after it was written .*spike_clusters\.npy"):
        export(sorting, run, "phy", folder, overwrite=True)
    assert open_sorting(folder)[0].unit_ids.tolist() == [1, 4, 5, 6, 7]
    # nor by sorting again, whose manifest does not know the folder
    assert not any("phy" in name for name in json.loads((made.folder / "manifest.json").read_text())["files"])


def test_truth_from_a_phy_folder(tmp_path, folder):
    trains = read_truth(folder, FS)
    assert sorted(trains, key=int) == ["1", "4", "5", "6", "7"]
    other = tmp_path / "one"
    other.mkdir()
    single = write_sorted(other, n_units=2, n_spikes=1)
    trains = read_truth(exported(single, "phy"), FS)  # the placeholder that phylib needs is no spike
    assert {name: train.tolist() for name, train in trains.items()} == {"0": [300]}


@pytest.mark.parametrize("n_units", [0, 2])
def test_a_folder_without_spikes(tmp_path, n_units):
    folder = exported(write_sorted(tmp_path, n_units=n_units, n_spikes=0), "phy")
    sorting = open_sorting(folder)[0]
    assert len(sorting.spikes) == sorting.n_units == 0
    assert spikecrsae("export", folder, "--to", "nwb").exit_code == 0


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("spike_clusters.npy", np.zeros(7, np.int32), "7 clusters"),
        ("spike_times.npy", np.arange(80), "is not that of original_sorting.h5"),
        ("spike_templates.npy", b"no array", "spike_templates.npy cannot be read"),
        ("cluster_group.tsv", b"cluster\tlabel\n1\tgood\n", "cluster_id and group"),
        ("original_sorting.h5", b"no HDF5", "cannot be read as a sorting"),
    ],
)
def test_a_damaged_folder_is_refused(folder, name, content, words):
    if isinstance(content, bytes):
        (folder / name).write_bytes(content)
    else:
        np.save(folder / name, content)
    with pytest.raises(InputError, match=words) as caught:
        open_sorting(folder)
    assert "\n" not in str(caught.value)


def test_merging_the_first_units_leaves_fewer_clusters_than_the_numbers_of_the_last(made):
    folder = exported(made, "phy")
    clusters = made.sorting.spikes["unit"].copy()
    clusters[clusters <= 1] = 4
    curate(folder, clusters, {4: "good"})
    sorting, _ = read_curated(folder)
    assert sorting.unit_ids.tolist() == [2, 3, 4]
    assert sorting.units["n_spikes"].sum() == len(made.sorting.spikes)


def test_report_shows_the_curated_units(folder):
    result = spikecrsae("report", folder)
    assert result.exit_code == 0, result.output
    page = Path(result.output.strip())
    assert page.parent.name == folder.name + "-curated"
    assert "unit 7" in page.read_text(encoding="utf-8").lower()
    assert spikecrsae("report", folder).exit_code == OutputError.exit_code
    assert spikecrsae("report", folder, "--overwrite").exit_code == 0


def test_show_and_score_take_the_curated_folder_and_tell_of_noise(made, folder):
    assert "of 5 units" in spikecrsae("show", folder).output
    result = spikecrsae("score", folder, "--truth", made.folder / "spikes.csv")
    assert result.exit_code == 0, result.output
    assert "1 of the units are labelled noise" in result.stderr


@pytest.mark.parametrize("clusters", [-1, 0.5, 2**31 - 1, 2**40])
def test_clusters_are_whole_numbers(made, clusters):
    folder = exported(made, "phy")
    np.save(folder / "spike_clusters.npy", np.full(len(made.sorting.spikes), clusters))
    with pytest.raises(InputError, match="whole numbers from 0"):
        read_curated(folder)
    result = spikecrsae("compare", folder, made.folder)
    assert result.exit_code == InputError.exit_code and "whole numbers from 0" in result.stderr


def test_the_largest_cluster_can_be_exported_again(made):
    folder = exported(made, "phy")
    np.save(folder / "spike_clusters.npy", np.full(len(made.sorting.spikes), LARGEST_UNIT))
    result = spikecrsae("export", folder, "--to", "phy")
    assert result.exit_code == 0, result.stderr
    assert read_curated(folder.with_name("phy-curated") / "phy")[0].unit_ids.tolist() == [LARGEST_UNIT]


def test_spikes_are_not_to_be_removed(made):
    folder = exported(made, "phy")
    for name in ("spike_times", "spike_templates", "spike_clusters"):
        np.save(folder / f"{name}.npy", np.load(folder / f"{name}.npy")[5:])
    with pytest.raises(InputError, match="call a cluster noise instead"):
        read_curated(folder)
