"""Dictionary: one unit-norm atom per unit, with the scale that the norm took away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spikecrsae.errors import InputError


@dataclass(frozen=True)
class Dictionary:
    """atoms (n_units, n_channels, n_times), each of unit Frobenius norm; scale (n_units,), in whitened units.

    scale * atom is the unit's mean waveform in the whitened signal (MODEL: h_c of unit norm, x_c ~ scale).
    """

    atoms: np.ndarray
    scale: np.ndarray

    def __post_init__(self) -> None:
        if self.atoms.ndim != 3 or self.scale.shape != (self.atoms.shape[0],):
            raise InputError(
                f"atoms {self.atoms.shape} and scale {self.scale.shape} must be (n_units, n_channels, n_times) and (n_units,)."
            )
        if len(self.atoms):
            norms = np.linalg.norm(self.atoms.reshape(len(self.atoms), -1), axis=1)
            if not np.allclose(norms, 1.0, atol=1e-4):
                raise InputError(f"atom norms {norms} must be 1; build the dictionary with Dictionary.from_templates.")

    @classmethod
    def from_templates(cls, templates: np.ndarray) -> Dictionary:
        """Normalise templates (n_units, n_channels, n_times); raises InputError where one is zero."""
        templates = np.asarray(templates, dtype=np.float64)
        scale = np.sqrt((templates**2).sum(axis=(1, 2)))
        if np.any(scale <= 0) or not np.all(np.isfinite(scale)):
            raise InputError(f"templates with norms {scale}: every template must have a finite norm above 0.")
        return cls((templates / scale[:, None, None]).astype(np.float32), scale)

    @property
    def n_units(self) -> int:
        return int(self.atoms.shape[0])

    @property
    def n_channels(self) -> int:
        return int(self.atoms.shape[1])

    @property
    def n_times(self) -> int:
        return int(self.atoms.shape[2])

    @property
    def templates(self) -> np.ndarray:
        """Templates at full scale, (n_units, n_channels, n_times), float32."""
        return np.asarray(self.atoms * self.scale[:, None, None], np.float32)

    def select(self, units: Sequence[int] | np.ndarray) -> Dictionary:
        """The units with these indices (or this mask), in order."""
        return Dictionary(self.atoms[units], self.scale[units])
