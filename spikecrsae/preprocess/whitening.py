"""Learn the filters of a recording from its quiet periods: noise level, line noise, whitening in time and across channels."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

import numpy as np
from scipy.linalg import solve_toeplitz

from spikecrsae.config import PreprocessConfig
from spikecrsae.data.intervals import NONE, inside, widened
from spikecrsae.data.recording import Recording
from spikecrsae.errors import InputError
from spikecrsae.preprocess import filters, noise
from spikecrsae.preprocess.filters import design_filter, edges, settling_samples
from spikecrsae.preprocess.line_noise import find_lines, not_of_pulses, notches, part_to_leave, strongest
from spikecrsae.preprocess.preprocessor import SHORT_MS, Preprocessor, filtered_blocks, left_out, with_ends
from spikecrsae.progress import Observer
from spikecrsae.system.threads import in_each
from spikecrsae.units import ms_to_samples, s_to_samples

log = logging.getLogger(__name__)

#: A direction across channels with less than this part of the largest noise power holds only rounding errors.
LEAST_OWN_NOISE = 1e-4
#: Part of the noise power added as white noise before the prediction filter is solved for: where the high-pass has
#: removed everything there is nothing to whiten.
STOP_BAND_FLOOR = 1e-3


def fit(
    recording: Recording,
    config: PreprocessConfig,
    rng: np.random.Generator,
    observer: Observer,
    gaps: np.ndarray = NONE,
    loud: np.ndarray = NONE,
) -> Preprocessor:
    """Learn noise level and whitening from the silent periods of at most `noise_sample_s` of the recording outside the `gaps` and the
    `loud` intervals (n, 2), whose noise is not the usual one.

    Raises InputError where the recording is too short to filter or never quiet enough to learn its noise.
    """
    fs = recording.sampling_frequency
    sos, margin = _first_filter(recording, config)
    observer.start("noise")
    unlike = widened(np.concatenate([gaps, loud]), 0, recording.n_samples) if len(loud) else gaps
    places = list(_noise_blocks(recording, config, unlike, rng))
    settling, kept = 0, [~inside(unlike, start, stop) for start, stop in places]
    blocks = filtered_blocks(recording, gaps, places, sos, margin, config.common_reference)
    quiet, noise_level = noise.quiet_samples(blocks, kept, config, recording)
    lines = not_of_pulses(find_lines(blocks, quiet, fs), recording.pulses, fs) if config.remove_hum else np.zeros((0, 3))
    if len(lines):
        lines, said = strongest(lines)
        log.warning(said)
        sos = np.concatenate([sos, notches(lines, fs)])
        margin, settling = settling_samples(sos), settling_samples(sos, part_to_leave(lines))
        blocks = filtered_blocks(recording, gaps, places, sos, margin, config.common_reference)
        ends, n_samples = with_ends(gaps, settling, recording.n_samples), recording.n_samples
        unsettled = left_out(ends, n_samples, ms_to_samples(SHORT_MS, fs), settling)
        kept = [~inside(unsettled, *place) & ~inside(loud, *place) for place in places]
        quiet, noise_level = noise.quiet_samples(blocks, kept, config, recording)
    n_taps = ms_to_samples(config.whitening_ms, fs)
    fraction = _quiet_fraction(recording, quiet, kept, 20 * (n_taps + recording.n_channels))
    # of channels in one unit each: a scale that differs from channel to channel is no dependence
    n_independent = rank(noise.covariance(blocks, quiet) / np.outer(noise_level, noise_level))
    across = np.eye(recording.n_channels)
    if config.common_reference == "median":
        # their mean is what the median has left of it: little, but far from normal, and not to be amplified
        across -= 1 / recording.n_channels
        n_independent = min(n_independent, recording.n_channels - 1)
    autocovariances = noise.autocovariances(blocks, quiet, n_taps + 1)
    if n_independent < recording.n_channels:
        if n_independent < recording.n_channels - (config.common_reference != "none"):
            log.warning(
                "the channels are linearly dependent: %d of %d have noise of their own", n_independent, recording.n_channels
            )
        # one filter for all, or what cancels across the channels would no longer cancel after it
        autocovariances[:] = (autocovariances / noise_level[:, None] ** 2).mean(axis=0)
    taps = np.stack([prediction_filter(lags) for lags in autocovariances])
    predicted = in_each(lambda block: filters.whiten(block, taps, np.eye(recording.n_channels)).T, blocks)
    matrix = whitening_matrix(across @ noise.covariance(predicted, quiet) @ across, n_independent) @ across
    observer.finish(f"learned from the {fraction:.0%} of the signal without events")
    return Preprocessor(sos, margin, config.common_reference, noise_level, matrix, taps, fraction, settling)


def _first_filter(recording: Recording, config: PreprocessConfig) -> tuple[np.ndarray, int]:
    """What design_filter gives; the log says where the upper edge is lowered. Raises InputError where a common reference takes away the only
    channel."""
    fs = recording.sampling_frequency
    if config.common_reference != "none" and recording.n_channels == 1:
        raise InputError(
            f"{recording.source}: preprocess.common_reference = {config.common_reference} takes away the only usable channel; "
            "it needs at least two. Leave --common-reference out."
        )
    if config.lowpass_hz is not None and (upper := edges(config, fs)[1]) < config.lowpass_hz:
        log.warning(
            "preprocess.lowpass_hz = %g Hz is lowered to %g Hz, below the Nyquist frequency", config.lowpass_hz, upper
        )
    return design_filter(config, fs)


def _quiet_fraction(recording: Recording, quiet: list[np.ndarray], kept: list[np.ndarray], needed: int) -> float:
    """Return which share of the samples looked at is quiet. Raises InputError where fewer than `needed` are."""
    n_quiet, n_kept = (sum(int(mask.sum()) for mask in masks) for masks in (quiet, kept))
    if n_quiet < needed:
        # a higher threshold helps only where the signal has enough samples
        other = " or raise preprocess.quiet_threshold" if n_kept >= needed else ""
        raise InputError(
            f"{recording.source}: only {n_quiet} quiet samples ({n_quiet / n_kept:.1%} of the signal looked at) to learn the noise "
            f"from; {needed} are needed. Give a longer recording{other}."
        )
    return n_quiet / n_kept


def check_filter(recording: Recording, config: PreprocessConfig) -> None:
    """Raise InputError where the edges of the filter do not fit the recording's sampling frequency; nothing is read."""
    try:
        edges(config, recording.sampling_frequency)
    except InputError as error:
        raise InputError(f"{recording.source}: {error}") from error


def _noise_blocks(
    recording: Recording, config: PreprocessConfig, gaps: np.ndarray, rng: np.random.Generator
) -> Iterator[tuple[int, int]]:
    """(start, stop) of blocks of one second: one at random in each of equally long stretches of the signal outside the gaps."""
    lengths = gaps[:, 1] - gaps[:, 0]
    n_kept = recording.n_samples - int(lengths.sum())
    # where each gap lies on a clock that stands still in gaps
    cuts = gaps[:, 0] - np.cumsum(lengths) + lengths
    block = min(s_to_samples(1.0, recording.sampling_frequency), n_kept)
    wanted = max(1, s_to_samples(config.noise_sample_s, recording.sampling_frequency) // block)
    n_blocks = min(wanted, max(1, n_kept // block))
    edges = np.linspace(0, n_kept, n_blocks + 1).astype(np.int64)
    for low, high in itertools.pairwise(edges):
        start = int(rng.integers(low, max(low, high - block) + 1))
        start += int(lengths[: np.searchsorted(cuts, start, "right")].sum())
        yield start, min(start + block, recording.n_samples)


def rank(correlation: np.ndarray) -> int:
    """Number of directions across the channels that have noise of their own, by its correlation (n_channels, n_channels)."""
    values = np.linalg.eigvalsh(correlation)
    return int((values > LEAST_OWN_NOISE * values.max()).sum())


def whitening_matrix(covariance: np.ndarray, rank: int) -> np.ndarray:
    """Symmetric inverse square root (ZCA) of the noise's covariance (n_channels, n_channels), on its `rank` largest directions.

    The others (channels that are sums of others, as after a common reference) are projected out: amplified to variance 1,
    their rounding errors would look like spikes.
    """
    values, vectors = np.linalg.eigh(covariance)
    values, vectors = values[-rank:], vectors[:, -rank:]
    return (vectors / np.sqrt(values)) @ vectors.T


def prediction_filter(autocovariance: np.ndarray) -> np.ndarray:
    """Prediction-error filter 1, -a_1, ..., -a_n of noise with an autocovariance (n + 1,) (Yule-Walker equations).

    Against the symmetric filter with the same gain it whitens better at the same length, and it keeps the templates short
    (benchmarks/notebook/log.md).
    """
    first = np.r_[autocovariance[0] * (1 + STOP_BAND_FLOOR), autocovariance[1:-1]]
    return np.concatenate([[1.0], -solve_toeplitz(first, autocovariance[1:])])


def rewhitened(templates: np.ndarray, before: Preprocessor, now: Preprocessor) -> np.ndarray:
    """Templates (n_units, n_channels, n_times) that the filter `before` has whitened, as the filter `now` whitens them.

    Both filters are causal, so the inverse of the first one (autoregressive, and stable because a prediction-error filter is
    of minimum phase) needs nothing after the window. What lies before the window counts as 0.
    """
    from scipy.signal import lfilter  # half a second to load

    pairs = ((getattr(filters, name) for filters in (before, now)) for name in ("whitening_filter", "whitening_matrix"))
    if all(np.array_equal(*pair) for pair in pairs):
        return templates
    predicted = np.linalg.pinv(before.whitening_matrix) @ templates.astype(np.float64)
    for channel in range(before.n_channels):
        taps = now.whitening_filter[channel], before.whitening_filter[channel]
        predicted[:, channel] = lfilter(*taps, predicted[:, channel], axis=-1)
    return np.asarray(now.whitening_matrix @ predicted)
