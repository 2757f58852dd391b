"""apply is a job like sort: it writes further formats, keeps what is finished, and leaves nothing over when it is killed."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
from helpers.command_line import spikecrsae
from helpers.stopped_runs import finished, start, wait_for_stage

from spikecrsae.exports.export_folder import ExportFolder
from spikecrsae.results.folder import ResultFolder
from spikecrsae.results.model_file import load_checkpoint, save_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def applied(short_sort, tmp_path_factory):
    """The model of the short recording applied to it, with an export; not to be changed."""
    folder = tmp_path_factory.mktemp("applied") / "out"
    result = spikecrsae("apply", short_sort.folder, short_sort.recording, "-o", folder, "--export", "csv", "--quiet")
    assert result.exit_code == 0, result.stderr
    return folder


def test_the_record_says_with_which_model_and_what_was_asked_for(applied, short_sort):
    run = json.loads((applied / "run.json").read_text())
    listed = ResultFolder(short_sort.folder).files()["model.safetensors"]
    assert run["task"] == "apply" and run["options"]["exports"] == ["csv"]
    assert run["model"] == {"path": str(short_sort.folder / "model.safetensors"), "sha256": listed["sha256"]}
    assert run["recording"]["paths"] == [str(short_sort.recording)]


def test_the_export_holds_the_spikes_of_the_result(applied):
    assert (applied / "csv" / "spikes.csv").read_bytes() == (applied / "spikes.csv").read_bytes()
    assert ResultFolder(applied).is_finished() and ResultFolder(applied).changed_files() == []


def test_resume_keeps_what_is_finished_and_adds_a_format(applied, short_sort, tmp_path):
    folder = shutil.copytree(applied, tmp_path / "out")
    before = (folder / "sorting.h5").stat().st_mtime_ns
    words = ["apply", short_sort.folder, short_sort.recording, "-o", folder, "--resume", "--export", "csv"]
    result = spikecrsae(*words)
    assert result.exit_code == 0 and "finished already" in result.stderr
    shutil.rmtree(folder / "csv")
    assert spikecrsae(*words).exit_code == 0
    assert (folder / "csv" / "spikes.csv").exists()
    assert (folder / "sorting.h5").stat().st_mtime_ns == before


def test_resume_names_a_reading_option_that_is_no_longer_given(short_sort, tmp_path):
    words = ["apply", short_sort.folder, short_sort.recording, "-o", tmp_path / "out"]
    assert spikecrsae(*words, "--stop-s", 4).exit_code == 0
    result = spikecrsae(*words, "--resume")
    assert result.exit_code == 6 and "differs (recording.read_options.stop_s 4.0, now none)" in result.stderr
    result = spikecrsae(*words, "--resume", "--stop-s", 4)
    assert result.exit_code == 0 and "finished already" in result.stderr


def test_resume_says_that_the_recording_is_another_file(applied, short_sort, tmp_path):
    folder, recording = (
        shutil.copytree(applied, tmp_path / "out"),
        shutil.copyfile(short_sort.recording, tmp_path / "copy.h5"),
    )
    result = spikecrsae("apply", short_sort.folder, recording, "-o", folder, "--resume", "--export", "csv")
    assert result.exit_code == 6
    assert "the recording is another file or has changed: last change 2" in result.stderr
    assert "copy.h5" in result.stderr and "changed_ns" not in result.stderr


def test_exports_of_a_replaced_result_are_named_unless_they_are_renewed(applied, short_sort, tmp_path):
    folder = shutil.copytree(applied, tmp_path / "out")
    ExportFolder(folder / "phy").write({"spike_times.npy": [b"old"]})
    words = ["apply", short_sort.folder, short_sort.recording, "-o", folder, "--overwrite"]
    result = spikecrsae(*words, "--exclude-s", "2-8")
    assert result.exit_code == 0 and result.stderr.count("Warning: ") == 1
    assert f"{folder} still holds exports of the replaced result (csv, phy)" in result.stderr
    assert (folder / "phy" / "spike_times.npy").read_bytes() == b"old"
    assert "(csv, phy)" in json.loads((folder / "run.json").read_text())["warnings"][-1]
    result = spikecrsae(*words, "--export", "csv")
    assert "replaced result (phy)" in result.stderr
    assert (folder / "csv" / "spikes.csv").read_bytes() == (folder / "spikes.csv").read_bytes()
    shutil.rmtree(folder / "phy")
    assert "Warning" not in spikecrsae(*words, "--export", "csv").stderr


@pytest.mark.parametrize("change", ["setting", "model", "task"])
def test_resume_refuses_a_result_that_was_made_otherwise(applied, short_sort, tmp_path, change):
    folder, model, words = shutil.copytree(applied, tmp_path / "out"), short_sort.folder, []
    named = {"setting": "preprocess.exclude_s", "model": "model.sha256", "task": "task apply, now sort"}[change]
    if change == "setting":
        words = ["--exclude-s", "1-2"]
    elif change == "model":
        saved, model = load_checkpoint(short_sort.folder / "model.safetensors"), tmp_path / "model.safetensors"
        saved["crsae"]["sigma"] *= 1.5
        save_checkpoint(saved, model)
    task = ["sort"] if change == "task" else ["apply", model]
    result = spikecrsae(*task, short_sort.recording, "-o", folder, "--export", "csv", "--resume", *words)
    assert result.exit_code == 6 and "--resume does not match" in result.stderr
    if change == "model":
        assert "model.path" in result.stderr
    assert named in result.stderr


def test_a_killed_apply_begins_again_and_leaves_nothing_over(applied, short_sort, tmp_path):
    folder, errors = tmp_path / "out", tmp_path / "errors"
    words = ["apply", short_sort.folder, short_sort.recording, "-o", folder]
    process = start(*words)
    wait_for_stage(process, folder, "infer")
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not folder.exists() and ResultFolder(folder).unfinished.exists()
    assert finished(*words, "--resume", errors=errors) == 0
    assert "nothing to resume" in errors.read_text()
    assert (folder / "spikes.csv").read_bytes() == (applied / "spikes.csv").read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"out", "errors"}


def test_a_model_that_is_not_there_is_3(short_sort, tmp_path):
    result = spikecrsae("apply", tmp_path / "no.safetensors", short_sort.recording, "-o", tmp_path / "out")
    assert result.exit_code == 3 and "no.safetensors" in result.stderr
    assert list(tmp_path.iterdir()) == []
