"""Join the outcomes of the neighbourhoods of a probe into one, in which each neuron is one unit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from spikecrsae.crsae.model import CRsAE
from spikecrsae.csc.operator import gram
from spikecrsae.data.artefacts import KINDS
from spikecrsae.data.recording import Recording
from spikecrsae.data.sorting import SortingData
from spikecrsae.pipeline.combine import joint_outcome, joint_sorting, sorted_ones, warnings_of
from spikecrsae.pipeline.neighbourhoods import Neighbourhood, in_words
from spikecrsae.pipeline.outcome import Outcome
from spikecrsae.preprocess import sanity
from spikecrsae.units import ms_to_samples

#: Units of two neighbourhoods are one neuron if their templates have this cosine on the channels that both have, and more than this
#: part of the smaller one's spikes, without those expected by chance, coincide with spikes of the other, within so many ms.
SAME_TEMPLATE, SAME_SPIKES, SAME_TIME_MS = 0.8, 0.5, 0.4


def of_neighbourhoods(
    recording: Recording, neighbourhoods: Sequence[Neighbourhood], results: Sequence[Outcome | Exception]
) -> Outcome:
    """Join the outcomes of a probe's neighbourhoods into one, as if all channels had been sorted together. A neighbourhood
    that could not be sorted adds a warning and no units.

    Units are numbered neighbourhood by neighbourhood, in each the largest first; known units keep their numbers. A unit
    that several neighbourhoods found is reported once (`owned_units`).
    """
    outcomes = sorted_ones(neighbourhoods, results)
    joint = joint_sorting(recording, neighbourhoods, outcomes)
    columns = dict(joint.units)
    of_unit = columns.pop("group")
    channels = joint.channels | {"groups": np.zeros(recording.n_channels, np.int64)}
    del channels["group_names"]
    sorting = replace(
        joint,
        units=columns,
        channels=channels,
        model=joint.model | {"sigma": np.sqrt(np.nanmean(joint.model["sigma"] ** 2))},
        curation=tuple({name: value for name, value in row.items() if name != "group"} for row in joint.curation),
        artefacts=_each_once(joint.artefacts),
        noise_over_time=_loudest(joint.noise_over_time),
    )
    if neighbourhoods[0].first_unit is None:
        kept, decisions = owned_units(sorting, of_unit, neighbourhoods)
        sorting = replace(_selected(sorting, kept), curation=(*sorting.curation, *decisions))
        number = {part: index for index, part in enumerate(neighbourhoods)}
        outcomes = {part: _reporting(outcome, kept[of_unit == number[part]]) for part, outcome in outcomes.items()}
    warnings = [*_warnings(recording, neighbourhoods, results), *sanity.of_units(sorting)]
    return joint_outcome(recording, sorting, outcomes, "neighbourhoods", warnings)


def _warnings(
    recording: Recording, neighbourhoods: Sequence[Neighbourhood], results: Sequence[Outcome | Exception]
) -> list[str]:
    """What is to be said of the neighbourhoods but not of their units, each with its channels; once and without these what several say
    alike."""
    said: dict[str, list[str]] = {}
    for part, result in zip(neighbourhoods, results, strict=True):
        on_units = result.on_units if isinstance(result, Outcome) else ()
        for text in warnings_of(result):
            if text not in on_units:
                said.setdefault(text, []).append(in_words(recording, part.channels))
    return [f"channels {names[0]}: {text}" if len(names) == 1 else text for text, names in said.items()]


def _selected(sorting: SortingData, kept: np.ndarray) -> SortingData:
    """The sorting with only these (bool, n_units) of its units, numbered anew."""
    number = np.where(kept, np.cumsum(kept) - 1, -1)
    spikes = sorting.spikes[kept[sorting.unit_rows]]
    spikes["unit"] = number[spikes["unit"]]
    units = {name: values[kept] for name, values in sorting.units.items()}
    if "complex_of" in units:
        known = units["complex_of"] >= 0
        simple = number[np.where(known, units["complex_of"], 0).astype(np.int64)]
        units["complex_of"] = np.where(known & (simple >= 0), simple, np.nan)
    of_units = sorting.model_of_units
    return replace(
        sorting,
        spikes=spikes,
        unit_ids=np.arange(np.count_nonzero(kept), dtype=np.int32),
        units=units,
        templates=sorting.templates[kept],
        templates_whitened=sorting.templates_whitened[kept],
        templates_std=sorting.templates_std[kept],
        peak_index=sorting.peak_index[kept],
        model={name: values[..., kept] if name in of_units else values for name, values in sorting.model.items()},
    )


def _reporting(outcome: Outcome, kept: np.ndarray) -> Outcome:
    """The outcome with a model that reports only these (bool, n_units) of its units, which come first."""
    saved = outcome.checkpoint
    model = CRsAE.of_dict(saved["crsae"])
    order = np.r_[np.flatnonzero(kept), np.flatnonzero(~kept), np.arange(len(kept), model.n_units)]
    reported = np.arange(model.n_units) < np.count_nonzero(kept)
    return replace(outcome, checkpoint=saved | {"crsae": model.select(order).to_dict(), "reported": reported})


def _each_once(artefacts: np.ndarray) -> np.ndarray:
    """Artefacts, in order of time, without those that another neighbourhood has as well: given ones at the same samples, and found
    ones of the same kind that overlap."""
    kept = np.zeros(len(artefacts), bool)
    for kind in np.unique(artefacts["kind"]):
        rows = np.flatnonzero(artefacts["kind"] == kind)
        here = artefacts[rows]
        if KINDS[kind] == "given":
            first = np.unique(here[["start", "stop", "sample"]], return_index=True)[1]
        else:
            first = np.flatnonzero(here["start"] >= np.maximum.accumulate(np.r_[-1, here["stop"][:-1]]))
        kept[rows[first]] = True
    return artefacts[kept]


def _loudest(noise: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The noise over time of all parts as one: the largest of theirs."""
    if not noise:
        return {}
    starts = np.unique(noise["first_sample"])
    levels = []
    for number in np.unique(noise["group"]):
        mine = noise["group"] == number
        levels.append(noise["times_usual"][mine][np.searchsorted(noise["first_sample"][mine], starts, "right") - 1])
    level = np.max(levels, axis=0)
    changes = np.flatnonzero(np.diff(level, prepend=np.nan) != 0)
    return {
        "first_sample": starts[changes],
        "group": np.zeros(len(changes), np.int64),
        "times_usual": level[changes],
    }


def owned_units(
    sorting: SortingData, of_unit: np.ndarray, neighbourhoods: Sequence[Neighbourhood]
) -> tuple[np.ndarray, tuple[dict[str, Any], ...]]:
    """Tell which units (bool, n_units) are kept of those that the neighbourhoods found, and why the others are removed.

    sorting: the units of all neighbourhoods; of_unit (n_units,): the neighbourhood of each. Of units that are one neuron (see
    SAME_TEMPLATE) the one with the largest whitened norm is kept: its neighbourhood records most of it. A unit that is
    like no other is kept if its peak channel is in its neighbourhood's core. Otherwise it is removed: its neuron lies
    farther away.
    """
    norm, peak = sorting.model["whitened_norm"], sorting.units["peak_channel"]
    in_core = np.array([peak[u] in neighbourhoods[of_unit[u]].core for u in range(sorting.n_units)], bool)
    together = _coincidences(sorting, of_unit, neighbourhoods)
    names = sorting.units.get("curation_id", sorting.unit_ids)
    kept, waits, decisions = np.zeros(sorting.n_units, bool), np.ones(sorting.n_units, bool), []
    for unit in np.argsort(-norm, kind="stable"):
        waits[unit] = False
        others = together[unit] > SAME_SPIKES
        better = np.flatnonzero(others & kept)
        if not len(better) and (in_core[unit] or np.any(others & in_core & waits)):
            kept[unit] = True
            continue
        row: dict[str, Any] = {"decision": "removal", "units": [int(names[unit])], "n": int(sorting.units["n_spikes"][unit])}
        if len(better):
            seen = better[together[unit, better].argmax()]
            why, part = f"unit {names[seen]} of another neighbourhood is the same neuron", float(together[unit, seen])
        else:
            why, part = "its peak lies outside of its neighbourhood's core", float(together[unit].max(initial=0.0))
        decisions.append(row | {"statistic": part, "level": SAME_SPIKES, "why": why})
    return kept, tuple(decisions)


def _coincidences(sorting: SortingData, of_unit: np.ndarray, neighbourhoods: Sequence[Neighbourhood]) -> np.ndarray:
    """The part (n_units, n_units) of the smaller unit's spikes that come with spikes of the other, chance taken off; 0 where
    their templates do not agree or both are of one neighbourhood."""
    together = np.zeros((sorting.n_units, sorting.n_units))
    noise = np.where(sorting.channels["noise_level"] > 0, sorting.channels["noise_level"], np.inf)
    templates = sorting.templates / noise[:, None]
    window = 2 * ms_to_samples(SAME_TIME_MS, sorting.sampling_frequency) + 1
    for first, second in itertools.combinations(range(len(neighbourhoods)), 2):
        shared = np.intersect1d(neighbourhoods[first].channels, neighbourhoods[second].channels)
        rows, columns = np.flatnonzero(of_unit == first), np.flatnonzero(of_unit == second)
        if not len(shared) or not len(rows) or not len(columns):
            continue
        here, there = templates[rows][:, shared], templates[columns][:, shared]
        correlation = gram(here, there)
        norms = np.outer(*(np.sqrt((part**2).sum(axis=(1, 2))) for part in (here, there)))
        cosine = correlation.max(axis=2) / np.maximum(norms, 1e-12)
        lag = correlation.argmax(axis=2) - (templates.shape[2] - 1)
        for i, j in np.argwhere(cosine >= SAME_TEMPLATE):
            a, b = rows[i], columns[j]
            later = sorting.peak_index[b] - sorting.peak_index[a] - lag[i, j]
            trains = sorting.spike_samples(sorting.unit_ids[a]) + later, sorting.spike_samples(sorting.unit_ids[b])
            smaller, larger = sorted(trains, key=len)
            near = np.searchsorted(larger, smaller + window // 2, "right") > np.searchsorted(larger, smaller - window // 2)
            chance = min(len(larger) * window / sorting.n_samples, 0.9)
            together[a, b] = together[b, a] = (near.mean() - chance) / (1 - chance)
    return together
