"""Survey, high-pass filter and noise whitening, learnt from silent periods and applied chunk by chunk."""

from __future__ import annotations

import hashlib
import itertools
import logging
from dataclasses import dataclass, field

import numpy as np
from scipy import signal as sps
from scipy.linalg import solve_toeplitz

from spikecrsae.config import PreprocessConfig
from spikecrsae.errors import InputError
from spikecrsae.hum import find_lines, notches, part_to_leave
from spikecrsae.intervals import NONE, bridged, inside, widened
from spikecrsae.progress import Observer
from spikecrsae.recording import Recording
from spikecrsae.units import ms_to_samples, s_to_samples

log = logging.getLogger(__name__)

#: A channel is saturated where more than this part of its samples repeats its own extreme value.
SATURATED_FRACTION = 0.01
#: A direction across channels with less than this part of the largest noise power holds only rounding errors.
LEAST_OWN_NOISE = 1e-4
#: Numbers beyond this are no voltages, and their squares leave float32.
LARGEST_SAMPLE = 1e18
#: Part of the noise power added as white noise before the prediction filter is solved for: where the high-pass has
#: removed everything there is nothing to whiten.
STOP_BAND_FLOOR = 1e-3


@dataclass(frozen=True)
class Survey:
    """What one pass over all samples tells: usable channels (bool, n_channels), what is wrong with the others, and the
    checksum (blake2b of the stored samples in order)."""

    usable: np.ndarray
    problems: tuple[str, ...]
    checksum: str


def survey(recording: Recording, chunk_size: int, observer: Observer, gaps: np.ndarray = NONE) -> Survey:
    """Read everything once: checksum, non-finite samples, flat and saturated channels (judged outside the `gaps`).

    Raises InputError where a sample is NaN or infinite (names the first), or where no usable channel is left.
    """
    observer.start("check", recording.n_samples)
    digest = hashlib.blake2b(digest_size=16)
    extremes = [_Extreme(recording.n_channels, sign) for sign in (1, -1)]
    for start in range(0, recording.n_samples, chunk_size):
        stop = min(start + chunk_size, recording.n_samples)
        raw = np.ascontiguousarray(recording.raw(start, stop))
        digest.update(raw.data)
        refuse_impossible(recording, raw, start)
        kept = raw[~inside(gaps, start, stop)]
        for extreme in extremes if len(kept) else ():
            extreme.add(kept)
        observer.advance(stop - start)
    highest, lowest = extremes
    usable = np.ones(recording.n_channels, bool)
    problems = []
    for channel, name in enumerate(recording.channel_ids):
        stuck = max(highest.repeated[channel], lowest.repeated[channel]) / recording.n_samples
        if highest.value[channel] == lowest.value[channel]:
            problems.append(f"channel {name} is flat (every sample is {highest.value[channel]}) and is left out")
        elif stuck > SATURATED_FRACTION:
            problems.append(
                f"channel {name} is saturated ({stuck:.0%} of its samples stay at an extreme value) and is left out"
            )
        else:
            continue
        usable[channel] = False
    if not usable.any():
        raise InputError(f"{recording.source}: no usable channel is left: {'; '.join(problems)}.")
    observer.finish(f"{usable.sum()} of {recording.n_channels} channels usable")
    return Survey(usable, tuple(problems), digest.hexdigest())


def refuse_impossible(recording: Recording, raw: np.ndarray, start: int) -> None:
    """Raise InputError where stored samples (n_samples, n_channels) from `start` on are not finite or too large for voltages."""
    if raw.dtype.kind != "f":
        return
    sound = np.isfinite(raw) & (np.abs(raw) < LARGEST_SAMPLE)
    if sound.all():
        return
    row, channel = np.argwhere(~sound)[0]
    raise InputError(
        f"{recording.source}: sample {start + row} of channel {recording.channel_ids[channel]} is {raw[row, channel]}; every sample "
        f"must be finite and below {LARGEST_SAMPLE:g}. Repair the file, leave the channel out with --channels, or check --dtype."
    )


class _Extreme:
    """Running maximum (sign 1) or minimum (sign -1) per channel, and how many samples repeat it at once."""

    def __init__(self, n_channels: int, sign: int) -> None:
        self.value = np.full(n_channels, -np.inf * sign)
        self.repeated = np.zeros(n_channels, np.int64)
        self._pick = np.max if sign > 0 else np.min

    def add(self, raw: np.ndarray) -> None:
        here = self._pick(raw, axis=0)
        beaten = self._pick([here, self.value], axis=0) != self.value
        self.repeated[beaten] = 0
        self.value[beaten] = here[beaten]
        at = raw == self.value
        self.repeated += (at[1:] & at[:-1]).sum(axis=0)


@dataclass(frozen=True)
class Preprocessor:
    """The filters of one recording. All arrays are float64.

    sos: sections of the zero-phase filter; margin: samples after which its transients are below 1e-8; settling: samples next to
    an end of the signal in which hum is not yet filtered out (0 where there is no hum).
    noise_level (n_channels,): standard deviation of the high-passed noise, in the recording's unit.
    whitening_filter (n_channels, n_taps): causal prediction-error filter of each channel's noise; whitening_matrix
    (n_channels, n_channels): across channels, applied after it. Whitened noise has variance 1 on every channel.
    """

    sos: np.ndarray
    margin: int
    common_reference: str
    noise_level: np.ndarray
    whitening_matrix: np.ndarray
    whitening_filter: np.ndarray
    quiet_fraction: float
    settling: int = 0

    @property
    def n_channels(self) -> int:
        return len(self.noise_level)

    def whiten(self, highpassed: np.ndarray) -> np.ndarray:
        """Whiten high-passed traces (n_samples, n_channels) in time, then across channels, float32; zero before the start."""
        taps = self.whitening_filter.T.astype(np.float32)
        predicted = sps.oaconvolve(highpassed, taps, mode="full", axes=0)[: len(highpassed)]
        return (predicted @ self.whitening_matrix.T.astype(np.float32)).astype(np.float32)


@dataclass(frozen=True)
class PreprocessedRecording:
    """A recording seen through its preprocessor; every stretch equals that stretch of the whole.

    gaps (n, 2): intervals [start, stop) in samples, ascending and apart, whose traces are not looked at. Before filtering a
    gap is bridged, so that nothing of an artefact rings on; afterwards signal is zero in the `excluded` samples.
    """

    recording: Recording
    preprocessor: Preprocessor
    gaps: np.ndarray = field(default_factory=lambda: NONE)

    @property
    def n_samples(self) -> int:
        return self.recording.n_samples

    @property
    def n_channels(self) -> int:
        return self.recording.n_channels

    @property
    def sampling_frequency(self) -> float:
        return self.recording.sampling_frequency

    @property
    def excluded(self) -> np.ndarray:
        """The gaps (n, 2), each wider by the whitening filter, which predicts noise from samples before that a gap lacks, and
        by the settling of hum, which is left out at the recording's ends too."""
        n_taps, settling = self.preprocessor.whitening_filter.shape[1] - 1, self.preprocessor.settling
        return widened(_with_ends(self.gaps, settling, self.n_samples), n_taps + settling, self.n_samples)

    def highpassed(self, start: int, stop: int) -> np.ndarray:
        """High-passed traces, (stop - start, n_channels), in the recording's unit."""
        high = self._filtered(start, stop)
        high[inside(self.excluded, start, stop)] = 0
        return high

    def whitened(self, start: int, stop: int) -> np.ndarray:
        """Whitened traces, (stop - start, n_channels), noise variance 1."""
        return self.both(start, stop)[1]

    def both(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """High-passed and whitened traces of the same stretch."""
        reach = min(start, self.preprocessor.whitening_filter.shape[1] - 1)
        high = self._filtered(start - reach, stop)
        white = self.preprocessor.whiten(high)
        blank = inside(self.excluded, start - reach, stop)
        high[blank], white[blank] = 0, 0
        return high[reach:], white[reach:]

    def _filtered(self, start: int, stop: int) -> np.ndarray:
        p = self.preprocessor
        return filtered(self.recording, self.gaps, start, stop, p.sos, p.margin, p.common_reference)


def _with_ends(gaps: np.ndarray, settling: int, n_samples: int) -> np.ndarray:
    """The gaps (n, 2), and the ends of the recording where filters have to settle, as empty intervals."""
    return np.concatenate([[[0, 0]], gaps, [[n_samples, n_samples]]]) if settling else gaps


def filtered(
    recording: Recording, gaps: np.ndarray, start: int, stop: int, sos: np.ndarray, margin: int, common_reference: str
) -> np.ndarray:
    """Zero-phase filter and common reference of a stretch with the gaps bridged, (stop - start, n_channels), float32."""
    left, right = min(margin, start), min(margin, recording.n_samples - stop)
    traces = bridged(recording, gaps, start - left, stop + right)
    return _highpass(traces, sos, margin, common_reference)[left : left + stop - start]


def fit(
    recording: Recording,
    config: PreprocessConfig,
    rng: np.random.Generator,
    observer: Observer,
    gaps: np.ndarray = NONE,
) -> Preprocessor:
    """Learn noise level and whitening from the silent periods of at most `noise_sample_s` of the recording outside the `gaps`.

    Raises InputError where the recording is too short to filter or never quiet enough to learn its noise.
    """
    fs = recording.sampling_frequency
    if config.common_reference != "none" and recording.n_channels == 1:
        raise InputError(
            f"{recording.source}: preprocess.common_reference = {config.common_reference} takes away the only usable channel; "
            "it needs at least two. Leave --common-reference out."
        )
    sos, margin = design_filter(config, fs)
    observer.start("noise")
    places = list(_noise_blocks(recording, config, gaps, rng))
    settling, kept = 0, [~inside(gaps, start, stop) for start, stop in places]
    blocks = [filtered(recording, gaps, start, stop, sos, margin, config.common_reference) for start, stop in places]
    quiet, noise_level = _quiet_samples(blocks, kept, config, fs)
    lines = find_lines(blocks, quiet, fs) if config.remove_hum else ()
    if len(lines):
        log.warning("hum is filtered out at %s Hz", ", ".join(f"{centre:.0f}" for centre in lines[:, 0]))
        sos = np.concatenate([sos, notches(lines, fs)])
        margin, settling = _settling_samples(sos), _settling_samples(sos, part_to_leave(lines))
        blocks = [filtered(recording, gaps, start, stop, sos, margin, config.common_reference) for start, stop in places]
        unsettled = widened(_with_ends(gaps, settling, recording.n_samples), settling, recording.n_samples)
        kept = [~inside(unsettled, start, stop) for start, stop in places]
        quiet, noise_level = _quiet_samples(blocks, kept, config, fs)
    n_quiet = sum(int(q.sum()) for q in quiet)
    fraction = n_quiet / sum(int(k.sum()) for k in kept)
    n_taps = ms_to_samples(config.whitening_ms, fs)
    if n_quiet < 20 * (n_taps + recording.n_channels):
        raise InputError(
            f"{recording.source}: only {n_quiet} quiet samples ({fraction:.1%} of the signal looked at) to learn the noise from; "
            f"{20 * (n_taps + recording.n_channels)} are needed. Give a longer recording or raise preprocess.quiet_threshold."
        )
    rank = _rank(np.concatenate([b[q] for b, q in zip(blocks, quiet, strict=True)]))
    if rank == recording.n_channels:
        taps = np.stack([_prediction_filter([b[:, c] for b in blocks], quiet, n_taps) for c in range(rank)])
    else:
        log.warning("the channels are linearly dependent: %d of %d have noise of their own", rank, recording.n_channels)
        # one filter for all, or what cancels across the channels would no longer cancel after it
        pooled = [b[:, c] / noise_level[c] for c in range(recording.n_channels) for b in blocks]
        taps = np.tile(_prediction_filter(pooled, quiet * recording.n_channels, n_taps), (recording.n_channels, 1))
    predicted = [sps.oaconvolve(block, taps.T, mode="full", axes=0)[: len(block)] for block in blocks]
    matrix = _whitening_matrix(np.concatenate([p[q] for p, q in zip(predicted, quiet, strict=True)]), rank)
    observer.finish(f"{fraction:.0%} of the signal is quiet")
    return Preprocessor(sos, margin, config.common_reference, noise_level, matrix, taps, fraction, settling)


def design_filter(config: PreprocessConfig, fs: float) -> tuple[np.ndarray, int]:
    """Sections of the Butterworth filter, and the samples after which its transients are below 1e-8. Raises InputError where
    its edges do not fit the sampling frequency fs in Hz."""
    sos = _sections(config, fs)
    return sos, _settling_samples(sos)


def _sections(config: PreprocessConfig, fs: float) -> np.ndarray:
    nyquist = fs / 2
    if config.highpass_hz >= nyquist:
        raise InputError(
            f"preprocess.highpass_hz = {config.highpass_hz} Hz must be below the Nyquist frequency, {nyquist} Hz at a sampling "
            f"frequency of {fs} Hz; give a lower --highpass-hz, or the true --sampling-frequency."
        )
    if config.lowpass_hz is None:
        return sps.butter(config.filter_order, config.highpass_hz, "highpass", fs=fs, output="sos")
    upper = min(config.lowpass_hz, 0.9 * nyquist)
    if upper < config.lowpass_hz:
        log.warning(
            "preprocess.lowpass_hz = %g Hz is lowered to %g Hz, below the Nyquist frequency", config.lowpass_hz, upper
        )
    if upper <= config.highpass_hz:
        raise InputError(
            f"the filter's upper edge, {upper:g} Hz, must be above its lower edge, {config.highpass_hz:g} Hz; "
            "change --lowpass-hz or --highpass-hz."
        )
    return sps.butter(config.filter_order, [config.highpass_hz, upper], "bandpass", fs=fs, output="sos")


def _settling_samples(sos: np.ndarray, left: float = 1e-8) -> int:
    """Samples after which the slowest pole has decayed to `left`."""
    poles = np.concatenate([np.roots(section[3:]) for section in sos])
    return int(np.ceil(np.log(left) / np.log(np.abs(poles).max())))


def _highpass(traces: np.ndarray, sos: np.ndarray, margin: int, common_reference: str) -> np.ndarray:
    pad = min(margin, len(traces) - 1)
    filtered = sps.sosfiltfilt(sos, traces, axis=0, padlen=pad).astype(np.float32)
    if common_reference == "median":
        filtered -= np.median(filtered, axis=1, keepdims=True)
    elif common_reference == "mean":
        filtered -= filtered.mean(axis=1, keepdims=True)
    return filtered


def _noise_blocks(recording: Recording, config: PreprocessConfig, gaps: np.ndarray, rng: np.random.Generator):
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


def _quiet_samples(
    blocks: list[np.ndarray], kept: list[np.ndarray], config: PreprocessConfig, fs: float
) -> tuple[list[np.ndarray], np.ndarray]:
    """Masks of quiet samples per block, and the noise level there; a few rounds, since each needs the other. Only samples
    that are `kept` (bool, one mask per block) count."""
    margin = ms_to_samples(config.quiet_margin_ms, fs)
    level = np.median(np.abs(np.concatenate([b[k] for b, k in zip(blocks, kept, strict=True)])), axis=0) / 0.6745
    if np.any(level <= 0):
        raise InputError("a channel has no noise at all (its median deviation is 0); leave it out with --channels.")
    for _ in range(3):
        quiet = []
        for block, keep in zip(blocks, kept, strict=True):
            loud = (np.abs(block) > config.quiet_threshold * level).any(axis=1) | ~keep
            spread = np.convolve(loud, np.ones(2 * margin + 1), mode="same")[: len(loud)] > 0.5
            quiet.append(~spread)
        pooled = np.concatenate([b[q] for b, q in zip(blocks, quiet, strict=True)])
        if len(pooled) < 2:
            break
        level = np.maximum(pooled.std(axis=0), 1e-12).astype(np.float64)
    return quiet, level


def _rank(noise: np.ndarray) -> int:
    """Number of directions across the channels of (n, n_channels) samples that have noise of their own."""
    values = np.linalg.eigvalsh(np.atleast_2d(np.cov(noise.T)))
    return int((values > LEAST_OWN_NOISE * values.max()).sum())


def _whitening_matrix(noise: np.ndarray, rank: int) -> np.ndarray:
    """Symmetric inverse square root (ZCA) of the noise covariance of (n, n_channels) samples, on its `rank` largest directions.

    The others (channels that are sums of others, as after a common reference) are projected out: amplified to variance 1,
    their rounding errors would look like spikes.
    """
    values, vectors = np.linalg.eigh(np.atleast_2d(np.cov(noise.T)))
    values, vectors = values[-rank:], vectors[:, -rank:]
    return (vectors / np.sqrt(values)) @ vectors.T


def _prediction_filter(blocks: list[np.ndarray], quiet: list[np.ndarray], n_taps: int) -> np.ndarray:
    """Prediction-error filter 1, -a_1, ..., -a_n_taps of a channel's noise (Yule-Walker equations).

    The autocovariance counts only pairs of samples that are both quiet. Against the symmetric filter with the same gain
    it whitens better at the same length, and it keeps the templates short (docs/log.md).
    """
    products, pairs = np.zeros(n_taps + 1), np.zeros(n_taps + 1)
    for block, mask in zip(blocks, quiet, strict=True):
        products += _autocorrelation(np.where(mask, block, 0.0), n_taps + 1)
        pairs += _autocorrelation(mask.astype(np.float64), n_taps + 1)
    covariance = products / np.maximum(pairs, 1.0)
    covariance[0] *= 1 + STOP_BAND_FLOOR
    return np.concatenate([[1.0], -solve_toeplitz(covariance[:-1], covariance[1:])])


def _autocorrelation(values: np.ndarray, n_lags: int) -> np.ndarray:
    size = 1 << int(np.ceil(np.log2(len(values) + n_lags)))
    return np.fft.irfft(np.abs(np.fft.rfft(values, size)) ** 2, size)[:n_lags]
