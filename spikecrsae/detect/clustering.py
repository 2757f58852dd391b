"""Cluster detected events into first templates: windows, principal components, clusters."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator

import numpy as np
from scipy.linalg import eigh

from spikecrsae.config import InitialiseConfig
from spikecrsae.detect.bimodality import allowed_variance, are_two, nuisance_directions, without
from spikecrsae.detect.detection import SpikeSubspace
from spikecrsae.detect.windows import TemplateWindow, windows_at

#: Among fewer windows than this no valley can be told from chance; there, two clusters are those that vary FEW_MARGIN times
#: more along a line than one neuron may.
FEW, FEW_MARGIN = 100, 3.0
#: So many of the most distant windows are each asked whether those about them are another neuron's.
GROUPS_TRIED = 50
#: 2-means has settled after so many rounds, or all but.
TWO_MEANS_ROUNDS = 30
#: A cluster with fewer events than this has no mean worth a test.
SMALLEST_CLUSTER = 6


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


def _features(windows: np.ndarray, n_components: int, seed: int) -> np.ndarray:
    """Principal components; few events do not fill many dimensions, no cluster would show."""
    return principal_components(windows, int(np.clip(np.sqrt(len(windows)) / 2, 2, n_components)), seed)


def templates_from_labels(windows: np.ndarray, labels: np.ndarray, smallest: int) -> np.ndarray:
    """Mean windows of the clusters with at least `smallest` members, (n_units, n_channels, n_times)."""
    kept = [c for c in np.unique(labels) if np.sum(labels == c) >= smallest]
    if not kept:
        return np.zeros((0, windows.shape[2], windows.shape[1]))
    return np.stack([windows[labels == c].mean(axis=0).T for c in kept]).astype(np.float64)


def first_templates(
    signal: np.ndarray,
    subspace: SpikeSubspace,
    window: TemplateWindow,
    config: InitialiseConfig,
    dead_time: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Events, and templates (n_units, n_channels, n_times) of them, of whitened signal (n_channels, n_samples).

    Detection, windows, principal components, clusters. Events are first samples (int64) of windows; the third result says
    which events each template is the mean of. At most config.max_events events, drawn at random, are clustered.
    """
    starts = subspace.detect(signal, config.detection_threshold, dead_time) - window.before
    starts = starts[(starts >= 0) & (starts <= signal.shape[1] - window.n_times)]
    events = starts
    if len(starts) > config.max_events:
        starts = np.sort(np.random.default_rng(seed).choice(starts, config.max_events, replace=False))
    if len(starts) < 2:
        return events, np.zeros((0, len(signal), window.n_times)), []
    windows = windows_at(signal.T, starts, window.n_times)
    if config.units is None:
        labels = divide(windows, SMALLEST_CLUSTER, seed, config.n_components)
    else:
        labels = cluster(_features(windows.reshape(len(windows), -1), config.n_components, seed), config.units, seed)
    smallest = SMALLEST_CLUSTER if config.units is None else 1
    members = [starts[labels == c] for c in np.unique(labels) if np.sum(labels == c) >= smallest]
    return events, templates_from_labels(windows, labels, smallest), members
