"""Remove units that are noise, and those whose spikes the other units explain."""

from __future__ import annotations

import numpy as np

from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.support import least_similarity
from spikecrsae.csc.operator import gram
from spikecrsae.curate.candidates import Candidates
from spikecrsae.curate.evidence import COMPARED_SPIKES, Excerpt, parameter_cost
from spikecrsae.data.spikes import Spikes
from spikecrsae.detect.clustering import SMALLEST_CLUSTER
from spikecrsae.system.threads import in_threads

#: Probability that a unit's spike of typical size is none of noise, at least.
CERTAIN = 0.95
#: A test that was passed with a statistic of so many times its level is repeated only when something has changed.
_CLEARLY = 2.0
#: A unit is judged by so many of its spikes where these lose so many times its cost, otherwise by COMPARED_SPIKES.
_FIRST_LOOK, _SURELY = 20, 3.0


def drop_redundant_clusters(state: Candidates, members: list[np.ndarray]) -> list[np.ndarray]:
    """Before the first decoding of everything, drop clusters whose events the other templates explain: collisions of spikes
    gather in clusters too. As for deaths, on the signal around a cluster's events. Returns the members of those that stay."""
    alive, near = np.ones(state.model.n_units, bool), _near(state.model.templates)
    for unit in np.argsort([len(m) for m in members]):
        excerpt = Excerpt.around(
            state.whole, state.model, Spikes.none(), members[unit], state.settings.seed, state.whole_level
        )
        loss = _loss_without(state, unit, alive, near[unit], excerpt)
        cost = parameter_cost(state.model.templates[unit], len(members[unit]))
        if loss < cost:
            state.decide("remove", [unit], loss, cost, n=len(members[unit]), why="explained by others")
            alive[unit] = False
    state.model = state.model.select(alive)
    state.ids = [i for i, stays in zip(state.ids, alive, strict=True) if stays]
    return [m for m, stays in zip(members, alive, strict=True) if stays]


def remove_units(state: Candidates) -> None:
    """Remove, the weakest first, units that are probably noise, and those whose spikes the others explain so well that what is
    lost is less than the template costs.

    Noise: the templates of a few selected events fit these too well, so their gain may pay for the template; but a spike of
    the typical size then has a probability of less than CERTAIN.
    """
    while _remove_once(state):
        pass


def _remove_once(state: Candidates) -> bool:
    """One look at every unit, first at what needs no decoding; those found dead count no more for those that follow. Whether
    there was one."""
    model, spikes = state.model, state.spikes
    counts = np.bincount(spikes.unit, minlength=model.n_units)
    gains = np.bincount(spikes.unit, weights=spikes.gain, minlength=model.n_units)
    costs = np.array([parameter_cost(*unit) for unit in zip(model.templates, counts, strict=True)])
    certain = typical_gain(model)
    weakest_first = np.argsort(model.energy * counts)
    alive, explained = np.ones(model.n_units, bool), False
    for unit in weakest_first:
        for value, level, why in (
            (counts[unit], SMALLEST_CLUSTER, "too few spikes"),
            (certain[unit], np.log(CERTAIN / (1 - CERTAIN)), "noise"),
            (gains[unit], costs[unit], "explained by others"),
        ):
            if value < level:
                _dies(state, unit, alive, value, level, int(counts[unit]), why)
                explained |= why == "explained by others"
                break
    rest, near = state.rest, _near(model.templates)
    asked = [unit for unit in weakest_first if not state.has_passed("remove", unit, near[unit])] if alive.all() else []

    # of all at once, as if none of them died
    def loss_of(part: slice) -> float:
        unit = asked[part.start]
        return _in_two_looks(state, unit, rest, near[unit], costs[unit])

    for unit, loss in zip(asked, in_threads(loss_of, len(asked), 1), strict=True):
        if not alive[near[unit]].all():
            loss = _loss_without(state, unit, alive, near[unit], state.around(unit, rest, near[unit]))
        if loss > _CLEARLY * costs[unit]:
            state.passes("remove", unit)
        if loss < costs[unit]:
            _dies(state, unit, alive, loss, costs[unit], int(counts[unit]), "explained by others")
            explained = True
    if not alive.all():
        state.keep(np.flatnonzero(alive), others_explain=explained)
    return not alive.all()


def _in_two_looks(state: Candidates, unit: int, rest: np.ndarray, near: np.ndarray, cost: float) -> float:
    """What the log posterior loses without a unit (see Excerpt.loss_without), by few of its spikes where these decide."""
    loss = 0.0
    for most in (_FIRST_LOOK, COMPARED_SPIKES):
        excerpt = state.around(unit, rest, near, most)
        loss = excerpt.loss_without(state.model, unit, near)
        if loss > _SURELY * cost or excerpt.share == 1:
            break
    return loss


def typical_gain(model: CRsAE, energy: np.ndarray | float | None = None) -> np.ndarray:
    """Log posterior odds of a spike of each unit's own size, (n_units,). energy: of other templates with the same prior."""
    energy = np.broadcast_to(model.energy if energy is None else energy, model.n_units)
    own = np.arange(model.n_units)
    return 0.5 * energy + model.prior.shrinkage(energy).prior(own, np.ones(model.n_units), energy)


def _dies(state: Candidates, unit: int, alive: np.ndarray, value: float, level: float, n: int, why: str) -> None:
    state.decide("remove", [unit], value, level, n=n, why=why)
    alive[unit] = False
    if state.ids[unit] in state.parent:
        state.parts.setdefault(state.parent[state.ids[unit]], []).append(state.model.templates[unit])


def _near(templates: np.ndarray) -> np.ndarray:
    """Which units (n_units, n_units) bool may stand for each other by their templates (n_units, n_channels, n_times), see
    support.least_similarity."""
    largest = np.abs(gram(templates)).max(axis=2)
    norms = np.sqrt(largest.diagonal())
    return np.asarray(largest >= least_similarity(templates.shape[1]) * np.outer(norms, norms)) | np.eye(
        len(templates), dtype=bool
    )


def _loss_without(state: Candidates, unit: int, alive: np.ndarray, near: np.ndarray, excerpt: Excerpt) -> float:
    """Log posterior that is lost on the excerpt where the other living units (bool, n_units) of those near it (bool, n_units) have to
    do without one."""
    model = state.model if near.all() else state.model.select(near)
    with_it = alive[near]
    with_, without = excerpt.log_posteriors(model, [with_it, with_it & (np.flatnonzero(near) != unit)])
    return with_ - without
