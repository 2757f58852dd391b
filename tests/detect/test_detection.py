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
