"""CRsAE: the constrained recurrent sparse auto-encoder as a torch module, and the two losses that train it.

The encoder is FISTA unrolled for T iterations (Algorithm 1), the decoder the same atoms once more (Eq. 26).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from spikecrsae.crsae.priors import LambdaPrior
from spikecrsae.csc.fista import fista
from spikecrsae.csc.operator import synthesis
from spikecrsae.csc.step_size import lipschitz_bound
from spikecrsae.errors import InputError, UsageError


class CRsAE(nn.Module):
    """Parameters: atoms (n_units, n_channels, n_times) of unit norm, shared by encoder and decoder, and lambda.

    sigma: standard deviation of the noise, known. n_iterations: T. one_sided: non-negative codes, else Eq. 25.
    Raises InputError for atoms of another shape or none, UsageError for a lambda, sigma or T that is not positive.
    """

    def __init__(
        self,
        atoms: np.ndarray | torch.Tensor,
        lam: float,
        sigma: float = 1.0,
        n_iterations: int = 180,
        one_sided: bool = True,
    ) -> None:
        super().__init__()
        atoms = torch.as_tensor(atoms)
        if atoms.ndim != 3 or not len(atoms):
            raise InputError(f"atoms {tuple(atoms.shape)} must be (n_units, n_channels, n_times) with at least one unit.")
        if not (lam > 0 and sigma > 0 and n_iterations >= 1):
            raise UsageError(f"lambda = {lam}, sigma = {sigma} and T = {n_iterations} must all be positive.")
        self.atoms = nn.Parameter(atoms.clone())
        self.lam = nn.Parameter(torch.tensor(float(lam), dtype=atoms.dtype))
        self.sigma, self.n_iterations, self.one_sided = sigma, n_iterations, one_sided

    @property
    def lipschitz(self) -> float:
        """L of the present atoms, >= the largest eigenvalue of H^T H; a constant for the gradients."""
        return lipschitz_bound(self.atoms.detach().cpu().numpy())

    def encode(self, signal: torch.Tensor, start: torch.Tensor | None = None) -> torch.Tensor:
        """Codes (n_windows, n_units, n_samples - n_times + 1) of signal (n_windows, n_channels, n_samples).

        start: codes of a warm start. Raises InputError where the channels differ or a window is shorter than an atom.
        """
        _, n_channels, n_times = self.atoms.shape
        if signal.ndim != 3 or signal.shape[1] != n_channels or signal.shape[2] < n_times:
            raise InputError(
                f"signal {tuple(signal.shape)} must be (n_windows, {n_channels} channels, at least {n_times} samples) for these atoms."
            )
        return fista(signal, self.atoms, self.lam, self.sigma, self.lipschitz, self.n_iterations, self.one_sided, start)

    def forward(self, signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(reconstruction, codes): Eq. 26; the reconstruction has the shape of the signal."""
        codes = self.encode(signal)
        return synthesis(codes, self.atoms), codes

    @torch.no_grad()
    def normalise(self) -> torch.Tensor:
        """Bring every atom back to unit norm; returns the norms taken away, (n_units,)."""
        norms: torch.Tensor = self.atoms.flatten(1).norm(dim=1).clamp(min=torch.finfo(self.atoms.dtype).tiny)
        self.atoms.div_(norms[:, None, None])
        return norms


def reconstruction_loss(signal: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
    """1/2 ||y - CRsAE(y)||^2 (Eq. 27), averaged over windows; signal (n_windows, n_channels, n_samples)."""
    return 0.5 * (signal - reconstruction).square().sum((1, 2)).mean()


def lambda_loss(codes: torch.Tensor, lam: torch.Tensor, prior: LambdaPrior) -> torch.Tensor:
    """lambda (||x||_1 + C delta) - (N_e + r - 1) C log lambda (Eq. 28), ||x||_1 averaged over windows."""
    mean_l1 = codes.abs().sum((1, 2)).mean()
    weight = (prior.n_positions + prior.r - 1) * prior.n_units
    return lam * (mean_l1 + prior.n_units * prior.delta) - weight * torch.log(lam)
