"""Least squares on a known support: all templates for given codes (M-step), all amplitudes for given spikes."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.linalg import cho_factor, cho_solve
from scipy.sparse.linalg import spsolve

from spikecrsae.csc.compiled import compiled
from spikecrsae.sparse_code import SparseCode


def fit_templates(
    signal: np.ndarray,
    code: SparseCode,
    n_times: int,
    ridge: float = 1e-6,
    before: np.ndarray | None = None,
    weight: float = 0.003,
) -> np.ndarray:
    """The templates (n_units, n_channels, n_times) that minimise ||y - Hx||^2 for fixed codes x (Eq. 21).

    signal (n_channels, n_samples). One symmetric system of size n_units n_times built from the correlations of the codes,
    with one right-hand side per channel; overlapping spikes are told apart. Units without an event come back as zero.
    ridge: relative to the mean of the diagonal; it only keeps the system regular. before: templates that count as much as
    the part `weight` of the unit's events. Where units always come together at one lag the codes tell only the sum of their
    templates; what one has and the other has not then stays as it was before.
    """
    n_units, n_channels = code.n_units, len(signal)
    lags, target = _code_statistics(signal, code.unit, code.sample, code.amplitude.astype(np.float64), n_units, n_times)
    k = np.arange(n_times)
    system = lags[:, :, k[:, None] - k[None, :] + n_times - 1].transpose(0, 2, 1, 3).reshape(n_units * n_times, -1)
    system[np.diag_indices_from(system)] += ridge * max(np.trace(system) / len(system), 1e-12) if len(system) else 0.0
    if before is not None:
        counted = weight * lags[np.arange(n_units), np.arange(n_units), n_times - 1]
        system[np.diag_indices_from(system)] += np.repeat(counted, n_times)
        target += counted[:, None, None] * before
    target = target.transpose(0, 2, 1).reshape(n_units * n_times, n_channels)
    # the system is positive definite: Cholesky takes half as long as LU
    solved = cho_solve(cho_factor(system, check_finite=False), target, check_finite=False) if len(system) else target
    return solved.reshape(n_units, n_times, n_channels).transpose(0, 2, 1)


@compiled
def _code_statistics(signal, unit, sample, amplitude, n_units, n_times):
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


def fit_amplitudes(
    correlation_at_events: np.ndarray,
    gram: np.ndarray,
    unit: np.ndarray,
    sample: np.ndarray,
    precision: np.ndarray | None = None,
) -> np.ndarray:
    """Joint amplitudes (n,) of spikes at known places, without penalty: overlaps share the signal by least squares.

    correlation_at_events (n,): <signal, template> of each event; gram: csc.convolution.gram of the templates; events
    sorted by sample. precision (n,): with it, the amplitudes' prior is N(1, 1 / precision) (ridge around 1).
    """
    if not len(sample):
        return np.zeros(0)
    rows, columns, values = _overlaps(gram, unit, sample)
    system = sparse.csc_matrix((values, (rows, columns)), shape=(len(sample), len(sample)))
    target = np.asarray(correlation_at_events, np.float64)
    extra = np.full(len(sample), 1e-9) if precision is None else np.asarray(precision, np.float64)
    return np.atleast_1d(spsolve(system + sparse.diags(extra, format="csc"), target + (0 if precision is None else extra)))


@compiled
def _overlaps(gram, unit, sample):
    centre = (gram.shape[2] - 1) // 2
    rows, columns, values = [0], [0], [0.0]
    for i in range(len(sample)):
        for j in range(i, len(sample)):
            distance = sample[j] - sample[i]
            if distance > centre:
                break
            value = gram[unit[i], unit[j], centre - distance]
            rows.append(i)
            columns.append(j)
            values.append(value)
            if j != i:
                rows.append(j)
                columns.append(i)
                values.append(value)
    return np.array(rows[1:]), np.array(columns[1:]), np.array(values[1:])


@compiled
def subtract(signal, templates, unit, sample, amplitude):
    """Take sum amplitude * template away from signal (n_channels, n_samples), in place; templates (n_units, n_channels,
    n_times). With negative amplitudes it adds: the synthesis of sparse events."""
    for i in range(len(sample)):
        for m in range(signal.shape[0]):
            for k in range(templates.shape[2]):
                signal[m, sample[i] + k] -= amplitude[i] * templates[unit[i], m, k]


@compiled
def weighted_energy(signal, weights, unit, sample):
    """Energy (n,) of signal (n_channels, n_samples) in the window at each event, samples weighted by the event's unit, weights
    (n_units, n_times)."""
    n_times = weights.shape[1]
    energy, total = np.zeros(n_times, signal.dtype), np.zeros(len(sample))
    for i in range(len(sample)):
        energy[:] = 0
        for m in range(len(signal)):
            window = signal[m, sample[i] : sample[i] + n_times]
            for k in range(n_times):
                energy[k] += window[k] * window[k]
        for k in range(n_times):
            total[i] += energy[k] * weights[unit[i], k]
    return total
