"""Sortings made by hand, recordings of them, and result folders: write, export, and read back as bytes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from spikecrsae.data.sorting import SPIKE_DTYPE, SortingData
from spikecrsae.exports.export import default_place, export
from spikecrsae.readers import open_recording
from spikecrsae.report.html import Truth
from spikecrsae.results.folder import ResultFolder
from spikecrsae.run.curated import open_sorting
from spikecrsae.score import best_match_curves, compare

FS, N_SAMPLES, START_S = 20_000.0, 40_000, 12.5
LABELS = ("single", "multi", "noise")


#: What run.json records.
RUN = {
    "spikecrsae": "0.1",
    "began": "2026-01-02T03:04:05+00:00",
    "seconds": 4.25,
    "device": "cpu",
    "recording": {"path": "day/one.h5", "format": "HDF5", "checksum": "abc", "notes": ["a note"]},
    "warnings": ["channel 0 is flat"],
    "config": {"infer": {"prior": "spike-slab"}},
    "stage_seconds": {"infer": 1.0},
    "name": "Ümlaut",
}
#: Text that would be run or would break the page if it were written into HTML as it is.
HOSTILE = "</script><script>alert(1)</script><img src=x onerror='alert(2)'>\"&\x00\udcff"


def write_result(path: Path, sorting: SortingData, run: dict, files: dict[str, bytes] | None = None) -> Path:
    """Write a whole result folder of these parts, as a run does; returns its path."""
    result = ResultFolder(path)
    with result.lock(), result.replacing() as work:
        work.write(sorting, run, files)
    return result.path


@dataclass(frozen=True)
class MadeResult:
    """A recording on disk, the numbers stored in it, its sorting, and the result folder of it."""

    recording: Path
    stored: np.ndarray
    sorting: SortingData
    folder: Path


def make_templates(n_units: int, n_channels: int) -> tuple[np.ndarray, np.ndarray]:
    """(n_units, n_channels, 40) negative spikes, each unit on its own channel and with its own width and peak index."""
    time, peaks = np.arange(40), 15 + np.arange(n_units) % 3
    templates = np.zeros((n_units, n_channels, 40), np.float32)
    for unit, peak in enumerate(peaks):
        shape = -np.exp(-0.5 * ((time - peak) / (2 + unit)) ** 2) + 0.3 * np.exp(-0.5 * ((time - peak - 9) / 4) ** 2)
        shape /= np.abs(shape[peak])
        for channel in range(n_channels):
            templates[unit, channel] = (100 + 20 * unit) * 0.5 ** abs(channel - unit % n_channels) * shape
    return templates, peaks


def make_sorting(
    n_units=3, n_spikes=90, n_channels=4, masked=(), groups=None, ids=None, unit="uV", silent=(), **changes
) -> SortingData:
    """A sorting with a spike every 20 ms, of the units in turn except the silent ones, with amplitudes that differ.

    changes: fields of the Sorting that are other than here.
    """
    templates, peaks = make_templates(n_units, n_channels)
    templates[:, list(masked)] = 0
    unit_ids = np.asarray(range(n_units) if ids is None else ids, np.int32)
    firing = np.setdiff1d(np.arange(n_units), silent)
    spikes = np.zeros(n_spikes if len(firing) or not n_units else 0, SPIKE_DTYPE)
    n_spikes = len(spikes)
    spikes["probability"] = 0.9 + 0.1 * np.arange(n_spikes) / max(n_spikes, 1)
    spikes["sample"] = 300 + 400 * np.arange(n_spikes)
    rows = firing[np.arange(n_spikes) % len(firing)] if len(firing) else np.zeros(n_spikes, np.int64)
    heights = np.abs(templates).max(axis=(1, 2))
    if len(firing):
        spikes["unit"] = unit_ids[rows]
        spikes["amplitude"] = heights[rows] * (1 + 0.1 * np.sin(np.arange(n_spikes)))
    columns = {
        "label": np.array([LABELS[u % 3] for u in range(n_units)], dtype=str),
        "peak_channel": np.abs(templates).max(axis=2).argmax(axis=1) if n_units else np.zeros(0, np.int64),
        "n_spikes": np.bincount(rows[:n_spikes], minlength=n_units)[:n_units],
        "firing_rate": np.ones(n_units),
        "isi_violations": np.zeros(n_units),
        "amplitude": heights.astype(np.float64),
        "snr": np.full(n_units, np.nan),
        "drift": np.linspace(0.1, 0.2, n_units),
        "curation_id": 10 + np.arange(n_units),
    }
    channels = {
        "ids": np.array([f"c{i}" for i in range(n_channels)]),
        "groups": np.zeros(n_channels, np.int64) if groups is None else np.asarray(groups),
        "noise_level": np.where(np.isin(np.arange(n_channels), masked), np.nan, 5.0),
        "masked": np.isin(np.arange(n_channels), masked),
        "positions": np.stack([np.zeros(n_channels), 25.0 * np.arange(n_channels)], axis=1),
    }
    known = {
        "spikes": spikes,
        "unit_ids": unit_ids,
        "sampling_frequency": FS,
        "n_samples": max(N_SAMPLES, 400 * (n_spikes + 10)),
        "n_channels": n_channels,
        "amplitude_unit": unit,
        "units": columns,
        "templates": templates,
        "templates_whitened": templates[:, :, ::2] / 5,
        "templates_std": np.full_like(templates, 5),
        "peak_index": peaks,
        "channels": channels,
        "model": make_model(n_units),
        "start_time_s": START_S,
        "excluded": np.array([[38_000, 39_000]]),
    }
    return SortingData(**known | changes)


def make_model(n_units: int, n_rounds: int = 3, spread: float = 0.1, sigma: float = 1.0) -> dict[str, np.ndarray]:
    """What a sorting says of its model, with a spike-and-slab prior; the last of several units came in the second round."""
    model = {"sigma": np.array(sigma)}
    for name, start, end in (("spread", 0.1, spread), ("penalty", 8.0, 6.0)):
        values = end * (1 + 0.1 * np.arange(n_units))
        course = np.geomspace(np.full(n_units, start), values, n_rounds) if n_units else np.zeros((n_rounds, 0))
        course[: int(n_units > 1), -1:] = np.nan
        model |= {name: values, f"{name}_history": course}
    return model | {"whitened_norm": np.full(n_units, 11.0)}


def make_full_sorting(n_units=3, n_channels=4, spikes_per_unit=60, **changes) -> SortingData:
    """A sorting with all that a run leaves for the report: columns, histories, decisions and a stretch of the signal.

    Spikes come at random times. changes: fields of the Sorting, or arguments of make_sorting, that are other than here.
    """
    made, rng = make_sorting(n_units, spikes_per_unit * n_units, n_channels), np.random.default_rng(0)
    known = {
        "units": made.units | {
            "snr": np.where(made.unit_ids % 2, np.nan, 8.0),
            "whitened_norm": np.full(n_units, 11.0),
            "threshold": 0.5 * made.units["amplitude"],
            "false_alarm": np.full(n_units, 0.012),
            "false_alarm_low": np.full(n_units, 0.004),
            "false_alarm_high": np.full(n_units, 0.031),
            "hybrid_recall": np.full(n_units, 0.97),
        },
        "model": make_model(n_units, n_rounds=5, spread=0.04),
        "curation": (
            {"decision": "merge", "units": [10, 15], "statistic": 0.3, "level": 0.01, "why": "one mode", "similarity": 0.99, "round": 1},
            {"decision": "remove", "units": [13], "statistic": None, "level": 6.0, "n": 4, "round": 1},
        ),
        "example": rng.normal(0, 10, (2000, n_channels)).astype(np.float32),
        "example_start": 30_000,
    }  # fmt: skip
    made = make_sorting(
        n_units, spikes_per_unit * n_units, n_channels, masked=range(min(1, n_channels - 1)), **known | changes
    )
    made.spikes["sample"] = np.sort(rng.integers(100, made.n_samples - 100, len(made.spikes)))
    return made


def make_truth(sorting: SortingData, source="truth.h5") -> Truth:
    """Half of each unit's spikes, the rest elsewhere: a curve with misses and false alarms."""
    known = {f"n{u}": np.sort(np.r_[sorting.spike_samples(u)[::2], 500 + 40 * u]) for u in sorting.unit_ids}
    comparison = compare(known, sorting.trains(), FS)
    return Truth(source, comparison, best_match_curves(comparison, known, sorting))


def make_traces(sorting: SortingData) -> np.ndarray:
    """The stored numbers (n_samples, n_channels) int16: the spikes in a little noise, in steps of 0.5 uV."""
    noise = np.random.default_rng(1).normal(0, 5, (sorting.n_samples, sorting.n_channels))
    signal = sorting.reconstruction(0, sorting.n_samples) if sorting.n_units else 0
    return np.round((noise + signal) / 0.5).astype(np.int16)


def write_sorted(folder: Path, sorting: SortingData | None = None, **choices) -> MadeResult:
    """The recording as HDF5, and its result folder as `sort` would leave it, without pictures."""
    sorting = make_sorting(**choices) if sorting is None else sorting
    stored, path = make_traces(sorting), folder / "recording.h5"
    with h5py.File(path, "w") as file:
        file["traces"] = stored
        file["traces"].attrs.update({"sampling_frequency": FS, "units": "uV", "gain": 0.5, "start_time_s": START_S})
    run = {"spikecrsae": "test", "recording": {"path": str(path), "format": "HDF5", "checksum": "0f"}}
    result = write_result(folder / "recording.h5.sorted", sorting, run)
    return MadeResult(path, stored, sorting, result)


def exported(made, kind: str, with_recording: bool = True, place: Path | None = None) -> Path:
    """A result in a further format, with its recording."""
    sorting, run = open_sorting(made.folder)
    recording = open_recording(made.recording) if with_recording else None
    path = export(sorting, run, kind, place or default_place(made.folder, kind), recording)
    if recording is not None:
        recording.close()
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder, by its path from there."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def modifies(event: str, arguments: tuple) -> bool:
    """Whether an event of Python's audit hooks changes a file or folder."""
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        return (isinstance(mode, str) and mode[:1] in "wxa+") or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")
