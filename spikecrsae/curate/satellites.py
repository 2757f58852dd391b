"""Units that ride on stronger ones: what a stronger template misfits, and its head or tail beyond the window."""

from __future__ import annotations

import numpy as np
from scipy import special

from spikecrsae.crsae.model import CRsAE
from spikecrsae.data.spikes import Spikes

#: A unit of which more spikes than this part come at fixed lags from those of stronger units, beyond chance, is no neuron.
SATELLITE_FRACTION = 0.75
#: Lags looked at, in template lengths: a strong spike's head and tail are still seen there.
SATELLITE_REACH = 3
#: Level of the test for more spikes at a lag than chance gives.
LAG_LEVEL = 1e-2


def find_satellites(model: CRsAE, spikes: Spikes, n_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Which units are satellites (bool, n_units), and the part of each unit's spikes that is locked (n_units,).

    Spikes of satellites mostly come at fixed lags from those of a stronger unit: they stand for what its template misfits, or
    for its head or tail beyond the window.

    A cross-correlogram with each stronger unit (energy above) over SATELLITE_REACH template lengths shows the lags at which
    there are more spikes than chance gives (Poisson, Bonferroni); a satellite has more than SATELLITE_FRACTION of its spikes
    there, chance taken off.
    """
    excess = np.zeros(model.n_units)
    n_times = model.templates.shape[2] if model.n_units else 1
    edges = np.arange(-SATELLITE_REACH * n_times, SATELLITE_REACH * n_times + 1, max(1, n_times // 8))
    for unit in range(model.n_units):
        mine = spikes.sample[spikes.unit == unit]
        hosts = np.flatnonzero(model.energy > model.energy[unit])
        locked = np.zeros(len(mine), bool)
        chance = 0.0
        for host in hosts:
            theirs = spikes.sample[spikes.unit == host]
            pairs, lags = _lags(mine, theirs, int(edges[-1]))
            counts = np.histogram(lags, edges)[0]
            expected = len(mine) * len(theirs) * (edges[1] - edges[0]) / n_samples
            above = special.gammainc(counts, expected) < LAG_LEVEL / (len(counts) * len(hosts))
            locked[pairs[above[np.clip(np.searchsorted(edges, lags, "right") - 1, 0, len(counts) - 1)]]] = True
            chance += above.sum() * expected / max(len(mine), 1)
        if len(mine):
            excess[unit] = (locked.mean() - chance) / max(1 - chance, 0.1)
    return excess > SATELLITE_FRACTION, excess


def _lags(mine: np.ndarray, theirs: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """For every pair of spikes less than `reach` samples apart: the index in `mine`, and by how much it comes later."""
    low, high = np.searchsorted(theirs, mine - reach), np.searchsorted(theirs, mine + reach)
    index = np.repeat(np.arange(len(mine)), high - low)
    partner = (
        np.arange(len(index)) - np.repeat(np.cumsum(high - low) - (high - low), high - low) + np.repeat(low, high - low)
    )
    return index, mine[index] - theirs[partner]
