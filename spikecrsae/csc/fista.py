"""FISTA, the unrolled encoder of CRsAE, in torch."""

from __future__ import annotations

from collections.abc import Callable
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

    signal (n_windows, n_channels, n_samples), atoms (n_units, n_channels, n_times), lam: one value, or (n_units, 1);
    lipschitz >= the largest eigenvalue of H^T H. Returns codes (n_windows, n_units, n_samples - n_times + 1). `start` is a
    warm start, zero by default.
    """
    bias = lam * sigma**2

    def normal(codes: torch.Tensor) -> torch.Tensor:
        return analysis(synthesis(codes, atoms), atoms)

    return _iterate(analysis(signal, atoms), normal, bias, lipschitz, n_iterations, one_sided, start)


def fista_of_correlation(
    correlation: torch.Tensor,
    gram: torch.Tensor,
    bias: torch.Tensor | float,
    lipschitz: float,
    n_iterations: int,
    one_sided: bool,
    start: torch.Tensor | None = None,
) -> torch.Tensor:
    """The same from the correlation H^T y (n_windows, n_units, n_positions) and the Gram function of the atoms
    (n_units, n_units, 2 n_times - 1) alone: H^T H x is a convolution of the code with it.

    bias: lambda sigma^2, one value or (n_units, 1). Returns codes (n_windows, n_units, n_positions).
    """
    from torch.nn.functional import conv1d

    # conv1d correlates, and the Gram function backwards in time is that of the pair in the other order
    weights, reach = gram.transpose(0, 1).contiguous(), gram.shape[2] // 2

    def normal(codes: torch.Tensor) -> torch.Tensor:
        return conv1d(codes, weights, padding=reach)

    return _iterate(correlation, normal, bias, lipschitz, n_iterations, one_sided, start)


def _iterate(
    correlation: torch.Tensor,
    normal: Callable[[torch.Tensor], torch.Tensor],
    bias: torch.Tensor | float,
    lipschitz: float,
    n_iterations: int,
    one_sided: bool,
    start: torch.Tensor | None,
) -> torch.Tensor:
    """FISTA; normal: H^T H of codes."""
    previous = correlation.new_zeros(correlation.shape) if start is None else start
    point = previous
    for momentum in momenta(n_iterations):
        codes = shrink(point + (correlation - normal(point)) / lipschitz, bias / lipschitz, one_sided)
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
