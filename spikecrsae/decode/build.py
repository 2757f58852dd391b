"""From collected spikes to a Sorting: reported units, samples, amplitudes, probabilities and the columns of the unit table."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from spikecrsae.crsae.complex_spikes import ComplexSpikes
from spikecrsae.crsae.model import CRsAE
from spikecrsae.curate.links import Links
from spikecrsae.data.artefacts import pulse_samples
from spikecrsae.data.intervals import in_any
from spikecrsae.data.loudness import Loudness, noise_of
from spikecrsae.data.peaks import Peaks
from spikecrsae.data.sorting import SPIKE_DTYPE, SortingData, timeline_of
from spikecrsae.data.spikes import Spikes
from spikecrsae.decode.collect import Collector, RecordingFacts
from spikecrsae.decode.confidence import below_threshold, thresholds
from spikecrsae.decode.pauses import pause_columns
from spikecrsae.decode.probability import NOT_A_NEURON, judge, spike_facts, unit_facts
from spikecrsae.decode.quality import Evidence, label_units, unit_columns
from spikecrsae.decode.rates import Rates, false_alarms, misses
from spikecrsae.decode.reference import reference_match


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
    spikes, probability, rates = _judged(collector, model, facts)
    mean, spread = collector.templates()
    spike_at = spikes.sample - collector.margin + Peaks.of(mean, facts.noise_level).index[spikes.unit]
    inside = ~in_any(facts.excluded, spike_at)
    spikes, probability = spikes.select(inside), probability[inside]
    size = Peaks.of(mean, facts.noise_level).size
    order = _largest_first(size, np.bincount(spikes.unit, minlength=model.n_units), units.reported)
    order = order if units.links is None else np.sort(order)
    numbers = np.arange(len(order)) if units.links is None else order + units.links.first
    mean, spread = mean[order], spread[order]
    peaks = Peaks.of(mean, facts.noise_level)
    spikes, probability = _renumbered(spikes, probability, order, model.n_units)
    table = _spike_table(spikes, probability, peaks.size, peaks.index - collector.margin, facts.n_samples)
    columns = unit_columns(_evidence(collector, order, table, (mean, spread), model, facts))
    waveforms = [collector.waveforms[unit].windows for unit in order]
    columns["reference_match"] = reference_match(waveforms, facts.noise_level, facts.whitening_matrix)
    columns["noise_at_spikes"] = _noise_at_spikes(table, len(order), facts.loudness)
    columns |= _model_columns(units, order, rates, columns["amplitude"])
    columns |= pause_columns(units.complexes, order, numbers, table, facts.sampling_frequency)
    peak_channel = np.flatnonzero(facts.usable)[peaks.channel]
    prior = {name: values[order] for name, values in model.prior.parameters().items()}
    prior |= {"whitened_norm": np.sqrt(model.energy)[order]}
    labels = label_units(columns)
    _distrust(table, columns, np.isin(labels, ("artefact", "noise")))
    table["unit"] = numbers[table["unit"]]
    return SortingData(
        spikes=table,
        unit_ids=numbers.astype(np.int32),
        sampling_frequency=facts.sampling_frequency,
        n_samples=facts.n_samples,
        n_channels=len(facts.usable),
        amplitude_unit=facts.amplitude_unit,
        units={"label": labels, "peak_channel": peak_channel, **columns},
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
    units: DecodedUnits, order: np.ndarray, rates: dict[str, Rates], amplitude: np.ndarray
) -> dict[str, np.ndarray]:
    """The columns that the model tells of the units in `order`. rates: of all units."""
    columns = {
        "threshold": thresholds(units.model)[order] * amplitude,
        **{name: values for kind, rate in rates.items() for name, values in rate.select(order).columns(kind).items()},
        "drift": np.zeros(len(order)) if units.drift is None else units.drift[order],
    }
    if units.links is not None:
        columns |= {"model_gain": units.links.gain[order], "model_cosine": units.links.cosine[order]}
    return columns if units.ids is None else columns | {"curation_id": units.ids[order]}


def _largest_first(size: np.ndarray, fired: np.ndarray, reported: np.ndarray) -> np.ndarray:
    """The units (of n_units) that fire and are reported, by the size of their waveforms."""
    order = np.argsort(-size, kind="stable")
    return order[(fired[order] > 0) & reported[order]]


def _judged(collector: Collector, model: CRsAE, facts: RecordingFacts) -> tuple[Spikes, np.ndarray, dict[str, Rates]]:
    """The spikes without outliers, their probabilities, and the rates of errors of all units by their name."""
    spikes, fs = collector.spikes(), facts.sampling_frequency
    outlying = collector.outliers(model, fs)
    kept = spikes.select(~outlying)
    told = spike_facts(spikes, collector.misfit(), ~outlying, model, fs).select(~outlying)
    n_samples = facts.n_samples - int(np.diff(facts.excluded).sum())
    judgement = judge(told, unit_facts(kept, model, n_samples, fs))
    below = below_threshold(kept, model, facts.loudness.shares(facts.n_samples))
    left_out = np.bincount(spikes.unit[outlying], minlength=model.n_units)
    rates = {
        "false_alarm": false_alarms(kept.unit, judgement),
        "miss": misses(told, kept.rival, judgement, below, left_out),
    }
    return kept, judgement.probability, rates


def _distrust(table: np.ndarray, columns: dict[str, np.ndarray], no_neuron: np.ndarray) -> None:
    """Lower the probabilities in the table, and raise the false alarms in the columns, of units (bool) that are no neuron."""
    spikes = no_neuron[table["unit"]]
    table["probability"][spikes] = np.minimum(table["probability"][spikes], NOT_A_NEURON)
    columns["false_alarm"] = np.where(
        no_neuron, np.maximum(columns["false_alarm"], 1 - NOT_A_NEURON), columns["false_alarm"]
    )
    columns["false_alarm_high"] = np.where(no_neuron, 1.0, columns["false_alarm_high"])


def _renumbered(spikes: Spikes, probability: np.ndarray, order: np.ndarray, n_units: int) -> tuple[Spikes, np.ndarray]:
    """The spikes of the units in `order`, each unit's number its place there, and their probability."""
    place = np.full(n_units, -1, np.int64)
    place[order] = np.arange(len(order))
    chosen = place[spikes.unit] >= 0
    return replace(spikes, unit=place[spikes.unit]).select(chosen), probability[chosen]


def _spike_table(
    spikes: Spikes, probability: np.ndarray, peak: np.ndarray, peak_offset: np.ndarray, n_samples: int
) -> np.ndarray:
    """Rows of SPIKE_DTYPE, sorted by sample, from spikes at the first samples of their templates. peak, peak_offset
    (n_units,): the template's largest deflection, and its place from that first sample."""
    table = np.zeros(len(spikes), SPIKE_DTYPE)
    table["sample"] = np.clip(spikes.sample + peak_offset[spikes.unit], 0, n_samples - 1)
    table["unit"] = spikes.unit
    table["amplitude"] = spikes.relative * peak[spikes.unit]
    table["shift"] = spikes.shift
    table["probability"] = probability
    return table[np.lexsort((table["unit"], table["sample"]))]


def _on_all_channels(values: np.ndarray, usable: np.ndarray) -> np.ndarray:
    """values (n_units, n_channels, n_times) of the usable channels, float32, with zeros on the others."""
    full = np.zeros((len(values), len(usable), values.shape[2]), np.float32)
    full[:, usable] = values
    return full
