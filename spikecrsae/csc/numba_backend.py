"""The encoder's and the M-step's heavy work on a CPU, by compiled loops."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from spikecrsae.csc.coordinate import encode
from spikecrsae.csc.least_squares import code_statistics, misfits, subtract_within
from spikecrsae.csc.operator import BlockSpectra, energy_in_span
from spikecrsae.csc.pursuit import L1, TOLERANCE, Effort, Tables, between, pursue
from spikecrsae.csc.stretches import above_any, cuts
from spikecrsae.data.spikes import Spikes
from spikecrsae.system.threads import in_threads

#: Pieces decoded side by side have at least this many positions.
_PIECE = 1 << 15
#: Positions whose correlation is held at once, about.
_CORRELATED = 1 << 19


class NumbaBackend:
    """Works on all cores. Signals are (n_channels, n_samples). tolerance: of the convex encoder, see csc.coordinate."""

    name = "numba"

    def __init__(self, tolerance: float = TOLERANCE) -> None:
        self.tolerance = tolerance

    def seen(self, signal: np.ndarray, n_times: int, keep: bool = False) -> BlockSpectra:
        """A signal made ready for correlations with templates of n_times samples; keep: for many of them."""
        return BlockSpectra.of(signal, n_times, keep)

    def correlation(self, seen: BlockSpectra, templates: np.ndarray) -> np.ndarray:
        """H^T y, (n_units, n_positions)."""
        return seen.correlate(templates)

    def active(
        self, signal: np.ndarray, templates: np.ndarray, needed: np.ndarray, much: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions (bool, n_positions) where the correlation with a template exceeds what it needs (n_units,), and where
        `much` times that."""
        correlation = BlockSpectra.of(signal, templates.shape[2], keep=False).correlate(templates)
        return above_any(correlation, needed), above_any(correlation, much * needed)

    def pursue_correlation(
        self, signal: np.ndarray, correlation: np.ndarray, tables: Tables, enough: np.ndarray, gap: int,
        effort: Effort, doubtful: Callable[[np.ndarray, Spikes], np.ndarray], l1: L1 | None = None,
        level: np.ndarray | None = None,
    ) -> Spikes:  # fmt: skip
        """The spikes of a signal whose correlation is known; see `pursue`."""
        bounds = cuts(correlation, enough, gap, _PIECE)
        return Spikes.joined(self._pieces(signal, correlation, 0, bounds, tables, effort, doubtful, l1, level, None))

    def pursue(
        self, seen: BlockSpectra, templates: np.ndarray, tables: Tables, enough: np.ndarray, gap: int,
        effort: Effort, doubtful: Callable[[np.ndarray, Spikes], np.ndarray], l1: L1 | None = None,
        level: np.ndarray | None = None, near: np.ndarray | None = None,
    ) -> Spikes:  # fmt: skip
        """The spikes of a signal: csc.pursuit in pieces between which, over `gap` positions, no correlation is `enough`
        (n_units,). doubtful: of the signal of a piece and its spikes, see csc.pursuit.refine. l1: see csc.pursuit.pursue.
        level (n_positions,) uint8: of the noise, see data.loudness; 0 unless given. near: rows of known spikes, sorted by
        position, see csc.pursuit.pursue."""
        found, first, correlation = [], 0, np.zeros((len(templates), 0), seen.dtype)
        # the correlation with all templates takes more memory than the signal: not of everything at once, if quiet places part it
        for start, stop in seen.parts(_CORRELATED):
            correlation = seen.correlate_after(correlation, templates, start, stop)
            bounds = cuts(correlation, enough, gap, _PIECE)
            if stop < seen.n_blocks:
                bounds = bounds[:-1]  # the last piece goes on in the next part
            found += self._pieces(seen.signal, correlation, first, bounds, tables, effort, doubtful, l1, level, near)
            first, correlation = first + bounds[-1], correlation[:, bounds[-1] :].copy()
        return Spikes.joined(found)

    def _pieces(
        self, signal: np.ndarray, correlation: np.ndarray, first: int, bounds: np.ndarray, tables: Tables,
        effort: Effort, doubtful: Callable[[np.ndarray, Spikes], np.ndarray], l1: L1 | None, level: np.ndarray | None,
        near: np.ndarray | None,
    ) -> list[Spikes]:  # fmt: skip
        """Spikes between the bounds, which like the correlation count from position `first` of the signal."""
        n_more = tables.overlaps.shape[2] // 2

        def piece(part: slice) -> Spikes:
            low, high = bounds[part.start], bounds[part.stop]
            here = signal[:, first + low : first + high + n_more]
            contiguous = np.ascontiguousarray(correlation[:, low:high])
            known = None if level is None else level[first + low : first + high]
            before = None if near is None else between(near, first + low, first + high)
            found = pursue(contiguous, tables, effort, lambda spikes: doubtful(here, spikes), l1, known, before)
            return found.later(first + low)

        return in_threads(piece, len(bounds) - 1, 1)

    def subtract(
        self, signal: np.ndarray, copies: np.ndarray, row: np.ndarray, sample: np.ndarray, amplitude: np.ndarray,
        out: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """y - H x: signal less amplitude * copies[row] at each sample (ascending), float32; into `out` if given, which may be
        the signal."""
        rest, n_times = np.empty(signal.shape, np.float32) if out is None else out, copies.shape[2]

        def piece(part: slice) -> None:
            rest[:, part] = signal[:, part]
            low, high = np.searchsorted(sample, [part.start - n_times + 1, part.stop])
            subtract_within(rest, part.start, part.stop, copies, row[low:high], sample[low:high], amplitude[low:high])

        in_threads(piece, signal.shape[1], _PIECE)
        return rest

    misfits = staticmethod(misfits)
    code_statistics = staticmethod(code_statistics)

    def energy_in_span(self, signal: np.ndarray, shapes: np.ndarray) -> np.ndarray:
        """Energy (n_samples,) of a signal in the span of orthonormal shapes (n_shapes, n_times), see csc.operator."""
        return np.concatenate([np.zeros(0, np.float32), *energy_in_span(signal, shapes)])

    def l1_codes(
        self,
        windows: np.ndarray,
        atoms: np.ndarray,
        bias: float | np.ndarray,
        one_sided: bool,
        start: np.ndarray | None = None,
    ) -> np.ndarray:
        """Codes (n_windows, n_units, n_positions) of the convex encoder, coordinate descent, in the dtype of the windows
        (n_windows, n_channels, n_samples); atoms (n_units, n_channels, n_times) of unit norm; bias: lambda sigma^2, one value or
        (n_units,); start: codes of a warm start."""
        return encode(windows, atoms, bias, one_sided, self.tolerance, start)


NUMBA = NumbaBackend()
