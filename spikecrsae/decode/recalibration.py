"""Recalibrate probabilities of spikes by spikes that are known to be right or false.

Logistic calibration (Platt 1999) of the odds that a spike is false, with normal priors about no change, so that few known
spikes change little. Isotonic calibration has no such prior: with twenty false spikes it follows each of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special
from scipy.optimize import minimize

#: Probabilities are kept at least this far from 0 and 1 where odds are computed.
_SMALLEST = 1e-6
#: Standard deviations of the priors: of the shift of the log odds, and of the logarithm of their factor.
SHIFT, LOG_FACTOR = 0.5, 0.25


@dataclass(frozen=True)
class Recalibration:
    """Log odds of a false spike become shift + factor times what they were; (0, 1) changes nothing. shift is at least 0, factor
    at most 1: spikes become less certain, or stay."""

    shift: float = 0.0
    factor: float = 1.0

    @classmethod
    def of(cls, probability: np.ndarray, right: np.ndarray, weight: np.ndarray) -> Recalibration:
        """Return the most probable one for spikes (n,) of these probabilities that are right (bool, n) or false.

        weight (n,): how many spikes each stands for. The likelihood counts as many spikes as they are worth together, (sum w)^2 / sum w^2.
        """
        weight = weight * weight.sum() / max((weight**2).sum(), 1e-12)
        odds = _odds(probability)
        sign = np.where(right, -1.0, 1.0)

        def cost(values: np.ndarray) -> tuple[float, np.ndarray]:
            factor = np.exp(values[1])
            margin = sign * (values[0] + factor * odds)
            slope = -sign * weight * special.expit(-margin)
            gradient = np.array([slope.sum(), factor * (slope @ odds)]) + values / np.array([SHIFT, LOG_FACTOR]) ** 2
            prior = 0.5 * ((values / np.array([SHIFT, LOG_FACTOR])) ** 2).sum()
            return float(-(weight * special.log_expit(margin)).sum() + prior), gradient

        found = minimize(cost, np.zeros(2), jac=True, method="L-BFGS-B", bounds=((0, None), (None, 0))).x
        return cls(float(found[0]), float(np.exp(found[1])))

    def lowered(self, probability: np.ndarray) -> np.ndarray:
        """Return the recalibrated probabilities (n,), none of them higher than before."""
        return np.minimum(probability, special.expit(-(self.shift + self.factor * _odds(probability))))


def _odds(probability: np.ndarray) -> np.ndarray:
    """Log odds of a false spike."""
    return -np.asarray(special.logit(np.clip(np.asarray(probability, float), _SMALLEST, 1 - _SMALLEST)))
