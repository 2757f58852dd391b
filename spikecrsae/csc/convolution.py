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
    """H^T y as `analysis`, numpy in and out, through overlapping short FFTs: the fastest of the ways measured on a CPU.

    signal (n_windows, n_channels, n_samples), atoms (n_units, n_channels, n_times) -> (n_windows, n_units, n_positions),
    in the signal's dtype.
    """
    n_units, n_channels, n_times = atoms.shape
    n_positions = signal.shape[2] - n_times + 1
    size = 1 << int(np.ceil(np.log2(12 * n_times)))
    hop = size - n_times + 1
    spectra = np.conj(scipy.fft.rfft(atoms.astype(signal.dtype), size)).transpose(2, 1, 0)
    result = np.empty((len(signal), n_units, n_positions), signal.dtype)
    blocks_at_once = max(1, 4_000_000 // (size * max(n_channels, n_units)))
    for window, target in zip(signal, result, strict=True):
        for first in range(0, n_positions, blocks_at_once * hop):
            n_blocks = min(blocks_at_once, -(-(n_positions - first) // hop))
            part = window[:, first : first + (n_blocks - 1) * hop + size]
            part = np.pad(part, ((0, 0), (0, (n_blocks - 1) * hop + size - part.shape[1])))
            blocks = np.lib.stride_tricks.sliding_window_view(part, size, axis=1)[:, ::hop]
            product = np.matmul(scipy.fft.rfft(blocks, workers=-1).transpose(2, 1, 0), spectra)
            # circular: only positions from hop on would see the wrap
            values = scipy.fft.irfft(product.transpose(2, 1, 0), size, workers=-1)[:, :, :hop].reshape(n_units, -1)
            stop = min(first + n_blocks * hop, n_positions)
            target[:, first:stop] = values[:, : stop - first]
    return result


def gram(atoms: np.ndarray) -> np.ndarray:
    """Cross-correlations of the atoms, (n_units, n_units, 2 n_times - 1), float64.

    gram[a, b, n_times - 1 + d] = sum_k <h_a[:, k], h_b[:, k + d]>: what one unit of atom b at position 0 adds to the
    correlation with atom a at position d (Eq. 39).
    """
    n_times = atoms.shape[2]
    size = 1 << int(np.ceil(np.log2(2 * n_times)))
    spectra = np.fft.rfft(np.asarray(atoms, np.float64), size, axis=2)
    products = np.einsum("amf,bmf->abf", spectra.conj(), spectra)
    lags = np.fft.irfft(products, size, axis=2)
    return np.ascontiguousarray(np.concatenate([lags[:, :, size - n_times + 1 :], lags[:, :, :n_times]], axis=2))
