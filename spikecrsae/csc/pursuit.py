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

import numpy as np
from numba import njit

from spikecrsae.csc.convolution import BlockSpectra, gram, in_threads
from spikecrsae.csc.least_squares import subtract

#: Half the length of the interpolator, samples.
SINC_REACH = 8
#: Of what replaces some spikes, the first one gains at least this part of what they did.
_LEAST_SHARE = 0.3
#: Pieces decoded side by side have at least this many positions.
_PIECE = 1 << 17
#: Two spikes are tried in place of one where a template of theirs resembles that of the one (cosine at the best lag) so much.
_RIVAL_SIMILARITY = 0.6


@dataclass(frozen=True)
class SpikeSlab:
    """Templates at full scale with the prior of their spikes.

    templates (n_units, n_channels, n_times); spread s and penalty p, (n_units,); refractory in samples. A spike stands at one
    of `n_shifts` positions within one sample (Fourier interpolation): jitter of a strong spike is no residual.
    """

    templates: np.ndarray
    spread: np.ndarray
    penalty: np.ndarray
    refractory: int
    n_shifts: int = 8

    @property
    def n_units(self) -> int:
        return len(self.templates)

    @property
    def energy(self) -> np.ndarray:
        """||h||^2 per unit."""
        return (self.templates.astype(np.float64) ** 2).sum(axis=(1, 2))

    @property
    def reach(self) -> int:
        """Samples over which one spike bears on the next: template length, with what interpolation sees, or refractory period."""
        return max(self.templates.shape[2], self.refractory + 1) + 2 * SINC_REACH

    def shifts(self) -> np.ndarray:
        """Sub-sample shifts of the copies, in samples, (n_shifts,)."""
        return (np.arange(self.n_shifts) - (self.n_shifts - 1) / 2) / self.n_shifts

    def shifted(self) -> np.ndarray:
        """All copies (n_units * n_shifts, n_channels, n_times), float32; the copies of a unit stand together."""
        copies = np.stack([shift_in_time(self.templates, by) for by in self.shifts()], axis=1)
        return np.ascontiguousarray(copies.reshape(-1, *self.templates.shape[1:]), dtype=np.float32)

    def copy_of(self, spikes: Spikes) -> np.ndarray:
        """Row (int64) of `shifted` that each spike is a multiple of."""
        step = np.rint(spikes.shift * self.n_shifts + (self.n_shifts - 1) / 2).astype(np.int64)
        return spikes.unit * self.n_shifts + step

    def at(self, sample: int) -> SpikeSlab:
        """The model at a sample of the recording: the same everywhere (one that changes is drift.DriftingSlab)."""
        return self

    def decode(self, signal: np.ndarray | BlockSpectra, n_sweeps: int = 4) -> Spikes:
        """The spikes of signal (n_channels, n_samples), whitened; samples are first samples of the templates.

        n_sweeps: of improvement over the greedy solution, at most. Pieces between which nothing looks like a spike are
        decoded side by side.
        """
        n_times = self.templates.shape[2]
        if not self.n_units or (isinstance(signal, np.ndarray) and signal.shape[1] < n_times):
            return Spikes.none()
        spectra = BlockSpectra.of(signal, n_times) if isinstance(signal, np.ndarray) else signal
        correlation = spectra.correlate(self.templates)
        overlaps = gram(self.templates, self.shifted()).astype(correlation.dtype)
        bounds = _cuts(correlation, _needed(self) / 1.2, 3 * n_times + self.refractory, _PIECE)

        def piece(part: slice) -> Spikes:
            first, last = bounds[part.start], bounds[part.stop]
            here = spectra.signal[:, first : last + n_times - 1]
            found = pursue(
                np.ascontiguousarray(correlation[:, first:last]), overlaps, self.spread, self.penalty, self.refractory,
                self.shifts(), n_sweeps, lambda spikes: self._doubtful(here, spikes),
            )  # fmt: skip
            return found.later(first)

        return Spikes.joined(in_threads(piece, len(bounds) - 1, 1))

    def _doubtful(self, signal: np.ndarray, spikes: Spikes) -> np.ndarray:
        """Spikes (bool, n) that leave more in the signal than noise would on most of them."""
        weights = self._power()
        expected = len(signal) * weights.sum(axis=1) + np.sqrt(2 * len(signal) * (weights**2).sum(axis=1))
        return self.misfit(signal, spikes) > expected[spikes.unit]

    def _power(self) -> np.ndarray:
        """Power of the templates over time, relative to its peak (n_units, n_times)."""
        power = (self.templates.astype(np.float64) ** 2).sum(axis=1)
        return power / np.maximum(power.max(axis=1, keepdims=True), 1e-12)

    def residual(self, signal: np.ndarray, spikes: Spikes) -> np.ndarray:
        """signal (n_channels, n_samples) less the spikes, float32."""
        rest = np.array(signal, dtype=np.float32, order="C")
        subtract(rest, self.shifted(), self.copy_of(spikes), spikes.sample, spikes.amplitude)
        return rest

    def misfit(self, signal: np.ndarray, spikes: Spikes) -> np.ndarray:
        """Per spike (n,), the energy of the residual of signal (n_channels, n_samples) under its template: samples weighted by the
        template's power, relative to its peak."""
        power = self._power()
        rest = (self.residual(signal, spikes) ** 2).sum(axis=0)
        return (rest[spikes.sample[:, None] + np.arange(power.shape[1])] * power[spikes.unit]).sum(axis=1)


def _needed(model: SpikeSlab) -> np.ndarray:
    """Correlation that a spike of each unit needs for a positive gain (n_units,)."""
    precision, total = 1 / model.spread**2, model.energy + 1 / model.spread**2
    odds = 0.5 * precision + 0.5 * np.log1p(model.energy / precision) + model.penalty
    return np.sqrt(2 * total * odds) - precision


@njit(cache=True, nogil=True)
def _cuts(correlation, enough, gap, piece):
    """Bounds of pieces of at least `piece` positions; between two of them lies a gap in which no correlation is enough."""
    n_units, n_positions = correlation.shape
    bounds = [0]
    quiet = 0
    for position in range(n_positions):
        loud = False
        if position - bounds[-1] >= piece - gap:
            for unit in range(n_units):
                if correlation[unit, position] > enough[unit]:
                    loud = True
                    break
            quiet = 0 if loud else quiet + 1
            if quiet >= gap and position - bounds[-1] >= piece:
                bounds.append(position - gap // 2)
                quiet = 0
    if bounds[-1] < n_positions:
        bounds.append(n_positions)
    return np.array(bounds)


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


def pursue(
    correlation: np.ndarray,
    overlaps: np.ndarray,
    spread: np.ndarray,
    penalty: np.ndarray,
    refractory: int,
    shifts: np.ndarray,
    n_sweeps: int = 4,
    doubtful: Callable[[Spikes], np.ndarray] | None = None,
) -> Spikes:
    """The spikes of one stretch.

    correlation (n_units, n_positions): of the whitened signal with the templates at full scale; it is changed into that of
    the residual. overlaps (n_units, n_units * n_shifts, 2 n_times - 1): csc.convolution.gram of the templates with their
    shifted copies. spread s and penalty p, per unit. refractory: a unit fires once within this many samples each way.

    First greedily, the largest gain first. Then, up to n_sweeps times, spikes are taken out together with those close to them
    and what raises the log posterior most is put in their place: two spikes for one (a collision that looked like a third
    unit), one for two, or others. Spikes that stand alone are left so unless they are `doubtful` (mask of Spikes).
    """
    n_units, n_shifts = len(correlation), len(shifts)
    centre = (overlaps.shape[2] - 1) // 2
    middle = overlaps.reshape(n_units, n_units, n_shifts, -1)
    energy = middle[np.arange(n_units), np.arange(n_units), n_shifts // 2, centre].astype(np.float64)
    precision = 1.0 / spread**2
    offset = -0.5 * precision - 0.5 * np.log1p(energy / precision) - penalty
    prior = np.ascontiguousarray(np.stack([precision, energy + precision, offset]))
    blocked = np.zeros(correlation.shape, np.uint8)
    overlaps = np.ascontiguousarray(overlaps, dtype=correlation.dtype)
    kernel = np.ascontiguousarray(_interpolator(shifts), dtype=correlation.dtype)
    found = _pursue(correlation, blocked, overlaps, kernel, prior, refractory)
    norms = np.sqrt(energy)
    rivals = np.abs(middle).max(axis=(2, 3)) > _RIVAL_SIMILARITY * norms[:, None] * norms[None, :]
    for sweep in range(n_sweeps):
        order = np.argsort(found[1], kind="stable")
        found = tuple(column[order] for column in found)
        if sweep == 0 and doubtful is not None:
            unit, sample, step, amplitude, gain, _ = found
            none = np.zeros(len(unit))
            found = (*found[:5], doubtful(Spikes(unit, sample, amplitude, shifts[step], gain, unit, none)))
        *found, n_changed = _improve(correlation, blocked, overlaps, kernel, prior, rivals, refractory, *found, sweep == 0)
        if not n_changed:
            break
    order = np.lexsort((found[0], found[1]))
    unit, sample, step, amplitude, gain = (column[order] for column in found[:5])
    rival, rival_gain = np.full(len(unit), -1), np.zeros(len(unit))
    if n_sweeps:
        gain, rival, rival_gain = _compare(
            correlation, blocked, overlaps, kernel, prior, refractory, unit, sample, step, amplitude
        )
    return Spikes(unit, sample, amplitude, shifts[step], gain, rival, rival_gain)


@njit(cache=True, nogil=True)
def _read(row, kernel, position, step):
    """The correlation at a sub-sample position."""
    reach = kernel.shape[1] // 2
    value = 0.0
    if position >= reach and position + reach < len(row):
        part = row[position - reach : position + reach + 1]
        for j in range(len(part)):
            value += kernel[step, j] * part[j]
        return value
    for j in range(kernel.shape[1]):
        value += kernel[step, j] * row[min(max(position + j - reach, 0), len(row) - 1)]
    return value


@njit(cache=True, nogil=True)
def _best(correlation, blocked, kernel, prior, first, last, only):
    """The spike of the largest gain in [first, last): gain, unit (-1: none pays), position, step, amplitude. only: a unit, or -1."""
    n_units, n_positions = correlation.shape
    n_shifts = kernel.shape[0]
    best_gain, best_unit, best_position, best_step, best_amplitude = 0.0, -1, -1, 0, 0.0
    for unit in range(n_units):
        if only >= 0 and unit != only:
            continue
        precision, total, offset = prior[0, unit], prior[1, unit], prior[2, unit]
        # b must exceed this for the largest gain so far; between samples it can be larger than on them
        need = np.sqrt(max(0.0, 2.0 * total * (best_gain - offset))) - precision
        low = 0.6 * need
        row = correlation[unit]
        part = row[first:last]
        low = max(low, 0.0)
        for i in range(len(part)):
            b = part[i]
            if b <= low:
                continue
            position = first + i
            if blocked[unit, position]:
                continue
            before = row[position - 1] if position > 0 else b
            after = row[position + 1] if position < n_positions - 1 else b
            if before > b or after > b or (after == b and position < n_positions - 1):
                continue
            # a parabola tells where between the samples, and whether it is worth the exact value
            bend = 2.0 * b - before - after
            vertex = 0.5 * (after - before) / bend if bend > 0 else 0.0
            if 1.1 * (b + 0.25 * (after - before) * vertex) <= need:
                continue
            middle = int(np.rint(vertex * n_shifts + 0.5 * (n_shifts - 1)))
            top, step = -np.inf, 0
            for k in range(max(0, middle - 1), min(n_shifts, middle + 2)):
                value = _read(row, kernel, position, k)
                if value > top:
                    top, step = value, k
            gain = 0.5 * (top + precision) ** 2 / total + offset
            if gain > best_gain:
                best_gain, best_unit, best_position, best_step = gain, unit, position, step
                best_amplitude = (top + precision) / total
                need = np.sqrt(max(0.0, 2.0 * total * (best_gain - offset))) - precision
                low = max(0.6 * need, 0.0)
    return best_gain, best_unit, best_position, best_step, best_amplitude


@njit(cache=True, nogil=True)
def _put(correlation, blocked, overlaps, n_shifts, refractory, unit, position, step, amplitude, sign):
    """Subtract a spike from the correlation (sign 1) or give it back (sign -1), and block or free its unit around it."""
    n_units, n_positions = correlation.shape
    centre = (overlaps.shape[2] - 1) // 2
    low, high = max(0, position - centre), min(n_positions, position + centre + 1)
    atom = unit * n_shifts + step
    scale = np.float32(sign * amplitude)
    for other in range(n_units):
        # views that begin at 0: the loop over them is compiled to vector instructions
        changed = correlation[other, low:high]
        shape = overlaps[other, atom, low - position + centre : high - position + centre]
        for i in range(len(changed)):
            changed[i] -= scale * shape[i]
    near = blocked[unit, max(0, position - refractory) : min(n_positions, position + refractory + 1)]
    for i in range(len(near)):
        near[i] += sign


@njit(cache=True, nogil=True)
def _pursue(correlation, blocked, overlaps, kernel, prior, refractory):
    n_positions = correlation.shape[1]
    n_shifts = kernel.shape[0]
    centre = (overlaps.shape[2] - 1) // 2
    # a spike changes what interpolation sees a little beyond the overlap
    touched = max(centre, refractory) + kernel.shape[1] // 2 + 1
    length = 2 * touched + 1
    n_segments = (n_positions + length - 1) // length
    gains = np.zeros(n_segments)
    amplitudes = np.zeros(n_segments)
    units = np.full(n_segments, -1, np.int64)
    positions = np.zeros(n_segments, np.int64)
    steps = np.zeros(n_segments, np.int64)
    stale = np.ones(n_segments, np.bool_)
    found_unit, found_position, found_step, found_amplitude, found_gain = [0], [0], [0], [0.0], [0.0]
    again = True
    while again:
        again = False
        for segment in range(n_segments):
            for near in range(max(0, segment - 1), min(n_segments, segment + 2)):
                if stale[near]:
                    gains[near], units[near], positions[near], steps[near], amplitudes[near] = _best(
                        correlation, blocked, kernel, prior, near * length, min((near + 1) * length, n_positions), -1
                    )
                    stale[near] = False
            if units[segment] < 0:
                continue
            if segment > 0 and gains[segment - 1] > gains[segment]:
                continue
            if segment < n_segments - 1 and gains[segment + 1] > gains[segment]:
                again = True
                continue
            unit, position, step = units[segment], positions[segment], steps[segment]
            _put(correlation, blocked, overlaps, n_shifts, refractory, unit, position, step, amplitudes[segment], 1)
            found_unit.append(unit)
            found_position.append(position)
            found_step.append(step)
            found_amplitude.append(amplitudes[segment])
            found_gain.append(gains[segment])
            for near in range(max(0, position - touched) // length, min(n_positions - 1, position + touched) // length + 1):
                stale[near] = True
            again = True
    return (
        np.array(found_unit[1:], dtype=np.int64),
        np.array(found_position[1:], dtype=np.int64),
        np.array(found_step[1:], dtype=np.int64),
        np.array(found_amplitude[1:], dtype=np.float64),
        np.array(found_gain[1:], dtype=np.float64),
        np.ones(len(found_unit) - 1, dtype=np.bool_),
    )


@njit(cache=True, nogil=True)
def _gain(correlation, kernel, prior, unit, position, step, amplitude):
    """What a spike of given amplitude adds to the log posterior."""
    b = _read(correlation[unit], kernel, position, step)
    precision, total, offset = prior[0, unit], prior[1, unit], prior[2, unit]
    best = (b + precision) / total
    return 0.5 * total * (best**2 - (amplitude - best) ** 2) + offset


@njit(cache=True, nogil=True)
def _rebuild(correlation, blocked, overlaps, kernel, prior, refractory, first, last, start_unit, most, places, sizes):
    """Spikes in [first, last) from nothing: the best of start_unit (-1: of any unit), then greedily, then each once more in the
    presence of the others. Fills places (most, 3: unit, position, step) and sizes (most, 2: amplitude, gain) and leaves the
    spikes subtracted. Returns their number and what they add to the log posterior."""
    n_shifts = kernel.shape[0]
    n, total = 0, 0.0
    only = start_unit
    while n < most:
        gain, unit, position, step, amplitude = _best(correlation, blocked, kernel, prior, first, last, only)
        if unit < 0:
            break
        only = -1
        _put(correlation, blocked, overlaps, n_shifts, refractory, unit, position, step, amplitude, 1)
        places[n, 0], places[n, 1], places[n, 2] = unit, position, step
        sizes[n, 0], sizes[n, 1] = amplitude, gain
        total += gain
        n += 1
    if n < 2:
        return n, total
    for i in range(n):
        unit, position, step, amplitude = places[i, 0], places[i, 1], places[i, 2], sizes[i, 0]
        _put(correlation, blocked, overlaps, n_shifts, refractory, unit, position, step, amplitude, -1)
        total -= _gain(correlation, kernel, prior, unit, position, step, amplitude)
        gain, unit, position, step, amplitude = _best(correlation, blocked, kernel, prior, first, last, -1)
        if unit >= 0:
            _put(correlation, blocked, overlaps, n_shifts, refractory, unit, position, step, amplitude, 1)
            total += gain
        places[i, 0], places[i, 1], places[i, 2] = unit, position, step
        sizes[i, 0], sizes[i, 1] = amplitude, gain
    return n, total


@njit(cache=True, nogil=True)
def _put_all(correlation, blocked, overlaps, n_shifts, refractory, places, sizes, n, sign):
    for i in range(n):
        if places[i, 0] >= 0:
            _put(
                correlation,
                blocked,
                overlaps,
                n_shifts,
                refractory,
                places[i, 0],
                places[i, 1],
                places[i, 2],
                sizes[i, 0],
                sign,
            )


@njit(cache=True, nogil=True)
def _improve(
    correlation,
    blocked,
    overlaps,
    kernel,
    prior,
    rivals,
    refractory,
    unit,
    position,
    step,
    amplitude,
    gain,
    open_,
    first_sweep,
):
    """One sweep over the spikes (sorted by position) that are open: each, with those close to it, is taken out, and the set
    of spikes that raises the log posterior most takes their place.

    open_: in the first sweep crowded spikes are open too; later, only those beside which something changed. Returns the
    spikes, which of them are open now, and how many places have changed.
    """
    n_shifts = kernel.shape[0]
    n_units, n_positions = correlation.shape
    centre = (overlaps.shape[2] - 1) // 2
    close = max(3, centre // 6)
    n = len(unit)
    alive, opened = np.ones(n, np.bool_), np.zeros(n, np.bool_)
    n_changed = 0
    most = 6
    members = np.zeros(most, np.int64)
    old_places, old_sizes = np.zeros((most, 3), np.int64), np.zeros((most, 2))
    places, sizes = np.zeros((most, 3), np.int64), np.zeros((most, 2))
    best_places, best_sizes = np.zeros((most, 3), np.int64), np.zeros((most, 2))
    more_unit, more_position, more_step, more_amplitude, more_gain = [0], [0], [0], [0.0], [0.0]
    for i in range(n):
        if not alive[i] or not (first_sweep or open_[i]):
            continue
        t = position[i]
        crowded = (i > 0 and t - position[i - 1] <= close) or (i < n - 1 and position[i + 1] - t <= close)
        if not (open_[i] or crowded):
            continue
        n_old = 0
        j = i
        while j >= 0 and t - position[j] <= 4 * close and n_old < most - 1:
            if alive[j] and abs(t - position[j]) <= close:
                members[n_old] = j
                n_old += 1
            j -= 1
        j = i + 1
        while j < n and position[j] - t <= 4 * close and n_old < most - 1:
            if alive[j] and abs(t - position[j]) <= close:
                members[n_old] = j
                n_old += 1
            j += 1
        old_total = 0.0
        for k in range(n_old):
            j = members[k]
            old_places[k, 0], old_places[k, 1], old_places[k, 2] = unit[j], position[j], step[j]
            old_sizes[k, 0], old_sizes[k, 1] = amplitude[j], gain[j]
            _put(correlation, blocked, overlaps, n_shifts, refractory, unit[j], position[j], step[j], amplitude[j], -1)
            old_total += _gain(correlation, kernel, prior, unit[j], position[j], step[j], amplitude[j])
        first, last = max(0, t - 2 * close), min(n_positions, t + 2 * close + 1)
        best_n, best_total = -1, old_total + 1e-6
        for start in range(-1, n_units):
            if start >= 0:
                resembles = False
                for k in range(n_old):
                    resembles |= rivals[start, old_places[k, 0]]
                if not resembles:
                    continue
                # whatever explains as much, its largest spike explains a good part of it
                if _best(correlation, blocked, kernel, prior, first, last, start)[0] < _LEAST_SHARE * old_total:
                    continue
            new_n, new_total = _rebuild(
                correlation, blocked, overlaps, kernel, prior, refractory, first, last, start, n_old + 1, places, sizes
            )
            if new_total > best_total:
                best_n, best_total = new_n, new_total
                best_places[:], best_sizes[:] = places, sizes
            _put_all(correlation, blocked, overlaps, n_shifts, refractory, places, sizes, new_n, -1)
        if best_n < 0:
            _put_all(correlation, blocked, overlaps, n_shifts, refractory, old_places, old_sizes, n_old, 1)
            continue
        _put_all(correlation, blocked, overlaps, n_shifts, refractory, best_places, best_sizes, best_n, 1)
        moved = best_total - old_total > 0.1
        slot = 0
        for k in range(best_n):
            if best_places[k, 0] < 0:
                continue
            if slot < n_old:
                j = members[slot]
                unit[j], position[j], step[j] = best_places[k, 0], best_places[k, 1], best_places[k, 2]
                amplitude[j], gain[j] = best_sizes[k, 0], best_sizes[k, 1]
            else:
                more_unit.append(best_places[k, 0])
                more_position.append(best_places[k, 1])
                more_step.append(best_places[k, 2])
                more_amplitude.append(best_sizes[k, 0])
                more_gain.append(best_sizes[k, 1])
            slot += 1
        for k in range(slot, n_old):
            alive[members[k]] = False
        if moved:
            n_changed += 1
            j = i
            while j >= 0 and t - position[j] <= 2 * centre:
                opened[j] = True
                j -= 1
            j = i
            while j < n and position[j] - t <= 2 * centre:
                opened[j] = True
                j += 1
    kept = np.flatnonzero(alive)
    n_more = len(more_unit) - 1
    return (
        np.concatenate((unit[kept], np.array(more_unit, dtype=np.int64)[1:])),
        np.concatenate((position[kept], np.array(more_position, dtype=np.int64)[1:])),
        np.concatenate((step[kept], np.array(more_step, dtype=np.int64)[1:])),
        np.concatenate((amplitude[kept], np.array(more_amplitude, dtype=np.float64)[1:])),
        np.concatenate((gain[kept], np.array(more_gain, dtype=np.float64)[1:])),
        np.concatenate((opened[kept], np.ones(n_more, dtype=np.bool_))),
        n_changed,
    )


@njit(cache=True, nogil=True)
def _compare(correlation, blocked, overlaps, kernel, prior, refractory, unit, position, step, amplitude):
    """For every spike, with all others in place: its gain, and unit (or -1) and gain of the best spike of another unit there."""
    n_shifts = kernel.shape[0]
    n_units, n_positions = correlation.shape
    close = max(3, (overlaps.shape[2] - 1) // 12)
    gain, rival, rival_gain = np.zeros(len(unit)), np.full(len(unit), -1, np.int64), np.zeros(len(unit))
    for i in range(len(unit)):
        u, t, k, a = unit[i], position[i], step[i], amplitude[i]
        _put(correlation, blocked, overlaps, n_shifts, refractory, u, t, k, a, -1)
        gain[i] = _gain(correlation, kernel, prior, u, t, k, a)
        for v in range(n_units):
            if v != u:
                g, w, _, _, _ = _best(
                    correlation, blocked, kernel, prior, max(0, t - close), min(n_positions, t + close + 1), v
                )
                if w >= 0 and g > rival_gain[i]:
                    rival[i], rival_gain[i] = v, g
        _put(correlation, blocked, overlaps, n_shifts, refractory, u, t, k, a, 1)
    return gain, rival, rival_gain
