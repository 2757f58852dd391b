"""FISTA, the unrolled encoder of CRsAE; the only place where its loop is written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spikecrsae.csc.convolution import analysis, synthesis
from spikecrsae.csc.prox import shrink

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
    point, momentum = previous, 1.0
    for _ in range(n_iterations):
        gradient = correlation - analysis(synthesis(point, atoms), atoms)
        codes = shrink(point + gradient / lipschitz, bias, one_sided)
        next_momentum = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        point = codes + ((momentum - 1) / next_momentum) * (codes - previous)
        previous, momentum = codes, next_momentum
    return previous
