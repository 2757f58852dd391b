"""Result folders for tests: a sorting to write, the bytes that a folder holds, the events that change one."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from spikecrsae.data.sorting import SPIKE_DTYPE, Sorting

RUN = {
    "version": "0.1.0",
    "seed": 3,
    "input": Path("a.h5"),
    "level": np.float32(0.5),
    "rates": np.arange(2),
    "name": "Ümlaut",
}


def make_sorting(n_units=2, n_spikes=40, seed=0):
    rng = np.random.default_rng(seed)
    n_spikes = n_spikes if n_units else 0
    unit_ids = (np.arange(n_units) * 3 + 1).astype(np.int32)
    spikes = np.zeros(n_spikes, SPIKE_DTYPE)
    spikes["sample"] = np.sort(rng.integers(0, 30000, n_spikes))
    spikes["unit"] = rng.choice(unit_ids, n_spikes) if n_units else 0
    spikes["amplitude"] = rng.normal(-80, 9, n_spikes)
    spikes["shift"] = rng.uniform(-0.5, 0.5, n_spikes)
    counts = np.array([np.sum(spikes["unit"] == u) for u in unit_ids], dtype=np.int64)
    return Sorting(
        spikes=spikes,
        unit_ids=unit_ids,
        sampling_frequency=30000.0,
        n_samples=30000,
        n_channels=4,
        amplitude_unit="uV",
        units={
            "n_spikes": counts,
            "amplitude": np.linspace(50, 80, n_units),
            "snr": np.full(n_units, np.nan),
            "größe µV": rng.normal(size=n_units).astype(np.float32),
            "comment": np.array(['good, "clear"', "naïve 神経"][:n_units], dtype=str),
            "single": np.arange(n_units) % 2 == 0,
        },
        templates=rng.normal(size=(n_units, 4, 30)).astype(np.float32),
        templates_whitened=rng.normal(size=(n_units, 4, 30)).astype(np.float32),
        templates_std=rng.random((n_units, 4, 30)).astype(np.float32),
        peak_index=rng.integers(0, 30, n_units),
        channels={
            "ids": np.array(["c0", "c1", "c2", "µ3"]),
            "positions": rng.normal(size=(4, 2)),
            "masked": np.zeros(4, bool),
        },
        model={"lambda_history": rng.random((5, n_units)), "sigma": np.array(1.25), "objective_history": rng.random(5)},
        curation=(
            {"decision": "merge", "units": [1, 4], "statistic": 0.3, "level": 0.01, "reason": "same neuron"},
            {"decision": "keep", "units": [1], "statistic": None, "level": None},
        ),
        start_time_s=12.5,
    )


def modifies(event: str, arguments: tuple) -> bool:
    if event == "open":
        mode, flags = arguments[1], arguments[2]
        return (isinstance(mode, str) and mode[:1] in "wxa+") or bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir")


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
