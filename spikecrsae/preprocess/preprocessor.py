"""Show a recording through its filters: high-pass, common reference and whitening, stretch by stretch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from spikecrsae.data.intervals import NONE, bridged, inside, widened
from spikecrsae.data.loudness import Loudness, noise_of
from spikecrsae.data.recording import Recording
from spikecrsae.preprocess import filters
from spikecrsae.system.threads import in_each
from spikecrsae.units import ms_to_samples

#: A gap up to this length is bridged so well that nothing is left out beside it.
SHORT_MS = 10.0


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
        """Whiten high-passed traces (n_samples, n_channels) in time, then across channels: signal (n_channels, n_samples), float32;
        zero before the start."""
        return filters.whiten(highpassed, self.whitening_filter, self.whitening_matrix)


@dataclass(frozen=True)
class PreprocessedRecording:
    """A recording seen through its preprocessor; every stretch equals that stretch of the whole.

    gaps (n, 2): intervals [start, stop) in samples, ascending and apart, whose traces are not looked at. Before filtering a
    gap is bridged, so that nothing of an artefact rings on; afterwards signal is zero in the `excluded` samples. No filter runs
    across a seam, an empty gap.

    loudness: the noise over time; whitened signal is divided by it, so that its noise has variance 1 everywhere.
    """

    recording: Recording
    preprocessor: Preprocessor
    gaps: np.ndarray = field(default_factory=lambda: NONE)
    loudness: Loudness = field(default_factory=Loudness.steady)

    @property
    def n_samples(self) -> int:
        return self.recording.n_samples

    @property
    def n_channels(self) -> int:
        return self.recording.n_channels

    @property
    def sampling_frequency(self) -> float:
        return self.recording.sampling_frequency

    @cached_property
    def excluded(self) -> np.ndarray:
        """The samples (n, 2) that are left out, see left_out."""
        p = self.preprocessor
        short, n_taps = ms_to_samples(SHORT_MS, self.sampling_frequency), p.whitening_filter.shape[1] - 1
        return left_out(with_ends(self.gaps, p.settling, self.n_samples), self.n_samples, short, n_taps + p.settling)

    def highpassed(self, start: int, stop: int) -> np.ndarray:
        """High-passed traces, (stop - start, n_channels), in the recording's unit."""
        high = self._filtered(start, stop)
        high[inside(self.excluded, start, stop)] = 0
        return high

    def both(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """High-passed traces (stop - start, n_channels) and whitened signal (n_channels, stop - start) of the same stretch."""
        return self.both_of([(start, stop)])[0]

    def both_of(self, places: Sequence[tuple[int, int]]) -> list[tuple[np.ndarray, np.ndarray]]:
        """As `both`, of each of several stretches (start, stop), each computed by itself, on all cores."""
        n_taps, p = self.preprocessor.whitening_filter.shape[1], self.preprocessor
        before = [min(start, n_taps - 1) for start, _ in places]
        wider = [(start - reach, stop) for reach, (start, stop) in zip(before, places, strict=True)]
        blocks = filtered_blocks(self.recording, self.gaps, wider, p.sos, p.margin, p.common_reference)

        def finish(high: np.ndarray, reach: int, place: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
            white = p.whiten(high)[:, reach:]
            left_out = inside(self.excluded, *place)
            high[reach:][left_out], white[:, left_out] = 0, 0
            if (level := self.level(*place)) is not None:
                white /= noise_of(level).astype(np.float32)
            return high[reach:], white

        return in_each(finish, blocks, before, places)

    def level(self, start: int, stop: int) -> np.ndarray | None:
        """Levels (uint8) of the noise that whitened signal is divided by, see data.loudness; None where it is steady."""
        return None if self.loudness.is_steady else self.loudness.at(start, stop)

    def _filtered(self, start: int, stop: int) -> np.ndarray:
        p = self.preprocessor
        return filtered(self.recording, self.gaps, start, stop, p.sos, p.margin, p.common_reference)


def with_ends(gaps: np.ndarray, settling: int, n_samples: int) -> np.ndarray:
    """The gaps (n, 2), and the ends of the recording where filters have to settle, as empty intervals."""
    return np.concatenate([[[0, 0]], gaps, [[n_samples, n_samples]]]) if settling else gaps


def left_out(gaps: np.ndarray, n_samples: int, short: int, reach: int) -> np.ndarray:
    """The samples (n, 2) that are left out because of gaps (n, 2).

    A gap longer than `short` samples, and an empty one, is wider by `reach` on both sides: behind it slow potentials and hum go on
    otherwise than the bridge. The bridge over a shorter one differs from the signal by fast noise alone. High-pass and whitening together
    answer to that in the gap itself and hardly beside it: a sample after the gap the whitened noise is what it is without the gap, and
    before the gap it has its usual variance (benchmarks/notebook/log.md).
    """
    lengths = gaps[:, 1] - gaps[:, 0]
    narrow = (lengths > 0) & (lengths <= short)
    return widened(np.concatenate([widened(gaps[~narrow], reach, n_samples), gaps[narrow]]), 0, n_samples)


def filtered(
    recording: Recording, gaps: np.ndarray, start: int, stop: int, sos: np.ndarray, margin: int, common_reference: str
) -> np.ndarray:
    """Zero-phase filter and common reference of a stretch with the gaps bridged, (stop - start, n_channels), float32."""
    return filtered_blocks(recording, gaps, [(start, stop)], sos, margin, common_reference)[0]


def filtered_blocks(
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
    passed = iter(in_each(lambda block: _highpass(block, sos, margin, common_reference), traces))
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


def _highpass(traces: np.ndarray, sos: np.ndarray, margin: int, common_reference: str) -> np.ndarray:
    filtered = filters.zero_phase(traces, sos, margin)
    if common_reference == "median":
        filtered -= np.median(filtered, axis=1, keepdims=True)
    elif common_reference == "mean":
        filtered -= filtered.mean(axis=1, keepdims=True)
    return filtered
