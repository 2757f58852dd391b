"""The model against data: its log posterior by definition, excerpts on which models are compared, and EM."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from helpers.known_spikes import N_TIMES, REFRACTORY, TWO_SWEEPS, fired, first_slab, rendered, slab, spikes_at, template
from scipy.stats import multivariate_normal

from spikecrsae.crsae.em import expectation_maximisation
from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import SpikeSlab, learned_spread
from spikecrsae.csc.subsample import shift_in_time
from spikecrsae.curate.evidence import COMPARED_SPIKES, Excerpt, parameter_cost
from spikecrsae.data.spikes import Spikes

FIRST_SPREAD, FIRST_PENALTY = (values[0] for values in SpikeSlab.first(1).parameters().values())
SHAPES = [((1.0, 0.3), 3.0), ((0.2, 1.0), 4.0), ((0.8, -0.5), 5.0)]


def three(norms=(20.0, 14.0, 10.0), spread=0.1, penalty=6.0) -> CRsAE:
    return slab([template(n, gains, width) for n, (gains, width) in zip(norms, SHAPES, strict=True)], spread, penalty)


def unequal() -> CRsAE:
    """Three units with priors of their own."""
    return three(spread=(0.05, 0.1, 0.2), penalty=(5.0, 7.0, 9.0))


# ---- the log posterior


@pytest.mark.parametrize("gap", [24, 90], ids=["overlapping", "alone"])
def test_the_log_posterior_is_that_of_its_definition(gap):
    """log N(y; sum of spikes, 1) - log N(y; 0, 1), and of every spike the log of what its prior gives up: the amplitude's
    density over its value at the mode of a posterior with variance 1 / (g + 1 / s^2), and the penalty."""
    model = unequal()
    signal, truth = fired(model, (8, 7, 6), gap, seed=0)
    expected = np.zeros_like(signal, dtype=np.float64)
    prior = 0.0
    for u, t, a, d in zip(truth.unit, truth.sample, truth.amplitude, truth.shift, strict=True):
        expected[:, t : t + N_TIMES] += a * shift_in_time(model.templates[u], d)
        s, g = model.prior.spread[u], (model.templates[u] ** 2).sum()
        prior += (a - 1) ** 2 / (2 * s**2) + 0.5 * np.log(1 + s**2 * g) + model.prior.penalty[u]
    likelihood = -0.5 * ((signal - expected) ** 2).sum() + 0.5 * (signal.astype(np.float64) ** 2).sum()
    assert model.log_posterior(signal, truth) == pytest.approx(likelihood - prior, rel=1e-5)


def test_for_lone_spikes_it_is_the_evidence_with_the_amplitude_integrated_out():
    """log N(window; h, 1 + s^2 h h^T) - log N(window; 0, 1) - p, by scipy, at the decoder's amplitudes."""
    model = unequal()
    truth = spikes_at(np.arange(12) % 3, 20 + 90 * np.arange(12), np.random.default_rng(1).normal(1, 0.1, 12))
    signal = rendered(model, truth, 1200, np.random.default_rng(2))
    still = replace(model, n_shifts=1)
    found = still.encode(signal)
    np.testing.assert_array_equal(found.unit, truth.unit)
    expected = 0.0
    for u, t in zip(found.unit, found.sample, strict=True):
        window, h = signal[:, t : t + N_TIMES].ravel().astype(np.float64), model.templates[u].ravel()
        covariance = np.eye(len(h)) + model.prior.spread[u] ** 2 * np.outer(h, h)
        expected += multivariate_normal.logpdf(window, h, covariance) - model.prior.penalty[u]
        expected -= multivariate_normal.logpdf(window, np.zeros(len(h)))
    assert still.log_posterior(signal, found) == pytest.approx(expected, rel=1e-4)
    assert found.gain.sum() == pytest.approx(expected, rel=1e-4)


def test_no_spike_has_no_log_posterior_and_a_false_one_a_negative():
    model = three()
    noise = np.random.default_rng(3).standard_normal((2, 4000)).astype(np.float32)
    assert model.log_posterior(noise, Spikes.none()) == 0
    for place in (100, 1500, 3900):
        assert model.log_posterior(noise, spikes_at([0], [place])) < -100


# ---- excerpts


def test_an_excerpt_is_the_signal_around_the_spikes_less_the_tails_of_others():
    """Two template lengths before and after every spike, neighbours in one piece, silence between the pieces."""
    model = three()
    signal, truth = fired(model, (30, 30, 30), 70, seed=4)
    starts = truth.sample[truth.unit == 1]
    excerpt = Excerpt.around(model.residual(signal, truth), model, truth, starts, seed=0)
    covered = np.zeros(signal.shape[1], bool)
    for start in starts:
        covered[max(start - 2 * N_TIMES, 0) : start + 3 * N_TIMES] = True
    edges = np.flatnonzero(np.diff(np.r_[0, covered, 0]))
    parts, n_cut = [], 0
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        inside = (truth.sample >= first) & (truth.sample + N_TIMES <= last)
        n_cut += np.sum(~inside & (truth.sample > first - N_TIMES) & (truth.sample < last))
        tails = rendered(model, truth.select(~inside), signal.shape[1], None)
        parts += [signal[:, first:last] - tails[:, first:last], np.zeros((2, N_TIMES))]
    assert len(parts) > 10
    assert n_cut > 5, "some spikes reach in from outside"
    np.testing.assert_allclose(excerpt.signal, np.concatenate(parts, axis=1), atol=1e-4)
    assert excerpt.share == 1


def test_an_excerpt_of_many_spikes_holds_some_drawn_by_the_seed():
    model = three()
    signal, truth = fired(model, (4 * COMPARED_SPIKES, 40, 40), 150, seed=5)
    rest, starts = model.residual(signal, truth), truth.sample[truth.unit == 0]
    first, again, other = (Excerpt.around(rest, model, truth, starts, seed) for seed in (0, 0, 1))
    assert first.share == 0.25
    np.testing.assert_array_equal(first.signal, again.signal)
    assert not np.array_equal(first.signal[:, :2000], other.signal[:, :2000])
    found = model.encode(first.signal)
    assert np.sum(found.unit == 0) == pytest.approx(2 * COMPARED_SPIKES, rel=0.5), "the chosen ones and their neighbours"


def differences(norms, counts, other) -> tuple[float, float]:
    """Log posterior of the model of all units less that of other(model), on the whole signal and on the excerpt around the last
    unit's spikes; the number of parameters is charged to neither."""
    model = three(norms)
    signal, _ = fired(model, counts, 100, seed=6)
    found = model.encode(signal, TWO_SWEEPS)
    whole = [m.log_posterior(signal, m.encode(signal, TWO_SWEEPS)) for m in (model, other(model))]
    starts = found.sample[found.unit == model.n_units - 1]
    excerpt = Excerpt.around(model.residual(signal, found), model, found, starts, seed=0)
    parts = [excerpt.log_posterior(m) for m in (model, other(model))]
    return whole[0] - whole[1], parts[0] - parts[1]


def without_the_last(model: CRsAE) -> CRsAE:
    return model.select(np.arange(model.n_units - 1))


def with_a_worse_last(model: CRsAE) -> CRsAE:
    """The last template a quarter larger than its spikes."""
    templates = model.templates.copy()
    templates[-1] *= 1.25
    return replace(model, templates=templates)


@pytest.mark.parametrize("other", [without_the_last, with_a_worse_last])
@pytest.mark.parametrize("n", [80, 500], ids=["all spikes", "a fifth of the spikes"])
def test_a_comparison_on_an_excerpt_is_that_on_the_whole_signal(n, other):
    whole, part = differences((20.0, 14.0, 10.0), (300, 300, n), other)
    assert whole > 100
    # a fifth of the spikes is a sample: its mean deviates by chance
    assert part == pytest.approx(whole, rel=0.02 if n <= COMPARED_SPIKES else 0.25)


def test_a_template_that_is_not_needed_is_worth_less_than_its_parameters_on_both():
    """The last unit is the first once more, but for a little noise in its template: each takes a part of the spikes."""
    two = three().select([0, 1])
    model = two.select([0, 1, 0])
    model.templates[2] += 0.05 * np.random.default_rng(7).standard_normal(model.templates.shape[1:])
    signal, _ = fired(two, (400, 200), 100, seed=7)
    found = model.encode(signal, TWO_SWEEPS)
    starts = found.sample[found.unit == 2]
    assert 100 < len(starts) < 300
    excerpt = Excerpt.around(model.residual(signal, found), model, found, starts, seed=0)
    cost = parameter_cost(model.templates[2], len(starts))
    assert abs(excerpt.log_posterior(model) - excerpt.log_posterior(two)) < 0.5 * cost
    whole = model.log_posterior(signal, found) - two.log_posterior(signal, two.encode(signal, TWO_SWEEPS))
    assert abs(whole) < 0.5 * cost


def test_several_subsets_on_one_excerpt_are_what_each_gives_alone():
    model = three()
    signal, truth = fired(model, (60, 60, 60), 60, seed=13)
    excerpt = Excerpt.around(model.residual(signal, truth), model, truth, truth.sample[truth.unit == 2], seed=0)
    subsets = [np.ones(3, bool), np.array([True, True, False]), [2, 1]]
    alone = [excerpt.log_posterior(model.select(units)) for units in subsets]
    np.testing.assert_allclose(excerpt.log_posteriors(model, subsets), alone, rtol=1e-4)
    assert alone[0] > max(alone[1:]) + 1000


def test_what_a_unit_is_worth_to_the_known_spikes_is_what_it_is_worth_to_those_found():
    model = three()
    signal, _ = fired(model, (300, 300, 500), 70, seed=14)
    found = model.encode(signal, TWO_SWEEPS)
    rest = model.residual(signal, found)
    for unit in range(3):
        excerpt = Excerpt.around(rest, model, found, found.sample[found.unit == unit], seed=0)
        np.testing.assert_array_less(1, np.bincount(excerpt.known.unit, minlength=3), "all units have spikes in it")
        everybody, others = np.ones(3, bool), np.flatnonzero(np.arange(3) != unit)
        with_it, without_it = excerpt.log_posteriors(model, [everybody, others])
        assert excerpt.loss_without(model, unit, everybody) == pytest.approx(with_it - without_it, rel=0.02)
        # the residual of the known spikes is that of the whole signal
        residual = model.residual(excerpt.signal, excerpt.known)
        lowest = excerpt.known.sample[0]
        np.testing.assert_allclose(residual[:, lowest : lowest + N_TIMES].std(), 1, atol=0.3)


def test_spikes_that_move_stay_in_order_and_within_the_signal():
    spikes = spikes_at([0, 1, 0, 1], [3, 5, 40, 90], np.array([1.0, 2.0, 3.0, 4.0]))
    moved = spikes.moved(np.array([10, -7]), 80)
    np.testing.assert_array_equal(moved.sample, [13, 50])
    np.testing.assert_array_equal(moved.amplitude, [1, 3])
    there = spikes.moved(np.array([10, -4]), 90)
    np.testing.assert_array_equal(there.sample, [1, 13, 50, 86])
    np.testing.assert_array_equal(there.unit, [1, 0, 0, 1])


# ---- models


def test_units_are_kept_by_index_or_mask_and_added_with_the_first_prior():
    model = unequal()
    for units in ([2, 0], np.array([2, 0])):
        kept = model.select(units)
        np.testing.assert_array_equal(kept.templates, model.templates[[2, 0]])
        assert kept.prior.spread.tolist() == [0.2, 0.05]
        assert kept.prior.penalty.tolist() == [9.0, 5.0]
    masked = model.select(np.array([True, False, True]))
    assert masked.prior.penalty.tolist() == [5.0, 9.0]
    more = masked.extended(model.templates[1:2])
    np.testing.assert_array_equal(more.templates, model.templates[[0, 2, 1]])
    assert more.prior.spread.tolist() == [0.05, 0.2, FIRST_SPREAD]
    assert more.prior.penalty.tolist() == [5.0, 9.0, FIRST_PENALTY]
    assert more.refractory == first_slab(model.templates).refractory == REFRACTORY
    from_nothing = model.select(np.zeros(3, bool)).extended(model.templates)
    np.testing.assert_array_equal(from_nothing.templates, model.templates)
    assert model.n_units == 3, "the model itself is not changed"


def test_a_template_costs_half_a_log_count_per_parameter():
    """What the Bayesian information criterion charges: for a template of 80 numbers, 276 at 1000 spikes."""
    assert parameter_cost(np.zeros((2, 40)), 1000) == pytest.approx(40 * np.log(1000))
    assert parameter_cost(np.zeros((4, 40)), 1000) == pytest.approx(2 * parameter_cost(np.zeros((2, 40)), 1000))
    assert parameter_cost(np.zeros((2, 40)), 0) == parameter_cost(np.zeros((2, 40)), 2) > 0


@pytest.mark.parametrize(("spread", "n", "energy"), [(0.1, 3000, 400.0), (0.15, 3000, 100.0), (0.06, 3000, 1600.0)])
def test_the_spread_is_learned_without_what_noise_adds(spread, n, energy):
    rng = np.random.default_rng(8)
    seen = rng.normal(1.0, spread, n) + rng.standard_normal(n) / np.sqrt(energy)
    assert learned_spread(seen, energy) == pytest.approx(spread, rel=0.12)
    # spikes of a smaller neuron among the unit's hardly widen it
    assert learned_spread(np.r_[seen, rng.normal(0.4, 0.1, n // 7)], energy) == pytest.approx(spread, rel=0.25)


def test_the_spread_has_no_bounds_and_few_spikes_leave_it_where_it_was():
    rng = np.random.default_rng(9)
    assert learned_spread(np.ones(5000), 400.0) < 0.02
    assert learned_spread(rng.normal(1, 0.6, 5000), 400.0) == pytest.approx(0.6, rel=0.1)
    assert learned_spread(rng.normal(1, 0.3, 3), 400.0) == pytest.approx(FIRST_SPREAD, rel=0.5)


@pytest.mark.parametrize(
    ("norms", "spread"), [((20.0, 14.0, 10.0), 0.1), ((12.0, 8.0, 7.0), 0.1), ((40.0, 30.0, 20.0), 0.05)]
)
def test_em_raises_the_log_posterior(norms, spread):
    """From templates with an error of a third of their norm. Not every step is an ascent, since spreads are bounded and come
    from quantiles: no round loses more than 0.02 per spike, and together they gain much."""
    true = three(norms)
    signal, truth = fired(true, (250, 200, 150), 45, seed=10, spread=spread)
    error = np.random.default_rng(11).standard_normal(true.templates.shape)
    error *= (0.3 * np.array(norms) / np.sqrt((error**2).sum(axis=(1, 2))))[:, None, None]
    model, values, found = first_slab(true.templates + error), [], None
    for _ in range(5):
        found = model.encode(signal, TWO_SWEEPS, near=found)
        values.append(model.log_posterior(signal, found))
        model = model.maximise(signal, found)
    assert min(after - before for before, after in pairwise(values)) > -0.02 * len(truth)
    assert values[-1] - values[0] > len(truth)
    by_hand = model.log_posterior(signal, model.encode(signal, TWO_SWEEPS, near=found))
    anew = model.log_posterior(signal, model.encode(signal, TWO_SWEEPS))
    assert by_hand > anew - 0.002 * len(truth), "going on from the spikes before is as good as encoding anew"
    learned, spikes = expectation_maximisation(signal, first_slab(true.templates + error), 5)
    assert learned.log_posterior(signal, spikes) == pytest.approx(by_hand, rel=1e-6)
    # a template is known up to a shift below one sample, which its spikes' shifts make good
    for found, wanted, n in zip(learned.templates, true.templates, (250, 200, 150), strict=True):
        away = min(np.linalg.norm(shift_in_time(found, by) - wanted) for by in np.linspace(-0.5, 0.5, 21))
        assert away < 2 * np.sqrt(wanted.size / n) + 0.01 * np.linalg.norm(wanted)
    # the true model is hardly better than what was learned
    assert by_hand > true.log_posterior(signal, true.encode(signal)) - len(truth)


def test_templates_are_scaled_to_a_mean_amplitude_of_one():
    """From templates that are a fifth too small, in one step."""
    true = three()
    signal, _ = fired(true, (150, 150, 150), 90, seed=14)
    small = replace(true, templates=0.8 * true.templates)
    found = small.encode(signal)
    assert found.amplitude.mean() > 1.1
    np.testing.assert_allclose(np.sqrt(small.maximise(signal, found).energy), np.sqrt(true.energy), rtol=0.04)


def test_units_without_a_spike_keep_what_they_have():
    model = three()
    signal, _ = fired(model.select([0, 1]), (100, 100), 90, seed=12)
    absent = model.select([0, 1]).extended(template(30.0, (-1.0, 0.5), 3.0)[None])
    learned = absent.maximise(signal, absent.encode(signal))
    np.testing.assert_array_equal(learned.templates[2], absent.templates[2])
    assert (learned.prior.spread[2], learned.prior.penalty[2]) == (FIRST_SPREAD, FIRST_PENALTY)
    assert learned.prior.penalty[0] == pytest.approx(np.log(signal.shape[1] / 100), abs=0.05)
    assert absent.maximise(signal, Spikes.none()) is absent


def test_what_a_unit_is_worth_does_not_depend_on_units_of_other_channels():
    gains = [(1.0, 0.3, 0.0, 0.0, 0.0, 0.0), (0.2, 1.0, 0.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0, 0.8, -0.5)]
    model = slab([template(n, g, w) for n, g, w in zip((20.0, 14.0, 25.0), gains, (3.0, 4.0, 5.0), strict=True)], 0.1, 6.0)
    signal, _ = fired(model, (300, 300, 900), 40, seed=15)
    found = model.encode(signal, TWO_SWEEPS)
    rest, near = model.residual(signal, found), np.array([True, True, False])
    for unit in range(2):
        starts = found.sample[found.unit == unit]
        everyone = Excerpt.around(rest, model, found, starts, seed=0)
        beside = Excerpt.around(rest, model, found.select(near[found.unit]), starts, seed=0)
        assert np.sum(everyone.known.unit == 2) > 30
        expected = everyone.loss_without(model, unit, np.ones(3, bool))
        assert beside.loss_without(model, unit, near) == pytest.approx(expected, rel=0.02)
