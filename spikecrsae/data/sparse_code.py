"""SparseCode: the non-zeros of the codes as events, never as dense arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spikecrsae.errors import InputError


@dataclass(frozen=True)
class SparseCode:
    """Non-zero code entries sorted by sample.

    unit (n,) int32; sample (n,) int64: first sample that the atom covers; amplitude (n,) float32 in multiples of a
    unit-norm atom. n_units and n_positions = n_samples - n_times + 1 are the shape of the dense code.
    """

    unit: np.ndarray
    sample: np.ndarray
    amplitude: np.ndarray
    n_units: int
    n_positions: int

    def __post_init__(self) -> None:
        n = len(self.sample)
        if len(self.unit) != n or len(self.amplitude) != n:
            raise InputError(
                f"unit, sample and amplitude of a SparseCode have {len(self.unit)}, {n} and {len(self.amplitude)} values; "
                "they must have the same length: give one of each for every event."
            )
        if len(late := np.flatnonzero(np.diff(self.sample) < 0)):
            first, second = self.sample[late[0] : late[0] + 2]
            raise InputError(
                f"an event at sample {first} stands before one at {second}; the events of a SparseCode must be sorted by sample: "
                "sort them first."
            )

    @classmethod
    def build(
        cls, unit: np.ndarray, sample: np.ndarray, amplitude: np.ndarray, n_units: int, n_positions: int
    ) -> SparseCode:
        """From events in any order; sorted by sample, then unit."""
        unit, sample = np.asarray(unit, np.int32), np.asarray(sample, np.int64)
        order = np.lexsort((unit, sample))
        return cls(unit[order], sample[order], np.asarray(amplitude, np.float32)[order], n_units, n_positions)

    def __len__(self) -> int:
        return len(self.sample)
