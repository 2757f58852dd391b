"""Split units whose spikes are a mixture of two neurons without a valley between them, which only their times tell apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.linalg import eigh, solve_triangular

from spikecrsae.curate.candidates import Candidates
from spikecrsae.curate.coincidences import INDEPENDENT_LEVEL, LEAST_DISTANCE, Lags, contaminated, independence_p_value
from spikecrsae.curate.evidence import parameter_cost
from spikecrsae.detect.bimodality import nuisance_directions, without
from spikecrsae.detect.clustering import SMALLEST_CLUSTER

#: Waveforms that a mixture is fitted to at most, and at least.
MOST_FITTED, LEAST_FITTED = 1000, 60
#: Principal components beside the amplitude.
N_COMPONENTS = 3
#: Parts of the waveforms, by their value along one feature, that a fit begins with; rounds of a fit at most; the gain in log
#: likelihood per waveform at which it ends.
_STARTS, _ROUNDS, _SETTLED = (0.15, 0.85), 40, 1e-4


def split_mixtures(state: Candidates, cleaned: list[np.ndarray], satellites: np.ndarray) -> None:
    """Split the units whose cleaned waveforms are better described by two normal distributions than by one, whose parts pay
    for a template each, and fire independently of each other. The larger part stays the unit.

    A neuron whose amplitudes vary is described better by two distributions too, but its refractory period shows that they
    are one neuron. satellites (n_units,) bool: these fire with stronger units, are no neurons and stay whole.
    """
    n_times, lags = state.window.n_times, Lags.of(state.settings.burst, state.settings.refractory)
    templates, extra, parents = state.model.templates.astype(np.float64), [], []
    for unit, padded in enumerate(cleaned):
        if len(padded) < LEAST_FITTED or satellites[unit] or state.has_passed("mixture", unit):
            continue
        state.passes("mixture", unit)
        if not contaminated(np.sort(state.times(state.starts(unit))), lags):
            continue
        windows = padded[:, n_times // 2 : n_times // 2 + n_times]
        smaller = smaller_part(_features(windows, state.model.templates[unit]), state.settings.seed)
        if smaller.sum() < 2 * SMALLEST_CLUSTER:
            continue
        means = [windows[part].mean(axis=0).T.astype(np.float64) for part in (~smaller, smaller)]
        n, distance = int(smaller.sum()), float(np.linalg.norm(means[1] - means[0]))
        gain, cost = 0.5 * n * distance**2, parameter_cost(means[1], n)
        if gain <= cost or distance < LEAST_DISTANCE:
            continue
        times = state.times(state.spikes.sample[state.looked_at(unit)])
        p = independence_p_value(np.sort(times[~smaller]), np.sort(times[smaller]), lags)
        if p < INDEPENDENT_LEVEL:
            templates[unit] = means[0]
            extra.append(means[1])
            parents.append(state.ids[unit])
            state.decide("split", [unit], p, INDEPENDENT_LEVEL, n=n, why="fire independently")
    if extra:
        state.model = replace(state.model, templates=templates)
        state.parent |= dict(zip(state.add(extra), parents, strict=True))


def _features(windows: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Amplitude and principal components (n, 1 + N_COMPONENTS) of waveforms (n, n_times, n_channels), without jitter."""
    flat = windows.reshape(len(windows), -1).astype(np.float64)
    nuisance = nuisance_directions(template)
    rest = without(flat, nuisance)
    rest -= rest.mean(axis=0)
    width = rest.shape[1]
    components = eigh(rest.T @ rest, subset_by_index=[width - N_COMPONENTS, width - 1], check_finite=False)[1]
    return np.column_stack([flat @ nuisance[0], rest @ components])


def smaller_part(features: np.ndarray, seed: int) -> np.ndarray:
    """Which of features (n, n_features) belong to the smaller of two normal distributions (bool, n); none where one describes
    them better by the Bayesian information criterion."""
    n_features = features.shape[1]
    chosen = np.random.default_rng(seed).permutation(len(features))[:MOST_FITTED]
    fitted = features[chosen]
    # a tenth of the noise: parts that coincide have no variance
    ridge = 0.01 * np.eye(n_features)
    one = _log_density(fitted, fitted.mean(axis=0), np.cov(fitted.T) + ridge).sum()
    best, responsible = -np.inf, None
    for feature in fitted.T:
        for share in _STARTS:
            found, parameters = _fit(fitted, feature > np.quantile(feature, share), ridge)
            if found > best:
                best, responsible = found, parameters
    n_more = 1 + n_features + n_features * (n_features + 1) // 2
    if responsible is None or best - one < 0.5 * n_more * np.log(len(fitted)):
        return np.zeros(len(features), bool)
    scores = [_log_density(features, mean, covariance) + np.log(weight) for weight, mean, covariance in responsible]
    second = scores[1] > scores[0]
    return second if 2 * second.sum() <= len(second) else ~second


def _fit(
    features: np.ndarray, second: np.ndarray, ridge: np.ndarray
) -> tuple[float, list[tuple[float, np.ndarray, np.ndarray]] | None]:
    """Log likelihood and (weight, mean, covariance) of two normal distributions by EM, begun with a division; None where one of
    them loses its members."""
    n, n_features = features.shape
    share, last, parts = np.where(second, 0.95, 0.05), -np.inf, None
    for _ in range(_ROUNDS):
        parts = []
        for weight in (1 - share, share):
            total = weight.sum()
            if total < n_features + 3:
                return -np.inf, None
            mean = weight @ features / total
            away = features - mean
            parts.append((total / n, mean, (away * weight[:, None]).T @ away / total + ridge))
        scores = [_log_density(features, mean, covariance) + np.log(weight) for weight, mean, covariance in parts]
        both = np.logaddexp(*scores)
        share = np.exp(scores[1] - both)
        if both.sum() - last < _SETTLED * n:
            break
        last = both.sum()
    return float(both.sum()), parts


def _log_density(features: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Log density (n,) of a normal distribution."""
    root = np.linalg.cholesky(covariance)
    away = solve_triangular(root, (features - mean).T, lower=True, check_finite=False)
    return -0.5 * (away**2).sum(axis=0) - np.log(np.diag(root)).sum() - 0.5 * len(mean) * np.log(2 * np.pi)
