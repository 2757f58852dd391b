"""Counts of spikes around spikes: correlograms, intervals, and how alike two templates are."""

from __future__ import annotations

import numpy as np


def correlograms(samples: np.ndarray, rows: np.ndarray, n_rows: int, bin_size: int, n_half: int) -> np.ndarray:
    """How often a spike of row i follows one of row j by each lag, (n_rows, n_rows, 2 n_half) int64.

    samples (n_spikes,) int64, ascending; rows (n_spikes,): the unit of each, from 0. Bin n_half + k holds the lags
    t_i - t_j from k bin_size to (k + 1) bin_size samples, the end excluded; a spike does not meet itself. These are the
    numbers of SpikeInterface's compute_correlograms.
    """
    counts = np.zeros((n_rows, n_rows, 2 * n_half), np.int64)
    reach, earlier, shift = bin_size * n_half, np.arange(len(samples)), 0
    while len(earlier):
        # the spike `shift` places on; who has none within reach has none further on
        shift += 1
        earlier = earlier[earlier + shift < len(samples)]
        lag = samples[earlier + shift] - samples[earlier]
        earlier, lag = earlier[lag <= reach], lag[lag <= reach]
        before, after, ahead = rows[earlier], rows[earlier + shift], lag < reach
        _add(counts, after[ahead], before[ahead], n_half + lag[ahead] // bin_size)
        _add(counts, before, after, n_half + -lag // bin_size)
    return counts


def _add(counts: np.ndarray, i: np.ndarray, j: np.ndarray, k: np.ndarray) -> None:
    counts += np.bincount(np.ravel_multi_index((i, j, k), counts.shape), minlength=counts.size).reshape(counts.shape)


def interval_counts(samples: np.ndarray, sampling_frequency: float, bin_ms: float, n_bins: int) -> np.ndarray:
    """How many intervals between successive spikes (samples, ascending) last from k bin_ms to (k + 1) bin_ms, (n_bins,)
    int64."""
    edges = np.arange(n_bins + 1) * bin_ms * sampling_frequency / 1000
    at = np.searchsorted(edges, np.diff(samples), "right") - 1
    return np.bincount(at[at < n_bins], minlength=n_bins)


def template_similarity(templates: np.ndarray) -> np.ndarray:
    """Cosine of every two templates (n_units, n_channels, n_times) at the lag where it is largest, (n_units, n_units)."""
    n_units, _, n_times = templates.shape
    if not n_units:
        return np.zeros((0, 0))
    norm = np.sqrt((templates.astype(np.float64) ** 2).sum(axis=(1, 2)))
    spectra = np.fft.rfft(templates / np.where(norm > 0, norm, 1)[:, None, None], 2 * n_times, axis=2)
    # one row at a time: all pairs at all lags would be large
    rows = [np.fft.irfft((spectrum.conj() * spectra).sum(axis=1), axis=1).max(axis=1) for spectrum in spectra]
    return np.array(rows)
