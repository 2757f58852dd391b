"""What a unit's spikes say about its errors: spikes that are none of its own, its threshold, and the part of its spikes below it.
No ground truth enters."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import special

from spikecrsae.crsae.model import CRsAE
from spikecrsae.data.loudness import expected_at, noise_of
from spikecrsae.data.spikes import Spikes
from spikecrsae.detect.bimodality import are_two
from spikecrsae.detect.clustering import SMALLEST_CLUSTER, two_means

#: Nominal chance that a unit loses one of its own spikes to each test for outliers; decoded misfits have longer tails than
#: normal ones, which makes it some 0.3.
OUTLIER_LEVEL = 0.05
#: Spikes that follow another of their unit within bursts.BURST_MS may be attenuated: they are compared with each other, and where
#: they are fewer than LEAST_FOLLOWERS their size says nothing.
LEAST_FOLLOWERS = 20
#: The deviation of a normal distribution that the distance from the median to a quantile at one deviation gives has the error of
#: that of this part of the sample: its variance is 2.21 / n, that of all of it 1 / 2n.
QUANTILE_SHARE = 0.226


def outliers(spikes: Spikes, misfit: np.ndarray, model: CRsAE, burst: int) -> np.ndarray:
    """Spikes (bool, n) that are none of their unit: by `other_sizes` where the prior knows no sizes, then by `find_outliers`."""
    outside = np.zeros(len(spikes), bool) if model.prior.sized else other_sizes(spikes, model, burst)
    main = np.flatnonzero(~outside)
    outside[main] = find_outliers(spikes.select(main), misfit[main], burst, model.misfit_of_noise)
    return outside


def other_sizes(spikes: Spikes, model: CRsAE, burst: int) -> np.ndarray:
    """Spikes (bool, n) that are smaller than the main mode of their unit's amplitudes, where these have several modes. burst:
    bursts.BURST_MS in samples.

    Under a prior that knows no unit's size, a unit takes in the spikes of every neuron of its shape, of whatever size; the paper leaves it
    to a threshold to tell them apart (Sec. VII-B). Amplitudes are divided in two by 2-means; where the parts are two modes, for noise of
    the deviation 1 / ||h||, and so on with the larger part. Spikes that follow another of their unit within a burst may be
    attenuated: they are not asked. Larger ones than those of the main mode stay: they may be the neuron's without attenuation.
    """
    outside = np.zeros(len(spikes), bool)
    for unit in np.unique(spikes.unit):
        mine = np.flatnonzero(spikes.unit == unit)
        main = mine[~np.r_[False, np.diff(spikes.sample[mine]) <= burst] & spikes.clear[mine]]
        size = spikes.relative * np.sqrt(model.energy[unit])
        while len(main) >= 2 * SMALLEST_CLUSTER:
            is_large = two_means(size[main, None], size[main].min(keepdims=True), size[main].max(keepdims=True)) == 1
            parts = sorted((main[~is_large], main[is_large]), key=len)
            if len(parts[0]) < SMALLEST_CLUSTER or not are_two(size[parts[0], None], size[parts[1], None], seed=0)[0]:
                break
            outside[parts[0]] = size[parts[0]].mean() < size[parts[1]].mean()
            main = parts[1]
    return outside


def find_outliers(spikes: Spikes, misfit: np.ndarray, burst: int, misfit_of_noise: np.ndarray | None = None) -> np.ndarray:
    """Spikes (bool, n) that are none of their unit: too small for it, or of another shape. burst: bursts.BURST_MS in samples.
    misfit_of_noise: CRsAE's, 0 unless given.

    Among n spikes of one unit the smallest amplitude and the largest misfit are what
    normal distributions allow at level OUTLIER_LEVEL / n each (Bonferroni; Grubbs 1950); misfit, a sum of squares, is nearly
    normal in its cube root (Wilson and Hilferty 1931). Location and scale are the median and the distance to a quantile at
    one standard deviation, which outliers do not move: the larger of the two sides for amplitudes, with the error that it has
    (Student's t), the upper side for misfits, and there no less than what noise alone makes: the quantiles of few spikes may lie
    side by side.
    """
    outlying = np.zeros(len(spikes), bool)
    root = np.cbrt(misfit)
    for unit in np.unique(spikes.unit):
        mine = np.flatnonzero(spikes.unit == unit)
        bound = -special.ndtri(OUTLIER_LEVEL / len(mine))
        usual, upper = np.percentile(root[mine], [50, 84])
        least = 0.0 if misfit_of_noise is None else misfit_of_noise[unit]
        outlying[mine] = root[mine] > usual + bound * max(upper - usual, least)
        follows = np.r_[False, np.diff(spikes.sample[mine]) <= burst]
        clear = spikes.clear[mine]
        for part in (mine[~follows & clear], mine[follows & clear], mine[~clear]):
            if len(part) == 0 or (part[0] != mine[0] and len(part) < LEAST_FOLLOWERS):
                continue
            low, middle, high = np.percentile(spikes.relative[part], [16, 50, 84])
            bound = -float(special.stdtrit(QUANTILE_SHARE * len(part), OUTLIER_LEVEL / len(mine)))
            outlying[part] |= spikes.relative[part] < middle - bound * max(high - middle, middle - low)
    return outlying


def thresholds(model: CRsAE, level: int = 0) -> np.ndarray:
    """Per unit, the amplitude relative to the template above which a spike is more probable than noise (n_units,), at a level of
    the noise (see data.loudness)."""
    needed = model.needed(np.array([level]))
    return np.asarray(needed / np.maximum(model.energy, 1e-9) / expected_at(level))


def below_threshold(spikes: Spikes, model: CRsAE, shares: Mapping[int, float] | None = None) -> np.ndarray:
    """Part of each unit's spikes (n_units,) that are too small to be found. shares: the part of the recording at each level of the
    noise; all at level 0 unless given.

    It is the part of normal amplitudes below the threshold, which are as wide as the upper half of those found, and at least as
    wide as noise makes them.
    """
    deviation = 1 / np.sqrt(np.maximum(model.energy, 1e-9))
    amplitude, clear = model.unshrunk(spikes), spikes.clear
    for unit in np.flatnonzero(np.bincount(spikes.unit, minlength=model.n_units) > 1):
        mine = spikes.unit == unit
        mine &= clear if (mine & clear).any() else mine
        middle, high = np.percentile(amplitude[mine], [50, 84])
        deviation[unit] = max(deviation[unit], high - middle)
    below = np.zeros(model.n_units)
    for level, share in (shares or {0: 1.0}).items():
        # louder noise adds to what the amplitudes vary by
        more = (noise_of(level) ** 2 - 1) / np.maximum(model.energy, 1e-9)
        below += share * special.ndtr((thresholds(model, level) - 1) / np.sqrt(deviation**2 + more))
    return below
