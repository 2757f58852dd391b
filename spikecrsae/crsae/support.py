"""The support of a template: the channels on which it stands out of the noise."""

from __future__ import annotations

import numpy as np

#: Up to so many channels (a tetrode's) every template lives on all of them.
TETRODE = 4
#: Energy in units of the noise, beyond twice what noise adds to a mean, from which on a channel belongs to the support.
LEAST_ENERGY = 0.5
#: On more channels, templates whose cosine at the best lag is smaller do not stand for each other.
_ALIKE = 0.1


def least_similarity(n_channels: int) -> float:
    """The cosine, at the best lag, from which on templates on so many channels may stand for each other: any on a tetrode."""
    return 0.0 if n_channels <= TETRODE else _ALIKE


def supported(templates: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Channels (..., n_channels) bool on which templates (..., n_channels, n_times), in units of the noise, live.

    counts (...): how many spikes each is the mean of; noise adds n_times / counts to the energy of a channel. The channel of
    the largest energy always belongs.
    """
    energy = (np.asarray(templates, np.float64) ** 2).sum(axis=-1)
    if energy.shape[-1] <= TETRODE:
        return np.ones(energy.shape, bool)
    noise = templates.shape[-1] / np.maximum(counts, 1)
    return (energy > LEAST_ENERGY + 2 * noise[..., None]) | (energy == energy.max(axis=-1, keepdims=True))
