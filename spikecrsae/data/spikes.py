"""Spikes: the codes of the encoder as events."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np


@dataclass(frozen=True)
class Spikes:
    """Decoded spikes sorted by sample: unit, first sample of the template, amplitude relative to the template, sub-sample
    shift, and where all other spikes stay: gain, the log posterior odds of the spike against none, and rival_gain, those of
    the best spike of another unit (rival) in its place; without one, rival is -1 and rival_gain 0."""

    unit: np.ndarray
    sample: np.ndarray
    amplitude: np.ndarray
    shift: np.ndarray
    gain: np.ndarray
    rival: np.ndarray
    rival_gain: np.ndarray

    @classmethod
    def none(cls) -> Spikes:
        whole, real = np.zeros(0, np.int64), np.zeros(0)
        return cls(whole, whole, real, real, real, whole, real)

    def __len__(self) -> int:
        return len(self.sample)

    def select(self, mask: np.ndarray | slice) -> Spikes:
        return Spikes(*(getattr(self, f.name)[mask] for f in fields(self)))

    def later(self, by: int) -> Spikes:
        """The same spikes, samples counted from `by` samples earlier."""
        return replace(self, sample=self.sample + by)

    def moved(self, by: np.ndarray, last: int) -> Spikes:
        """The spikes of every unit moved later by so many samples (n_units,); those that leave samples 0 to `last` are gone."""
        sample = self.sample + by[self.unit]
        order = np.argsort(sample, kind="stable")
        return replace(self, sample=sample).select(order[(sample[order] >= 0) & (sample[order] <= last)])

    @classmethod
    def joined(cls, parts: list[Spikes]) -> Spikes:
        return cls(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls))) if parts else cls.none()
