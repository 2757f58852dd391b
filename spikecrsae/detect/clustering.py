"""Cluster detected events into first templates: windows, principal components, clusters."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.linalg import eigh

from spikecrsae.config import InitialiseConfig
from spikecrsae.data.loudness import CLEAR, noise_of
from spikecrsae.detect.bimodality import (
    MODE_LEVEL,
    allowed_variance,
    are_two,
    deepest_valley,
    larger_of,
    nuisance_directions,
    robust_deviation,
    without,
)
from spikecrsae.detect.detection import SpikeSubspace
from spikecrsae.detect.drawing import basis_of, features_of, seldom_first
from spikecrsae.detect.windows import TemplateWindow, are_whole, windows_at

#: Among fewer windows than this no valley can be told from chance; there, two clusters are those that vary FEW_MARGIN times
#: more along a line than one neuron may.
FEW, FEW_MARGIN = 100, 3.0
#: So many of the most distant windows are each asked whether those about them are another neuron's.
GROUPS_TRIED = 50
#: 2-means has settled after so many rounds, or all but.
TWO_MEANS_ROUNDS = 30
#: A cluster with fewer events than this has no mean worth a test.
SMALLEST_CLUSTER = 6
#: Clusters without a number begin as so many parcels at most: two or three times the neurons that a tetrode tells apart. A
#: neuron of few spikes that shares its parcel is found when the parts are divided again; more parcels cost time only.
PARCELS = 30
#: A parcel has at least so many events on average, as in isosplit: the valley between parcels of fewer shows by chance alone.
EVENTS_PER_PARCEL = 10
#: Means of clusters are at least so many windows apart that are searched for a valley, where their spread allows it: those
#: about the means, and room for a valley between.
WINDOWS_APART = 4
#: Windows of more numbers (a tetrode's have some 250) are given by their coefficients of `shapes_in_time`.
MOST_NUMBERS = 500
#: So many shapes in time at least describe windows.
LEAST_SHAPES = 3
#: The borders of parcels are drawn anew anyway, so k-means need not settle.
PARCEL_ROUNDS = 20


def principal_components(windows: np.ndarray, n_components: int, seed: int) -> np.ndarray:
    """Features (n, n_components) of windows (n, n_times, n_channels): their leading principal components, in float64: those of
    little variance beside large ones would be off by a hundredth in float32, differently on every machine."""
    flat = windows.reshape(len(windows), -1).astype(np.float64)
    n_components = min(n_components, *flat.shape)
    if min(flat.shape) > 1000:
        from sklearn.decomposition import PCA

        return PCA(n_components, svd_solver="randomized", random_state=seed).fit_transform(flat)
    centred = flat - flat.mean(axis=0)
    # the eigenvectors of the smaller of the two matrices of products are the cheap way
    few = len(flat) < flat.shape[1]
    size = min(flat.shape)
    products = centred @ centred.T if few else centred.T @ centred
    vectors = eigh(products, subset_by_index=[size - n_components, size - 1])[1][:, ::-1]
    if few:
        vectors = centred.T @ vectors
        vectors /= np.maximum(np.linalg.norm(vectors, axis=0), 1e-300)
    # the sign is free: the largest weight is positive
    vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(n_components)])
    return centred @ vectors


def shapes_in_time(windows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Whitened windows (n, n_times, n_channels) by their coefficients (n, n_shapes, n_channels) of orthonormal shapes in time, and these
    (n_times, n_shapes); the windows themselves and None where they have no more than MOST_NUMBERS numbers each.

    The shapes hold what the windows hold beyond noise: the eigenvectors of their covariance in time, over all windows and channels,
    that exceed what noise alone reaches (Marchenko and Pastur 1967), at least LEAST_SHAPES. Its variance is 1, or less where most of
    the eigenvalues are.
    """
    n, n_times, n_channels = windows.shape
    if n_times * n_channels <= MOST_NUMBERS or not n:
        return windows, None
    rows = np.ascontiguousarray(windows.transpose(0, 2, 1)).reshape(-1, n_times)
    values, vectors = eigh((rows.T @ rows).astype(np.float64) / len(rows))
    edge = min(np.median(values), 1.0) * (1 + np.sqrt(n_times / len(rows))) ** 2
    shapes = vectors[:, values >= min(edge, values[-LEAST_SHAPES])].astype(windows.dtype)
    return np.matmul(shapes.T, windows), shapes


def cluster(features: np.ndarray, n_units: int | None, seed: int) -> np.ndarray:
    """Give features (n, n_features) labels (n,) from 0. n_units given: k-means. Else k-means draws more clusters than there
    are neurons, and neighbours without a valley between them are joined; this needs no number."""
    if n_units is not None:
        from sklearn.cluster import KMeans

        return KMeans(min(n_units, len(features)), n_init=10 if n_units > 2 else 3, random_state=seed).fit_predict(features)
    features = np.ascontiguousarray(features, np.float64)
    return _Clusters(features, _parcels(features, seed)).joined()


def _parcels(features: np.ndarray, seed: int) -> np.ndarray:
    """Give features (n, n_features) labels (n,) from 0 of many small clusters (k-means)."""
    n_parcels = min(PARCELS, len(features) // EVENTS_PER_PARCEL)
    # points that coincide can be the centre of one parcel only; a look at one feature is cheap and mostly enough
    if n_parcels > 1 and len(np.unique(features[:, 0])) < n_parcels:
        n_parcels = min(n_parcels, len(np.unique(features, axis=0)))
    if n_parcels < 2:
        return np.zeros(len(features), np.int64)
    with warnings.catch_warnings():
        # a parcel that loses all its points is not missed
        warnings.simplefilter("ignore", UserWarning)
        labels = kmeans2(features, n_parcels, iter=PARCEL_ROUNDS, minit="++", rng=np.random.default_rng(seed))[1]
    return np.unique(labels, return_inverse=True)[1]


class _Clusters:
    """Hold clusters of features (n, n_features) while they are compared, joined and cut anew, as isosplit does (Magland and
    Barnett 2015).

    Pairs are compared once, the closest means first. The features of a pair are projected on the line that best tells
    the two apart (Fisher's discriminant). Without a valley along it the two become one. With a valley they are cut there,
    because k-means puts its borders halfway between means, not where few points lie.
    """

    def __init__(self, features: np.ndarray, labels: np.ndarray) -> None:
        self.features = features
        self.members = [np.flatnonzero(labels == c) for c in range(labels.max(initial=0) + 1)]
        n, n_features = len(self.members), features.shape[1]
        self.means, self.scatters = np.zeros((n, n_features)), np.zeros((n, n_features, n_features))
        for c in range(n):
            self._measure(c)
        self.within = self.scatters.sum(axis=0) / max(1, len(features) - n)
        # points that coincide have no variance, and a matrix without it has no inverse
        self.within += (1e-9 * np.trace(self.within) / n_features + 1e-12) * np.eye(n_features)

    def joined(self) -> np.ndarray:
        """Join and cut until every pair has been compared; return labels (n,) from 0."""
        distances = np.stack([((self.means - mean) ** 2).sum(axis=1) for mean in self.means])
        np.fill_diagonal(distances, np.inf)
        while True:
            a, b = map(int, np.unravel_index(distances.argmin(), distances.shape))
            if not np.isfinite(distances[a, b]):
                break
            line, where = self._valley(a, b)
            if line is None:
                self.members[a] = np.sort(np.concatenate([self.members[a], self.members[b]]))
                self.members[b] = self.members[b][:0]
                distances[b] = distances[:, b] = np.inf
                # what has grown is compared with all others again
                fresh = np.array([len(m) > 0 for m in self.members])
                fresh[a] = False
                changed = [(a, fresh)]
            else:
                distances[a, b] = distances[b, a] = np.inf
                changed = [(c, np.isfinite(distances[c])) for c in (a, b)] if self._cut(a, b, line, where) else []
            for c, _ in changed:
                self._measure(c)
            for c, others in changed:
                distances[c, others] = distances[others, c] = ((self.means[others] - self.means[c]) ** 2).sum(axis=1)
        labels = np.zeros(len(self.features), np.int64)
        for c, members in enumerate(self.members):
            labels[members] = c
        return np.unique(labels, return_inverse=True)[1]

    def _measure(self, c: int) -> None:
        """Note the mean and the scatter of a cluster."""
        own = self.features[self.members[c]]
        self.means[c] = own.mean(axis=0)
        own = own - self.means[c]
        self.scatters[c] = own.T @ own

    def _valley(self, a: int, b: int) -> tuple[np.ndarray | None, float]:
        """Return the line (n_features,) along which two clusters are two modes, and where on it the valley lies; None where
        they are one."""
        first, second = self.members[a], self.members[b]
        if min(len(first), len(second)) < SMALLEST_CLUSTER:
            return None, 0.0
        # few events say little about a covariance: that of all parcels counts like as many events as make it invertible
        prior = self.features.shape[1] + 2
        covariance = (self.scatters[a] + self.scatters[b] + prior * self.within) / (len(first) + len(second) + prior)
        line = np.linalg.solve(covariance, self.means[b] - self.means[a])
        scores = self.features[first] @ line, self.features[second] @ line
        spread = np.sqrt(0.5 * sum(robust_deviation(score) ** 2 for score in scores))
        apart = scores[1].mean() - scores[0].mean()
        if spread <= 0:
            return (line, 0.5 * (scores[0].mean() + scores[1].mean())) if apart > 0 else (None, 0.0)
        if apart < spread:
            return None, 0.0
        # far apart, windows as wide as one set's spread would be many, and each would hold few of a small set
        p, where = deepest_valley(*scores, max(spread, apart / WINDOWS_APART))
        return (line if p < MODE_LEVEL else None), where

    def _cut(self, a: int, b: int, line: np.ndarray, where: float) -> bool:
        """Divide the members of two clusters anew at a place on a line; return whether that moved any."""
        both = np.sort(np.concatenate([self.members[a], self.members[b]]))
        beyond = self.features[both] @ line > where
        if min(beyond.sum(), (~beyond).sum()) < SMALLEST_CLUSTER or np.array_equal(both[beyond], self.members[b]):
            return False
        self.members[a], self.members[b] = both[~beyond], both[beyond]
        return True


def divide(
    windows: np.ndarray, smallest: int, seed: int, n_components: int = 10, allowed: float | None = None
) -> np.ndarray:
    """Labels (n,) of whitened windows (n, n_times, n_channels) without a given number.

    `cluster` on principal components, again within every part (its own components show what the others' variance hid), then
    halves by k-means where these have two modes, which sees gaps that joined parcels do not, or, among few windows, vary far
    more than one neuron's may (`allowed`, a variance; by default that of the part's mean waveform).
    """
    labels = np.zeros(len(windows), np.int64)
    coefficients, basis = shapes_in_time(windows)
    flat = coefficients.reshape(len(windows), -1)
    open_parts = [0]
    while open_parts:
        part = open_parts.pop()
        members = np.flatnonzero(labels == part)
        if len(members) < 2 * smallest:
            continue
        mean = windows[members].mean(axis=0).T
        # within a part jitter hides what is smaller; among all events it is small
        inside = without(flat[members], nuisance_directions(mean, basis)[1:]) if part else flat[members]
        found = cluster(_features(inside, n_components, seed), None, seed)
        if found.max() == 0:
            found = _halved(flat[members], mean, basis, smallest, n_components, seed, allowed)
        if found.max() > 0:
            first = labels.max() + 1
            labels[members] = first + found
            open_parts += list(range(first, first + found.max() + 1))
    return np.unique(labels, return_inverse=True)[1]


def _halved(
    flat: np.ndarray,
    mean: np.ndarray,
    basis: np.ndarray | None,
    smallest: int,
    n_components: int,
    seed: int,
    allowed: float | None,
) -> np.ndarray:
    """Labels 0 and 1 of two parts if they have two modes, or among few windows vary far more than one neuron's may; zeros otherwise.
    mean (n_channels, n_times): of all. basis: of the windows, see nuisance_directions.

    Asked are the halves (k-means) of the windows, those of the windows without gain and jitter, which may hide a shape, and groups
    that lie apart: few among many are no half.
    """
    one = np.zeros(len(flat), np.int64)
    features = _features(flat, n_components, seed)
    steady = without(flat, nuisance_directions(mean, basis))
    halves = _halves(features)
    shapes = _halves(_features(steady, n_components, seed))
    # one neuron's gain may have two modes, as in bursts, its shape hardly: less evidence is enough
    for labels, windows, most in ((halves, flat, allowed), (shapes, steady, 0.0)):
        first, second = windows[labels == 0], windows[labels == 1]
        if min(len(first), len(second)) < smallest:
            continue
        larger = larger_of(first, second) if windows is flat and allowed is not None else None
        if are_two(first, second, seed, most, larger)[0]:
            return labels
    few = _group_apart(features, flat, smallest, seed, allowed)
    if few is not None:
        return few
    if min(np.bincount(halves, minlength=2)) < smallest or len(flat) >= FEW:
        return one
    variance = are_two(steady[halves == 0], steady[halves == 1], seed)[2]
    return halves if variance > FEW_MARGIN * (allowed_variance(mean) if allowed is None else allowed) else one


def _group_apart(
    features: np.ndarray, flat: np.ndarray, smallest: int, seed: int, allowed: float | None
) -> np.ndarray | None:
    """Labels 0 and 1 of windows `flat` with features (n, n_components) where those about one of the most distant (1) are a mode of
    their own: 2-means from the mean of all and that one. k-means from elsewhere does not find a hundredth of the whole. None
    where there is no such group."""
    distance = ((features - features.mean(axis=0)) ** 2).sum(axis=1)
    untried = np.argsort(distance)[::-1][:GROUPS_TRIED]
    while len(untried):
        labels = two_means(features, features.mean(axis=0), features[untried[0]])
        if min(np.bincount(labels, minlength=2)) >= smallest:
            larger = larger_of(flat[labels == 0], flat[labels == 1]) if allowed is not None else None
            if all(
                are_two(x[labels == 0], x[labels == 1], seed, most, larger)[0]
                for x, most in ((features, None), (flat, allowed))
            ):
                return labels
        untried = untried[1:][labels[untried[1:]] == 0]
    return None


def _halves(features: np.ndarray) -> np.ndarray:
    """Labels 0 and 1 of features (n, n_components), principal components: the best 2-means of those from either side of the
    median along one of the first three."""
    best, least = np.zeros(len(features), np.int64), np.inf
    for values in features.T[:3]:
        above = values > np.median(values)
        if not above.any():
            continue
        labels = two_means(features, features[~above].mean(axis=0), features[above].mean(axis=0))
        inertia = sum(
            ((part - part.mean(axis=0)) ** 2).sum() for part in (features[labels == 0], features[labels == 1]) if len(part)
        )
        if inertia < least:
            best, least = labels, inertia
    return best


def two_means(features: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
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


def _features(windows: np.ndarray, n_components: int, seed: int) -> np.ndarray:
    """Principal components; few events do not fill many dimensions, no cluster would show."""
    return principal_components(windows, int(np.clip(np.sqrt(len(windows)) / 2, 2, n_components)), seed)


def templates_from_labels(windows: np.ndarray, labels: np.ndarray, smallest: int) -> np.ndarray:
    """Mean windows of the clusters with at least `smallest` members, (n_units, n_channels, n_times)."""
    kept = [c for c in np.unique(labels) if np.sum(labels == c) >= smallest]
    if not kept:
        return np.zeros((0, windows.shape[2], windows.shape[1]))
    return np.stack([windows[labels == c].mean(axis=0).T for c in kept]).astype(np.float64)


def _drawn(coefficients: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Indices, ascending, of n of the events with these coefficients (n_events, n_features)."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(coefficients))
    first, others = order[: n // 2], order[n // 2 :]
    basis = basis_of(coefficients[first])
    features = features_of(coefficients, basis)
    more = others[seldom_first(features[first], features[others], SMALLEST_CLUSTER, rng)[: n - len(first)]]
    return np.sort(np.concatenate([first, more]))


def first_templates(
    signal: np.ndarray,
    subspace: SpikeSubspace,
    window: TemplateWindow,
    config: InitialiseConfig,
    dead_time: int,
    seed: int,
    level: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Events, and templates (n_units, n_channels, n_times) of them, of whitened signal (n_channels, n_samples).

    Detection, windows, principal components, clusters. Events are first samples (int64) of windows; the third result says
    which events each template is the mean of. At most config.max_events events are clustered, half of them drawn at random, the others
    first of those of which few were drawn (see drawing). level (n_samples,)
    uint8: of the noise, see data.loudness; where there are others, events in loud noise are not looked at.
    """
    starts = subspace.detect(signal, config.detection_threshold, dead_time) - window.before
    starts = starts[(starts >= 0) & (starts <= signal.shape[1] - window.n_times)]
    if level is not None and np.any(clear := level[starts + window.n_times // 2] <= CLEAR):
        starts = starts[clear]
    if np.any(whole := are_whole(signal, starts, window.n_times)):
        # a spike that a gap cuts is no other neuron
        starts = starts[whole]
    events = starts
    if len(starts) > config.max_events:
        starts = starts[_drawn(subspace.coefficients(signal, starts + window.before), config.max_events, seed)]
    if len(starts) < 2:
        return events, np.zeros((0, len(signal), window.n_times)), []
    windows = windows_at(signal.T, starts, window.n_times)
    if level is not None:
        windows = windows * noise_of(level[starts + window.n_times // 2])[:, None, None].astype(np.float32)
    if config.units is None:
        labels = divide(windows, SMALLEST_CLUSTER, seed, config.n_components)
    else:
        labels = cluster(_features(windows.reshape(len(windows), -1), config.n_components, seed), config.units, seed)
    smallest = SMALLEST_CLUSTER if config.units is None else 1
    members = [starts[labels == c] for c in np.unique(labels) if np.sum(labels == c) >= smallest]
    return events, templates_from_labels(windows, labels, smallest), members
