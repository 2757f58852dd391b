"""The greedy pursuit of csc.local_search.search in torch: the same layers by the same rule, on any device.

In each layer every candidate is taken that has the largest gain within reach. Spikes of one layer stand so far apart that every
second one is subtracted at once without two of them changing one value: the result does not depend on an order of additions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from spikecrsae.csc.local_search import FOUND_DTYPE, PARABOLA_MARGIN, PEAK_SHARE
from spikecrsae.csc.pursuit import Tables


@dataclass(frozen=True)
class Peaks:
    """Peaks of correlations as possible spikes, each field (n,): see FOUND_DTYPE."""

    unit: torch.Tensor
    position: torch.Tensor
    step: torch.Tensor
    amplitude: torch.Tensor
    gain: torch.Tensor

    def __len__(self) -> int:
        return len(self.unit)

    def select(self, which: torch.Tensor | slice) -> Peaks:
        return Peaks(*(values[which] for values in vars(self).values()))

    @classmethod
    def joined(cls, first: Peaks, second: Peaks) -> Peaks:
        return cls(*(torch.cat(pair) for pair in zip(vars(first).values(), vars(second).values(), strict=True)))

    def rows(self) -> np.ndarray:
        """As an array of FOUND_DTYPE."""
        rows = np.zeros(len(self), FOUND_DTYPE)
        for name, values in vars(self).items():
            rows[name] = values.cpu().numpy()
        return rows


class LayeredSearch:
    """Searches one stretch.

    correlation (n_units, n_positions): on the device; kept as it is. silent (n_units, n_positions) uint8: where it is not 0 a
    unit finds nothing. level (n_positions,) uint8: of the noise, 0 unless given. tables: as csc.pursuit
    takes them. Gains are computed in float64, where the device has it.
    """

    def __init__(
        self,
        correlation: torch.Tensor,
        silent: torch.Tensor | None,
        tables: Tables,
        level: np.ndarray | None = None,
    ) -> None:
        device, self.n_positions = correlation.device, correlation.shape[1]
        self.centre, self.reach = tables.overlaps.shape[2] // 2, tables.kernel.shape[1] // 2
        self.n_shifts, self.refractory = len(tables.kernel), int(tables.refractory)
        # a spike changes what interpolation sees a little beyond the overlap
        self.touched = max(self.centre, self.refractory) + self.reach + 1
        self.real = torch.float32 if device.type == "mps" else torch.float64
        self.overlaps = torch.tensor(tables.overlaps, dtype=correlation.dtype, device=device)
        self.kernel = torch.tensor(tables.kernel, dtype=self.real, device=device)
        # (n_levels, n_units) each
        self.pull, self.total, self.offset = torch.tensor(tables.prior, dtype=self.real, device=device).unbind(1)
        several = len(tables.prior) > 1 and level is not None
        self.level = torch.tensor(level, device=device).long() if several else None
        self.needed = (2 * self.total * -self.offset).clamp(min=0).sqrt() - self.pull
        least = (self.needed if self.level is None else self.needed[self.level.unique()]).amin(0)
        self.low = (PEAK_SHARE * least).clamp(min=0).to(correlation.dtype)[:, None]
        # spikes near the ends change values in the margins, which nothing reads
        margins = (self.touched, self.touched)
        self._correlation = torch.nn.functional.pad(correlation, margins)
        self._blocked = (
            torch.zeros_like(self._correlation, dtype=torch.uint8)
            if silent is None
            else torch.nn.functional.pad(silent, margins)
        )

    @property
    def correlation(self) -> torch.Tensor:
        """(n_units, n_positions): of the residual."""
        return self._correlation[:, self.touched : self.touched + self.n_positions]

    @property
    def blocked(self) -> torch.Tensor:
        """(n_units, n_positions) uint8: `silent`, and how many spikes of the unit keep it silent at the position."""
        return self._blocked[:, self.touched : self.touched + self.n_positions]

    def run(self) -> np.ndarray:
        """Rows (FOUND_DTYPE) of the spikes, layer after layer; they are subtracted from the correlation."""
        found: list[np.ndarray] = []
        candidates = self._candidates((self.correlation > self.low).any(0).nonzero()[:, 0])
        while len(taken := candidates.select(self._largest(candidates))):
            taken = taken.select(taken.position.argsort())
            self._put(taken)
            found.append(taken.rows())
            stale = self._around(taken.position)
            kept = candidates.select(~stale[candidates.position])
            candidates = Peaks.joined(kept, self._candidates(stale.nonzero()[:, 0]))
        return np.concatenate(found) if found else np.zeros(0, FOUND_DTYPE)

    def _candidates(self, at: torch.Tensor) -> Peaks:
        """Of every unit, the peaks in time of its correlation at these positions (n,) whose gain is above 0."""
        last, here = self.n_positions - 1, at + self.touched
        b = self._correlation[:, here]
        before = self._correlation[:, here.clamp(min=self.touched + 1) - 1]
        after = self._correlation[:, here.clamp(max=self.touched + last - 1) + 1] if last else b
        peak = (b > self.low) & (self._blocked[:, here] == 0)
        peak &= ((before <= b) | (at == 0)) & ((after < b) | (at == last))
        unit, k = peak.nonzero(as_tuple=True)
        position = at[k]
        b, before, after = (values[unit, k].to(self.real) for values in (b, before, after))
        before, after = torch.where(position == 0, b, before), torch.where(position == last, b, after)
        # a parabola tells where between the samples, and whether it is worth the exact value
        bend = 2 * b - before - after
        vertex = torch.where(bend > 0, 0.5 * (after - before) / bend, 0.0)
        row = torch.zeros_like(unit) if self.level is None else self.level[position]
        worth = PARABOLA_MARGIN * (b + 0.25 * (after - before) * vertex) > self.needed[row, unit]
        unit, position, vertex, row = unit[worth], position[worth], vertex[worth], row[worth]
        top, step = self._highest(unit, position, vertex)
        score, total = top + self.pull[row, unit], self.total[row, unit]
        gain = 0.5 * score**2 / total + self.offset[row, unit]
        found = Peaks(unit, position, step, score / total, gain)
        return found.select(gain > 0)

    def _highest(
        self, unit: torch.Tensor, position: torch.Tensor, vertex: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The highest correlation (n,) at the sub-sample step next to the vertex and its two neighbours, and its step (n,)."""
        offsets = torch.arange(-self.reach, self.reach + 1, device=position.device)
        window = (position[:, None] + offsets).clamp(0, self.n_positions - 1) + self.touched
        values = self._correlation[unit[:, None], window].to(self.real) @ self.kernel.T
        middle = (vertex * self.n_shifts + 0.5 * (self.n_shifts - 1)).round().long()
        steps = (middle[:, None] + torch.arange(-1, 2, device=position.device)).clamp(0, self.n_shifts - 1)
        # of equal ones the first
        top, which = values.gather(1, steps).max(1)
        return top, steps.gather(1, which[:, None])[:, 0]

    def _largest(self, candidates: Peaks) -> torch.Tensor:
        """Which candidates (bool, n) have the largest gain within reach; of equal ones the earliest, then the lowest unit."""
        position, gain = candidates.position, candidates.gain
        best = gain.new_full((self.n_positions,), -torch.inf).scatter_reduce(0, position, gain, "amax")
        # the largest of the `touched` positions before each one, and of those after it
        width = self.touched
        largest = _sliding_largest(torch.nn.functional.pad(best, (width, width), value=-torch.inf), width)
        is_largest = (gain == best[position]) & (gain > largest[position]) & (gain >= largest[position + width + 1])
        unit = torch.where(is_largest, candidates.unit, len(self.overlaps))
        lowest = unit.new_full((self.n_positions,), len(self.overlaps)).scatter_reduce(0, position, unit, "amin")
        return is_largest & (unit == lowest[position])

    def _put(self, spikes: Peaks) -> None:
        """Subtract spikes of one layer, in order of position, from the correlation, and block their units around them."""
        device = spikes.unit.device
        near = torch.arange(-self.centre, self.centre + 1, device=device) + self.touched
        quiet = torch.arange(-self.refractory, self.refractory + 1, device=device) + self.touched
        # spikes are more than `touched` apart, so every second one reaches none of the others
        for some in (spikes.select(slice(0, None, 2)), spikes.select(slice(1, None, 2))):
            at = some.position[:, None] + near
            shapes = self.overlaps[:, some.unit * self.n_shifts + some.step]
            self._correlation[:, at] -= some.amplitude.float().to(shapes.dtype)[:, None] * shapes
            self._blocked[some.unit[:, None], some.position[:, None] + quiet] += 1

    def _around(self, position: torch.Tensor) -> torch.Tensor:
        """Positions (bool, n_positions) that are within reach of one of these."""
        within = torch.arange(-self.touched, self.touched + 1, device=position.device)
        mask = torch.zeros(self.n_positions, dtype=torch.bool, device=position.device)
        mask[(position[:, None] + within).clamp(0, self.n_positions - 1)] = True
        return mask


def _sliding_largest(values: torch.Tensor, width: int) -> torch.Tensor:
    """The largest of each `width` neighbours: of values (n,), (n - width + 1,)."""
    size = 1
    while 2 * size <= width:
        values = torch.maximum(values[:-size], values[size:])
        size *= 2
    more = width - size
    return torch.maximum(values[: len(values) - more], values[more:])
