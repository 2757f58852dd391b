"""Timeline: samples of a recording to seconds on its clock, across gaps, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Timeline:
    """Clock of a recording in parts: sample firsts[k] is at times_s[k] seconds, and one sample follows the other at
    sampling_frequency (Hz) up to the next part. firsts and times_s (n_parts,) ascend; firsts[0] is 0."""

    firsts: np.ndarray
    times_s: np.ndarray
    sampling_frequency: float

    def seconds(self, samples: Any) -> np.ndarray:
        """Times in s of samples of any shape."""
        samples = np.asarray(samples)
        return self._on_clock_of(samples, samples)

    def intervals_s(self, intervals: Any) -> np.ndarray:
        """Starts and ends in s (n, 2) of intervals of samples [first, end). A gap after the last sample of one is not in it."""
        first, end = np.asarray(intervals, np.int64).reshape(-1, 2).T
        return np.stack([self.seconds(first), self._on_clock_of(end, np.maximum(end - 1, first))], axis=1)

    def _on_clock_of(self, samples: np.ndarray, members: np.ndarray) -> np.ndarray:
        """Times in s of samples on the clock of the parts that these members are in."""
        part = np.maximum(np.searchsorted(self.firsts, members, "right") - 1, 0)
        return np.asarray((samples - self.firsts[part]) / self.sampling_frequency + self.times_s[part])

    def samples(self, times_s: Any) -> np.ndarray:
        """Samples (float64) at times in s of any shape; at a time in a gap the first sample after it."""
        samples, limits = self._within_parts(times_s)
        return np.asarray(np.minimum(samples, limits))

    def in_gap(self, times_s: Any) -> np.ndarray:
        """Which of the times in s (bool) lie between two parts, where nothing was recorded."""
        samples, limits = self._within_parts(times_s)
        return np.asarray(samples > limits - 0.5)

    def _within_parts(self, times_s: Any) -> tuple[np.ndarray, np.ndarray]:
        """Samples (float64) on the clock of the part that has begun at each time, and the first sample of the next part."""
        times_s = np.asarray(times_s, np.float64)
        # half a sample earlier, so that rounding moves no part's first sample into the part before
        part = np.maximum(np.searchsorted(self.times_s, times_s + 0.5 / self.sampling_frequency, "right") - 1, 0)
        samples = (times_s - self.times_s[part]) * self.sampling_frequency + self.firsts[part]
        return samples, np.r_[self.firsts[1:], np.inf][part]
