"""Probabilities and quantiles are scipy.stats' own, without it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from spikecrsae.system import distributions

P = np.array([1e-300, 1e-30, 1e-9, 1e-3, 0.2, 0.5, 0.97])
X = np.array([0.0, 1e-6, 0.3, 2.0, 7.5, 60.0])
Z = np.array([-9.0, -1.0, 0.0, 0.6745, 4.0, 8.2, 37.0])
K = np.arange(0, 60)


@pytest.mark.parametrize(
    ("ours", "theirs", "arguments"),
    [
        ("norm_cdf", stats.norm.cdf, [(Z,)]),
        ("norm_sf", stats.norm.sf, [(Z,)]),
        ("norm_ppf", stats.norm.ppf, [(P,)]),
        ("norm_isf", stats.norm.isf, [(P,)]),
        ("chi2_sf", stats.chi2.sf, [(X, df) for df in (1, 2, 5, 84)]),
        ("chi2_ppf", stats.chi2.ppf, [(P[3:], df) for df in (2, 5, 840)]),
        ("chi2_isf", stats.chi2.isf, [(P[1:], df) for df in (1, 2, 5, 840)]),
        ("gamma_sf", stats.gamma.sf, [(X, shape) for shape in (1, 3.5, 60)]),
        ("gamma_isf", stats.gamma.isf, [(P[1:], shape) for shape in (1, 3.5, 60)]),
        ("poisson_cdf", stats.poisson.cdf, [(K, mean) for mean in (0.01, 1.0, 30.0)]),
        ("poisson_sf", stats.poisson.sf, [(K - 1, mean) for mean in (0.01, 1.0, 30.0)]),
        ("binom_cdf", stats.binom.cdf, [(K, 60, p) for p in (0.01, 0.5)]),
        ("binom_sf", stats.binom.sf, [(K - 1, 60, p) for p in (0.0, 0.01, 0.5, 1.0)]),
    ],
)
def test_each_is_that_of_scipy_stats(ours, theirs, arguments):
    for words in arguments:
        np.testing.assert_allclose(getattr(distributions, ours)(*words), theirs(*words), rtol=1e-9, atol=1e-320)


def test_nothing_is_seen_where_nothing_is_expected():
    """A histogram's empty bins against a rate of zero: no p-value below a level, and no complaint."""
    with np.errstate(all="raise"):
        assert not (distributions.poisson_sf(np.array([-1]), 0.0) < 0.01).any()
