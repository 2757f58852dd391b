"""Detect spikes as peaks of the energy in the span of a few spike shapes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special
from scipy.ndimage import maximum_filter1d

from spikecrsae.csc.backends import Backend
from spikecrsae.csc.numba_backend import NUMBA
from spikecrsae.detect.windows import windows_at
from spikecrsae.system.threads import in_threads


@dataclass(frozen=True)
class SpikeSubspace:
    """The span of a few temporal shapes (n_shapes, n_samples, orthonormal) in which spikes on any channel lie.

    The energy of the whitened signal in that span is the detection statistic. In noise alone it is chi-square with
    n_shapes * n_channels degrees of freedom; a spike of whitened norm r adds r^2, however it is spread over the channels.
    backend: what computes it.
    """

    shapes: np.ndarray
    backend: Backend = NUMBA

    @classmethod
    def learn(
        cls,
        signal: np.ndarray,
        threshold: float,
        length: int,
        dead_time: int,
        n_shapes: int = 3,
        backend: Backend = NUMBA,
    ) -> SpikeSubspace:
        """Learn from whitened signal (n_channels, n_samples): the leading singular vectors of its events above `threshold` on their
        peak channels, every event counting alike.

        Without enough events the shapes are `general` ones.
        """
        parts = in_threads(lambda part: np.abs(signal[:, part]).max(axis=0), signal.shape[1], 1 << 18)
        peaks = _peaks(np.concatenate(parts), threshold, dead_time)
        peaks = peaks[(peaks >= length) & (peaks < signal.shape[1] - length)]
        if len(peaks) < 10 * n_shapes:
            return cls.general(length, n_shapes, backend)
        channel = np.abs(signal[:, peaks]).argmax(axis=0)
        snippets = signal[channel[:, None], peaks[:, None] + np.arange(length) - length // 2].astype(np.float64)
        snippets /= np.linalg.norm(snippets, axis=1, keepdims=True)
        return cls(np.linalg.svd(snippets, full_matrices=False)[2][:n_shapes], backend)

    @classmethod
    def general(cls, length: int, n_shapes: int = 3, backend: Backend = NUMBA) -> SpikeSubspace:
        """Shapes where none can be learned: the low Fourier modes of the window under a Hann taper."""
        time = np.arange(length) - (length - 1) / 2
        modes = [np.hanning(length + 2)[1:-1] * np.cos(np.pi * (j + 1) * time / length) for j in range(n_shapes)]
        return cls(np.linalg.qr(np.stack(modes).T)[0].T, backend)

    def statistic(self, signal: np.ndarray) -> np.ndarray:
        """Energy (n_samples,) of whitened signal (n_channels, n_samples) in the span, each sample the window's centre."""
        return self._energy(signal, self.shapes)

    def _energy(self, signal: np.ndarray, shapes: np.ndarray) -> np.ndarray:
        return self.backend.energy_in_span(np.ascontiguousarray(signal, np.float32), shapes.astype(np.float32))

    def coefficients(self, signal: np.ndarray, events: np.ndarray) -> np.ndarray:
        """What the shapes are multiplied by, (n, n_shapes * n_channels), at events (n,), the window's centre; 0 beyond the signal."""
        length, traces = self.shapes.shape[1], signal.T
        starts = events - length // 2
        if len(events) and (starts.min() < 0 or starts.max() > len(traces) - length):
            traces, starts = np.pad(traces, ((length // 2, length), (0, 0))), events
        windows = windows_at(traces, starts, length)
        # no -1 here: there may be no event
        return np.einsum("ntc,st->nsc", windows, self.shapes.astype(np.float32)).reshape(
            len(events), len(self.shapes) * len(signal)
        )

    def detect(self, signal: np.ndarray, threshold: float, dead_time: int) -> np.ndarray:
        """Samples (ascending int64) of events: where the statistic peaks above the level that noise exceeds as rarely, per sample, as a
        Gaussian exceeds `threshold` standard deviations either way.

        An event is placed where the energy along the first shape is largest within dead_time of that peak: the span holds the
        shape at several lags, so that the peak itself may stand before the spike or on it.
        """
        level = special.chdtri(len(self.shapes) * len(signal), 2 * special.ndtr(-threshold))
        peaks = _peaks(self.statistic(signal), level, dead_time)
        if not len(peaks):
            return peaks
        near = np.clip(peaks[:, None] + np.arange(-dead_time, dead_time + 1), 0, signal.shape[1] - 1)
        height = self._energy(signal, self.shapes[:1])[near]
        best = np.where(height.max(axis=1) > height[:, dead_time], height.argmax(axis=1), dead_time)
        return _apart(near[np.arange(len(peaks)), best], height.max(axis=1), dead_time)


def _peaks(height: np.ndarray, threshold: float, dead_time: int) -> np.ndarray:
    """Samples above threshold that are the largest within dead_time each way; the first of equal neighbours."""
    above = np.flatnonzero(height > threshold)
    if not len(above):
        return above
    # compared with what is around them only, which groups further apart do not share
    last = np.flatnonzero(np.diff(above) > 2 * dead_time + 1)
    starts = np.maximum(above[np.r_[0, last + 1]] - dead_time, 0)
    lengths = np.minimum(above[np.r_[last, -1]] + dead_time + 1, len(height)) - starts
    places = np.arange(lengths.sum()) + np.repeat(starts - np.r_[0, np.cumsum(lengths)[:-1]], lengths)
    near = height[places]
    candidates = places[(near == maximum_filter1d(near, 2 * dead_time + 1, mode="nearest")) & (near > threshold)]
    # two candidates within the dead time are equal
    peaks: list[int] = []
    for sample in candidates.tolist():
        if not peaks or sample - peaks[-1] > dead_time:
            peaks.append(sample)
    return np.array(peaks, dtype=np.int64)


def _apart(samples: np.ndarray, heights: np.ndarray, dead_time: int) -> np.ndarray:
    """Of samples (n,) those, ascending, that are higher than all others within dead_time; the first of equal ones."""
    order = np.lexsort((np.arange(len(samples)), -heights))
    kept: list[int] = []
    taken = np.zeros(int(samples.max(initial=0)) + dead_time + 1, bool)
    for sample in samples[order].tolist():
        if not taken[sample]:
            kept.append(sample)
            taken[max(sample - dead_time, 0) : sample + dead_time + 1] = True
    return np.sort(np.array(kept, np.int64))
