"""Two units that are one neuron: its spikes, and the smaller and wider ones that follow them in bursts."""

from __future__ import annotations

import numpy as np
from scipy import special

from spikecrsae.curate.satellites import SATELLITE_FRACTION

#: Within this time of a neuron's first spike the later spikes of its burst come.
BURST_MS = 20.0
#: Two spikes of one neuron are never closer.
REFRACTORY_MS = 1.5
#: Templates with a smaller cosine at the best lag are no spike and its attenuated follower.
SAME_SHAPE = 0.9
#: Level of each of the tests.
BURST_LEVEL = 1e-2


def burst_p_value(leading: np.ndarray, following: np.ndarray, burst: int, n_samples: int) -> float:
    """Probability that two trains (samples, ascending) are not those of one neuron's bursts, the `following` spikes coming
    after `leading` ones; 1 where SATELLITE_FRACTION of them do not, chance taken off. burst: BURST_MS in samples.

    The largest of three p-values from the cross-correlogram, since all have to hold:

    - more following spikes come within BURST_MS after a leading one than chance gives (binomial);
    - more come after than before one: neurons with a common input fire in either order (binomial);
    - fewer pairs are within REFRACTORY_MS than an even spread over BURST_MS gives (Poisson).
    """
    if not len(leading) or not len(following):
        return 1.0
    refractory = int(burst * REFRACTORY_MS / BURST_MS)
    after = _neighbours(following, leading, 0, burst)
    before = _neighbours(following, leading, -burst, 0)
    chance = min(np.minimum(np.diff(leading, append=leading[-1] + burst), burst).sum() / n_samples, 1.0)
    n, n_after, n_before = len(following), int((after > 0).sum()), int((before > 0).sum())
    if n_after / n < chance + SATELLITE_FRACTION * (1 - chance):
        return 1.0
    close = int(_neighbours(following, leading, -refractory, refractory).sum())
    return float(
        max(
            special.bdtrc(n_after - 1, n, chance),
            special.bdtrc(n_after - 1, n_after + n_before, 0.5),
            special.pdtr(close, (after.sum() + before.sum()) * refractory / burst),
        )
    )


def _neighbours(mine: np.ndarray, theirs: np.ndarray, first: int, last: int) -> np.ndarray:
    """How many of `theirs` lie such that each of mine comes later by `first` up to `last` samples."""
    return np.searchsorted(theirs, mine - first, "left") - np.searchsorted(theirs, mine - last, "left")
