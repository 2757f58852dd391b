"""Recordings whose sorting is known by construction, for the tests of exports: spikes of given templates in noise."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from spikecrsae.data.sorting import SPIKE_DTYPE, Sorting
from spikecrsae.exports.export import default_place, export
from spikecrsae.readers import open_recording
from spikecrsae.results.folder import prepare_folder, write_result
from spikecrsae.run.curated import open_sorting

FS, N_SAMPLES, START_S = 20_000.0, 40_000, 12.5
LABELS = ("single", "multi", "noise")


@dataclass(frozen=True)
class Sorted:
    """A recording on disk and its sorting in a result folder."""

    recording: Path
    stored: np.ndarray
    sorting: Sorting
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


def make_sorting(n_units=3, n_spikes=90, n_channels=4, masked=(), groups=None, ids=None, unit="uV") -> Sorting:
    """n_spikes spikes in turn of n_units units, every 20 ms, with amplitudes that differ."""
    templates, peaks = make_templates(n_units, n_channels)
    templates[:, list(masked)] = 0
    unit_ids = np.asarray(range(n_units) if ids is None else ids, np.int32)
    spikes = np.zeros(n_spikes, SPIKE_DTYPE)
    spikes["sample"] = 300 + 400 * np.arange(n_spikes)
    rows = np.arange(n_spikes) % max(n_units, 1)
    heights = np.abs(templates).max(axis=(1, 2))
    if n_units:
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
    return Sorting(
        spikes=spikes,
        unit_ids=unit_ids,
        sampling_frequency=FS,
        n_samples=N_SAMPLES,
        n_channels=n_channels,
        amplitude_unit=unit,
        units=columns,
        templates=templates,
        templates_whitened=templates[:, :, ::2] / 5,
        templates_std=np.full_like(templates, 5),
        peak_index=peaks,
        channels=channels,
        model={"lambda": np.array(0.5), "spread": np.full(n_units, 0.1)},
        start_time_s=START_S,
        excluded=np.array([[38_000, 39_000]]),
    )


def make_traces(sorting: Sorting) -> np.ndarray:
    """The stored numbers (n_samples, n_channels) int16: the spikes in a little noise, in steps of 0.5 uV."""
    noise = np.random.default_rng(1).normal(0, 5, (sorting.n_samples, sorting.n_channels))
    signal = sorting.reconstruction(0, sorting.n_samples) if sorting.n_units else 0
    return np.round((noise + signal) / 0.5).astype(np.int16)


def write_sorted(folder: Path, sorting: Sorting | None = None, **choices) -> Sorted:
    """The recording as HDF5, and its result folder as `sort` would leave it, without pictures."""
    sorting = make_sorting(**choices) if sorting is None else sorting
    stored, path = make_traces(sorting), folder / "recording.h5"
    with h5py.File(path, "w") as file:
        file["traces"] = stored
        file["traces"].attrs.update({"sampling_frequency": FS, "units": "uV", "gain": 0.5, "start_time_s": START_S})
    run = {"spikecrsae": "test", "recording": {"path": str(path), "format": "HDF5", "checksum": "0f"}}
    result = write_result(prepare_folder(folder / "recording.h5.sorted"), sorting, run)
    return Sorted(path, stored, sorting, result)


def exported(made, kind: str, with_recording: bool = True, place: Path | None = None) -> Path:
    """A result in a further format, with its recording."""
    sorting, run = open_sorting(made.folder)
    recording = open_recording(made.recording) if with_recording else None
    path = export(sorting, run, kind, place or default_place(made.folder, kind), recording)
    if recording is not None:
        recording.close()
    return path
