"""The operator H: synthesis (H x), its adjoint analysis (H^T y), and the Gram function of the atoms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import scipy.fft

from spikecrsae.system.compiled import compiled
from spikecrsae.system.threads import in_threads

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

#: Samples that one thread works on at a time.
_DETECTED_AT_ONCE = 1 << 16


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
    """A signal (n_channels, n_samples) in overlapping short blocks of `size` samples that begin every size - n_times + 1
    samples, for correlating it by FFT.

    spectra (n_blocks, n_channels, n_frequencies): of the blocks, kept for correlating many times; None where they are computed
    when they are needed.
    """

    signal: np.ndarray
    spectra: np.ndarray | None
    size: int
    n_times: int

    @classmethod
    def of(cls, signal: np.ndarray, n_times: int, keep: bool = True) -> BlockSpectra:
        blocks = cls(signal, None, 1 << int(np.ceil(np.log2(12 * n_times))), n_times)
        if not keep:
            return blocks
        spectra = np.empty((blocks.n_blocks, len(signal), blocks.size // 2 + 1), np.result_type(signal.dtype, np.complex64))

        def transform(part: slice) -> None:
            spectra[part] = blocks._spectra(part)

        in_threads(transform, blocks.n_blocks)
        return cls(signal, spectra, blocks.size, n_times)

    @property
    def _hop(self) -> int:
        return self.size - self.n_times + 1

    @property
    def n_blocks(self) -> int:
        return max(1, -(-(self.signal.shape[1] - self.n_times + 1) // self._hop))

    @property
    def dtype(self) -> np.dtype:
        """Of the correlation."""
        return np.result_type(self.signal.dtype, np.float32)

    def parts(self, n_positions: int) -> Iterator[tuple[int, int]]:
        """All blocks, (first, last + 1) of so many of them as have about n_positions."""
        at_once = max(1, n_positions // self._hop)
        for first in range(0, self.n_blocks, at_once):
            yield first, min(first + at_once, self.n_blocks)

    def _spectra(self, part: slice) -> np.ndarray:
        """Spectra (n, n_channels, n_frequencies) of some of the blocks; beyond its end the signal is zero."""
        if self.spectra is not None:
            return self.spectra[part]
        first, end = part.start * self._hop, (part.stop - 1) * self._hop + self.size
        here = self.signal[:, first:end]
        if here.shape[1] < end - first:
            here = np.pad(here, ((0, 0), (0, end - first - here.shape[1])))
        blocks = np.lib.stride_tricks.sliding_window_view(here, self.size, axis=1)[:, :: self._hop]
        return scipy.fft.rfft(blocks.swapaxes(0, 1))

    def correlate(self, atoms: np.ndarray) -> np.ndarray:
        """H^T y: correlation with every atom (n_units, n_channels, n_times), (n_units, n_positions), in the signal's
        precision."""
        return self.correlate_after(np.zeros((len(atoms), 0)), atoms, 0, self.n_blocks)

    def correlate_after(self, before: np.ndarray, atoms: np.ndarray, first: int, last: int) -> np.ndarray:
        """The correlation with atoms (n_units, n_channels, n_times) at the positions of blocks first to last - 1, behind what is
        known of it before these, (n_units, n_before)."""
        filters = np.conj(scipy.fft.rfft(atoms.astype(self.dtype), self.size))
        n_before, n_blocks = before.shape[1], last - first
        result = np.empty((len(atoms), n_before + n_blocks * self._hop), self.dtype)
        result[:, :n_before] = before
        by_block = result[:, n_before:].reshape(len(atoms), n_blocks, self._hop)

        def part_of(part: slice) -> None:
            spectra = self._spectra(slice(first + part.start, first + part.stop))
            products = _products(_as_real(spectra), _as_real(filters)).view(filters.dtype)
            # circular: only positions from a hop on would see the wrap
            by_block[:, part] = scipy.fft.irfft(products, self.size)[:, :, : self._hop]

        in_threads(part_of, n_blocks)
        return result[:, : n_before + min(last * self._hop, self.signal.shape[1] - self.n_times + 1) - first * self._hop]


def _as_real(numbers: np.ndarray) -> np.ndarray:
    """Complex numbers as pairs of real ones, which numba turns into vector instructions."""
    return np.ascontiguousarray(numbers).view(numbers.real.dtype)


@compiled
def _products(spectra: np.ndarray, filters: np.ndarray) -> np.ndarray:
    """Sums over the channels of products of spectra (n_blocks, n_channels, 2 n_frequencies) with filters (n_units, n_channels,
    2 n_frequencies), both pairs of real and imaginary part: (n_units, n_blocks, 2 n_frequencies)."""
    n_blocks, n_channels, n_numbers = spectra.shape
    sums = np.zeros((len(filters), n_blocks, n_numbers), spectra.dtype)
    for block in range(n_blocks):
        for unit in range(len(filters)):
            total = sums[unit, block]
            for channel in range(n_channels):
                x, h = spectra[block, channel], filters[unit, channel]
                for f in range(n_numbers // 2):
                    total[2 * f] += x[2 * f] * h[2 * f] - x[2 * f + 1] * h[2 * f + 1]
                    total[2 * f + 1] += x[2 * f] * h[2 * f + 1] + x[2 * f + 1] * h[2 * f]
    return sums


def energy_in_span(signal: np.ndarray, shapes: np.ndarray) -> list[np.ndarray]:
    """Energy of a signal (n_channels, n_samples) in the span of orthonormal shapes (n_shapes, n_times) on every channel,
    around each sample; zeros beyond the ends. In pieces, to be joined. float32."""
    n_times, n_samples = shapes.shape[1], signal.shape[1]

    def energy(part: slice) -> np.ndarray:
        first, end = part.start - n_times // 2, part.stop + n_times - 1 - n_times // 2
        here = signal[:, max(first, 0) : end]
        if first < 0 or end > n_samples:
            here = np.pad(here, ((0, 0), (max(-first, 0), max(end - n_samples, 0))))
        return _energy(here, shapes)

    return in_threads(energy, n_samples, _DETECTED_AT_ONCE)


@compiled
def _energy(signal: np.ndarray, shapes: np.ndarray) -> np.ndarray:
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
def _correlate_into(out: np.ndarray, signal: np.ndarray, shape: np.ndarray) -> None:
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


def correlate(signal: np.ndarray, atoms: np.ndarray) -> np.ndarray:
    """H^T y as `analysis`, numpy in and out, through overlapping short FFTs: the fastest of the ways measured on a CPU.

    signal (n_windows, n_channels, n_samples), atoms (n_units, n_channels, n_times) -> (n_windows, n_units, n_positions),
    in the signal's dtype.
    """
    return np.stack([BlockSpectra.of(window, atoms.shape[2], keep=False).correlate(atoms) for window in signal])


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
