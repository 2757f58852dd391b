"""The operator H: synthesis (H x), its adjoint analysis (H^T y), and the Gram function of the atoms."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import scipy.fft

from spikecrsae.cores import n_cores
from spikecrsae.csc.compiled import compiled

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

#: Samples that one thread works on at a time.
_PIECE = 1 << 16
#: Of each thread: whether it is one of those that in_threads has started.
_thread = threading.local()


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


@dataclass(frozen=True)
class BlockSpectra:
    """A signal (n_channels, n_samples) with the spectra of overlapping short blocks, kept for correlating it many times.

    spectra (n_channels, n_blocks, n_frequencies): blocks of `size` samples that begin every size - n_times + 1 samples.
    """

    signal: np.ndarray
    spectra: np.ndarray
    size: int
    n_times: int

    @classmethod
    def of(cls, signal: np.ndarray, n_times: int) -> BlockSpectra:
        size = 1 << int(np.ceil(np.log2(12 * n_times)))
        hop = size - n_times + 1
        n_blocks = max(1, -(-(signal.shape[1] - n_times + 1) // hop))
        padded = np.pad(signal, ((0, 0), (0, (n_blocks - 1) * hop + size - signal.shape[1])))
        blocks = np.lib.stride_tricks.sliding_window_view(padded, size, axis=1)[:, ::hop]
        spectra = np.empty((len(signal), n_blocks, size // 2 + 1), np.result_type(signal.dtype, np.complex64))

        def transform(part: slice) -> None:
            spectra[:, part] = scipy.fft.rfft(blocks[:, part])

        in_threads(transform, n_blocks)
        return cls(signal, spectra, size, n_times)

    def correlate(self, atoms: np.ndarray) -> np.ndarray:
        """H^T y: correlation with every atom (n_units, n_channels, n_times), (n_units, n_positions), in the signal's
        precision."""
        hop = self.size - self.n_times + 1
        n_positions = self.signal.shape[1] - self.n_times + 1
        filters = np.conj(scipy.fft.rfft(atoms.astype(self.spectra.real.dtype), self.size))
        result = np.empty((len(atoms), self.spectra.shape[1] * hop), filters.real.dtype)

        def part_of(part: slice) -> None:
            values = scipy.fft.irfft(_filtered(self.spectra[:, part], filters), self.size)[:, :, :hop]
            # circular: only positions from hop on would see the wrap
            result[:, part.start * hop : part.stop * hop] = values.reshape(len(atoms), -1)

        in_threads(part_of, self.spectra.shape[1])
        return result[:, :n_positions]


@compiled
def _filtered(spectra, filters):
    n_channels, n_blocks, n_frequencies = spectra.shape
    out = np.zeros((len(filters), n_blocks, n_frequencies), spectra.dtype)
    for unit in range(len(filters)):
        for channel in range(n_channels):
            for block in range(n_blocks):
                for f in range(n_frequencies):
                    out[unit, block, f] += spectra[channel, block, f] * filters[unit, channel, f]
    return out


def energy_in_span(signal: np.ndarray, shapes: np.ndarray) -> list[np.ndarray]:
    """Energy of a signal (n_channels, n_samples) in the span of orthonormal shapes (n_shapes, n_times) on every channel,
    around each sample; zeros beyond the ends. In pieces, to be joined. float32."""
    n_times = shapes.shape[1]
    padded = np.pad(signal, ((0, 0), (n_times // 2, n_times - 1 - n_times // 2)))
    return in_threads(lambda part: _energy(padded[:, part.start : part.stop + n_times - 1], shapes), signal.shape[1], _PIECE)


@compiled
def _energy(signal, shapes):
    n_shapes, n_times = shapes.shape
    n_samples = signal.shape[1] - n_times + 1
    total = np.zeros(n_samples, np.float32)
    size = 2048  # stays in the fastest cache
    value = np.zeros(size, np.float32)
    for first in range(0, n_samples, size):
        here = total[first : first + size]
        inner = value[: len(here)]
        for channel in range(len(signal)):
            for shape in range(n_shapes):
                inner[:] = 0
                _correlate_into(inner, signal[channel, first:], shapes[shape])
                for i in range(len(inner)):
                    here[i] += inner[i] * inner[i]
    return total


@compiled(inline="always")
def _correlate_into(out, signal, shape):
    """Add the correlation of the signal with a shape, four of its samples at a time."""
    whole = len(shape) // 4 * 4
    for k in range(0, whole, 4):
        a, b, c, d = shape[k], shape[k + 1], shape[k + 2], shape[k + 3]
        moved = signal[k : k + len(out) + 3]
        for i in range(len(out)):
            out[i] += a * moved[i] + b * moved[i + 1] + c * moved[i + 2] + d * moved[i + 3]
    for k in range(whole, len(shape)):
        moved = signal[k : k + len(out)]
        for i in range(len(out)):
            out[i] += shape[k] * moved[i]


def in_threads(work: Callable[[slice], T], n: int, at_once: int = 16) -> list[T]:
    """What `work` gives for slices of range(n) of `at_once` each, in order, on all cores; inside such work, on the one it
    has."""
    slices = [slice(first, min(first + at_once, n)) for first in range(0, n, at_once)]
    if len(slices) < 2 or getattr(_thread, "is_ours", False):
        return [work(part) for part in slices]
    with ThreadPoolExecutor(n_cores(), initializer=lambda: setattr(_thread, "is_ours", True)) as pool:
        return list(pool.map(work, slices))


def correlate(signal: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """H^T y as `analysis`, numpy in and out, through overlapping short FFTs: the fastest of the ways measured on a CPU.

    signal (n_windows, n_channels, n_samples), atoms (n_units, n_channels, n_times) -> (n_windows, n_units, n_positions),
    in the signal's dtype.
    """
    return np.stack([BlockSpectra.of(window, atoms.shape[2]).correlate(atoms) for window in signal])


def gram(atoms: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """Cross-correlations of the atoms with others (the atoms themselves by default), (n_units, n_others, 2 n_times - 1),
    float64.

    gram[a, b, n_times - 1 + d] = sum_k <h_a[:, k], h_b[:, k + d]>: what one unit of atom b at position 0 adds to the
    correlation with atom a at position d (Eq. 39).
    """
    n_times = atoms.shape[2]
    size = 1 << int(np.ceil(np.log2(2 * n_times)))
    spectra = np.fft.rfft(np.asarray(atoms, np.float64), size, axis=2)
    other_spectra = spectra if others is None else np.fft.rfft(np.asarray(others, np.float64), size, axis=2)
    # frequencies first: one small matrix product each
    products = np.matmul(spectra.conj().transpose(2, 0, 1), other_spectra.transpose(2, 1, 0)).transpose(1, 2, 0)
    lags = np.fft.irfft(products, size, axis=2)
    return np.ascontiguousarray(np.concatenate([lags[:, :, size - n_times + 1 :], lags[:, :, :n_times]], axis=2))
