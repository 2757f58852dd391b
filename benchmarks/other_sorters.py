"""A sorter of SpikeInterface with its default parameters; runs.py starts this in an environment of its own.

    python benchmarks/other_sorters.py SORTER

reads folders from standard input, one per line. A folder holds traces.dat (float32, interleaved) and about.json
(sampling_frequency, channel_positions); spikes.npz (one array of samples per unit) and outcome.json (status, error, seconds of
run_sorter, version) appear in it, the latter last. One process serves many recordings, so that what numba compiles is
compiled once. Imports nothing of spikecrsae.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import spikeinterface
from probeinterface import Probe
from spikeinterface.core import read_binary, set_global_job_kwargs
from spikeinterface.sorters import run_sorter, sorter_dict


def read(folder: Path):
    """The recording of a folder, with a probe."""
    about = json.loads((folder / "about.json").read_text())
    positions = np.array(about["channel_positions"])
    recording = read_binary(
        folder / "traces.dat",
        sampling_frequency=about["sampling_frequency"],
        dtype="float32",
        num_channels=len(positions),
        gain_to_uV=1.0,
        offset_to_uV=0.0,
    )
    probe = Probe(ndim=2)
    probe.set_contacts(positions, shapes="circle", shape_params={"radius": 5})
    probe.set_device_channel_indices(np.arange(len(positions)))
    recording.set_probe(probe)
    return recording


def serve(sorter: str, folder: Path) -> None:
    """One recording. Whatever the sorter raises is its outcome."""
    recording = read(folder)
    version = f"{sorter_dict[sorter].get_sorter_version()} (SpikeInterface {spikeinterface.__version__})"
    outcome = {"status": "ok", "error": "", "version": version}
    began = time.perf_counter()
    try:
        sorting = run_sorter(sorter, recording, folder=folder / "sorter", remove_existing_folder=True, verbose=False)
        trains = {str(unit): np.asarray(sorting.get_unit_spike_train(unit), dtype=np.int64) for unit in sorting.unit_ids}
        np.savez(folder / "spikes.npz", **trains)
    except Exception as error:
        traceback.print_exc()
        said = str(error).strip().splitlines() or [""]
        outcome |= {"status": "crash", "error": f"{type(error).__name__}: {said[-1]}"}
    outcome["seconds"] = time.perf_counter() - began
    partial = folder / "outcome.partial"
    partial.write_text(json.dumps(outcome))
    partial.rename(folder / "outcome.json")


if __name__ == "__main__":
    set_global_job_kwargs(n_jobs=1, progress_bar=False)
    for line in sys.stdin:
        serve(sys.argv[1], Path(line.strip()))
