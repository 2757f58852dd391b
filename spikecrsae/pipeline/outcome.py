"""Decode a group of channels with a learned model, and gather all that a run gives."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from spikecrsae.config import Config
from spikecrsae.curate.complex_spikes import PAUSE_MS
from spikecrsae.data.recording import Recording
from spikecrsae.data.sorting import SortingData, files_table
from spikecrsae.decode.blocks import Decoding
from spikecrsae.decode.build import DecodedUnits, build_sorting
from spikecrsae.decode.collect import Collector, Gather, RecordingFacts
from spikecrsae.decode.unexplained import remark
from spikecrsae.pipeline import known_units
from spikecrsae.pipeline.fit import Run
from spikecrsae.pipeline.learned import Learned, LearnedModel
from spikecrsae.preprocess import sanity
from spikecrsae.preprocess.preprocessor import PreprocessedRecording
from spikecrsae.preprocess.survey import Survey
from spikecrsae.system.text import counted
from spikecrsae.units import s_to_samples

EXAMPLE_S = 0.1


@dataclass(frozen=True)
class Outcome:
    """All that a run gives: the sorting, the model for `apply`, and the facts about the run. on_units: those of the warnings that name
    units by their numbers here."""

    sorting: SortingData
    checkpoint: dict[str, Any]
    stage_seconds: dict[str, float]
    device: str
    warnings: tuple[str, ...]
    input_checksum: str
    config: Config
    on_units: tuple[str, ...] = ()


def decode_group(whole: Recording, learned: Learned, run: Run, gather: Gather) -> Outcome:
    """Inference over the time range of the whole recording and everything that is made of it."""
    recording, survey, model, config = whole.in_range(), learned.survey, learned.model, run.config
    used = learned.artefacts.without_pulses(recording.select(np.flatnonzero(survey.usable).tolist()))
    view = PreprocessedRecording(used, learned.preprocessor, learned.artefacts.gaps, learned.loudness)
    n_times, seed = model.crsae.n_times, config.runtime.seed
    collector = Collector(model.crsae.n_units, view.n_channels, n_times, seed)
    run.observer.start("infer", view.n_samples)
    chunk_size = s_to_samples(config.infer.chunk_s, recording.sampling_frequency)
    for chunk in gather(Decoding(view, model.drifting, n_times), chunk_size, seed, run.observer):
        collector.add(chunk)
    units, facts = _units(model, config.initialise.complex_spikes), _facts(recording, view, learned)
    sorting = build_sorting(collector, units, facts)
    told = _of_complex_spikes(sorting) if config.initialise.complex_spikes else ()
    if (links := model.links) is not None:
        is_new = np.arange(model.crsae.n_units) >= len(links.partner)
        unknown = build_sorting(collector, replace(units, reported=is_new, links=None), facts)
        told += known_units.remarks(sorting, unknown, model, config.infer.adapt)
    on_units = sanity.of_units(sorting)
    beside = collector.unexplained(model.crsae, facts)
    # templates that are known do not follow steps unless they adapt
    step_sizes = model.drifting.step_sizes()[:, model.reported]
    stepping = step_sizes.any(axis=1)
    run.observer.finish(counted(len(sorting.spikes), "spike"))
    run.clock.lap("infer")
    return Outcome(
        sorting=_with_example(sorting, view, survey).placed(whole),
        checkpoint=_checkpoint(recording, learned, config, sorting),
        stage_seconds=run.clock.seconds,
        device=run.device,
        warnings=survey.with_remarks(
            told,
            sanity.of_loudness(recording, view.loudness),
            sanity.of_steps(recording, model.drifting.steps[stepping], step_sizes[stepping]),
            sanity.of_result(view.recording, sorting),
            on_units,
            remark(beside, len(sorting.spikes), recording),
        ).problems,
        input_checksum=survey.checksum,
        config=config,
        on_units=on_units,
    )


def _of_complex_spikes(sorting: SortingData) -> tuple[str, ...]:
    """How many complex spikes each neuron has, or why none were found."""
    units = sorting.units
    said = tuple(
        f"{counted(units['n_spikes'][row], 'complex spike')} ({units['firing_rate'][row]:.3g} Hz) are a unit of their own; in the "
        f"{PAUSE_MS:g} ms after them the simple spikes fall to {units['pause_ratio'][row]:.0%} of their rate, p = "
        f"{units['pause_p'][row]:.1g} (complex_of in units.csv)"
        for row in np.flatnonzero(units["complex_of"] >= 0)
    )
    reasons = Counter(row["why"] for row in sorting.curation if row["decision"] == "no complex spikes")
    each = "; ".join(f"{counted(n, 'unit')}: {why}" for why, n in reasons.items())
    return said or (f"no complex spikes were found{f' ({each})' if each else ''}",)


def _units(model: LearnedModel, complex_spikes: bool) -> DecodedUnits:
    drifting = model.drifting
    complexes = drifting.complexes if complex_spikes else None
    return DecodedUnits(
        model.crsae,
        model.reported,
        model.history,
        model.curation,
        model.ids,
        drifting.extent(),
        model.links,
        complexes,
    )


def _facts(recording: Recording, view: PreprocessedRecording, learned: Learned) -> RecordingFacts:
    survey, artefacts = learned.survey, learned.artefacts.table.copy()
    artefacts["channel"] = np.where(artefacts["channel"] >= 0, np.flatnonzero(survey.usable)[artefacts["channel"]], -1)
    return RecordingFacts(
        sampling_frequency=recording.sampling_frequency,
        n_samples=recording.n_samples,
        amplitude_unit=recording.amplitude_unit,
        start_time_s=recording.start_time_s,
        channels=_channel_table(recording, view, survey),
        noise_level=view.preprocessor.noise_level,
        whitening_matrix=view.preprocessor.whitening_matrix,
        excluded=view.excluded,
        artefacts=artefacts,
        loudness=view.loudness,
        files=files_table(recording),
    )


def _channel_table(recording: Recording, view: PreprocessedRecording, survey: Survey) -> dict[str, np.ndarray]:
    noise = np.full(recording.n_channels, np.nan)
    noise[survey.usable] = view.preprocessor.noise_level
    table = {
        "ids": np.array(recording.channel_ids, dtype=object),
        "groups": np.zeros(recording.n_channels, np.int64),
        "noise_level": noise,
        "masked": ~survey.usable,
    }
    if recording.channel_positions is not None:
        table["positions"] = recording.channel_positions
    return table


def _checkpoint(recording: Recording, learned: Learned, config: Config, sorting: SortingData) -> dict[str, Any]:
    """What `apply` needs. The units that the sorting reports come first, in its order, so that `apply` gives them the same
    numbers; those that were known before stay as they are."""
    model = learned.model
    if model.links is None:
        ids = np.arange(model.crsae.n_units) if model.ids is None else model.ids
        found = np.array([np.flatnonzero(ids == one)[0] for one in sorting.units.get("curation_id", [])], np.int64)
        rows = np.r_[found, np.setdiff1d(np.arange(model.crsae.n_units), found)]
        reported = np.arange(len(rows)) < len(found)
    else:
        rows = np.arange(len(model.links.partner))
        reported = model.reported[rows]
    return {
        "n_channels": recording.n_channels,
        "amplitude_unit": recording.amplitude_unit,
        "sampling_frequency": recording.sampling_frequency,
        "usable": learned.survey.usable,
        "preprocessor": _fields(learned.preprocessor),
        "crsae": model.crsae.select(rows).to_dict(),
        "reported": reported,
        "config": config.to_dict(),
    }


def _with_example(sorting: SortingData, view: PreprocessedRecording, survey: Survey) -> SortingData:
    """The sorting with the stretch of EXAMPLE_S of high-passed traces in which most units fire."""
    start, stop = busiest_stretch(sorting)
    traces = np.zeros((stop - start, sorting.n_channels), np.float32)
    traces[:, survey.usable] = view.highpassed(start, stop)
    return replace(sorting, example=traces, example_start=start)


def busiest_stretch(sorting: SortingData) -> tuple[int, int]:
    """(start, stop) of the EXAMPLE_S in which most units fire."""
    length = min(s_to_samples(EXAMPLE_S, sorting.sampling_frequency), sorting.n_samples)
    bins = sorting.spikes["sample"] // length
    pairs = np.unique(np.stack([bins, sorting.spikes["unit"]], axis=1), axis=0) if len(bins) else np.zeros((1, 2), np.int64)
    start = min(int(np.bincount(pairs[:, 0]).argmax()) * length, sorting.n_samples - length)
    return start, start + length


def _fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, without what it has derived from them."""
    return {f.name: getattr(value, f.name) for f in fields(value)}
