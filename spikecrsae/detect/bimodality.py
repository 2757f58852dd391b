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
#: Parts into which windows are divided.
FOLDS = 10
#: Two sets are two where a mode of the smaller one's own gains so much log likelihood, or where they vary more than one neuron's may
#: and it gains so much.
SURE_GAIN, WIDE_GAIN = 7.0, 3.0
#: Of two sets the smaller is far smaller where it is less than this part of both.
_FEW_PART = 0.2
#: Numbers are counted in bins of _BIN, and no further than _FAR beyond the sets' medians; medians closer than _LEAST_APART noise levels
#: are one mode's. Uniform distributions have so many sizes, up to all that the numbers reach.
_BIN, _FAR, _LEAST_APART = 0.25, 6.0, 2.0
_N_SIZES = (20, 80)
#: Sets further apart than this, several times what the largest spikes outside cells are, are counted on a coarser scale, since the work
#: grows with the distance.
_MOST_APART = 500.0
#: One mode of sizes that end abruptly may lie as far as this part of the larger ones.
_LAST_MODE = 0.95
_EM_ROUNDS, _SETTLED = 300, 1e-3
#: Quartiles of the standard normal distribution are so far apart.
_QUARTILES_APART = 2 * special.ndtri(0.75)


def nuisance_directions(template: np.ndarray, basis: np.ndarray | None = None) -> np.ndarray:
    """Orthonormal directions (n, n_times * n_channels) in which spikes of one neuron vary without being another's: the first
    and second time derivative of its template (n_channels, n_times), jitter below one sample, and the template (gain). basis
    (n_times, n_shapes), orthonormal: of windows that are given by their coefficients, the directions (n, n_shapes * n_channels)."""
    slope = np.gradient(template, axis=1)
    shapes = [d.T if basis is None else basis.T @ d.T for d in (template, slope, np.gradient(slope, axis=1))]
    directions = np.stack([shape.ravel() for shape in shapes])
    return np.linalg.qr(directions.T)[0].T


def allowed_variance(template: np.ndarray) -> float:
    """Variance along a line, besides gain and jitter, that spikes of one neuron may show."""
    return VARIANCE_MARGIN * (1 + SHAPE_VARIATION**2 * float((np.asarray(template, np.float64) ** 2).sum()))


def without(flat: np.ndarray, directions: np.ndarray) -> np.ndarray:
    return flat - (flat @ directions.T) @ directions


def are_two(
    first: np.ndarray, second: np.ndarray, seed: int, allowed: float | None = None, larger: int | None = None
) -> tuple[bool, float, float]:
    """Whether two sets of whitened windows (n, n_features) have two modes along the difference of their means.

    Each of FOLDS parts of the sets is projected on the difference of the others' means, so that noise alone shows no gap. Two modes
    show by a valley (`deepest_valley`), or by what a mode of the smaller set's own explains better (`two_mode_gain`): SURE_GAIN, or
    WIDE_GAIN where the windows vary more than one neuron's may (`allowed`, see allowed_variance). Returns the answer, the probability
    with one mode (1 where the means are no deviation of the sets apart), and the variance of both together along the line (1 for
    noise alone).
    """
    folds = [np.random.default_rng(seed).permutation(len(x)) % FOLDS for x in (first, second)]
    # the mean of each set without each part (FOLDS, n_features)
    means = [_without_part(x, fold) for x, fold in zip((first, second), folds, strict=True)]
    lines, middles = means[1] - means[0], 0.5 * (means[0] + means[1])
    lengths = np.linalg.norm(lines, axis=1)
    if not lengths.all():
        return False, 1.0, 0.0
    lines = lines / lengths[:, None]
    offsets = (middles * lines).sum(axis=1)
    scores = [np.einsum("ij,ij->i", x, lines[fold]) - offsets[fold] for x, fold in zip((first, second), folds, strict=True)]
    # a few windows of the one set among those of the other widen no quartile
    spread = np.sqrt(0.5 * sum(robust_deviation(score) ** 2 for score in scores))
    distance = float((scores[1].mean() - scores[0].mean()) / max(spread, 1e-9))
    together = float(0.5 * (scores[0].var() + scores[1].var()) + 0.25 * (scores[1].mean() - scores[0].mean()) ** 2)
    if distance < 1.0:
        return False, 1.0, together
    p = deepest_valley(scores[0], scores[1], spread)[0]
    if p < MODE_LEVEL:
        return True, p, together
    gain = two_mode_gain(scores[0], scores[1], rising=larger is not None and larger == int(len(second) < len(first)))
    wide = allowed is not None and together > allowed
    return gain > (WIDE_GAIN if wide else SURE_GAIN), min(p, float(np.exp(-gain))), together


def larger_of(first: np.ndarray, second: np.ndarray) -> int:
    """Which of two sets of whitened windows (n, n_features) has the larger mean waveform, 0 or 1."""
    return int(np.linalg.norm(second.mean(axis=0)) > np.linalg.norm(first.mean(axis=0)))


def _without_part(x: np.ndarray, fold: np.ndarray) -> np.ndarray:
    """Means (FOLDS, n_features) of x (n, n_features) without each of its parts."""
    inside = np.arange(FOLDS)[:, None] == fold
    return (x.sum(axis=0) - inside @ x) / np.maximum(len(x) - inside.sum(axis=1), 1)[:, None]


def two_mode_gain(first: np.ndarray, second: np.ndarray, rising: bool = False) -> float:
    """Gain in log likelihood of two sets of numbers with noise of variance 1 by a mode of the smaller set's own.

    Without it, what lies under the noise has one mode and any shape: a mixture of uniform distributions that all begin at the mode
    (Khintchine), fitted by EM (non-parametric maximum likelihood). The mode is where the larger set is, or anywhere between the two
    where they are of similar size. With it, a normal distribution about the smaller set's median comes on top. Numbers of one mode
    gain 1 on average and hardly ever 4, whatever their distribution.

    rising: the smaller set is that of the larger waveforms. A neuron's spikes shrink in bursts, by all there is, so that towards
    smaller ones any shape may be its own; larger than they usually are they come by chance only, ever less often: beyond the mode
    lie normal distributions about it and densities that fall in a straight line, of all sizes (their mixtures have no shelf).
    """
    small, large = sorted((first, second), key=len)
    sign = 1.0 if np.median(small) > np.median(large) else -1.0
    near, far = sign * np.median(large), sign * np.median(small)
    if far - near < _LEAST_APART:
        return 0.0
    if (scale := _MOST_APART / (far - near)) < 1:
        small, large, near, far = small * scale, large * scale, near * scale, far * scale
    values = sign * np.concatenate([small, large])
    share, reach = len(small) / len(values), far - near + 2 * _FAR
    sizes = np.linspace(0, reach, round(np.clip(reach, *_N_SIZES)) + 1)[1:]
    # as far as any distribution below reaches; what is further than _FAR beyond the medians is counted together
    edges = np.arange(near - _FAR - reach, far + _FAR + reach, _BIN)
    centres = 0.5 * (edges[1:] + edges[:-1])
    inside = np.flatnonzero((centres > near - _FAR) & (centres < far + _FAR))
    bins = np.r_[0, inside, inside[-1] + 1]
    # collisions are anywhere: at the edge they hide a mode rather than make one
    limits = edges[[0, -1]] if rising else centres[inside[[0, -1]]]
    counts = np.add.reduceat(np.histogram(np.clip(values, *limits), edges)[0], bins).astype(np.float64)
    deviation = max(1.0, robust_deviation(small))
    own = np.add.reduceat(_normal((centres - far) / deviation) / deviation, bins)
    outside = np.zeros((2, len(counts)))
    outside[[0, 1], [0, -1]] = 1 / _BIN
    modes = [near] if share < _FEW_PART and not rising else list(np.linspace(near, far, 5))
    if rising:
        modes.append(min(float(np.quantile(sign * small, _LAST_MODE)), far + _FAR))
    seen, best, gain = counts > 0, -np.inf, 0.0
    for mode in modes:
        away = centres - mode
        beyond = [_half_normal(away, sizes), _falling(away, sizes)] if rising else [_uniform(away, sizes)]
        here = np.add.reduceat(np.vstack([_normal(away), _uniform(-away, sizes), *beyond]), bins, axis=1)
        here = np.vstack([here, outside])[:, seen]
        found, weights = _fitted(here, counts[seen], np.full(len(here), 1 / len(here)))
        if found > best:
            more = _fitted(np.vstack([here, own[seen]]), counts[seen], np.r_[weights * (1 - 0.5 * share), 0.5 * share])[0]
            best, gain = found, more - found
            if gain < WIDE_GAIN:  # one mode there is enough
                break
    return gain


def _normal(x: np.ndarray) -> np.ndarray:
    return np.asarray(np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi))


def _uniform(x: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Densities (n_sizes, n) at x (n,) of numbers that are uniform from 0 to each size, with noise of variance 1."""
    return np.asarray((special.ndtr(x) - special.ndtr(x - sizes[:, None])) / sizes[:, None])


def _half_normal(x: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Densities (n_sizes, n) at x (n,) of sizes of normal distributions of each standard deviation, with noise of variance 1."""
    wide = np.sqrt(1 + sizes[:, None] ** 2)
    return np.asarray(2 * _normal(x / wide) / wide * special.ndtr(x * sizes[:, None] / wide))


def _falling(x: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Densities (n_sizes, n) at x (n,) of numbers that fall in a straight line from 0 to each size, with noise of variance 1."""
    size = sizes[:, None]
    return 2 * (1 - x / size) * _uniform(x, sizes) + 2 * (_normal(x - size) - _normal(x)) / size**2


def _fitted(densities: np.ndarray, counts: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    """Log likelihood and weights (n,) of a mixture of `densities` (n, n_bins) for counts (n_bins,), by EM from these weights."""
    last, likelihood, n = -np.inf, -np.inf, counts.sum()
    for _ in range(_EM_ROUNDS):
        mixed = weights @ densities + np.finfo(np.float64).tiny
        likelihood = float(counts @ np.log(mixed))
        if likelihood - last < _SETTLED:
            break
        last = likelihood
        weights = weights * (densities @ (counts / mixed)) / n
    return likelihood, weights


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
