"""Convolutional sparse coding: the operator, the bound, one solver against another, least squares, the pursuit."""

from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers.dense_code import dense
from hypothesis import given, settings
from hypothesis import strategies as st

from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import SpikeSlab
from spikecrsae.csc.coordinate import coordinate_descent
from spikecrsae.csc.fista import fista
from spikecrsae.csc.least_squares import code_statistics, fit_templates, subtract
from spikecrsae.csc.objective import kkt_violation, objective
from spikecrsae.csc.operator import BlockSpectra, analysis, correlate, gram, synthesis
from spikecrsae.csc.pursuit import Effort, Tables, pursue
from spikecrsae.csc.shrinkage import shrink
from spikecrsae.csc.step_size import lipschitz_bound, lipschitz_of_gram
from spikecrsae.csc.subsample import shift_in_time
from spikecrsae.data.sparse_code import SparseCode
from spikecrsae.data.spikes import Spikes
from spikecrsae.errors import UsageError
from spikecrsae.system.threads import in_threads

shapes = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(2, 9))
seeds = st.integers(0, 10_000)


def random_atoms(rng: np.random.Generator, n_units: int, n_channels: int, n_times: int) -> np.ndarray:
    atoms = rng.standard_normal((n_units, n_channels, n_times))
    return atoms / np.sqrt((atoms**2).sum((1, 2), keepdims=True))


def dense_operator(atoms: np.ndarray, n_positions: int) -> np.ndarray:
    """H as a matrix (n_channels n_samples, n_units n_positions), written out column by column."""
    n_units, n_channels, n_times = atoms.shape
    matrix = np.zeros((n_channels, n_positions + n_times - 1, n_units, n_positions))
    for unit in range(n_units):
        for position in range(n_positions):
            matrix[:, position : position + n_times, unit, position] = atoms[unit]
    return matrix.reshape(n_channels * (n_positions + n_times - 1), -1)


def random_problem(seed: int, n_units: int, n_channels: int, n_times: int, one_sided: bool, n_positions: int = 60):
    """Atoms and signal (2 windows) of sparse codes plus noise, all torch float64."""
    rng = np.random.default_rng(seed)
    atoms = torch.from_numpy(random_atoms(rng, n_units, n_channels, n_times))
    codes = torch.from_numpy(rng.normal(0, 5, (2, n_units, n_positions)) * (rng.random((2, n_units, n_positions)) < 0.05))
    signal = synthesis(codes.abs() if one_sided else codes, atoms)
    return signal + 0.5 * torch.from_numpy(rng.standard_normal(signal.shape)), atoms


@given(seeds, shapes)
@settings(max_examples=20, deadline=None)
def test_synthesis_and_analysis_are_the_dense_operator_and_its_transpose(seed, shape):
    rng = np.random.default_rng(seed)
    atoms = random_atoms(rng, *shape)
    matrix = dense_operator(atoms, 20)
    codes, signal = rng.standard_normal((1, shape[0], 20)), rng.standard_normal((1, shape[1], 19 + shape[2]))
    made = synthesis(torch.from_numpy(codes), torch.from_numpy(atoms)).numpy()
    found = analysis(torch.from_numpy(signal), torch.from_numpy(atoms)).numpy()
    np.testing.assert_allclose(made.ravel(), matrix @ codes.ravel(), atol=1e-12)
    np.testing.assert_allclose(found.ravel(), matrix.T @ signal.ravel(), atol=1e-12)
    assert np.vdot(made, signal) == pytest.approx(np.vdot(codes, found), abs=1e-10)


@given(seeds, shapes, st.integers(0, 50))
@settings(max_examples=20, deadline=None)
def test_correlation_by_fft_is_analysis(seed, shape, longer):
    rng = np.random.default_rng(seed)
    atoms = random_atoms(rng, *shape)
    signal = rng.standard_normal((3, shape[1], shape[2] + longer))
    expected = analysis(torch.from_numpy(signal), torch.from_numpy(atoms)).numpy()
    np.testing.assert_allclose(correlate(signal, atoms), expected, atol=1e-12)
    single = correlate(signal.astype(np.float32), atoms)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=1e-5)


@given(seeds, shapes)
@settings(max_examples=20, deadline=None)
def test_gram_is_what_one_unit_of_code_adds_to_the_correlations(seed, shape):
    n_units, _, n_times = shape
    atoms = torch.from_numpy(random_atoms(np.random.default_rng(seed), *shape))
    lags = gram(atoms.numpy())
    assert lags.shape == (n_units, n_units, 2 * n_times - 1)
    for unit in range(n_units):
        delta = torch.zeros(1, n_units, 4 * n_times, dtype=torch.float64)
        delta[0, unit, 2 * n_times] = 1
        response = analysis(synthesis(delta, atoms), atoms)[0].numpy()
        np.testing.assert_allclose(response[:, n_times + 1 : 3 * n_times], lags[:, unit], atol=1e-12)
        assert not response[:, : n_times + 1].any() and not response[:, 3 * n_times :].any()


@given(seeds, shapes, st.sampled_from([None, 3, 4, 8]))
@settings(max_examples=30, deadline=None)
def test_the_bound_is_never_below_the_largest_eigenvalue(seed, shape, grid):
    """grid: frequencies per sample of the atom; three are barely enough for a bound."""
    atoms = random_atoms(np.random.default_rng(seed), *shape)
    matrix = dense_operator(atoms, 40)
    largest = np.linalg.eigvalsh(matrix.T @ matrix)[-1]
    bound = lipschitz_bound(atoms, None if grid is None else grid * shape[2])
    assert bound >= largest * (1 - 1e-12)
    if grid is None:
        assert bound <= 1.05 * lipschitz_bound(atoms, 4096)
        assert lipschitz_of_gram(gram(atoms)) == pytest.approx(bound, rel=1e-9)


def test_a_grid_too_coarse_for_a_bound_is_refused():
    with pytest.raises(UsageError, match="bounds nothing"):
        lipschitz_bound(random_atoms(np.random.default_rng(0), 2, 1, 9), 16)


def test_shrink_is_the_minimiser_of_its_problem():
    values = torch.linspace(-3, 3, 13, dtype=torch.float64)
    grid = torch.linspace(-4, 4, 80001, dtype=torch.float64)
    for one_sided in (False, True):
        allowed = grid[grid >= 0] if one_sided else grid
        cost = 0.5 * (allowed - values[:, None]) ** 2 + 0.7 * allowed.abs()
        torch.testing.assert_close(shrink(values, 0.7, one_sided), allowed[cost.argmin(1)], atol=1e-4, rtol=0)


def test_kkt_violation_sees_a_code_that_is_not_optimal():
    signal, atoms = random_problem(1, 2, 2, 7, one_sided=True)
    codes = torch.from_numpy(
        coordinate_descent(correlate(signal.numpy(), atoms.numpy()), gram(atoms.numpy()), 1.0, True, 1e-9)
    )
    codes[0, 0, 30] += 0.1
    violation = kkt_violation(signal, codes, atoms, 1.0, 1.0, True)
    assert violation[0] >= 0.1 * (1 - 1e-6) and violation[1] < 1e-6


def test_the_objective_falls_with_the_depth_of_the_encoder():
    """FISTA may rise from one iteration to the next; over growing depth it falls at the rate 1 / T^2 (Beck and Teboulle)."""
    signal, atoms = random_problem(5, 3, 2, 9, one_sided=False)
    bound = lipschitz_bound(atoms.numpy())
    depths = (5, 10, 20, 40, 80, 160, 4000)
    codes = [fista(signal, atoms, 2.0, 1.0, bound, depth, False) for depth in depths]
    values = [float(objective(signal, code, atoms, 2.0, 1.0).sum()) for code in codes]
    assert all(later <= earlier for earlier, later in pairwise(values))
    distance = float(codes[-1].square().sum())
    for depth, value in zip(depths[:-1], values, strict=False):
        assert value - values[-1] <= 2 * bound * distance / (depth + 1) ** 2


def overlapping_events(rng: np.random.Generator, n_units: int, n: int, n_positions: int) -> SparseCode:
    """n different (unit, position) pairs, so that no two events fall on one entry of the code."""
    place = rng.choice(n_units * n_positions, n, replace=False)
    return SparseCode.build(place % n_units, place // n_units, rng.uniform(0.5, 2, n), n_units, n_positions)


def signal_of(code: SparseCode, templates: np.ndarray) -> np.ndarray:
    signal = np.zeros((templates.shape[1], code.n_positions + templates.shape[2] - 1))
    subtract(signal, templates, code.unit, code.sample, -code.amplitude.astype(np.float64))
    return signal


def fitted(signal: np.ndarray, code: SparseCode, n_times: int, **options) -> np.ndarray:
    """fit_templates of a signal (n_channels, n_samples) and its code."""
    statistics = code_statistics(
        signal,
        code.unit.astype(np.int64),
        code.sample.astype(np.int64),
        code.amplitude.astype(np.float64),
        code.n_units,
        n_times,
    )
    return fit_templates(*statistics, **options)


@given(seeds, shapes)
@settings(max_examples=15, deadline=None)
def test_templates_come_back_exactly_from_noiseless_overlaps(seed, shape):
    rng = np.random.default_rng(seed)
    templates = rng.standard_normal(shape)
    code = overlapping_events(rng, shape[0], 300, 500)
    expected = synthesis(torch.from_numpy(dense(code)[None].astype(np.float64)), torch.from_numpy(templates))[0].numpy()
    np.testing.assert_allclose(signal_of(code, templates), expected, atol=1e-10)
    np.testing.assert_allclose(fitted(expected, code, shape[2], ridge=1e-13), templates, atol=1e-6)


def test_a_unit_without_events_gets_a_zero_template():
    rng = np.random.default_rng(0)
    code = SparseCode.build([0, 0], [3, 30], [1.0, 2.0], 2, 50)
    templates = fitted(rng.standard_normal((2, 56)), code, 7)
    assert templates[0].any() and not templates[1].any()


def test_what_two_units_that_always_come_together_share_stays_with_the_one_that_had_it():
    """The second follows 8 samples after the first, whose template is 20 long: the codes tell only their sum."""
    rng = np.random.default_rng(1)
    templates = rng.standard_normal((2, 3, 20))
    first = 30 + 60 * np.arange(100)
    unit, sample = np.tile([0, 1], 100), np.stack([first, first + 8], axis=1).ravel()
    code = SparseCode.build(unit, sample, np.ones(200), 2, 6200)
    signal = signal_of(code, templates) + rng.standard_normal((3, 6219))
    alone = fitted(signal, code, 20)
    kept = fitted(signal, code, 20, before=templates)
    shared = (slice(None), slice(None), slice(8, 20))
    assert np.abs(kept - templates).max() < 0.5
    assert np.abs(alone[shared] - templates[shared]).max() > 1
    # both explain the signal alike
    rest = [float((signal - signal_of(code, found)).var()) for found in (alone, kept)]
    assert rest[1] == pytest.approx(rest[0], rel=1e-3)


def test_templates_of_before_count_as_a_part_of_the_events():
    rng = np.random.default_rng(2)
    before, now = rng.standard_normal((2, 1, 2, 7))
    code = SparseCode.build(np.zeros(3, int), [3, 20, 40], np.ones(3), 1, 60)
    found = fitted(signal_of(code, now), code, 7, ridge=0.0, before=before, weight=2 / 3)
    np.testing.assert_allclose(found, (3 * now + 2 * before) / 5, atol=1e-9)


def tables(templates: np.ndarray, spread: np.ndarray, penalty: np.ndarray, refractory: int) -> Tables:
    """For spikes at whole samples."""
    return Tables.of(gram(templates), SpikeSlab(spread, penalty).shrinkage, refractory, np.zeros(1), float)


def slab(templates: np.ndarray, spread: float, penalty: float, refractory: int) -> CRsAE:
    n_units = len(templates)
    return CRsAE(templates, SpikeSlab(np.full(n_units, spread), np.full(n_units, penalty)), 1.0, refractory)


def log_posterior(signal, templates, spread, penalty, unit, sample) -> float:
    """log p(y, spikes) with the amplitudes integrated out, against no spike at all: Gaussian evidence by a dense solve."""
    if not len(unit):
        return 0.0
    columns = dense_operator(templates, signal.shape[1] - templates.shape[2] + 1)
    columns = columns.reshape(signal.size, len(templates), -1)[:, unit, sample]
    mean = columns.sum(1)
    covariance = np.eye(signal.size) + (columns * spread[unit] ** 2) @ columns.T
    residual = signal.ravel() - mean
    evidence = -0.5 * residual @ np.linalg.solve(covariance, residual) - 0.5 * np.linalg.slogdet(covariance)[1]
    return evidence + 0.5 * (signal**2).sum() - penalty[unit].sum()


def test_the_gain_of_a_spike_is_the_difference_of_the_log_posterior():
    rng = np.random.default_rng(3)
    templates = 8 * random_atoms(rng, 2, 2, 9)
    spread, penalty = np.array([0.1, 0.3]), np.array([6.0, 8.0])
    signal = rng.standard_normal((2, 60))
    signal[:, 20:29] += 1.2 * templates[1]
    found = pursue(correlate(signal[None], templates)[0], tables(templates, spread, penalty, 5))
    assert list(found.unit) == [1] and list(found.sample) == [20]
    expected = log_posterior(signal, templates, spread, penalty, found.unit, found.sample)
    assert found.gain[0] == pytest.approx(expected, rel=1e-9)
    energy, b = 64.0, float((signal[:, 20:29] * templates[1]).sum())
    assert found.amplitude[0] == pytest.approx((b + 1 / 0.09) / (energy + 1 / 0.09), rel=1e-9)


def test_the_pursuit_finds_overlapping_spikes_and_keeps_the_refractory_period():
    rng = np.random.default_rng(4)
    templates = 30 * random_atoms(rng, 3, 4, 30)
    sample = np.sort(rng.choice(np.arange(0, 3000, 7), 120, replace=False))
    unit = rng.integers(0, 3, 120)
    keep = np.ones(120, bool)
    for c in range(3):
        own = np.flatnonzero(unit == c)
        for i, j in pairwise(own):
            keep[j] = sample[j] - sample[i] > 25
    unit, sample = unit[keep], sample[keep]
    code = SparseCode.build(unit, sample, np.ones(len(unit)), 3, 3000)
    signal = signal_of(code, templates)
    correlation = correlate(signal[None], templates)[0]
    found = pursue(correlation, tables(templates, np.full(3, 0.05), np.full(3, 8.0), 10))
    np.testing.assert_array_equal(found.sample, code.sample)
    np.testing.assert_array_equal(found.unit, code.unit)
    # taken out and put back in turn, overlapping spikes share the signal as least squares would
    np.testing.assert_allclose(found.amplitude, 1, atol=0.05)
    assert (found.gain > 0).all()
    for c in range(3):
        assert (np.diff(found.sample[found.unit == c]) > 10).all()


def test_a_collision_that_looks_like_a_third_unit_is_two_spikes():
    """The third template is the sum of the others: taken greedily, it explains their collision best."""
    rng = np.random.default_rng(6)
    first, second = 15 * random_atoms(rng, 2, 4, 30)
    third = 0.93 * (first + np.roll(second, 2, axis=1))
    templates = np.stack([first, second, third])
    signal = rng.standard_normal((4, 400))
    signal[:, 100:130] += first
    signal[:, 102:132] += second
    signal[:, 300:330] += third
    model = slab(templates, 0.05, 8.0, 10)
    greedy, improved = model.encode(signal, Effort(n_sweeps=0)), model.encode(signal)
    assert greedy.unit[0] == 2
    assert list(zip(improved.unit, improved.sample, strict=True)) == [(0, 100), (1, 102), (2, 300)]


@given(seed=st.integers(0, 200))
@settings(max_examples=20, deadline=None)
def test_improvement_never_lowers_the_log_posterior(seed):
    rng = np.random.default_rng(seed)
    templates = rng.uniform(5, 20) * random_atoms(rng, 4, 2, 20)
    code = overlapping_events(rng, 4, 40, 600)
    signal = (signal_of(code, templates) + rng.standard_normal((2, 619))).astype(np.float32)
    model = slab(templates, 0.1, 7.0, 8)
    before, after = (model.log_posterior(signal, model.encode(signal, Effort(n_sweeps=n))) for n in (0, 4))
    assert after >= before - 0.5


def test_a_shift_below_one_sample_is_found():
    rng = np.random.default_rng(7)
    time = np.arange(40) - 15.0
    shape = np.exp(-0.5 * (time / 2.5) ** 2) - 0.5 * np.exp(-0.5 * ((time - 6) / 4) ** 2)
    model = slab(40 * shape[None, None] / np.linalg.norm(shape), 0.05, 8.0, 10)
    for shift in (-0.4, -0.1, 0.3):
        signal = 0.1 * rng.standard_normal((1, 300))
        signal[0, 100:140] += shift_in_time(model.templates[0, 0], shift)
        found = model.encode(signal)
        assert len(found) == 1
        assert found.sample[0] + found.shift[0] == pytest.approx(100 + shift, abs=0.1)
        assert model.residual(signal, found).std() < 0.2


def test_the_residual_in_pieces_is_the_signal_less_every_spike_and_misfits_are_its_energy(monkeypatch):
    rng = np.random.default_rng(11)
    model = slab(20 * random_atoms(rng, 3, 2, 24), 0.1, 8.0, 10)
    n, n_samples = 400, 6000
    sample = np.sort(rng.integers(0, n_samples - 23, n))
    order = np.zeros(n)
    spikes = Spikes(rng.integers(0, 3, n), sample, rng.normal(1, 0.1, n), rng.choice(model.shifts(), n), order, order, order)
    signal = rng.standard_normal((2, n_samples)).astype(np.float32)
    expected = signal.astype(np.float64)
    for unit, start, amplitude, shift in zip(spikes.unit, sample, spikes.amplitude, spikes.shift, strict=True):
        expected[:, start : start + 24] -= amplitude * shift_in_time(model.templates[unit], shift)
    for piece in (1 << 15, 100, 7):
        monkeypatch.setattr("spikecrsae.csc.numba_backend._PIECE", piece)
        np.testing.assert_allclose(model.residual(signal, spikes), expected, atol=1e-4)
    power = (model.templates**2).sum(axis=1)
    power /= power.max(axis=1, keepdims=True)
    energy = (expected**2).sum(axis=0)
    by_hand = [energy[start : start + 24] @ power[unit] for unit, start in zip(spikes.unit, sample, strict=True)]
    np.testing.assert_allclose(model.misfit(signal, spikes), by_hand, rtol=1e-4)


def test_correlation_is_the_same_whether_spectra_are_kept_or_not():
    rng = np.random.default_rng(12)
    signal, atoms = rng.standard_normal((3, 5000)).astype(np.float32), random_atoms(rng, 4, 3, 21)
    kept, computed = (BlockSpectra.of(signal, 21, keep) for keep in (True, False))
    assert kept.spectra is not None and computed.spectra is None
    np.testing.assert_array_equal(kept.correlate(atoms), computed.correlate(atoms))
    direct = [sum(np.correlate(signal[m].astype(float), atoms[c, m], "valid") for m in range(3)) for c in range(4)]
    np.testing.assert_allclose(kept.correlate(atoms), direct, atol=1e-4)


def test_work_in_threads_comes_in_order_and_its_error_is_raised_when_what_has_begun_has_ended(monkeypatch):
    monkeypatch.setattr("spikecrsae.system.threads.n_cores", lambda: 2)
    assert in_threads(lambda part: (part.start, part.stop), 10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert in_threads(lambda part: in_threads(lambda inner: inner.start, 3, 1), 2, 1) == [[0, 1, 2], [0, 1, 2]]
    running, most = [], []

    def work(part: slice) -> None:
        running.append(part.start)
        most.append(len(running))
        time.sleep(0.02)
        running.remove(part.start)
        if part.start == 0:
            raise ValueError("the first one fails")

    with pytest.raises(ValueError, match="the first one fails"):
        in_threads(work, 50, 1)
    assert not running, "nothing goes on"
    assert max(most) <= 2 and len(most) < 10, "what had not begun never did"
    assert in_threads(lambda part: part.start, 4, 1) == [0, 1, 2, 3], "the threads are there for the next"


def test_a_signal_decoded_in_parts_has_the_spikes_of_the_whole(monkeypatch):
    """Also where a stretch without a quiet place is longer than a part, and for float64."""
    rng = np.random.default_rng(13)
    time_ = np.arange(24) - 8
    shapes = [np.exp(-0.5 * (time_ / width) ** 2) * np.cos(time_ / (1.5 * width)) for width in (2, 3, 4)]
    templates = np.stack([np.outer(rng.normal(1, 0.5, 2), 8 * shape) for shape in shapes])
    model = slab(templates, 0.1, 6.0, 10)
    signal = rng.standard_normal((2, 40_000)).astype(np.float32)
    for start in [0, *range(9000, 15_000, 60), *rng.integers(0, 39_976, 150), 39_976]:
        signal[:, start : start + 24] += templates[rng.integers(3)]
    monkeypatch.setattr("spikecrsae.csc.numba_backend._PIECE", 700)
    for values in (signal, signal.astype(np.float64), BlockSpectra.of(signal, 24)):
        monkeypatch.setattr("spikecrsae.csc.numba_backend._CORRELATED", 1 << 19)
        whole = model.encode(values)
        assert len(whole) > 200
        for at_once in (1, 1500, 5000):
            monkeypatch.setattr("spikecrsae.csc.numba_backend._CORRELATED", at_once)
            parts = model.encode(values)
            for name in ("unit", "sample", "amplitude", "shift", "gain", "rival"):
                np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))
