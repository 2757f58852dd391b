"""Which templates there are: EM of the spike-and-slab model, and births, splits, merges and deaths by statistical tests.

One round decodes the training signal, updates templates and priors, then asks of every unit whether it pays for its
parameters (death), is two (split) or the same as another (merge), and of the residual whether it holds spikes of no unit
(birth). Rounds end when nothing changes. Every decision is kept with its statistic.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spikecrsae.candidates import Candidates, at_most
from spikecrsae.crsae.slab_em import first_model, keep
from spikecrsae.csc.pursuit import Spikes, SpikeSlab
from spikecrsae.detect.bimodality import allowed_variance, nuisance_directions, without
from spikecrsae.detect.clustering import SMALLEST_CLUSTER, divide, templates_from_labels
from spikecrsae.detect.detection import SpikeSubspace
from spikecrsae.detect.windows import TemplateWindow, windows_at
from spikecrsae.evidence import Excerpt, parameter_cost
from spikecrsae.merges import merge_pairs
from spikecrsae.satellites import SATELLITE_FRACTION, find_satellites
from spikecrsae.system.threads import in_threads

#: Probability that a unit's spike of typical size is none of noise, at least.
CERTAIN = 0.95
#: A test that was passed with a statistic of so many times its level is repeated only when something has changed.
_CLEARLY = 2.0
MAX_ROUNDS = 10


@dataclass(frozen=True)
class Curated:
    """The stable set of units with its prior, the spikes of the training signal, and the decisions that led there.

    ids (n_units,): the units' names in the decisions. satellites (n_units,) bool: templates that serve the decoder but are
    no neuron, see satellites.find_satellites.
    """

    model: SpikeSlab
    spikes: Spikes
    ids: np.ndarray
    decisions: tuple[dict, ...]
    rounds: int
    satellites: np.ndarray


def curate(
    signal: np.ndarray,
    events: np.ndarray,
    templates: np.ndarray,
    members: list[np.ndarray],
    subspace: SpikeSubspace,
    window: TemplateWindow,
    *,
    threshold: float,
    dead_time: int,
    refractory: int,
    burst: int,
    fixed_number: bool,
    seed: int,
    observer,
) -> Curated:
    """Alternate EM and decisions on signal (n_channels, n_samples), whitened, from first templates
    (n_units, n_channels, n_times), until the set is stable. events: first samples of the windows that hold something; members:
    those that each template is the mean of. refractory, burst: in samples, see bursts. fixed_number: only EM, no decision."""
    state = Candidates(signal, events, subspace, window, threshold, dead_time, seed, first_model(templates, refractory))
    if not fixed_number:
        _redundant_clusters(state, members)
    quiet, tried = True, None
    for round_number in range(1, MAX_ROUNDS + 1):
        if quiet:
            state.focus()
        # what EM has not settled in one round goes on in the next
        state.update(n_rounds=2 if quiet else 1)
        observer.advance(1)
        if fixed_number:
            break
        looked_before, before = quiet and round_number > 1, len(state.decisions)
        state.round_number = round_number
        tried = _decide(state, tried, burst)
        # EM moves on between rounds, so a set is called stable when a second look finds nothing either
        quiet = len(state.decisions) == before
        if quiet and looked_before:
            break
    else:
        state.focus()
        state.update(n_rounds=2)
        _deaths(state)
    spikes = replace(state.spikes, sample=state.in_whole(state.spikes.sample))
    satellites = np.zeros(state.model.n_units, bool)
    if not fixed_number:
        satellites, locked = find_satellites(state.model, spikes, signal.shape[1])
        for unit in np.flatnonzero(satellites):
            state.decide("satellite", [unit], locked[unit], SATELLITE_FRACTION)
    return Curated(state.model, spikes, np.array(state.ids), tuple(state.decisions), round_number, satellites)


def _decide(state: Candidates, tried: list[int] | None, burst: int) -> list[int] | None:
    """One round's tests; what they look at is held no longer. tried: the ids of the units when births were last sought, or of
    this round, where they have been now."""
    _deaths(state)
    cleaned = _recentred_waveforms(state)
    if merge_pairs(state, cleaned, burst):
        return tried
    # once one of those born has died, or nothing came of it before, what the residual offers has been tried
    try_births = state.ids != tried and state.born <= set(state.ids)
    decoded, residual = state.model, state.rest
    _splits(state, cleaned)
    if not try_births:
        return tried
    tried = list(state.ids)
    del cleaned
    _births(state, residual, decoded)
    return tried


def _redundant_clusters(state: Candidates, members: list[np.ndarray]) -> None:
    """Before the first decoding of everything, drop clusters whose events the other templates explain: collisions of spikes
    gather in clusters too. As for deaths, on the signal around a cluster's events."""
    alive = np.ones(state.model.n_units, bool)
    for unit in np.argsort([len(m) for m in members]):
        excerpt = Excerpt.around(state.whole, state.model, Spikes.none(), members[unit], state.seed)
        loss = _loss_without(state, unit, alive, excerpt)
        cost = parameter_cost(state.model.templates[unit], len(members[unit]))
        if loss < cost:
            state.decide("death", [unit], loss, cost, n=len(members[unit]), why="explained by others")
            alive[unit] = False
    state.model = keep(state.model, alive)
    state.ids = [i for i, stays in zip(state.ids, alive, strict=True) if stays]


def _deaths(state: Candidates) -> None:
    """Remove, the weakest first, units that are probably noise, and those whose spikes the others explain so well that what is
    lost is less than the template costs.

    Noise: the templates of a few selected events fit these too well, so their gain may pay for the template; but a spike of
    the typical size then has a probability of less than CERTAIN.
    """
    while _deaths_at_once(state):
        pass


def _deaths_at_once(state: Candidates) -> bool:
    """One look at every unit, first at what needs no decoding; those found dead count no more for those that follow. Whether
    there was one."""
    model, spikes = state.model, state.spikes
    counts = np.bincount(spikes.unit, minlength=model.n_units)
    gains = np.bincount(spikes.unit, weights=spikes.gain, minlength=model.n_units)
    costs = np.array([parameter_cost(*unit) for unit in zip(model.templates, counts, strict=True)])
    certain = 0.5 * model.energy - model.penalty
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
    asked = [unit for unit in weakest_first if not state.has_passed("death", unit)] if alive.all() else []
    # of all at once, as if none of them died
    rest = state.rest
    losses = in_threads(
        lambda part: state.around(asked[part.start], rest).loss_without(model, asked[part.start]), len(asked), 1
    )
    for unit, loss in zip(asked, losses, strict=True):
        if not alive.all():
            loss = _loss_without(state, unit, alive, state.around(unit, rest))
        if loss > _CLEARLY * costs[unit]:
            state.passes("death", unit)
        if loss < costs[unit]:
            _dies(state, unit, alive, loss, costs[unit], int(counts[unit]), "explained by others")
            explained = True
    if not alive.all():
        state.keep(np.flatnonzero(alive), others_explain=explained)
    return not alive.all()


def _dies(state: Candidates, unit: int, alive: np.ndarray, value: float, level: float, n: int, why: str) -> None:
    state.decide("death", [unit], value, level, n=n, why=why)
    alive[unit] = False
    # a unit whose part was none is not split again
    state.whole_units |= {state.parent[i] for i in (state.ids[unit],) if i in state.parent}


def _loss_without(state: Candidates, unit: int, alive: np.ndarray, excerpt: Excerpt) -> float:
    """Log posterior that is lost on the excerpt where the other living units (bool, n_units) have to do without one."""
    with_it, without_it = excerpt.log_posteriors(state.model, [alive, alive & (np.arange(len(alive)) != unit)])
    return with_it - without_it


def _cleaned_waveforms(state: Candidates) -> list[np.ndarray]:
    """Per unit, windows (n, n_times + 2 pad, n_channels) around its spikes, pad = n_times // 2, with every other spike taken
    away; they begin `pad` samples before the template."""
    model, spikes = state.model, state.spikes
    n_times = state.window.n_times
    pad = n_times // 2
    rest = np.pad(state.rest.T, ((pad, pad), (0, 0)))
    copies, rows = model.shifted, model.copy_of(spikes)

    def of_unit(part: slice) -> np.ndarray:
        mine = state.looked_at(part.start)
        windows = windows_at(rest, spikes.sample[mine], n_times + 2 * pad)
        own = copies[rows[mine]].transpose(0, 2, 1) * spikes.amplitude[mine, None, None]
        windows[:, pad : pad + n_times] += own.astype(np.float32)
        return windows

    return in_threads(of_unit, model.n_units, 1)


def _recentred_waveforms(state: Candidates) -> list[np.ndarray]:
    """The cleaned waveforms, once the windows of new units are aligned with those of the others: spikes that collide are
    sought by the distance of their windows. Where in these the waveforms peak is settled once, so that they keep most of
    their energy."""
    n_times = state.window.n_times
    pad = n_times // 2
    cleaned = _cleaned_waveforms(state)
    units = [u for u, w in enumerate(cleaned) if state.ids[u] not in state.aligned and len(w) >= SMALLEST_CLUSTER]
    if not units:
        return cleaned
    state.aligned |= {state.ids[unit] for unit in units}
    means = np.stack([cleaned[unit].mean(axis=0) for unit in units])
    power = (means**2).sum(axis=2)
    taper = np.hanning(state.subspace.shapes.shape[1] + 2)
    peaks = np.array([np.convolve(one, taper, "same").argmax() for one in power])
    # energy of the windows by their beginning; that of all spikes together decides
    energy = np.stack([np.convolve(one, np.ones(n_times), "valid") for one in power])
    begins = np.clip(peaks[:, None] - np.arange(n_times), 0, 2 * pad)
    if state.before is None:
        counts = np.array([len(state.of(unit)) for unit in units])
        state.before = int((counts @ np.take_along_axis(energy, begins, axis=1)).argmax())
    templates, moved = state.model.templates.astype(np.float64).copy(), np.zeros(state.model.n_units, np.int64)
    for unit, mean, begin in zip(units, means, begins[:, state.before], strict=True):
        if abs(begin - pad) > n_times // 8:
            templates[unit], moved[unit] = mean[begin : begin + n_times].T, begin - pad
    if not moved.any():
        return cleaned
    # the spikes are the same, and are not looked for again before the templates are fitted
    spikes = state.spikes.moved(moved, state.signal.shape[1] - n_times)
    state.update(1, replace(state.model, templates=templates), spikes)
    return _cleaned_waveforms(state)


def _splits(state: Candidates, cleaned: list[np.ndarray]) -> None:
    """Split the units whose cleaned waveforms, without jitter, divide into clusters that each pay for a template of their own.
    The largest part stays the unit."""
    n_times = state.window.n_times
    templates, extra, parents = state.model.templates.astype(np.float64).copy(), [], []
    # in this thread: clusters are sought under the interpreter's lock, and for seconds where there are many, in which Ctrl-C counts
    for unit, padded in enumerate(cleaned):
        if state.ids[unit] in state.whole_units or state.has_passed("split", unit, alone=True):
            continue
        state.passes("split", unit)
        windows = padded[:, n_times // 2 : n_times // 2 + n_times]
        flat = without(windows.reshape(len(windows), -1), nuisance_directions(state.model.templates[unit])[1:])
        allowed = allowed_variance(state.model.templates[unit])
        labels = divide(flat.reshape(windows.shape), SMALLEST_CLUSTER, state.seed, allowed=allowed)
        sets = sorted((np.flatnonzero(labels == c) for c in np.unique(labels)), key=len, reverse=True)
        means = [windows[s].mean(axis=0).T for s in sets]
        for members, mean in zip(sets[1:], means[1:], strict=True):
            gain = 0.5 * len(members) * float(((mean - means[0]) ** 2).sum())
            cost = parameter_cost(mean, len(members))
            if gain > cost and len(members) >= SMALLEST_CLUSTER:
                templates[unit] = means[0]
                extra.append(mean)
                parents.append(state.ids[unit])
                state.decide("split", [unit], gain, cost, n=len(members))
    if extra:
        state.model = replace(state.model, templates=templates)
        state.parent |= dict(zip(state.add(extra), parents, strict=True))


def _births(state: Candidates, residual: np.ndarray, decoded: SpikeSlab) -> None:
    """Add templates for what the residual (n_channels, n_samples) of the found spikes still holds: heads and tails of strong
    spikes beyond their template, and clusters of events; these are looked for in the whole signal, which may hold more of them
    than the stretches looked at. decoded: the model whose spikes they are."""
    if _outer_waveforms(state, residual):
        return
    rest, spikes, window = residual.T, state.spikes, state.window
    events = state.subspace.detect(rest, state.threshold, state.dead_time)
    starts = events - window.before
    starts = starts[(starts >= 0) & (starts <= len(rest) - window.n_times)]
    # what is left beside a found spike is that spike's misfit, not another neuron's
    if len(spikes):
        nearest = np.searchsorted(spikes.sample, starts)
        after = np.abs(spikes.sample[np.minimum(nearest, len(spikes) - 1)] - starts)
        before = np.abs(spikes.sample[np.maximum(nearest - 1, 0)] - starts)
        starts = starts[np.minimum(after, before) > window.n_times // 2]
    if len(starts) < SMALLEST_CLUSTER:
        return
    windows = windows_at(rest, at_most(starts, 20000, state.seed), window.n_times)
    labels, refocus = divide(windows, SMALLEST_CLUSTER, state.seed), False
    templates = templates_from_labels(windows, labels, SMALLEST_CLUSTER)
    everywhere = state.rest_of_whole(decoded) if len(templates) else None
    for template in templates:
        trial = first_model(template[None], state.model.refractory)
        found = trial.decode(everywhere)
        gain, cost = float(found.gain.sum()), parameter_cost(template, len(found))
        if gain > cost and len(found) >= SMALLEST_CLUSTER:
            state.born |= set(state.add([template]))
            state.decide("birth", [state.model.n_units - 1], gain, cost, n=len(found))
            trial.residual(everywhere, found, out=everywhere)
            refocus = True
    del everywhere
    if refocus:
        state.focus()


def _outer_waveforms(state: Candidates, residual: np.ndarray) -> bool:
    """Add a template for the mean of the residual before or after a unit's template where it pays, and would be found. Whether
    there was one.

    Such units ride on others and are not reported, but without them a strong spike's tail is taken for another neuron's spike.
    """
    n_times = state.window.n_times
    certain, before = np.log(CERTAIN / (1 - CERTAIN)), len(state.ids)
    for unit in range(before):
        for side in (-n_times, n_times):
            starts = state.starts(unit) + side
            starts = starts[(starts >= 0) & (starts <= residual.shape[1] - n_times)]
            if len(starts) < SMALLEST_CLUSTER or state.has_passed(f"outer {side}", unit, alone=True):
                continue
            state.passes(f"outer {side}", unit)
            outer = windows_at(residual.T, starts, n_times).mean(axis=0).T
            energy = float((outer.astype(np.float64) ** 2).sum()) - outer.size / len(starts)
            gain, cost = 0.5 * len(starts) * energy, parameter_cost(outer, len(starts))
            if gain > cost and 0.5 * energy - state.model.penalty[unit] > certain:
                state.born |= set(state.add([outer]))
                state.decide("birth", [state.model.n_units - 1], gain, cost, n=len(starts), why="beyond another's template")
    return len(state.ids) > before
