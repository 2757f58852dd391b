"""Locally greedy coordinate descent for the same convex problem as FISTA, on the CPU.

The coordinate that violates its optimality condition most is set to its optimum, until none violates it by more than the
tolerance (Moreau, Oudre, Vayatis 2018, "DICOD"). Four things make it fast:

- The search for that coordinate is confined to a segment of one template length, and only what an update has touched
  is searched again. A segment in which every correlation stays below the bias is never entered: its code is zero.
- Sweep by sweep the threshold falls by half, because settling one segment while its neighbour is far off is in vain. So
  there are hardly more updates than if the whole window were searched for each of them.
- Correlations lie position by position, the units side by side: an update is one stretch of memory for all units.
- `encode` correlates a window and solves it at once, while it is in the processor's cache.

The search is in float64 whatever the signal is: rounding would drive the shares of two atoms that are much alike astray.
"""

from __future__ import annotations

import numpy as np

from spikecrsae.csc.operator import gram as gram_of
from spikecrsae.errors import InputError, UsageError
from spikecrsae.system.compiled import compiled
from spikecrsae.system.threads import in_threads

#: Samples of windows that a thread solves at a time, and positions that are correlated at a time: so many stay in the cache.
SAMPLES_AT_ONCE, POSITIONS_AT_ONCE = 32_768, 2048


def encode(
    signal: np.ndarray,
    atoms: np.ndarray,
    bias: float | np.ndarray,
    one_sided: bool,
    tolerance: float,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Codes (n_windows, n_units, n_positions) of signal (n_windows, n_channels, n_samples), in its dtype.

    As `coordinate_descent` of the signal's correlations with the atoms (n_units, n_channels, n_times), which are taken in
    the time domain. bias: one value, or one for each unit (n_units,). Raises InputError for windows shorter than an atom.
    """
    n_positions = signal.shape[2] - atoms.shape[2] + 1
    if n_positions < 1:
        raise InputError(
            f"windows of {signal.shape[2]} samples are shorter than an atom of {atoms.shape[2]}; use longer windows."
        )
    # no correlation is larger than the norm of what an atom covers
    largest = np.sqrt(atoms[0].size) * _largest(signal)
    arguments = _arguments(gram_of(atoms), bias, one_sided, tolerance, max(largest, _largest(start)))
    signal, atoms = np.ascontiguousarray(signal), atoms.astype(signal.dtype, order="C")
    codes = _start(start, (len(signal), len(atoms), n_positions), signal.dtype)
    in_threads(lambda part: _encode_windows(signal[part], atoms, codes[part], *arguments), *_shares(codes))
    return codes


def coordinate_descent(
    correlation: np.ndarray,
    gram: np.ndarray,
    bias: float | np.ndarray,
    one_sided: bool,
    tolerance: float,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Codes (n_windows, n_units, n_positions) at the optimum, in the dtype of `correlation`.

    correlation: H^T y, (n_windows, n_units, n_positions), kept as it is. gram: csc.operator.gram of the atoms, of unit
    norm. bias: lambda sigma^2, one value or one for each unit (n_units,). start: codes of a warm start. It
    ends when no optimality condition is violated by more than `tolerance` (csc.objective.kkt_violation, in whitened units; to a thousandth of it), or by 1e-12 of the largest
    correlation; the more alike two atoms are, the later. Raises UsageError for atoms that are not of unit norm, InputError
    for values that are not finite.
    """
    arguments = _arguments(gram, bias, one_sided, tolerance, max(_largest(correlation), _largest(start)))
    correlation = np.ascontiguousarray(correlation)
    codes = _start(start, correlation.shape, correlation.dtype)
    in_threads(lambda part: _descend_windows(correlation[part], codes[part], *arguments), *_shares(codes))
    return codes


def encode_correlation(
    correlation: np.ndarray, gram: np.ndarray, bias: float | np.ndarray, one_sided: bool, tolerance: float
) -> np.ndarray:
    """Codes (n_units, n_positions) at the optimum, from the correlation (n_units, n_positions) with templates of any norm.

    gram: csc.operator.gram of the templates, in the same unit as the correlation. Both are divided by the templates' norms:
    bias (one value or (n_units,)), tolerance and codes are those of `coordinate_descent` for atoms of unit norm.
    """
    atoms_gram, norms = of_unit_norm(gram)
    scaled = correlation / norms[:, None].astype(correlation.dtype)
    return coordinate_descent(scaled[None], atoms_gram, bias, one_sided, tolerance)[0]


def of_unit_norm(gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The Gram function (n_units, n_units, 2 n_times - 1) of templates divided by their norms, and these norms (n_units,);
    a template of zeros stays one."""
    own = np.arange(len(gram))
    norms = np.sqrt(gram[own, own, (gram.shape[2] - 1) // 2])
    norms = np.where(norms > 0, norms, 1.0)
    return gram / (norms[:, None] * norms[None, :])[:, :, None], norms


def _arguments(
    gram: np.ndarray, bias: float | np.ndarray, one_sided: bool, tolerance: float, largest: float
) -> tuple[np.ndarray, np.ndarray, bool, float]:
    """What the compiled functions take: lags (n_units, (2 n_times - 1) n_units), how one unit of code of an atom changes
    the correlations around it, position by position; bias (n_times n_units,) of a segment; one_sided, tolerance."""
    energy = gram[range(len(gram)), range(len(gram)), (gram.shape[2] - 1) // 2]
    if not np.allclose(energy, 1, atol=1e-3):
        raise UsageError(f"atoms of squared norms {energy} cannot be coded; divide each by its norm.")
    lags = np.ascontiguousarray(gram.transpose(1, 2, 0).reshape(len(gram), -1), np.float64)
    n_times = (gram.shape[2] + 1) // 2
    biases = np.tile(np.broadcast_to(np.asarray(bias, np.float64), (len(gram),)), n_times)
    return lags, biases, one_sided, float(max(tolerance, 1e-12 * largest))


def _largest(values: np.ndarray | None) -> float:
    if values is None or not values.size:
        return 0.0
    largest = float(max(values.max(), -values.min()))
    if not np.isfinite(largest):
        raise InputError("the signal holds values that are not finite; replace or leave them out before coding it.")
    return largest


def _start(start: np.ndarray | None, shape: tuple, dtype: np.dtype) -> np.ndarray:
    return np.zeros(shape, dtype) if start is None else np.array(start, dtype, order="C")


def _shares(codes: np.ndarray) -> tuple[int, int]:
    """How many windows there are, and how many a thread takes at a time."""
    return len(codes), max(1, SAMPLES_AT_ONCE // max(1, codes.shape[2]))


@compiled
def _encode_windows(
    signal: np.ndarray,
    atoms: np.ndarray,
    codes: np.ndarray,
    lags: np.ndarray,
    bias: np.ndarray,
    one_sided: bool,
    tolerance: float,
) -> None:
    correlation = np.empty((codes.shape[2], len(atoms)))
    for window in range(len(codes)):
        _correlate(signal[window], atoms, correlation)
        _solve(correlation, codes[window], lags, bias, one_sided, tolerance)


@compiled
def _descend_windows(
    correlation: np.ndarray, codes: np.ndarray, lags: np.ndarray, bias: np.ndarray, one_sided: bool, tolerance: float
) -> None:
    given = np.empty((codes.shape[2], codes.shape[1]))
    for window in range(len(codes)):
        given[:] = correlation[window].T
        _solve(given, codes[window], lags, bias, one_sided, tolerance)


@compiled
def _correlate(signal: np.ndarray, atoms: np.ndarray, correlation: np.ndarray) -> None:
    """H^T y of one window in the time domain, four samples of an atom at a time, into correlation (n_positions, n_units)."""
    n_units, n_channels, n_times = atoms.shape
    row = np.empty(POSITIONS_AT_ONCE, signal.dtype)
    for first in range(0, len(correlation), POSITIONS_AT_ONCE):
        part = row[: min(POSITIONS_AT_ONCE, len(correlation) - first)]
        for unit in range(n_units):
            part[:] = 0
            for channel in range(n_channels):
                atom, samples = atoms[unit, channel], signal[channel, first : first + len(part) + n_times - 1]
                for k in range(0, n_times - 3, 4):
                    _add_four(part, samples[k:], atom[k : k + 4])
                for k in range(n_times - n_times % 4, n_times):
                    _add(part, samples[k : k + len(part)], atom[k])
            for i in range(len(part)):
                correlation[first + i, unit] = part[i]


@compiled
def _add_four(to: np.ndarray, values: np.ndarray, factors: np.ndarray) -> None:
    a, b, c, d = factors[0], factors[1], factors[2], factors[3]
    n = len(to)
    first, second, third, fourth = values[:n], values[1 : n + 1], values[2 : n + 2], values[3 : n + 3]
    for i in range(n):
        to[i] += a * first[i] + b * second[i] + c * third[i] + d * fourth[i]


@compiled
def _solve(
    correlation: np.ndarray, codes: np.ndarray, lags: np.ndarray, bias: np.ndarray, one_sided: bool, tolerance: float
) -> None:
    """codes (n_units, n_positions), a start, become the optimum; correlation (n_positions, n_units) is spoilt."""
    n_units, n_positions = codes.shape
    flat, code = correlation.reshape(-1), np.zeros(n_units * n_positions)
    for unit in range(n_units):
        for position in range(n_positions):
            if codes[unit, position] != 0:
                place = position * n_units + unit
                code[place] = codes[unit, position]
                _subtract(flat, lags, place, code[place])
    _descend(flat, code, lags, bias, one_sided, tolerance)
    for unit in range(n_units):
        for position in range(n_positions):
            codes[unit, position] = code[position * n_units + unit]


@compiled
def _descend(
    correlation: np.ndarray, code: np.ndarray, lags: np.ndarray, bias: np.ndarray, one_sided: bool, tolerance: float
) -> None:
    """The optimum of one window, in place in code and correlation, of what the code leaves over."""
    size = (lags.shape[1] + len(lags)) // 2
    worst = np.empty(-(-len(code) // size))
    for segment in range(len(worst)):
        worst[segment] = _most_violated(correlation, code, segment * size, size, bias, one_sided)[1]
    threshold = worst.max()
    while threshold > tolerance:
        threshold = max(tolerance, threshold / 2)
        again = True
        while again:
            again = False
            for segment in range(len(worst)):
                if worst[segment] > threshold and _settle(
                    correlation, code, lags, worst, segment, threshold, bias, one_sided
                ):
                    again = True


@compiled
def _settle(
    correlation: np.ndarray,
    code: np.ndarray,
    lags: np.ndarray,
    worst: np.ndarray,
    segment: int,
    threshold: float,
    bias: np.ndarray,
    one_sided: bool,
) -> bool:
    """Update a segment until its largest violation, in worst, is at most the threshold; whether that touched an earlier one."""
    size = (lags.shape[1] + len(lags)) // 2
    earlier = False
    while True:
        place, worst[segment] = _most_violated(correlation, code, segment * size, size, bias, one_sided)
        if worst[segment] <= threshold:
            return earlier
        now = code[place]
        best = _optimum(correlation[place] + now, bias[place - segment * size], one_sided)
        code[place] = best
        low, high = _subtract(correlation, lags, place, best - now)
        # an update reaches as far as a segment is long, and no further
        if low < segment * size:
            worst[segment - 1] = np.inf
            earlier = True
        if high > (segment + 1) * size:
            worst[segment + 1] = np.inf


@compiled
def _most_violated(
    correlation: np.ndarray, code: np.ndarray, first: int, size: int, bias: np.ndarray, one_sided: bool
) -> tuple[np.integer, float]:
    """Where, in the segment of this size that begins at first, the largest violation is, and how large. bias (size,): a segment
    begins with the first unit, so all share one.

    Violations are compared with as many bits as the place leaves of a float's 32, to a thousandth or better.
    """
    # The bits of a positive float rank as an integer, those of a negative one below 0; the place takes the last ones. A
    # maximum of integers is found eight or sixteen at a time, one of floats, or a place, one by one.
    places = np.int32(1)
    while places < size:
        places *= np.int32(2)
    places -= np.int32(1)
    here, there = correlation[first : first + size], code[first : first + size]
    bound = bias[: len(here)]
    best = np.int32(0)
    for i in range(len(there)):
        rank = np.float32(_violation(here[i], there[i], bound[i], one_sided)).view(np.int32)
        best = max(best, rank & ~places | np.int32(i))
    place = best & places
    return first + place, _violation(here[place], there[place], bound[place], one_sided)


@compiled
def _violation(correlation: float, code: float, bias: float, one_sided: bool) -> float:
    """Of the optimality condition of one entry of the code, see csc.objective.kkt_violation; below 0 where it holds."""
    if code != 0:
        return abs(correlation - np.copysign(bias, code))
    return (correlation if one_sided else abs(correlation)) - bias


@compiled
def _optimum(value: float, bias: float, one_sided: bool) -> float:
    """The best value of one entry, all others fixed; value: its correlation without it."""
    if value > bias:
        return value - bias
    if value < -bias and not one_sided:
        return value + bias
    return value * 0


@compiled
def _subtract(correlation: np.ndarray, lags: np.ndarray, place: int, step: float) -> tuple[int, int]:
    """Take step * atom away from the signal behind the correlations, at a place of the code; the range that it touched."""
    n_units = len(lags)
    unit = place % n_units
    low = place - unit - (lags.shape[1] - n_units) // 2
    first, last = max(0, low), min(len(correlation), low + lags.shape[1])
    _add(correlation[first:last], lags[unit, first - low : last - low], -step)
    return first, last


@compiled
def _add(to: np.ndarray, values: np.ndarray, factor: float) -> None:
    for i in range(len(to)):
        to[i] += factor * values[i]
