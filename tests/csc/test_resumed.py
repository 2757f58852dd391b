"""Encoding that goes on from known spikes, against encoding anew: as good by the log posterior, whatever it starts from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.known_spikes import spikes_at

from spikecrsae.crsae.em import E_STEP, expectation_maximisation
from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import Laplace, SpikeSlab
from spikecrsae.csc.torch_backend import TorchBackend
from spikecrsae.data.spikes import Spikes

#: What going on may lose against encoding anew: log posterior for each spike.
CLOSE = 0.002


def crowded(seed: int, n_units: int = 4, n_samples: int = 20_000, rate: float = 0.015) -> tuple[CRsAE, np.ndarray, Spikes]:
    """A model of similar units, noise in which their spikes often overlap, and these spikes."""
    rng, n_times = np.random.default_rng(seed), 36
    time = np.arange(n_times) - 12
    templates = []
    for _ in range(n_units):
        trough = np.exp(-0.5 * (time / rng.uniform(2, 4)) ** 2)
        shape = trough - rng.uniform(0.2, 0.6) * np.exp(-0.5 * ((time - rng.uniform(5, 9)) / rng.uniform(3, 6)) ** 2)
        one = np.outer(rng.uniform(0.2, 1, 3), shape)
        templates.append(-rng.uniform(9, 20) * one / np.linalg.norm(one))
    model = CRsAE(np.stack(templates), SpikeSlab(np.full(n_units, 0.08), np.full(n_units, 6.0)), refractory=20)
    sample = np.sort(rng.choice(n_samples - n_times, int(rate * n_samples), replace=False))
    unit, signal = rng.integers(0, n_units, len(sample)), rng.standard_normal((3, n_samples))
    apart = np.ones(len(sample), bool)
    for u in range(n_units):
        mine = np.flatnonzero(unit == u)
        apart[mine[1:]] = np.diff(sample[mine]) > 20
    truth = spikes_at(unit[apart], sample[apart], rng.normal(1, 0.08, apart.sum()))
    return model, (signal + model.decode(truth, n_samples)).astype(np.float32), truth


def changed(model: CRsAE, share: float, seed: int) -> CRsAE:
    """The model with an error of this share of its templates' norms."""
    error = np.random.default_rng(seed).standard_normal(model.templates.shape)
    norms = [np.linalg.norm(values, axis=(1, 2), keepdims=True) for values in (model.templates, error)]
    return replace(model, templates=model.templates + share * error * norms[0] / norms[1])


def gained(model: CRsAE, signal: np.ndarray, near: Spikes) -> float:
    """Log posterior of going on from some spikes less that of encoding anew, for each spike."""
    anew, again = model.encode(signal, E_STEP), model.encode(signal, E_STEP, near=near)
    return (model.log_posterior(signal, again) - model.log_posterior(signal, anew)) / len(anew)


def test_the_spikes_of_the_same_model_stay_and_fit_better_among_the_others():
    """Each is fitted once more with all others in place, which the greedy search could not do."""
    for seed in range(3):
        model, signal, _ = crowded(seed)
        first = model.encode(signal, E_STEP)
        again = model.encode(signal, E_STEP, near=first)
        away = np.abs(again.sample[:, None] - first.sample)
        same = ((away <= 1) & (again.unit[:, None] == first.unit)).any(axis=1)
        assert same.mean() > 0.97 and len(again) == len(first)
        assert model.log_posterior(signal, again) > model.log_posterior(signal, first)


@pytest.mark.parametrize("share", [0.03, 0.1])
def test_after_a_change_of_the_templates_going_on_is_as_good_as_encoding_anew(share):
    found = []
    for seed in range(6):
        model, signal, _ = crowded(seed)
        found.append(gained(model, signal, changed(model, share, seed).encode(signal, E_STEP)))
    assert np.min(found) > -CLOSE


def test_missing_spikes_are_found_and_false_ones_go():
    """From a beginning that lacks a third of the spikes, has a tenth of the others under another name, and as many false ones again. So far from
    the end some recordings end better than anew and some worse; in the mean nothing is lost."""
    found = []
    for seed in range(6):
        model, signal, truth = crowded(seed)
        rng, n = np.random.default_rng(seed), len(truth)
        kept = truth.select(rng.random(n) < 2 / 3)
        unit = np.where(rng.random(len(kept)) < 0.1, (kept.unit + 1) % model.n_units, kept.unit)
        false = np.sort(rng.integers(0, signal.shape[1] - model.n_times, n))
        near = spikes_at(np.r_[unit, rng.integers(0, model.n_units, n)], np.r_[kept.sample, false])
        found.append(gained(model, signal, near))
    assert np.mean(found) > -CLOSE


def test_beginning_with_nothing_is_encoding_anew_with_every_place_searched():
    model, signal, _ = crowded(1)
    anew, again = model.encode(signal, E_STEP), model.encode(signal, E_STEP, near=Spikes.none())
    assert model.log_posterior(signal, again) >= model.log_posterior(signal, anew) - 1e-3 * len(anew)


def test_torch_goes_on_like_numba():
    for seed in range(3):
        model, signal, _ = crowded(seed)
        near = changed(model, 0.05, seed).encode(signal, E_STEP)
        numba, torch = (
            replace(model, backend=backend).encode(signal, E_STEP, near=near)
            for backend in (model.backend, TorchBackend("cpu"))
        )
        np.testing.assert_array_equal(torch.unit, numba.unit)
        np.testing.assert_array_equal(torch.sample, numba.sample)
        np.testing.assert_allclose(torch.amplitude, numba.amplitude, rtol=1e-4)


def test_the_levels_of_the_noise_count_as_they_do_anew():
    """Where the noise is loud a spike needs more: as many are found there as anew."""
    model, signal, _ = crowded(2)
    level = np.zeros(signal.shape[1], np.uint8)
    level[8000:14000] = 6
    near = changed(model, 0.05, 2).encode(signal, E_STEP, level)
    anew, again = model.encode(signal, E_STEP, level), model.encode(signal, E_STEP, level, near)
    loud = [np.sum((spikes.sample >= 8000) & (spikes.sample < 13960)) for spikes in (anew, again)]
    assert loud[1] == pytest.approx(loud[0], abs=3) and loud[0] > 20
    np.testing.assert_array_equal(np.unique(again.expected), np.unique(anew.expected))


def test_a_convex_encoder_decides_alone_where_spikes_may_be():
    model, signal, truth = crowded(3)
    model = replace(model, prior=Laplace.first(4))
    anew, again = model.encode(signal, E_STEP), model.encode(signal, E_STEP, near=truth)
    np.testing.assert_array_equal(again.sample, anew.sample)
    np.testing.assert_array_equal(again.unit, anew.unit)


def test_training_that_goes_on_learns_as_well_as_training_anew():
    for seed in range(3):
        true, signal, _ = crowded(seed)
        learned, found = expectation_maximisation(signal, changed(true, 0.2, seed), 4)
        model = changed(true, 0.2, seed)
        for _ in range(4):
            model = model.maximise(signal, model.encode(signal, E_STEP))
        by_hand = model.log_posterior(signal, model.encode(signal, E_STEP))
        assert learned.log_posterior(signal, found) > by_hand - CLOSE * len(found)


def test_some_units_of_a_model_have_its_overlaps():
    model, _, _ = crowded(0)
    units = np.array([2, 0])
    assert model.overlaps.any() and model.shifted.any()
    some, fresh = model.select(units), CRsAE(model.templates[units], model.prior.select(units), refractory=20)
    np.testing.assert_array_equal(some.shifted, fresh.shifted)
    np.testing.assert_allclose(some.overlaps, fresh.overlaps, atol=1e-3)
    np.testing.assert_array_equal(model.select(np.array([True, False, True, False])).shifted, model.select([0, 2]).shifted)
