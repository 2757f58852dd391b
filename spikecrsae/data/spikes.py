"""Spikes: the codes of the encoder as events."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from spikecrsae.data.loudness import CLEAR_AMPLITUDE


@dataclass(frozen=True)
class Spikes:
    """Decoded spikes sorted by sample: unit, first sample of the template, amplitude relative to the template, sub-sample
    shift, and where all other spikes stay: gain, the log posterior odds of the spike against none, and rival_gain, those of
    the best spike of another unit (rival) in its place; without one, rival is -1 and rival_gain 0. expected: the amplitude of a
    spike of its template's size, 1 unless given and below 1 in loud noise (see data.loudness)."""

    unit: np.ndarray
    sample: np.ndarray
    amplitude: np.ndarray
    shift: np.ndarray
    gain: np.ndarray
    rival: np.ndarray
    rival_gain: np.ndarray
    expected: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.expected is None:
            object.__setattr__(self, "expected", np.ones(len(self.sample)))

    @classmethod
    def none(cls) -> Spikes:
        whole, real = np.zeros(0, np.int64), np.zeros(0)
        return cls(whole, whole, real, real, real, whole, real)

    def __len__(self) -> int:
        return len(self.sample)

    @property
    def relative(self) -> np.ndarray:
        """Amplitudes relative to the expected ones: those in signal that is not divided by its noise."""
        return np.asarray(self.amplitude / self.expected)

    @property
    def clear(self) -> np.ndarray:
        """Spikes (bool, n) in signal whose noise is hardly louder than usual."""
        return np.asarray(self.expected > CLEAR_AMPLITUDE)

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
