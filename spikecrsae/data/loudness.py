"""Noise whose level changes over time: one factor for all channels, in levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: Two neighbouring levels differ by this part; level 0 is the usual noise of the recording.
STEP = 0.06
#: The highest level: noise 30 times as loud as usual.
HIGHEST = 58
#: Up to this level a spike's waveform shows its shape well enough to learn from: noise below 1.25 times the usual one.
CLEAR = 3


def noise_of(level: np.ndarray | int) -> np.ndarray:
    """Noise relative to the usual one, sigma, at levels."""
    return np.asarray(np.exp(np.log1p(STEP) * np.asarray(level, np.float64)))


def expected_at(level: np.ndarray | int) -> np.ndarray:
    """Amplitude that a spike of its template's size has in signal divided by the noise: 1 / sigma; exactly 1 at level 0."""
    return 1.0 / noise_of(level)


#: Spikes with an expected amplitude above this stand in clear signal.
CLEAR_AMPLITUDE = float(expected_at(CLEAR)) * (1 - 1e-9)


@dataclass(frozen=True)
class Loudness:
    """The noise of a recording over time: level `levels[k]` (uint8) from sample `starts[k]` (ascending, the first 0) on."""

    starts: np.ndarray
    levels: np.ndarray

    @classmethod
    def steady(cls) -> Loudness:
        """Noise that does not change."""
        return cls(np.zeros(1, np.int64), np.zeros(1, np.uint8))

    @classmethod
    def of_windows(cls, levels: np.ndarray, length: int) -> Loudness:
        """levels (n,): of consecutive windows of `length` samples; the last holds on."""
        changes = np.r_[0, np.flatnonzero(np.diff(levels.astype(np.int64))) + 1] if len(levels) else np.zeros(0, np.int64)
        return cls(changes * length, levels[changes].astype(np.uint8)) if len(levels) else cls.steady()

    @property
    def is_steady(self) -> bool:
        return not self.levels.any()

    def at(self, start: int, stop: int) -> np.ndarray:
        """Levels (uint8) of samples from start to before stop."""
        if stop <= start:
            return np.zeros(0, np.uint8)
        first, last = np.searchsorted(self.starts, [start, stop - 1], "right") - 1
        bounds = np.clip(np.r_[self.starts[first : last + 1], stop], start, stop)
        return np.repeat(self.levels[first : last + 1], np.diff(bounds))

    def shares(self, n_samples: int) -> dict[int, float]:
        """The part of n_samples that each level holds."""
        lengths = np.diff(np.r_[self.starts, n_samples])
        total = np.bincount(self.levels, weights=lengths)
        return {int(level): float(total[level] / n_samples) for level in np.flatnonzero(total)}

    def intervals(self, above: int, n_samples: int) -> np.ndarray:
        """Intervals (n, 2) of samples with a level above this one."""
        loud = np.r_[False, self.levels > above, False]
        edges = np.flatnonzero(np.diff(loud))
        bounds = np.r_[self.starts, n_samples]
        return np.asarray(bounds[edges].reshape(-1, 2), np.int64)
