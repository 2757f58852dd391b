"""Spike trains of which it is known what a unit's columns should say."""

from __future__ import annotations

import numpy as np

from spikecrsae.config import Config
from spikecrsae.data.timeline import Timeline
from spikecrsae.decode.quality import (
    Evidence,
)

FS = 25000.0  # 1.5 ms are 37.5 samples: no interval lies on the limit, where SpikeInterface's seconds round either way
DEAD_TIME = 18


def quick() -> Config:
    return Config().with_values({"train": {"epochs": 3}, "runtime": {"device": "cpu"}})


def poisson(rate: float, seconds: float, dead_time: int, rng: np.random.Generator) -> np.ndarray:
    """Samples of a Poisson train whose intervals are longer than dead_time samples."""
    n = int(rate * seconds * 1.5 + 50)
    samples = np.cumsum(dead_time + 1 + np.floor(rng.exponential(FS / rate, n)).astype(np.int64))
    return samples[samples < seconds * FS]


def pooled(*trains: np.ndarray, dead_time: int = DEAD_TIME) -> np.ndarray:
    """The spikes of all trains as one unit; of two closer than the decoder's dead time one is found."""
    kept = []
    for sample in np.sort(np.concatenate(trains)):
        if not kept or sample - kept[-1] > dead_time:
            kept.append(sample)
    return np.array(kept, np.int64)


def evidence(trains: list[np.ndarray], n_samples: int, **values) -> Evidence:
    """Evidence of strong units with these spike trains; each spike's waveform is one number, its amplitude."""
    rng = np.random.default_rng(3)
    amplitudes = [100 + 10 * rng.standard_normal(len(t)) for t in trains]
    n_units = len(trains)
    spike = np.exp(-0.5 * (np.arange(-40, 40) / 3.0) ** 2)
    given = {
        "samples": trains,
        "amplitudes": amplitudes,
        "waveforms": [a[:, None, None] for a in amplitudes],
        "waveform_samples": trains,
        "templates": np.tile(100 * spike, (n_units, 1, 1)),
        "templates_std": np.full((n_units, 1, 80), 10.0),
        "noise_level": np.array([8.0]),
        "whitened_norm": np.full(n_units, 12.0),
        "timeline": Timeline(np.zeros(1, np.int64), np.zeros(1), FS),
        "n_samples": n_samples,
        "dead_time": DEAD_TIME,
    }
    return Evidence(**given | values)
