"""Coordinate descent: the same optimum as FISTA, within the stated tolerance, in every shape; cheap where nothing happens."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spikecrsae.csc import coordinate
from spikecrsae.csc.coordinate import coordinate_descent, encode, encode_correlation
from spikecrsae.csc.fista import fista, fista_of_correlation
from spikecrsae.csc.objective import kkt_violation, objective
from spikecrsae.csc.operator import correlate, gram, synthesis
from spikecrsae.csc.step_size import lipschitz_bound
from spikecrsae.errors import InputError, UsageError

LAM, SIGMA = 2.0, 0.7
BIAS = LAM * SIGMA**2
TIGHT = 1e-7

problems = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10_000),
        "n_units": st.integers(1, 5),
        "n_channels": st.integers(1, 4),
        "n_times": st.integers(1, 12),
        "n_positions": st.integers(1, 120),
        "rate": st.sampled_from([0.0, 0.01, 0.05, 0.3]),
        "difference": st.sampled_from([None, 0.3, 0.05]),
        "one_sided": st.booleans(),
    }
)


def problem(
    seed, n_units, n_channels, n_times, n_positions, rate, difference, one_sided, n_windows=2
) -> tuple[np.ndarray, np.ndarray]:
    """Windows of sparse codes plus noise, and atoms of unit norm; difference: of all other atoms from the first, relative."""
    rng = np.random.default_rng(seed)
    atoms = rng.standard_normal((n_units, n_channels, n_times))
    if difference is not None:
        atoms[1:] = atoms[0] + difference * atoms[1:]
    atoms /= np.sqrt((atoms**2).sum((1, 2), keepdims=True))
    shape = (n_windows, n_units, n_positions)
    codes = rng.normal(0, 5, shape) * (rng.random(shape) < rate)
    clean = synthesis(torch.from_numpy(np.abs(codes) if one_sided else codes), torch.from_numpy(atoms)).numpy()
    return clean + 0.5 * rng.standard_normal(clean.shape), atoms


def violation(signal: np.ndarray, codes: np.ndarray, atoms: np.ndarray, one_sided: bool, lam=LAM) -> float:
    """The largest in all windows, computed in float64."""
    tensors = (torch.from_numpy(np.asarray(array, np.float64)) for array in (signal, codes, atoms))
    return float(kkt_violation(*tensors, lam, SIGMA, one_sided).max())


def value(signal: np.ndarray, codes: np.ndarray, atoms: np.ndarray, lam=LAM) -> np.ndarray:
    tensors = (torch.from_numpy(np.asarray(array, np.float64)) for array in (signal, codes, atoms))
    return objective(*tensors, lam, SIGMA).numpy()


@pytest.mark.slow
@given(problems)
@settings(max_examples=20, deadline=None)
def test_it_reaches_the_optimum_that_fista_approaches(p):
    signal, atoms = problem(**p)
    codes = encode(signal, atoms, BIAS, p["one_sided"], TIGHT)
    assert violation(signal, codes, atoms, p["one_sided"]) < 1e-6
    assert not p["one_sided"] or codes.min() >= 0
    tensors = torch.from_numpy(signal), torch.from_numpy(atoms)
    unrolled = fista(*tensors, LAM, SIGMA, lipschitz_bound(atoms), 1000, p["one_sided"]).numpy()
    best, approached = value(signal, codes, atoms), value(signal, unrolled, atoms)
    assert np.all(best <= approached * (1 + 1e-9))
    # atoms that are much alike keep FISTA from getting there in a thousand iterations
    if p["difference"] is None:
        np.testing.assert_allclose(approached, best, rtol=1e-6)


@given(problems)
@settings(max_examples=20, deadline=None)
def test_with_correlations_from_outside_and_from_any_start_it_is_the_same_optimum(p):
    signal, atoms = problem(**p)
    correlation, lags = correlate(signal, atoms), gram(atoms)
    kept = correlation.copy()
    cold = coordinate_descent(correlation, lags, BIAS, p["one_sided"], TIGHT)
    np.testing.assert_array_equal(correlation, kept)
    start = np.random.default_rng(p["seed"]).exponential(1, cold.shape)
    warm = coordinate_descent(correlation, lags, BIAS, p["one_sided"], TIGHT, start)
    for codes in (cold, warm, encode(signal, atoms, BIAS, p["one_sided"], TIGHT, start)):
        assert violation(signal, codes, atoms, p["one_sided"]) < 1e-6
        np.testing.assert_allclose(value(signal, codes, atoms), value(signal, cold, atoms), rtol=1e-9)
    again = coordinate_descent(correlation, lags, BIAS, p["one_sided"], 10 * TIGHT, cold)
    np.testing.assert_array_equal(again, cold)


@given(problems)
@settings(max_examples=20, deadline=None)
def test_every_unit_may_have_a_bias_of_its_own(p):
    signal, atoms = problem(**p)
    bias = np.random.default_rng(p["seed"]).uniform(0.5, 3, p["n_units"])
    lam = torch.from_numpy(bias / SIGMA**2)[:, None]
    codes = encode(signal, atoms, bias, p["one_sided"], TIGHT)
    assert violation(signal, codes, atoms, p["one_sided"], lam) < 1e-6
    from_outside = coordinate_descent(correlate(signal, atoms), gram(atoms), bias, p["one_sided"], TIGHT)
    np.testing.assert_allclose(value(signal, from_outside, atoms, lam), value(signal, codes, atoms, lam), rtol=1e-9)
    same = encode(signal, atoms, np.full(p["n_units"], BIAS), p["one_sided"], TIGHT)
    np.testing.assert_array_equal(same, encode(signal, atoms, BIAS, p["one_sided"], TIGHT))


@given(problems)
@settings(max_examples=20, deadline=None)
def test_the_correlation_and_the_gram_function_of_templates_of_any_norm_are_enough(p):
    signal, atoms = problem(**p)
    norms = np.random.default_rng(p["seed"]).uniform(0.5, 30, p["n_units"])
    bias = np.random.default_rng(p["seed"]).uniform(0.5, 3, p["n_units"])
    templates = norms[:, None, None] * atoms
    codes = encode_correlation(correlate(signal, templates)[0], gram(templates), bias, p["one_sided"], TIGHT)
    lam = torch.from_numpy(bias / SIGMA**2)[:, None]
    assert violation(signal[:1], codes[None], atoms, p["one_sided"], lam) < 1e-6


@given(problems)
@settings(max_examples=20, deadline=None)
def test_fista_on_the_correlation_takes_the_same_steps_as_on_the_signal(p):
    signal, atoms = problem(**p)
    bias = torch.from_numpy(np.random.default_rng(p["seed"]).uniform(0.5, 3, (p["n_units"], 1)))
    bound = lipschitz_bound(atoms)
    on_signal = fista(torch.from_numpy(signal), torch.from_numpy(atoms), bias / SIGMA**2, SIGMA, bound, 30, p["one_sided"])
    correlation, lags = torch.from_numpy(correlate(signal, atoms)), torch.from_numpy(gram(atoms))
    on_correlation = fista_of_correlation(correlation, lags, bias, bound, 30, p["one_sided"])
    np.testing.assert_allclose(on_correlation.numpy(), on_signal.numpy(), atol=1e-9)


@given(problems, st.sampled_from([1.0, 0.1, 0.01, 0.0]))
@settings(max_examples=40, deadline=None)
def test_single_precision_keeps_the_tolerance_or_what_it_resolves(p, tolerance):
    signal, atoms = problem(**p)
    signal, atoms = signal.astype(np.float32), atoms.astype(np.float32)
    codes = encode(signal, atoms, BIAS, p["one_sided"], tolerance)
    assert codes.dtype == np.float32
    assert violation(signal, codes, atoms, p["one_sided"]) < tolerance + 1e-4


def test_long_windows_and_many_windows_are_solved_alike(monkeypatch):
    """Several segments and several blocks of the correlation in a window, more windows than a thread takes at once."""
    p = {"n_units": 3, "n_channels": 2, "n_times": 11, "rate": 0.02, "difference": None, "one_sided": True}
    long, atoms = problem(seed=1, n_positions=5000, **p)
    assert long.shape[2] > 2 * coordinate.POSITIONS_AT_ONCE
    codes = encode(long, atoms, BIAS, True, TIGHT)
    assert violation(long, codes, atoms, True) < 1e-6 and (codes > 0).mean() > 0.005
    many, atoms = problem(seed=2, n_positions=60, n_windows=50, **p)
    monkeypatch.setattr(coordinate, "SAMPLES_AT_ONCE", 300)
    together = encode(many, atoms, BIAS, True, TIGHT)
    for window, codes in zip(many, together, strict=True):
        np.testing.assert_array_equal(encode(window[None], atoms, BIAS, True, TIGHT)[0], codes)


def test_where_no_correlation_exceeds_the_bias_the_code_is_zero_and_nothing_is_entered(monkeypatch):
    p = {"n_units": 3, "n_channels": 2, "n_times": 11, "rate": 0.05, "difference": None, "one_sided": False}
    signal, atoms = problem(seed=3, n_positions=200, **p)
    largest = float(np.abs(correlate(signal, atoms)).max())
    assert not encode(signal, atoms, 1.0001 * largest, False, TIGHT).any()
    codes = encode(signal, atoms, 0.9 * largest, False, TIGHT)
    # every entry lies where an atom can reach what stands out
    out = (np.abs(correlate(signal, atoms)) > 0.9 * largest).any(1)
    near = np.stack([np.convolve(window, np.ones(21), "same") > 0 for window in out])
    assert codes.any() and not codes.any(1)[~near].any()


def test_equal_atoms_and_huge_values_come_to_an_end():
    """Equal atoms share an optimum that is not unique; a tolerance of 0 is more than any float resolves."""
    rng = np.random.default_rng(4)
    atom = rng.standard_normal((1, 1, 9))
    atoms = np.repeat(atom / np.linalg.norm(atom), 2, axis=0).astype(np.float32)
    for size in (1.0, 1e4, 1e12):
        signal = (size * rng.standard_normal((3, 1, 300))).astype(np.float32)
        codes = encode(signal, atoms, BIAS, False, 0.0)
        assert violation(signal, codes, atoms, False) < 1e-5 * size


def test_what_cannot_be_coded_is_refused():
    signal, atoms = problem(0, 2, 1, 5, 40, 0.05, None, True)
    with pytest.raises(UsageError, match="divide each by its norm"):
        encode(signal, 2 * atoms, BIAS, True, TIGHT)
    with pytest.raises(InputError, match="shorter than an atom"):
        encode(signal[:, :, :4], atoms, BIAS, True, TIGHT)
    for bad in (np.nan, np.inf, -np.inf):
        signal[1, 0, 7] = bad
        with pytest.raises(InputError, match="not finite"):
            encode(signal, atoms, BIAS, True, TIGHT)
        with pytest.raises(InputError, match="not finite"):
            coordinate_descent(signal.copy(), gram(atoms), BIAS, True, TIGHT)
