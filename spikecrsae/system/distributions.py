"""Probabilities and quantiles of the usual distributions, named as in scipy.stats, by scipy.special: scipy.stats takes
half a second to load. Arguments may be arrays."""

from __future__ import annotations

import numpy as np
from scipy import special


def norm_cdf(x):
    """Probability that a standard normal number is at most x."""
    return special.ndtr(x)


def norm_sf(x):
    """Probability that a standard normal number is above x."""
    return special.ndtr(-np.asarray(x))


def norm_ppf(p):
    """What a standard normal number is below with probability p."""
    return special.ndtri(p)


def norm_isf(p):
    """What a standard normal number is above with probability p."""
    return -special.ndtri(p)


def chi2_sf(x, df):
    """Probability that a chi squared number with df degrees of freedom is above x."""
    return special.chdtrc(df, x)


def chi2_ppf(p, df):
    """What a chi squared number with df degrees of freedom is below with probability p."""
    return 2 * special.gammaincinv(np.asarray(df) / 2, p)


def chi2_isf(p, df):
    """What a chi squared number with df degrees of freedom is above with probability p."""
    return special.chdtri(df, p)


def gamma_sf(x, shape):
    """Probability that a gamma distributed number of scale 1 is above x."""
    return special.gammaincc(shape, x)


def gamma_isf(p, shape):
    """What a gamma distributed number of scale 1 is above with probability p."""
    return special.gammainccinv(shape, p)


def poisson_cdf(k, mean):
    """Probability of at most k >= 0 events where `mean` are expected."""
    return special.gammaincc(np.asarray(k) + 1.0, mean)


def poisson_sf(k, mean):
    """Probability of more than k >= -1 events where `mean` > 0 are expected."""
    return special.gammainc(np.asarray(k) + 1.0, mean)


def binom_sf(k, n, p):
    """Probability of more than k >= -1 successes of n trials with probability p each."""
    return special.bdtrc(k, n, p)


def binom_cdf(k, n, p):
    """Probability of at most k >= 0 successes of n trials with probability p each."""
    return special.bdtr(k, n, p)
