"""Locally greedy coordinate descent for the same convex problem as FISTA, on the CPU.

In each segment of about two template lengths the coordinate that would move most is updated until none moves by more
than the tolerance; only segments whose correlations an update has touched are visited again (Moreau, Oudre, Vayatis
2018, "DICOD"). A segment in which every correlation stays below the bias is never entered: its code is zero.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange


def coordinate_descent(
    correlation: np.ndarray,
    gram: np.ndarray,
    bias: float,
    one_sided: bool,
    tolerance: float = 1e-4,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Codes (n_windows, n_units, n_positions), in the dtype of `correlation`.

    correlation: H^T y, (n_windows, n_units, n_positions), kept as it is. gram: csc.convolution.gram of the atoms.
    bias: lambda sigma^2. It ends when no coordinate would move by more than `tolerance` (in whitened units), so every
    KKT condition holds to `tolerance` times the atoms' squared norm. start: codes of a warm start.
    """
    work = np.array(correlation, order="C")
    gram = gram.astype(work.dtype)
    codes = np.zeros_like(work) if start is None else np.array(start, dtype=work.dtype, order="C")
    if start is not None:
        _subtract_start(work, codes, gram)
    _solve_windows(work, codes, gram, bias, one_sided, tolerance)
    return codes


@njit(cache=True, parallel=True, nogil=True)
def _solve_windows(correlation, codes, gram, bias, one_sided, tolerance):
    for window in prange(correlation.shape[0]):
        _solve_window(correlation[window], codes[window], gram, bias, one_sided, tolerance)


@njit(cache=True, nogil=True)
def _solve_window(correlation, codes, gram, bias, one_sided, tolerance):
    n_positions = codes.shape[1]
    length = gram.shape[2] + 1
    n_segments = (n_positions + length - 1) // length
    touched = np.ones(n_segments, np.bool_)
    again = True
    while again:
        again = False
        for segment in range(n_segments):
            if not touched[segment]:
                continue
            first, last = segment * length, min((segment + 1) * length, n_positions)
            while True:
                unit, position, step = _largest_step(correlation, codes, gram, first, last, bias, one_sided, tolerance)
                if unit < 0:
                    break
                codes[unit, position] += step
                low, high = _update(correlation, gram, unit, position, step)
                for neighbour in (segment - 1, segment + 1):
                    if low // length <= neighbour <= (high - 1) // length and 0 <= neighbour < n_segments:
                        touched[neighbour] = True
                        again = True
            touched[segment] = False


@njit(cache=True, nogil=True, inline="always")
def _largest_step(correlation, codes, gram, first, last, bias, one_sided, tolerance):
    centre = (gram.shape[2] - 1) // 2
    best_unit, best_position, best_step = -1, -1, 0.0
    largest = tolerance
    for unit in range(codes.shape[0]):
        energy = gram[unit, unit, centre]
        for position in range(first, last):
            now = codes[unit, position]
            value = correlation[unit, position] + now * energy
            if value > bias:
                target = (value - bias) / energy
            elif not one_sided and value < -bias:
                target = (value + bias) / energy
            else:
                target = 0.0
            move = abs(target - now)
            if move > largest:
                largest = move
                best_unit, best_position, best_step = unit, position, target - now
    return best_unit, best_position, best_step


@njit(cache=True, nogil=True)
def _update(correlation, gram, unit, position, step):
    """Take step * atom away from the signal behind the correlations; returns the range of positions it touched."""
    centre = (gram.shape[2] - 1) // 2
    low, high = max(0, position - centre), min(correlation.shape[1], position + centre + 1)
    shift = centre - position
    for other in range(correlation.shape[0]):
        for i in range(low, high):
            correlation[other, i] -= step * gram[other, unit, i + shift]
    return low, high


@njit(cache=True, parallel=True, nogil=True)
def _subtract_start(correlation, codes, gram):
    for window in prange(codes.shape[0]):
        for unit in range(codes.shape[1]):
            for position in range(codes.shape[2]):
                if codes[window, unit, position] != 0:
                    _update(correlation[window], gram, unit, position, codes[window, unit, position])
