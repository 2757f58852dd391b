"""One long recording on a Dask cluster: groups and blocks are tasks, and the result is that of one machine to the bit."""

from __future__ import annotations

import contextlib
import functools
import json
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.command_line import spikecrsae

from spikecrsae.config import Config
from spikecrsae.data.recording import BLOCK
from spikecrsae.pipeline import groups
from spikecrsae.pipeline.distributed import BLOCKS_AT_ONCE
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.progress import Observer
from spikecrsae.readers import open_recording
from spikecrsae.results.model_file import save_checkpoint
from spikecrsae.simulate import preset_config, simulate

pytestmark = pytest.mark.slow

pytest.importorskip("distributed", reason="dask.distributed is not installed")
SETTINGS = ("--groups", "0,1", "--units", "1", "--epochs", "2", "--max-windows", "40", "--device", "cpu", "--quiet")
CONFIG = Config().with_values(
    {"initialise": {"units": 1}, "train": {"epochs": 2, "max_windows": 40}, "runtime": {"device": "cpu"}}
)

#: Commands on a cluster of two workers over loopback; during the first, one worker is killed while blocks are decoded.
SCRIPT = """
import json, os, signal, subprocess, sys, time

from distributed import LocalCluster


def run(words, cluster, killed):
    command = subprocess.Popen([sys.executable, "-m", "spikecrsae", *words, "--scheduler", cluster.scheduler_address])
    most = 0
    while command.poll() is None:
        time.sleep(0.01)
        work = [task for task in list(cluster.scheduler.tasks.values()) if task.key.startswith("_task")]
        most = max(most, len(work))
        # what a task hands out comes first
        busy = [task.processing_on for task in work if task.priority[0] < 0 and task.processing_on]
        if busy and not killed:
            os.kill(cluster.workers[busy[0].name].pid, signal.SIGKILL)
            killed = True
    return {"code": command.returncode, "tasks": most, "killed": killed}


if __name__ == "__main__":
    # where no address is given a server for metrics listens on all interfaces
    listen = dict.fromkeys(("dashboard_address", "worker_dashboard_address"), "127.0.0.1:0")
    only = {"host": "127.0.0.1", "scheduler_kwargs": {"dashboard": False}, **listen}
    with LocalCluster(n_workers=2, threads_per_worker=1, **only) as cluster:
        print(json.dumps([run(words, cluster, number > 0) for number, words in enumerate(json.loads(sys.argv[1]))]))
"""


@pytest.fixture(scope="module")
def recording(tmp_path_factory) -> Path:
    """Two wires, with blocks for two pieces of work."""
    fs = 10_000.0
    config = {"n_units": 1, "n_channels": 1, "sampling_frequency": fs, "n_bursting": 0, "snr_low": 12.0}
    duration_s = (BLOCKS_AT_ONCE + 1.2) * BLOCK / fs
    wires = [simulate(preset_config("tetrode", duration_s=duration_s, seed=seed, **config)).traces for seed in (3, 4)]
    file = tmp_path_factory.mktemp("cluster") / "wires.h5"
    with h5py.File(file, "w") as stored:
        stored["traces"] = np.concatenate(wires, axis=1)
        stored["traces"].attrs.update(sampling_frequency=fs, units="uV")
    return file


def test_a_cluster_gives_what_one_machine_gives(recording, tmp_path):
    """Two groups, the blocks of each in two pieces, and a worker that dies meanwhile; then their model on the same recording."""
    script, there, here = tmp_path / "cluster.py", tmp_path / "there", tmp_path / "here"
    again = tmp_path / "again"
    script.write_text(SCRIPT)
    # a relative path: the workers run in another folder
    words = [["sort", recording.name, "-o", str(there), *SETTINGS], ["apply", str(there), recording.name, "-o", str(again)]]
    command = [sys.executable, str(script), json.dumps(words)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=400, cwd=recording.parent)
    assert process.returncode == 0, process.stderr
    happened = json.loads(process.stdout.splitlines()[-1])
    assert [run["code"] for run in happened] == [0, 0], process.stderr
    assert happened[0]["killed"] and all(run["tasks"] >= 4 for run in happened), "the blocks were not handed out"
    result = spikecrsae("sort", recording, "-o", here, *SETTINGS, "--jobs", 1)
    assert result.exit_code == 0, result.stderr
    result = spikecrsae("apply", here, recording, "-o", tmp_path / "applied", "--jobs", 1)
    assert result.exit_code == 0, result.stderr
    assert (again / "spikes.csv").read_bytes() == (tmp_path / "applied" / "spikes.csv").read_bytes()
    for name in ("spikes.csv", "units.csv"):
        assert (there / name).read_bytes() == (here / name).read_bytes(), name
    expected, found = stored_values(here), stored_values(there)
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(value, found[name], err_msg=name)
    assert len(expected["spikes"]) > 100


@dataclass(frozen=True)
class Backwards:
    """Workers that take the last piece first; everything is pickled on the way, as to another process."""

    is_remote = True

    def each(self, work, common, items, on_stage=None):
        for number, item in reversed(list(enumerate(items))):
            work_, common_, item_ = pickle.loads(pickle.dumps((work, common, item)))
            yield number, pickle.loads(pickle.dumps(work_(common_, item_, Observer())))


def test_pieces_in_any_order_of_a_recording_without_groups(recording, tmp_path):
    reopen = functools.partial(open_recording, recording, groups="all")
    with contextlib.closing(reopen()) as opened:
        outcome = sort_group(opened, CONFIG)
        here = outcome.sorting
        there = groups.sort(opened, CONFIG, reopen=reopen, cluster=Backwards()).sorting
        save_checkpoint(outcome.checkpoint, tmp_path / "model.safetensors")
        applied = groups.apply(tmp_path / "model.safetensors", opened, CONFIG).sorting
        applied_there = groups.apply(
            tmp_path / "model.safetensors", opened, CONFIG, reopen=reopen, cluster=Backwards()
        ).sorting
    np.testing.assert_array_equal(applied_there.spikes, applied.spikes)
    np.testing.assert_array_equal(there.spikes, here.spikes)
    np.testing.assert_array_equal(there.templates, here.templates)
    for name, column in here.units.items():
        np.testing.assert_array_equal(there.units[name], column, err_msg=name)
    assert np.all(np.diff(here.spikes["sample"]) >= 0) and len(here.spikes) > 100


def stored_values(folder: Path) -> dict[str, np.ndarray]:
    """Every dataset of sorting.h5 but the record of the run, which tells when it was."""
    found = {}
    with h5py.File(folder / "sorting.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    del found["provenance"]
    return found
