"""Which templates there are: EM of the model, and births, splits, merges and deaths by statistical tests.

One round decodes the training signal, updates templates and priors, then asks of every unit whether it pays for its
parameters (death), is two (split) or the same as another (merge), and of the residual whether it holds spikes of no unit
(birth). Rounds end when nothing changes. Every decision is kept with its statistic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spikecrsae.crsae.first_training import train_first
from spikecrsae.crsae.model import CRsAE
from spikecrsae.curate.additions import add_units
from spikecrsae.curate.candidates import Candidates, CurationSettings
from spikecrsae.curate.cleaned_waveforms import recentred_waveforms
from spikecrsae.curate.merges import merge_pairs
from spikecrsae.curate.mixtures import split_mixtures
from spikecrsae.curate.removals import drop_redundant_clusters, remove_units
from spikecrsae.curate.satellites import SATELLITE_FRACTION, find_satellites
from spikecrsae.curate.splits import split_units
from spikecrsae.data.pieces import Pieces
from spikecrsae.data.spikes import Spikes
from spikecrsae.detect.detection import SpikeSubspace
from spikecrsae.detect.windows import TemplateWindow
from spikecrsae.errors import InputError
from spikecrsae.progress import Observer

MAX_ROUNDS = 10
#: Spikes outside cells have norms of some 65 noise levels, and hardly ever this one. Where they have, the most spikes within a template's
#: length on up to four channels: tetrodes have about 0.5, stimulation pulses that stay 1.6, membrane potentials 3 to 24.
INSIDE_NORM, MOST_AT_A_TIME = 200.0, 3.0
#: A satellite of which more spikes than this part are locked is not split by its waveforms; of others the rest may be a neuron's.
WHOLE_FRACTION = 0.9


@dataclass(frozen=True)
class Curated:
    """The stable set of units with its prior, the spikes of the training signal, and the decisions that led there.

    ids (n_units,): the units' names in the decisions. satellites (n_units,) bool: templates that serve the decoder but are
    no neuron, see satellites.find_satellites. history: the course of the prior, see Candidates.course.
    """

    model: CRsAE
    spikes: Spikes
    ids: np.ndarray
    decisions: tuple[dict, ...]
    rounds: int
    satellites: np.ndarray
    history: dict[str, np.ndarray]


@dataclass(frozen=True)
class FirstUnits:
    """What curation begins with: the model of the first templates, `members` of each (n,), the events that it was made of, and
    all `events` (n,). Events are first samples of windows that hold something."""

    events: np.ndarray
    model: CRsAE
    members: list[np.ndarray]
    subspace: SpikeSubspace
    window: TemplateWindow


def curate(
    signal: np.ndarray,
    first: FirstUnits,
    settings: CurationSettings,
    observer: Observer,
    level: np.ndarray | None = None,
    pieces: Pieces | None = None,
) -> Curated:
    """Alternate EM and decisions on signal (n_channels, n_samples), whitened, until the set of units is stable. level
    (n_samples,) uint8: of the noise that the signal is divided by, see data.loudness. pieces: of the recording that the signal is made
    of; one unless given."""
    model = first.model
    state = Candidates(signal, first.events, first.subspace, first.window, settings, model, whole_level=level)
    state.pieces = pieces or state.pieces
    members = first.members if settings.fixed_number else drop_redundant_clusters(state, first.members)
    if len(members):
        state.model = train_first(signal, state.model, members, settings.train, settings.seed, observer, level).model
    quiet, tried = True, None
    for round_number in range(1, MAX_ROUNDS + 1):
        if quiet:
            state.focus()
        # what EM has not settled in one round goes on in the next
        state.update(n_rounds=2 if quiet else 1)
        observer.advance(1)
        if settings.fixed_number:
            break
        _refuse_crowds(state)
        looked_before, before = quiet and round_number > 1, len(state.decisions)
        state.round_number = round_number
        tried = _decide(state, tried)
        # EM moves on between rounds, so a set is called stable when a second look finds nothing either
        quiet = len(state.decisions) == before
        if quiet and looked_before:
            break
    else:
        state.focus()
        state.update(n_rounds=2)
        remove_units(state)
    spikes = replace(state.spikes, sample=state.in_whole(state.spikes.sample))
    satellites = np.zeros(state.model.n_units, bool)
    if not settings.fixed_number:
        satellites, locked = find_satellites(state.model, state.timed(), state.pieces.represented)
        for unit in np.flatnonzero(satellites):
            state.decide("satellite", [unit], locked[unit], SATELLITE_FRACTION)
    return Curated(
        state.model, spikes, np.array(state.ids), tuple(state.decisions), round_number, satellites, state.course()
    )


def _refuse_crowds(state: Candidates) -> None:
    """Raise InputError where spikes are so large, and described by so many spikes at a time, that their shapes change beyond what
    a sum of templates can follow. The time that an encoding takes grows with that number, which grows with the channels."""
    model, tetrodes = state.model, max(1.0, len(state.signal) / 4)
    at_a_time = len(state.spikes) * state.window.n_times / state.signal.shape[1]
    largest = float(np.sqrt(model.energy.max(initial=0.0)))
    if largest < INSIDE_NORM or at_a_time < MOST_AT_A_TIME * tetrodes:
        return
    raise InputError(
        f"the spikes change their shape too much to be sorted: {model.n_units} units, with {at_a_time:.1f} spikes at the "
        "same time, do not describe "
        f"them. The largest template is {largest:.0f} times as large as the noise. Signal from inside a cell looks like this: leave its channel "
        "out with --channels; give it to score with --truth-channel; or give the number of neurons, such as --units 1."
    )


def _decide(state: Candidates, tried: list[int] | None) -> list[int] | None:
    """One round's tests; what they look at is held no longer. tried: the ids of the units when births were last sought, or of
    this round, where they have been now."""
    remove_units(state)
    cleaned = recentred_waveforms(state)
    if merge_pairs(state, cleaned):
        return tried
    # once one of those born has died, or nothing came of it before, what the residual offers has been tried
    try_births = state.ids != tried and state.born <= set(state.ids)
    decoded, residual = state.model, state.rest
    satellites, locked = find_satellites(state.model, state.timed(), state.pieces.represented)
    if not split_units(state, cleaned, locked > WHOLE_FRACTION):
        split_mixtures(state, cleaned, satellites)
    if not try_births:
        return tried
    tried = list(state.ids)
    del cleaned
    add_units(state, residual, decoded)
    return tried
