"""Add units for spikes that the residual still holds."""

from __future__ import annotations

import numpy as np

from spikecrsae.crsae.model import CRsAE
from spikecrsae.curate.candidates import Candidates, at_most
from spikecrsae.curate.evidence import parameter_cost
from spikecrsae.curate.removals import CERTAIN, typical_gain
from spikecrsae.detect.clustering import SMALLEST_CLUSTER, divide, templates_from_labels
from spikecrsae.detect.windows import are_whole, windows_at


def add_units(state: Candidates, residual: np.ndarray, decoded: CRsAE) -> None:
    """Add templates for what the residual (n_channels, n_samples) of the found spikes still holds: heads and tails of strong
    spikes beyond their template, and clusters of events; these are looked for in the whole signal, which may hold more of them
    than the stretches looked at. decoded: the model whose spikes they are."""
    if _outer_waveforms(state, residual):
        return
    rest, spikes, window = residual.T, state.spikes, state.window
    events = state.subspace.detect(residual, state.settings.threshold, state.settings.dead_time)
    starts = events - window.before
    starts = starts[(starts >= 0) & (starts <= len(rest) - window.n_times)]
    # what is left beside a found spike is that spike's misfit, not another neuron's
    if len(spikes):
        nearest = np.searchsorted(spikes.sample, starts)
        after = np.abs(spikes.sample[np.minimum(nearest, len(spikes) - 1)] - starts)
        before = np.abs(spikes.sample[np.maximum(nearest - 1, 0)] - starts)
        starts = starts[np.minimum(after, before) > window.n_times // 2]
    starts = starts[state.is_clear(starts) & are_whole(state.signal, starts, window.n_times)]
    if len(starts) < SMALLEST_CLUSTER:
        return
    windows = windows_at(rest, at_most(starts, 20000, state.settings.seed), window.n_times)
    labels, refocus = divide(windows, SMALLEST_CLUSTER, state.settings.seed), False
    templates = templates_from_labels(windows, labels, SMALLEST_CLUSTER)
    everywhere = state.rest_of_whole(decoded) if len(templates) else np.zeros((0, 0), np.float32)
    for template in templates:
        trial = state.model.select([]).extended(template[None])
        found = trial.encode(everywhere, level=state.whole_level)
        clear = found.select(found.clear)
        gain, cost = float(clear.gain.sum()), parameter_cost(template, len(clear))
        if gain > cost and len(clear) >= SMALLEST_CLUSTER:
            state.born |= set(state.add([template]))
            state.decide("add", [state.model.n_units - 1], gain, cost, n=len(found))
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
            starts = state.clear_starts(unit) + side
            starts = starts[(starts >= 0) & (starts <= residual.shape[1] - n_times)]
            if len(starts) < SMALLEST_CLUSTER or state.has_passed(f"outer {side}", unit):
                continue
            state.passes(f"outer {side}", unit)
            outer = windows_at(residual.T, starts, n_times).mean(axis=0).T
            energy = float((outer.astype(np.float64) ** 2).sum()) - outer.size / len(starts)
            gain, cost = 0.5 * len(starts) * energy, parameter_cost(outer, len(starts))
            if gain > cost and typical_gain(state.model.select([unit]), energy)[0] > certain:
                state.born |= set(state.add([outer]))
                state.decide("add", [state.model.n_units - 1], gain, cost, n=len(starts), why="beyond another's template")
    return len(state.ids) > before
