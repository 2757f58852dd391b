"""Stretches of a recording that no spikes can explain: movement, rubbing, saturation, drop-outs."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_opening, binary_propagation, rank_filter

from spikecrsae.config import PreprocessConfig
from spikecrsae.intervals import NONE, inside, widened
from spikecrsae.preprocess import design_filter, filtered
from spikecrsae.progress import Observer
from spikecrsae.recording import Recording
from spikecrsae.units import ms_to_samples, s_to_samples

#: Loudness is measured in bins of this length, shorter than the pauses between spikes; a stretch of so many bins is judged.
BIN_MS, STRETCH_BINS = 1.0, 32
#: The loudness of a stretch is that of the bin below which this part of its bins lie.
QUIET_PART = 0.2
#: Chance of one false stretch in a recording whose loudness has a log-exponential upper tail.
LEVEL = 1e-2
#: A stretch whose quiet bins are not louder than this, in median bins, has pauses such as spikes leave.
LEAST_LOUDNESS = 5.0
#: A stretch in which no channel changes its value for this long is a drop-out or saturated.
STUCK_MS = 10.0


def find_artefacts(
    recording: Recording, config: PreprocessConfig, chunk_s: float, observer: Observer, gaps: np.ndarray = NONE
) -> np.ndarray:
    """Intervals (n, 2) in samples that look like artefacts, looked for outside the `gaps`.

    Movement shakes all channels and leaves no pause; spikes, however large and dense, leave pauses of a millisecond. In bins of
    BIN_MS the high-passed signal's RMS is divided by the channel's median bin, and the channel where that is least counts.
    The statistic of a stretch is the QUIET_PART quantile of its bins: dense spikes raise the upper quantiles, not this one.
    A stretch is an artefact above LEAST_LOUDNESS and above what chance gives (`_chance_level`), with its surroundings as long
    as they are above the latter, and one stretch more on both sides for what fades. So are stuck values (STUCK_MS).
    """
    fs = recording.sampling_frequency
    width = max(2, ms_to_samples(BIN_MS, fs))
    observer.start("artefacts", recording.n_samples)
    loudness, stuck = _bins(recording, config, width, s_to_samples(chunk_s, fs), observer, gaps)
    if len(loudness) < 2 * STRETCH_BINS:
        observer.finish("too short to look for any")
        return NONE
    quiet_bins = rank_filter(loudness, int(QUIET_PART * STRETCH_BINS), size=STRETCH_BINS, mode="nearest")
    chance = _chance_level(quiet_bins)
    bad = binary_propagation(quiet_bins > max(chance, LEAST_LOUDNESS), mask=quiet_bins > chance)
    bad |= binary_opening(stuck, np.ones(round(STUCK_MS / BIN_MS)))
    edges = np.flatnonzero(np.diff(np.r_[0, bad, 0])).reshape(-1, 2)
    # a find stands for the stretch around it, and one more is left out on both sides
    found = widened(edges * width, STRETCH_BINS // 2 * width + STRETCH_BINS * width, recording.n_samples)
    observer.finish(f"{len(found)} stretches" if len(found) else "none")
    return found


def _bins(
    recording: Recording, config: PreprocessConfig, width: int, chunk_size: int, observer: Observer, gaps: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Per bin of `width` samples: loudness on the channel where it is least, in median bins of that channel (1 in a gap), and
    whether no channel changes its value in it."""
    sos, margin = design_filter(config, recording.sampling_frequency)
    n_bins = recording.n_samples // width
    step = max(1, chunk_size // width)
    rms, stuck, kept = np.zeros((n_bins, recording.n_channels), np.float32), np.zeros(n_bins, bool), np.zeros(n_bins, bool)
    for first in range(0, n_bins, step):
        last = min(first + step, n_bins)
        start, stop = first * width, last * width
        high = filtered(recording, gaps, start, stop, sos, margin, config.common_reference)
        for channel, values in enumerate(high.T):
            bins = values.reshape(-1, width)
            rms[first:last, channel] = np.sqrt(np.einsum("bt,bt->b", bins, bins) / width)
        stuck[first:last] = _unchanged(recording.raw(start, stop), width)
        kept[first:last] = ~inside(gaps, start, stop).reshape(-1, width).any(axis=1)
        observer.advance(stop - start)
    usual = np.median(rms[kept], axis=0) if kept.any() else np.ones(recording.n_channels)
    loudness = (rms / np.maximum(usual, np.finfo(np.float32).tiny)).min(axis=1)
    return np.where(kept, loudness, 1.0), stuck & kept


def _unchanged(raw: np.ndarray, width: int) -> np.ndarray:
    """Bins of `width` samples (bool, n_bins) in which no channel of raw (n_samples, n_channels) changes its value."""
    flat, n_channels = raw.ravel(), raw.shape[1]
    changes = np.zeros(raw.size, bool)
    np.not_equal(flat[n_channels:], flat[:-n_channels], out=changes[:-n_channels])
    # the last sample's change is into the next bin
    return ~changes.reshape(-1, width * n_channels)[:, :-n_channels].any(axis=1)


def _chance_level(statistic: np.ndarray) -> float:
    """The value that LEVEL stretches of the recording would exceed by chance.

    The logarithm of the statistic is given an exponential upper tail, as wide as its lower quartile is away from the median:
    artefacts widen only the upper side. The tail of a normal distribution lies far within.
    """
    lower, median = np.log(np.maximum(np.quantile(statistic, [0.25, 0.5]), 1e-9))
    scale = (median - lower) / np.log(2)
    return float(np.exp(median + scale * np.log(0.5 * len(statistic) / STRETCH_BINS / LEVEL)))
