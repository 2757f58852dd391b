"""The spike-and-slab decoder: greedy maximum a posteriori pursuit of whole spikes, then local improvements.

A spike of unit c has the amplitude a ~ N(1, s_c^2) relative to the unit's template and a prior log-odds penalty p_c per
sample position (MODEL, A better prior for the last step). With b the correlation of the residual with the template
and g = ||h||^2 the template's energy, adding a spike raises the log posterior by

    1/2 (b + 1/s^2)^2 / (g + 1/s^2) - 1/(2 s^2) - 1/2 log(1 + s^2 g) - p,         a = (b + 1/s^2) / (g + 1/s^2).

Positions are refined below one sample: the correlation with a template shifted by d is the correlation d later, which a
windowed sinc interpolates; only what is subtracted needs shifted copies of the template.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from spikecrsae.csc.least_squares import misfits, subtract_within
from spikecrsae.csc.local_search import Residual, compare, improve, search
from spikecrsae.csc.operator import BlockSpectra, gram
from spikecrsae.csc.stretches import above_any, cuts
from spikecrsae.system.threads import in_threads

#: Half the length of the interpolator, samples.
SINC_REACH = 8
#: Pieces decoded side by side have at least this many positions.
_PIECE = 1 << 15
#: Positions whose correlation is held at once, about.
_CORRELATED = 1 << 19
#: Two spikes are tried in place of one where a template of theirs resembles that of the one (cosine at the best lag) so much.
_RIVAL_SIMILARITY = 0.6


@dataclass(frozen=True)
class SpikeSlab:
    """Templates at full scale with the prior of their spikes.

    templates (n_units, n_channels, n_times); spread s and penalty p, (n_units,); refractory in samples. A spike stands at one
    of `n_shifts` positions within one sample (Fourier interpolation): jitter of a strong spike is no residual.
    Templates are not to be changed in place: what follows from them is kept.
    """

    templates: np.ndarray
    spread: np.ndarray
    penalty: np.ndarray
    refractory: int
    n_shifts: int = 8

    @property
    def n_units(self) -> int:
        return len(self.templates)

    @cached_property
    def energy(self) -> np.ndarray:
        """||h||^2 per unit."""
        return (self.templates.astype(np.float64) ** 2).sum(axis=(1, 2))

    @property
    def reach(self) -> int:
        """Samples over which one spike bears on the next: template length, with what interpolation sees, or refractory
        period."""
        return max(self.templates.shape[2], self.refractory + 1) + 2 * SINC_REACH

    def shifts(self) -> np.ndarray:
        """Sub-sample shifts of the copies, in samples, (n_shifts,)."""
        return (np.arange(self.n_shifts) - (self.n_shifts - 1) / 2) / self.n_shifts

    @cached_property
    def shifted(self) -> np.ndarray:
        """All copies (n_units * n_shifts, n_channels, n_times), float32; the copies of a unit stand together."""
        copies = np.stack([shift_in_time(self.templates, by) for by in self.shifts()], axis=1)
        return np.ascontiguousarray(copies.reshape(-1, *self.templates.shape[1:]), dtype=np.float32)

    @cached_property
    def overlaps(self) -> np.ndarray:
        """csc.operator.gram of the templates with their copies (n_units, n_units * n_shifts, 2 n_times - 1), float32."""
        return gram(self.templates, self.shifted).astype(np.float32)

    def copy_of(self, spikes: Spikes) -> np.ndarray:
        """Row (int64) of `shifted` that each spike is a multiple of."""
        step = np.rint(spikes.shift * self.n_shifts + (self.n_shifts - 1) / 2).astype(np.int64)
        return spikes.unit * self.n_shifts + step

    def at(self, sample: int) -> SpikeSlab:
        """The model at a sample of the recording: the same everywhere (one that changes is drift.DriftingSlab)."""
        return self

    def view(self, signal: np.ndarray | BlockSpectra) -> View:
        """What decoding needs to know of signal (n_channels, n_samples), whitened."""
        spectra = BlockSpectra.of(signal, self.templates.shape[2], keep=False) if isinstance(signal, np.ndarray) else signal
        correlation = spectra.correlate(self.templates)
        return View(spectra.signal, correlation, self.overlaps)

    def decode(self, signal: np.ndarray | BlockSpectra | View, n_sweeps: int = 4, with_rivals: bool = True) -> Spikes:
        """The spikes of signal (n_channels, n_samples), whitened; samples are first samples of the templates.

        n_sweeps: of improvement over the greedy solution, at most. with_rivals: say which other unit fits a spike best.
        Pieces between which nothing looks like a spike are decoded side by side.
        """
        n_times = self.templates.shape[2]
        if not self.n_units or (isinstance(signal, np.ndarray) and signal.shape[1] < n_times):
            return Spikes.none()
        seen = BlockSpectra.of(signal, n_times, keep=False) if isinstance(signal, np.ndarray) else signal
        overlaps = seen.overlaps if isinstance(seen, View) else self.overlaps
        tables = Tables.of(overlaps, self.spread, self.penalty, self.refractory, self.shifts(), seen.dtype)
        enough, gap = _needed(self) / 1.2, 3 * n_times + self.refractory

        def pieces(of: View, first: int, bounds: np.ndarray) -> list[Spikes]:
            """Spikes between the bounds, which like the view's correlation count from position `first` of its signal."""

            def piece(part: slice) -> Spikes:
                low, high = bounds[part.start], bounds[part.stop]
                here = of.signal[:, first + low : first + high + n_times - 1]
                correlation = np.ascontiguousarray(of.correlation[:, low:high])
                found = pursue(correlation, tables, n_sweeps, lambda spikes: self._doubtful(here, spikes), with_rivals)
                return found.later(first + low)

            return in_threads(piece, len(bounds) - 1, 1)

        if isinstance(seen, View):
            return Spikes.joined(pieces(seen, 0, cuts(seen.correlation, enough, gap, _PIECE)))
        found, first, correlation = [], 0, np.zeros((self.n_units, 0), seen.dtype)
        # the correlation with all templates takes more memory than the signal: not of everything at once, if quiet places part it
        for start, stop in seen.parts(_CORRELATED):
            correlation = seen.correlate_after(correlation, self.templates, start, stop)
            bounds = cuts(correlation, enough, gap, _PIECE)
            if stop < seen.n_blocks:
                bounds = bounds[:-1]  # the last piece goes on in the next part
            found += pieces(View(seen.signal, correlation, overlaps), first, bounds)
            first, correlation = first + bounds[-1], correlation[:, bounds[-1] :].copy()
        return Spikes.joined(found)

    def _doubtful(self, signal: np.ndarray, spikes: Spikes) -> np.ndarray:
        """Spikes (bool, n) that leave more in the signal than noise would on most of them."""
        weights = self._power
        expected = len(signal) * weights.sum(axis=1) + np.sqrt(2 * len(signal) * (weights**2).sum(axis=1))
        return self.misfit(signal, spikes) > expected[spikes.unit]

    @cached_property
    def _power(self) -> np.ndarray:
        """Power of the templates over time, relative to its peak (n_units, n_times)."""
        power = (self.templates.astype(np.float64) ** 2).sum(axis=1)
        return power / np.maximum(power.max(axis=1, keepdims=True), 1e-12)

    def residual(self, signal: np.ndarray, spikes: Spikes, out: np.ndarray | None = None) -> np.ndarray:
        """signal (n_channels, n_samples) less the spikes, float32; into `out` if given, which may be the signal."""
        rest = np.empty(signal.shape, np.float32) if out is None else out
        shifted, rows, n_times = self.shifted, self.copy_of(spikes), self.templates.shape[2]

        def piece(part: slice) -> None:
            rest[:, part] = signal[:, part]
            low, high = np.searchsorted(spikes.sample, [part.start - n_times + 1, part.stop])
            subtract_within(
                rest, part.start, part.stop, shifted, rows[low:high], spikes.sample[low:high], spikes.amplitude[low:high]
            )

        in_threads(piece, signal.shape[1], _PIECE)
        return rest

    def misfit(self, signal: np.ndarray, spikes: Spikes) -> np.ndarray:
        """Per spike (n,), the energy of the residual of signal (n_channels, n_samples) under its template: samples weighted
        by the template's power, relative to its peak."""
        return misfits(signal, self.shifted, self.copy_of(spikes), spikes.sample, spikes.amplitude, self._power, spikes.unit)

    @property
    def misfit_of_noise(self) -> np.ndarray:
        """Standard deviation of the cube root of a misfit that is noise alone (n_units,): the weighted sum of squares is nearly
        chi squared, of as many degrees as give its mean and variance, and its root nearly normal (Wilson and Hilferty 1931)."""
        n_channels = self.templates.shape[1]
        mean, variance = n_channels * self._power.sum(axis=1), 2 * n_channels * (self._power**2).sum(axis=1)
        return np.cbrt(mean) * np.sqrt(variance) / (3 * np.maximum(mean, 1e-12))


@dataclass(frozen=True)
class View:
    """A signal as templates see it: signal (n_channels, n_samples), correlation (n_units, n_positions) with every template, and
    overlaps (n_units, n_units * n_shifts, 2 n_times - 1) of the templates with their shifted copies. It is used up by
    decoding."""

    signal: np.ndarray
    correlation: np.ndarray
    overlaps: np.ndarray

    @property
    def dtype(self) -> np.dtype:
        """Of the correlation."""
        return self.correlation.dtype

    def of(self, units) -> View:
        """As some of the units (indices or mask) see it; a copy."""
        n_units, n_copies, n_lags = self.overlaps.shape
        overlaps = self.overlaps.reshape(n_units, n_units, -1, n_lags)[units][:, units]
        return View(
            self.signal,
            self.correlation[units],
            overlaps.reshape(len(overlaps), len(overlaps) * (n_copies // n_units), n_lags),
        )


def may_hold_spikes(signal: np.ndarray, model: SpikeSlab) -> tuple[np.ndarray, np.ndarray]:
    """Positions (bool, n_positions) of signal (n_channels, n_samples) where a spike of the model could gain, with a margin for
    what lies between samples and for templates that still change; and those where it would gain very much."""
    if signal.shape[1] < model.templates.shape[2] or not model.n_units:
        return np.zeros(0, bool), np.zeros(0, bool)
    correlation = BlockSpectra.of(signal, model.templates.shape[2], keep=False).correlate(model.templates)
    return above_any(correlation, _needed(model) / 1.2), above_any(correlation, 3 * _needed(model))


def _needed(model: SpikeSlab) -> np.ndarray:
    """Correlation that a spike of each unit needs for a positive gain (n_units,)."""
    precision, total = 1 / model.spread**2, model.energy + 1 / model.spread**2
    odds = 0.5 * precision + 0.5 * np.log1p(model.energy / precision) + model.penalty
    return np.sqrt(2 * total * odds) - precision


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

    def select(self, mask) -> Spikes:
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


def shift_in_time(waveforms: np.ndarray, shift: float) -> np.ndarray:
    """Waveforms (..., n_times) moved later by `shift` samples (|shift| < 1) by Fourier interpolation, zero beyond the ends."""
    if shift == 0:
        return np.asarray(waveforms, np.float64)
    n_times = waveforms.shape[-1]
    size = 2 * n_times
    phase = np.exp(-2j * np.pi * np.fft.rfftfreq(size) * shift)
    return np.fft.irfft(np.fft.rfft(waveforms, size, axis=-1) * phase, size, axis=-1)[..., :n_times]


def _interpolator(shifts: np.ndarray) -> np.ndarray:
    """Weights (n_shifts, 2 reach + 1) that read a sampled function `shift` samples later: a sinc under a Hann window."""
    offset = np.arange(-SINC_REACH, SINC_REACH + 1) - shifts[:, None]
    weights = np.sinc(offset) * np.cos(0.5 * np.pi * offset / (SINC_REACH + 1)) ** 2
    return weights / weights.sum(axis=1, keepdims=True)


class Tables(NamedTuple):
    """What the search reads besides the correlation, the same for all stretches that it goes through.

    overlaps (n_units, n_units * n_shifts, 2 n_times - 1): csc.operator.gram of the templates with their shifted copies.
    kernel (n_shifts, 2 reach + 1): reads a correlation between its samples. prior (3, n_units): 1 / s^2, g + 1 / s^2, and the part
    of the gain that does not depend on the data. rivals
    (n_units, n_units) bool: pairs of templates that resemble each other. refractory: a unit fires once within so many samples
    each way. shifts (n_shifts,): of the copies, in samples.
    """

    overlaps: np.ndarray
    kernel: np.ndarray
    prior: np.ndarray
    rivals: np.ndarray
    refractory: int
    shifts: np.ndarray

    @classmethod
    def of(
        cls,
        overlaps: np.ndarray,
        spread: np.ndarray,
        penalty: np.ndarray,
        refractory: int,
        shifts: np.ndarray,
        dtype=np.float32,
    ) -> Tables:
        """overlaps, refractory and shifts as kept; spread s and penalty p, per unit. dtype: that of the correlation."""
        n_units, n_shifts = len(overlaps), len(shifts)
        middle = overlaps.reshape(n_units, n_units, n_shifts, -1)
        own = np.arange(n_units)
        energy = middle[own, own, n_shifts // 2, (overlaps.shape[2] - 1) // 2].astype(np.float64)
        precision = 1.0 / spread**2
        offset = -0.5 * precision - 0.5 * np.log1p(energy / precision) - penalty
        norms = np.sqrt(energy)
        return cls(
            np.ascontiguousarray(overlaps, dtype=dtype),
            np.ascontiguousarray(_interpolator(shifts), dtype=dtype),
            np.ascontiguousarray(np.stack([precision, energy + precision, offset])),
            np.abs(middle).max(axis=(2, 3)) > _RIVAL_SIMILARITY * norms[:, None] * norms[None, :],
            refractory,
            shifts,
        )


def pursue(
    correlation: np.ndarray,
    tables: Tables,
    n_sweeps: int = 4,
    doubtful: Callable[[Spikes], np.ndarray] | None = None,
    with_rivals: bool = True,
) -> Spikes:
    """The spikes of one stretch.

    correlation (n_units, n_positions): of the whitened signal with the templates at full scale; it is changed into that of
    the residual.

    First greedily, the largest gain first. Then, up to n_sweeps times, spikes are taken out together with those close to them
    and what raises the log posterior most is put in their place: two spikes for one (a collision that looked like a third
    unit), one for two, or others. Spikes that stand alone are left so unless they are `doubtful` (mask of Spikes).
    """
    residual, shifts = Residual(correlation, np.zeros(correlation.shape, np.uint8)), tables.shifts
    found = search(residual, tables)
    open_ = np.ones(len(found), bool)
    for sweep in range(n_sweeps):
        order = np.argsort(found["position"], kind="stable")
        found, open_ = found[order], open_[order]
        if sweep == 0 and doubtful is not None:
            none = np.full(len(found), -1), np.zeros(len(found))
            open_ = doubtful(_spikes(found, shifts, found["gain"], *none))
        found, open_, n_changed = improve(residual, tables, found, open_, sweep == 0)
        if not n_changed:
            break
    found = found[np.lexsort((found["unit"], found["position"]))]
    if n_sweeps:
        return _spikes(found, shifts, *compare(residual, tables, found, with_rivals))
    return _spikes(found, shifts, found["gain"], np.full(len(found), -1), np.zeros(len(found)))


def _spikes(found: np.ndarray, shifts: np.ndarray, gain: np.ndarray, rival: np.ndarray, rival_gain: np.ndarray) -> Spikes:
    """Spikes of the rows (FOUND_DTYPE) that the search has found."""
    unit, sample, amplitude = (found[name].copy() for name in ("unit", "position", "amplitude"))
    return Spikes(unit, sample, amplitude, shifts[found["step"]], gain, rival, rival_gain)
