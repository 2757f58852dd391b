"""First templates: detection, aligned windows, principal components, clusters (k-means, or isosplit without a number)."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh

from spikecrsae.config import InitialiseConfig
from spikecrsae.csc.operator import energy_in_span
from spikecrsae.system.compiled import compiled
from spikecrsae.system.distributions import binom_cdf, chi2_isf, norm_ppf, norm_sf
from spikecrsae.system.threads import in_threads
from spikecrsae.units import ms_to_samples

#: Level of the test for two modes.
MODE_LEVEL = 1e-2
#: Beyond gain and jitter, waveforms of one neuron vary along any one direction by at most this part of its norm. Where two
#: sets vary more, with what noise adds, one mode is not enough to call them one neuron.
SHAPE_VARIATION = 0.1
#: A variance counts as larger than expected above this factor.
VARIANCE_MARGIN = 1.3
#: Among fewer windows than this no valley can be told from chance; there, two clusters are those that vary FEW_MARGIN times
#: more along a line than one neuron may.
FEW, FEW_MARGIN = 100, 3.0
#: So many of the most distant windows are each asked whether those about them are another neuron's.
GROUPS_TRIED = 50
#: 2-means has settled after so many rounds, or all but.
TWO_MEANS_ROUNDS = 30
#: Quartiles of the standard normal distribution are so far apart.
_QUARTILES_APART = 2 * norm_ppf(0.75)
#: A cluster with fewer events than this has no mean worth a test.
SMALLEST_CLUSTER = 6


@dataclass(frozen=True)
class TemplateWindow:
    """n_times samples of which `before` lie before the aligned peak."""

    n_times: int
    before: int

    @classmethod
    def from_config(cls, config: InitialiseConfig, sampling_frequency: float) -> TemplateWindow:
        n_times = max(3, ms_to_samples(config.template_ms, sampling_frequency))
        return cls(n_times, min(ms_to_samples(config.before_ms, sampling_frequency), n_times - 1))


@dataclass(frozen=True)
class SpikeSubspace:
    """The span of a few temporal shapes (n_shapes, n_samples, orthonormal) in which spikes on any channel lie.

    The energy of the whitened signal in that span is the detection statistic. In noise alone it is chi-square with
    n_shapes * n_channels degrees of freedom; a spike of whitened norm r adds r^2, however it is spread over the channels.
    """

    shapes: np.ndarray

    @classmethod
    def learn(cls, whitened: np.ndarray, threshold: float, length: int, dead_time: int, n_shapes: int = 3) -> SpikeSubspace:
        """From the peak channels of events above `threshold`: their leading singular vectors, every event counting alike.

        Without enough events the shapes are the low Fourier modes of the window under a Hann taper.
        """
        parts = in_threads(lambda part: np.abs(whitened[part]).max(axis=1), len(whitened), 1 << 18)
        peaks = _peaks(np.concatenate(parts), threshold, dead_time)
        peaks = peaks[(peaks >= length) & (peaks < len(whitened) - length)]
        if len(peaks) < 10 * n_shapes:
            time = np.arange(length) - (length - 1) / 2
            modes = np.stack(
                [np.hanning(length + 2)[1:-1] * np.cos(np.pi * (j + 1) * time / length) for j in range(n_shapes)]
            )
            return cls(np.linalg.qr(modes.T)[0].T)
        channel = np.abs(whitened[peaks]).argmax(axis=1)
        snippets = whitened[peaks[:, None] + np.arange(length) - length // 2, channel[:, None]].astype(np.float64)
        snippets /= np.linalg.norm(snippets, axis=1, keepdims=True)
        return cls(np.linalg.svd(snippets, full_matrices=False)[2][:n_shapes])

    def statistic(self, whitened: np.ndarray) -> np.ndarray:
        """Energy (n_samples,) of whitened (n_samples, n_channels) in the span, each sample the window's centre."""
        return np.concatenate(
            list(energy_in_span(np.ascontiguousarray(whitened.T, np.float32), self.shapes.astype(np.float32)))
        )

    def detect(self, whitened: np.ndarray, threshold: float, dead_time: int) -> np.ndarray:
        """Samples (ascending int64) where the statistic peaks above the level that noise exceeds as rarely, per sample, as a
        Gaussian exceeds `threshold` standard deviations either way."""
        level = chi2_isf(2 * norm_sf(threshold), len(self.shapes) * whitened.shape[1])
        return _peaks(self.statistic(whitened), level, dead_time)


@compiled
def _peaks(height: np.ndarray, threshold: float, dead_time: int) -> np.ndarray:
    """Samples above threshold that are the largest within dead_time each way; the first of equal neighbours."""
    peaks = [0]
    sample = 0
    while sample < len(height):
        value = height[sample]
        largest = value > threshold
        if largest:
            for other in range(max(0, sample - dead_time), min(len(height), sample + dead_time + 1)):
                if height[other] > value:
                    largest = False
                    break
        if largest:
            peaks.append(sample)
            sample += dead_time
        sample += 1
    return np.array(peaks[1:], dtype=np.int64)


def windows_at(signal: np.ndarray, starts: np.ndarray, n_times: int) -> np.ndarray:
    """Windows (n, n_times, n_channels) of signal (n_samples, n_channels) that begin at `starts`, all inside the signal."""
    starts = np.asarray(starts, np.int64)
    if not len(starts):
        return np.zeros((0, n_times, signal.shape[1]), signal.dtype)
    if starts.min() < 0 or starts.max() > len(signal) - n_times:
        raise IndexError(f"windows of {n_times} samples from {starts.min()} to {starts.max()} in a signal of {len(signal)}")
    # a window of a view that holds all of them is copied at once, where an index would be looked up for every sample
    along, across = signal.strides
    every = np.lib.stride_tricks.as_strided(
        signal, (len(signal) - n_times + 1, n_times, signal.shape[1]), (along, along, across)
    )
    return np.ascontiguousarray(every[starts])


def principal_components(windows: np.ndarray, n_components: int, seed: int) -> np.ndarray:
    """Features (n, n_components) of windows (n, n_times, n_channels): their leading principal components, in float64: those of
    little variance beside large ones would be off by a hundredth in float32, differently on every machine."""
    flat = windows.reshape(len(windows), -1).astype(np.float64)
    n_components = min(n_components, *flat.shape)
    if flat.shape[1] > 1000:
        from sklearn.decomposition import PCA

        return PCA(n_components, svd_solver="randomized", random_state=seed).fit_transform(flat)
    # as long as a window has few numbers, the eigenvectors of the covariance are the cheap way
    centred = flat - flat.mean(axis=0)
    width = flat.shape[1]
    vectors = eigh(centred.T @ centred, subset_by_index=[width - n_components, width - 1])[1][:, ::-1]
    # the sign is free: the largest weight is positive
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(n_components)])
    return centred @ vectors


def cluster(features: np.ndarray, n_units: int | None, seed: int) -> np.ndarray:
    """Labels (n,) from 0. n_units given: k-means. Else isosplit, which splits where a projection has two modes
    (Magland and Barnett 2015) and needs no number."""
    if n_units is not None:
        from sklearn.cluster import KMeans

        return KMeans(min(n_units, len(features)), n_init=10 if n_units > 2 else 3, random_state=seed).fit_predict(features)
    from isosplit6 import isosplit6

    # isosplit does not end where points coincide
    _, first, inverse = np.unique(features, axis=0, return_index=True, return_inverse=True)
    kept = np.sort(first)
    with _standard_output_to_error():
        labels = isosplit6(np.ascontiguousarray(features[kept], dtype=np.float64))
    return np.unique(labels[np.searchsorted(kept, first)][inverse.ravel()], return_inverse=True)[1]


@contextlib.contextmanager
def _standard_output_to_error() -> Iterator[None]:
    """What a compiled library prints goes to standard error: standard output belongs to the result."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


def divide(
    windows: np.ndarray, smallest: int, seed: int, n_components: int = 10, allowed: float | None = None
) -> np.ndarray:
    """Labels (n,) of whitened windows (n, n_times, n_channels) without a given number.

    isosplit on principal components, again within every part (its own components show what the others' variance hid), then
    halves by k-means where these have two modes, which sees gaps that isosplit does not, or, among few windows, vary far
    more than one neuron's may (`allowed`, a variance; by default that of the part's mean waveform).
    """
    labels = np.zeros(len(windows), np.int64)
    flat = windows.reshape(len(windows), -1)
    open_parts = [0]
    while open_parts:
        part = open_parts.pop()
        members = np.flatnonzero(labels == part)
        if len(members) < 2 * smallest:
            continue
        mean = windows[members].mean(axis=0).T
        # within a part jitter hides what is smaller; among all events it is small
        inside = without(flat[members], nuisance_directions(mean)[1:]) if part else flat[members]
        found = cluster(_features(inside, n_components, seed), None, seed)
        if found.max() == 0:
            found = _halved(flat[members], mean, smallest, n_components, seed, allowed)
        if found.max() > 0:
            first = labels.max() + 1
            labels[members] = first + found
            open_parts += list(range(first, first + found.max() + 1))
    return np.unique(labels, return_inverse=True)[1]


def _halved(
    flat: np.ndarray, mean: np.ndarray, smallest: int, n_components: int, seed: int, allowed: float | None
) -> np.ndarray:
    """Labels 0 and 1 of the two halves (k-means) of a part if they have two modes, or among few windows vary far more than one
    neuron's may; zeros otherwise. mean (n_channels, n_times): of the part."""
    one = np.zeros(len(flat), np.int64)
    features = _features(flat, n_components, seed)
    halves = _halves(features)
    if min(np.bincount(halves, minlength=2)) >= smallest and are_two(flat[halves == 0], flat[halves == 1], seed)[0]:
        return halves
    # few among many are no half
    for few in _groups_apart(features, smallest, seed):
        if are_two(flat[few == 0], flat[few == 1], seed)[0]:
            return few
    if min(np.bincount(halves, minlength=2)) < smallest:
        return one
    if len(flat) >= FEW:
        return one
    steady = without(flat, nuisance_directions(mean))
    variance = are_two(steady[halves == 0], steady[halves == 1], seed)[2]
    return halves if variance > FEW_MARGIN * (allowed_variance(mean) if allowed is None else allowed) else one


def _groups_apart(features: np.ndarray, smallest: int, seed: int) -> Iterator[np.ndarray]:
    """Labels 0 and 1 of features (n, n_components) where those about one of the most distant (1) seem to be a mode of their
    own: 2-means from the mean of all and that one. k-means from elsewhere does not find a hundredth of the whole."""
    distance = ((features - features.mean(axis=0)) ** 2).sum(axis=1)
    untried = np.argsort(distance)[::-1][:GROUPS_TRIED]
    while len(untried):
        labels = _two_means(features, features.mean(axis=0), features[untried[0]])
        if (
            min(np.bincount(labels, minlength=2)) >= smallest
            and are_two(features[labels == 0], features[labels == 1], seed)[0]
        ):
            yield labels
        untried = untried[1:][labels[untried[1:]] == 0]


def _halves(features: np.ndarray) -> np.ndarray:
    """Labels 0 and 1 of features (n, n_components), principal components: the best 2-means of those from either side of the
    median along one of the first three."""
    best, least = np.zeros(len(features), np.int64), np.inf
    for values in features.T[:3]:
        above = values > np.median(values)
        if not above.any():
            continue
        labels = _two_means(features, features[~above].mean(axis=0), features[above].mean(axis=0))
        inertia = sum(
            ((part - part.mean(axis=0)) ** 2).sum() for part in (features[labels == 0], features[labels == 1]) if len(part)
        )
        if inertia < least:
            best, least = labels, inertia
    return best


def _two_means(features: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Labels 0 and 1 of features (n, n_components) by 2-means from these centres (Lloyd)."""
    second_is = np.zeros(len(features), bool)
    total = features.sum(axis=0)
    for _ in range(TWO_MEANS_ROUNDS):
        moved = (features - 0.5 * (first + second)) @ (second - first) > 0
        n = int(moved.sum())
        if n in (0, len(moved)) or np.array_equal(moved, second_is):
            break
        second_is, sum_of_second = moved, moved.astype(features.dtype) @ features
        first, second = (total - sum_of_second) / (len(moved) - n), sum_of_second / n
    return second_is.astype(np.int64)


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


def _features(windows: np.ndarray, n_components: int, seed: int) -> np.ndarray:
    """Principal components; few events do not fill many dimensions, no cluster would show."""
    return principal_components(windows, int(np.clip(np.sqrt(len(windows)) / 2, 2, n_components)), seed)


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
    spread = np.sqrt(0.5 * sum(_robust_deviation(score) ** 2 for score in scores))
    distance = float((scores[1].mean() - scores[0].mean()) / max(spread, 1e-9))
    together = 0.5 * (scores[0].var() + scores[1].var()) + 0.25 * (scores[1].mean() - scores[0].mean()) ** 2
    p = valley_p_value(scores[0], scores[1], spread) if distance >= 1.0 else 1.0
    return p < MODE_LEVEL, p, float(together)


def _robust_deviation(values: np.ndarray) -> float:
    """Standard deviation of the normal distribution with the same interquartile range."""
    low, high = np.percentile(values, [25, 75])
    return float(high - low) / _QUARTILES_APART


def valley_p_value(first: np.ndarray, second: np.ndarray, spread: float) -> float:
    """Probability that numbers of one mode show as deep a valley between the medians of two sets of them.

    Windows as wide as `spread` slide over the stretch from one median to the other. With one mode, no window may hold fewer
    numbers than the smaller of the fullest windows on its two sides; the deepest is tested (binomial) and its probability
    multiplied by the number of windows (Bonferroni).
    """
    low, high = sorted((np.median(first), np.median(second)))
    width = spread
    starts = np.arange(low - width / 2, high, width / 2)
    if len(starts) < 3:
        return 1.0
    pooled = np.sort(np.concatenate([first, second]))
    counts = np.searchsorted(pooled, starts + width) - np.searchsorted(pooled, starts)
    left, right = np.maximum.accumulate(counts), np.maximum.accumulate(counts[::-1])[::-1]
    rim = np.minimum(left, right)
    return float(min(1.0, len(starts) * binom_cdf(counts, counts + rim, 0.5).min()))


def templates_from_labels(windows: np.ndarray, labels: np.ndarray, smallest: int) -> np.ndarray:
    """Mean windows of the clusters with at least `smallest` members, (n_units, n_channels, n_times)."""
    kept = [c for c in np.unique(labels) if np.sum(labels == c) >= smallest]
    if not kept:
        return np.zeros((0, windows.shape[2], windows.shape[1]))
    return np.stack([windows[labels == c].mean(axis=0).T for c in kept]).astype(np.float64)


def first_templates(
    whitened: np.ndarray,
    subspace: SpikeSubspace,
    window: TemplateWindow,
    config: InitialiseConfig,
    dead_time: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Events, and templates (n_units, n_channels, n_times) of them, of whitened (n_samples, n_channels).

    Detection, windows, principal components, clusters. Events are first samples (int64) of windows; the third result says
    which events each template is the mean of. At most config.max_events events, drawn at random, are clustered.
    """
    starts = subspace.detect(whitened, config.detection_threshold, dead_time) - window.before
    starts = starts[(starts >= 0) & (starts <= len(whitened) - window.n_times)]
    events = starts
    if len(starts) > config.max_events:
        starts = np.sort(np.random.default_rng(seed).choice(starts, config.max_events, replace=False))
    if len(starts) < 2:
        return events, np.zeros((0, whitened.shape[1], window.n_times)), []
    windows = windows_at(whitened, starts, window.n_times)
    if config.units is None:
        labels = divide(windows, SMALLEST_CLUSTER, seed, config.n_components)
    else:
        labels = cluster(_features(windows.reshape(len(windows), -1), config.n_components, seed), config.units, seed)
    smallest = SMALLEST_CLUSTER if config.units is None else 1
    members = [starts[labels == c] for c in np.unique(labels) if np.sum(labels == c) >= smallest]
    return events, templates_from_labels(windows, labels, smallest), members
