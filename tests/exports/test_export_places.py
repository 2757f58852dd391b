"""Where exports go, what is never overwritten, and the command."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.command_line import spikecrsae
from helpers.sortings import exported, write_sorted

from spikecrsae.cli.options import EXPORT_FORMATS
from spikecrsae.errors import InputError, OutputError, UsageError
from spikecrsae.exports.export import FORMATS, export, find_recording
from spikecrsae.readers import open_recording
from spikecrsae.run.curated import open_sorting

pytestmark = pytest.mark.slow


@pytest.fixture
def made(tmp_path):
    """Three units on a tetrode of which channel 3 was left out."""
    return write_sorted(tmp_path, masked=(3,))


def test_formats_go_into_the_result_and_its_manifest(made):
    for kind in FORMATS:
        assert exported(made, kind) == made.folder / FORMATS[kind].name
    listed = json.loads((made.folder / "manifest.json").read_text())["files"]
    assert {"sorting.nwb", "sorting.mat", "sorting_neo.mat"} < set(listed)
    assert not any("/" in name for name in listed)  # folders are worked on, they have manifests of their own
    open_sorting(made.folder)


@pytest.mark.parametrize("kind", list(FORMATS))
def test_nothing_is_overwritten_unless_asked(made, kind):
    sorting, run = open_sorting(made.folder)
    place = exported(made, kind, with_recording=False)
    with pytest.raises(OutputError, match="--overwrite"):
        export(sorting, run, kind, place)
    assert export(sorting, run, kind, place, overwrite=True) == place


def test_a_failure_leaves_what_was_there(made, monkeypatch):
    folder = exported(made, "phy")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    recording = open_recording(made.recording)

    def broken(start, stop):
        raise InputError("the disk went away")

    sorting, run = open_sorting(made.folder)
    with pytest.raises(InputError, match="went away"):
        export(sorting, run, "phy", folder, replace(recording, read_raw=broken), overwrite=True)
    with pytest.raises(InputError, match="went away"):
        export(sorting, run, "klusters", made.folder / "klusters", replace(recording, read_raw=broken))
    recording.close()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert {path.name for path in made.folder.iterdir()} == {
        "manifest.json",
        "run.json",
        "sorting.h5",
        "spikes.csv",
        "units.csv",
        "phy",
    }


def test_foreign_files_and_places_are_left_alone(tmp_path, made):
    sorting, run = open_sorting(made.folder)
    folder = exported(made, "phy")
    (folder / "phy.log").write_text("mine")
    assert export(sorting, run, "phy", folder, overwrite=True)
    assert (folder / "phy.log").read_text() == "mine"
    assert not (folder / "recording.dat").exists()  # the first had one, this one has not
    with pytest.raises(OutputError, match=r"manifest\.json"):
        export(sorting, run, "phy", made.folder, overwrite=True)
    with pytest.raises(OutputError, match="is a file"):
        export(sorting, run, "csv", made.recording, overwrite=True)
    with pytest.raises(OutputError, match="is a folder"):
        (tmp_path / "x.nwb").mkdir()
        export(sorting, run, "nwb", tmp_path / "x.nwb", overwrite=True)
    with pytest.raises(UsageError, match=r"must end in \.mat"):
        export(sorting, run, "mat", made.recording, overwrite=True)


def test_the_wrong_recording_is_refused(tmp_path, made):
    other = tmp_path / "other"
    other.mkdir()
    short = write_sorted(other, n_channels=3)
    sorting, run = open_sorting(made.folder)
    recording = open_recording(short.recording)
    with pytest.raises(InputError, match="3 channels"):
        export(sorting, run, "phy", tmp_path / "phy", recording)
    recording.close()
    assert not (tmp_path / "phy").exists()


def test_the_recording_is_found_beside_a_result_that_moved(tmp_path, made, caplog):
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    result = shutil.move(made.folder, moved)
    found = shutil.move(made.recording, moved)
    sorting, run = open_sorting(result)
    recording = find_recording(result, sorting, run, "phy", {})
    assert recording.source == Path(found)
    recording.close()
    Path(found).unlink()
    with caplog.at_level(logging.WARNING, "spikecrsae"):
        assert find_recording(result, sorting, run, "phy", {}) is None
    assert "--recording" in caplog.text


def test_the_files_of_a_session_are_found_together(tmp_path, made):
    """Half of the recording in each of two files."""
    whole = open_recording(made.recording)
    half, paths = whole.n_samples // 2, [tmp_path / "first.h5", tmp_path / "second.h5"]
    for path, (start, stop) in zip(paths, ((0, half), (half, whole.n_samples)), strict=True):
        with h5py.File(path, "w") as file, h5py.File(made.recording) as original:
            file.create_dataset("traces", data=original["traces"][start:stop]).attrs.update(original["traces"].attrs)
    sorting, run = open_sorting(made.folder)
    run["recording"]["paths"] = [str(path) for path in paths]
    recording = find_recording(made.folder, sorting, run, "phy", {})
    np.testing.assert_array_equal(recording.raw(0, whole.n_samples), whole.raw(0, whole.n_samples))
    recording.close()
    whole.close()
    paths[1].unlink()
    assert find_recording(made.folder, sorting, run, "phy", {}) is None


# ---- the command


def test_every_format_is_an_option_of_the_command():
    assert list(FORMATS) == list(EXPORT_FORMATS)


def test_the_command_writes_and_says_where(made, tmp_path):
    result = spikecrsae("export", made.folder)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.strip() == str(made.folder / "phy")
    assert (made.folder / "phy" / "pc_features.npy").is_file()
    out = tmp_path / "units.mat"
    document = json.loads(spikecrsae("export", made.folder / "sorting.h5", "--to", "mat", "-o", out, "--json").stdout)
    assert document["path"] == str(out) and document["n_units"] == 3
    again = spikecrsae("export", made.folder)
    assert again.exit_code == OutputError.exit_code and "--overwrite" in again.stderr
    assert spikecrsae("export", tmp_path / "nothing.sorted").exit_code == InputError.exit_code


def test_the_command_says_what_is_missing(made, tmp_path):
    made.recording.rename(tmp_path / "renamed.h5")
    result = spikecrsae("export", made.folder)
    assert result.exit_code == 0
    assert "--recording" in result.stderr and "no pc_features" in result.stderr
    result = spikecrsae("export", made.folder, "--recording", tmp_path / "renamed.h5", "--overwrite")
    assert result.exit_code == 0 and result.stderr.count("Warning") == 0
    assert (made.folder / "phy" / "recording.dat").is_file()


def test_sort_exports_too(tmp_path):
    made = write_sorted(tmp_path, n_units=2, n_spikes=90)
    out = tmp_path / "out"
    words = ("sort", made.recording, "-o", out, "--export", "phy", "--export", "mat", "--no-find-artefacts", "--epochs", 1)
    result = spikecrsae(*words)
    assert result.exit_code == 0, result.stderr
    assert (out / "phy" / "pc_features.npy").is_file() and (out / "sorting.mat").is_file()
    np.save(out / "phy" / "spike_clusters.npy", np.zeros(3, np.int32))
    refused = spikecrsae(*words, "--overwrite")
    assert refused.exit_code == OutputError.exit_code and "changed after it was written" in refused.stderr
