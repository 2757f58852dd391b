"""What a unit's spikes say about its errors, against spikes that are known: outliers, thresholds, estimated error rates."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.known_spikes import N_TIMES, Whitened, fired, matched, rendered, slab, spikes_at, template

from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import Laplace
from spikecrsae.data.spikes import Spikes
from spikecrsae.decode.blocks import Decoding
from spikecrsae.decode.collect import Collector, DecodedUnits, RecordingFacts, build_sorting, gathered
from spikecrsae.decode.confidence import OUTLIER_LEVEL, error_rates, find_outliers, other_sizes, thresholds
from spikecrsae.decode.quality import ACCEPTED_ERROR
from spikecrsae.progress import Observer

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


# ---- estimated error rates


def similar(distance: float, norm: float = 15.0) -> list[np.ndarray]:
    """Two templates of one norm, `distance` standard deviations of the noise apart."""
    first, other = template(norm), template(norm, (0.5, 1.0))
    other = other - np.vdot(first, other) / np.vdot(first, first) * first
    other *= norm / np.linalg.norm(other)
    angle = 2 * np.arcsin(0.5 * distance / norm)
    return [first, np.cos(angle) * first + np.sin(angle) * other]


def estimated_and_true(templates, counts, seed: int) -> np.ndarray:
    """(n_units, 2, 2): false alarm and miss of every unit, estimated by the model and counted."""
    gap = 100
    n_samples = gap * sum(counts)
    model = slab(templates, penalty=np.log(n_samples / np.array(counts)))
    signal, truth = fired(model, counts, gap, seed)
    found = model.encode(signal)
    counted = []
    for unit in range(model.n_units):
        mine, his = found.sample[found.unit == unit], truth.sample[truth.unit == unit]
        hits = matched(mine, his)
        counted.append((1 - hits / max(len(mine), 1), 1 - hits / len(his)))
    return np.stack([np.transpose(error_rates(found, model)), counted], axis=2)


@pytest.mark.parametrize(
    ("templates", "counts"),
    [
        (similar(2.0), (2000, 2000)),
        (similar(3.0), (2000, 2000)),
        (similar(4.0), (2000, 2000)),
        (similar(2.5), (4800, 1200)),
    ],
    ids=["2 apart", "3 apart", "4 apart", "unequal rates"],
)
def test_estimated_errors_of_similar_units_are_the_true_ones(templates, counts):
    """Within 0.01 and a tenth of the rate; the deviation by chance of a rate of 0.15 of 1200 spikes is 0.01."""
    estimated, true = estimated_and_true(templates, counts, seed=5).transpose(2, 0, 1)
    assert true.max() > 0.02, "there is something to estimate"
    np.testing.assert_array_less(np.abs(estimated - true), 0.01 + 0.1 * true)


@pytest.mark.parametrize("norm", [4.5, 5.0, 6.0])
def test_estimated_errors_of_a_weak_unit_err_on_the_side_of_caution(norm):
    """Misses within half, or 0.01. Neighbouring samples are not independent, so noise has fewer chances than the prior gives
    it: false alarms are fewer than estimated, by less than 0.04."""
    estimated, true = estimated_and_true([template(norm)], (3000,), seed=5)[0].T
    assert true[1] > 0.01
    assert estimated[1] == pytest.approx(true[1], rel=0.5, abs=0.01)
    assert true[0] <= estimated[0] < true[0] + 0.04


@pytest.mark.parametrize("norm", [5.0, 7.0, 10.0])
@pytest.mark.parametrize("spread", [0.2, 0.3])
def test_estimated_misses_follow_the_amplitudes_found_whatever_spread_the_prior_has(norm, spread):
    """The prior's spread is 0.1; amplitudes that vary more fall below the threshold more often."""
    model = slab([template(norm)], spread=0.1, penalty=np.log(100))
    signal, truth = fired(model, (3000,), 100, seed=5, spread=spread)
    found = model.encode(signal)
    missed = 1 - matched(found.sample, truth.sample) / len(truth)
    assert error_rates(found, model)[1][0] == pytest.approx(missed, rel=0.2, abs=0.005)


def test_the_rarer_of_two_similar_units_has_the_larger_errors():
    estimated, true = estimated_and_true(similar(2.5), (4800, 1200), seed=6).transpose(2, 0, 1)
    for rates in (estimated, true):
        assert rates[1].min() > 2 * rates[0].max()


def test_a_strong_lone_unit_has_no_errors():
    estimated, true = estimated_and_true([template(25.0)], (500,), seed=7).transpose(2, 0, 1)
    assert estimated.max() < 1e-6
    assert true.max() == 0


def test_a_unit_without_a_spike_misses_nothing_that_is_known():
    model = slab([template(20), template(20, (0.2, 1.0))])
    for found in (Spikes.none(), spikes_at([0], [100])):
        false_alarm, miss = error_rates(found, model)
        assert false_alarm.shape == miss.shape == (2,)
        assert np.all((miss >= 0) & (miss < 1e-6))


# ---- from the estimate to the label


def test_units_that_cannot_be_told_apart_are_multi():
    """Two similar units and a strong one that stands alone, from the signal to the table of units."""
    gains = [np.r_[h, np.zeros_like(h)] for h in similar(2.0)]
    n_samples = 3 * 800 * 100 + 2 * N_TIMES
    model = slab([*gains, template(25.0, (0.0, 0.0, 1.0, 0.5))], penalty=np.log(n_samples / 800))
    signal, _ = fired(model, (800, 800, 800), 100, seed=8)
    collector = Collector(3, 4, N_TIMES)
    for chunk in gathered(Decoding(Whitened(signal), model, N_TIMES), 50_000, 0, Observer()):
        collector.add(chunk)
    facts = RecordingFacts(20000.0, signal.shape[1], "uV", 0.0, {"masked": np.zeros(4, bool)}, np.ones(4), np.eye(4))
    history = {"spread": np.array([[np.nan, 0.1, 0.1], [0.3, 0.2, 0.1]]), "penalty": np.stack([model.prior.penalty] * 2)}
    sorting = build_sorting(collector, DecodedUnits(model, np.ones(3, bool), history), facts)
    units = sorting.units
    alone = int(units["peak_channel"].tolist().index(2))
    errors = np.maximum(units["estimated_false_alarm"], units["estimated_miss"])
    assert errors[alone] < 0.01
    assert np.delete(errors, alone).min() > ACCEPTED_ERROR
    assert units["label"][alone] == "single"
    assert np.delete(units["label"], alone).tolist() == ["multi", "multi"]
    # the threshold of the table is that of the model, in the unit of the amplitudes
    in_table = units["threshold"] / units["amplitude"]
    np.testing.assert_allclose(np.sort(in_table), np.sort(thresholds(model)), rtol=1e-6)
    # the table begins with the largest unit, and so do all arrays of the model
    order = [int(np.abs(model.templates - found).sum(axis=(1, 2)).argmin()) for found in sorting.templates_whitened]
    assert sorted(order) == [0, 1, 2] != order
    assert sorting.model["sigma"] == 1
    for name, values in model.prior.parameters().items():
        np.testing.assert_array_equal(sorting.model[name], values[order])
        np.testing.assert_array_equal(sorting.model[f"{name}_history"], history[name][:, order])
    np.testing.assert_allclose(sorting.model["whitened_norm"], np.sqrt(model.energy)[order])
    assert sorting.model_of_units == sorting.model.keys() - {"sigma"}
