"""A sorting, its run and a truth for the tests of the report."""

from __future__ import annotations

import numpy as np

from spikecrsae.data.sorting import SPIKE_DTYPE, Sorting
from spikecrsae.report.html import Truth
from spikecrsae.score import best_match_curves, compare

FS = 20000.0
HOSTILE = "</script><script>alert(1)</script><img src=x onerror='alert(2)'>\"&\x00\udcff"


def make_sorting(n_units=3, n_channels=4, spikes_per_unit=60, silent=(), seed=0, **changes) -> Sorting:
    """A sorting with everything a real one has."""
    rng = np.random.default_rng(seed)
    unit_ids = np.arange(n_units, dtype=np.int32)
    firing = np.setdiff1d(unit_ids, silent)
    spikes = np.zeros(spikes_per_unit * len(firing), SPIKE_DTYPE)
    spikes["sample"] = np.sort(rng.integers(100, 199_000, len(spikes)))
    spikes["unit"] = rng.permutation(np.repeat(firing, spikes_per_unit))
    templates = rng.normal(0, 5, (n_units, n_channels, 60)).astype(np.float32)
    templates[:, 0, 20] = -80 + np.arange(n_units)
    size = np.abs(templates).max(axis=(1, 2)) if n_units else np.zeros(0)
    spikes["amplitude"] = size[spikes["unit"]] * rng.normal(1, 0.05, len(spikes))
    known = {
        "spikes": spikes,
        "unit_ids": unit_ids,
        "sampling_frequency": FS,
        "n_samples": 200_000,
        "n_channels": n_channels,
        "amplitude_unit": "uV",
        "units": {
            "label": np.array([("single", "multi", "noise")[u % 3] for u in unit_ids], dtype=object),
            "peak_channel": np.zeros(n_units, np.int64),
            "n_spikes": np.array([np.sum(spikes["unit"] == u) for u in unit_ids], np.int64),
            "amplitude": size,
            "snr": np.where(unit_ids % 2, np.nan, 8.0),
            "whitened_norm": np.full(n_units, 11.0),
            "threshold": 0.5 * size,
            "estimated_false_alarm": np.full(n_units, 0.012),
            "hybrid_recall": np.full(n_units, 0.97),
            "curation_id": unit_ids + 4,
        },
        "templates": templates,
        "templates_std": np.full_like(templates, 4.0),
        "peak_index": np.full(n_units, 20),
        "channels": {
            "ids": np.array([str(c) for c in range(n_channels)], dtype=object),
            "noise_level": np.r_[np.nan, np.full(n_channels - 1, 9.0)],
            "masked": np.arange(n_channels) == 0,
            "positions": np.zeros((n_channels, 2)),
        },
        "model": {
            "lambda": np.array(5.1),
            "spread": np.full(n_units, 0.04),
            "objective_history": np.array([-10.0, -12.5, -12.75]),
            "lambda_history": np.array([5.0, 5.05, 5.1]),
            "template_change_history": np.array([0.2, 0.05, 0.01]),
        },
        "curation": (
            {"decision": "merge", "units": [4, 9], "statistic": 0.3, "level": 0.01, "why": "one mode", "similarity": 0.99, "round": 1},
            {"decision": "death", "units": [7], "statistic": None, "level": 6.0, "n": 4, "round": 1},
        ),
        "start_time_s": 3.0,
        "excluded": np.array([[1000, 3000]]),
        "example": rng.normal(0, 10, (2000, n_channels)).astype(np.float32),
        "example_start": 50_000,
    }  # fmt: skip
    return Sorting(**known | changes)


RUN = {
    "spikecrsae": "0.1",
    "began": "2026-01-02T03:04:05+00:00",
    "seconds": 4.25,
    "device": "cpu",
    "recording": {"path": "day/one.h5", "format": "HDF5", "checksum": "abc", "notes": ["a note"]},
    "warnings": ["channel 0 is flat"],
    "config": {"infer": {"prior": "spike-slab"}},
    "stage_seconds": {"infer": 1.0},
}


def make_truth(sorting: Sorting, source="truth.h5") -> Truth:
    """Half of each unit's spikes, the rest elsewhere: a curve with misses and false alarms."""
    known = {f"n{u}": np.sort(np.r_[sorting.spike_samples(u)[::2], 500 + 40 * u]) for u in sorting.unit_ids}
    comparison = compare(known, sorting.trains(), FS)
    return Truth(source, comparison, best_match_curves(comparison, known, sorting))
