"""Priors of a spike's amplitude: each has a shrinkage and an M-step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar, Self

import numpy as np

from spikecrsae.csc.shrinkage import SpikeShrinkage

#: Bounds of the learned amplitude spread: below, a spike would have to fit its template better than any real one does;
#: above, the prior would no longer tell a spike from noise.
SPREAD_BOUNDS = (0.03, 0.2)
#: The number of spikes that the spread at the start is worth against what a unit's own spikes say (a conjugate prior of its
#: variance).
SPREAD_COUNT = 20


@dataclass(frozen=True)
class Prior:
    """The prior of spikes. Fields: one array (n_units,) for each of its parameters, with its value before anything is known as metadata `start`.

    A prior is a subclass with `shrinkage` and `maximise`; the encoder, training, curation and decoding take it as it is.
    """

    name: ClassVar[str]

    @classmethod
    def first(cls, n_units: int) -> Self:
        """The prior of so many units before anything is known of them."""
        return cls(*(np.full(n_units, f.metadata["start"]) for f in fields(cls)))

    def select(self, units: Sequence[int] | np.ndarray) -> Self:
        """Of these units only (indices or mask)."""
        return type(self)(*(getattr(self, f.name)[units] for f in fields(self)))

    def joined(self, other: Self) -> Self:
        """Of these units, then those of the other."""
        return type(self)(*(np.concatenate([getattr(p, f.name) for p in (self, other)]) for f in fields(self)))

    def parameters(self) -> dict[str, np.ndarray]:
        """Every parameter (n_units,) by its name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def shrinkage(self, energy: np.ndarray) -> SpikeShrinkage:
        """The shrinkage for templates of this energy ||h||^2 / sigma^2, (n_units,)."""
        raise NotImplementedError

    def maximise(self, unit: np.ndarray, amplitude: np.ndarray, energy: np.ndarray, n_positions: int) -> Self:
        """The M-step: the prior of units that have spikes, all others as they are.

        unit, amplitude (n_spikes,): of the spikes, amplitudes by least squares and relative to the new templates. energy
        (n_units,): of the templates. n_positions: among which each unit's spikes were found.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class SpikeSlab(Prior):
    """A spike has the amplitude a ~ N(1, spread^2) relative to its template, and costs the log odds `penalty` per position."""

    name = "spike-slab"
    spread: np.ndarray = field(metadata={"start": 0.1})
    penalty: np.ndarray = field(metadata={"start": 8.0})

    def shrinkage(self, energy: np.ndarray) -> SpikeShrinkage:
        """Amplitude (b + 1/s^2) / (g + 1/s^2), MODEL, "A better prior for the last step"."""
        precision = 1.0 / self.spread**2
        offset = -0.5 * precision - 0.5 * np.log1p(energy / precision) - self.penalty
        return SpikeShrinkage(precision, energy + precision, offset)

    def maximise(self, unit: np.ndarray, amplitude: np.ndarray, energy: np.ndarray, n_positions: int) -> SpikeSlab:
        """Spread: that of the amplitudes less what noise adds. Penalty: minus the log of the rate per position."""
        counts = np.bincount(unit, minlength=len(energy))
        spread, penalty = self.spread.copy(), self.penalty.copy()
        for c in np.flatnonzero(counts):
            spread[c] = learned_spread(amplitude[unit == c], energy[c])
            penalty[c] = np.log(n_positions / (counts[c] + 1.0))
        return SpikeSlab(spread, penalty)


#: The priors by the names that infer.prior takes.
PRIORS: dict[str, type[Prior]] = {prior.name: prior for prior in (SpikeSlab,)}


def learned_spread(amplitudes: np.ndarray, energy: float) -> float:
    """Spread of a unit's amplitudes (least squares, about 1) without what noise adds (1 / energy), within SPREAD_BOUNDS.

    From the upper half: small spikes of other neurons must not widen the prior that lets more of them in. A conjugate prior
    counts as much as SPREAD_COUNT spikes.
    """
    n = len(amplitudes)
    deviation = np.subtract(*np.percentile(amplitudes, [84, 50]))
    noise_free = max(deviation**2 - 1 / max(energy, 1e-9), 0.0)
    variance = (n * noise_free + SPREAD_COUNT * 0.1**2) / (n + SPREAD_COUNT)
    return float(np.clip(np.sqrt(variance), *SPREAD_BOUNDS))
