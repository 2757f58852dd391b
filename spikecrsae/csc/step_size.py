"""L, an upper bound of the largest eigenvalue of H^T H; the step of FISTA is 1 / L."""

from __future__ import annotations

import numpy as np

from spikecrsae.errors import UsageError


def lipschitz_bound(atoms: np.ndarray, n_grid: int | None = None) -> float:
    """The largest eigenvalue, over frequency, of the (n_units, n_units) matrix of cross-spectra of the atoms.

    For one channel that is max_f sum_c |h_c(f)|^2. On a grid of n_grid frequencies over the circle the maximum between
    two grid points may be higher: the value is divided by cos(pi (n_times - 1) / n_grid), which bounds it (MODEL,
    Encoder). Default grid: 16 n_times. Raises UsageError for a grid too coarse to bound anything.
    """
    n_times = atoms.shape[2]
    n_grid = n_grid or 16 * n_times
    if n_grid <= 2 * (n_times - 1):
        raise UsageError(
            f"a grid of {n_grid} frequencies bounds nothing for {n_times} samples; use more than {2 * (n_times - 1)}."
        )
    spectra = np.fft.rfft(np.asarray(atoms, np.float64), n_grid, axis=2)
    gram = np.einsum("cmf,mdf->fcd", spectra, spectra.conj().transpose(1, 0, 2), optimize=True)
    largest = float(np.linalg.eigvalsh(gram)[:, -1].max())
    return largest / np.cos(np.pi * (n_times - 1) / n_grid)
