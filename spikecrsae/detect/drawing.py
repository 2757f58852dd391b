"""Draw events so that rare ones are among them."""

from __future__ import annotations

import numpy as np
from scipy import special
from scipy.spatial import KDTree

from spikecrsae.system.threads import n_cores

#: A kind of event of which so many were drawn at random is known well enough.
KNOWN = 30
#: Features of an event at most: principal components, and how far it lies from their span.
MOST_FEATURES = 9
#: Two events of one kind are at most so far apart, as noise alone makes them but for one in 20.
SAME_LEVEL = 0.05


def seldom_first(drawn: np.ndarray, others: np.ndarray, smallest: int, rng: np.random.Generator) -> np.ndarray:
    """An order (n,) of further events, those of a size and shape of which few were drawn at random first, at random otherwise.

    drawn (n_drawn, n_features), others (n, n_features): features of events, each with noise of variance 1. An event is seldom
    where fewer than KNOWN of those drawn lie within the distance that noise puts between two events of one kind. Seldom events
    with at least `smallest` of their kind come first: they may be a neuron. Then come all that are well known, then seldom
    ones without others of their kind, such as collisions.
    """
    n_features = drawn.shape[1]
    # the difference of two events has noise of variance 2
    radius = float(np.sqrt(2 * special.chdtri(n_features, SAME_LEVEL)))
    rank = np.ones(len(others), np.int64)
    seldom = np.flatnonzero(_farther(drawn, others, KNOWN, radius))
    alone = _farther(others[seldom], others[seldom], smallest, radius)
    rank[seldom] = np.where(alone, 2, 0)
    return np.lexsort((rng.permutation(len(others)), rank))


def _farther(reference: np.ndarray, points: np.ndarray, k: int, radius: float) -> np.ndarray:
    """Points (bool, n) whose k-th nearest neighbour in the reference is farther than this."""
    if len(reference) < k or not len(points):
        return np.ones(len(points), bool)
    distance = KDTree(reference).query(points, [k], distance_upper_bound=radius, workers=n_cores())[0]
    return np.asarray(~np.isfinite(distance[:, 0]))


def basis_of(coefficients: np.ndarray) -> np.ndarray | None:
    """The leading principal directions (n, n_features) of events' coefficients (n_events, n_features); None for all of them."""
    if coefficients.shape[1] <= MOST_FEATURES or len(coefficients) < MOST_FEATURES:
        return None
    return np.linalg.svd(coefficients - coefficients.mean(axis=0), full_matrices=False)[2][: MOST_FEATURES - 1]


def features_of(coefficients: np.ndarray, basis: np.ndarray | None) -> np.ndarray:
    """Features (n, n_features) of events: their coefficients along the basis, and the length of what lies beside it."""
    if basis is None:
        return coefficients
    along = coefficients @ basis.T
    beside = np.sqrt(np.maximum((coefficients**2).sum(axis=1) - (along**2).sum(axis=1), 0))
    return np.column_stack([along, beside]).astype(np.float32)
