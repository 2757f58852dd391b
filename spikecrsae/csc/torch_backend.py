"""The encoder's and the M-step's heavy work in torch, on any device; only the local search stays on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import conv1d, pad

from spikecrsae.csc.coordinate import of_unit_norm
from spikecrsae.csc.fista import fista, fista_of_correlation
from spikecrsae.csc.layered_search import LayeredSearch
from spikecrsae.csc.least_squares import code_correlations, most_within
from spikecrsae.csc.local_search import Residual, resume
from spikecrsae.csc.pursuit import L1, Effort, Tables, between, outside_support, refine
from spikecrsae.csc.step_size import lipschitz_bound, lipschitz_of_gram
from spikecrsae.csc.torch_device import TorchDevice
from spikecrsae.data.spikes import Spikes
from spikecrsae.system.threads import in_threads

#: Pieces whose places are searched locally side by side have at least this many positions.
_PIECE = 1 << 15


@dataclass(frozen=True)
class Seen:
    """A signal (n_channels, n_samples) made ready for correlations; kept: the same on the device, None where parts are moved there
    when they are needed."""

    signal: np.ndarray
    kept: torch.Tensor | None

    @property
    def dtype(self) -> np.dtype:
        """Of the correlation."""
        return np.result_type(self.signal.dtype, np.float32)


#: From a warm start so many times fewer iterations of FISTA do.
WARM = 6


class TorchBackend(TorchDevice):
    """Works on a torch device. Signals are (n_channels, n_samples); see NumbaBackend for what the methods compute.

    n_iterations: unrolled iterations of FISTA, where a prior asks for the convex encoder. at_once: positions, or samples, of a
    part; it is halved when the memory of the device is full. Every result is the same from run to run on one device.
    """

    name = "torch"

    def __init__(self, device: str, n_iterations: int = 180, at_once: int = 1 << 19) -> None:
        super().__init__(device, at_once)
        self.n_iterations = n_iterations

    def seen(self, signal: np.ndarray, n_times: int, keep: bool = False) -> Seen:
        """A signal made ready for correlations with templates of n_times samples; keep: for many of them."""
        seen = Seen(signal, None)
        return Seen(signal, self._part_of(seen, 0, signal.shape[1])) if keep else seen

    def correlation(self, seen: Seen, templates: np.ndarray) -> torch.Tensor:
        """H^T y, (n_units, n_positions) on the device."""
        n_positions = seen.signal.shape[1] - templates.shape[2] + 1
        parts = self.in_parts(n_positions, lambda part: self._correlate(seen, part.start, part.stop, templates))
        return torch.cat(parts, 1)

    def active(
        self, signal: np.ndarray, templates: np.ndarray, needed: np.ndarray, much: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Positions (bool, n_positions) where the correlation with a template exceeds what it needs (n_units,), and where
        `much` times that."""
        seen = self.seen(signal, templates.shape[2])

        def part_of(part: slice) -> tuple[np.ndarray, np.ndarray]:
            correlation = self._correlate(seen, part.start, part.stop, templates)
            enough = torch.tensor(needed, dtype=correlation.dtype, device=self.device)[:, None]
            found, strong = ((correlation > share * enough).any(0).cpu().numpy() for share in (1, much))
            return found, strong

        parts = self.in_parts(signal.shape[1] - templates.shape[2] + 1, part_of)
        found, strong = (np.concatenate(values) for values in zip(*parts, strict=True))
        return found, strong

    def pursue_correlation(
        self, signal: np.ndarray, correlation: torch.Tensor, tables: Tables, enough: np.ndarray, gap: int,
        effort: Effort, doubtful: Callable[[np.ndarray, Spikes], np.ndarray], l1: L1 | None = None,
        level: np.ndarray | None = None,
    ) -> Spikes:  # fmt: skip
        """The spikes of a signal whose correlation is known; see `pursue`."""
        return self._pursue(
            signal, lambda first, stop: correlation[:, first:stop], tables, enough, gap, effort, doubtful, l1, level, None
        )

    def pursue(
        self, seen: Seen, templates: np.ndarray, tables: Tables, enough: np.ndarray, gap: int,
        effort: Effort, doubtful: Callable[[np.ndarray, Spikes], np.ndarray], l1: L1 | None = None,
        level: np.ndarray | None = None, near: np.ndarray | None = None,
    ) -> Spikes:  # fmt: skip
        """The spikes of a signal: csc.layered_search, and the local search of csc.pursuit, in parts between which, over `gap`
        positions, no correlation is `enough` (n_units,). doubtful: of the signal of a piece and its spikes, see
        csc.pursuit.refine. l1: the layers place spikes only where this convex encoder finds any. near: rows of known spikes,
        sorted by position, see csc.pursuit.pursue; they are looked for again on the CPU."""
        return self._pursue(
            seen.signal,
            lambda first, stop: self._correlate(seen, first, stop, templates),
            tables, enough, gap, effort, doubtful, l1, level, near,
        )  # fmt: skip

    def _pursue(
        self, signal: np.ndarray, read: Callable[[int, int], torch.Tensor], tables: Tables, enough: np.ndarray, gap: int,
        effort: Effort, doubtful: Callable[[np.ndarray, Spikes], np.ndarray], l1: L1 | None, level: np.ndarray | None,
        near: np.ndarray | None,
    ) -> Spikes:  # fmt: skip
        """See `pursue`. read: the correlation (n_units, n) at positions from one to before another."""
        n_positions = signal.shape[1] - tables.overlaps.shape[2] // 2
        known = np.zeros(n_positions, np.uint8) if level is None else level
        found, first, size, too_short = [], 0, self.at_once, 0
        while first < n_positions:
            stop = min(first + size, n_positions)

            def part(first: int = first, stop: int = stop) -> tuple[int, Residual, np.ndarray, np.ndarray | None] | None:
                correlation = read(first, stop)
                loud = self._loud(correlation, enough)
                length = stop - first if stop == n_positions else _quiet_end(loud, gap)
                if not length:
                    return None
                here = known[first : first + length]
                if near is not None and l1 is None:
                    before = between(near, first, first + length)
                    return (length, *self._resumed(correlation[:, :length], tables, here, before))
                return (length, *self._search(correlation[:, :length], loud[:length], tables, gap, l1, here), None)

            result, full = self.unless_full(part, size, too_short + 1)
            if full:
                size //= 2
            elif result is None:  # no quiet gap
                size, too_short = 2 * size, size
            else:
                here = signal[:, first : first + result[0] + tables.overlaps.shape[2] // 2]
                found += [spikes.later(first) for spikes in _refined(here, *result[1:], tables, gap, effort, doubtful)]
                first, size, too_short = first + result[0], self.at_once, 0
        return Spikes.joined(found)

    def _search(
        self, correlation: torch.Tensor, loud: torch.Tensor, tables: Tables, gap: int, l1: L1 | None, level: np.ndarray
    ) -> tuple[Residual, np.ndarray]:
        """The rows (FOUND_DTYPE) of the layered search, and the residual, both on the CPU."""
        silent = None if l1 is None else outside_support(self._convex(correlation, loud, gap, l1).cpu().numpy())
        given = None if silent is None else torch.tensor(silent, device=self.device)
        search = LayeredSearch(correlation, given, tables, level)
        rows = search.run()
        blocked = search.blocked.cpu().numpy()
        # the local search is free to leave the support
        blocked = blocked if silent is None else blocked - silent
        return Residual(search.correlation.cpu().numpy(), blocked, level), rows

    def _resumed(
        self, correlation: torch.Tensor, tables: Tables, level: np.ndarray, near: np.ndarray
    ) -> tuple[Residual, np.ndarray, np.ndarray]:
        """The residual, the rows (FOUND_DTYPE) of known spikes where they are found again and of those that the layered search adds, and
        which of them (bool) are searched locally."""
        # the search changes what it is given
        values = correlation.cpu().numpy().copy()
        residual = Residual(values, np.zeros(values.shape, np.uint8), level)
        found, open_ = resume(residual, tables, near)
        given, silent = (torch.tensor(v, device=self.device) for v in (residual.correlation, residual.blocked))
        search = LayeredSearch(given, silent, tables, level)
        new = search.run()
        rest = Residual(search.correlation.cpu().numpy(), search.blocked.cpu().numpy(), level)
        return rest, np.r_[found, new], np.r_[open_, np.ones(len(new), bool)]

    def _convex(self, correlation: torch.Tensor, loud: torch.Tensor, gap: int, l1: L1) -> torch.Tensor:
        """Codes (n_units, n_positions) of the convex encoder: FISTA where something is loud, 0 in the middle of quiet gaps."""
        kept = loud.nonzero()[:, 0]
        around = torch.arange(-(gap // 2), gap // 2 + 1, device=self.device)
        near = torch.zeros_like(loud)
        near[(kept[:, None] + around).clamp(0, len(loud) - 1)] = True
        codes = torch.zeros_like(correlation)
        if not len(kept):
            return codes
        gram, norms = of_unit_norm(l1.gram)
        scale, bias, kernels = (torch.tensor(v).to(correlation) for v in (norms[:, None], l1.bias[:, None], gram))
        with self.exact():
            codes[:, near] = fista_of_correlation(
                (correlation[:, near] / scale)[None],
                kernels,
                bias,
                lipschitz_of_gram(gram),
                self.n_iterations,
                l1.one_sided,
            )[0]
        return codes

    def l1_codes(
        self,
        windows: np.ndarray,
        atoms: np.ndarray,
        bias: float | np.ndarray,
        one_sided: bool,
        start: np.ndarray | None = None,
    ) -> np.ndarray:
        """Codes (n_windows, n_units, n_positions) of the convex encoder, FISTA, in the dtype of the windows (n_windows, n_channels,
        n_samples); atoms (n_units, n_channels, n_times) of unit norm; bias: lambda sigma^2, one value or (n_units,); start:
        codes of a warm start."""
        biases = np.broadcast_to(np.asarray(bias, np.float64), (len(atoms),))
        bound, n_samples = lipschitz_bound(atoms), windows.shape[2]
        n_iterations = self.n_iterations if start is None else -(-self.n_iterations // WARM)

        def codes_of(part: slice) -> np.ndarray:
            signal = self.moved(windows[part])
            lam = torch.tensor(biases, dtype=signal.dtype, device=self.device)[:, None]
            weights = torch.tensor(atoms, dtype=signal.dtype, device=self.device)
            begin = None if start is None else self.moved(start[part]).to(signal.dtype)
            with self.exact():
                return fista(signal, weights, lam, 1.0, bound, n_iterations, one_sided, begin).cpu().numpy()

        return np.concatenate(self.in_parts(len(windows), codes_of, n_samples))

    def subtract(
        self, signal: np.ndarray, copies: np.ndarray, row: np.ndarray, sample: np.ndarray, amplitude: np.ndarray,
        out: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """y - H x: signal less amplitude * copies[row] at each sample (ascending), float32; into `out` if given, which may be
        the signal."""
        rest = np.empty(signal.shape, np.float32) if out is None else out

        def piece(part: slice) -> None:
            rest[:, part] = self._rest(signal, part.start, part.stop, copies, row, sample, amplitude).cpu().numpy()

        self.in_parts(signal.shape[1], piece)
        return rest

    def misfits(
        self, signal: np.ndarray, templates: np.ndarray, row: np.ndarray, sample: np.ndarray, amplitude: np.ndarray,
        weights: np.ndarray, unit: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """Energy (n,) that events, ascending, leave in the window at each one: of signal less all amplitude * templates[row] that
        reach into it, its samples weighted by weights[unit], (n_units, n_times)."""
        n_times = templates.shape[2]

        def piece(part: slice) -> np.ndarray:
            first, last = np.searchsorted(sample, [part.start, part.stop])
            if first == last:
                return np.zeros(0)
            stop = min(part.stop + n_times - 1, signal.shape[1])
            rest = self._rest(signal, part.start, stop, templates, row, sample, amplitude)
            energy = rest.square().sum(0).to(self.real).unfold(0, n_times, 1)
            at = torch.tensor(sample[first:last] - part.start, device=self.device)
            weight = torch.tensor(weights, dtype=self.real, device=self.device)
            return (energy[at] * weight[torch.tensor(unit[first:last], device=self.device)]).sum(1).cpu().numpy()

        return np.concatenate([np.zeros(0), *self.in_parts(signal.shape[1], piece)])

    def code_statistics(
        self, signal: np.ndarray, unit: np.ndarray, sample: np.ndarray, amplitude: np.ndarray, n_units: int, n_times: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Code correlations lags[c, d, n_times - 1 + t] = sum_n x_c[n] x_d[n + t], and sums target (n_units, n_channels, n_times)
        of the windows at the events (ascending), both float64."""
        n_channels = len(signal)

        def piece(part: slice) -> np.ndarray:
            first, last = np.searchsorted(sample, [part.start, part.stop])
            values = self.moved(signal[:, part.start : part.stop + n_times - 1]).to(self.real)
            at = torch.tensor(sample[first:last, None] - part.start + np.arange(n_times), device=self.device)
            codes = torch.zeros((n_units, last - first), dtype=self.real, device=self.device)
            own = torch.tensor(unit[first:last], device=self.device), torch.arange(last - first, device=self.device)
            codes[own] = torch.tensor(amplitude[first:last], dtype=self.real, device=self.device)
            # one channel at a time: all windows at once take more memory than the signal
            sums = [codes @ values[channel][at] for channel in range(n_channels)]
            return torch.stack(sums, 1).cpu().numpy()

        target = sum(self.in_parts(signal.shape[1], piece), np.zeros((n_units, n_channels, n_times)))
        return code_correlations(unit, sample, amplitude, n_units, n_times), target

    def energy_in_span(self, signal: np.ndarray, shapes: np.ndarray) -> np.ndarray:
        """Energy (n_samples,) of a signal in the span of orthonormal shapes (n_shapes, n_times) on every channel, around each
        sample; zeros beyond the ends. float32."""
        n_times, n_samples = shapes.shape[1], signal.shape[1]
        weights = torch.tensor(shapes, dtype=torch.float32, device=self.device)[:, None]

        def energy(part: slice) -> np.ndarray:
            first, end = part.start - n_times // 2, part.stop + n_times - 1 - n_times // 2
            here = self.moved(signal[:, max(first, 0) : end]).float()
            here = pad(here, (max(-first, 0), max(end - n_samples, 0)))
            with self.exact():
                return conv1d(here[:, None], weights).square().sum((0, 1)).cpu().numpy()

        return np.concatenate([np.zeros(0, np.float32), *self.in_parts(n_samples, energy)])

    def _part_of(self, seen: Seen, first: int, stop: int) -> torch.Tensor:
        return self.moved(seen.signal[:, first:stop]) if seen.kept is None else seen.kept[:, first:stop]

    def _correlate(self, seen: Seen, first: int, stop: int, templates: np.ndarray) -> torch.Tensor:
        """H^T y, (n_units, n), at positions from first to before stop."""
        signal = self._part_of(seen, first, stop + templates.shape[2] - 1)
        with self.exact():
            return conv1d(signal[None], torch.tensor(templates, dtype=signal.dtype, device=self.device))[0]

    def _loud(self, correlation: torch.Tensor, enough: np.ndarray) -> torch.Tensor:
        """Positions (bool, n) where a correlation is enough."""
        return (correlation > torch.tensor(enough, dtype=correlation.dtype, device=self.device)[:, None]).any(0)

    def _rest(
        self, signal: np.ndarray, first: int, stop: int, copies: np.ndarray, row: np.ndarray, sample: np.ndarray,
        amplitude: np.ndarray,
    ) -> torch.Tensor:  # fmt: skip
        """Samples from first to before stop of the signal less all events, (n_channels, n) float32."""
        n_times = copies.shape[2]
        low, high = np.searchsorted(sample, [first - n_times + 1, stop])
        # events that reach beyond the ends change values in the margins, which are cut off
        rest = pad(self.moved(signal[:, first:stop]).float(), (n_times - 1, n_times - 1))
        used, rows = np.unique(row[low:high], return_inverse=True)
        shapes = torch.tensor(copies[used], dtype=torch.float32, device=self.device)
        at, scale = sample[low:high] - first + n_times - 1, amplitude[low:high]
        # no two of every n-th event overlap: subtracted at once, they change no value twice
        n = most_within(at, n_times)
        for some in (slice(k, None, n) for k in range(n)):
            places = torch.tensor(at[some, None] + np.arange(n_times), device=self.device)
            factor = torch.tensor(scale[some], dtype=torch.float32, device=self.device)[:, None, None]
            waves = factor * shapes[torch.tensor(rows[some], device=self.device)]
            rest[:, places] -= waves.transpose(0, 1)
        return rest[:, n_times - 1 : rest.shape[1] - n_times + 1]


def _quiet_end(loud: torch.Tensor, gap: int) -> int:
    """A place in the last run of at least `gap` positions without a loud one (bool, n), half a gap before its end; 0 without
    such a run."""
    places = loud.nonzero()[:, 0].cpu().numpy()
    begins, ends = np.r_[0, places + 1], np.r_[places, len(loud)]
    long = np.flatnonzero(ends - begins >= gap)
    return int(ends[long[-1]] - gap // 2) if len(long) else 0


def _refined(
    signal: np.ndarray, residual: Residual, rows: np.ndarray, open_: np.ndarray | None, tables: Tables, gap: int,
    effort: Effort, doubtful: Callable[[np.ndarray, Spikes], np.ndarray],
) -> list[Spikes]:  # fmt: skip
    """csc.pursuit.refine in pieces, cut between spikes that are more than `gap` apart. open_: rows (bool), where they are known."""
    n_more, n_positions = tables.overlaps.shape[2] // 2, residual.correlation.shape[1]
    order = np.argsort(rows["position"], kind="stable")
    rows, known = rows[order], None if open_ is None else open_[order]
    position = rows["position"]
    far = np.flatnonzero(np.diff(position) > gap)
    bounds = [0]
    for cut in (position[far] + position[far + 1]) // 2:
        if cut - bounds[-1] >= _PIECE:
            bounds.append(int(cut))
    bounds.append(n_positions)

    def piece(part: slice) -> Spikes:
        low, high = bounds[part.start], bounds[part.stop]
        first, last = np.searchsorted(position, [low, high])
        here = Residual(*(np.ascontiguousarray(values[..., low:high]) for values in residual))
        found = rows[first:last].copy()
        found["position"] -= low
        window = signal[:, low : high + n_more]
        there = None if known is None else known[first:last]
        return refine(here, tables, found, effort, lambda spikes: doubtful(window, spikes), there).later(low)

    return in_threads(piece, len(bounds) - 1, 1)
