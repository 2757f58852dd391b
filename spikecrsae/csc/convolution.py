"""The operator H: synthesis (H x), its adjoint analysis (H^T y), and the Gram function of the atoms."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.fft

if TYPE_CHECKING:
    import torch


def synthesis(codes: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
    """H x: codes (n_windows, n_units, n_positions), atoms (n_units, n_channels, n_times) -> signal
    (n_windows, n_channels, n_positions + n_times - 1). Eq. 2, with one code for all channels."""
    from torch.nn.functional import conv_transpose1d

    return conv_transpose1d(codes, atoms)


def analysis(signal: torch.Tensor, atoms: torch.Tensor) -> torch.Tensor:
    """H^T y, the adjoint of `synthesis`: correlation of the signal (n_windows, n_channels, n_samples) with every atom,
    (n_windows, n_units, n_samples - n_times + 1)."""
    from torch.nn.functional import conv1d

    return conv1d(signal, atoms)


def correlate(signal: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """H^T y as `analysis`, numpy in and out, through FFTs: the fastest of the ways measured on a CPU for long windows.

    signal (n_windows, n_channels, n_samples), atoms (n_units, n_channels, n_times) -> (n_windows, n_units, n_positions),
    in the signal's dtype.
    """
    n_positions = signal.shape[2] - atoms.shape[2] + 1
    # circular: only positions from n_positions on would see the wrap
    size = scipy.fft.next_fast_len(signal.shape[2], real=True)
    spectra = np.conj(scipy.fft.rfft(atoms.astype(signal.dtype), size))
    result = np.empty((len(signal), len(atoms), n_positions), signal.dtype)
    step = max(1, 2_000_000 // (size * max(signal.shape[1], len(atoms))))
    for first in range(0, len(signal), step):
        batch = scipy.fft.rfft(signal[first : first + step], size, workers=-1)
        product = np.einsum("cmf,wmf->wcf", spectra, batch) if signal.shape[1] > 1 else spectra[:, 0] * batch
        result[first : first + step] = scipy.fft.irfft(product, size, workers=-1)[:, :, :n_positions]
    return result


def gram(atoms: np.ndarray) -> np.ndarray:
    """Cross-correlations of the atoms, (n_units, n_units, 2 n_times - 1), float64.

    gram[a, b, n_times - 1 + d] = sum_k <h_a[:, k], h_b[:, k + d]>: what one unit of atom b at position 0 adds to the
    correlation with atom a at position d (Eq. 39).
    """
    n_units, _, n_times = atoms.shape
    size = 1 << int(np.ceil(np.log2(2 * n_times)))
    spectra = np.fft.rfft(np.asarray(atoms, np.float64), size, axis=2)
    products = np.einsum("amf,bmf->abf", spectra.conj(), spectra)
    lags = np.fft.irfft(products, size, axis=2)
    return np.ascontiguousarray(np.concatenate([lags[:, :, size - n_times + 1 :], lags[:, :, :n_times]], axis=2))
