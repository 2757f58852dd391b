"""First templates: detection, aligned windows, principal components, clusters (k-means, or isosplit without a number)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d

from spikecrsae.config import InitialiseConfig
from spikecrsae.units import ms_to_samples


@dataclass(frozen=True)
class TemplateWindow:
    """n_times samples of which `before` lie before the aligned peak."""

    n_times: int
    before: int

    @classmethod
    def from_config(cls, config: InitialiseConfig, sampling_frequency: float) -> TemplateWindow:
        n_times = max(3, ms_to_samples(config.template_ms, sampling_frequency))
        return cls(n_times, min(ms_to_samples(config.before_ms, sampling_frequency), n_times - 1))


def detect(whitened: np.ndarray, threshold: float, dead_time: int) -> np.ndarray:
    """Samples at which max over channels |whitened| (n_samples, n_channels) exceeds `threshold` and is the largest within
    `dead_time` samples each way, ascending int64."""
    height = np.abs(whitened).max(axis=1)
    is_peak = (height > threshold) & (height == maximum_filter1d(height, 2 * dead_time + 1, mode="constant"))
    peaks = np.flatnonzero(is_peak)
    if len(peaks) > 1:
        # equal heights side by side (clipped spikes): the first stays
        peaks = peaks[np.r_[True, np.diff(peaks) > dead_time]]
    return peaks.astype(np.int64)


def windows_at(signal: np.ndarray, starts: np.ndarray, n_times: int) -> np.ndarray:
    """Windows (n, n_times, n_channels) of signal (n_samples, n_channels) that begin at `starts`, all inside the signal."""
    return signal[np.asarray(starts)[:, None] + np.arange(n_times)]


def principal_components(windows: np.ndarray, n_components: int, seed: int) -> np.ndarray:
    """Features (n, n_components) of windows (n, n_times, n_channels): their leading principal components."""
    from sklearn.decomposition import PCA

    flat = windows.reshape(len(windows), -1)
    n_components = min(n_components, *flat.shape)
    return PCA(n_components, svd_solver="randomized" if min(flat.shape) > 100 else "full", random_state=seed).fit_transform(flat)


def cluster(features: np.ndarray, n_units: int | None, seed: int) -> np.ndarray:
    """Labels (n,) from 0. n_units given: k-means. Else isosplit, which splits where a projection has two modes
    (Magland and Barnett 2015) and needs no number."""
    if n_units is not None:
        from sklearn.cluster import KMeans

        return KMeans(min(n_units, len(features)), n_init=10, random_state=seed).fit_predict(features)
    from isosplit6 import isosplit6

    labels = isosplit6(np.ascontiguousarray(features, dtype=np.float64))
    return np.unique(labels, return_inverse=True)[1]


def templates_from_labels(windows: np.ndarray, labels: np.ndarray, smallest: int) -> np.ndarray:
    """Mean windows of the clusters with at least `smallest` members, (n_units, n_channels, n_times)."""
    kept = [c for c in np.unique(labels) if np.sum(labels == c) >= smallest]
    if not kept:
        return np.zeros((0, windows.shape[2], windows.shape[1]))
    return np.stack([windows[labels == c].mean(axis=0).T for c in kept]).astype(np.float64)
