"""Positions between samples: shifted waveforms, and correlations read between their samples."""

from __future__ import annotations

import numpy as np

#: Half the length of the interpolator, samples.
SINC_REACH = 8


def shift_in_time(waveforms: np.ndarray, shift: float) -> np.ndarray:
    """Waveforms (..., n_times) moved later by `shift` samples (|shift| < 1) by Fourier interpolation, zero beyond the ends."""
    if shift == 0:
        return np.asarray(waveforms, np.float64)
    n_times = waveforms.shape[-1]
    size = 2 * n_times
    phase = np.exp(-2j * np.pi * np.fft.rfftfreq(size) * shift)
    return np.fft.irfft(np.fft.rfft(waveforms, size, axis=-1) * phase, size, axis=-1)[..., :n_times]


def interpolator(shifts: np.ndarray) -> np.ndarray:
    """Weights (n_shifts, 2 reach + 1) that read a sampled function `shift` samples later: a sinc under a Hann window."""
    offset = np.arange(-SINC_REACH, SINC_REACH + 1) - shifts[:, None]
    weights = np.sinc(offset) * np.cos(0.5 * np.pi * offset / (SINC_REACH + 1)) ** 2
    return weights / weights.sum(axis=1, keepdims=True)
