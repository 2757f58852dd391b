"""Survey, high-pass filter and noise whitening, learnt from silent periods and applied chunk by chunk."""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np

from spikecrsae import filters, noise
from spikecrsae.config import PreprocessConfig
from spikecrsae.data.intervals import NONE, bridged, inside, widened, within
from spikecrsae.data.recording import Recording, refuse_impossible
from spikecrsae.errors import InputError
from spikecrsae.filter_design import design_filter, edges, settling_samples
from spikecrsae.hum import find_lines, notches, part_to_leave, strongest
from spikecrsae.progress import Observer
from spikecrsae.system.threads import n_cores
from spikecrsae.units import ms_to_samples, s_to_samples

log = logging.getLogger(__name__)

#: A channel is saturated where more than this part of its samples repeats its own extreme value.
SATURATED_FRACTION = 0.01


@dataclass(frozen=True)
class Survey:
    """What one pass over all samples tells: usable channels (bool, n_channels), what is wrong with the others, and the
    checksum (blake2b of the stored samples in order)."""

    usable: np.ndarray
    problems: tuple[str, ...]
    checksum: str

    def with_remarks(self, *remarks: Sequence[str]) -> Survey:
        """The survey with more to be said."""
        return replace(self, problems=(*self.problems, *itertools.chain(*remarks)))


def survey(recording: Recording, chunk_size: int, observer: Observer, gaps: np.ndarray = NONE) -> Survey:
    """Read everything once: checksum, non-finite samples, flat and saturated channels (judged outside the `gaps`).

    Raises InputError where a sample is NaN or infinite (names the first), or where no usable channel is left.
    """
    observer.start("check", recording.n_samples)
    digest = hashlib.blake2b(digest_size=16)
    extremes = [(_Extreme(1), _Extreme(-1)) for _ in range(recording.n_channels)]
    at_work: list[Future] = []
    with ThreadPoolExecutor(n_cores()) as pool:
        for start in range(0, recording.n_samples, chunk_size):
            stop = min(start + chunk_size, recording.n_samples)
            # read while the chunk before is worked on
            raw = np.ascontiguousarray(recording.raw(start, stop))
            refuse_impossible(recording, raw, start)
            kept = raw[~inside(gaps, start, stop)] if len(within(gaps, start, stop)) else raw
            _finish(at_work)
            at_work = [pool.submit(digest.update, raw.data)]
            if len(kept):
                at_work += [pool.submit(_add, pair, samples) for pair, samples in zip(extremes, kept.T, strict=True)]
            observer.advance(stop - start)
        _finish(at_work)
    usable = np.ones(recording.n_channels, bool)
    problems = []
    for channel, name in enumerate(recording.channel_ids):
        highest, lowest = extremes[channel]
        stuck = max(highest.repeated, lowest.repeated) / recording.n_samples
        if highest.value == lowest.value:
            problems.append(f"channel {name} is flat (every sample is {highest.value}) and is left out")
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


def _finish(jobs: list[Future]) -> None:
    for job in jobs:
        job.result()


def _add(extremes: tuple[_Extreme, _Extreme], samples: np.ndarray) -> None:
    samples = np.ascontiguousarray(samples)
    for extreme in extremes:
        extreme.add(samples)


class _Extreme:
    """Running maximum (sign 1) or minimum (sign -1) of a channel, and how many samples repeat it at once."""

    def __init__(self, sign: int) -> None:
        self.value = -np.inf * sign
        self.repeated = 0
        self._last = np.nan
        self._pick = np.max if sign > 0 else np.min

    def add(self, samples: np.ndarray) -> None:
        here = self._pick(samples)
        if self._pick([here, self.value]) == here:
            if here != self.value:
                self.value, self.repeated = here, 0
            at = samples == here
            # the first one may repeat the last one of the chunk before
            self.repeated += np.count_nonzero(at[1:] & at[:-1]) + int(at[0] and self._last == here)
        self._last = samples[-1]


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
        return filters.whiten(highpassed, self.whitening_filter, self.whitening_matrix)


@dataclass(frozen=True)
class PreprocessedRecording:
    """A recording seen through its preprocessor; every stretch equals that stretch of the whole.

    gaps (n, 2): intervals [start, stop) in samples, ascending and apart, whose traces are not looked at. Before filtering a
    gap is bridged, so that nothing of an artefact rings on; afterwards signal is zero in the `excluded` samples. No filter runs
    across a seam, an empty gap.
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
        for first, end in within(self.excluded, start, stop) - start:
            high[first:end] = 0
        return high

    def whitened(self, start: int, stop: int) -> np.ndarray:
        """Whitened traces, (stop - start, n_channels), noise variance 1."""
        return self.both(start, stop)[1]

    def both(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """High-passed and whitened traces of the same stretch."""
        return self.both_of([(start, stop)])[0]

    def both_of(self, places: Sequence[tuple[int, int]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """High-passed and whitened traces of each of several stretches (start, stop), each computed by itself, on all cores."""
        n_taps, p = self.preprocessor.whitening_filter.shape[1], self.preprocessor
        before = [min(start, n_taps - 1) for start, _ in places]
        wider = [(start - reach, stop) for reach, (start, stop) in zip(before, places, strict=True)]
        blocks = _filtered_blocks(self.recording, self.gaps, wider, p.sos, p.margin, p.common_reference)

        def finish(high: np.ndarray, reach: int, place: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
            white = p.whiten(high)[reach:]
            for first, end in within(self.excluded, *place) - place[0]:
                high[reach + first : reach + end], white[first:end] = 0, 0
            return high[reach:], white

        return noise.in_each(finish, blocks, before, places)

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
    return _filtered_blocks(recording, gaps, [(start, stop)], sos, margin, common_reference)[0]


def _filtered_blocks(
    recording: Recording,
    gaps: np.ndarray,
    places: list[tuple[int, int]],
    sos: np.ndarray,
    margin: int,
    common_reference: str,
) -> list[np.ndarray]:
    """As `filtered`, of several places (start, stop). They are read one after the other: not every format can be read from
    two threads."""
    seams = gaps[gaps[:, 0] == gaps[:, 1], 0]
    pieces = [_between_seams(start, stop, seams, margin, recording.n_samples) for start, stop in places]
    traces = [bridged(recording, gaps, first, end) for parts in pieces for first, _, _, end in parts]
    passed = iter(noise.in_each(lambda block: _highpass(block, sos, margin, common_reference), traces))
    blocks = [[next(passed)[start - first : stop - first] for first, start, stop, _ in parts] for parts in pieces]
    return [parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in blocks]


def _between_seams(start: int, stop: int, seams: np.ndarray, margin: int, n_samples: int) -> list[tuple[int, int, int, int]]:
    """The pieces of a stretch that no seam divides, (first, start, stop, end) each: the filter of start to stop sees first to
    end, `margin` samples more on both sides where the signal goes on so far."""
    bounds = np.concatenate([[0], seams, [n_samples]])
    cuts = [start, *seams[(seams > start) & (seams < stop)], stop]
    begins = bounds[np.searchsorted(bounds, cuts[:-1], "right") - 1]
    ends = bounds[np.searchsorted(bounds, cuts[1:], "left")]
    return [
        (int(max(low, a - margin)), int(a), int(b), int(min(b + margin, high)))
        for low, (a, b), high in zip(begins, itertools.pairwise(cuts), ends, strict=True)
    ]


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
    if config.lowpass_hz is not None and (upper := edges(config, fs)[1]) < config.lowpass_hz:
        log.warning(
            "preprocess.lowpass_hz = %g Hz is lowered to %g Hz, below the Nyquist frequency", config.lowpass_hz, upper
        )
    observer.start("noise")
    places = list(_noise_blocks(recording, config, gaps, rng))
    settling, kept = 0, [~inside(gaps, start, stop) for start, stop in places]
    blocks = _filtered_blocks(recording, gaps, places, sos, margin, config.common_reference)
    quiet, noise_level = noise.quiet_samples(blocks, kept, config, recording)
    lines = find_lines(blocks, quiet, fs) if config.remove_hum else ()
    if len(lines):
        lines, said = strongest(lines)
        log.warning(said)
        sos = np.concatenate([sos, notches(lines, fs)])
        margin, settling = settling_samples(sos), settling_samples(sos, part_to_leave(lines))
        blocks = _filtered_blocks(recording, gaps, places, sos, margin, config.common_reference)
        unsettled = widened(_with_ends(gaps, settling, recording.n_samples), settling, recording.n_samples)
        kept = [~inside(unsettled, start, stop) for start, stop in places]
        quiet, noise_level = noise.quiet_samples(blocks, kept, config, recording)
    n_quiet = sum(int(q.sum()) for q in quiet)
    fraction = n_quiet / sum(int(k.sum()) for k in kept)
    n_taps = ms_to_samples(config.whitening_ms, fs)
    if n_quiet < 20 * (n_taps + recording.n_channels):
        raise InputError(
            f"{recording.source}: only {n_quiet} quiet samples ({fraction:.1%} of the signal looked at) to learn the noise from; "
            f"{20 * (n_taps + recording.n_channels)} are needed. Give a longer recording or raise preprocess.quiet_threshold."
        )
    # of channels in one unit each: a scale that differs from channel to channel is no dependence
    rank = noise.rank(noise.covariance(blocks, quiet) / np.outer(noise_level, noise_level))
    autocovariances = noise.autocovariances(blocks, quiet, n_taps + 1)
    if rank < recording.n_channels:
        log.warning("the channels are linearly dependent: %d of %d have noise of their own", rank, recording.n_channels)
        # one filter for all, or what cancels across the channels would no longer cancel after it
        autocovariances[:] = (autocovariances / noise_level[:, None] ** 2).mean(axis=0)
    taps = np.stack([noise.prediction_filter(lags) for lags in autocovariances])
    predicted = noise.in_each(lambda block: filters.whiten(block, taps, np.eye(recording.n_channels)), blocks)
    matrix = noise.whitening_matrix(noise.covariance(predicted, quiet), rank)
    observer.finish(f"{fraction:.0%} of the signal is quiet")
    return Preprocessor(sos, margin, config.common_reference, noise_level, matrix, taps, fraction, settling)


def check_filter(recording: Recording, config: PreprocessConfig) -> None:
    """Raise InputError where the edges of the filter do not fit the recording's sampling frequency; nothing is read."""
    try:
        edges(config, recording.sampling_frequency)
    except InputError as error:
        raise InputError(f"{recording.source}: {error}") from error


def _highpass(traces: np.ndarray, sos: np.ndarray, margin: int, common_reference: str) -> np.ndarray:
    filtered = filters.zero_phase(traces, sos, margin)
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
