"""One long recording on a Dask cluster: groups and blocks are tasks, and the result is that of one machine to the bit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from spikecrsae.cli.main import cli
from spikecrsae.recording import BLOCK
from spikecrsae.simulate import preset_config, simulate
from spikecrsae.spread import BLOCKS_AT_ONCE

pytest.importorskip("distributed", reason="dask.distributed is not installed")
SETTINGS = ("--units", "1", "--epochs", "2", "--max-training-s", "5", "--device", "cpu", "--quiet")
KINDS = {"together": ("--groups", "all"), "groups": ("--groups", "0,1")}

#: The sorts of its command line on a cluster of two workers over loopback; the second one loses a worker while blocks are decoded.
SCRIPT = """
import json, os, signal, subprocess, sys, time

from distributed import LocalCluster


def run(words, cluster, kill):
    sort = subprocess.Popen([sys.executable, "-m", "spikecrsae", *words, "--scheduler", cluster.scheduler_address])
    most, killed = 0, False
    while sort.poll() is None:
        time.sleep(0.01)
        tasks = list(cluster.scheduler.tasks.values())
        work = [task for task in tasks if task.key.startswith("_task")]
        most = max(most, len(work))
        # one that holds results of blocks, or decodes some
        busy = [task.processing_on for task in work if task.priority[0] < 0 and task.processing_on]
        if kill and not killed and busy:
            os.kill(cluster.workers[busy[0].name].pid, signal.SIGKILL)
            killed = True
    return {"code": sort.returncode, "tasks": most, "killed": killed}


if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster:
        print(json.dumps([run(words, cluster, kill) for kill, words in enumerate(json.loads(sys.argv[1]))]))
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


@pytest.fixture(scope="module")
def on_a_cluster(recording, tmp_path_factory) -> tuple[Path, list[dict]]:
    """Folder of the results, and what happened."""
    out = tmp_path_factory.mktemp("out")
    script = out / "cluster.py"
    script.write_text(SCRIPT)
    # a relative path: the workers run in another folder
    words = [["sort", recording.name, "-o", str(out / kind), *SETTINGS, *words] for kind, words in KINDS.items()]
    command = [sys.executable, str(script), json.dumps(words)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=recording.parent)
    assert process.returncode == 0, process.stderr
    return out, json.loads(process.stdout.splitlines()[-1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_cluster_gives_what_one_machine_gives(recording, on_a_cluster, tmp_path, kind):
    out, happened = on_a_cluster
    run = happened[list(KINDS).index(kind)]
    # every group, its blocks in two, and for each of these what they share
    assert run["code"] == 0
    assert run["killed"] == (kind == "groups")
    assert run["tasks"] >= (4 if kind == "groups" else 3), "the blocks were not handed out"
    words = ["sort", str(recording), "-o", str(tmp_path / "here"), *SETTINGS, *KINDS[kind], "--jobs", "1"]
    result = CliRunner().invoke(cli, words, prog_name="spikecrsae")
    assert result.exit_code == 0, result.stderr
    for name in ("spikes.csv", "units.csv"):
        assert (out / kind / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name
    here, there = stored_values(tmp_path / "here"), stored_values(out / kind)
    assert here.keys() == there.keys()
    for name, value in here.items():
        np.testing.assert_array_equal(value, there[name], err_msg=name)
    assert len(here["spikes"]) > 100


def stored_values(folder: Path) -> dict[str, np.ndarray]:
    """Every dataset of sorting.h5 but the record of the run, which tells when it was."""
    found = {}
    with h5py.File(folder / "sorting.h5") as file:
        file.visititems(lambda name, item: found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    del found["provenance"]
    return found
