"""Units that come from the reference electrode: what it picks up is the same on every channel, as its noise is."""

from __future__ import annotations

import numpy as np

from spikecrsae.system.robust import deviation_about_zero

#: Where less than this part of the noise is common to the channels, the reference is no louder than the rest.
MOSTLY_COMMON = 0.5
#: A waveform differs from channel to channel by no more than this part of its norm where it comes from the reference.
LARGEST_DIFFERENCE = 0.02
#: What noise adds to a waveform's difference between channels is up to so many times that of windows at random: spikes are aligned
#: by the same noise.
CHANCE_MARGIN = 3.0
#: Two channels differ in one direction only: there a neuron between them is often as alike as the reference.
FEWEST_CHANNELS = 3
#: Rounds in which the common part of the noise settles.
_ROUNDS = 200


def common_noise(whitening_matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How the noise common to all channels reaches each of them (n_channels,), relative to the channel's noise, and the part of
    each channel's noise power that it is (n_channels,).

    One common factor is fitted to the correlations between channels (principal factors: the diagonal is left out, where each
    channel has noise of its own). whitening_matrix (n_channels, n_channels): see Preprocessor.
    """
    covariance = np.linalg.pinv(whitening_matrix.T @ whitening_matrix)
    level = np.sqrt(np.maximum(np.diag(covariance), np.finfo(np.float64).tiny))
    between = covariance / np.outer(level, level)
    np.fill_diagonal(between, 0)
    part = np.abs(between).max(axis=1)
    gains = np.zeros(len(part))
    for _ in range(_ROUNDS):
        values, vectors = np.linalg.eigh(between + np.diag(part))
        gains = vectors[:, -1] * np.sqrt(max(values[-1], 0.0))
        part = np.minimum(gains**2, 1.0)
    return gains * (1.0 if gains.sum() >= 0 else -1.0), part


def reference_match(waveforms: list[np.ndarray], noise_level: np.ndarray, whitening_matrix: np.ndarray) -> np.ndarray:
    """Part (n_units,) of each unit's mean waveform's energy, in units of noise, that is alike on all channels as the common noise
    is; 0 where less than MOSTLY_COMMON of the noise is common, NaN on fewer than FEWEST_CHANNELS.

    waveforms: of each unit (n, n_times, n_channels), high-passed, in the unit of noise_level (n_channels,). What noise and other
    spikes add to the mean's difference between channels is taken off.
    """
    if len(noise_level) < FEWEST_CHANNELS:
        return np.full(len(waveforms), np.nan)
    gains, part = common_noise(whitening_matrix)
    if part.mean() < MOSTLY_COMMON:
        return np.zeros(len(waveforms))
    direction = gains / np.linalg.norm(gains)
    return np.array([_alike(windows / noise_level, direction) for windows in waveforms])


def _alike(windows: np.ndarray, direction: np.ndarray) -> float:
    """Part of the typical window's energy that lies along a direction across the channels (n_channels,)."""
    if len(windows) < 2:
        return 0.0
    common = windows @ direction
    different = windows - common[..., None] * direction
    # medians, since another neuron's spike now and then moves a mean, and what noise adds to the square of one
    alike = float((np.median(common, axis=0) ** 2).sum())
    chance = 0.5 * np.pi * (deviation_about_zero(different, axis=0) ** 2).sum() / len(windows)
    rest = float((np.median(different, axis=0) ** 2).sum() - CHANCE_MARGIN * chance)
    return alike / (alike + max(rest, 0.0)) if alike else 0.0
