"""The signal that units are learned from: all of a short recording; of a long one windows drawn at random, and events of all of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spikecrsae.config import Config
from spikecrsae.csc.backends import Backend
from spikecrsae.data.loudness import CLEAR, Loudness
from spikecrsae.data.pieces import Pieces
from spikecrsae.data.recording import BLOCK
from spikecrsae.detect.clustering import SMALLEST_CLUSTER
from spikecrsae.detect.detection import SpikeSubspace
from spikecrsae.detect.drawing import basis_of, features_of, seldom_first
from spikecrsae.preprocess.loudness import Loudnesses
from spikecrsae.preprocess.preprocessor import PreprocessedRecording
from spikecrsae.system.threads import in_each, n_cores
from spikecrsae.units import ms_to_samples, s_to_samples

#: Length of the windows that are drawn at random from a long recording, and their part of the signal that is drawn.
DRAWN_S, RANDOM_PART = 1.0, 0.5
#: Length of the shapes that detection learns.
SHAPE_MS = 1.0
#: Around an event so many template lengths are drawn each way. Between two pieces lie at least so many without an event.
REACH, APART = 2.0, 2.5


@dataclass(frozen=True)
class TrainingSignal:
    """Whitened signal (n_channels, n_samples) to learn from: pieces of a recording, laid end to end. level (n_samples,) uint8: of
    the noise that it is divided by, None where it is steady, see data.loudness. loudness: of the recording, as the signal shows it."""

    signal: np.ndarray
    level: np.ndarray | None
    pieces: Pieces
    loudness: Loudness

    @classmethod
    def of(cls, view: PreprocessedRecording, config: Config, rng: np.random.Generator, backend: Backend) -> TrainingSignal:
        """The whole recording, where it is no longer than initialise.max_signal_s. Else RANDOM_PART of that in windows drawn at random,
        and pieces around events from all of the recording: all events if they fit, otherwise first those of which the windows hold
        few (detect.drawing)."""
        fs = view.sampling_frequency
        length = min(s_to_samples(DRAWN_S, fs), view.n_samples)
        most = max(1, s_to_samples(config.initialise.max_signal_s, fs) // length)
        if most * length >= view.n_samples:
            gathered, pieces = Loudnesses(fs), Pieces.whole(view.n_samples)
            signal, level = _joined(view, pieces)
            gathered.add(signal)
            return cls(signal, level, pieces, gathered.loudness())
        n_windows = max(1, round(RANDOM_PART * most))
        starts = np.sort(rng.choice(view.n_samples // length, n_windows, replace=False)) * length
        windows = Pieces(starts, starts + length, view.n_samples, np.ones(n_windows, bool))
        found = _Events.of(view, _joined(view, windows)[0], config, backend)
        pieces = found.drawn(
            windows, (most - n_windows) * length, ms_to_samples(config.initialise.template_ms, fs), view, rng
        )
        return cls(*_joined(view, pieces), pieces, found.loudness)


def _joined(view: PreprocessedRecording, pieces: Pieces) -> tuple[np.ndarray, np.ndarray | None]:
    """The whitened signal (n_channels, n_samples) of pieces, end to end, and its levels."""
    places = [
        (first, min(first + BLOCK, int(stop)))
        for start, stop in zip(pieces.starts, pieces.stops, strict=True)
        for first in range(int(start), int(stop), BLOCK)
    ]
    signal, end = np.empty((view.n_channels, pieces.n_samples), np.float32), 0
    for k in range(0, len(places), n_cores()):
        for _, white in view.both_of(places[k : k + n_cores()]):
            begin, end = end, end + white.shape[1]
            signal[:, begin:end] = white
    levels = [view.level(*place) for place in places]
    known = [level for level in levels if level is not None]
    return signal, np.concatenate(known) if known else None


@dataclass(frozen=True)
class _Events:
    """The events of a recording: samples (n,), and features (n, n_features) with noise of variance 1. loudness: of the recording."""

    samples: np.ndarray
    features: np.ndarray
    loudness: Loudness

    @classmethod
    def of(cls, view: PreprocessedRecording, drawn: np.ndarray, config: Config, backend: Backend) -> _Events:
        """Found with one pass over the recording. drawn (n_channels, n_samples): whitened signal that shows which shapes spikes have."""
        fs, initial = view.sampling_frequency, config.initialise
        length, dead_time = max(4, ms_to_samples(SHAPE_MS, fs)), max(1, ms_to_samples(initial.dead_time_ms, fs))
        subspace = SpikeSubspace.learn(drawn, initial.detection_threshold, length, dead_time, backend=backend)
        basis = basis_of(subspace.coefficients(drawn, subspace.detect(drawn, initial.detection_threshold, dead_time)))
        margin, gathered = length + 4 * dead_time, Loudnesses(fs)
        samples, features = [], []

        def search(white: np.ndarray, wide: tuple[int, int], place: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
            found = subspace.detect(white, initial.detection_threshold, dead_time)
            found = found[(found >= place[0] - wide[0]) & (found < place[1] - wide[0])]
            return found + wide[0], features_of(subspace.coefficients(white, found), basis)

        starts = range(0, view.n_samples, BLOCK)
        for k in range(0, len(starts), n_cores()):
            places = [(start, min(start + BLOCK, view.n_samples)) for start in starts[k : k + n_cores()]]
            wide = [(max(a - margin, 0), min(b + margin, view.n_samples)) for a, b in places]
            signals = [white for _, white in view.both_of(wide)]
            for (at, described), white, (a, b), (low, _) in zip(
                in_each(search, signals, wide, places), signals, places, wide, strict=True
            ):
                samples.append(at)
                features.append(described)
                gathered.add(white[:, a - low : b - low])
        return cls(np.concatenate(samples), np.concatenate(features), gathered.loudness())

    def drawn(
        self, windows: Pieces, most: int, n_times: int, view: PreprocessedRecording, rng: np.random.Generator
    ) -> Pieces:
        """The windows and pieces around other events, of at most so many samples."""
        after = np.searchsorted(windows.starts, self.samples, "right")
        inside = (after > 0) & (self.samples < windows.stops[np.maximum(after - 1, 0)])
        outside = np.flatnonzero(~inside)
        if not len(outside):
            return windows
        clump, starts, stops = _clumps(self.samples[outside], n_times, windows)
        level = view.loudness
        clear = level.levels[np.searchsorted(level.starts, self.samples[outside], "right") - 1] <= CLEAR
        order = seldom_first(self.features[inside], self.features[outside[clear]], SMALLEST_CLUSTER, rng)
        ranked, first = np.unique(clump[clear][order], return_index=True)
        ranked = ranked[np.argsort(first)]
        chosen = np.sort(ranked[np.cumsum((stops - starts)[ranked]) <= most])
        n_known = inside.sum() + np.isin(clump, chosen).sum()
        starts, stops = np.r_[windows.starts, starts[chosen]], np.r_[windows.stops, stops[chosen]]
        order = np.argsort(starts)
        random = (np.arange(len(starts)) < len(windows.starts))[order]
        return Pieces(starts[order], stops[order], windows.n_recorded, random, float(n_known / len(self.samples)))


def _clumps(samples: np.ndarray, n_times: int, windows: Pieces) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which clump each of the events at these samples, outside the windows, belongs to (n,), and where each clump starts and stops:
    signal that holds the events whole, with edges where there is none."""
    reach = round(REACH * n_times)
    new = np.r_[True, np.diff(samples) > APART * n_times]
    clump = np.cumsum(new) - 1
    first, last = samples[new], samples[np.r_[new[1:], True]]
    middle = (last[:-1] + first[1:]) // 2
    before = np.r_[0, windows.stops][np.searchsorted(windows.starts, first, "right")]
    after = np.r_[windows.starts, windows.n_recorded][np.searchsorted(windows.starts, first, "right")]
    starts = np.maximum.reduce([first - reach, np.r_[0, middle], before])
    stops = np.minimum.reduce([last + reach, np.r_[middle, windows.n_recorded], after])
    return clump, starts, stops
