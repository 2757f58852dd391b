"""CRsAE: encoder and decoder, the M-step, and what it keeps of units that have no spikes; for both priors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.known_spikes import N_TIMES, REFRACTORY, fired, matched, rendered, slab, spikes_at, template

from spikecrsae.crsae.em import E_STEP, expectation_maximisation
from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import PRIORS, Laplace, SpikeSlab
from spikecrsae.curate.evidence import parameter_cost
from spikecrsae.data.spikes import Spikes
from spikecrsae.errors import InputError, UsageError
from spikecrsae.simulate import perturb_templates, template_error_db

TRUE = slab([template(30.0), template(22.0, (0.2, 1.0), width=6.0), template(18.0, (1.0, -0.7), width=3.0)])


@pytest.fixture(scope="module")
def recording() -> tuple[np.ndarray, Spikes]:
    return fired(TRUE, (300, 240, 200), gap=50, seed=1)


def with_prior(name: str, model: CRsAE = TRUE) -> CRsAE:
    return replace(model, prior=PRIORS[name].first(model.n_units))


def errors_db(model: CRsAE, n_units: int = 3) -> np.ndarray:
    pairs = zip(TRUE.templates, model.templates[:n_units], strict=True)
    return np.array([template_error_db(true, found) for true, found in pairs])


priors = pytest.mark.parametrize("prior", PRIORS)


@priors
def test_the_encoder_finds_the_spikes_and_the_decoder_their_signal(recording, prior):
    signal, true = recording
    model = with_prior(prior)
    found = model.encode(signal)
    n_same = sum(matched(found.sample[found.unit == c], true.sample[true.unit == c], 2) for c in range(3))
    assert n_same >= 0.98 * max(len(found), len(true))
    decoded = model.decode(found, signal.shape[1])
    np.testing.assert_allclose(signal - decoded, model.residual(signal, found), atol=1e-4)
    without_noise = rendered(TRUE, true, signal.shape[1], None)
    assert ((decoded - without_noise) ** 2).sum() < 0.02 * (without_noise**2).sum()
    assert model.residual(signal, found).std() == pytest.approx(1.0, abs=0.03)


@priors
def test_the_scale_of_the_signal_does_not_matter(recording, prior):
    signal, _ = recording
    model = with_prior(prior)
    louder = replace(model, templates=1000 * model.templates, sigma=1000.0)
    expected, found = model.encode(signal), louder.encode(1000 * signal)
    for name in ("unit", "sample", "shift", "rival"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_allclose(found.amplitude, expected.amplitude, rtol=1e-3)
    learned, there = model.maximise(signal, expected), louder.maximise(1000 * signal, expected)
    np.testing.assert_allclose(there.templates, 1000 * learned.templates, rtol=1e-3, atol=1e-2)
    for name, values in learned.prior.parameters().items():
        np.testing.assert_allclose(there.prior.parameters()[name], values, rtol=1e-3)
    assert louder.log_posterior(1000 * signal, expected) == pytest.approx(model.log_posterior(signal, expected), rel=1e-5)
    np.testing.assert_allclose(louder.misfit(1000 * signal, expected), 1e6 * model.misfit(signal, expected), rtol=1e-3)


@priors
def test_em_raises_the_log_posterior_and_mends_the_templates(recording, prior):
    signal, _ = recording
    spoiled = perturb_templates(TRUE.templates, -6.0, np.random.default_rng(0))
    model = with_prior(prior, replace(TRUE, templates=spoiled))
    values, errors = [], []
    for _ in range(4):
        found = model.encode(signal, E_STEP)
        values.append(model.log_posterior(signal, found))
        errors.append(errors_db(model).mean())
        model = model.maximise(signal, found)
    assert values[1] > values[0] and values[-1] > values[0] + 1000
    assert np.diff(values).min() > -0.01 * (values[-1] - values[0])
    assert errors[0] == pytest.approx(-6.0) and errors[-1] < -12


@priors
def test_a_template_is_the_mean_spike_and_the_prior_is_relative_to_it(recording, prior):
    """The same spikes with amplitudes that are three times as large give the same model."""
    signal, true = recording
    model = with_prior(prior)
    learned = model.maximise(signal, true)
    smaller = replace(model, templates=model.templates / 3)
    again = smaller.maximise(signal, replace(true, amplitude=3 * true.amplitude))
    np.testing.assert_allclose(learned.templates, TRUE.templates, atol=0.5)
    np.testing.assert_allclose(again.templates, learned.templates, rtol=1e-6, atol=1e-6)
    if prior == "laplace":  # its amplitudes are least squares as they are
        np.testing.assert_allclose(again.prior.lam, learned.prior.lam, rtol=1e-6)
    else:  # a slab so wide that it shrinks nothing
        wide = replace(smaller, prior=SpikeSlab(np.full(3, 1e3), smaller.prior.penalty))
        there = replace(model, prior=wide.prior).maximise(signal, true)
        found = wide.maximise(signal, replace(true, amplitude=3 * true.amplitude))
        np.testing.assert_allclose(found.prior.spread, there.prior.spread, rtol=1e-4)


def test_the_m_step_learns_the_prior_that_the_spikes_are_drawn_from():
    true = slab([template(40.0), template(30.0, (0.2, 1.0), width=6.0)], spread=(0.08, 0.2))
    signal, spikes = fired(true, (1600, 800), gap=90, seed=2)
    model, found = expectation_maximisation(signal, with_prior("spike-slab", true), 3)
    np.testing.assert_allclose(model.prior.spread, true.prior.spread, rtol=0.15)
    np.testing.assert_allclose(model.prior.penalty, np.log(signal.shape[1] / np.array([1600, 800])), atol=0.03)
    assert len(found) == pytest.approx(len(spikes), rel=0.02)
    longer = true.maximise(signal, spikes, n_positions=10 * signal.shape[1])
    np.testing.assert_allclose(longer.prior.penalty, model.prior.penalty + np.log(10), atol=0.03)


@priors
def test_silent_units_keep_template_and_prior_and_units_keep_their_order(recording, prior):
    signal, true = recording
    silent = template(25.0, (-1.0, 0.5), width=8.0)
    spoiled = perturb_templates(TRUE.templates, -8.0, np.random.default_rng(1))
    model = with_prior(prior, slab([spoiled[0], silent, spoiled[1], spoiled[2]]))
    known = {name: np.array([1.0, 7.0, 1.0, 1.0]) * values for name, values in model.prior.parameters().items()}
    model = replace(model, prior=PRIORS[prior].of_parameters(known))
    learned = model.maximise(signal, replace(true, unit=np.array([0, 2, 3])[true.unit]))
    np.testing.assert_array_equal(learned.templates[1], silent)
    for name, values in learned.prior.parameters().items():
        assert values[1] == known[name][1]
    assert errors_db(learned.select([0, 2, 3])).max() < -12
    # of a single spike no template is made
    alone = model.maximise(signal, true.select(slice(0, 1)))
    np.testing.assert_array_equal(alone.templates, model.templates)
    assert model.maximise(signal, Spikes.none()) is model


def test_on_channels_without_support_templates_stay_zero(recording):
    """And a dead channel, where the signal is zero, gets a template of zero."""
    signal, true = recording
    support = np.array([[True, False], [True, True], [True, True]])
    model = replace(TRUE, support=support, templates=TRUE.templates * support[:, :, None])
    learned = model.maximise(signal, true)
    assert not learned.templates[0, 1].any() and learned.templates[1, 1].any()
    dead = signal * np.array([[1], [0]], np.float32)
    start = replace(TRUE, templates=TRUE.templates * np.array([[1], [0]]))
    learned, found = expectation_maximisation(dead, start, 2)
    assert not learned.templates[:, 1].any() and np.isfinite(learned.templates).all()
    assert len(found) > 0.8 * len(true)


@priors
def test_every_spike_stands_at_an_active_position(recording, prior):
    signal, _ = recording
    model = with_prior(prior)
    active, strong = model.active(signal)
    found = model.encode(signal)
    near = active | np.roll(active, 1) | np.roll(active, -1)
    assert near[found.sample].all()
    assert strong.any() and not (strong & ~active).any() and active.mean() < 0.3


@priors
def test_a_view_of_some_units_is_theirs(recording, prior):
    signal, _ = recording
    model = with_prior(prior)
    expected = model.select([2, 0]).encode(signal)
    found = model.select([2, 0]).encode(model.view(signal).select([2, 0]))
    np.testing.assert_array_equal(found.sample, expected.sample)
    np.testing.assert_array_equal(found.unit, expected.unit)
    again = model.encode(model.seen(signal))
    np.testing.assert_array_equal(again.sample, model.encode(signal).sample)


@priors
def test_a_model_is_what_its_dictionary_says(prior):
    model = replace(with_prior(prior), refractory=33, n_shifts=4, local_search=False, sigma=1.5)
    again = CRsAE.of_dict(model.to_dict())
    assert type(again.prior) is PRIORS[prior] and again.to_dict().keys() == model.to_dict().keys()
    for name in ("refractory", "n_shifts", "local_search", "sigma"):
        assert getattr(again, name) == getattr(model, name)
    np.testing.assert_array_equal(again.templates, model.templates)
    np.testing.assert_array_equal(again.support, model.support)
    for name, values in model.prior.parameters().items():
        np.testing.assert_array_equal(again.prior.parameters()[name], values)


def test_units_are_added_with_the_prior_of_what_is_not_known_yet():
    model = replace(TRUE, prior=SpikeSlab(np.full(3, 0.05), np.full(3, 4.0)))
    more = model.extended(np.stack([template(9.0)]))
    assert more.n_units == 4 and more.support[3].all()
    assert more.prior.spread.tolist() == [0.05, 0.05, 0.05, SpikeSlab.first(1).spread[0]]
    np.testing.assert_array_equal(more.select(np.arange(4) < 3).templates, model.templates)


def test_local_search_is_a_setting_of_the_model():
    """A collision that looks like a third unit: the encoder alone takes the third."""
    rng = np.random.default_rng(6)
    first, second = (15 * w / np.linalg.norm(w) for w in rng.standard_normal((2, 4, 30)).astype(np.float32))
    third = 0.93 * (first + np.roll(second, 2, axis=1))
    model = CRsAE(np.stack([first, second, third]), SpikeSlab(np.full(3, 0.05), np.full(3, 8.0)), refractory=10)
    signal = rng.standard_normal((4, 400)).astype(np.float32)
    signal[:, 100:130] += first
    signal[:, 102:132] += second
    assert model.encode(signal).unit.tolist() == [0, 1]
    assert replace(model, local_search=False).encode(signal).unit[0] == 2


@priors
def test_nothing_is_found_in_nothing(prior):
    model = with_prior(prior)
    assert not len(model.encode(np.zeros((2, 1000), np.float32)))
    assert not len(model.encode(np.zeros((2, 10), np.float32)))
    nobody = model.select(np.zeros(0, int))
    assert not len(nobody.encode(np.ones((2, 100), np.float32)))
    assert nobody.maximise(np.ones((2, 100), np.float32), Spikes.none()) is nobody
    assert model.log_posterior(np.ones((2, 100), np.float32), Spikes.none()) == 0
    noise = np.random.default_rng(0).standard_normal((2, 50_000)).astype(np.float32)
    assert len(model.encode(noise)) <= 2


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="must be \\(n_units, n_channels, n_times\\)"):
        CRsAE(TRUE.templates[0], TRUE.prior)
    with pytest.raises(InputError, match="another number of units than the 3 templates"):
        CRsAE(TRUE.templates, Laplace.first(2))
    for sigma in (0.0, -1.0, np.nan):
        with pytest.raises(UsageError, match="must be a positive noise level"):
            replace(TRUE, sigma=sigma)


def test_a_spike_gains_what_the_log_posterior_loses_without_it():
    """Gain and rival gain of a spike that stands alone are differences of log posteriors."""
    model = slab([template(20.0), template(19.0, (0.9, 0.6))])
    signal = rendered(model, spikes_at([0, 1], [100, 300]), 500, np.random.default_rng(0))
    found = model.encode(signal)
    assert found.unit.tolist() == [0, 1]
    for i in range(2):
        alone = found.select(slice(i, i + 1))
        assert found.gain[i] == pytest.approx(model.log_posterior(signal, alone), rel=1e-3)
        assert found.rival[i] == 1 - i and found.rival_gain[i] < found.gain[i]


def test_on_a_probe_a_template_lives_where_it_stands_out():
    """Eight channels, two neurons on three of them each: elsewhere their templates are zero, and their cost counts nothing."""
    rng = np.random.default_rng(8)
    gains = np.zeros((2, 8))
    gains[0, :3], gains[1, 4:7] = (1.0, 0.6, 0.3), (0.4, 1.0, 0.5)
    true = CRsAE(np.stack([template(15.0, g) for g in gains]), SpikeSlab.first(2), refractory=REFRACTORY)
    signal, spikes = fired(true, (300, 200), 60, 8)
    start = replace(true, templates=true.templates + 0.3 * rng.standard_normal(true.templates.shape))
    learned = start.maximise(signal, spikes)
    np.testing.assert_array_equal(learned.support, gains > 0)
    assert not learned.templates[~learned.support].any() and learned.templates[learned.support].any(axis=1).all()
    assert np.linalg.norm(learned.templates - true.templates) < np.linalg.norm(start.templates - true.templates) / 2
    assert parameter_cost(learned.templates[0], 300) == pytest.approx(0.5 * 3 * N_TIMES * np.log(300))


def test_units_of_other_channels_change_no_spike():
    gains = [(1.0, 0.3, 0.1), (0.2, 1.0, 0.4), (0.5, 0.9, 0.8)]
    alone = slab([template(n, g, w) for n, g, w in zip((18.0, 14.0, 10.0), gains, (3.0, 4.0, 3.5), strict=True)])
    none = np.zeros_like(alone.templates)
    both = slab([*np.hstack([alone.templates, none]), *np.hstack([none, alone.templates])])
    # so crowded that spikes of one part come with spikes of the other everywhere
    signals = [fired(alone, (300, 300, 300), 15, seed)[0] for seed in (1, 2)]
    together = both.encode(np.concatenate(signals))
    for part, signal in enumerate(signals):
        mine, expected = together.select(together.unit // 3 == part), alone.encode(signal)
        assert len(expected) > 600
        np.testing.assert_array_equal(mine.unit % 3, expected.unit)
        # in a crowd it depends a little on the order in which places are searched
        moved = np.abs(mine.sample + mine.shift - expected.sample - expected.shift)
        same = (moved == 0) & np.isclose(mine.amplitude, expected.amplitude, atol=0.01)
        assert same.mean() > 0.98 and moved.max() < 0.5
