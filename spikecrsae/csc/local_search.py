"""The search of csc.pursuit, compiled: the greedy solution, its local improvement, and what each spike is worth.

Spikes are described by unit, position (first sample of the template), step (which of the shifted copies) and amplitude. The
correlation of the residual with every template, (n_units, n_positions), is kept up to date as spikes come and go; `blocked`
counts the spikes of a unit that keep it silent at a position. prior (3, n_units): 1 / s^2, g + 1 / s^2, and the part of
the gain that does not depend on the data.
"""

from __future__ import annotations

import numpy as np

from spikecrsae.system.compiled import compiled

#: Of what replaces some spikes, the first one gains at least this part of what they did.
_LEAST_SHARE = 0.3
#: So many spikes are taken out at once, less one, and so many may take their place.
_MOST = 6


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
    """The highest correlation at step `middle` and the ones beside it, and its step."""
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
def _best(correlation, blocked, kernel, prior, first, last, only):
    """The spike of the largest gain in [first, last): gain, unit (-1: none pays), position, step, amplitude. only: a unit,
    or -1."""
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
            # a parabola tells where between the samples, and whether it is worth the exact value
            bend = 2.0 * b - before - after
            vertex = 0.5 * (after - before) / bend if bend > 0 else 0.0
            if 1.1 * (b + 0.25 * (after - before) * vertex) <= need:
                continue
            middle = int(np.rint(vertex * n_shifts + 0.5 * (n_shifts - 1)))
            top, step = _highest(row, kernel, position, middle)
            gain = 0.5 * (top + precision) ** 2 / total + offset
            if gain > best_gain:
                best_gain, best_unit, best_position, best_step = gain, unit, position, step
                best_amplitude = (top + precision) / total
                need = np.sqrt(max(0.0, 2.0 * total * (best_gain - offset))) - precision
                low = max(0.6 * need, 0.0)
    return best_gain, best_unit, best_position, best_step, best_amplitude


@compiled
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


@compiled
def search(correlation, blocked, overlaps, kernel, prior, refractory):
    """The greedy solution: the spike of the largest gain in a segment and its two neighbours, until none gains. Unit,
    position, step, amplitude and gain of each spike, and a mask of ones."""
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


@compiled
def _gain(correlation, kernel, prior, unit, position, step, amplitude):
    """What a spike of given amplitude adds to the log posterior."""
    b = _read(correlation[unit], kernel, position, step)
    precision, total, offset = prior[0, unit], prior[1, unit], prior[2, unit]
    best = (b + precision) / total
    return 0.5 * total * (best**2 - (amplitude - best) ** 2) + offset


@compiled
def _rebuild(correlation, blocked, overlaps, kernel, prior, refractory, first, last, start_unit, most, places, sizes):
    """Spikes in [first, last) from nothing: the best of start_unit (-1: of any unit), then greedily, then each once more in the
    presence of the others. Fills places (most, 3: unit, position, step) and sizes (most, 2: amplitude, gain) and leaves the
    spikes subtracted. Returns their number, what they add to the log posterior, and the unit that was begun with."""
    n_shifts = kernel.shape[0]
    n, total, begun = 0, 0.0, -1
    only = start_unit
    while n < most:
        gain, unit, position, step, amplitude = _best(correlation, blocked, kernel, prior, first, last, only)
        if unit < 0:
            break
        if n == 0:
            begun = unit
        only = -1
        _put(correlation, blocked, overlaps, n_shifts, refractory, unit, position, step, amplitude, 1)
        places[n, 0], places[n, 1], places[n, 2] = unit, position, step
        sizes[n, 0], sizes[n, 1] = amplitude, gain
        total += gain
        n += 1
    if n < 2:
        return n, total, begun
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
    return n, total, begun


@compiled
def _put_all(correlation, blocked, overlaps, n_shifts, refractory, places, sizes, low, n, sign):
    """Subtract spikes, or give them back, whose places count from `low`."""
    for k in range(n):
        unit, position, step = places[k, 0], places[k, 1] + low, places[k, 2]
        if unit >= 0:
            _put(correlation, blocked, overlaps, n_shifts, refractory, unit, position, step, sizes[k, 0], sign)


@compiled
def _close_to(i, position, alive, close, members):
    """The living spikes within `close` of spike i, itself first, into members (but for its last place); their number."""
    n, n_members, t = len(position), 0, position[i]
    for step in (-1, 1):
        j = i if step < 0 else i + 1
        while 0 <= j < n and step * (position[j] - t) <= 4 * close and n_members < len(members) - 1:
            if alive[j] and abs(t - position[j]) <= close:
                members[n_members] = j
                n_members += 1
            j += step
    return n_members


@compiled
def _copy(correlation, blocked, low, to_correlation, to_blocked):
    """The positions from `low` on of both arrays into arrays of fewer positions."""
    for unit in range(len(correlation)):
        # row by row: the assignment of whole arrays takes numba three seconds to compile
        source, target = correlation[unit, low : low + to_correlation.shape[1]], to_correlation[unit]
        silent, to_silent = blocked[unit, low : low + to_correlation.shape[1]], to_blocked[unit]
        for i in range(len(target)):
            target[i] = source[i]
            to_silent[i] = silent[i]


@compiled
def _best_set(
    correlation, blocked, trial, trial_blocked, overlaps, kernel, prior, rivals, refractory, first, last, old_places, n_old,
    old_total, places, sizes, best_places, best_sizes,
):  # fmt: skip
    """What raises the log posterior most in [first, last), begun with the best spike of any unit or of one that resembles a
    spike taken out: into best_places and best_sizes. Its number, -1 where nothing adds more than old_total, and what it adds.
    trial, trial_blocked: of the shape of correlation, for what is tried."""
    best_n, best_total, first_unit = -1, old_total + 1e-6, -1
    for start in range(-1, len(correlation)):
        if start >= 0:
            resembles = False
            for k in range(n_old):
                resembles |= rivals[start, old_places[k, 0]]
            # what begins with the best spike of all has been tried
            if not resembles or start == first_unit:
                continue
            # whatever explains as much, its largest spike explains a good part of it
            if _best(correlation, blocked, kernel, prior, first, last, start)[0] < _LEAST_SHARE * old_total:
                continue
        _copy(correlation, blocked, 0, trial, trial_blocked)
        n, total, unit = _rebuild(
            trial, trial_blocked, overlaps, kernel, prior, refractory, first, last, start, n_old + 1, places, sizes
        )
        if start < 0:
            first_unit = unit
        if total > best_total:
            best_n, best_total = n, total
            # one by one: the assignment of whole arrays takes numba three seconds to compile
            for k in range(n):
                best_places[k, 0], best_places[k, 1], best_places[k, 2] = places[k, 0], places[k, 1], places[k, 2]
                best_sizes[k, 0], best_sizes[k, 1] = sizes[k, 0], sizes[k, 1]
    return best_n, best_total


@compiled
def _open_around(i, t, position, opened, reach):
    """Open spike i, which was at t, and those within `reach` of that."""
    for step in (-1, 1):
        j = i
        while 0 <= j < len(position) and step * (position[j] - t) <= reach:
            opened[j] = True
            j += step


@compiled
def improve(
    correlation, blocked, overlaps, kernel, prior, rivals, refractory, unit, position, step, amplitude, gain, open_, first_sweep
):  # fmt: skip
    """One sweep over the spikes (sorted by position) that are open: each, with those close to it, is taken out, and the set
    of spikes that raises the log posterior most takes their place.

    open_: in the first sweep crowded spikes are open too; later, only those beside which something changed. Returns the
    spikes, which of them are open now, and how many places have changed.
    """
    n_shifts, n_positions = kernel.shape[0], correlation.shape[1]
    centre = (overlaps.shape[2] - 1) // 2
    close = max(3, centre // 6)
    # what is tried at a place is tried on a copy of what can be seen there: it changes what is around only when it is better
    width = min(n_positions, 4 * close + kernel.shape[1] + 2)
    here, trial = (
        np.empty((len(correlation), width), correlation.dtype),
        np.empty((len(correlation), width), correlation.dtype),
    )
    silent, trial_silent = (
        np.empty((len(correlation), width), blocked.dtype),
        np.empty((len(correlation), width), blocked.dtype),
    )
    n, n_changed = len(unit), 0
    alive, opened = np.ones(n, np.bool_), np.zeros(n, np.bool_)
    members = np.zeros(_MOST, np.int64)
    old_places, old_sizes = np.zeros((_MOST, 3), np.int64), np.zeros((_MOST, 2))
    places, sizes = np.zeros((_MOST, 3), np.int64), np.zeros((_MOST, 2))
    best_places, best_sizes = np.zeros((_MOST, 3), np.int64), np.zeros((_MOST, 2))
    more_unit, more_position, more_step, more_amplitude, more_gain = [0], [0], [0], [0.0], [0.0]
    for i in range(n):
        if not alive[i] or not (first_sweep or open_[i]):
            continue
        t = position[i]
        crowded = (i > 0 and t - position[i - 1] <= close) or (i < n - 1 and position[i + 1] - t <= close)
        if not (open_[i] or crowded):
            continue
        n_old, old_total = _close_to(i, position, alive, close, members), 0.0
        low = min(max(0, t - 2 * close - kernel.shape[1] // 2 - 1), n_positions - width)
        _copy(correlation, blocked, low, here, silent)
        for k in range(n_old):
            j = members[k]
            old_places[k, 0], old_places[k, 1], old_places[k, 2] = unit[j], position[j] - low, step[j]
            old_sizes[k, 0], old_sizes[k, 1] = amplitude[j], gain[j]
            _put(here, silent, overlaps, n_shifts, refractory, unit[j], position[j] - low, step[j], amplitude[j], -1)
            old_total += _gain(here, kernel, prior, unit[j], position[j] - low, step[j], amplitude[j])
        best_n, best_total = _best_set(
            here, silent, trial, trial_silent, overlaps, kernel, prior, rivals, refractory, max(0, t - 2 * close) - low,
            min(n_positions, t + 2 * close + 1) - low, old_places, n_old, old_total, places, sizes, best_places, best_sizes,
        )  # fmt: skip
        if best_n < 0:
            continue
        _put_all(correlation, blocked, overlaps, n_shifts, refractory, old_places, old_sizes, low, n_old, -1)
        _put_all(correlation, blocked, overlaps, n_shifts, refractory, best_places, best_sizes, low, best_n, 1)
        slot = 0
        for k in range(best_n):
            if best_places[k, 0] < 0:
                continue
            if slot < n_old:
                j = members[slot]
                unit[j], position[j], step[j] = best_places[k, 0], best_places[k, 1] + low, best_places[k, 2]
                amplitude[j], gain[j] = best_sizes[k, 0], best_sizes[k, 1]
            else:
                more_unit.append(best_places[k, 0])
                more_position.append(best_places[k, 1] + low)
                more_step.append(best_places[k, 2])
                more_amplitude.append(best_sizes[k, 0])
                more_gain.append(best_sizes[k, 1])
            slot += 1
        for k in range(slot, n_old):
            alive[members[k]] = False
        if best_total - old_total > 0.1:
            n_changed += 1
            _open_around(i, t, position, opened, 2 * centre)
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


@compiled
def compare(correlation, blocked, overlaps, kernel, prior, refractory, unit, position, step, amplitude, with_rivals):
    """For every spike, with all others in place: its gain, and unit (or -1) and gain of the best spike of another unit
    there, if rivals are asked for."""
    n_shifts = kernel.shape[0]
    n_units, n_positions = correlation.shape
    close = max(3, (overlaps.shape[2] - 1) // 12)
    gain, rival, rival_gain = np.zeros(len(unit)), np.full(len(unit), -1, np.int64), np.zeros(len(unit))
    for i in range(len(unit)):
        u, t, k, a = unit[i], position[i], step[i], amplitude[i]
        _put(correlation, blocked, overlaps, n_shifts, refractory, u, t, k, a, -1)
        gain[i] = _gain(correlation, kernel, prior, u, t, k, a)
        for v in range(n_units if with_rivals else 0):
            if v != u:
                g, w, _, _, _ = _best(
                    correlation, blocked, kernel, prior, max(0, t - close), min(n_positions, t + close + 1), v
                )
                if w >= 0 and g > rival_gain[i]:
                    rival[i], rival_gain[i] = v, g
        _put(correlation, blocked, overlaps, n_shifts, refractory, u, t, k, a, 1)
    return gain, rival, rival_gain
