"""Cut windows of a fixed length out of signal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

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


def windows_at(signal: np.ndarray, starts: np.ndarray, n_times: int) -> np.ndarray:
    """Windows (n, n_times, n_channels) of signal (n_samples, n_channels) that begin at `starts`, all inside the signal."""
    starts = np.asarray(starts, np.int64)
    if not len(starts):
        return np.zeros((0, n_times, signal.shape[1]), signal.dtype)
    if starts.min() < 0 or starts.max() > len(signal) - n_times:
        raise IndexError(f"windows of {n_times} samples from {starts.min()} to {starts.max()} in a signal of {len(signal)}")
    # a window of a view that holds all of them is copied at once, where an index would be looked up for every sample
    along, across = signal.strides
    every = np.lib.stride_tricks.as_strided(
        signal, (len(signal) - n_times + 1, n_times, signal.shape[1]), (along, along, across)
    )
    return np.ascontiguousarray(every[starts])


def are_whole(signal: np.ndarray, starts: np.ndarray, n_times: int) -> np.ndarray:
    """Windows (bool, n) of a whitened signal (n_channels, n_samples) that begin at `starts` and hold no sample that was left out: those
    are exactly 0 on all channels."""
    left_out = np.flatnonzero(signal[0] == 0)
    left_out = left_out[(signal[:, left_out] == 0).all(axis=0)]
    return np.asarray(np.searchsorted(left_out, starts) == np.searchsorted(left_out, np.asarray(starts) + n_times))
