"""What a unit's spikes say about its errors, against spikes that are known: outliers and thresholds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.known_spikes import N_TIMES, fired, rendered, slab, spikes_at, template

from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import Laplace
from spikecrsae.data.spikes import Spikes
from spikecrsae.decode.confidence import OUTLIER_LEVEL, find_outliers, other_sizes, thresholds

# ---- outliers

#: Samples within which a spike may be a later one of a burst; the spikes of most tests are further apart.
BURST = 60


def measured(amplitude: np.ndarray, model: CRsAE) -> Spikes:
    """Spikes of unit 0 whose least-squares amplitudes are these; the decoder's are drawn towards 1."""
    precision, energy = 1 / model.prior.spread[0] ** 2, model.energy[0]
    drawn = (energy * amplitude + precision) / (energy + precision)
    return spikes_at(np.zeros(len(drawn), np.int64), 90 * np.arange(len(drawn)), drawn)


def test_spikes_of_another_shape_are_found_and_the_units_own_stay():
    own, other = template(20), template(20, (0.5, 1.0))
    both, model = slab([own, other]), slab([own])
    n_aliens = n_found = n_lost = 0
    for seed in range(4):
        signal, truth = fired(both, [300, 12], 90, seed)
        found = model.encode(signal)
        alien = np.array([truth.unit[np.abs(truth.sample - s).argmin()] == 1 for s in found.sample])
        outlying = find_outliers(found, model.misfit(signal, found), BURST)
        n_aliens += alien.sum()
        n_found += np.sum(outlying & alien)
        n_lost += np.sum(outlying & ~alien)
    assert n_aliens > 40, "the decoder takes them for the unit's, or there is nothing to find"
    assert n_found > 0.9 * n_aliens
    assert n_lost <= 4


def test_spikes_too_small_for_their_unit_are_found():
    """Another neuron with the same waveform, at 0.45 of the size: more than five standard deviations of the unit's own."""
    model, rng = slab([template(20)], spread=0.08), np.random.default_rng(0)
    size = np.where(np.arange(420) % 21 == 10, 0.45, rng.normal(1.0, 0.08, 420))
    truth = spikes_at(np.zeros(420, np.int64), 20 + 90 * np.arange(420), size)
    signal = rendered(model, truth, 420 * 90 + 100, rng)
    found = model.encode(signal)
    assert len(found) > 415
    outlying = find_outliers(found, model.misfit(signal, found), BURST)
    alien = np.isin(np.rint((found.sample - 20) / 90), np.arange(10, 420, 21))
    assert np.sum(outlying & alien) >= 0.9 * alien.sum() > 15
    assert np.sum(outlying & ~alien) <= 2


@pytest.mark.parametrize("sizes", [(1.0,), (1.0, 0.5), (1.0, 0.45, 1.6)])
def test_a_neuron_of_another_size_and_the_same_shape_is_told_by_its_size(sizes):
    """A prior that knows no sizes takes the spikes of every neuron of this shape; outside are those smaller than those of the
    neuron with the most spikes. Where one neuron fires, none is."""
    known, rng = slab([template(20)]), np.random.default_rng(3)
    size = np.concatenate([np.full(n, a) for n, a in zip((300, 90, 40), sizes, strict=False)])
    truth = spikes_at(np.zeros(len(size), np.int64), 20 + 90 * np.arange(len(size)), size * rng.normal(1, 0.05, len(size)))
    model = CRsAE(known.templates, Laplace.first(1))
    found = model.encode(rendered(known, truth, len(size) * 90 + 100, rng))
    other = size[np.rint((found.sample - 20) / 90).astype(int)] < 1.0
    assert len(found) >= len(size) and np.mean(other_sizes(found, model, BURST) == other) >= 0.99
    assert not model.prior.sized and known.prior.sized


def test_attenuated_spikes_of_bursts_are_not_taken_for_another_size():
    """Bursts of one spike and three of half its size: more small ones than large ones, and all are the neuron's."""
    known, rng = slab([template(20)]), np.random.default_rng(4)
    sample = 20 + (400 * np.arange(100)[:, None] + 50 * np.arange(4)).ravel()
    truth = spikes_at(np.zeros(400, np.int64), sample, np.tile([1.0, 0.5, 0.5, 0.5], 100) * rng.normal(1, 0.05, 400))
    model = CRsAE(known.templates, Laplace.first(1), refractory=10)
    found = model.encode(rendered(known, truth, 41_000, rng))
    assert len(found) >= 395 and not other_sizes(found, model, BURST).any()


def test_clean_spikes_are_lost_no_more_often_than_the_level_says():
    """Both statistics as the test supposes them: normal amplitudes, and misfits that are sums of squares. One in OUTLIER_LEVEL
    of the units loses a spike to each."""
    model, lost = slab([template(20)]), {"amplitude": 0, "misfit": 0}
    n_units = 300
    for seed in range(n_units):
        rng = np.random.default_rng(seed)
        seen = rng.normal(1.0, np.hypot(0.1, 1 / 20), 1000)
        lost["amplitude"] += find_outliers(measured(seen, model), np.ones(1000), BURST).sum()
        lost["misfit"] += find_outliers(measured(np.ones(1000), model), rng.chisquare(20, 1000), BURST).sum()
    for name, n in lost.items():
        assert n / n_units < 2 * OUTLIER_LEVEL, name
    assert sum(lost.values()) > 0, "a test that never errs is not at its level"


def test_a_unit_of_few_spikes_keeps_them_though_their_quantiles_may_lie_side_by_side():
    """Twelve spikes each: without what noise alone makes of a misfit, many a unit loses one of its own."""
    model, kept, without = slab([template(20, (1.0, 0.4, 0.2, 0.1))]), 0, 0
    for seed in range(60):
        signal, _ = fired(model, [12], 90, seed)
        found = model.encode(signal)
        misfit = model.misfit(signal, found)
        kept += find_outliers(found, misfit, BURST, model.misfit_of_noise).sum()
        without += find_outliers(found, misfit, BURST).sum()
    assert kept <= 60 * 2 * OUTLIER_LEVEL
    assert without > 2 * kept


def test_noise_alone_makes_misfits_as_wide_as_supposed():
    model = slab([template(20, (1.0, 0.4, 0.2, 0.1)), template(15, (0.0, 1.0, 0.0, 0.0), width=5.0)])
    signal = np.random.default_rng(3).standard_normal((4, 400_000)).astype(np.float32)
    for unit in range(2):
        places = spikes_at(np.full(4000, unit), 95 * np.arange(4000), np.zeros(4000))
        seen = np.cbrt(model.misfit(signal, places)).std()
        assert abs(seen / model.misfit_of_noise[unit] - 1) < 0.05


@pytest.mark.parametrize(("norm", "gains"), [(10, (1.0, 0.4)), (20, (1.0,)), (40, (1.0, 0.4, 0.2, 0.1))])
def test_of_decoded_spikes_less_than_one_in_two_hundred_is_lost(norm, gains):
    """Misfits after a fit to the noise are no longer quite sums of squares; it costs a unit about a quarter of a spike."""
    model, lost, n = slab([template(norm, gains)]), 0, 0
    for seed in range(10):
        signal, _ = fired(model, [200], 90, seed)
        found = model.encode(signal)
        lost, n = lost + find_outliers(found, model.misfit(signal, found), BURST).sum(), n + len(found)
    assert n > 1990
    assert lost < n / 200


def test_the_smaller_spikes_of_bursts_stay():
    """Three of ten spikes are later ones of bursts, each 12 % smaller than the one before: a flank that no normal distribution
    with the width of the upper one would allow."""
    rng = np.random.default_rng(1)
    model, n = slab([template(20)], spread=0.05), 1000
    burst = np.where(np.arange(n) % 10 < 3, 0.88 ** rng.integers(1, 6, n), 1.0)
    seen = burst * rng.normal(1.0, 0.05, n) + rng.standard_normal(n) / 20
    low, middle, high = np.percentile(seen, [1, 50, 84])
    assert low < middle - 5 * (high - middle)
    assert find_outliers(measured(seen, model), np.ones(n), BURST).sum() == 0
    steady = seen / burst
    steady[:5] = low
    assert find_outliers(measured(steady, model), np.ones(n), BURST)[:5].all()


@pytest.mark.parametrize("part", [0.01, 0.05, 0.1])
def test_the_smaller_spikes_of_rare_bursts_stay(part):
    """So few that no quantile of all spikes shows them: they come shortly after larger ones."""
    rng = np.random.default_rng(2)
    model, n = slab([template(20)], spread=0.05), 1000
    follower = rng.permutation(n) < part * n
    follower[0] = False
    seen = np.where(follower, 0.88 ** rng.integers(1, 6, n), 1.0) * rng.normal(1.0, 0.05, n)
    spikes = measured(seen, model)
    gaps = np.where(follower, BURST // 4, 10 * BURST)
    spikes = replace(spikes, sample=np.cumsum(gaps))
    assert find_outliers(spikes, np.ones(n), BURST).sum() <= 1
    by_chance = replace(spikes, sample=np.cumsum(np.full(n, 10 * BURST)))
    assert find_outliers(by_chance, np.ones(n), BURST)[follower & (seen < 0.6)].all()


def test_without_spikes_there_is_no_outlier():
    assert find_outliers(Spikes.none(), np.zeros(0), BURST).shape == (0,)


# ---- thresholds


@pytest.mark.parametrize(("norm", "spread", "penalty"), [(8, 0.1, 6.0), (20, 0.05, 9.0), (20, 0.2, 9.0), (60, 0.1, 12.0)])
def test_a_threshold_is_the_size_at_which_the_decoder_begins_to_find_a_spike(norm, spread, penalty):
    model = slab([template(norm)], spread, penalty, n_shifts=1)
    low, high = 0.0, 1.5
    for _ in range(12):
        middle = 0.5 * (low + high)
        signal = np.zeros((2, 200), np.float32)
        signal[:, 80 : 80 + N_TIMES] = middle * model.templates[0]
        low, high = (low, middle) if len(model.encode(signal)) else (middle, high)
    assert thresholds(model)[0] == pytest.approx(0.5 * (low + high), abs=2e-3)


def test_a_rarer_unit_has_a_higher_threshold_and_a_stronger_one_a_lower():
    model = slab([template(n) for n in (10, 10, 30)], 0.1, (6.0, 12.0, 6.0))
    common, rare, strong = thresholds(model)
    assert strong < common < rare
