"""Many recordings: the same results as one by one, whatever happens to some of them."""

from __future__ import annotations

import csv
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from helpers.command_line import PATIENCE_S, group_is_alive, spikecrsae, wait_until
from helpers.recordings import cut_recording

from spikecrsae.errors import InputError
from spikecrsae.results.folder import ResultFolder
from spikecrsae.run.batch import find_recordings, result_name, run_jobs
from spikecrsae.run.job import Job
from spikecrsae.run.summary import Result, make_folder, write_summary
from spikecrsae.system.processes import Processes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def day(tmp_path_factory) -> Path:
    """Two short recordings of the same name in two folders, and a file that is none."""
    root = tmp_path_factory.mktemp("day")
    cut_recording(root / "left" / "tetrode.h5", 10, 14)
    cut_recording(root / "right" / "tetrode.h5", 20, 24)
    (root / "left" / "broken.h5").write_text("no HDF5")
    return root


@pytest.fixture(scope="module")
def batch(day, tmp_path_factory):
    """The batch over the day with two processes, run once: its result, and its folder."""
    out = tmp_path_factory.mktemp("batch") / "out"
    return spikecrsae("batch", day / "*" / "*.h5", "-o", out, "--jobs", 2, "--seed", 3), out


FILES = ("left/tetrode.h5", "right/tetrode.h5")
SUMMARIES = {"batch.csv", "batch.json", "index.html"}


@pytest.fixture
def names(day) -> list[str]:
    """The folders of the results of FILES."""
    return [result_name(day / file) for file in FILES]


def summary(out: Path) -> dict[str, dict[str, str]]:
    """The rows of batch.csv by the path of the recording."""
    return {row["recording"]: row for row in csv.DictReader((out / "batch.csv").read_text().splitlines())}


def test_the_broken_one_does_not_stop_the_others(batch, day, names):
    result, out = batch
    assert result.exit_code == 7, result.stderr
    assert {path.name for path in out.iterdir()} == {*names, *SUMMARIES}
    rows, broken = summary(out), str(day / "left" / "broken.h5")
    sorted_ = dict.fromkeys((str(day / file) for file in FILES), "sorted")
    assert {name: row["state"] for name, row in rows.items()} == {**sorted_, broken: "failed"}
    assert rows[broken]["exit_code"] == "3" and "not HDF5" in rows[broken]["error"]
    for name, file in zip(names, FILES, strict=True):
        row = rows[str(day / file)]
        units = list(csv.DictReader((out / name / "units.csv").read_text().splitlines()))
        labels = [unit["label"] for unit in units]
        assert Path(row["folder"]) == out / name
        assert int(row["n_spikes"]) == (out / name / "spikes.csv").read_text().count("\n") - 1
        assert [int(row[f"n_{label}"]) for label in ("single", "multi")] == [labels.count("single"), labels.count("multi")]
        snrs = [float(unit["snr"]) for unit in units if unit["label"] in ("single", "multi")]
        assert float(row["snr"]) == pytest.approx(statistics.median(snrs), rel=1e-6)
        assert float(row["seconds"]) > 0
        assert file in result.stdout
    assert "not HDF5" in result.stdout
    assert "2 of 3 recordings are sorted" in result.stderr
    assert "[3/3]" in result.stderr


def test_each_result_is_that_of_a_single_sort(batch, day, names, tmp_path):
    single = spikecrsae("sort", day / FILES[0], "-o", tmp_path / "out", "--seed", 3, "--quiet")
    assert single.exit_code == 0, single.stderr
    for table in ("spikes.csv", "units.csv"):
        assert (batch[1] / names[0] / table).read_bytes() == (tmp_path / "out" / table).read_bytes()


def test_a_batch_over_existing_results_is_refused_before_it_begins(batch, day, names):
    before = (batch[1] / names[0] / "sorting.h5").stat().st_mtime_ns
    result = spikecrsae("batch", day / "*" / "*.h5", "-o", batch[1], "--seed", 3)
    assert result.exit_code == 6
    assert "2 results are there already" in result.stderr and result.stderr.count("\n") == 1
    assert (batch[1] / names[0] / "sorting.h5").stat().st_mtime_ns == before


def test_resume_keeps_what_was_made_alike_and_only_that(batch, day, names, tmp_path):
    out = shutil.copytree(batch[1], tmp_path / "out")
    shutil.rmtree(out / names[1])
    ResultFolder(out / names[1]).prepare()  # what a killed run leaves
    good = [day / file for file in FILES]
    result = spikecrsae("batch", *good, "-o", out, "--seed", 3, "--resume", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    states = {Path(row["folder"]).name: row["state"] for row in document["recordings"]}
    assert states == dict(zip(names, ("kept", "sorted"), strict=True))
    assert all(row["n_units"] > 0 and row["seconds"] > 0 for row in document["recordings"])
    assert (out / names[1] / "spikes.csv").read_bytes() == (batch[1] / names[1] / "spikes.csv").read_bytes()
    assert summary(out)[str(day / "left" / "broken.h5")]["state"] == "failed", "the row of an earlier batch stays"

    other = spikecrsae("batch", *good, "-o", out, "--seed", 4, "--resume")
    assert other.exit_code == 6 and "other settings" in other.stderr
    shutil.copy(good[0], day / "changed.h5")
    shutil.copytree(out / names[0], out / result_name(day / "changed.h5"))
    moved = spikecrsae("batch", day / "changed.h5", "-o", out, "--seed", 3, "--resume")
    assert moved.exit_code == 6, "another recording is no reason to keep the result"


def test_a_batch_of_other_recordings_adds_its_rows_and_results(batch, day, names, tmp_path):
    out = shutil.copytree(batch[1], tmp_path / "out")
    other = cut_recording(tmp_path / "left" / "tetrode.h5", 30, 34)
    before = summary(out)
    result = spikecrsae("batch", other, "-o", out, "--seed", 3)
    assert result.exit_code == 0, result.stderr
    rows = summary(out)
    assert {name: rows[name] for name in before} == before
    assert rows.keys() - before.keys() == {str(other)}
    assert {path.name for path in out.iterdir()} == {*names, result_name(other), *SUMMARIES}
    page = (out / "index.html").read_text()
    assert all(f'href="{name}/report.html"' in page for name in (*names, result_name(other)))
    assert "not HDF5" in page and "4 recordings" in page and "1 failed" in page
    assert "http://" not in page and "https://" not in page, "the page needs no network"


def test_two_batches_into_one_folder_are_refused(day, tmp_path):
    from spikecrsae.system.files import reserved

    out = tmp_path / "out"
    out.mkdir()
    with reserved(out / "batch"):
        result = spikecrsae("batch", day / "right" / "tetrode.h5", "-o", out)
    assert result.exit_code == 6 and "another run" in result.stderr


def test_a_batch_that_ended_between_its_two_summaries_goes_on(tmp_path, monkeypatch):
    written = []

    def ends_after_one(path, content):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        path.write_bytes(b"".join(content))

    monkeypatch.setattr("spikecrsae.run.summary.write_atomic", ends_after_one)
    with pytest.raises(KeyboardInterrupt):
        write_summary(tmp_path, [], {"jobs": 1})
    make_folder(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["batch.json"]


def test_a_row_is_replaced_by_a_new_one_of_its_recording_only(tmp_path):
    """Also where the recording is named from another folder; a batch that ended before it says nothing new."""
    first, second = Path("a/x.h5"), Path("b/x.h5")
    write_summary(tmp_path, [Result(path, tmp_path / path.parent, "sorted", n_units=1) for path in (first, second)], {})
    write_summary(
        tmp_path, [Result(first.absolute(), tmp_path / "a", "failed", error="why"), Result(second, tmp_path / "b")], {}
    )
    rows = summary(tmp_path)
    assert list(rows) == [str(first.absolute()), str(second.absolute())]
    assert [row["state"] for row in rows.values()] == ["failed", "sorted"]


@pytest.mark.parametrize("name", ["batch.csv", "index.html"])
def test_the_summary_of_somebody_else_is_left_alone(day, tmp_path, name):
    (tmp_path / name).write_text("mine")
    result = spikecrsae("batch", day / "right" / "tetrode.h5", "-o", tmp_path)
    assert result.exit_code == 6
    assert (tmp_path / name).read_text() == "mine"


def test_a_pattern_that_finds_nothing_and_a_file_that_is_not_there(tmp_path):
    assert spikecrsae("batch", tmp_path / "*.h5", "-o", tmp_path / "out").exit_code == 3
    assert not (tmp_path / "out").exists()
    result = spikecrsae("batch", tmp_path / "nowhere.h5", "-o", tmp_path / "out")
    assert result.exit_code == 7
    assert "does not exist" in result.stdout


def test_a_killed_process_takes_only_its_recording_with_it(day, tmp_path):
    """The other one is sorted by a new process; closing the batch then takes back what that has begun."""
    jobs = [Job((day / file,), tmp_path / file.split("/")[0]) for file in FILES]
    killed, ended = [], {}

    def interfere(index: int, stage: str, has_ended: bool) -> None:
        if not killed:
            killed.append(index)
            (worker,) = multiprocessing.active_children()
            os.kill(worker.pid, signal.SIGKILL)
        elif index != killed[0] and stage == "noise":
            assert ResultFolder(jobs[index].folder).unfinished.exists()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), closing(run_jobs(jobs, Processes(1, grace_s=60), interfere)) as results:
        for index, result in results:
            ended[index] = result
    assert list(ended) == killed and ended[killed[0]].state == "failed"
    assert "SIGKILL" in ended[killed[0]].error and "memory" in ended[killed[0]].error
    assert not multiprocessing.active_children()
    other = ResultFolder(jobs[1 - killed[0]].folder)
    assert not other.path.exists() and not other.unfinished.exists()


def test_a_process_that_is_told_to_stop_again_and_again_stops_once(day, tmp_path, capfd):
    """The terminal and the batch may both tell it; what comes while it tidies up, or ends, is no error."""
    job, codes = Job((day / FILES[0],), tmp_path / "left"), []

    def terminate(index: int, stage: str, has_ended: bool) -> None:
        # a stage that the process told before it ended may still come afterwards
        for worker in multiprocessing.active_children():
            while worker.is_alive():
                worker.terminate()
                time.sleep(0.001)
            codes.append(worker.exitcode)

    with closing(run_jobs([job], Processes(1), terminate)) as results:
        ((_, result),) = results
    assert codes == [128 + signal.SIGTERM]
    assert result.state == "failed" and "exit code 143" in result.error
    assert capfd.readouterr().err == ""
    assert not ResultFolder(job.folder).unfinished.exists()


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "Interrupted."), (signal.SIGTERM, 143, "Terminated.")]
)
def test_a_signal_stops_the_batch_and_keeps_what_is_finished(day, names, tmp_path, number, code, word):
    out, group = tmp_path / "out", {"start_new_session": True}
    words = [sys.executable, "-m", "spikecrsae", "batch", *(str(day / file) for file in FILES), "-o", str(out)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **group)
    wait_until(
        lambda: (out / names[0] / "run.json").exists() and (out / f"{names[1]}.unfinished" / "run.log").exists(),
        process,
    )
    os.killpg(process.pid, number)  # as a terminal does: the processes of the batch get it too
    stdout, stderr = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, stderr
    assert stderr.splitlines()[-1].startswith(f"{word} To go on") and stderr.splitlines()[-1].endswith(" --resume")
    assert "Traceback" not in stderr
    # what a process has not tidied up within its time is not under the name of a result
    assert {path.name for path in out.iterdir() if not path.name.startswith((".", f"{names[1]}.unfinished"))} == {
        names[0], *SUMMARIES,
    }  # fmt: skip
    states = [row["state"] for row in json.loads((out / "batch.json").read_text())["recordings"]]
    assert states == ["sorted", "stopped"]
    assert "stopped" in stdout
    wait_until(lambda: not group_is_alive(process.pid))


# ---- names


def test_patterns_find_recordings_and_nothing_else(tmp_path):
    for name in ("b.nwb", "a.nwb", "a.nwb.toml", "deep/er/c.nwb", "odd[1].nwb"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    ResultFolder(tmp_path / "a.nwb.sorted").prepare()
    found = lambda *words: [path.name for path in find_recordings([str(tmp_path / word) for word in words])]  # noqa: E731
    assert found("*") == ["a.nwb", "b.nwb", "deep", "odd[1].nwb"]
    assert found("*.nwb", "b.nwb", "../" + tmp_path.name + "/a.nwb") == ["a.nwb", "b.nwb", "odd[1].nwb"]
    assert found("**/*.nwb")[-1] == "odd[1].nwb" and "c.nwb" in found("**/*.nwb")
    assert found("odd[1].nwb") == ["odd[1].nwb"], "a name that exists is no pattern"
    with pytest.raises(InputError, match="finds no recording"):
        find_recordings([str(tmp_path / "*.dat")])


def test_a_folder_is_named_by_its_recording_alone(tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("x/a.h5", "y/a.h5", "x/a.nwb", "x/..h5", "x/batch.csv", "x/" + 200 * "n" + ".h5")]
    names = [result_name(path) for path in paths]
    assert len(set(names)) == len(paths)
    assert names[0].startswith("a-") and max(map(len, names)) < 80
    monkeypatch.chdir(tmp_path)
    assert result_name(Path("x/a.h5")) == names[0]


def test_the_summary_has_a_row_for_each_recording_whatever_its_error_says(tmp_path):
    result = Result(Path("a,b.h5"), Path("out/a"), state="failed", error='no "header", at all', exit_code=3)
    write_summary(tmp_path, [result], {"jobs": 1})
    (row,) = csv.DictReader((tmp_path / "batch.csv").read_text().splitlines())
    assert (Path(row["recording"]), row["error"], row["n_units"]) == (Path("a,b.h5").absolute(), 'no "header", at all', "")


# ---- cluster


def test_without_dask_the_scheduler_is_refused(day, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    result = spikecrsae("batch", day / "right" / "tetrode.h5", "-o", tmp_path / "out", "--scheduler", "tcp://127.0.0.1:1")
    assert result.exit_code == 2
    assert "pip install 'spikecrsae[dask]'" in result.stderr


@pytest.fixture(scope="module")
def distributed():
    return pytest.importorskip("distributed", reason="dask.distributed is not installed")


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "nonsense"])
def test_a_scheduler_that_does_not_answer_is_2(distributed, day, tmp_path, monkeypatch, address):
    monkeypatch.setattr("spikecrsae.system.dask._CONNECT_S", 1)
    result = spikecrsae("batch", day / "right" / "tetrode.h5", "-o", tmp_path / "out", "--scheduler", address)
    assert result.exit_code == 2, result.stderr
    assert f"no Dask scheduler answers at {address}" in result.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="asks /proc which worker is at a recording")
def test_a_batch_on_a_cluster_survives_the_death_of_a_worker(distributed, batch, day, names, tmp_path):
    """On two workers over loopback, one of which is killed while it sorts: the same results as in processes."""
    out = tmp_path / "out"
    script = tmp_path / "cluster.py"
    script.write_text(_CLUSTER)
    words = [sys.executable, str(script), str(day / "left" / "tetrode.h5"), str(day / "left" / "broken.h5")]
    process = subprocess.run([*words, str(out)], capture_output=True, text=True, timeout=PATIENCE_S)
    assert "killed a worker" in process.stdout, process.stderr
    assert "batch ended with 7" in process.stdout, process.stderr
    states = {row["folder"]: row["state"] for row in json.loads((out / "batch.json").read_text())["recordings"]}
    broken = result_name(day / "left" / "broken.h5")
    assert states == {str(out / names[0]): "sorted", str(out / broken): "failed"}
    assert (out / names[0] / "spikes.csv").read_bytes() == (batch[1] / names[0] / "spikes.csv").read_bytes()
    assert {path.name for path in out.iterdir()} == {names[0], *SUMMARIES}


_CLUSTER = """
import os, signal, subprocess, sys, time
from pathlib import Path

from distributed import LocalCluster

def has_a_log(pid):
    # whether a worker is at a recording: it has the log of the run open
    files = Path("/proc", str(pid), "fd")
    try:
        return any(os.readlink(file).endswith("/run.log") for file in files.iterdir())
    except OSError:  # a file was closed meanwhile
        return False


if __name__ == "__main__":
    *recordings, out = sys.argv[1:]
    # where no address is given a server for metrics listens on all interfaces
    listen = dict.fromkeys(("dashboard_address", "worker_dashboard_address"), "127.0.0.1:0")
    only = {"host": "127.0.0.1", "scheduler_kwargs": {"dashboard": False}, **listen}
    with LocalCluster(n_workers=2, threads_per_worker=1, **only) as cluster:
        words = [sys.executable, "-m", "spikecrsae", "batch", *recordings, "-o", out, "--seed", "3"]
        batch = subprocess.Popen([*words, "--scheduler", cluster.scheduler_address])
        sorting = None
        while sorting is None and batch.poll() is None:
            time.sleep(0.02)
            sorting = next((worker.pid for worker in cluster.workers.values() if has_a_log(worker.pid)), None)
        if sorting is not None:
            os.kill(sorting, signal.SIGKILL)
            print("killed a worker", flush=True)
        print("batch ended with", batch.wait(), flush=True)
"""
