"""Known units in another recording: which of the neurons there are theirs, which are new, and how the known ones have
changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spikecrsae.curate.bursts import SAME_SHAPE
from spikecrsae.curate.links import MOST_GAIN, Links
from spikecrsae.data.sorting import SortingData
from spikecrsae.detect.bimodality import SHAPE_VARIATION
from spikecrsae.pipeline.learned import LearnedModel
from spikecrsae.system.text import counted

#: A unit with fewer than this part of the spikes that its rate in the model gives is called silent, where these are FEW at
#: least.
SILENT_PART, FEW = 0.02, 10

#: A template that differs from the model's by more than this part of its norm has changed.
CHANGED = 0.2


def with_new_units(known: LearnedModel, learned: LearnedModel, adapt: bool, first_unit: int = 0) -> LearnedModel:
    """The known units, followed by the units learned from the recording that are none of them: these take the spikes that
    would otherwise be forced into a known unit, and are not reported.

    adapt: known units get the templates and priors of their partners, with their drift. Without it they keep their
    templates; the prior of a unit whose size has changed (SHAPE_VARIATION) admits its size here. first_unit: number of the
    first known unit.
    """
    links = replace(Links.of(known.crsae.templates, learned.crsae.templates), first=first_unit)
    new = np.setdiff1d(np.flatnonzero(learned.reported), links.partner)
    first, n_known = known.crsae, known.crsae.n_units
    here = first.prior.admitting(np.where(np.abs(links.gain - 1) > SHAPE_VARIATION, links.gain, 1.0))
    rows = np.r_[np.where(adapt & (links.partner >= 0), n_known + links.partner, np.arange(n_known)), n_known + new]
    model = replace(
        first,
        templates=np.concatenate([first.templates, learned.crsae.templates])[rows],
        prior=here.joined(learned.crsae.prior).select(rows),
        support=np.concatenate([first.support, learned.crsae.support])[rows],
    )
    changes = learned.drifting.changes
    still = np.zeros((len(changes), *first.templates.shape))
    # complex spikes that were learned here, by the units' places among all
    place = np.full(learned.crsae.n_units, -1)
    place[links.partner[links.partner >= 0]] = np.flatnonzero(links.partner >= 0)
    place[new] = n_known + np.arange(len(new))
    moved = [
        replace(told, simple=int(place[told.simple]), complex=int(place[told.complex]))
        for told in learned.drifting.complexes
    ]
    complexes = tuple(told for told in moved if min(told.simple, told.complex) >= 0)
    drifting = replace(
        learned.drifting, model=model, complexes=complexes, changes=np.concatenate([still, changes], axis=1)[:, rows]
    )
    return replace(known, drifting=drifting, reported=np.r_[known.reported, np.zeros(len(new), bool)], links=links)


def remarks(sorting: SortingData, unknown: SortingData, model: LearnedModel, adapted: bool) -> tuple[str, ...]:
    """What is to be said of the known units in a recording. sorting: of these; unknown: of the new units."""
    return (*_of_new_units(unknown), *_of_silent_units(sorting, model), *_of_changed_units(sorting, adapted))


def _of_new_units(unknown: SortingData) -> list[str]:
    if not len(unknown.spikes):
        return []
    first, last = unknown.times_s(unknown.spikes["sample"][[0, -1]])
    channels, unit = unknown.channels["ids"], unknown.amplitude_unit
    facts = zip(*(unknown.units[name] for name in ("firing_rate", "amplitude", "peak_channel")), strict=True)
    each = "; ".join(f"{rate:.3g} Hz, {size:.3g} {unit} on channel {channels[channel]}" for rate, size, channel in facts)
    return [
        f"{counted(len(unknown.spikes), 'spike')} from {first:.3g} to {last:.3g} s, {len(unknown.spikes) / unknown.sorted_s:.3g} a second, fit no "
        f"unit of the model and are not reported: {counted(unknown.n_units, 'new unit')} ({each}). Sort the recording to get them"
    ]


def _of_silent_units(sorting: SortingData, model: LearnedModel) -> list[str]:
    penalty = model.crsae.prior.parameters().get("penalty")
    if penalty is None:
        return []
    expected = np.exp(-penalty) * sorting.sorted_s * sorting.sampling_frequency
    first, said = model.links.first if model.links else 0, []
    for unit in np.flatnonzero(model.reported & (expected >= FEW)).tolist():
        found, usual = len(sorting.spike_samples(first + unit)), expected[unit]
        if found < max(1, SILENT_PART * usual):
            said.append(
                f"unit {first + unit} of the model is silent here: {counted(found, 'spike')}, about {usual:.0f} at its rate"
            )
    return said


def _of_changed_units(sorting: SortingData, adapted: bool) -> list[str]:
    if not sorting.n_units:
        return []
    gain, cosine = sorting.units["model_gain"], sorting.units["model_cosine"]
    # squared norm of the difference of the templates relative to the known one's, less what noise makes of two means
    difference = (gain / cosine) ** 2 - 2 * gain + 1
    counts, energy = np.maximum(sorting.units["n_spikes"], 1), sorting.model["whitened_norm"] ** 2
    noise = 2 * sorting.templates_whitened[0].size / (counts * energy)
    change = np.sqrt(np.maximum(difference - noise, 0))
    said = []
    if (changed := change > CHANGED).any():
        end = "they were adapted" if adapted else "--adapt lets templates follow"
        said.append(
            f"{_named(sorting.unit_ids[changed])} changed since the model was learned, by up to {change[changed].max():.0%} of a template "
            f"(model_gain and model_cosine in units.csv); {end}"
        )
    if adapted and (lost := np.isnan(gain)).any():
        said.append(
            f"{_named(sorting.unit_ids[lost])} kept the model's template: no neuron here is near enough to it (cosine {SAME_SHAPE:g}, gain "
            f"{1 / MOST_GAIN:g} to {MOST_GAIN:g})"
        )
    return said


def _named(units: np.ndarray) -> str:
    return f"unit{'s' * (len(units) > 1)} {', '.join(map(str, units))}"
