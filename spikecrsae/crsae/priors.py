"""The Gamma prior of lambda, scale-free, and the closed form of the M-step for lambda."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class LambdaPrior:
    """Gamma(r, delta) centred on lambda_0 = sqrt(2 log(C N_e)) / sigma: r = delta lambda_0, delta = kappa N_e / lambda_0.

    With delta in proportion to N_e the weight of the prior is kappa whatever the length of a window: a weak prior kills
    the codes, because spikes are so rare that the maximum-likelihood lambda lets none survive. The prior is cut off at
    `bounds`, a factor 1 + 1/kappa each way, so that lambda can neither grow until no code is left nor fall until all are.
    n_positions is N_e, the length of one code; n_units is C.
    """

    n_units: int
    n_positions: int
    sigma: float
    kappa: float

    @property
    def lambda_0(self) -> float:
        return float(np.sqrt(2 * np.log(max(2, self.n_units * self.n_positions))) / self.sigma)

    @property
    def delta(self) -> float:
        return self.kappa * self.n_positions / self.lambda_0

    @property
    def r(self) -> float:
        return self.delta * self.lambda_0

    @property
    def bounds(self) -> tuple[float, float]:
        factor = 1 + 1 / self.kappa
        return self.lambda_0 / factor, self.lambda_0 * factor

    def clip(self, lam: float) -> float:
        """lambda, or the nearer of the bounds."""
        return float(np.clip(lam, *self.bounds))

    def update(self, mean_l1: float) -> float:
        """The lambda that minimises Eq. 22 within the bounds; mean_l1 is ||x||_1 of all units, averaged over windows.

        Eq. 22 is convex in lambda, so its minimum on an interval is (N_e + r - 1) C / (||x||_1 + C delta), clipped.
        """
        weight = (self.n_positions + self.r - 1) * self.n_units
        return self.clip(weight / (mean_l1 + self.n_units * self.delta))
