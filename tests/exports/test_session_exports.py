"""Exports of several files on each file's own clock; what NWB says of the session, the subject and the electrodes."""

from __future__ import annotations

import csv
import datetime
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import recording_files as files
from helpers import vendor_files as vendors
from helpers.command_line import spikecrsae
from helpers.recordings import cut_recording
from helpers.sortings import FS, make_sorting, write_result

from spikecrsae.errors import InputError, UsageError
from spikecrsae.exports.export import export, export_per_file
from spikecrsae.exports.nwb_metadata import read_metadata
from spikecrsae.exports.nwb_source import source_metadata
from spikecrsae.readers import open_recording, open_session

pytestmark = pytest.mark.slow

CUT, N, STARTS_S = 15_000, 40_000, (12.5, 300.0)
YAML = """
session_start_time: 2024-03-05T09:30:00+01:00
session_description: rat in a box
institution: University of Lund
experimenter: "Doe, Jane"
experiment_description: open field
keywords: [hippocampus, tetrode]
subject: {subject_id: rat1, species: Rattus norvegicus, sex: M, age: P90D, description: a rat}
device: {name: drive, description: a tetrode drive, manufacturer: the workshop}
electrodes:
  - {channel: c0, location: CA1, imp: 0.5}
  - {channel: c2, location: CA3}
"""


@pytest.fixture
def day(tmp_path) -> Path:
    """The result folder of a session of two files, the second with a gap in it; the files lie beside it."""
    stored = np.random.default_rng(5).integers(-300, 300, (N, 4)).astype(np.int16)
    paths = [tmp_path / "morning.h5", tmp_path / "noon.h5"]
    for path, part, start in zip(paths, (stored[:CUT], stored[CUT:]), STARTS_S, strict=True):
        with h5py.File(path, "w") as file:
            file["traces"] = part
            file["traces"].attrs.update({"sampling_frequency": FS, "units": "uV", "start_time_s": start})
    table = {
        "name": np.array([str(paths[0]), str(paths[1]), str(paths[1])]),
        "first_sample": np.array([0, CUT, 30_000]),
        "n_samples": np.array([CUT, 15_000, 10_000]),
        "start_time_s": np.array([*STARTS_S, 310.0]),
        "time_s": np.array([12.5, 13.25, 23.25]),
        "same_clock": np.array([False, False, True]),
    }
    sorting = make_sorting(files=table, n_samples=N)
    run = {"recording": {"path": str(paths[0]), "paths": [str(path) for path in paths], "read_options": {}}}
    return write_result(tmp_path / "day", sorting, run)


def own_times(sorting, unit: int, file: int) -> np.ndarray:
    samples = sorting.spike_samples(unit)
    if file == 0:
        return STARTS_S[0] + samples[samples < CUT] / FS
    samples = samples[samples >= CUT]
    return np.where(samples < 30_000, STARTS_S[1] + (samples - CUT) / FS, 310.0 + (samples - 30_000) / FS)


def exported(day: Path, kind: str, *words: object) -> Path:
    result = spikecrsae("export", day, "--to", kind, *words)
    assert result.exit_code == 0, result.stderr
    return Path(result.stdout.strip().splitlines()[-1])


@pytest.fixture
def sorting(day):
    from spikecrsae.results.folder import read_sorting

    return read_sorting(day)


def test_nwb_per_file_has_the_times_of_the_file(day, sorting):
    pynwb = pytest.importorskip("pynwb")
    folder = exported(day, "nwb", "--per-file")
    assert folder == day / "nwb_per_file"
    assert sorted(path.name for path in folder.iterdir()) == ["morning.h5.nwb", "noon.h5.nwb"]
    identifiers = set()
    for number, name in enumerate(("morning.h5.nwb", "noon.h5.nwb")):
        assert pynwb.validate(path=str(folder / name)) == []
        with pynwb.NWBHDF5IO(str(folder / name), "r") as reader:
            file = reader.read()
            identifiers.add(file.identifier)
            for unit in range(3):
                expected = own_times(sorting, unit, number)
                np.testing.assert_allclose(file.units["spike_times"][unit], expected)
                assert file.units["n_spikes"][unit] == len(expected)
            observed = file.units["obs_intervals"][0]
            assert observed[0][0] == STARTS_S[number] and observed[-1][1] in (13.25, 310.5)
    assert len(identifiers) == 2


def test_nwb_of_the_whole_session_has_the_time_of_each_spike_in_its_file(day, sorting):
    pynwb = pytest.importorskip("pynwb")
    path = exported(day, "nwb")
    assert pynwb.validate(path=str(path)) == []
    with pynwb.NWBHDF5IO(str(path), "r") as reader:
        units = reader.read().units.to_dataframe()
    for unit, row in units.iterrows():
        np.testing.assert_array_equal(np.minimum(row["spike_files"], 1), sorting.spike_samples(unit) >= CUT)
        both = np.concatenate([own_times(sorting, unit, 0), own_times(sorting, unit, 1)])
        np.testing.assert_allclose(row["spike_file_times"], both)
        np.testing.assert_allclose(row["spike_times"], sorting.times_s(sorting.spike_samples(unit)))


def test_neo_has_a_segment_for_each_file(day, sorting):
    import neo

    block = neo.NeoMatlabIO(str(exported(day, "neo"))).read_block()
    assert len(block.segments) == 2
    for number, segment in enumerate(block.segments):
        for unit, train in enumerate(segment.spiketrains):
            np.testing.assert_allclose(train.rescale("s").magnitude, own_times(sorting, unit, number))
            assert float(train.t_start) == STARTS_S[number]
            assert float(train.t_stop) == pytest.approx((13.25, 310.5)[number])


def test_phy_per_file_counts_from_the_file_and_shows_its_traces(day, sorting):
    model_of = pytest.importorskip("phylib.io.model", reason="phylib is not installed (pip install phylib)")
    folder = exported(day, "phy", "--per-file")
    for name, first, end in (("morning.h5", 0, CUT), ("noon.h5", CUT, N)):
        model = model_of.load_model(folder / name / "params.py")
        mine = (sorting.spikes["sample"] >= first) & (sorting.spikes["sample"] < end)
        np.testing.assert_array_equal(model.spike_samples, sorting.spikes["sample"][mine] - first)
        np.testing.assert_array_equal(model.spike_clusters, sorting.spikes["unit"][mine])
        with h5py.File(day.parent / name) as file:
            np.testing.assert_array_equal(model.traces[:], file["traces"][:])
    # a curated folder of one file is a sorting of that file
    from spikecrsae.run.curated import open_sorting

    curated, _ = open_sorting(folder / "noon.h5")
    assert (curated.start_time_s, curated.n_samples) == (STARTS_S[1], N - CUT)


@pytest.mark.parametrize("kind", ["csv", "mat", "klusters"])
def test_other_formats_per_file(day, sorting, kind):
    folder = exported(day, kind, "--per-file")
    mine = sorting.spikes[sorting.spikes["sample"] < CUT]
    if kind == "csv":
        rows = list(csv.DictReader((folder / "noon.h5" / "spikes.csv").read_text().splitlines()))
        assert len(rows) == len(sorting.spikes) - len(mine)
        for row in rows:
            expected = own_times(sorting, int(row["unit"]), 1)
            assert np.abs(expected - float(row["time_s"])).min() < 1e-8
    elif kind == "mat":
        from scipy.io import loadmat

        read = loadmat(folder / "morning.h5.mat")
        np.testing.assert_allclose(read["time_s"].ravel(), STARTS_S[0] + mine["sample"] / FS)
    else:
        lines = (folder / "morning.h5" / "morning.res.1").read_text().split()
        assert list(map(int, lines)) == mine["sample"].tolist()


def test_nothing_is_overwritten_and_one_file_is_none_per_file(day, tmp_path):
    exported(day, "csv", "--per-file")
    assert spikecrsae("export", day, "--to", "csv", "--per-file").exit_code == 6
    exported(day, "csv", "--per-file", "--overwrite")
    with pytest.raises(UsageError, match="one file"):
        export_per_file(make_sorting(), {}, "csv", tmp_path / "single")


def test_raw_files_of_one_size_are_not_taken_for_each_other(tmp_path):
    """Phy reads raw binary where it lies: of each file its own."""
    stored = np.random.default_rng(6).integers(-300, 300, (N, 4)).astype(np.int16)
    paths = [tmp_path / "a.dat", tmp_path / "b.dat"]
    for path, part in zip(paths, (stored[: N // 2], stored[N // 2 :]), strict=True):
        part.tofile(path)
    recording = open_session(paths, sampling_frequency=FS, n_channels=4, dtype="int16", gain=1.0)
    sorting = make_sorting().placed(recording)
    folder = export_per_file(sorting, {}, "phy", tmp_path / "phys", recording)
    for path in paths:
        assert f"dat_path = '../../{path.name}'" in (folder / path.name / "params.py").read_text()


# ---- metadata


@pytest.fixture
def told(tmp_path) -> Path:
    (tmp_path / "session.yaml").write_text(YAML)
    return tmp_path / "session.yaml"


def read_nwb(path: Path):
    pynwb = pytest.importorskip("pynwb")
    assert pynwb.validate(path=str(path)) == []
    with pynwb.NWBHDF5IO(str(path), "r") as reader:
        file = reader.read()
        lists = [
            list(values) if (values := getattr(file, name)) is not None else [] for name in ("experimenter", "keywords")
        ]
        return file, file.electrodes.to_dataframe(), file.subject.fields if file.subject else {}, lists


def test_metadata_stands_in_the_nwb(day, told):
    file, electrodes, subject, lists = read_nwb(exported(day, "nwb", "--metadata", told))
    assert file.session_start_time.isoformat() == "2024-03-05T09:30:00+01:00"
    assert (file.institution, file.session_description) == ("University of Lund", "rat in a box")
    assert lists == [["Doe, Jane"], ["hippocampus", "tetrode"]]
    assert (subject["species"], subject["age"]) == ("Rattus norvegicus", "P90D")
    assert list(file.devices) == ["drive"]
    assert electrodes["location"].tolist() == ["CA1", "unknown", "CA3", "unknown"]
    np.testing.assert_array_equal(electrodes["imp"], [0.5, np.nan, np.nan, np.nan])


def test_nwbinspector_has_nothing_critical_to_say(day, told):
    inspector = pytest.importorskip("nwbinspector", reason="nwbinspector is not installed (pip install nwbinspector)")
    config = inspector.load_config("dandi")
    for path in (
        exported(day, "nwb", "--metadata", told),
        *exported(day, "nwb", "--per-file", "--metadata", told).iterdir(),
    ):
        found = list(inspector.inspect_nwbfile(nwbfile_path=path, config=config))
        assert {message.importance.name for message in found} <= {"BEST_PRACTICE_SUGGESTION"}, found


def test_metadata_goes_before_what_an_nwb_recording_says(tmp_path, told):
    source = tmp_path / "source.nwb"
    files.write_nwb(source, np.zeros((N, 4), np.int16))
    with h5py.File(source, "a") as file:
        file["session_start_time"] = "2020-01-02T03:04:05+00:00"
        file["general/institution"], file["general/lab"] = "Elsewhere", "Doe"
        file["general/experimenter"] = np.array(["Roe, Richard"], object)
        file["general/subject/subject_id"], file["general/subject/sex"] = "mouse7", "F"
        file["general/extracellular_ephys/electrodes/location"] = np.array(["CA1", "CA2", "CA3", "unknown"], object)
    recording = open_recording(source)
    sorting = make_sorting(ids=None, n_samples=N)
    sorting = replace(sorting, channels=sorting.channels | {"ids": np.array(recording.channel_ids)})
    file, electrodes, subject, lists = read_nwb(export(sorting, {}, "nwb", tmp_path / "out.nwb", recording))
    assert (file.institution, file.lab, lists[0]) == ("Elsewhere", "Doe", ["Roe, Richard"])
    assert file.session_start_time.year == 2020 and (subject["subject_id"], subject["sex"]) == ("mouse7", "F")
    assert electrodes["location"].tolist() == ["CA1", "CA2", "CA3", "unknown"]
    told.write_text(YAML.replace("c0", recording.channel_ids[0]).replace("c2", recording.channel_ids[3]))
    path = export(sorting, {}, "nwb", tmp_path / "told.nwb", recording, metadata=read_metadata(told))
    file, electrodes, subject, lists = read_nwb(path)
    assert (file.institution, file.lab, file.session_start_time.year) == ("University of Lund", "Doe", 2024)
    assert subject["subject_id"] == "rat1"
    assert electrodes["location"].tolist() == ["CA1", "CA2", "CA3", "CA3"]
    recording.close()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("instituton: Lund", "did you mean institution"),
        ("subject: {subject_idd: a}", "did you mean subject"),
        ("session_start_time: yesterday", "must be a date and time"),
        ("keywords: [[a]]", "must be a text"),
        ("electrodes: {locaton: CA1}", "did you mean"),
        ("electrodes: {x: left}", "must be a number"),
        ("electrodes: [{location: CA1}]", "channel: CSC1"),
        ("subject: rat", "must be names with values"),
    ],
)
def test_metadata_that_nwb_does_not_know_is_refused(tmp_path, text, words):
    pytest.importorskip("ruamel.yaml")
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(UsageError, match=words) as caught:
        read_metadata(tmp_path / "bad.yaml")
    assert "bad.yaml" in str(caught.value)


def test_files_that_are_no_metadata(tmp_path, day, told):
    pytest.importorskip("ruamel.yaml")
    for text, words in (
        ("a: b: c", "cannot be read as YAML"),
        ("only words", "must hold names with values"),
        ("!!python/object:x.y {}", "YAML"),
    ):
        (tmp_path / "bad.yaml").write_text(text)
        with pytest.raises(InputError, match=words):
            read_metadata(tmp_path / "bad.yaml")
    with pytest.raises(InputError, match="does not exist"):
        read_metadata(tmp_path / "nowhere.yaml")
    result = spikecrsae("export", day, "--to", "csv", "--metadata", told)
    assert result.exit_code == 2 and "--metadata is for nwb only, and csv is written" in result.stderr
    told.write_text("electrodes: [{channel: c9, location: CA1}]")
    result = spikecrsae("export", day, "--to", "nwb", "--metadata", told)
    assert result.exit_code == 2 and "channel c9; there are c0, c1" in result.stderr


def test_sort_takes_the_choices_of_export(tmp_path, told):
    """Also when the run is repeated; a choice that no format takes is refused before anything is computed."""
    recording = cut_recording(tmp_path / "cut.h5", 0, 3)
    told.write_text(YAML.partition("electrodes:")[0])
    words = ("--export", "nwb", "--export", "phy", "--metadata", told, "--columns", "all")
    assert (result := spikecrsae("sort", recording, "-o", tmp_path / "first", *words)).exit_code == 0, result.stderr
    assert (result := spikecrsae("rerun", tmp_path / "first", "-o", tmp_path / "second")).exit_code == 0, result.stderr
    for folder in (tmp_path / "first", tmp_path / "second"):
        assert read_nwb(folder / "sorting.nwb")[0].institution == "University of Lund"
        assert (folder / "phy" / "cluster_label.tsv").is_file()
    for choice in (("--metadata", told), ("--columns", "all")):
        result = spikecrsae("sort", recording, "-o", tmp_path / "third", "--export", "csv", *choice)
        assert result.exit_code == 2 and f"{choice[0]} is for" in result.stderr
        assert not list(tmp_path.glob("third*"))


def test_the_sections_of_neuroconv_are_known(tmp_path):
    pytest.importorskip("ruamel.yaml")
    text = "NWBFile: {institution: Lund, session_start_time: 2024-03-05T09:30:00+01:00}\nSubject: {subject_id: a}\n"
    (tmp_path / "neuroconv.yaml").write_text(text)
    told = read_metadata(tmp_path / "neuroconv.yaml")
    assert told.session["institution"] == "Lund" and told.subject == {"subject_id": "a"}
    assert told.session["session_start_time"].utcoffset() == datetime.timedelta(hours=1)


def test_vendors_files_say_when_the_session_began(tmp_path):
    place = files.open_ephys(tmp_path).path
    (place / "settings.xml").write_text("<SETTINGS><INFO><DATE>5 Mar 2024 9:30:01</DATE></INFO></SETTINGS>")
    spikeglx = vendors.spikeglx(tmp_path).path
    for meta in spikeglx.glob("*.meta"):
        meta.write_text(meta.read_text() + "fileCreateTime=2024-03-05T09:30:02\n")
    expected = {
        place: "2024-03-05T09:30:01",
        spikeglx: "2024-03-05T09:30:02",
        files.neuralynx(tmp_path).path: "2020-01-02T01:02:03",
        vendors.intan(tmp_path).path: "2024-01-01T12:00:00",
    }
    for path, start in expected.items():
        recording = open_recording(path)
        found = source_metadata(recording).session["session_start_time"]
        assert found.tzinfo is not None and found.replace(tzinfo=None).isoformat() == start
        recording.close()
    recording = open_recording(vendors.blackrock(tmp_path).path)
    assert source_metadata(recording).session["session_start_time"].isoformat() == "2024-01-01T12:00:00+00:00"
    recording.close()
    recording = open_recording(files.hdf5_millivolts(tmp_path).path)
    assert source_metadata(recording).session == {}
    recording.close()


def test_amplitudes_on_every_channel(day, sorting):
    pynwb = pytest.importorskip("pynwb")
    with pynwb.NWBHDF5IO(str(exported(day, "nwb")), "r") as reader:
        units = reader.read().units.to_dataframe()
    for unit, row in units.iterrows():
        values = row["spike_amplitudes_per_channel"]
        assert values.shape == (len(row["spike_amplitudes"]), 4)
        np.testing.assert_allclose(values.max(axis=1), row["spike_amplitudes"], rtol=1e-5)
        # templates halve from channel to channel
        halves = 0.5 ** np.abs(np.arange(4) - unit)
        np.testing.assert_allclose(values, row["spike_amplitudes"][:, None] * halves, rtol=1e-5)
