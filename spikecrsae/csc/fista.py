"""FISTA, the unrolled encoder of CRsAE, in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spikecrsae.csc.operator import analysis, synthesis
from spikecrsae.csc.shrinkage import shrink

if TYPE_CHECKING:
    import torch


def fista(
    signal: torch.Tensor,
    atoms: torch.Tensor,
    lam: torch.Tensor | float,
    sigma: float,
    lipschitz: float,
    n_iterations: int,
    one_sided: bool,
    start: torch.Tensor | None = None,
) -> torch.Tensor:
    """T iterations of FISTA with tied weights (Algorithm 1; Beck and Teboulle 2009), differentiable in atoms and lam.

    signal (n_windows, n_channels, n_samples), atoms (n_units, n_channels, n_times), lipschitz >= the largest eigenvalue
    of H^T H. Returns codes (n_windows, n_units, n_samples - n_times + 1). `start` is a warm start, zero by default.
    """
    bias = lam * sigma**2 / lipschitz
    correlation = analysis(signal, atoms)
    previous = correlation.new_zeros(correlation.shape) if start is None else start
    point = previous
    for momentum in momenta(n_iterations):
        gradient = correlation - analysis(synthesis(point, atoms), atoms)
        codes = shrink(point + gradient / lipschitz, bias, one_sided)
        point = codes + momentum * (codes - previous)
        previous = codes
    return previous


def momenta(n_iterations: int) -> list[float]:
    """(t_k - 1) / t_(k + 1) of every iteration, with t_1 = 1 and t_(k + 1) = (1 + sqrt(1 + 4 t_k^2)) / 2."""
    weights, t = [], 1.0
    for _ in range(n_iterations):
        following = (1 + (1 + 4 * t**2) ** 0.5) / 2
        weights.append((t - 1) / following)
        t = following
    return weights
