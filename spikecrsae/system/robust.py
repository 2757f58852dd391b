"""Statistics that outliers do not move."""

from __future__ import annotations

import numpy as np

#: Median absolute value of a standard normal variable.
_MEDIAN_OF_NORMAL = 0.6745


def deviation_about_zero(values: np.ndarray, axis: int | None = None) -> np.ndarray:
    """Standard deviation of normal values about zero, from their median absolute value along an axis."""
    return np.asarray(np.median(np.abs(values), axis=axis) / _MEDIAN_OF_NORMAL)
