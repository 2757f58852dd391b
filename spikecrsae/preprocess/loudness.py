"""How loud the noise of a recording is over time, beside its spikes.

The whitened signal is looked at in windows of WINDOW_MS, and the logarithm of its root mean square is taken in each. The level
is the lower QUANTILE of these values over time with a penalty on changes: quantile regression with a total-variation penalty,
solved exactly by dynamic programming. Spikes raise single windows, which a low quantile ignores; loud noise raises them all. The
result is constant in pieces and follows jumps within a few windows.
"""

from __future__ import annotations

import numpy as np

from spikecrsae.data.loudness import HIGHEST, STEP, Loudness
from spikecrsae.data.recording import BLOCK
from spikecrsae.preprocess.preprocessor import PreprocessedRecording
from spikecrsae.system.compiled import compiled
from spikecrsae.system.threads import n_cores
from spikecrsae.units import ms_to_samples

#: Length of a window: about that of a spike, so that a spike disturbs few of them.
WINDOW_MS = 2.0
#: Part of the windows that lie below the level.
QUANTILE = 0.15
#: A stretch of other noise is followed if it lasts at least about this long: shorter ones are no noise but events.
SHORTEST_MS = 100.0
#: Levels nearer to the usual noise than this one are not told from it, nor those within so many sampling errors of a window:
#: where spikes disturb most of the windows, the quantile of all is the median of the others, or more.
LEAST_LEVEL, LEAST_ERRORS = 3, 1.5
#: Bins of so many windows tell what noise is usual, those among the quietest USUAL_PART of them.
BIN, USUAL_PART = 50, 0.2
#: Sums of squares below this part of the usual one are of a signal that is not there.
_SILENT = 1e-4


class Loudnesses:
    """Gathers the whitened signal of a recording, block after block, and tells its loudness."""

    def __init__(self, sampling_frequency: float) -> None:
        self.length = max(4, ms_to_samples(WINDOW_MS, sampling_frequency))
        self.shortest = SHORTEST_MS / WINDOW_MS
        self._windows: list[np.ndarray] = []
        self._left: np.ndarray | None = None

    def add(self, white: np.ndarray) -> None:
        """Take in the next block (n_channels, n_samples)."""
        white = white if self._left is None else np.concatenate([self._left, white], axis=1)
        n = white.shape[1] // self.length
        self._windows.append(window_sizes(white, self.length))
        self._left = white[:, n * self.length :].copy()

    def loudness(self) -> Loudness:
        """The loudness of all that was added."""
        sizes = np.concatenate(self._windows, axis=1) if self._windows else np.zeros((1, 0))
        return Loudness.of_windows(levels_of(sizes, self.length, self.shortest), self.length)


def of_recording(view: PreprocessedRecording) -> Loudness:
    """The loudness of a recording, with one pass over its whitened signal."""
    gathered, at_once = Loudnesses(view.sampling_frequency), n_cores()
    places = [(start, min(start + BLOCK, view.n_samples)) for start in range(0, view.n_samples, BLOCK)]
    for k in range(0, len(places), at_once):
        for _, white in view.both_of(places[k : k + at_once]):
            gathered.add(white)
    return gathered.loudness()


@compiled
def window_sizes(white: np.ndarray, length: int) -> np.ndarray:
    """Mean squares (n_channels, n_windows) of consecutive windows of a signal (n_channels, n_samples), float32."""
    n_channels, n_windows = white.shape[0], white.shape[1] // length
    sizes = np.zeros((n_channels, n_windows), np.float32)
    for channel in range(n_channels):
        row = white[channel]
        for window in range(n_windows):
            part, total = row[window * length : (window + 1) * length], np.float32(0)
            for i in range(len(part)):
                total += part[i] * part[i]
            sizes[channel, window] = total / np.float32(length)
    return sizes


def levels_of(sizes: np.ndarray, length: int, shortest: float) -> np.ndarray:
    """Levels (n_windows,) of the noise, from the mean squares (n_channels, n_windows) of windows of `length` samples. shortest: how many
    windows a stretch of other noise lasts at least, about."""
    known = (sizes > _SILENT).all(axis=0)
    levels = np.zeros(sizes.shape[1], np.uint8)
    if known.sum() < BIN:
        return levels
    values = np.median(0.5 * np.log(sizes[:, known]), axis=0)
    n_bins = len(values) // BIN
    bins = np.quantile(values[: n_bins * BIN].reshape(n_bins, BIN), QUANTILE, axis=1)
    # the standard deviation of the logarithm of a root mean square is 1 / sqrt(2 n)
    lowest = max(LEAST_LEVEL, int(np.ceil(LEAST_ERRORS / np.sqrt(2 * length) / np.log1p(STEP))))
    least = lowest * np.log1p(STEP)
    usual = np.median(bins[bins < np.quantile(bins, USUAL_PART) + least])
    if bins.max() - usual < 0.5 * least:
        return levels
    states = np.r_[0, lowest : HIGHEST + 1]
    heights = usual + np.log1p(STEP) * states
    path = _cheapest_path(values, heights, QUANTILE, 0.5 * QUANTILE * shortest)
    found = states[path]
    # where there is no signal the level before holds on
    places = np.maximum(np.cumsum(known) - 1, 0)
    levels[:] = found[places]
    return levels


@compiled
def _cheapest_path(values: np.ndarray, heights: np.ndarray, quantile: float, change: float) -> np.ndarray:
    """Indices of heights (ascending) for values (n,) with the least sum of quantile losses and of `change` times the differences of
    consecutive heights."""
    n, m = len(values), len(heights)
    cost, best = np.zeros(m), np.zeros(m)
    came = np.zeros((n, m), np.uint8)
    for i in range(n):
        # cheapest way to every height: a distance transform, upwards and downwards
        for k in range(m):
            best[k], came[i, k] = cost[k], k
        for k in range(1, m):
            other = best[k - 1] + change * (heights[k] - heights[k - 1])
            if other < best[k]:
                best[k], came[i, k] = other, came[i, k - 1]
        for k in range(m - 2, -1, -1):
            other = best[k + 1] + change * (heights[k + 1] - heights[k])
            if other < best[k]:
                best[k], came[i, k] = other, came[i, k + 1]
        for k in range(m):
            above = values[i] - heights[k]
            cost[k] = best[k] + (quantile * above if above > 0 else (quantile - 1) * above)
    path = np.zeros(n, np.int64)
    path[n - 1] = np.argmin(cost)
    for i in range(n - 1, 0, -1):
        path[i - 1] = came[i, path[i]]
    return path
