"""Curation: which templates are neurons, and what the prior learns from their spikes."""

from __future__ import annotations

import numpy as np
import pytest

from spikecrsae.csc.least_squares import subtract
from spikecrsae.csc.pursuit import Spikes, SpikeSlab
from spikecrsae.evidence import expectation_maximisation
from spikecrsae.initialise import are_two, divide
from spikecrsae.satellites import find_satellites


def trains(*samples) -> Spikes:
    unit = np.concatenate([np.full(len(s), u) for u, s in enumerate(samples)])
    sample = np.concatenate(samples)
    order = np.argsort(sample, kind="stable")
    ones = np.ones(len(sample))
    return Spikes(unit[order], sample[order], ones, 0 * ones, ones, np.full(len(ones), -1), 0 * ones)


def model(norms, n_times: int = 40) -> SpikeSlab:
    templates = np.random.default_rng(0).standard_normal((len(norms), 2, n_times))
    templates *= (np.array(norms) / np.sqrt((templates**2).sum(axis=(1, 2))))[:, None, None]
    return SpikeSlab(templates, np.full(len(norms), 0.1), np.full(len(norms), 8.0), 20)


def test_a_unit_that_rides_on_a_stronger_one_is_a_satellite_and_an_independent_one_is_not():
    rng = np.random.default_rng(1)
    strong, other = np.sort(rng.choice(1_000_000, (2, 800), replace=False))
    # beside the strong spike, or in its tail beyond the template
    for lag in (15, 90):
        found, locked = find_satellites(model([30, 6, 8]), trains(strong, strong[::2] + lag, other), 1_000_000)
        assert found.tolist() == [False, True, False]
        assert locked[1] > 0.95
        assert abs(locked[2]) < 0.1


def test_one_cloud_is_one_and_two_clouds_are_two():
    rng = np.random.default_rng(2)
    cloud = rng.standard_normal((600, 60))
    by_chance = cloud[:, 0] > 0
    assert not are_two(cloud[by_chance], cloud[~by_chance], 0)[0]
    moved = cloud[:300] + 0.9 * np.eye(60)[:40].sum(axis=0)
    assert are_two(cloud[300:], moved, 0)[0]


def test_divide_finds_the_clusters_of_whitened_windows():
    rng = np.random.default_rng(3)
    centres = 8 * rng.standard_normal((3, 30, 2)) / np.sqrt(60) * 2
    truth = np.repeat(np.arange(3), (300, 120, 40))
    labels = divide(centres[truth] + rng.standard_normal((460, 30, 2)), 6, 0)
    assert len(np.unique(labels)) == 3
    for unit in range(3):
        assert len(np.unique(labels[truth == unit])) == 1


def test_em_learns_the_rate_and_spread_of_a_unit():
    rng = np.random.default_rng(4)
    start = model([25.0])
    n_samples, n_spikes = 400_000, 1000
    sample = np.sort(rng.choice(n_samples // 100 - 1, n_spikes, replace=False)) * 100
    amplitude = rng.normal(1.0, 0.12, n_spikes)
    signal = rng.standard_normal((2, n_samples)).astype(np.float32)
    subtract(signal, start.templates.astype(np.float32), np.zeros(n_spikes, np.int64), sample, -amplitude)
    learned, spikes = expectation_maximisation(signal, start, n_rounds=4)
    assert abs(len(spikes) - n_spikes) <= 2
    assert learned.spread[0] == pytest.approx(0.12, rel=0.15)
    assert learned.penalty[0] == pytest.approx(np.log(n_samples / n_spikes), abs=0.05)
    error = learned.templates[0] - start.templates[0]
    assert np.sqrt((error**2).sum()) < 3 * np.sqrt(error.size / n_spikes) + 0.02 * 25
