"""The signal at a lower sampling rate, at which units are curated: it holds what spikes are made of, and takes half the time or less."""

from __future__ import annotations

import numpy as np
from scipy.signal import firwin, resample_poly

from spikecrsae.csc.convolution import in_threads

#: Extracellular spikes have next to no energy above this frequency, also where whitening has raised what is left of it.
SPIKE_BAND_HZ = 7000.0


def decimation_factor(sampling_frequency: float) -> int:
    """How many times lower the rate may be: the largest whole number with which SPIKE_BAND_HZ stays below its half."""
    return max(1, int(sampling_frequency // (2 * SPIKE_BAND_HZ)))


def decimated(signal: np.ndarray, factor: int) -> np.ndarray:
    """A whitened signal (n_channels, n_samples) at a `factor` times lower rate, (n_channels, ceil(n_samples / factor)), float32: low-passed
    without a shift in time, and scaled so that white noise keeps its density 1, and a spike its energy. Sample k was sample
    k * factor."""
    if factor == 1:
        return signal
    weights = np.sqrt(factor) * _low_pass(factor)
    parts = in_threads(lambda c: resample_poly(signal[c], 1, factor, axis=1, window=weights), len(signal), 1)
    return np.concatenate(parts).astype(np.float32, copy=False)


def decimated_templates(templates: np.ndarray, factor: int) -> np.ndarray:
    """Templates (n_units, n_channels, n_times) of a signal as those of the decimated one, n_times / factor long."""
    found = [decimated(template, factor) for template in templates]
    return np.stack(found) if found else np.zeros((0, templates.shape[1], templates.shape[2] // factor))


def interpolated(templates: np.ndarray, factor: int) -> np.ndarray:
    """Templates (n_units, n_channels, n_times) of a decimated signal as those of the signal, (n_units, n_channels, factor * n_times)."""
    if factor == 1 or not len(templates):
        return templates
    return resample_poly(templates, factor, 1, axis=2, window=_low_pass(factor)) / np.sqrt(factor)


def _low_pass(factor: int) -> np.ndarray:
    """A linear-phase low pass with the gain 1, half of it at half the lower rate."""
    return firwin(20 * factor + 1, 1 / factor, window=("kaiser", 5.0))
