"""A sorter of SpikeInterface with its default parameters; runs.py starts this in an environment of its own.

    python benchmarks/other_sorters.py SORTER JOBS

reads folders from standard input, one per line. A folder holds traces.dat (float32, interleaved) and about.json
(sampling_frequency, channel_positions); spikes.npz (one array of samples per unit) and outcome.json (status, error, seconds of
run_sorter, processor seconds of it and of the process so far, version, and parameters where they are not the default ones) appear
in it, the latter last. One process serves many recordings, so that what numba compiles is compiled once. Imports nothing of
spikecrsae.
"""

from __future__ import annotations

import json
import re
import sys
import time
import traceback
from pathlib import Path

import numpy as np
import spikeinterface
from probeinterface import Probe
from processor_time import processor_s
from spikeinterface.core import read_binary, set_global_job_kwargs
from spikeinterface.sorters import run_sorter, sorter_dict

#: Kilosort estimates a drift of hundreds of um on a tetrode and shifts all signal away; its authors advise to switch that off.
SECOND_TRY = {"kilosort4": {"do_correction": False}}


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


def attempt(sorter: str, recording, folder: Path, parameters: dict) -> dict:
    """Run the sorter once; whatever it raises is its outcome."""
    began, before = time.perf_counter(), processor_s()
    try:
        sorting = run_sorter(
            sorter, recording, folder=folder / "sorter", remove_existing_folder=True, verbose=False, **parameters
        )
        trains = {str(unit): np.asarray(sorting.get_unit_spike_train(unit), dtype=np.int64) for unit in sorting.unit_ids}
        np.savez(folder / "spikes.npz", **trains)
    except Exception as error:
        traceback.print_exc()
        # SpikeInterface's own error holds the sorter's whole traceback
        causes = re.findall(r"^\w+(?:Error|Exception): .*$", str(error), re.MULTILINE) or [
            f"{type(error).__name__}: {error}"
        ]
        return {"status": "crash", "error": causes[-1], "seconds": time.perf_counter() - began}
    seconds = {"seconds": time.perf_counter() - began, "processor_s": processor_s() - before, "process_s": processor_s()}
    return {"status": "ok", "error": ""} | seconds


def serve(sorter: str, folder: Path) -> None:
    """One recording: default parameters and, where the sorter fails with them, those of SECOND_TRY."""
    recording = read(folder)
    outcome = attempt(sorter, recording, folder, {})
    if outcome["status"] == "crash" and sorter in SECOND_TRY:
        again = attempt(sorter, recording, folder, SECOND_TRY[sorter])
        if again["status"] == "ok":
            outcome = again | {"parameters": SECOND_TRY[sorter], "error": outcome["error"]}
    outcome["version"] = f"{sorter_dict[sorter].get_sorter_version()} (SpikeInterface {spikeinterface.__version__})"
    partial = folder / "outcome.partial"
    partial.write_text(json.dumps(outcome))
    partial.rename(folder / "outcome.json")


if __name__ == "__main__":
    set_global_job_kwargs(n_jobs=int(sys.argv[2]), progress_bar=False)
    for line in sys.stdin:
        serve(sys.argv[1], Path(line.strip()))
