"""Nothing is lost when a run is killed at any moment, and it goes on to the result that it would have had."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from helpers.command_line import PATIENCE_S, wait_until
from helpers.recordings import cut_recording
from helpers.sortings import RUN, files_of, make_sorting, modifies, write_result
from helpers.stopped_runs import finished, start, wait_for_stage

from spikecrsae.exports.export_folder import ExportFolder
from spikecrsae.results.folder import ResultFolder, read_sorting
from spikecrsae.run.batch import result_name

pytestmark = pytest.mark.slow

OLD = ("--seed", "5", "--detection-threshold", "6")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A short recording, and in `new` what sorting it gives undisturbed, in `old` with other settings."""
    root = tmp_path_factory.mktemp("kill")
    cut_recording(root / "recording.h5", 12, 16)
    assert finished("sort", root / "recording.h5", "-o", root / "new") == 0
    assert finished("sort", root / "recording.h5", "-o", root / "old", *OLD) == 0
    return root


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def assert_same_result(folder: Path, other: Path) -> None:
    """The same spikes, units, templates, model and record, apart from times and the words of the command."""
    assert ResultFolder(folder).is_finished() and ResultFolder(folder).changed_files() == []
    for name in ("spikes.csv", "units.csv", "model.safetensors"):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    one, two = read_sorting(folder), read_sorting(other)
    for name in ("spikes", "templates", "templates_whitened", "templates_std", "example", "excluded"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    assert one.curation == two.curation
    records = [json.loads((place / "run.json").read_text()) for place in (folder, other)]
    for record in records:
        for name in ("began", "seconds", "stage_seconds", "command"):
            del record[name]
    assert records[0] == records[1]


def kill_at(process, folder: Path, stage: str) -> None:
    wait_for_stage(process, folder, stage)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


# ---- whole runs


@pytest.mark.parametrize(
    ("overwrite", "stages"), [(False, ["curate", "infer", "write"]), (True, ["noise", "infer", "write"])]
)
def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(lab, tmp_path, overwrite, stages):
    """SIGKILL in three stages, one after the other; meanwhile an earlier result stays as it was."""
    recording, folder = lab / "recording.h5", tmp_path / "out"
    before = digest(recording)
    words = ["sort", recording, "-o", folder]
    if overwrite:
        shutil.copytree(lab / "old", folder)
        (folder / "notes.txt").write_text("of other origin")
        words.append("--overwrite")
    for number, stage in enumerate(stages):
        kill_at(start(*words, *["--resume"] * (number > 0)), folder, stage)
        assert digest(recording) == before
        assert folder.exists() == overwrite
        if overwrite:
            assert_same_result(folder, lab / "old")
    assert any(ResultFolder(folder).unfinished.glob("resume/*.safetensors")), "what was learned is there"
    assert finished(*words, "--resume", errors=tmp_path / "errors") == 0
    said = (tmp_path / "errors").read_text()
    assert "going on with what was learned before" in said and "curate" not in said
    assert_same_result(folder, lab / "new")
    assert {path.name for path in tmp_path.iterdir()} == {"out", "errors"}, "nothing is left over"
    assert (folder / "notes.txt").exists() == overwrite and not (folder / "resume").exists()


def test_without_resume_it_begins_anew_and_other_samples_are_not_gone_on_with(lab, tmp_path):
    """Samples that changed under the same size and time of change: the checksum tells."""
    recording, folder, errors = tmp_path / "recording.h5", tmp_path / "out", tmp_path / "errors"
    shutil.copy2(lab / "recording.h5", recording)
    kill_at(start("sort", recording, "-o", folder, *OLD), folder, "infer")
    (ResultFolder(folder).unfinished / ".spikes.csv.partial").write_bytes(b"half a file")
    times, content = recording.stat(), bytearray(recording.read_bytes())
    content[len(content) // 2] ^= 1
    recording.write_bytes(content)
    os.utime(recording, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert finished("sort", recording, "-o", folder, *OLD, "--resume", errors=errors) == 6
    assert "the samples have the checksum" in errors.read_text()
    shutil.copy2(lab / "recording.h5", recording)
    assert finished("sort", recording, "-o", folder, errors=errors) == 0
    assert "going on" not in errors.read_text()
    for name in ("spikes.csv", "units.csv", "model.safetensors"):
        assert (folder / name).read_bytes() == (lab / "new" / name).read_bytes(), name
    assert {path.name for path in tmp_path.iterdir()} == {"out", "errors", "recording.h5"}
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_how_to_go_on(lab, tmp_path, number, code):
    folder, errors = tmp_path / "o ut", tmp_path / "errors"
    process = start("sort", lab / "recording.h5", "-o", folder, "--save-components", errors=errors)
    wait_for_stage(process, folder, "infer")
    os.kill(process.pid, number)
    process.join(PATIENCE_S)
    assert process.exitcode == code
    said = errors.read_text().splitlines()[-1]
    assert said.startswith(("Interrupted.", "Terminated."))
    assert said.endswith(f"spikecrsae sort {lab / 'recording.h5'} -o '{folder}' --save-components --resume")
    assert not folder.exists()
    assert {path.name for path in ResultFolder(folder).unfinished.iterdir()} == {"manifest.json", "run.log", "resume"}


def test_what_does_not_match_is_refused_and_what_is_finished_stays(lab, tmp_path):
    folder, errors = tmp_path / "out", tmp_path / "errors"
    words = ["sort", lab / "recording.h5", "-o", folder, "--resume"]
    kill_at(start(*words), folder, "infer")
    assert finished(*words, "--seed", 3, errors=errors) == 6
    said = errors.read_text()
    assert said.startswith("Error: --resume does not match") and said.count("\n") == 1
    assert "config.runtime.seed 0, now 3" in said and "leave --resume out" in said and "To go on" not in said
    assert any(ResultFolder(folder).unfinished.glob("resume/*.safetensors")), "a refusal takes nothing away"
    assert finished(*words, "--export", "csv") == 0
    when = (folder / "sorting.h5").stat().st_mtime_ns
    assert finished(*words, "--export", "csv", errors=errors) == 0
    assert "finished already" in errors.read_text()
    shutil.rmtree(folder / "csv")
    assert finished(*words, "--export", "csv") == 0, "a run that was killed between the result and the export"
    assert (folder / "csv" / "spikes.csv").exists()
    assert (folder / "sorting.h5").stat().st_mtime_ns == when
    assert finished(*words, "--export", "csv", "--units", 2, errors=errors) == 6
    assert "config.initialise.units auto, now 2" in errors.read_text()


def test_groups_go_on_each_on_its_own(lab, tmp_path):
    folder, errors = tmp_path / "out", tmp_path / "errors"
    words = ["sort", lab / "recording.h5", "--groups", "0-1,2-3", "--jobs", 1, "--verbose", "-o"]
    process = start(*words, folder)
    first = ResultFolder(folder).unfinished / "resume" / "all-0.safetensors"
    wait_until(first.exists)
    process.kill()
    process.join()
    assert [path.name for path in first.parent.glob("*.safetensors")] == ["all-0.safetensors"]
    assert finished(*words, folder, "--resume", errors=errors) == 0
    log = (folder / "run.log").read_text()
    assert "group 0: channels" in log and log.count("group 1: looking at") > 0
    assert finished(*words, tmp_path / "undisturbed") == 0
    assert_same_result(folder, tmp_path / "undisturbed")


def test_a_batch_goes_on_where_a_sort_was_killed(lab, tmp_path):
    folder = tmp_path / "out" / result_name(lab / "recording.h5")
    folder.parent.mkdir()
    kill_at(start("sort", lab / "recording.h5", "-o", folder), folder, "infer")
    assert finished("batch", lab / "recording.h5", "-o", folder.parent, "--resume") == 0
    log = (folder / "run.log").read_text()
    assert log.index("curate starts") < log.index("going on with what was learned before"), "one log of both runs"
    assert (folder / "spikes.csv").read_bytes() == (lab / "new" / "spikes.csv").read_bytes()
    assert {path.name for path in folder.parent.iterdir()} == {folder.name, "batch.csv", "batch.json", "index.html"}


# ---- every single step of writing


def killed_at(step: int, work, *arguments) -> int:
    """What waitpid tells of a copy of this process that does a piece of work, killed before the step-th change of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads, of which the copy has no need
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    left = [step]

    def hook(event: str, values: tuple) -> None:
        if modifies(event, values):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    try:
        work(*arguments)
        os._exit(0)
    finally:
        os._exit(1)


def _replace(folder: Path) -> None:
    """What a run does with its result, in a folder that may hold an earlier one."""
    result = ResultFolder(folder)
    with result.lock(), result.replacing(overwrite=True, keep=("resume",)) as work:
        result.learned.mkdir(exist_ok=True)
        (result.learned / "all.safetensors").write_bytes(b"learned")
        work.write(make_sorting(1), RUN, files={"model.safetensors": b"new model", "run.log": b"new"})


def _export(folder: Path) -> None:
    ExportFolder(folder).write({"a.npy": [b"new a"], "b.npy": [b"new b"]}, overwrite=True)


def _earlier(place: Path, work) -> Path:
    """An earlier result or export with files of other origin beside its own and below them."""
    folder = place / "out"
    if work is _replace:
        write_result(folder, make_sorting(), RUN, files={"model.safetensors": b"old", "run.log": b"old"})
    else:
        ExportFolder(folder).write({"a.npy": [b"old a"], "c.npy": [b"old c"]})
    (folder / "phy" / ".cache").mkdir(parents=True)
    (folder / "phy" / ".cache" / "x").write_bytes(b"x")
    (folder / "notes.txt").write_bytes(b"mine")
    return folder


FOREIGN = {"phy/.cache/x": b"x", "notes.txt": b"mine"}


def own(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: content for name, content in files.items() if name not in FOREIGN}


@pytest.mark.parametrize(("work", "has_earlier"), [(_replace, True), (_replace, False), (_export, True)])
def test_whatever_step_it_is_killed_at(tmp_path, work, has_earlier):
    """The earlier folder or the new one is whole, files of other origin are there, and the next run puts everything right."""
    kind = ResultFolder if work is _replace else ExportFolder
    (tmp_path / "undisturbed").mkdir()
    old = files_of(_earlier(tmp_path / "undisturbed", work)) if has_earlier else {}
    work(tmp_path / "undisturbed" / "out")
    new = files_of(tmp_path / "undisturbed" / "out")
    for step in range(200):
        place = tmp_path / str(step)
        place.mkdir()
        folder, replaced = place / "out", place / ".out.replaced"
        if has_earlier:
            _earlier(place, work)
        code = killed_at(step, work, folder)
        if folder.exists():
            assert kind(folder).changed_files() == []
            assert own(files_of(folder)) in (own(old), own(new))
        elif has_earlier:
            assert files_of(replaced) == old and kind(kind(folder).unfinished).changed_files() == []
        there = files_of(folder) | (files_of(replaced) if replaced.exists() else {})
        assert not has_earlier or FOREIGN.items() <= there.items()
        if code == 0:
            break
        assert code == -signal.SIGKILL
        work(folder)
        assert files_of(folder) == new
        assert [path.name for path in place.iterdir()] == ["out"], f"step {step}"
    assert code == 0 and step > 15
