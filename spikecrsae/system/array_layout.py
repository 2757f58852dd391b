"""Arrays out of a file against what belongs there: their kind, their sizes, and that their numbers are usable."""

from __future__ import annotations

from typing import Any

import numpy as np

#: No quantity of ours comes near it; squares of more overflow in float32 arithmetic.
LARGEST = 1e12
_KINDS = {"f": "real numbers", "b": "truth values", "iu": "whole numbers"}


def check_array(value: Any, kind: str, wanted: str, where: str, sizes: dict[str, int]) -> None:
    """Raise ValueError, naming `where`, unless a value is an array of a kind (a key of _KINDS, as in numpy's dtype.kind) and of
    the sizes that the letters of `wanted` stand for, with finite numbers of at most LARGEST.

    A digit is a size of its own; a letter that is not in `sizes` yet is put there.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in kind:
        raise ValueError(f"{where} is no array of {_KINDS[kind]}")
    fits = value.ndim == len(wanted) and all(
        (int(letter) if letter.isdigit() else sizes.setdefault(letter, n)) == n
        for letter, n in zip(wanted, value.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{where} has the shape {value.shape}, which does not fit the others")
    if not np.isfinite(value).all():
        raise ValueError(f"{where} holds a number that is not finite")
    if value.dtype.kind == "f" and np.any(np.abs(value) > LARGEST):
        raise ValueError(f"{where} holds a number beyond {LARGEST:g}")


def check_range(values: np.ndarray, least: float, most: float, where: str) -> None:
    """Raise ValueError, naming `where`, unless all numbers of an array lie within least and most."""
    if values.size and not (least <= values.min() and values.max() <= most):
        raise ValueError(f"{where} holds {values.min()} to {values.max()}, which must lie within {least} and {most}")
