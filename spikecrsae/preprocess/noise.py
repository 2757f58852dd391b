"""Statistics of the noise in blocks of high-passed traces (n_samples, n_channels): quiet samples, level, covariance."""

from __future__ import annotations

import numpy as np
import scipy.fft

from spikecrsae.config import PreprocessConfig
from spikecrsae.data.intervals import NONE
from spikecrsae.data.recording import Recording, refuse_impossible
from spikecrsae.errors import InputError
from spikecrsae.preprocess.filters import design_filter
from spikecrsae.preprocess.preprocessor import filtered
from spikecrsae.system.compiled import compiled
from spikecrsae.system.robust import deviation_about_zero
from spikecrsae.system.threads import in_each
from spikecrsae.units import ms_to_samples

#: A channel whose noise is smaller than this, in any unit, has none.
LEAST_NOISE = 1e-12
#: The first guess of the noise level takes one of so many samples.
SPARSE = 8


def noise_level(recording: Recording, config: PreprocessConfig) -> np.ndarray:
    """Compute the noise level per channel (n_channels,) of a whole short recording, high-passed, in its unit.

    Raises InputError where a sample is no voltage, the filter's edges do not fit the sampling frequency, or a channel has no
    noise.
    """
    n_samples = recording.n_samples
    refuse_impossible(recording, recording.raw(0, n_samples), 0)
    high = filtered(recording, NONE, 0, n_samples, *design_filter(config, recording.sampling_frequency), "none")
    return quiet_samples([high], [np.ones(n_samples, np.bool_)], config, recording)[1]


def quiet_samples(
    blocks: list[np.ndarray], kept: list[np.ndarray], config: PreprocessConfig, recording: Recording
) -> tuple[list[np.ndarray], np.ndarray]:
    """Masks of quiet samples per block, and the noise level there; a few rounds, since each needs the other. Only samples
    that are `kept` (bool, one mask per block) of the recording count. Raises InputError for a channel without any noise."""
    margin = ms_to_samples(config.quiet_margin_ms, recording.sampling_frequency)
    sample = [b[::SPARSE][k[::SPARSE]] for b, k in zip(blocks, kept, strict=True)]
    level = deviation_about_zero(np.concatenate(sample), axis=0)
    if np.any(none := level < LEAST_NOISE):
        names = ", ".join(np.array(recording.channel_ids)[none])
        raise InputError(
            f"{recording.source}: channel {names} has no noise at all (its median deviation is {level[none][0]:.3g}): its "
            "steps are "
            "too coarse, or its numbers are of another type; leave it out with --channels, or check --dtype and --gain."
        )
    for _ in range(3):
        bound = (config.quiet_threshold * level).astype(np.float32)
        quiet = in_each(lambda block, keep, bound=bound: _quiet(block, keep, bound, margin), blocks, kept)
        if sum(map(np.count_nonzero, quiet)) < 2:
            break
        level = np.maximum(np.sqrt(np.diag(covariance(blocks, quiet))), LEAST_NOISE)
    return quiet, level


@compiled
def _quiet(block: np.ndarray, kept: np.ndarray, bound: np.ndarray, margin: int) -> np.ndarray:
    """Samples (bool) within `margin` of which none is loud, on any channel beyond `bound` (n_channels,), or not kept."""
    n_samples, n_channels = block.shape
    quiet = np.ones(n_samples, np.bool_)
    told = 0
    for i in range(n_samples):
        loud = not kept[i]
        for c in range(n_channels):
            loud |= abs(block[i, c]) > bound[c]
        if loud:
            end = min(i + margin + 1, n_samples)
            quiet[max(i - margin, told) : end] = False
            told = end
    return quiet


def covariance(blocks: list[np.ndarray], quiet: list[np.ndarray]) -> np.ndarray:
    """Across channels (n_channels, n_channels), of the quiet samples."""
    n, total, products = (sum(terms) for terms in zip(*in_each(_moments, blocks, quiet), strict=True))
    return products / n - np.outer(total, total) / n**2


@compiled
def _moments(block: np.ndarray, quiet: np.ndarray) -> tuple[int, np.ndarray, np.ndarray]:
    """Number of the quiet samples, their sum (n_channels,) and the sum of their products (n_channels, n_channels)."""
    n_samples, n_channels = block.shape
    n, total, products = 0, np.zeros(n_channels), np.zeros((n_channels, n_channels))
    for i in range(n_samples):
        if quiet[i]:
            n += 1
            for c in range(n_channels):
                value = np.float64(block[i, c])
                total[c] += value
                for d in range(n_channels):
                    products[c, d] += value * block[i, d]
    return n, total, products


def autocovariances(blocks: list[np.ndarray], quiet: list[np.ndarray], n_lags: int) -> np.ndarray:
    """Of each channel's quiet noise, (n_channels, n_lags). Only pairs of samples that are both quiet count."""
    size = scipy.fft.next_fast_len(max(map(len, blocks)) + n_lags, real=True)
    products = scipy.fft.irfft(power(blocks, quiet, size), size)[:, :n_lags]
    pairs = scipy.fft.irfft(power([mask[:, None] for mask in quiet], quiet, size), size)[:, :n_lags]
    return products / np.maximum(pairs, 1.0)


def power(blocks: list[np.ndarray], weights: list[np.ndarray], size: int) -> np.ndarray:
    """|FFT|^2 over `size` samples of the blocks times weights (n_samples,), summed over the blocks: (n_channels,
    n_frequencies)."""

    def of_block(block: np.ndarray, weight: np.ndarray) -> np.ndarray:
        rows = np.ascontiguousarray(block.T, np.float32) * weight.astype(np.float32)
        spectra = scipy.fft.rfft(rows, size)
        return spectra.real**2 + spectra.imag**2

    return np.asarray(np.sum(in_each(of_block, blocks, weights), axis=0, dtype=np.float64))
