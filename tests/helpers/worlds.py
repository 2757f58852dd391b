"""Models and signals with many overlapping spikes, on either backend."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import SpikeSlab
from spikecrsae.csc.torch_backend import TorchBackend
from spikecrsae.data.spikes import Spikes

TORCH = TorchBackend("cpu")


def random_templates(rng: np.random.Generator, n_units: int, n_channels: int, n_times: int) -> np.ndarray:
    """Templates (n_units, n_channels, n_times) of norms 8 to 20; the last one is much like the first."""
    t = np.arange(n_times) - n_times / 3
    templates = np.empty((n_units, n_channels, n_times))
    for unit in range(n_units):
        trough = np.exp(-0.5 * (t / rng.uniform(2.5, 4)) ** 2)
        shape = trough - rng.uniform(0.2, 0.6) * np.exp(-0.5 * ((t - rng.uniform(5, 9)) / rng.uniform(4, 7)) ** 2)
        templates[unit] = np.outer(rng.standard_normal(n_channels), shape)
    templates[-1] = templates[0] + 0.3 * templates[-1]
    return templates * (rng.uniform(8, 20, n_units) / np.linalg.norm(templates, axis=(1, 2)))[:, None, None]


def world(seed: int, rate: float = 0.02, n_samples: int = 6000, dtype=np.float32) -> tuple[CRsAE, np.ndarray]:
    """A model on the numba backend, and noise with spikes of its templates, many of which overlap."""
    rng = np.random.default_rng(seed)
    n_units, n_channels, n_times = rng.integers(2, 6), rng.integers(1, 5), rng.integers(20, 41)
    templates = random_templates(rng, n_units, n_channels, n_times)
    prior = SpikeSlab(rng.uniform(0.05, 0.2, n_units), rng.uniform(5, 9, n_units))
    model = CRsAE(templates, prior, 1.0, int(rng.choice([0, 10, 70])), int(rng.choice([1, 8])))
    signal = rng.standard_normal((n_channels, n_samples))
    for start in rng.integers(0, n_samples - n_times, int(rate * n_samples)):
        signal[:, start : start + n_times] += rng.normal(1, 0.1) * templates[rng.integers(n_units)]
    return model, signal.astype(dtype)


def on_torch(model: CRsAE, backend: TorchBackend = TORCH) -> CRsAE:
    return replace(model, backend=backend)


def n_agreeing(found: Spikes, expected: Spikes) -> int:
    """How many spikes found are expected: the same unit, and the sample within one."""
    n = 0
    for unit in np.intersect1d(found.unit, expected.unit):
        here, there = (spikes.sample[spikes.unit == unit] for spikes in (found, expected))
        n += int((np.abs(here[:, None] - there) <= 1).any(axis=1).sum())
    return n


def assert_same_spikes(found: Spikes, expected: Spikes) -> None:
    """99.9 % of them."""
    # one spike may be a tie that rounding decides; test_over_many_worlds_... counts how often
    n = max(len(found), len(expected))
    assert n - n_agreeing(found, expected) <= max(1, 0.001 * n)
