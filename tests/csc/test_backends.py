"""The torch backend against the numba one: the same correlations, spikes, statistics and codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.worlds import TORCH, assert_same_spikes, n_agreeing, on_torch, world
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import Laplace, SpikeSlab
from spikecrsae.csc import layered_search, local_search, numba_backend, torch_backend
from spikecrsae.csc.coordinate import encode_correlation
from spikecrsae.csc.layered_search import LayeredSearch
from spikecrsae.csc.numba_backend import NUMBA
from spikecrsae.csc.objective import kkt_violation, objective
from spikecrsae.csc.operator import gram
from spikecrsae.csc.pursuit import L1, Effort, Tables, outside_support
from spikecrsae.csc.torch_backend import TorchBackend
from spikecrsae.data.loudness import expected_at, noise_of
from spikecrsae.data.spikes import Spikes

seeds = st.integers(0, 10_000)


@given(seeds, st.sampled_from([np.float32, np.float64]))
@settings(max_examples=15, deadline=None)
def test_correlation_and_active_places_are_the_same(seed, dtype):
    model, signal = world(seed, dtype=dtype)
    expected = model.view(signal).correlation
    for keep in (False, True):
        seen = TORCH.seen(signal, model.n_times, keep)
        found = TORCH.correlation(seen, model.templates)
        assert found.numpy().dtype == expected.dtype == seen.dtype
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-3 if dtype == np.float32 else 1e-9)
    for found, expected in zip(on_torch(model).active(signal), model.active(signal), strict=True):
        assert (found != expected).mean() < 1e-3 and expected.any()


@given(seeds)
@settings(max_examples=15, deadline=None)
def test_residual_misfits_and_statistics_of_the_codes_are_the_same(seed):
    """Also for many events on few samples, and templates that reach beyond both ends."""
    model, signal = world(seed)
    rng, torch_model = np.random.default_rng(seed), on_torch(model, TorchBackend("cpu", at_once=1500))
    n, last = 400, signal.shape[1] - model.n_times
    sample = np.sort(np.r_[rng.integers(0, last + 1, n - 100), rng.integers(3000, 3050, 98), 0, last])
    none = np.zeros(n)
    spikes = Spikes(
        rng.integers(0, model.n_units, n), sample, rng.normal(1, 0.1, n), rng.choice(model.shifts(), n), *3 * [none]
    )
    expected = model.residual(signal, spikes)
    assert expected.dtype == torch_model.residual(signal, spikes).dtype == np.float32
    np.testing.assert_allclose(torch_model.residual(signal, spikes), expected, atol=1e-3)
    beyond = replace(spikes, sample=np.sort(rng.integers(-model.n_times, signal.shape[1] + model.n_times, n)))
    np.testing.assert_allclose(torch_model.residual(signal, beyond), model.residual(signal, beyond), atol=1e-3)
    own = signal.copy()
    assert torch_model.residual(own, spikes, own) is own
    np.testing.assert_allclose(own, expected, atol=1e-3)
    np.testing.assert_allclose(torch_model.misfit(signal, spikes), model.misfit(signal, spikes), rtol=1e-4)
    arguments = signal, spikes.unit, sample, spikes.amplitude, model.n_units, model.n_times
    for found, there in zip(torch_model.backend.code_statistics(*arguments), NUMBA.code_statistics(*arguments), strict=True):
        assert found.dtype == there.dtype == np.float64
        np.testing.assert_allclose(found, there, rtol=1e-9, atol=1e-9)
    templates = torch_model.maximise(signal, spikes).templates
    np.testing.assert_allclose(templates, model.maximise(signal, spikes).templates, atol=1e-6)


@given(seeds, st.integers(1, 300), st.sampled_from([7, 100, 1 << 19]))
@settings(max_examples=20, deadline=None)
def test_energy_in_a_span_is_the_same(seed, n_samples, at_once):
    rng = np.random.default_rng(seed)
    shapes = np.linalg.qr(rng.standard_normal((20, 3)))[0].T.astype(np.float32)
    signal = rng.standard_normal((2, n_samples)).astype(np.float32)
    found = TorchBackend("cpu", at_once=at_once).energy_in_span(signal, shapes)
    expected = NUMBA.energy_in_span(signal, shapes)
    assert found.dtype == expected.dtype == np.float32 and found.shape == expected.shape == (n_samples,)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@given(seeds, st.booleans(), st.sampled_from([0.003, 0.02, 0.06]))
@settings(max_examples=30, deadline=None)
def test_the_pursuit_finds_the_same_spikes(seed, with_local_search, rate):
    model, signal = world(seed, rate)
    model = replace(model, local_search=with_local_search)
    for given_signal in (signal, signal.astype(np.float64)):
        expected, found = model.encode(given_signal), on_torch(model).encode(given_signal)
        assert len(expected) > 0
        assert_same_spikes(found, expected)
        assert on_torch(model).log_posterior(signal, found) == pytest.approx(model.log_posterior(signal, expected), rel=1e-3)
    view, some = on_torch(model).view(signal), np.arange(model.n_units) != 1
    for units in (some, np.flatnonzero(some)):
        assert_same_spikes(on_torch(model).select(units).encode(view.select(units)), model.select(units).encode(signal))


@pytest.mark.parametrize("with_local_search", [True, False])
def test_over_many_worlds_the_pursuit_finds_the_same_spikes(with_local_search):
    agreeing = total = 0
    for seed in range(20):
        model, signal = world(seed, 0.06)
        model = replace(model, local_search=with_local_search)
        expected, found = model.encode(signal), on_torch(model).encode(signal)
        agreeing += n_agreeing(found, expected)
        total += max(len(found), len(expected))
    assert total > 2000 and agreeing >= 0.999 * total


def largest_within_reach(rows: np.ndarray, touched: int) -> np.ndarray:
    """Of candidates (FOUND_DTYPE), those that nothing within reach precedes, by position: the rule written out."""
    order = np.lexsort((rows["unit"], rows["position"], -rows["gain"]))
    rank = np.argsort(order)
    near = np.abs(rows["position"][:, None] - rows["position"]) <= touched
    taken = rows[~(near & (rank[None, :] < rank[:, None])).any(axis=1)]
    return taken[np.argsort(taken["position"])]


@given(seeds, st.booleans())
@settings(max_examples=15, deadline=None)
def test_both_searches_take_layer_by_layer_what_is_largest_within_reach(seed, tied):
    """tied: two pairs of units have the same template, and the signal repeats itself; which of a pair is taken is decided by
    rounding after the first layer."""
    model, signal = world(seed, n_samples=2500)
    if tied:
        twice = np.arange(model.n_units).repeat(2)
        model, signal = model.select(twice), np.tile(signal[:, :200], 12)
    correlation = np.ascontiguousarray(model.view(signal.astype(np.float64)).correlation)
    tables = Tables.of(model.overlaps, model.prior.shrinkage, model.refractory, model.shifts(), np.float64)
    if tied:  # exactly, whatever the order of additions
        correlation = np.round(correlation, 3)
    residual = local_search.Residual(
        correlation.copy(), np.zeros(correlation.shape, np.uint8), np.zeros(correlation.shape[1], np.uint8)
    )
    found = local_search.search(residual, tables)
    assume(len(found))  # the stretch that repeats itself may hold no spike
    search = LayeredSearch(torch.from_numpy(correlation), None, tables)
    in_torch = search.run()
    for name in ("position", "step"):
        np.testing.assert_array_equal(in_torch[name], found[name])
    pair = 2 if tied else 1
    np.testing.assert_array_equal(in_torch["unit"] // pair, found["unit"] // pair)
    np.testing.assert_allclose(in_torch["gain"], found["gain"], rtol=1e-4)
    np.testing.assert_allclose(search.correlation.numpy(), residual.correlation, atol=1e-3)
    blocked = [b.reshape(-1, pair, b.shape[1]).sum(axis=1) for b in (search.blocked.numpy(), residual.blocked)]
    np.testing.assert_array_equal(*blocked)
    # layers one by one, from all candidates anew
    slow, n = LayeredSearch(torch.from_numpy(correlation), None, tables), 0
    while len(candidates := slow._candidates(torch.arange(correlation.shape[1]))):
        taken = largest_within_reach(candidates.rows(), slow.touched)
        same = found[n : n + len(taken)]
        np.testing.assert_array_equal(same["position"], taken["position"])
        np.testing.assert_array_equal(same["unit"] // pair, taken["unit"] // pair)
        n += len(taken)
        slow._put(layered_search.Peaks(*(torch.from_numpy(taken[name].copy()) for name in taken.dtype.names)))
    assert n == len(found) > 0


@given(seeds, st.booleans())
@settings(max_examples=15, deadline=None)
def test_both_searches_agree_where_the_noise_has_levels(seed, laplace):
    model, signal = world(seed, n_samples=2500)
    if laplace:
        model = replace(model, prior=Laplace(np.full(model.n_units, 4.0)))
    correlation = np.ascontiguousarray(model.view(signal.astype(np.float64)).correlation)
    # one after the other, and so mixed that every window holds several
    level = np.random.default_rng(seed).integers(0, 30, len(correlation[0])).astype(np.uint8)
    level[:800], level[800:1600] = 0, 19
    tables = Tables.of(model.overlaps, model.prior.shrinkage, model.refractory, model.shifts(), np.float64, 30)
    residual = local_search.Residual(correlation.copy(), np.zeros(correlation.shape, np.uint8), level)
    found = local_search.search(residual, tables)
    search = LayeredSearch(torch.from_numpy(correlation), None, tables, level)
    in_torch = search.run()
    for name in ("unit", "position", "step"):
        np.testing.assert_array_equal(in_torch[name], found[name])
    np.testing.assert_allclose(in_torch["amplitude"], found["amplitude"], rtol=1e-5)
    np.testing.assert_allclose(search.correlation.numpy(), residual.correlation, atol=1e-3)


@pytest.mark.parametrize("seed", range(3))
def test_a_signal_divided_by_its_noise_is_encoded_alike_on_both_backends(seed):
    model, _ = world(seed)
    rng, n = np.random.default_rng(seed), 8000
    level = np.repeat([0, 12, 0, 19], n // 4).astype(np.uint8)
    clean = rng.standard_normal((model.templates.shape[1], n)) * noise_of(level)
    at = np.arange(100, n - 100, 150)
    unit = rng.integers(0, model.n_units, len(at))
    for start, u in zip(at, unit, strict=True):
        clean[:, start : start + model.n_times] += 2 * model.templates[u]
    model = replace(model, templates=2 * model.templates)
    signal = (clean / noise_of(level)).astype(np.float32)
    first, second = (m.encode(signal, level=level) for m in (model, on_torch(model)))
    np.testing.assert_array_equal(first.sample, second.sample)
    np.testing.assert_array_equal(first.unit, second.unit)
    np.testing.assert_array_equal(first.expected, second.expected)
    middle = first.sample + model.n_times // 2
    np.testing.assert_array_equal(first.expected, expected_at(level[middle]))
    for one in np.unique(level):
        assert abs(np.median(first.relative[level[middle] == one]) - 1) < 0.1
    # every spike's gain is what the log posterior loses without it
    for k in range(0, len(first), 7):
        others = first.select(np.arange(len(first)) != k)
        lost = model.log_posterior(signal, first) - model.log_posterior(signal, others)
        assert lost == pytest.approx(first.gain[k], abs=0.05 + 0.01 * abs(first.gain[k]))


def test_levels_that_are_all_0_change_nothing():
    for seed in range(3):
        model, signal = world(seed)
        plain, level0 = model.encode(signal), model.encode(signal, level=np.zeros(signal.shape[1], np.uint8))
        for name in ("unit", "sample", "amplitude", "shift", "gain", "rival", "rival_gain", "expected"):
            np.testing.assert_array_equal(getattr(plain, name), getattr(level0, name))
        assert np.all(plain.expected == 1) and np.all(plain.clear)


def test_a_collision_that_looks_like_a_third_unit_is_two_spikes():
    rng = np.random.default_rng(6)
    first, second = (15 * w / np.linalg.norm(w) for w in rng.standard_normal((2, 4, 30)))
    third = 0.93 * (first + np.roll(second, 2, axis=1))
    templates = np.stack([first, second, third])
    signal = rng.standard_normal((4, 400))
    signal[:, 100:130] += first
    signal[:, 102:132] += second
    signal[:, 300:330] += third
    model = CRsAE(templates, SpikeSlab(np.full(3, 0.05), np.full(3, 8.0)), 1.0, 10, backend=TORCH)
    greedy, improved = model.encode(signal, Effort(n_sweeps=0)), model.encode(signal)
    assert greedy.unit[0] == 2
    assert list(zip(improved.unit, improved.sample, strict=True)) == [(0, 100), (1, 102), (2, 300)]


def test_a_signal_encoded_in_parts_has_the_spikes_of_the_whole(monkeypatch):
    """Also where a stretch without a quiet place is longer than a part."""
    model, signal = world(13, 0.004, 40_000)
    rng = np.random.default_rng(0)
    for start in range(9000, 15_000, 60):
        signal[:, start : start + model.n_times] += model.templates[rng.integers(model.n_units)]
    whole = on_torch(model).encode(signal.astype(np.float64))
    monkeypatch.setattr(torch_backend, "_PIECE", 700)
    for at_once in (1, 1500, 5000):
        parts = on_torch(model, TorchBackend("cpu", at_once=at_once)).encode(signal.astype(np.float64))
        for name in ("unit", "sample", "shift", "rival"):
            np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
        np.testing.assert_allclose(parts.amplitude, whole.amplitude, rtol=1e-6)
    assert len(whole) > 200


@pytest.mark.slow
@given(seeds, st.booleans())
@settings(max_examples=10, deadline=None)
def test_the_convex_codes_are_optimal_on_both_backends(seed, one_sided):
    rng = np.random.default_rng(seed)
    n_units, n_channels = rng.integers(1, 4), rng.integers(1, 4)
    atoms = rng.standard_normal((n_units, n_channels, 9))
    atoms /= np.linalg.norm(atoms, axis=(1, 2), keepdims=True)
    windows, bias = rng.normal(0, 2, (3, n_channels, 90)), rng.uniform(0.5, 3, n_units)
    lam = torch.from_numpy(bias)[:, None]
    start = np.abs(rng.standard_normal((3, n_units, 82)))
    values = []
    for backend in (numba_backend.NumbaBackend(1e-6), TorchBackend("cpu", n_iterations=3000, at_once=100)):
        for begin in (None, start):
            codes = backend.l1_codes(windows, atoms, bias, one_sided, begin)
            assert codes.dtype == windows.dtype and codes.shape == (3, n_units, 82)
            tensors = torch.from_numpy(windows), torch.from_numpy(codes), torch.from_numpy(atoms), lam, 1.0
            assert float(kkt_violation(*tensors, one_sided).max()) < 1e-4
            values.append(objective(*tensors).numpy())
    for value in values[1:]:
        np.testing.assert_allclose(value, values[0], rtol=1e-7)


def no_doubt(signal: np.ndarray, spikes: Spikes) -> np.ndarray:
    return np.zeros(len(spikes), bool)


@pytest.mark.slow
@pytest.mark.parametrize("one_sided", [True, False])
def test_with_an_l1_prior_spikes_stand_on_the_support_of_the_convex_code(one_sided):
    """Found there by both backends alike, up to what FISTA has not settled yet; the local search may leave it."""
    n = n_same = n_near = 0
    for seed in range(8):
        model, signal = world(seed, 0.01, 3000)
        scale, l1 = (
            np.sqrt(model.energy),
            L1(np.random.default_rng(seed).uniform(3, 5, model.n_units), one_sided, gram(model.templates)),
        )
        tables = Tables.of(model.overlaps, model.prior.shrinkage, model.refractory, model.shifts())
        codes = encode_correlation(model.view(signal).correlation, gram(model.templates), l1.bias, one_sided, 1e-4)
        arguments = tables, l1.bias * scale, 3 * model.n_times + model.refractory
        found = []
        for backend in (NUMBA, TorchBackend("cpu", n_iterations=600)):
            seen = backend.seen(signal, model.n_times)
            found.append(backend.pursue(seen, model.templates, *arguments, Effort(0), no_doubt, l1))
            given_correlation = backend.correlation(seen, model.templates)
            again = backend.pursue_correlation(signal, given_correlation, *arguments, Effort(0), no_doubt, l1)
            assert_same_spikes(again, found[-1])
            assert len(backend.pursue(seen, model.templates, *arguments, Effort(), no_doubt, l1)) > 10
        near = outside_support(codes) == 0
        n, n_near = n + len(found[0]), n_near + near[found[0].unit, found[0].sample].sum()
        n_same += n_agreeing(*found)
    assert n_near >= 0.995 * n and n_same >= 0.99 * n > 200


def test_without_a_code_there_is_no_spike():
    model, signal = world(0)
    tables = Tables.of(model.overlaps, model.prior.shrinkage, model.refractory, model.shifts())
    bias = np.full(model.n_units, 1e6)
    for backend in (NUMBA, TORCH):
        seen = backend.seen(signal, model.n_times)
        assert not len(
            backend.pursue(
                seen, model.templates, tables, 8 * bias, 200, Effort(), no_doubt, L1(bias, True, gram(model.templates))
            )
        )
