"""Sparse codes as the arrays that the mathematics writes."""

from __future__ import annotations

import numpy as np

from spikecrsae.data.sparse_code import SparseCode


def dense(code: SparseCode) -> np.ndarray:
    """The code as an array (n_units, n_positions), float32."""
    values = np.zeros((code.n_units, code.n_positions), np.float32)
    np.add.at(values, (code.unit, code.sample), code.amplitude)
    return values
