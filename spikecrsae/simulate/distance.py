"""How far estimated templates are from the true ones: the paper's Eq. 29, and the start it draws at a given distance."""

from __future__ import annotations

import numpy as np

from spikecrsae.errors import UsageError
from spikecrsae.simulate.shapes import unit_norm


def best_correlations(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalised correlation of every pair of templates at its best lag, and that lag.

    first (n, n_channels, n_times), second (m, n_channels, other n_times) -> two arrays (n, m). The correlation is
    the one of largest absolute value over all lags, signed; second[j] moved later by the lag fits first[i] best.
    """
    n_lags = first.shape[2] + second.shape[2] - 1
    spectra = [np.fft.rfft(unit_norm(np.asarray(t, np.float64)), n_lags) for t in (first, second)]
    correlation = np.fft.irfft(np.einsum("ncf,mcf->nmf", spectra[0], spectra[1].conj()), n_lags)
    lag = np.abs(correlation).argmax(axis=-1)
    best = np.take_along_axis(correlation, lag[..., None], axis=-1)[..., 0]
    return best, np.where(lag < first.shape[2], lag, lag - n_lags)


def template_error_db(true: np.ndarray, estimate: np.ndarray) -> float:
    """Eq. 29: 10 log10 sqrt(1 - cos^2) of two templates of one shape; 0 is orthogonal, -inf is equal up to scale."""
    a, b = (np.asarray(t, np.float64).ravel() / np.linalg.norm(t) for t in (true, estimate))
    # The norm of what is left of b beside a is the sine, without the cancellation in 1 - cos^2.
    sine = np.linalg.norm(b - (a @ b) * a)
    return float(10 * np.log10(sine)) if sine > 0 else float("-inf")


def match_templates(true: np.ndarray, estimate: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best one-to-one match of estimated to true templates, each pair at its best lag.

    true (n_units, n_channels, n_times), estimate (n_estimated, n_channels, n_times of its own). Returns permutation,
    shifts and errors_db, each (n_units,): estimate[permutation[i]], moved later by shifts[i] samples, is compared
    to true[i] with Eq. 29. Where there are fewer estimates than units, a unit without one has permutation -1 and 0 dB.
    Raises UsageError where the numbers of channels differ.
    """
    from scipy.optimize import linear_sum_assignment

    if true.ndim != 3 or estimate.ndim != 3 or true.shape[1] != estimate.shape[1]:
        raise UsageError(
            f"templates {true.shape} and {estimate.shape} cannot be compared; both must be "
            "(n_units, n_channels, n_times) on the same channels."
        )
    correlation, lags = best_correlations(true, estimate)
    permutation, shifts, errors = np.full(len(true), -1), np.zeros(len(true), np.int64), np.zeros(len(true))
    cost = np.log10(np.maximum(1 - correlation**2, 1e-12))
    for i, j in zip(*linear_sum_assignment(cost), strict=True):
        permutation[i], shifts[i] = j, lags[i, j]
        errors[i] = _error_at_lag(true[i], estimate[j], int(lags[i, j]))
    return permutation, shifts, errors


def perturb_templates(templates: np.ndarray, error_db: float, rng: np.random.Generator) -> np.ndarray:
    """Templates with Gaussian noise added so that Eq. 29 gives exactly error_db for each, norms kept.

    templates (n_units, n_channels, n_times). The part of the noise along a template only changes its scale and is
    left out. Raises UsageError for an error that is not negative.
    """
    if not error_db < 0:
        raise UsageError(f"a template error of {error_db} dB is impossible; Eq. 29 gives values below 0, such as -3.5.")
    norms = np.linalg.norm(templates, axis=(1, 2), keepdims=True)
    unit = templates / norms
    noise = rng.standard_normal(templates.shape)
    noise = unit_norm(noise - (noise * unit).sum(axis=(1, 2), keepdims=True) * unit)
    sine = 10 ** (error_db / 10)
    return norms * (np.sqrt(1 - sine**2) * unit + sine * noise)


def _error_at_lag(true: np.ndarray, estimate: np.ndarray, lag: int) -> float:
    """Eq. 29 of (n_channels, n_times) templates, estimate moved later by lag, both padded with zeros so nothing is cut."""
    start = min(0, lag)
    length = max(true.shape[1], lag + estimate.shape[1]) - start
    padded = np.zeros((2, true.shape[0], length))
    padded[0, :, -start : -start + true.shape[1]] = true
    padded[1, :, lag - start : lag - start + estimate.shape[1]] = estimate
    return template_error_db(padded[0], padded[1])
