"""The search of csc.pursuit, compiled: the greedy solution, its local improvement, and the gain of each spike.

numba reuses its cached machine code until this file itself changes, so all that the search compiles is in this file.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from spikecrsae.system.compiled import compiled

FOUND_DTYPE = np.dtype(
    [("unit", np.int64), ("position", np.int64), ("step", np.int64), ("amplitude", np.float64), ("gain", np.float64)]
)
#: One spike less than this is taken out at once, and as many as this may take their place.
_MOST_SPIKES = 6
#: In a set that replaces spikes, the first spike gains at least this share of what those gained.
_LEAST_SHARE = 0.3
#: A set replaces another if it adds _LEAST_GAIN to the log posterior; if it adds _NOTABLE_GAIN, its neighbours are tried again.
_LEAST_GAIN, _NOTABLE_GAIN = 1e-6, 0.1
#: A correlation below this share of what a gain needs is not enough between the samples either. A parabola through three
#: samples underestimates the peak between them by less than the margin.
PEAK_SHARE, PARABOLA_MARGIN = 0.6, 1.1
#: A spike of hardly changed templates is looked for again within so many samples of where it was.
_NEXT = 2
_CLOSE_PART, _CLOSE_SAMPLES = 6, 3  # close spikes are at most a template / _CLOSE_PART apart, or _CLOSE_SAMPLES


class Residual(NamedTuple):
    """correlation (n_units, n_positions) of every template with the signal less the spikes; blocked (n_units, n_positions) uint8:
    how many spikes of the unit keep it silent at the position. Both are kept up to date as spikes come and go. level
    (n_positions,) uint8: of the noise, which says which row of Tables.prior holds."""

    correlation: np.ndarray
    blocked: np.ndarray
    level: np.ndarray


class Spike(NamedTuple):
    """One row of FOUND_DTYPE: unit (-1: no spike); position: first sample of the template; step: which of its shifted copies;
    amplitude: relative to the template; gain: what it adds to the log posterior."""

    unit: int
    position: int
    step: int
    amplitude: float
    gain: float


@compiled
def _of(beside, unit):
    """The units beside a unit."""
    return beside.units[unit, : beside.counts[unit]]


@compiled
def _rows(n):
    """n rows without a spike."""
    rows = np.zeros(n, FOUND_DTYPE)
    rows.unit[:] = -1
    return rows


@compiled
def _set(rows, i, spike):
    row = rows[i]
    row.unit, row.position, row.step, row.amplitude, row.gain = spike


@compiled
def _spike(rows, i, by=0):
    """The spike of a row, `by` samples later."""
    row = rows[i]
    return Spike(row.unit, row.position + by, row.step, row.amplitude, row.gain)


@compiled
def _close(tables):
    """Samples within which two spikes are close."""
    return max(_CLOSE_SAMPLES, tables.overlaps.shape[2] // 2 // _CLOSE_PART)


@compiled
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


@compiled
def _highest(row, kernel, position, middle):
    """The highest correlation at step `middle` and its two neighbours, and its step."""
    reach, last = kernel.shape[1] // 2, kernel.shape[0] - 1
    one, two, three = min(max(middle - 1, 0), last), min(max(middle, 0), last), min(max(middle + 1, 0), last)
    if position >= reach and position + reach < len(row):
        # three sums side by side: each waits for its last addition
        a, b, c, part = 0.0, 0.0, 0.0, row[position - reach : position + reach + 1]
        for j in range(len(part)):
            a += kernel[one, j] * part[j]
            b += kernel[two, j] * part[j]
            c += kernel[three, j] * part[j]
    else:
        a, b, c = _read(row, kernel, position, one), _read(row, kernel, position, two), _read(row, kernel, position, three)
    top, step = (b, two) if b > a else (a, one)
    return (c, three) if c > top else (top, step)


@compiled
def _need(prior, level, unit, gain):
    """The correlation that a spike needs for more than this gain at a level of the noise."""
    precision, total, offset = prior[level, 0, unit], prior[level, 1, unit], prior[level, 2, unit]
    return np.sqrt(max(0.0, 2.0 * total * (gain - offset))) - precision


@compiled
def _least_need(prior, lowest, highest, unit, gain):
    """The least of what a spike needs at levels of the noise from the lowest to the highest."""
    need = np.inf
    for level in range(lowest, highest + 1):
        need = min(need, _need(prior, level, unit, gain))
    return need


@compiled
def _levels(level):
    """The lowest and the highest of some levels."""
    lowest, highest = level[0], level[0]
    for i in range(len(level)):
        lowest, highest = min(lowest, level[i]), max(highest, level[i])
    return int(lowest), int(highest)


@compiled
def _best(residual, tables, first, last, units):
    """The spike of the largest gain of these units in [first, last), of equal ones the earliest, then that of the lowest unit; unit
    -1 where none has a gain."""
    correlation, blocked, kernel, prior = residual.correlation, residual.blocked, tables.kernel, tables.prior
    n_positions, n_shifts = correlation.shape[1], kernel.shape[0]
    best_gain, best_unit, best_position, best_step, best_amplitude = 0.0, -1, -1, 0, 0.0
    lowest, highest = 0, 0
    if len(prior) > 1 and first < last:
        lowest, highest = _levels(residual.level[first:last])
    for unit in units:
        precision, total, offset = prior[lowest, 0, unit], prior[lowest, 1, unit], prior[lowest, 2, unit]
        # b must exceed this for the largest gain so far; between samples it can be larger than on them
        need = np.sqrt(max(0.0, 2.0 * total * (best_gain - offset))) - precision
        if highest > lowest:
            need = _least_need(prior, lowest, highest, unit, best_gain)
        low = max(PEAK_SHARE * need, 0.0)
        row = correlation[unit]
        part = row[first:last]
        # a loop without branches, which vector instructions take: most rows hold nothing
        worth = False
        for i in range(len(part)):
            worth |= part[i] > low
        if not worth:
            continue
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
            if highest > lowest:
                level = residual.level[position]
                precision, total, offset = prior[level, 0, unit], prior[level, 1, unit], prior[level, 2, unit]
                need = _need(prior, level, unit, best_gain)
            # a parabola tells where between the samples, and whether it is worth the exact value
            bend = 2.0 * b - before - after
            vertex = 0.5 * (after - before) / bend if bend > 0 else 0.0
            if PARABOLA_MARGIN * (b + 0.25 * (after - before) * vertex) <= need:
                continue
            middle = int(np.rint(vertex * n_shifts + 0.5 * (n_shifts - 1)))
            top, step = _highest(row, kernel, position, middle)
            gain = 0.5 * (top + precision) ** 2 / total + offset
            if gain > best_gain or (gain == best_gain and position < best_position):
                best_gain, best_unit, best_position, best_step = gain, unit, position, step
                best_amplitude = (top + precision) / total
                need = np.sqrt(max(0.0, 2.0 * total * (best_gain - offset))) - precision
                if highest > lowest:
                    need = _least_need(prior, lowest, highest, unit, best_gain)
                low = max(PEAK_SHARE * need, 0.0)
    return Spike(best_unit, best_position, best_step, best_amplitude, best_gain)


@compiled
def _put(residual, tables, spike, sign):
    """Subtract a spike from the correlation (sign 1) or give it back (sign -1), and block or free its unit around it."""
    correlation, overlaps = residual.correlation, tables.overlaps
    n_positions, centre, position = correlation.shape[1], overlaps.shape[2] // 2, spike.position
    low, high = max(0, position - centre), min(n_positions, position + centre + 1)
    atom = spike.unit * tables.kernel.shape[0] + spike.step
    scale = np.float32(sign * spike.amplitude)
    for other in _of(tables.met, spike.unit):
        # views that begin at 0: the loop over them is compiled to vector instructions
        changed = correlation[other, low:high]
        shape = overlaps[other, atom, low - position + centre : high - position + centre]
        for i in range(len(changed)):
            changed[i] -= scale * shape[i]
    refractory = tables.refractory
    near = residual.blocked[spike.unit, max(0, position - refractory) : min(n_positions, position + refractory + 1)]
    for i in range(len(near)):
        near[i] += sign


@compiled
def _gain(residual, tables, spike):
    """What a spike of this amplitude adds to the log posterior of the residual without it."""
    prior, unit, amplitude = tables.prior, spike.unit, spike.amplitude
    b = _read(residual.correlation[unit], tables.kernel, spike.position, spike.step)
    level = residual.level[spike.position]
    precision, total, offset = prior[level, 0, unit], prior[level, 1, unit], prior[level, 2, unit]
    best = (b + precision) / total
    return 0.5 * total * (best**2 - (amplitude - best) ** 2) + offset


@compiled
def _is_largest(residual, tables, candidates, segment, touched):
    """Whether `_best` of all that is within `touched` samples each way is the candidate of this segment."""
    spike, sure = candidates[segment], True
    t = spike.position
    for other in candidates[max(0, segment - 1) : segment + 2]:
        if other.gain > spike.gain and abs(other.position - t) <= touched:
            return False
        sure &= other.gain < spike.gain or other.position == t
    if not sure:
        # a neighbour's candidate is out of reach, or equal; another spike of its segment may be within reach
        units, last = np.arange(len(residual.correlation)), min(t + touched + 1, residual.correlation.shape[1])
        best = _best(residual, tables, max(0, t - touched), last, units)
        sure = best.position == t and best.unit == spike.unit
    return sure


@compiled
def search(residual, tables):
    """The greedy solution in layers: each takes all spikes whose gain is the largest within reach, `touched` samples each way,
    as far as a spike changes gains; of equal ones the earliest, then that of the lowest unit. It ends with a layer without a
    spike. Subtracts the spikes from the residual and returns them (FOUND_DTYPE). csc.layered_search follows the same rule."""
    n_positions = residual.correlation.shape[1]
    # a spike changes what interpolation sees a little beyond the overlap
    touched = max(tables.overlaps.shape[2] // 2, tables.refractory) + tables.kernel.shape[1] // 2 + 1
    length = touched + 1  # of segments: of each, a layer takes one spike at most
    n_segments, units = (n_positions + length - 1) // length, np.arange(len(residual.correlation))
    candidates, stale = [Spike(-1, 0, 0, 0.0, 0.0)] * n_segments, np.ones(n_segments, np.bool_)
    found, n_before = candidates[:0], -1
    while len(found) > n_before:
        n_before = len(found)
        for segment in np.flatnonzero(stale):
            last = min((segment + 1) * length, n_positions)
            candidates[segment], stale[segment] = _best(residual, tables, segment * length, last, units), False
        for segment in range(n_segments):
            if candidates[segment].unit >= 0 and _is_largest(residual, tables, candidates, segment, touched):
                found.append(candidates[segment])
        for spike in found[n_before:]:
            _put(residual, tables, spike, 1)
            stale[max(0, spike.position - touched) // length : (spike.position + touched) // length + 1] = True
    rows = _rows(len(found))
    for i, spike in enumerate(found):
        _set(rows, i, spike)
    return rows


@compiled
def resume(residual, tables, known):
    """Begin with known spikes (FOUND_DTYPE, sorted by position), which templates that have hardly changed since have found: all are
    subtracted, then each once more is taken out, and the best spike of its unit or of a rival within _NEXT samples takes its place.

    Returns the spikes that stay, sorted as they came, and which of them (bool) are of another unit than before or stand next to one
    that is, or to one that found no place.
    """
    n, n_positions = len(known), residual.correlation.shape[1]
    rows, alive, other = known.copy(), np.ones(n, np.bool_), np.zeros(n, np.bool_)
    _put_all(residual, tables, rows, 0, 1)
    for i in range(n):
        before = _spike(rows, i)
        _put(residual, tables, before, -1)
        first, last = max(0, before.position - _NEXT), min(n_positions, before.position + _NEXT + 1)
        spike = _best(residual, tables, first, last, _of(tables.rivals, before.unit))
        alive[i], other[i] = spike.unit >= 0, spike.unit != before.unit
        if alive[i]:
            _put(residual, tables, spike, 1)
            _set(rows, i, spike)
    opened = other.copy()
    for i in np.flatnonzero(other):
        _open_around(i, known[i].position, known, n, tables, opened)
    return rows[alive], opened[alive]


@compiled
def _open_around(i, position, spikes, n, tables, opened):
    """Open (bool) those of the first n spikes, sorted by position, that overlap spike i, which was at this position, and whose units
    are alike its own."""
    for way in (-1, 1):
        j = i
        while 0 <= j < n and way * (spikes[j].position - position) < tables.overlaps.shape[2]:
            opened[j] |= tables.alike.pairs[spikes[i].unit, spikes[j].unit]
            j += way


@compiled
def _rebuild(residual, tables, first, last, units, spike, most):
    """Find at most `most` spikes of these units in [first, last): this one, then greedily; then each once more in the presence of
    the others. Leaves them subtracted. Returns them and what they add to the log posterior."""
    spikes, n, total = _rows(most), 0, 0.0
    while spike.unit >= 0 and n < most:
        _put(residual, tables, spike, 1)
        _set(spikes, n, spike)
        total += spike.gain
        n += 1
        if n < most:
            spike = _best(residual, tables, first, last, units)
    for i in range(n if n > 1 else 0):
        total -= _take_out(residual, tables, _spike(spikes, i))
        spike = _best(residual, tables, first, last, units)
        if spike.unit >= 0:
            _put(residual, tables, spike, 1)
            total += spike.gain
        _set(spikes, i, spike)
    return spikes, total


@compiled
def _take_out(residual, tables, spike):
    """Give a spike back to the residual; what it added to the log posterior."""
    _put(residual, tables, spike, -1)
    return _gain(residual, tables, spike)


@compiled
def _put_all(residual, tables, spikes, by, sign):
    """Subtract all spikes, `by` samples later, or give them back."""
    for i in range(len(spikes)):
        if spikes[i].unit >= 0:
            _put(residual, tables, _spike(spikes, i, by), sign)


@compiled
def _close_to(i, spikes, n, alive, close, alike):
    """Indices of the living spikes, of the first n, within `close` of spike i and of units alike, itself first; fewer than
    _MOST_SPIKES."""
    members, n_members, t = np.zeros(_MOST_SPIKES - 1, np.int64), 0, spikes[i].position
    for step in (-1, 1):
        j = i if step < 0 else i + 1
        # a spike that was replaced may be out of order, so the search goes on a little
        while 0 <= j < n and step * (spikes[j].position - t) <= 4 * close and n_members < len(members):
            if alive[j] and abs(t - spikes[j].position) <= close and alike.pairs[spikes[i].unit, spikes[j].unit]:
                members[n_members] = j
                n_members += 1
            j += step
    return members[:n_members]


@compiled
def _is_crowded(i, spikes, n, close, alike):
    """Whether one of the first n spikes, of a unit alike, is close to spike i."""
    t = spikes[i].position
    for step in (-1, 1):
        j = i + step
        while 0 <= j < n and step * (spikes[j].position - t) <= close:
            if alike.pairs[spikes[i].unit, spikes[j].unit]:
                return True
            j += step
    return False


@compiled
def _copy(source, low, target, units):
    """Copy the positions of these units from `low` on, as many as the target has."""
    width = target.correlation.shape[1]
    for i in range(width):
        target.level[i] = source.level[low + i]
    for unit in units:
        # row by row: the assignment of whole arrays takes numba three seconds to compile
        seen, to_seen = source.correlation[unit, low : low + width], target.correlation[unit]
        silent, to_silent = source.blocked[unit, low : low + width], target.blocked[unit]
        for i in range(width):
            to_seen[i] = seen[i]
            to_silent[i] = silent[i]


@compiled
def _best_set(residual, trial, tables, first, last, units, old, old_total):
    """Find the spikes of these units in [first, last) that raise the log posterior most, begun with the best spike of any unit or of one
    similar to an old spike's. trial: memory for a copy of the residual. Returns them and what they add, or none and old_total +
    _LEAST_GAIN where nothing adds more than that."""
    best, best_total, first_unit = old[:0], old_total + _LEAST_GAIN, -1
    for place in range(-1, len(units)):
        unit, similar = units[place], place < 0
        for k in range(len(old) if place >= 0 else 0):
            similar |= tables.rivals.pairs[unit, old[k].unit]
        # what begins with the best spike of all is tried once
        if not similar or (place >= 0 and unit == first_unit):
            continue
        spike = _best(residual, tables, first, last, units if place < 0 else units[place : place + 1])
        if place < 0:
            first_unit = spike.unit
        elif spike.gain < _LEAST_SHARE * old_total:
            continue
        _copy(residual, 0, trial, units)
        spikes, total = _rebuild(trial, tables, first, last, units, spike, len(old) + 1)
        if total > best_total:
            best, best_total = spikes, total
    return best, best_total


@compiled
def _replace(spikes, n, alive, members, best, by):
    """Write the best spikes, `by` samples later, over the members (indices). One that finds no room becomes row n; members that
    are left over are alive no longer. Returns how many rows there are now."""
    new = np.flatnonzero(best.unit >= 0)
    for slot, k in enumerate(new):
        row = members[slot] if slot < len(members) else n
        _set(spikes, row, _spike(best, k, by))
        alive[row] = True
        n = max(n, row + 1)
    for j in members[len(new) :]:
        alive[j] = False
    return n


@compiled
def improve(residual, tables, found, open_, first_sweep):
    """One sweep over the spikes (sorted by position) that are open: each, with those of units alike that are close to it, is taken
    out, and the set of spikes of these units that raises the log posterior most takes their place.

    open_ (n,) bool: in the first sweep crowded spikes are open too. Returns the spikes, and which of them are open now because
    they are new or something changed beside them.
    """
    n, n_positions = len(found), residual.correlation.shape[1]
    # each place may need one row more; what comes new is open
    spikes, end = _rows(2 * n), n
    alive, opened = np.arange(2 * n) < n, np.arange(2 * n) >= n
    spikes[:n] = found
    close, reach = _close(tables), tables.kernel.shape[1] // 2
    # what is tried at a place is tried on a copy of what can be seen there: it changes what is around only when it is better
    width = min(n_positions, 4 * close + tables.kernel.shape[1] + 2)
    here = Residual(
        residual.correlation[:, :width].copy(), residual.blocked[:, :width].copy(), residual.level[:width].copy()
    )
    trial = Residual(here.correlation.copy(), here.blocked.copy(), here.level.copy())
    for i in range(n):
        t = spikes[i].position
        if not alive[i] or not (open_[i] or (first_sweep and _is_crowded(i, spikes, n, close, tables.alike))):
            continue
        members, units = _close_to(i, spikes, n, alive, close, tables.alike), _of(tables.alike, spikes[i].unit)
        low = min(max(0, t - 2 * close - reach - 1), n_positions - width)
        _copy(residual, low, here, units)
        old, old_total = spikes[members], 0.0
        for k in range(len(old)):
            old_total += _take_out(here, tables, _spike(old, k, -low))
        first, last = max(0, t - 2 * close) - low, min(n_positions, t + 2 * close + 1) - low
        best, total = _best_set(here, trial, tables, first, last, units, old, old_total)
        if total <= old_total + _LEAST_GAIN:
            continue
        _put_all(residual, tables, old, 0, -1)
        _put_all(residual, tables, best, low, 1)
        end = _replace(spikes, end, alive, members, best, low)
        if total - old_total > _NOTABLE_GAIN:
            _open_around(i, t, spikes, n, tables, opened)
    return spikes[alive], opened[alive]


@compiled
def compare(residual, tables, spikes, with_rivals):
    """For every spike, with all others in place: its gain (n,), and unit (or -1) and gain of the best spike of another unit
    there, if rivals are asked for."""
    n_positions, n, close = residual.correlation.shape[1], len(spikes), _close(tables)
    gain, rival, rival_gain = np.zeros(n), np.full(n, -1, np.int64), np.zeros(n)
    for i in range(n):
        spike = _spike(spikes, i)
        gain[i] = _take_out(residual, tables, spike)
        first, last = max(0, spike.position - close), min(n_positions, spike.position + close + 1)
        units = _of(tables.alike, spike.unit)
        for place in range(len(units) if with_rivals else 0):
            unit = units[place]
            if unit != spike.unit:
                other = _best(residual, tables, first, last, units[place : place + 1])
                if other.gain > rival_gain[i]:
                    rival[i], rival_gain[i] = unit, other.gain
        _put(residual, tables, spike, 1)
    return gain, rival, rival_gain
