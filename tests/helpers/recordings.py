"""The sample recording, and short stretches of it."""

from __future__ import annotations

from pathlib import Path

import h5py

SAMPLE = Path(__file__).parents[2] / "sample_data" / "tetrode.h5"


def cut_recording(path: Path, start_s: float, stop_s: float) -> Path:
    """Write a stretch of the sample recording as a recording of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(SAMPLE) as source, h5py.File(path, "w") as file:
        stored = source["traces"]
        fs = stored.attrs.get("sampling_frequency", source.attrs.get("sampling_frequency"))
        file["traces"] = stored[int(start_s * fs) : int(stop_s * fs)]
        file["traces"].attrs.update(dict(stored.attrs))
        file.attrs.update(dict(source.attrs))
    return path
