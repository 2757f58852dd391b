"""Sort as other_sorters.py does, with spikecrsae: folders from standard input, one per line; scale.py starts this."""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

import numpy as np
from processor_time import processor_s

from spikecrsae.config import Config
from spikecrsae.data.recording import recording_from_array
from spikecrsae.pipeline.groups import sort


def serve(folder: Path) -> None:
    """One recording."""
    about, outcome = json.loads((folder / "about.json").read_text()), {"status": "ok", "error": ""}
    positions, began = np.array(about["channel_positions"]), processor_s()
    traces = np.memmap(folder / "traces.dat", np.float32, "r").reshape(-1, len(positions))
    try:
        recording = recording_from_array(traces, about["sampling_frequency"], channel_positions=positions)
        np.savez(folder / "spikes.npz", **sort(recording, Config()).sorting.trains())
    except Exception as error:
        traceback.print_exc()
        outcome = {"status": "crash", "error": str(error)}
    outcome |= {"processor_s": processor_s() - began, "process_s": processor_s()}
    (folder / "outcome.partial").write_text(json.dumps(outcome))
    (folder / "outcome.partial").rename(folder / "outcome.json")


if __name__ == "__main__":
    for line in sys.stdin:
        serve(Path(line.strip()))
