"""Shrinkage: how a prior turns a correlation into an amplitude."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import torch


def shrink(values: torch.Tensor, bias: torch.Tensor | float, one_sided: bool) -> torch.Tensor:
    """Soft threshold with `bias` >= 0: two-sided (Eq. 25), or one-sided, max(values - bias, 0), for non-negative codes."""
    from torch.nn.functional import relu

    if one_sided:
        return relu(values - bias)
    return relu(values - bias) - relu(-values - bias)


class SpikeShrinkage(NamedTuple):
    """The shrinkage of whole spikes, for every unit, each (n_units,).

    Where b is the correlation of the residual with a template, the best amplitude of a spike is (b + pull) / total, and
    the spike raises the log posterior by 1/2 (b + pull)^2 / total + offset. A spike is there if that is above 0.
    Every prior whose logarithm is a quadratic function of the amplitude has this form.
    """

    pull: np.ndarray
    total: np.ndarray
    offset: np.ndarray

    def needed(self) -> np.ndarray:
        """Correlation above which a spike of each unit raises the log posterior, (n_units,)."""
        return np.sqrt(np.maximum(-2 * self.total * self.offset, 0)) - self.pull

    def prior(self, unit: np.ndarray, amplitude: np.ndarray, energy: np.ndarray) -> np.ndarray:
        """Log prior odds of spikes with these amplitudes against none, (n,): what they gain beyond the data term."""
        more = (self.total - energy)[unit]
        return amplitude * self.pull[unit] - 0.5 * more * amplitude**2 + self.offset[unit]

    def unshrunk(self, unit: np.ndarray, amplitude: np.ndarray, energy: np.ndarray) -> np.ndarray:
        """The least-squares amplitudes (n,) that were shrunk to these."""
        return (amplitude * self.total[unit] - self.pull[unit]) / np.maximum(energy[unit], 1e-9)

    def shrunk(self, unit: np.ndarray, amplitude: np.ndarray, energy: np.ndarray) -> np.ndarray:
        """These least-squares amplitudes (n,) shrunk."""
        return (amplitude * energy[unit] + self.pull[unit]) / self.total[unit]


def shrinkage_at(of: Callable[[np.ndarray], SpikeShrinkage], energy: np.ndarray, expected: float) -> SpikeShrinkage:
    """The shrinkage where a spike of its template's size has the amplitude `expected`: in signal divided by louder noise.

    of: a prior's shrinkage of templates with some energies. Templates are `expected` times as large there, their energy and
    correlation with the signal too; amplitudes relative to these are 1 / expected times as large as those relative to the templates
    themselves.
    """
    pull, total, offset = of(energy * expected**2)
    return SpikeShrinkage(pull / expected, total / expected**2, offset)
