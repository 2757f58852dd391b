"""Test whether two sets of waveforms are two neurons: one mode or two along the line between their means."""

from __future__ import annotations

import numpy as np
from scipy import special

#: Level of the test for two modes.
MODE_LEVEL = 1e-2
#: Beyond gain and jitter, waveforms of one neuron vary along any one direction by at most this part of its norm. Where two
#: sets vary more, with what noise adds, one mode is not enough to call them one neuron.
SHAPE_VARIATION = 0.1
#: A variance counts as larger than expected above this factor.
VARIANCE_MARGIN = 1.3
#: Quartiles of the standard normal distribution are so far apart.
_QUARTILES_APART = 2 * special.ndtri(0.75)


def nuisance_directions(template: np.ndarray) -> np.ndarray:
    """Orthonormal directions (n, n_times * n_channels) in which spikes of one neuron vary without being another's: the first
    and second time derivative of its template (n_channels, n_times), jitter below one sample, and the template (gain)."""
    slope = np.gradient(template, axis=1)
    directions = np.stack([d.T.ravel() for d in (template, slope, np.gradient(slope, axis=1))])
    return np.linalg.qr(directions.T)[0].T


def allowed_variance(template: np.ndarray) -> float:
    """Variance along a line, besides gain and jitter, that spikes of one neuron may show."""
    return VARIANCE_MARGIN * (1 + SHAPE_VARIATION**2 * float((np.asarray(template, np.float64) ** 2).sum()))


def without(flat: np.ndarray, directions: np.ndarray) -> np.ndarray:
    return flat - (flat @ directions.T) @ directions


def are_two(first: np.ndarray, second: np.ndarray, seed: int) -> tuple[bool, float, float]:
    """Whether two sets of whitened windows (n, n_features) have two modes along the difference of their means.

    Each half of the sets is projected on the difference of the other half's means, so that noise alone shows no gap. Returns
    the answer, the probability of such a gap with one mode (1 where the means are no deviation of the sets apart), and the
    variance of both together along the line (1 for noise alone).
    """
    half_of = [np.random.default_rng(seed).permutation(len(x)) % 2 for x in (first, second)]
    # the mean of each half of each set (2, n_features)
    means = [
        np.stack([h == 0, h == 1]) / np.bincount(h, minlength=2)[:, None] @ x
        for x, h in zip((first, second), half_of, strict=True)
    ]
    lines, middles = means[1] - means[0], 0.5 * (means[0] + means[1])
    lengths = np.linalg.norm(lines, axis=1)
    if not lengths.all():
        return False, 1.0, 0.0
    lines = lines / lengths[:, None]
    projected = [x @ lines.T - (middles * lines).sum(axis=1) for x in (first, second)]
    scores = [p[np.arange(len(p)), 1 - h] for p, h in zip(projected, half_of, strict=True)]
    # a few windows of the one set among those of the other widen no quartile
    spread = np.sqrt(0.5 * sum(robust_deviation(score) ** 2 for score in scores))
    distance = float((scores[1].mean() - scores[0].mean()) / max(spread, 1e-9))
    together = 0.5 * (scores[0].var() + scores[1].var()) + 0.25 * (scores[1].mean() - scores[0].mean()) ** 2
    p = deepest_valley(scores[0], scores[1], spread)[0] if distance >= 1.0 else 1.0
    return p < MODE_LEVEL, p, float(together)


def robust_deviation(values: np.ndarray) -> float:
    """Standard deviation of the normal distribution with the same interquartile range."""
    ordered, places = np.sort(values), np.array([0.25, 0.75]) * (len(values) - 1)
    below = places.astype(np.int64)
    low, high = ordered[below] + (places - below) * (ordered[np.minimum(below + 1, len(ordered) - 1)] - ordered[below])
    return float(high - low) / _QUARTILES_APART


def deepest_valley(first: np.ndarray, second: np.ndarray, spread: float) -> tuple[float, float]:
    """Return the probability that numbers of one mode show as deep a valley between the medians of two sets of them, and where
    the valley is deepest.

    Windows as wide as `spread` slide over the stretch from one median to the other. With one mode, no window may hold fewer
    numbers than the smaller of the fullest windows on its two sides; the deepest is tested (binomial) and its probability
    multiplied by the number of windows (Bonferroni).
    """
    low, high = sorted((np.median(first), np.median(second)))
    width = spread
    starts = np.arange(low - width / 2, high, width / 2)
    if len(starts) < 3:
        return 1.0, float(0.5 * (low + high))
    pooled = np.sort(np.concatenate([first, second]))
    counts = np.searchsorted(pooled, starts + width) - np.searchsorted(pooled, starts)
    left, right = np.maximum.accumulate(counts), np.maximum.accumulate(counts[::-1])[::-1]
    rim = np.minimum(left, right)
    p_values = special.bdtr(counts, counts + rim, 0.5)
    deepest = p_values.argmin()
    return float(min(1.0, len(starts) * p_values[deepest])), float(starts[deepest] + width / 2)
