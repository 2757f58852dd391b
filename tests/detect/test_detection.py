"""Detection: peaks of the energy in a span of shapes, by their definition."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from spikecrsae.detect.detection import SpikeSubspace


def test_peaks_are_the_largest_within_the_dead_time_and_the_first_of_equal_neighbours():
    """Against the definition, sample by sample, on random and on tied heights."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        size, dead_time = int(rng.integers(1, 200)), int(rng.choice([1, 2, 5, 20, 300]))
        signal = np.repeat(rng.integers(0, 6, size), rng.integers(1, 4, size))[None, :size].astype(np.float32)
        subspace = SpikeSubspace(np.ones((1, 1)))
        height = subspace.statistic(signal)
        np.testing.assert_array_equal(height, signal[0] ** 2)
        level = 1.0
        expected, sample = [], 0
        while sample < len(height):
            around = height[max(0, sample - dead_time) : sample + dead_time + 1]
            is_peak = height[sample] > level and height[sample] == around.max()
            expected += [sample] if is_peak else []
            sample += dead_time + 1 if is_peak else 1
        # one channel and one shape: the level of z standard deviations is z squared
        np.testing.assert_array_equal(subspace.detect(signal, 1.0 + 1e-9, dead_time), expected)
        assert all(later - earlier > dead_time for earlier, later in pairwise(expected))


def test_events_of_one_neuron_stand_at_one_place_of_its_spike():
    """Of a waveform with two phases, on a wire, beside another neuron's."""
    rng = np.random.default_rng(1)
    ms = np.arange(-30, 31) / 20.0
    shapes = [-np.exp(-((ms / (0.13 * w)) ** 2)) + 0.4 * np.exp(-(((ms - 0.45 * w) / (0.28 * w)) ** 2)) for w in (1.0, 1.6)]
    signal = rng.standard_normal((1, 200_000)).astype(np.float32)
    at, kind = np.arange(100, 199_900, 200), rng.integers(0, 2, 999)
    for sample, k in zip(at, kind, strict=True):
        signal[0, sample - 30 : sample + 31] += (7, 6)[k] * shapes[k]
    events = SpikeSubspace.learn(signal, 4.5, 20, 10).detect(signal, 4.5, 10)
    nearest = np.abs(events[:, None] - at).argmin(axis=1)
    for k in (0, 1):
        away = (events - at[nearest])[kind[nearest] == k]
        away = away[np.abs(away) < 20]
        assert len(away) > 450 and np.mean(np.abs(away - np.median(away)) <= 1) > 0.9


def test_a_stretch_without_an_event_has_no_coefficients():
    """Of the width that those of others have: a long recording may be silent for seconds."""
    subspace = SpikeSubspace(np.eye(2, 4))
    signal = np.zeros((3, 50), np.float32)
    assert subspace.coefficients(signal, np.zeros(0, np.int64)).shape == (0, 6)
    assert subspace.coefficients(signal, np.array([10])).shape == (1, 6)
