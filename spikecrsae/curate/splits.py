"""Split units whose waveforms divide into clusters that each pay for a template."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spikecrsae.curate.candidates import Candidates
from spikecrsae.curate.evidence import parameter_cost
from spikecrsae.detect.bimodality import allowed_variance, nuisance_directions, without
from spikecrsae.detect.clustering import SMALLEST_CLUSTER, divide


def split_units(state: Candidates, cleaned: list[np.ndarray], whole: np.ndarray) -> bool:
    """Split the units whose cleaned waveforms, without jitter, divide into clusters that each pay for a template of their own.
    The largest part stays the unit. whole (n_units,) bool: units that are not split. Whether there was one."""
    n_times = state.window.n_times
    templates, extra, parents = state.model.templates.astype(np.float64).copy(), [], []
    # in this thread: clusters are sought under the interpreter's lock, and for seconds where there are many, in which Ctrl-C counts
    for unit, padded in enumerate(cleaned):
        # a unit may have lost its spikes when it was aligned; of two parts each needs enough of them
        too_few = len(padded) < 2 * SMALLEST_CLUSTER
        if too_few or whole[unit] or state.has_passed("split", unit):
            continue
        state.passes("split", unit)
        windows = padded[:, n_times // 2 : n_times // 2 + n_times]
        flat = without(windows.reshape(len(windows), -1), nuisance_directions(state.model.templates[unit])[1:])
        allowed = allowed_variance(state.model.templates[unit])
        labels = divide(flat.reshape(windows.shape), SMALLEST_CLUSTER, state.settings.seed, allowed=allowed)
        sets = sorted((np.flatnonzero(labels == c) for c in np.unique(labels)), key=len, reverse=True)
        means = [windows[s].mean(axis=0).T for s in sets]
        for members, mean in zip(sets[1:], means[1:], strict=True):
            gain = 0.5 * len(members) * float(((mean - means[0]) ** 2).sum())
            cost = parameter_cost(mean, len(members))
            if gain > cost and len(members) >= SMALLEST_CLUSTER and not state.has_had(unit, mean):
                templates[unit] = means[0]
                extra.append(mean)
                parents.append(state.ids[unit])
                state.decide("split", [unit], gain, cost, n=len(members))
    if extra:
        state.model = replace(state.model, templates=templates)
        state.parent |= dict(zip(state.add(extra), parents, strict=True))
    return bool(extra)
