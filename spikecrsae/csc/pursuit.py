"""The spike-and-slab decoder: greedy maximum a posteriori pursuit of whole spikes.

A spike of unit c has the amplitude a ~ N(1, s_c^2) relative to the unit's template and a prior log-odds penalty p_c per
sample position (MODEL, A better prior for the last step). With b the correlation of the residual with the template
and g = ||h||^2 the template's energy, adding a spike raises the log posterior by

    1/2 (b + 1/s^2)^2 / (g + 1/s^2) - 1/(2 s^2) - 1/2 log(1 + s^2 g) - p,         a = (b + 1/s^2) / (g + 1/s^2).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit

from spikecrsae.csc.convolution import correlate, gram
from spikecrsae.csc.least_squares import subtract


@dataclass(frozen=True)
class SpikeSlab:
    """Templates at full scale with the prior of their spikes.

    templates (n_units, n_channels, n_times); spread s and penalty p, (n_units,); refractory in samples. Each template is
    tried at `n_shifts` positions within one sample (Fourier interpolation): jitter of a strong spike is no residual.
    """

    templates: np.ndarray
    spread: np.ndarray
    penalty: np.ndarray
    refractory: int
    n_shifts: int = 3

    @property
    def n_units(self) -> int:
        return len(self.templates)

    @property
    def energy(self) -> np.ndarray:
        """||h||^2 per unit."""
        return (self.templates.astype(np.float64) ** 2).sum(axis=(1, 2))

    @property
    def reach(self) -> int:
        """Samples over which one spike bears on the next: template length or refractory period."""
        return max(self.templates.shape[2], self.refractory + 1)

    def shifts(self) -> np.ndarray:
        """Sub-sample shifts of the copies, in samples, (n_shifts,)."""
        return (np.arange(self.n_shifts) - (self.n_shifts - 1) / 2) / self.n_shifts

    def shifted(self) -> np.ndarray:
        """All copies (n_units * n_shifts, n_channels, n_times), float32; the copies of a unit stand together."""
        copies = np.stack([shift_in_time(self.templates, by) for by in self.shifts()], axis=1)
        return np.ascontiguousarray(copies.reshape(-1, *self.templates.shape[1:]), dtype=np.float32)

    def decode(self, signal: np.ndarray) -> Spikes:
        """The spikes of signal (n_channels, n_samples), whitened; samples are first samples of the templates."""
        atoms = self.shifted()
        if not len(atoms) or signal.shape[1] < atoms.shape[2]:
            return Spikes.none()
        unit_of = np.repeat(np.arange(self.n_units), self.n_shifts)
        correlation = correlate(signal[None], atoms)[0]
        atom, sample, amplitude, gain = pursue(correlation, gram(atoms), unit_of, self.spread, self.penalty, self.refractory)
        return Spikes(unit_of[atom], sample, amplitude, self.shifts()[atom % self.n_shifts], gain)

    def residual(self, signal: np.ndarray, spikes: Spikes) -> np.ndarray:
        """signal (n_channels, n_samples) less the spikes, float32."""
        rest = np.array(signal, dtype=np.float32, order="C")
        nearest = np.rint((spikes.shift * self.n_shifts) + (self.n_shifts - 1) / 2).astype(np.int64)
        subtract(rest, self.shifted(), spikes.unit * self.n_shifts + nearest, spikes.sample, spikes.amplitude)
        return rest


@dataclass(frozen=True)
class Spikes:
    """Decoded spikes sorted by sample: unit, first sample of the template, amplitude relative to the template, sub-sample
    shift, and gain, the log posterior odds of the spike against none."""

    unit: np.ndarray
    sample: np.ndarray
    amplitude: np.ndarray
    shift: np.ndarray
    gain: np.ndarray

    @classmethod
    def none(cls) -> Spikes:
        return cls(np.zeros(0, np.int64), np.zeros(0, np.int64), *(np.zeros(0) for _ in range(3)))

    def __len__(self) -> int:
        return len(self.sample)

    def select(self, mask) -> Spikes:
        return Spikes(self.unit[mask], self.sample[mask], self.amplitude[mask], self.shift[mask], self.gain[mask])


def shift_in_time(waveforms: np.ndarray, shift: float) -> np.ndarray:
    """Waveforms (..., n_times) moved later by `shift` samples (|shift| < 1) by Fourier interpolation, zero beyond the ends."""
    if shift == 0:
        return np.asarray(waveforms, np.float64)
    n_times = waveforms.shape[-1]
    size = 2 * n_times
    phase = np.exp(-2j * np.pi * np.fft.rfftfreq(size) * shift)
    return np.fft.irfft(np.fft.rfft(waveforms, size, axis=-1) * phase, size, axis=-1)[..., :n_times]


def pursue(
    correlation: np.ndarray,
    gram: np.ndarray,
    atom_unit: np.ndarray,
    spread: np.ndarray,
    penalty: np.ndarray,
    refractory: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Spikes of one stretch: atom (n,), position (n,), amplitude (n,) relative to the template, gain (n,).

    correlation (n_atoms, n_positions): of the whitened signal with the templates at full scale; it is changed into that of
    the residual. gram: csc.convolution.gram of the same templates. atom_unit (n_atoms,): several atoms may be one unit
    (shifted copies). spread s and penalty p, per unit. refractory: a unit fires once within this many samples each way.
    """
    n_atoms = len(correlation)
    centre = (gram.shape[2] - 1) // 2
    energy = gram[np.arange(n_atoms), np.arange(n_atoms), centre].astype(np.float64)
    precision = 1.0 / spread[atom_unit] ** 2
    offset = -0.5 * precision - 0.5 * np.log1p(energy / precision) - penalty[atom_unit]
    found = _pursue(
        correlation,
        np.ascontiguousarray(gram, dtype=correlation.dtype),
        atom_unit.astype(np.int64),
        precision,
        energy + precision,
        offset,
        refractory,
    )
    atom, position, amplitude, gain = found
    order = np.lexsort((atom, position))
    return atom[order], position[order], amplitude[order], gain[order]


@njit(cache=True, nogil=True)
def _segment_best(correlation, blocked, atom_unit, precision, total, offset, first, last):
    best_gain, best_atom, best_position = 0.0, -1, -1
    for atom in range(correlation.shape[0]):
        unit = atom_unit[atom]
        # b must exceed this for a positive gain; most positions are left after one comparison
        need = np.sqrt(max(0.0, -2.0 * total[atom] * offset[atom])) - precision[atom]
        for position in range(first, last):
            b = correlation[atom, position]
            if b > need and not blocked[unit, position]:
                gain = 0.5 * (b + precision[atom]) ** 2 / total[atom] + offset[atom]
                if gain > best_gain:
                    best_gain, best_atom, best_position = gain, atom, position
    return best_gain, best_atom, best_position


@njit(cache=True, nogil=True)
def _pursue(correlation, gram, atom_unit, precision, total, offset, refractory):
    n_atoms, n_positions = correlation.shape
    centre = (gram.shape[2] - 1) // 2
    length = gram.shape[2] + 1
    n_segments = (n_positions + length - 1) // length
    blocked = np.zeros((atom_unit.max() + 1 if n_atoms else 0, n_positions), np.bool_)
    gains = np.zeros(n_segments)
    atoms = np.full(n_segments, -1, np.int64)
    positions = np.zeros(n_segments, np.int64)
    stale = np.ones(n_segments, np.bool_)
    found_atom, found_position, found_amplitude, found_gain = [0], [0], [0.0], [0.0]
    again = True
    while again:
        again = False
        for segment in range(n_segments):
            for near in range(max(0, segment - 1), min(n_segments, segment + 2)):
                if stale[near]:
                    gains[near], atoms[near], positions[near] = _segment_best(
                        correlation, blocked, atom_unit, precision, total, offset,
                        near * length, min((near + 1) * length, n_positions),
                    )
                    stale[near] = False
            if atoms[segment] < 0:
                continue
            if segment > 0 and gains[segment - 1] > gains[segment]:
                continue
            if segment < n_segments - 1 and gains[segment + 1] > gains[segment]:
                again = True
                continue
            atom, position = atoms[segment], positions[segment]
            amplitude = (correlation[atom, position] + precision[atom]) / total[atom]
            found_atom.append(atom)
            found_position.append(position)
            found_amplitude.append(amplitude)
            found_gain.append(gains[segment])
            low, high = max(0, position - centre), min(n_positions, position + centre + 1)
            for other in range(n_atoms):
                for i in range(low, high):
                    correlation[other, i] -= amplitude * gram[other, atom, i - position + centre]
            unit = atom_unit[atom]
            block_low, block_high = max(0, position - refractory), min(n_positions, position + refractory + 1)
            for i in range(block_low, block_high):
                blocked[unit, i] = True
            for near in range(min(low, block_low) // length, (max(high, block_high) - 1) // length + 1):
                stale[near] = True
            again = True
    return (
        np.array(found_atom[1:]),
        np.array(found_position[1:]),
        np.array(found_amplitude[1:]),
        np.array(found_gain[1:]),
    )
