"""Which units of one recording are those of another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from spikecrsae.csc.operator import gram
from spikecrsae.curate.bursts import SAME_SHAPE

#: One neuron's spikes are at most so many times as large in one recording as in another. Standard deviation of the logarithm
#: of that factor, and of the part of its norm by which a template changes in shape.
MOST_GAIN, GAIN_DEVIATION, SHAPE_DEVIATION = 2.5, 0.3, 0.1
#: More than any pair of templates that may be linked costs.
_IMPOSSIBLE = 1e6


@dataclass(frozen=True)
class Links:
    """Which of the units learned from a recording each known unit is, (n_known,) each: the partner, -1 without one, and the
    cosine of its template with the known one and its gain, NaN without a partner. first: number of the first known unit, the
    others follow."""

    partner: np.ndarray
    cosine: np.ndarray
    gain: np.ndarray
    first: int = 0

    @classmethod
    def of(cls, known: np.ndarray, learned: np.ndarray) -> Links:
        """Link templates (n_units, n_channels, n_times) that are whitened by the same filter, one to one, as many
        as possible and so that changes of shape and size are most probable in all.

        Two templates are one neuron's if their cosine at the best lag is at least SAME_SHAPE and none is more than MOST_GAIN
        times as large as the other.
        """
        n_times = known.shape[2]
        margin = n_times // 2
        projection = gram(known, learned)[:, :, margin : 2 * n_times - 1 - margin].max(axis=2)
        energy, other = ((templates.astype(np.float64) ** 2).sum(axis=(1, 2)) for templates in (known, learned))
        cosine = projection / np.sqrt(np.maximum(np.outer(energy, other), 1e-12))
        gain = projection / np.maximum(energy, 1e-12)[:, None]
        ratio = np.log(np.maximum(gain, 1e-12))
        possible = (cosine >= SAME_SHAPE) & (np.abs(ratio) <= np.log(MOST_GAIN))
        cost = np.maximum(1 - cosine**2, 0) / SHAPE_DEVIATION**2 + (ratio / GAIN_DEVIATION) ** 2
        rows, columns = linear_sum_assignment(np.where(possible, cost, _IMPOSSIBLE))
        linked = possible[rows, columns]
        rows, columns = rows[linked], columns[linked]
        links = cls(np.full(len(known), -1), np.full(len(known), np.nan), np.full(len(known), np.nan))
        links.partner[rows] = columns
        links.cosine[rows], links.gain[rows] = cosine[rows, columns], gain[rows, columns]
        return links
