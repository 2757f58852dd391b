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
    return _between(gram, n_times, n_grid)


def lipschitz_of_gram(gram: np.ndarray) -> float:
    """The same bound from the Gram function (n_units, n_units, 2 n_times - 1) of the atoms, csc.operator.gram."""
    n_times = (gram.shape[2] + 1) // 2
    # where the Gram function begins changes the phase of its spectrum
    spectra = np.fft.rfft(np.roll(np.pad(gram, ((0, 0), (0, 0), (0, 14 * n_times + 1))), 1 - n_times, axis=2), axis=2)
    return _between(spectra.transpose(2, 0, 1), n_times, 16 * n_times)


def _between(spectra: np.ndarray, n_times: int, n_grid: int) -> float:
    """An upper bound between the frequencies of a grid too; spectra (n_frequencies, n_units, n_units)."""
    return float(np.linalg.eigvalsh(spectra)[:, -1].max() / np.cos(np.pi * (n_times - 1) / n_grid))
