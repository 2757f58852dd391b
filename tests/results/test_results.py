"""The result folder: what is written comes back, nothing foreign is touched, and failures leave no half files."""

import csv
import errno
import hashlib
import io
import json
import os
from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import sortings
from helpers.sortings import FS, RUN, START_S, files_of, write_result

from spikecrsae.data.sorting import SPIKE_DTYPE, SortingData
from spikecrsae.errors import InputError, OutputError
from spikecrsae.results.folder import ResultFolder, default_result_path, read_run, read_sorting
from spikecrsae.results.tables import spikes_csv
from spikecrsae.system.files import write_atomic


def make_sorting(n_units=2) -> SortingData:
    """40 spikes of units 1 and 4, with columns of each type and text that a table has to quote."""
    made = sortings.make_sorting(n_units, 40 if n_units else 0, ids=3 * np.arange(n_units) + 1)
    columns = {
        "n_spikes": made.units["n_spikes"],
        "amplitude": np.linspace(50, 80, n_units),
        "snr": np.full(n_units, np.nan),
        "größe µV": np.linspace(-1, 1, n_units).astype(np.float32),
        "comment": np.array(['good, "clear"', "naïve 神経"][:n_units], dtype=str),
        "single": np.arange(n_units) % 2 == 0,
    }
    decisions = (
        {"decision": "merge", "units": [1, 4], "statistic": 0.3, "level": 0.01, "reason": "same neuron"},
        {"decision": "keep", "units": [1], "statistic": None, "level": None},
    )
    return replace(made, units=columns, curation=decisions)


def assert_same(a: SortingData, b: SortingData):
    for f in fields(SortingData):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if isinstance(x, np.ndarray):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)
        elif isinstance(x, dict):
            assert list(x) == list(y), "the columns keep their order"
            for name in x:
                assert x[name].dtype.kind == y[name].dtype.kind and x[name].shape == y[name].shape
                np.testing.assert_array_equal(x[name], y[name])
        else:
            assert x == y, f.name


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text(encoding="utf-8"))


@pytest.fixture
def folder(tmp_path):
    """A finished result."""
    return write_result(tmp_path / "rec.h5.sorted", make_sorting(), RUN, files={"model.safetensors": b"weights"})


def test_default_path_keeps_the_ending(tmp_path, monkeypatch):
    assert default_result_path("/data/rec.h5") == Path("/data/rec.h5.sorted")
    assert default_result_path("/data/session/") == Path("/data/session.sorted")
    assert default_result_path("/data/CSC1.ncs", "/data/CSC2.ncs", "/other/CSC4.ncs") == Path(
        "/data/CSC1.ncs-CSC4.ncs.sorted"
    )
    monkeypatch.chdir(tmp_path)
    assert default_result_path("rec.h5") == tmp_path / "rec.h5.sorted"


@pytest.mark.slow
@pytest.mark.parametrize("n_units", [0, 1, 2])
def test_round_trip(tmp_path, n_units):
    sorting = make_sorting(n_units)
    run = RUN | {"rates": np.arange(2), "level": np.float32(0.5), "input": Path("a.h5")}
    path = write_result(tmp_path / "out", sorting, run)
    assert_same(read_sorting(path), sorting)
    assert_same(read_sorting(path / "sorting.h5"), sorting)
    assert read_run(path) == json.loads((path / "run.json").read_text(encoding="utf-8"))
    assert read_run(path)["rates"] == [0, 1] and read_run(path)["input"] == "a.h5" and read_run(path)["level"] == 0.5


def test_sorting_h5_has_the_promised_layout(folder):
    with h5py.File(folder / "sorting.h5") as file:
        assert {"format_version", "sampling_frequency", "n_samples", "n_channels", "amplitude_unit", "start_time_s"} == set(
            file.attrs
        )
        assert file["spikes"].dtype == SPIKE_DTYPE
        assert list(file["units"])[:2] == ["unit", "n_spikes"]
        assert file["templates"].shape == file["templates_std"].shape == (2, 4, 40)
        assert {"channels", "model", "curation", "provenance"} <= set(file)
        assert file["curation"].dtype.names[:4] == ("decision", "units", "statistic", "level")


def test_tables_as_text(folder):
    sorting = make_sorting()
    rows = list(csv.DictReader(io.StringIO((folder / "spikes.csv").read_text())))
    assert list(rows[0]) == ["unit", "sample", "time_s", "amplitude", "probability"] and len(rows) == 40
    np.testing.assert_array_equal([int(r["sample"]) for r in rows], sorting.spikes["sample"])
    np.testing.assert_array_equal([int(r["unit"]) for r in rows], sorting.spikes["unit"])
    np.testing.assert_allclose([float(r["time_s"]) for r in rows], sorting.spikes["sample"] / FS + START_S, atol=1e-9)
    np.testing.assert_allclose([float(r["amplitude"]) for r in rows], sorting.spikes["amplitude"], rtol=1e-6)
    np.testing.assert_allclose([float(r["probability"]) for r in rows], sorting.spikes["probability"], rtol=1e-5)
    units = list(csv.DictReader(io.StringIO((folder / "units.csv").read_text(encoding="utf-8"))))
    assert list(units[0]) == ["unit", "n_spikes", "amplitude_uV", "snr", "größe µV", "comment", "single"]
    assert [u["unit"] for u in units] == ["1", "4"]
    assert [u["comment"] for u in units] == ['good, "clear"', "naïve 神経"]
    assert (units[0]["snr"], units[0]["single"], units[1]["single"], units[1]["amplitude_uV"]) == ("", "true", "false", "80")


def test_a_result_of_an_earlier_version_has_no_probabilities(folder):
    """It is read, and its probabilities are not known: NaN, and an empty cell in a table."""
    with h5py.File(folder / "sorting.h5", "a") as file:
        spikes = file["spikes"][()]
        del file["spikes"]
        file["spikes"] = spikes[[name for name in SPIKE_DTYPE.names if name != "probability"]].astype(
            [(name, SPIKE_DTYPE[name]) for name in SPIKE_DTYPE.names if name != "probability"]
        )
    (folder / "manifest.json").unlink()  # with the checksum of the file as it was
    read = read_sorting(folder)
    assert read.spikes.dtype == SPIKE_DTYPE and np.isnan(read.spikes["probability"]).all()
    np.testing.assert_array_equal(read.spikes["sample"], make_sorting().spikes["sample"])
    assert b"".join(spikes_csv(read)).splitlines()[1].endswith(b",")


def test_the_same_sorting_gives_the_same_bytes(tmp_path):
    first, second = (files_of(write_result(tmp_path / n, make_sorting(), RUN)) for n in "ab")
    assert first == second


def test_manifest_lists_every_file_with_size_and_checksum(folder):
    manifest, found = manifest_of(folder), files_of(folder)
    assert manifest["complete"] is True
    assert set(manifest["files"]) == set(found) - {"manifest.json"}
    assert set(found) == {"sorting.h5", "spikes.csv", "units.csv", "run.json", "model.safetensors", "manifest.json"}
    for name, entry in manifest["files"].items():
        assert entry == {"size": len(found[name]), "sha256": hashlib.sha256(found[name]).hexdigest()}


def test_add_to_manifest(folder, tmp_path):
    (folder / "phy" / "sub").mkdir(parents=True)
    (folder / "phy" / "params.py").write_bytes(b"x = 1\n")
    (folder / "phy" / "sub" / "t.npy").write_bytes(b"12")
    (folder / "run.log").write_bytes(b"done\n")
    ResultFolder(folder).add(["phy", folder / "run.log"])
    files = manifest_of(folder)["files"]
    assert files["phy/sub/t.npy"]["size"] == 2 and files["run.log"]["sha256"] == hashlib.sha256(b"done\n").hexdigest()
    assert "phy/params.py" in files and "sorting.h5" in files
    (tmp_path / "elsewhere").write_bytes(b"")
    for wrong in ("missing.png", tmp_path / "elsewhere", "../elsewhere"):
        with pytest.raises(OutputError, match="no file inside"):
            ResultFolder(folder).add([wrong])


def test_nothing_is_overwritten_without_being_asked(folder):
    before = files_of(folder)
    with pytest.raises(OutputError, match="--overwrite") as error:
        ResultFolder(folder).prepare()
    assert error.value.exit_code == 6
    assert files_of(folder) == before


def test_overwrite_removes_only_what_the_manifest_lists(folder):
    (folder / "figures").mkdir()
    (folder / "figures" / "a.png").write_bytes(b"a")
    (folder / "phy").mkdir()
    (folder / "phy" / "params.py").write_bytes(b"p")
    ResultFolder(folder).add(["figures", "phy"])
    (folder / "notes.txt").write_bytes(b"mine")
    (folder / "phy" / "my_labels.tsv").write_bytes(b"mine too")
    ResultFolder(folder).prepare(overwrite=True)
    assert set(files_of(folder)) == {"notes.txt", "phy/my_labels.tsv", "manifest.json"}
    assert not (folder / "figures").exists()
    ResultFolder(folder).write(make_sorting(1), RUN)
    assert read_sorting(folder).n_units == 1
    assert (folder / "notes.txt").read_bytes() == b"mine"
    assert "notes.txt" not in manifest_of(folder)["files"] and "model.safetensors" not in manifest_of(folder)["files"]


def test_overwrite_refuses_what_is_no_result(tmp_path, folder):
    other = tmp_path / "photos"
    other.mkdir()
    ResultFolder(other).prepare(overwrite=True)  # empty: nothing can be lost
    (other / "manifest.json").unlink()
    (other / "cat.jpg").write_bytes(b"cat")
    for overwrite in (False, True):  # a remedy that is refused next is not given
        with pytest.raises(OutputError, match=r"no manifest\.json"):
            ResultFolder(other).check(overwrite)
    (other / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(OutputError, match="cannot be read"):
        ResultFolder(other).prepare(overwrite=True)
    assert set(files_of(other)) == {"cat.jpg", "manifest.json"}
    # A file of the user's under a name that this run would need.
    (folder / "report.html").write_bytes(b"mine")
    before = files_of(folder)
    with pytest.raises(OutputError, match=r"report\.html"):
        ResultFolder(folder).prepare(overwrite=True)
    assert files_of(folder) == before


@pytest.mark.parametrize("name", ["../precious.dat", "link/precious.dat", "", "absolute"])
def test_a_manifest_never_leads_the_removal_outside(folder, tmp_path, name):
    precious = tmp_path / "precious.dat"
    precious.write_bytes(b"years of work")
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    manifest = manifest_of(folder)
    manifest["files"][str(precious) if name == "absolute" else name] = {"size": 1, "sha256": "0"}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(OutputError, match="outside the result"):
        ResultFolder(folder).prepare(overwrite=True)
    assert precious.read_bytes() == b"years of work" and (folder / "sorting.h5").exists()


def test_a_crashed_run_can_be_replaced(tmp_path):
    path = ResultFolder(tmp_path / "out").prepare()
    (path / "run.log").write_bytes(b"started\n")
    (path / "sorting.h5").write_bytes(b"half")
    assert manifest_of(path)["complete"] is False
    ResultFolder(path).prepare(overwrite=True)
    assert set(files_of(path)) == {"manifest.json"}


def test_a_log_that_grows_during_the_run_is_listed(tmp_path):
    path = ResultFolder(tmp_path / "out").prepare()
    (path / "run.log").write_bytes(b"started\n")
    ResultFolder(path).write(make_sorting(), RUN, files={"figures/a.png": b"png"})
    assert {"run.log", "figures/a.png"} <= set(manifest_of(path)["files"])
    assert "report.html" not in manifest_of(path)["files"]


def test_foreign_files_are_spared(tmp_path):
    path = ResultFolder(tmp_path / "out").prepare()
    (path / "extra.csv").write_bytes(b"mine")
    with pytest.raises(OutputError, match=r"extra\.csv"):
        ResultFolder(path).write(make_sorting(), RUN, files={"extra.csv": b"ours"})
    assert set(files_of(path)) == {"extra.csv", "manifest.json"} and (path / "extra.csv").read_bytes() == b"mine"


def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(OutputError, match="is a file"):
        ResultFolder(tmp_path / "file").prepare(overwrite=True)
    with pytest.raises(OutputError, match="does not exist"):
        ResultFolder(tmp_path / "no" / "out").prepare()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="symbolic link"):
        ResultFolder(tmp_path / "dangling").prepare()

    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="no permission"):
        ResultFolder(tmp_path / "out").prepare()


def test_full_disk_leaves_the_old_file_and_no_partial_one(tmp_path, monkeypatch):
    target = tmp_path / "a.bin"
    assert write_atomic(target, [b"ab", b"c"]) == {"size": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="disk is full"):
        write_atomic(target, [b"new content"])
    assert files_of(tmp_path) == {"a.bin": b"abc"}


def test_what_is_no_result_is_refused(tmp_path, folder):
    with pytest.raises(InputError, match="does not exist"):
        read_sorting(tmp_path / "nothing")
    with pytest.raises(InputError, match="does not exist"):
        read_sorting(tmp_path)
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(InputError, match="cannot be read"):
        read_sorting(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["traces"] = np.zeros(3)
    with pytest.raises(InputError, match="no format_version"):
        read_sorting(tmp_path / "other.h5")
    with h5py.File(folder / "sorting.h5", "a") as file:
        file.attrs["format_version"] = 99
    with pytest.raises(InputError, match="format_version 99"):
        read_sorting(folder / "sorting.h5")


def test_damage_is_noticed(folder):
    whole = (folder / "sorting.h5").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    (folder / "sorting.h5").write_bytes(flipped)
    with pytest.raises(InputError, match="damaged"):
        read_sorting(folder)
    (folder / "sorting.h5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cut off"):
        read_sorting(folder / "sorting.h5")
    (folder / "sorting.h5").write_bytes(whole)
    with h5py.File(folder / "sorting.h5", "a") as file:
        del file["templates"]
    with pytest.raises(InputError, match="damaged"):
        read_sorting(folder / "sorting.h5")


def test_a_column_name_that_hdf5_would_split_is_refused(tmp_path):
    sorting = make_sorting(1)
    sorting.units["rate 1/s"] = np.zeros(1)
    with pytest.raises(InputError, match="rename"):
        write_result(tmp_path / "out", sorting, RUN)
