"""What is gathered of decoded chunks: all spikes, and of every unit a sample of its waveforms, their mean and spread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from spikecrsae.crsae.model import CRsAE
from spikecrsae.curate.bursts import BURST_MS
from spikecrsae.data.artefacts import ARTEFACT_DTYPE
from spikecrsae.data.intervals import NONE, in_any
from spikecrsae.data.loudness import Loudness
from spikecrsae.data.spikes import Spikes
from spikecrsae.decode.blocks import DecodedChunk, Decoding
from spikecrsae.decode.confidence import outliers
from spikecrsae.decode.unexplained import unexplained
from spikecrsae.detect.windows import windows_at
from spikecrsae.progress import Observer
from spikecrsae.units import ms_to_samples

#: Waveforms of each unit that are kept for the quality columns.
KEPT_WAVEFORMS = 500


class WaveformSample:
    """At most KEPT_WAVEFORMS high-passed waveforms of one unit, drawn at random from all its spikes: windows (n, n_times,
    n_channels) at `samples` (n,), in order of time.

    Each spike has a random priority that its sample in the recording and the seed decide alone, and the first ones stay: the
    same are kept however the recording is cut into chunks.
    """

    def __init__(self, n_times: int, n_channels: int, seed: int) -> None:
        self._seed = seed
        self.samples = np.zeros(0, np.int64)
        self.windows = np.zeros((0, n_times, n_channels), np.float32)

    def add(self, samples: np.ndarray, traces: np.ndarray, starts: np.ndarray) -> None:
        """Offer later spikes: samples in the recording, and where their waveforms begin in traces (n_samples,
        n_channels)."""
        self._add(samples, lambda which: windows_at(traces, starts[which], self.windows.shape[1]))

    def join(self, later: WaveformSample) -> None:
        """Offer those that another one has kept of later spikes."""
        self._add(later.samples, lambda which: later.windows[which])

    def _add(self, samples: np.ndarray, windows: Callable[[np.ndarray], np.ndarray]) -> None:
        before, samples = len(self.samples), np.concatenate([self.samples, samples])
        kept = np.sort(np.argsort(_scrambled(samples, self._seed), kind="stable")[:KEPT_WAVEFORMS])
        stay, come = kept[kept < before], kept[kept >= before] - before
        self.windows = np.concatenate([self.windows[stay], windows(come)], dtype=np.float32)
        self.samples = samples[kept]


def _scrambled(numbers: np.ndarray, seed: int) -> np.ndarray:
    """Random numbers (uint64) that the given ones and a seed decide: the output function of SplitMix64 (Steele et al.
    2014)."""
    start = np.random.SeedSequence(seed).generate_state(1, np.uint64)
    x = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + start
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@dataclass(frozen=True)
class Gathered:
    """What is kept of a decoded chunk: its spikes and its large `events` that no spike explains, samples counted from the start of the
    recording, the spikes' misfit, and for each unit that fires the UnitWaveforms. It is small, so that it can be sent from one process to
    another."""

    spikes: Spikes
    misfit: np.ndarray
    waveforms: dict[int, UnitWaveforms]
    events: np.ndarray

    @classmethod
    def of(cls, chunk: DecodedChunk, n_times: int, seed: int) -> Gathered:
        """n_times: of the whitened templates; seed: decides which waveforms are kept."""
        s, margin = chunk.spikes, n_times // 2
        padded = np.pad(chunk.highpassed, ((margin, margin), (0, 0)))
        waveforms = {}
        for unit in np.unique(s.unit):
            mine = s.unit == unit
            clear = bool((mine & s.clear).any())
            starts = s.sample[mine & s.clear if clear else mine]
            sample = WaveformSample(n_times, padded.shape[1], seed)
            sample.add(starts + chunk.start, padded, starts + margin)
            whole = (starts >= margin) & (starts + n_times + margin <= len(chunk.highpassed))
            starts = starts[whole] if whole.any() else starts
            windows = windows_at(padded, starts, n_times + 2 * margin).astype(np.float64)
            waveforms[int(unit)] = UnitWaveforms(
                sample, windows.sum(axis=0), (windows**2).sum(axis=0), len(windows), whole.any(), clear
            )
        return cls(s.later(chunk.start), chunk.misfit, waveforms, chunk.events + chunk.start)


@dataclass(frozen=True)
class UnitWaveforms:
    """Of one unit in one chunk: a sample of its high-passed waveforms, and the sum and the sum of squares (n_times + 2 margin,
    n_channels) of `count` wider windows, those that the chunk holds `whole`, or else those that its edges cut. clear: they are of
    clear spikes (see Spikes.clear); otherwise the unit has no clear spike here."""

    sample: WaveformSample
    total: np.ndarray
    squares: np.ndarray
    count: int
    whole: bool
    clear: bool = True


#: Where the blocks of a recording are decoded: what takes the arguments of `gathered` and gives what that gives.
Gather = Callable[[Decoding, int, int, Observer], Iterator[Gathered]]


def gathered(
    decoding: Decoding, chunk_size: int, seed: int, observer: Observer, blocks: range | None = None
) -> Iterator[Gathered]:
    """What is kept of each of the blocks, all unless given, in order, decoded here; chunk_size samples at once."""
    return decoding.chunks(
        blocks or range(decoding.n_blocks), chunk_size, observer, lambda chunk: Gathered.of(chunk, decoding.n_times, seed)
    )


@dataclass
class Collector:
    """Gathers decoded chunks, in order: all spikes, and per unit a sample of its high-passed waveforms and the sums that give
    their mean and spread.

    The whitened template holds a spike's sharp part; the high-passed waveform lasts longer, so it is gathered from
    `margin` = n_times // 2 samples before the whitened template to as many after it.
    """

    n_units: int
    n_channels: int
    n_times: int
    seed: int = 0
    chunks: list[Spikes] = field(default_factory=list)
    misfits: list[np.ndarray] = field(default_factory=list)
    events: list[np.ndarray] = field(default_factory=list)
    waveforms: list[WaveformSample] = field(init=False)
    total: np.ndarray = field(init=False)
    squares: np.ndarray = field(init=False)
    counts: np.ndarray = field(init=False)
    clear: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        shape = (self.n_units, self.n_times + 2 * self.margin, self.n_channels)
        self.total, self.squares = np.zeros(shape), np.zeros(shape)
        self.counts = np.zeros(self.n_units, np.int64)
        self.clear = np.zeros(self.n_units, bool)
        self.waveforms = [self._no_waveforms() for _ in range(self.n_units)]

    def _no_waveforms(self) -> WaveformSample:
        return WaveformSample(self.n_times, self.n_channels, self.seed)

    @property
    def margin(self) -> int:
        return self.n_times // 2

    def add(self, chunk: Gathered) -> None:
        """Take in the next chunk."""
        self.chunks.append(chunk.spikes)
        self.misfits.append(chunk.misfit)
        self.events.append(chunk.events)
        for unit, here in chunk.waveforms.items():
            # waveforms in loud noise count only as long as there is no clear one
            if self.clear[unit] and not here.clear:
                continue
            if here.clear and not self.clear[unit]:
                self.clear[unit], self.waveforms[unit], self.counts[unit] = True, self._no_waveforms(), 0
                self.total[unit], self.squares[unit] = 0, 0
            self.waveforms[unit].join(here.sample)
            # windows cut by a chunk's edge count only as long as there is no whole one
            if here.whole or not self.counts[unit]:
                self.total[unit] += here.total
                self.squares[unit] += here.squares
                self.counts[unit] += here.count

    def spikes(self) -> Spikes:
        """All spikes, samples counted from the start of the recording."""
        return Spikes.joined(self.chunks)

    def misfit(self) -> np.ndarray:
        """Misfit (n_spikes,) of all spikes, see CRsAE.misfit."""
        return np.concatenate([*self.misfits, np.zeros(0)])

    def outliers(self, model: CRsAE, sampling_frequency: float) -> np.ndarray:
        """Spikes (bool, n) that are none of their unit, see confidence."""
        return outliers(self.spikes(), self.misfit(), model, ms_to_samples(BURST_MS, sampling_frequency))

    def unexplained(self, model: CRsAE, facts: RecordingFacts) -> np.ndarray:
        """Samples of the large events that fit no unit, see decode.unexplained."""
        spikes, outlying = self.spikes(), self.outliers(model, facts.sampling_frequency)
        events = np.concatenate([*self.events, np.zeros(0, np.int64)])
        found = unexplained(events, spikes.select(~outlying), spikes.select(outlying), model)
        return found[~in_any(facts.excluded, found)]

    def templates(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean high-passed waveforms and standard deviations, each (n_units, n_channels, n_times + 2 margin), in the
        recording's unit."""
        n = np.maximum(self.counts, 1)[:, None, None]
        mean = self.total / n
        spread = np.sqrt(np.maximum(self.squares / n - mean**2, 0))
        return mean.transpose(0, 2, 1).astype(np.float32), spread.transpose(0, 2, 1).astype(np.float32)


@dataclass(frozen=True)
class RecordingFacts:
    """What a Sorting says of its recording.

    channels: columns of the table of all channels; those that are not `masked` were sorted. noise_level (n_sorted_channels,): in
    the recording's unit. whitening_matrix: see Preprocessor. excluded (n, 2): intervals that were left out, in samples. artefacts: what
    is no neuron's, of ARTEFACT_DTYPE. loudness: the noise over time. files: as in SortingData.
    """

    sampling_frequency: float
    n_samples: int
    amplitude_unit: str
    start_time_s: float
    channels: dict[str, np.ndarray]
    noise_level: np.ndarray
    whitening_matrix: np.ndarray
    excluded: np.ndarray = field(default_factory=lambda: NONE)
    artefacts: np.ndarray = field(default_factory=lambda: np.zeros(0, ARTEFACT_DTYPE))
    loudness: Loudness = field(default_factory=Loudness.steady)
    files: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def usable(self) -> np.ndarray:
        """The sorted channels (n_all_channels,) bool."""
        return ~self.channels["masked"]
