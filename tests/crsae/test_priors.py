"""Priors: what their M-steps learn, against truth and against integrals; what is not known yet hardly matters."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, optimize

from spikecrsae.crsae import priors
from spikecrsae.crsae.priors import PRIORS, Laplace, Prior, SpikeSlab, as_if_clear, learned_spread
from spikecrsae.csc.shrinkage import SpikeShrinkage, shrinkage_at


def amplitudes(spread: float, energy: float, n: int, seed: int) -> np.ndarray:
    """Least-squares amplitudes of n spikes of a unit, N(1, spread^2), to which noise has added 1 / energy."""
    rng = np.random.default_rng(seed)
    return rng.normal(1.0, spread, n) + rng.normal(0.0, 1 / np.sqrt(energy), n)


# ---- the slab where the noise is louder


@pytest.mark.parametrize("expected", [1.0, 0.5, 0.2])
@pytest.mark.parametrize("spread", [0.05, 0.3])
def test_the_gain_of_the_slab_is_the_integral_over_amplitudes(expected, spread):
    """log of the mean of exp(a b - a^2 g / 2) over a ~ N(m, (s m)^2), less the penalty; its mode is the amplitude."""
    energy, penalty = 60.0, 7.0
    prior = SpikeSlab(np.array([spread]), np.array([penalty]))
    pull, total, offset = (float(v[0]) for v in shrinkage_at(prior.shrinkage, np.array([energy]), expected))
    for b in (0.0, 0.6 * energy * expected, 1.3 * energy * expected):
        width = spread * expected

        def weight(a, b=b, width=width):
            return np.exp(a * b - 0.5 * a**2 * energy - 0.5 * ((a - expected) / width) ** 2) / (width * np.sqrt(2 * np.pi))

        best = (b + pull) / total
        reach = 12 / np.sqrt(total)
        integral = integrate.quad(weight, best - reach, best + reach, limit=200)[0]
        assert 0.5 * (b + pull) ** 2 / total + offset == pytest.approx(np.log(integral) - penalty, abs=1e-6)
        assert optimize.minimize_scalar(
            lambda a: -np.log(weight(a)), bounds=(best - reach, best + reach), method="bounded"
        ).x == pytest.approx(best, abs=1e-4)


def test_spikes_in_loud_noise_do_not_widen_the_spread():
    clear = np.repeat([True, False], 1000)
    seen = np.r_[amplitudes(0.1, 900.0, 1000, 1), amplitudes(0.1, 20.0, 1000, 2)]
    unit, energy = np.zeros(2000, int), np.array([900.0])
    learned = SpikeSlab.first(1).maximise(unit, as_if_clear(unit, seen, clear), energy, 10**6)
    alone = SpikeSlab.first(1).maximise(unit[:1000], seen[:1000], energy, 10**6)
    assert learned.spread == pytest.approx(alone.spread, rel=0.01) and learned.penalty < alone.penalty
    for unclear in (np.ones(2000, bool), np.zeros(2000, bool)):
        np.testing.assert_array_equal(as_if_clear(unit, seen, unclear), seen)


# ---- the slab's spread and penalty


@pytest.mark.parametrize("energy", [100.0, 400.0, 2500.0])
@pytest.mark.parametrize("spread", [0.06, 0.1, 0.2, 0.4])
@pytest.mark.parametrize("n", [50, 300, 3000])
def test_the_spread_is_that_of_the_amplitudes_without_their_noise(spread, energy, n):
    """Its logarithm, over 40 draws, within two of its errors as the quantiles of n normal numbers have them; where noise hides
    the spread the prior decides, and it stays within a factor of two of it."""
    learned = np.array([learned_spread(amplitudes(spread, energy, n, seed), energy) for seed in range(40)])
    noise = spread**2 + 1 / energy
    error = 1.3 / np.sqrt(n) * noise / spread**2  # of the logarithm, about
    if spread**2 > 1 / energy:
        assert abs(np.log(learned / spread).mean()) < max(error, 0.06)
        assert np.log(learned / spread).std() < 1.5 * error
    else:
        assert 0.5 < np.median(learned) / spread < 2.0


@pytest.mark.parametrize("spread", [0.004, 0.8])
def test_the_spread_has_no_bounds(spread):
    found = learned_spread(amplitudes(spread, 1e7, 3000, seed=0), 1e7)
    assert found == pytest.approx(spread, rel=0.07)


def test_small_spikes_of_another_unit_do_not_widen_the_spread():
    pure = amplitudes(0.1, 900.0, 2000, seed=1)
    mixed = np.r_[pure, np.random.default_rng(2).uniform(0.4, 0.7, 150)]
    assert learned_spread(mixed, 900.0) == pytest.approx(learned_spread(pure, 900.0), rel=0.1)
    assert mixed.std() > 1.4 * pure.std()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(200, 2000), st.floats(50, 5000), st.floats(1.0, 6.0))
def test_the_first_spread_hardly_matters(seed, n, energy, larger):
    """Doubled, it moves the spread of a unit of 200 spikes by less than a tenth where s^2 is above a third of the noise's."""
    seen = amplitudes(larger * np.sqrt(1 / (3 * energy)), energy, n, seed)
    found = learned_spread(seen, energy)
    if found**2 < 1 / (3 * energy):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(priors, "FIRST_SPREAD", 2 * priors.FIRST_SPREAD)
        assert learned_spread(seen, energy) == pytest.approx(found, rel=0.1)


def test_the_penalty_is_minus_the_log_of_the_rate():
    slab = SpikeSlab.first(3)
    unit = np.repeat([0, 2], [99, 999])
    learned = slab.maximise(unit, np.ones(len(unit)), np.full(3, 400.0), 100_000)
    np.testing.assert_allclose(learned.penalty[[0, 2]], np.log([1000, 100]))
    # without a spike a unit is as it was
    assert (learned.spread[1], learned.penalty[1]) == (slab.spread[1], slab.penalty[1])


def test_the_slabs_gain_is_the_log_odds_with_the_amplitude_at_its_best():
    """1/2 ||y||^2 - 1/2 ||y - a h||^2 + log N(a; 1, s^2) without its constant, at the best a; the spread's share of the volume is
    what is left of the integral over a."""
    slab, energy = SpikeSlab(np.array([0.2]), np.array([6.0])), np.array([300.0])
    shrinkage = slab.shrinkage(energy)
    for b in (150.0, 280.0, 420.0):

        def log_odds(a, b=b):
            return a * b - 0.5 * a**2 * energy[0] - 0.5 * ((a - 1) / 0.2) ** 2

        best = optimize.minimize_scalar(lambda a: -log_odds(a), bounds=(-1, 3), method="bounded").x
        amplitude = (b + shrinkage.pull[0]) / shrinkage.total[0]
        assert amplitude == pytest.approx(best, abs=1e-5)
        gain = 0.5 * (b + shrinkage.pull[0]) ** 2 / shrinkage.total[0] + shrinkage.offset[0]
        top = log_odds(amplitude)
        volume = integrate.quad(lambda a, top=top: np.exp(log_odds(a) - top), amplitude - 1, amplitude + 1)[0]
        assert gain == pytest.approx(top + np.log(volume / (0.2 * np.sqrt(2 * np.pi))) - 6.0, abs=1e-4)


# ---- lambda


def equally_likely(rate: float, mean: float) -> float:
    """The correlation with a unit-norm atom, in units of the noise, at which a spike of this rate per position, its size
    exponential, is as probable as noise: by integration."""

    def log_odds(correlation: float) -> float:
        sizes = np.linspace(0, correlation + 12, 40_001)
        likelihood = np.exp(sizes * correlation - 0.5 * sizes**2 - sizes / mean - 0.5 * correlation**2) / mean
        return np.log(rate) + 0.5 * correlation**2 + np.log(integrate.trapezoid(likelihood, sizes))

    return float(optimize.brentq(log_odds, 0.1, 20))


@pytest.mark.parametrize("rate", [1e-5, 1e-4, 1e-3, 5e-3])
@pytest.mark.parametrize("mean", [6.0, 15.0, 60.0])
def test_lambda_is_where_a_spike_and_noise_are_equally_likely(rate, mean):
    n = 5000
    size = np.random.default_rng(0).exponential(mean, n)
    size *= mean / size.mean()
    learned = Laplace.first(1).maximise(np.zeros(n, int), size / 20.0, np.array([400.0]), round(n / rate))
    assert learned.lam[0] == pytest.approx(equally_likely(rate, mean), rel=0.05)


@settings(max_examples=30, deadline=None)
@given(st.integers(200, 5000), st.floats(3.0, 100.0), st.floats(1e-5, 1e-2))
def test_the_first_lambda_hardly_matters(n, mean, rate):
    arguments = np.zeros(n, int), np.ones(n), np.array([mean**2]), round(n / rate)
    with pytest.MonkeyPatch.context() as patch:
        found = Laplace.first(1).maximise(*arguments).lam[0]
        patch.setattr(priors, "FIRST_LAMBDA", 2 * priors.FIRST_LAMBDA)
        assert Laplace.first(1).maximise(*arguments).lam[0] == pytest.approx(found, rel=0.1)


def test_few_spikes_leave_lambda_near_its_start():
    one = Laplace.first(2).maximise(np.zeros(1, int), np.ones(1), np.full(2, 1e4), 10**6)
    assert abs(np.log(one.lam[0] / priors.FIRST_LAMBDA)) < 0.05
    assert one.lam[1] == priors.FIRST_LAMBDA


def test_on_the_support_the_amplitude_is_least_squares_and_lambda_the_threshold():
    laplace, energy = Laplace(np.array([4.0, 6.0])), np.array([100.0, 900.0])
    shrinkage = laplace.shrinkage(energy)
    np.testing.assert_allclose(shrinkage.needed(), laplace.lam * np.sqrt(energy))
    np.testing.assert_allclose(120.0 / shrinkage.total, 120.0 / energy)
    assert laplace.l1.one_sided and laplace.l1.bias is laplace.lam
    assert SpikeSlab.first(2).l1 is None


# ---- any prior


@dataclass(frozen=True)
class Own(Prior):
    """A prior of two parameters, one of which has another name in files."""

    name = "own"
    first_one: np.ndarray = field(metadata={"start": 2.5})
    other: np.ndarray = field(metadata={"start": 0.0, "name": "theta"})

    def shrinkage(self, energy):
        return SpikeShrinkage(np.zeros(len(energy)), energy + self.first_one, -self.other)

    def maximise(self, unit, amplitude, energy, n_positions):
        return self


@pytest.mark.parametrize("kind", [*PRIORS.values(), Own])
def test_a_prior_keeps_joins_and_begins_by_its_fields(kind):
    first = kind.first(3)
    starts = {f.metadata.get("name", f.name): f.metadata["start"] for f in fields(kind)}
    assert {name: values.tolist() for name, values in first.parameters().items()} == {
        name: 3 * [start] for name, start in starts.items()
    }
    values = {name: np.arange(3.0) + 10 * i for i, name in enumerate(starts)}
    prior = kind.of_parameters(values)
    for units in ([2, 0], np.array([True, False, True])):
        for name, kept in prior.select(units).parameters().items():
            np.testing.assert_array_equal(kept, values[name][units])
    joined = prior.joined(kind.first(2))
    assert type(joined) is kind
    for name, both in joined.parameters().items():
        np.testing.assert_array_equal(both, [*values[name], starts[name], starts[name]])


@pytest.mark.parametrize("kind", list(PRIORS.values()))
def test_an_m_step_keeps_units_apart_and_changes_nothing_in_place(kind):
    rng = np.random.default_rng(0)
    unit, energy = rng.permutation(np.repeat([0, 1, 3], [40, 400, 90])), np.array([100.0, 900.0, 50.0, 400.0])
    amplitude, prior = rng.normal(1.0, 0.15, len(unit)), kind.first(4)
    before = {name: values.copy() for name, values in prior.parameters().items()}
    together = prior.maximise(unit, amplitude, energy, 10**5).parameters()
    for c in (0, 1, 3):
        mine = unit == c
        alone = prior.select([c]).maximise(np.zeros(mine.sum(), int), amplitude[mine], energy[[c]], 10**5)
        for name, values in alone.parameters().items():
            assert values[0] == pytest.approx(together[name][c])
    for name, values in before.items():
        np.testing.assert_array_equal(prior.parameters()[name], values)
        assert together[name][2] == values[2]


def test_a_base_prior_decides_nothing():
    for missing in (lambda: Prior().shrinkage(np.ones(1)), lambda: Prior().maximise(*3 * [np.ones(1)], 5)):
        with pytest.raises(NotImplementedError):
            missing()
