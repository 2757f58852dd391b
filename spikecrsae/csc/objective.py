"""The convex objective of the encoder and how far a code is from its optimum."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spikecrsae.csc.operator import analysis, synthesis

if TYPE_CHECKING:
    import torch


def objective(
    signal: torch.Tensor, codes: torch.Tensor, atoms: torch.Tensor, lam: torch.Tensor | float, sigma: float
) -> torch.Tensor:
    """1/(2 sigma^2) ||y - Hx||^2 + lambda ||x||_1 per window, (n_windows,) (Eq. 19); lam: one value, or (n_units, 1)."""
    residual = signal - synthesis(codes, atoms)
    return residual.square().sum((1, 2)) / (2 * sigma**2) + (lam * codes.abs()).sum((1, 2))


def kkt_violation(
    signal: torch.Tensor,
    codes: torch.Tensor,
    atoms: torch.Tensor,
    lam: torch.Tensor | float,
    sigma: float,
    one_sided: bool,
) -> torch.Tensor:
    """Largest violation of the optimality conditions per window, (n_windows,), in units of the whitened signal; lam: one
    value, or (n_units, 1).

    With g = H^T (y - Hx) and bias b = lambda sigma^2: g = b sign(x) where x is not zero; elsewhere |g| <= b, or g <= b
    for non-negative codes. Zero at the optimum, and only there.
    """
    import torch

    bias = lam * sigma**2
    gradient = analysis(signal - synthesis(codes, atoms), atoms)
    inactive = gradient if one_sided else gradient.abs()
    violation = torch.where(codes != 0, (gradient - bias * codes.sign()).abs(), (inactive - bias).clamp(min=0))
    return violation.amax((1, 2))
