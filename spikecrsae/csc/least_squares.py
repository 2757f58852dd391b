"""Least squares for given codes: all templates at once (M-step), the residual, and what it is under each spike."""

from __future__ import annotations

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from spikecrsae.system.compiled import compiled


def fit_templates(
    lags: np.ndarray,
    target: np.ndarray,
    ridge: float = 1e-6,
    before: np.ndarray | None = None,
    weight: float = 0.003,
) -> np.ndarray:
    """The templates (n_units, n_channels, n_times) that minimise ||y - Hx||^2 for fixed codes x (Eq. 21).

    lags, target: the codes' `code_statistics`. One symmetric system of size n_units n_times built from the correlations of the
    codes, with one right-hand side per channel; overlapping spikes are told apart. Units without an event come back as zero.
    ridge: relative to the mean of the diagonal; it only keeps the system regular. before: templates that count as much as
    the part `weight` of the unit's events. Where units always come together at one lag the codes tell only the sum of their
    templates; what one has and the other has not then stays as it was before.
    """
    n_units, n_channels, n_times = target.shape
    k = np.arange(n_times)
    system = lags[:, :, k[:, None] - k[None, :] + n_times - 1].transpose(0, 2, 1, 3).reshape(n_units * n_times, -1)
    system[np.diag_indices_from(system)] += ridge * max(np.trace(system) / len(system), 1e-12) if len(system) else 0.0
    if before is not None:
        counted = weight * lags[np.arange(n_units), np.arange(n_units), n_times - 1]
        system[np.diag_indices_from(system)] += np.repeat(counted, n_times)
        target = target + counted[:, None, None] * before
    target = target.transpose(0, 2, 1).reshape(n_units * n_times, n_channels)
    # the system is positive definite: Cholesky takes half as long as LU
    solved = cho_solve(cho_factor(system, check_finite=False), target, check_finite=False) if len(system) else target
    return solved.reshape(n_units, n_times, n_channels).transpose(0, 2, 1)


@compiled
def code_statistics(
    signal: np.ndarray, unit: np.ndarray, sample: np.ndarray, amplitude: np.ndarray, n_units: int, n_times: int
) -> tuple[np.ndarray, np.ndarray]:
    """Code correlations lags[c, d, n_times - 1 + t] = sum_n x_c[n] x_d[n + t], and sums of the windows at the events."""
    n_channels = signal.shape[0]
    lags = np.zeros((n_units, n_units, 2 * n_times - 1))
    target = np.zeros((n_units, n_channels, n_times))
    for i in range(len(sample)):
        for m in range(n_channels):
            for k in range(n_times):
                target[unit[i], m, k] += amplitude[i] * signal[m, sample[i] + k]
        for j in range(i, len(sample)):
            distance = sample[j] - sample[i]
            if distance >= n_times:
                break
            product = amplitude[i] * amplitude[j]
            lags[unit[i], unit[j], n_times - 1 + distance] += product
            if j != i:
                lags[unit[j], unit[i], n_times - 1 - distance] += product
    return lags, target


def code_correlations(unit: np.ndarray, sample: np.ndarray, amplitude: np.ndarray, n_units: int, n_times: int) -> np.ndarray:
    """The lags of `code_statistics` without compiled code: sums over pairs of events that are so many apart in their order."""
    shape = n_units, n_units, 2 * n_times - 1
    lags = np.zeros(np.prod(shape))
    for apart in range(most_within(sample, n_times)):
        first, second = np.arange(len(sample) - apart), np.arange(apart, len(sample))
        distance = sample[second] - sample[first]
        near = distance < n_times
        first, second, distance = first[near], second[near], distance[near]
        product = amplitude[first] * amplitude[second]
        for one, other, by in ((first, second, distance), (second, first, -distance))[: 2 if apart else 1]:
            place = np.ravel_multi_index((unit[one], unit[other], n_times - 1 + by), shape)
            lags += np.bincount(place, product, len(lags))
    return lags.reshape(shape)


def most_within(sample: np.ndarray, length: int) -> int:
    """The most events (ascending samples) that lie within less than `length` samples; 0 without any."""
    ends = np.searchsorted(sample, sample + length)
    return int((ends - np.arange(len(sample))).max(initial=0))


@compiled
def subtract(signal: np.ndarray, templates: np.ndarray, unit: np.ndarray, sample: np.ndarray, amplitude: np.ndarray) -> None:
    """Take sum amplitude * template away from signal (n_channels, n_samples), in place; templates (n_units, n_channels,
    n_times). With negative amplitudes it adds: the synthesis of sparse events."""
    subtract_within(signal, 0, signal.shape[1], templates, unit, sample, amplitude)


@compiled
def subtract_within(
    signal: np.ndarray,
    first: int,
    last: int,
    templates: np.ndarray,
    unit: np.ndarray,
    sample: np.ndarray,
    amplitude: np.ndarray,
) -> None:
    """The same, but what lies outside of samples [first, last) stays as it is."""
    for i in range(len(sample)):
        low, high = max(first, sample[i]), min(last, sample[i] + templates.shape[2])
        for m in range(signal.shape[0]):
            here, template = signal[m, low:high], templates[unit[i], m, low - sample[i] : high - sample[i]]
            for k in range(len(here)):
                here[k] -= amplitude[i] * template[k]


@compiled
def misfits(
    signal: np.ndarray,
    templates: np.ndarray,
    row: np.ndarray,
    sample: np.ndarray,
    amplitude: np.ndarray,
    weights: np.ndarray,
    unit: np.ndarray,
) -> np.ndarray:
    """Energy (n,) of what events, ascending, leave in the window at each one: of signal (n_channels, n_samples) less all
    amplitude * templates[row] that reach into it, its samples weighted by weights[unit], (n_units, n_times)."""
    n, n_channels, n_times = len(sample), signal.shape[0], templates.shape[2]
    rest, energy, total = np.zeros((n_channels, n_times), templates.dtype), np.zeros(n_times, templates.dtype), np.zeros(n)
    earliest = 0
    for i in range(n):
        for m in range(n_channels):
            here, source = rest[m], signal[m, sample[i] : sample[i] + n_times]
            for k in range(n_times):
                here[k] = source[k]
        while sample[earliest] <= sample[i] - n_times:
            earliest += 1
        j = earliest
        while j < n and sample[j] < sample[i] + n_times:
            later = sample[j] - sample[i]
            low, high = max(0, later), min(n_times, later + n_times)
            for m in range(n_channels):
                here, template = rest[m, low:high], templates[row[j], m, low - later : high - later]
                for k in range(len(here)):
                    here[k] -= amplitude[j] * template[k]
            j += 1
        energy[:] = 0
        for m in range(n_channels):
            here = rest[m]
            for k in range(n_times):
                energy[k] += here[k] * here[k]
        for k in range(n_times):
            total[i] += energy[k] * weights[unit[i], k]
    return total
