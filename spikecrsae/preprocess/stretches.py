"""One look through a recording for what no spikes can explain: stretches without pauses, stuck values, clicks, and its loud events."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_opening, binary_propagation, rank_filter

from spikecrsae.config import PreprocessConfig
from spikecrsae.data.intervals import inside, widened
from spikecrsae.data.recording import BLOCK, Recording
from spikecrsae.preprocess.events import LOUD, Events, find_events
from spikecrsae.preprocess.filters import design_filter
from spikecrsae.preprocess.preprocessor import filtered
from spikecrsae.progress import Observer
from spikecrsae.units import ms_to_samples, s_to_samples

#: Loudness is measured in bins of this length, shorter than the pauses between spikes; a stretch of so many bins is judged.
BIN_MS, STRETCH_BINS = 1.0, 32
#: The loudness of a stretch is that of the bin below which this part of its bins lie.
QUIET_PART = 0.2
#: What is usual is learnt from at most so much signal, in chunks evenly spread.
USUAL_S = 600.0
#: Chance of one false stretch in a recording whose loudness has a log-exponential upper tail.
ARTEFACT_LEVEL = 1e-2
#: A stretch whose quiet bins are not louder than this, in median bins, has pauses such as spikes leave.
LEAST_LOUDNESS = 5.0
#: A stretch in which no channel changes its value for this long is a drop-out or saturated.
STUCK_MS = 10.0
#: So many excursions are no neuron whose mean could be told; where they are so many times as loud as all others, they are clicks.
MOST_CLICKS, CLICK_LOUDNESS = 5, 3.0


@dataclass(frozen=True)
class Look:
    """What one look tells: the loud events; intervals (n, 2) in samples of stretches `without_pauses` and of `stuck` values, with
    their surroundings; clicks (n, 2): the bins, in samples, of the loudest places."""

    events: Events
    without_pauses: np.ndarray
    stuck: np.ndarray
    clicks: np.ndarray


def bin_width(fs: float) -> int:
    """Samples of a bin."""
    return max(2, ms_to_samples(BIN_MS, fs))


def look_through(
    recording: Recording, config: PreprocessConfig, gaps: np.ndarray, observer: Observer, least: float = LOUD
) -> Look:
    """Look through a recording of at least two stretches outside the `gaps` (n, 2); preprocess.artefacts says what is looked for.

    least: size of events, the `loud` of find_events.
    """
    fs = recording.sampling_frequency
    width = bin_width(fs)
    n_bins, step = recording.n_samples // width, BLOCK // width
    starts = range(0, n_bins, step)
    sos, margin = design_filter(config, fs)
    events = []

    def look(first: int) -> _Bins:
        low, high = max(0, first - STRETCH_BINS), min(first + step + STRETCH_BINS, n_bins)
        traces = filtered(recording, gaps, low * width, high * width, sos, margin, config.common_reference)
        observer.advance((min(first + step, n_bins) - first) * width)
        seen = ~inside(gaps, low * width, high * width)
        kept = seen.reshape(-1, width).all(axis=1)
        unchanged = kept & _unchanged(recording.raw(low * width, high * width), width)
        stuck = binary_opening(unchanged, np.ones(round(STUCK_MS / BIN_MS)))
        bins = _Bins(_rms(traces, width), kept & ~stuck, stuck, slice(first - low, min(first - low + step, high - low)))
        core = slice(bins.core.start * width, bins.core.stop * width)
        events.append(find_events(traces, seen & ~np.repeat(stuck, width), bins.rms, core, low * width, fs, least))
        return bins

    seen = {first: look(first) for first in starts[:: -(-len(starts) * step * width // s_to_samples(USUAL_S, fs))]}
    usual = _usual(seen.values())
    chance = _chance_level(np.concatenate([bins.statistic(usual)[bins.kept[bins.core]] for bins in seen.values()]), n_bins)
    loud, disturbed, stuck = (np.zeros(n_bins, bool) for _ in range(3))
    loudest = []
    for first in starts:
        bins, here = seen.pop(first, None) or look(first), slice(first, first + step)
        statistic = bins.statistic(usual)
        loud[here], disturbed[here] = statistic > chance, statistic > max(chance, LEAST_LOUDNESS)
        stuck[here] = bins.stuck[bins.core]
        loudest.append(bins.loudest(usual, first))
    clicks = np.array(_clicks(np.concatenate(loudest)), np.int64)[:, None]
    return Look(
        Events.joined(events).in_order(),
        _surroundings(binary_propagation(disturbed, mask=loud), width, recording.n_samples),
        _surroundings(stuck, width, recording.n_samples),
        np.concatenate([clicks, clicks + 1], axis=1) * width,
    )


def _surroundings(bad: np.ndarray, width: int, n_samples: int) -> np.ndarray:
    """Intervals (n, 2) of the bad bins: a find stands for the stretch around it, and one more is left out on both sides."""
    edges = np.flatnonzero(np.diff(bad, prepend=False, append=False)).reshape(-1, 2)
    return widened(edges * width, STRETCH_BINS // 2 * width + STRETCH_BINS * width, n_samples)


@dataclass(frozen=True)
class _Bins:
    """Bins of a chunk, `core`, and of a stretch more on both sides. rms (n_bins, n_channels): of the high-passed signal; stuck
    (bool, n_bins): bins outside the gaps in which, for STUCK_MS at least, no channel changes its value; kept: outside both."""

    rms: np.ndarray
    kept: np.ndarray
    stuck: np.ndarray
    core: slice

    def statistic(self, usual: np.ndarray) -> np.ndarray:
        """Loudness of the stretch around each bin of the core, in the `usual` bins (n_channels,); gaps count as usual."""
        loudness = np.where(self.kept, (self.rms / usual).min(axis=1), 1.0)
        return rank_filter(loudness, int(QUIET_PART * STRETCH_BINS), size=STRETCH_BINS, mode="nearest")[self.core]

    def loudest(self, usual: np.ndarray, first: int) -> np.ndarray:
        """Of every STRETCH_BINS bins of the core, which begins at bin `first`, the loudest on any channel (n, 2): bin, loudness."""
        loudness = np.where(self.kept, (self.rms / usual).max(axis=1), 0.0)[self.core]
        stretches = np.pad(loudness, (0, -len(loudness) % STRETCH_BINS)).reshape(-1, STRETCH_BINS)
        at = stretches.argmax(axis=1)
        return np.stack([first + np.arange(len(at)) * STRETCH_BINS + at, stretches.max(axis=1)], axis=1)


def _clicks(loudest: np.ndarray) -> list[int]:
    """The bins of clicks among the loudest (n, 2: bin, loudness) of all stretches; near ones are one excursion."""
    excursions: list[tuple[float, list[int]]] = []
    for place, loudness in loudest[np.argsort(-loudest[:, 1], kind="stable")][: 4 * MOST_CLICKS]:
        near = [bins for _, bins in excursions if min(abs(place - other) for other in bins) <= STRETCH_BINS]
        if near:
            near[0].append(int(place))
        else:
            excursions.append((loudness, [int(place)]))
    for n in range(min(MOST_CLICKS, len(excursions) - 1), 0, -1):
        if excursions[n - 1][0] > CLICK_LOUDNESS * excursions[n][0]:
            return [place for _, bins in excursions[:n] for place in bins]
    return []


def _usual(seen: Collection[_Bins]) -> np.ndarray:
    """The median bin of each channel (n_channels,); ones where none is kept."""
    rms = np.concatenate([bins.rms[bins.core][bins.kept[bins.core]] for bins in seen])
    return np.maximum(np.median(rms, axis=0), np.finfo(np.float32).tiny) if len(rms) else np.ones(rms.shape[1])


def _rms(traces: np.ndarray, width: int) -> np.ndarray:
    """Of bins of `width` samples of traces (n_samples, n_channels): (n_bins, n_channels)."""
    channels = [values.reshape(-1, width) for values in traces.T]
    return np.sqrt(np.stack([np.einsum("bt,bt->b", bins, bins) for bins in channels], axis=1) / width)


def _unchanged(raw: np.ndarray, width: int) -> np.ndarray:
    """Bins of `width` samples (bool, n_bins) in which no channel of raw (n_samples, n_channels) changes its value."""
    flat, n_channels = raw.ravel(), raw.shape[1]
    changes = np.zeros(raw.size, bool)
    np.not_equal(flat[n_channels:], flat[:-n_channels], out=changes[:-n_channels])
    # the last sample's change is into the next bin
    return np.logical_not(changes.reshape(-1, width * n_channels)[:, :-n_channels].any(axis=1))


def _chance_level(statistic: np.ndarray, n_bins: int) -> float:
    """The value that ARTEFACT_LEVEL stretches of a recording of n_bins would exceed by chance.

    The logarithm of the statistic is given an exponential upper tail, as wide as its lower quartile is away from the median:
    artefacts widen only the upper side. The tail of a normal distribution lies far within.
    """
    if not len(statistic):
        return np.inf
    lower, median = np.log(np.maximum(np.quantile(statistic, [0.25, 0.5]), 1e-9))
    scale = (median - lower) / np.log(2)
    return float(np.exp(median + scale * np.log(0.5 * n_bins / STRETCH_BINS / ARTEFACT_LEVEL)))
