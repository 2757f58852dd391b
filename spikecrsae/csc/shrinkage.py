"""Proximal operators of the l1 penalty."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def shrink(values: torch.Tensor, bias: torch.Tensor | float, one_sided: bool) -> torch.Tensor:
    """Soft threshold with `bias` >= 0: two-sided (Eq. 25), or one-sided, max(values - bias, 0), for non-negative codes."""
    from torch.nn.functional import relu

    if one_sided:
        return relu(values - bias)
    return relu(values - bias) - relu(-values - bias)
