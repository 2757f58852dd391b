"""From decoded chunks to a Sorting: unwhitened templates, reported samples and amplitudes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from spikecrsae.crsae.complex_spikes import ComplexSpikes
from spikecrsae.crsae.model import CRsAE
from spikecrsae.curate.bursts import BURST_MS
from spikecrsae.curate.links import Links
from spikecrsae.data.artefacts import ARTEFACT_DTYPE, pulse_samples
from spikecrsae.data.intervals import NONE, in_any
from spikecrsae.data.loudness import Loudness, noise_of
from spikecrsae.data.peaks import Peaks
from spikecrsae.data.sorting import SPIKE_DTYPE, SortingData, timeline_of
from spikecrsae.data.spikes import Spikes
from spikecrsae.decode.blocks import DecodedChunk, Decoding
from spikecrsae.decode.confidence import error_rates, outliers, thresholds
from spikecrsae.decode.pauses import pause_columns
from spikecrsae.decode.quality import Evidence, label_units, unit_columns
from spikecrsae.decode.reference import reference_match
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

    def outliers(self, model: CRsAE, sampling_frequency: float) -> np.ndarray:
        """Spikes (bool, n) that are none of their unit, see confidence."""
        misfits, burst = np.concatenate([*self.misfits, np.zeros(0)]), ms_to_samples(BURST_MS, sampling_frequency)
        return outliers(self.spikes(), misfits, model, burst)

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


@dataclass(frozen=True)
class DecodedUnits:
    """The units whose spikes were decoded, and how they came about.

    reported (n_units,) bool: satellites are decoded, not reported. history: the course of the prior's parameters, (n_rounds,
    n_units) by name, NaN before a unit came. curation: its decisions; ids (n_units,): the units' names in them. drift
    (n_units,): see Drifting.extent. links: how units that were known before, which come first, have changed; None after `sort`.
    complexes: which units are the complex spikes of which; None where these were not sought.
    """

    model: CRsAE
    reported: np.ndarray
    history: dict[str, np.ndarray] = field(default_factory=dict)
    curation: tuple[dict, ...] = ()
    ids: np.ndarray | None = None
    drift: np.ndarray | None = None
    links: Links | None = None
    complexes: tuple[ComplexSpikes, ...] | None = None


def build_sorting(collector: Collector, units: DecodedUnits, facts: RecordingFacts) -> SortingData:
    """Build the Sorting of the decoded spikes, the largest amplitude first; units that were known before keep their numbers.

    Left out are units without a spike, units that are not reported, spikes in excluded intervals, and outliers (see confidence).
    Templates are zero on channels that were not sorted.
    """
    model = units.model
    spikes = collector.spikes().select(~collector.outliers(model, facts.sampling_frequency))
    errors = error_rates(spikes, model, facts.loudness.shares(facts.n_samples))
    mean, spread = collector.templates()
    spike_at = spikes.sample - collector.margin + Peaks.of(mean, facts.noise_level).index[spikes.unit]
    spikes = spikes.select(~in_any(facts.excluded, spike_at))
    size = Peaks.of(mean, facts.noise_level).size
    order = _largest_first(size, np.bincount(spikes.unit, minlength=model.n_units), units.reported)
    order = order if units.links is None else np.sort(order)
    numbers = np.arange(len(order)) if units.links is None else order + units.links.first
    mean, spread = mean[order], spread[order]
    peaks = Peaks.of(mean, facts.noise_level)
    spikes = _renumbered(spikes, order, model.n_units)
    table = _spike_table(spikes, peaks.size, peaks.index - collector.margin, facts.n_samples)
    columns = unit_columns(_evidence(collector, order, table, (mean, spread), model, facts))
    waveforms = [collector.waveforms[unit].windows for unit in order]
    columns["reference_match"] = reference_match(waveforms, facts.noise_level, facts.whitening_matrix)
    columns["noise_at_spikes"] = _noise_at_spikes(table, len(order), facts.loudness)
    columns |= _model_columns(units, order, errors, columns["amplitude"])
    columns |= pause_columns(units.complexes, order, numbers, table, facts.sampling_frequency)
    peak_channel = np.flatnonzero(facts.usable)[peaks.channel]
    prior = {name: values[order] for name, values in model.prior.parameters().items()}
    prior |= {"whitened_norm": np.sqrt(model.energy)[order]}
    table["unit"] = numbers[table["unit"]]
    return SortingData(
        spikes=table,
        unit_ids=numbers.astype(np.int32),
        sampling_frequency=facts.sampling_frequency,
        n_samples=facts.n_samples,
        n_channels=len(facts.usable),
        amplitude_unit=facts.amplitude_unit,
        units={"label": label_units(columns), "peak_channel": peak_channel, **columns},
        templates=_on_all_channels(mean, facts.usable),
        templates_whitened=_on_all_channels(model.templates[order], facts.usable),
        templates_std=_on_all_channels(spread, facts.usable),
        peak_index=peaks.index,
        channels=facts.channels,
        model=_history(units, order) | prior,
        curation=units.curation,
        start_time_s=facts.start_time_s,
        excluded=facts.excluded,
        artefacts=facts.artefacts,
        files=facts.files,
        noise_over_time={
            "first_sample": facts.loudness.starts,
            "group": np.zeros(len(facts.loudness.starts), np.int64),
            "times_usual": noise_of(facts.loudness.levels),
        },
    )


def _noise_at_spikes(table: np.ndarray, n_units: int, loudness: Loudness) -> np.ndarray:
    """The mean noise (n_units,) at each unit's spikes, relative to the usual one; NaN for a unit without a spike."""
    noise = noise_of(loudness.levels)[np.searchsorted(loudness.starts, table["sample"], "right") - 1]
    counts = np.bincount(table["unit"], minlength=n_units)
    return np.divide(np.bincount(table["unit"], noise, n_units), counts, out=np.full(n_units, np.nan), where=counts > 0)


def _history(units: DecodedUnits, order: np.ndarray) -> dict[str, np.ndarray]:
    """sigma, and the course of each unit's prior, of the units in `order`."""
    history = {f"{name}_history": values[:, order] for name, values in units.history.items()}
    return {"sigma": np.array(units.model.sigma)} | history


def _evidence(
    collector: Collector,
    order: np.ndarray,
    table: np.ndarray,
    waveforms: tuple[np.ndarray, np.ndarray],
    model: CRsAE,
    facts: RecordingFacts,
) -> Evidence:
    """What the quality of the units in `order` is judged by. waveforms: mean and standard deviation of theirs."""
    by_unit = [table[table["unit"] == unit] for unit in range(len(order))]
    return Evidence(
        samples=[mine["sample"] for mine in by_unit],
        amplitudes=[mine["amplitude"].astype(np.float64) for mine in by_unit],
        waveforms=[collector.waveforms[unit].windows for unit in order],
        waveform_samples=[collector.waveforms[unit].samples for unit in order],
        templates=waveforms[0],
        templates_std=waveforms[1],
        noise_level=facts.noise_level,
        whitened_norm=np.sqrt(model.energy)[order],
        timeline=timeline_of(facts.files, facts.start_time_s, facts.sampling_frequency),
        n_samples=facts.n_samples,
        dead_time=model.refractory,
        excluded=facts.excluded,
        pulses=pulse_samples(facts.artefacts),
    )


def _model_columns(
    units: DecodedUnits, order: np.ndarray, errors: tuple[np.ndarray, np.ndarray], amplitude: np.ndarray
) -> dict[str, np.ndarray]:
    """The columns that the model tells of the units in `order`. errors: of all units, see error_rates."""
    columns = {
        "threshold": thresholds(units.model)[order] * amplitude,
        "estimated_false_alarm": errors[0][order],
        "estimated_miss": errors[1][order],
        "drift": np.zeros(len(order)) if units.drift is None else units.drift[order],
    }
    if units.links is not None:
        columns |= {"model_gain": units.links.gain[order], "model_cosine": units.links.cosine[order]}
    return columns if units.ids is None else columns | {"curation_id": units.ids[order]}


def _largest_first(size: np.ndarray, fired: np.ndarray, reported: np.ndarray) -> np.ndarray:
    """The units (of n_units) that fire and are reported, by the size of their waveforms."""
    order = np.argsort(-size, kind="stable")
    return order[(fired[order] > 0) & reported[order]]


def _renumbered(spikes: Spikes, order: np.ndarray, n_units: int) -> Spikes:
    """The spikes of the units in `order`, each unit's number its place there."""
    place = np.full(n_units, -1, np.int64)
    place[order] = np.arange(len(order))
    return replace(spikes, unit=place[spikes.unit]).select(place[spikes.unit] >= 0)


def _spike_table(spikes: Spikes, peak: np.ndarray, peak_offset: np.ndarray, n_samples: int) -> np.ndarray:
    """Rows of SPIKE_DTYPE, sorted by sample, from spikes at the first samples of their templates. peak, peak_offset
    (n_units,): the template's largest deflection, and its place from that first sample."""
    table = np.zeros(len(spikes), SPIKE_DTYPE)
    table["sample"] = np.clip(spikes.sample + peak_offset[spikes.unit], 0, n_samples - 1)
    table["unit"] = spikes.unit
    table["amplitude"] = spikes.relative * peak[spikes.unit]
    table["shift"] = spikes.shift
    return table[np.lexsort((table["unit"], table["sample"]))]


def _on_all_channels(values: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """values (n_units, n_channels, n_times) of the usable channels, float32, with zeros on the others."""
    full = np.zeros((len(values), len(usable), values.shape[2]), np.float32)
    full[:, usable] = values
    return full
