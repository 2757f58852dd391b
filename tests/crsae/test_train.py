"""Training: the templates come back, lambda stays alive, what EM guarantees, and the two methods agree."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

from spikecrsae.config import TrainConfig
from spikecrsae.crsae.priors import LambdaPrior
from spikecrsae.crsae.train import _augmented, train
from spikecrsae.csc.coordinate import coordinate_descent, encode
from spikecrsae.csc.least_squares import fit_templates, subtract
from spikecrsae.csc.operator import correlate, gram
from spikecrsae.data.dictionary import Dictionary
from spikecrsae.data.sparse_code import SparseCode
from spikecrsae.errors import InputError, UsageError
from spikecrsae.progress import Observer
from spikecrsae.simulate import paper_windows, perturb_templates, template_error_db


@pytest.fixture(scope="module")
def simulation():
    return paper_windows(120, snr_db=16.0, seed=1)


def start_of(simulation, error_db: float = -6.0, seed: int = 1) -> Dictionary:
    """Templates at full scale, error_db from the true ones."""
    templates = perturb_templates(simulation.templates, error_db, np.random.default_rng(seed))
    return Dictionary.from_templates(templates * simulation.amplitudes.mean())


def errors_db(simulation, dictionary: Dictionary) -> np.ndarray:
    return np.array([template_error_db(t, a) for t, a in zip(simulation.templates, dictionary.atoms, strict=True)])


def test_em_finds_the_papers_templates_and_their_scale(simulation):
    result = train(simulation.windows, start_of(simulation, -3.5), TrainConfig(), sigma=simulation.sigma, seed=0)
    assert errors_db(simulation, result.dictionary).max() < -17
    # amplitudes are N(180, 30); the weighting by amplitude raises the mean by the squared coefficient of variation
    np.testing.assert_allclose(result.dictionary.scale, simulation.amplitudes.mean((0, 2)) * (1 + 1 / 36), rtol=0.05)
    assert result.sigma == pytest.approx(simulation.sigma, rel=0.03)
    assert result.lambda_0 == pytest.approx(np.sqrt(2 * np.log(4 * 983)) / result.sigma)
    assert len({len(column) for column in result.history.values()} | {len(result.atoms_history) - 1}) == 1
    np.testing.assert_array_equal(result.atoms_history[0], start_of(simulation, -3.5).atoms)
    assert result.history["lambda_history"][-1] == pytest.approx(result.lam)
    assert result.history["template_change_history"][-1] < TrainConfig().tolerance


def test_more_noise_makes_worse_templates():
    means = []
    for snr_db in (4.0, 10.0, 16.0):
        simulation = paper_windows(80, snr_db=snr_db, seed=2)
        result = train(simulation.windows, start_of(simulation), TrainConfig(), sigma=simulation.sigma, seed=0)
        means.append(errors_db(simulation, result.dictionary).mean())
    assert means[0] > means[1] + 0.5 > means[2] + 1.0


def test_the_start_is_annealed_because_bad_templates_are_noise(simulation):
    """With the whole penalty from the start it takes many more epochs to get all four below -14 dB."""

    def epochs(annealing: float) -> int:
        config = TrainConfig(annealing=annealing, epochs=25)
        result = train(simulation.windows, start_of(simulation, -3.5), config, sigma=simulation.sigma, seed=0)
        worst = [errors_db(simulation, Dictionary(atoms, np.ones(4))).max() for atoms in result.atoms_history]
        return next((i for i, value in enumerate(worst) if value < -14), len(worst))

    annealed = epochs(0.8)
    assert annealed <= 6 and 2 * annealed <= epochs(0.0)


def test_while_the_penalty_falls_few_windows_do(simulation, monkeypatch):
    start, config = start_of(simulation, -3.5), TrainConfig()
    everything = train(simulation.windows, start, config, sigma=simulation.sigma, seed=0)
    counts, module = [], sys.modules["spikecrsae.crsae.train"]

    def counting(windows, *rest):
        counts.append(len(windows))
        return encode(windows, *rest)

    monkeypatch.setattr(module, "encode", counting)
    monkeypatch.setattr(module, "ENOUGH_CODES", 60)
    result = train(simulation.windows, start, config, sigma=simulation.sigma, seed=0)
    assert counts[0] == counts[-1] == counts[-2] == 120 and min(counts[1:3]) == max(counts[1:3]) <= 40
    np.testing.assert_allclose(
        errors_db(simulation, result.dictionary), errors_db(simulation, everything.dictionary), atol=0.5
    )
    assert result.lam == pytest.approx(everything.lam, rel=1e-2)
    # the end comes while only some windows are in use
    short = train(simulation.windows, start, TrainConfig(epochs=3), sigma=simulation.sigma, seed=0)
    assert counts[-1] == 120 and np.isfinite(short.dictionary.scale).all()


@pytest.mark.slow
def test_a_full_gpu_gets_half_as_many_windows_and_the_codes_stay(simulation, monkeypatch):
    """Memory runs out as it would on a card, by an encoder that refuses more than 20 windows."""
    import torch

    from spikecrsae.crsae.model import CRsAE

    windows, start = simulation.windows[:40], start_of(simulation)
    config = TrainConfig(solver="fista", n_iterations=20, epochs=1)
    whole = train(windows, start, config, sigma=simulation.sigma, seed=0)
    asked, encode = [], CRsAE.encode

    def small(model, signal, start=None):
        asked.append(len(signal))
        if len(signal) > 20:
            raise torch.cuda.OutOfMemoryError("full")
        return encode(model, signal, start)

    monkeypatch.setattr(CRsAE, "encode", small)
    parts = train(windows, start, config, sigma=simulation.sigma, seed=0)
    np.testing.assert_allclose(parts.dictionary.atoms, whole.dictionary.atoms, atol=1e-5)
    assert parts.lam == pytest.approx(whole.lam, rel=1e-5)
    assert asked[:4] == [32, 16, 16, 8]


def test_each_half_step_of_em_does_what_it_promises(simulation):
    """At fixed templates and lambda the codes lower the objective (minus Eq. 20 per window); at fixed codes least squares
    lowers its data term, and the closed form its terms in lambda."""
    windows, atoms = np.ascontiguousarray(simulation.windows / simulation.sigma, np.float32), start_of(simulation).atoms
    joined = windows.transpose(1, 0, 2).reshape(1, -1)
    prior = LambdaPrior(4, windows.shape[2] - 17, 1.0, TrainConfig().kappa)

    def events(codes) -> SparseCode:
        window, unit, position = np.nonzero(codes)
        samples = window * windows.shape[2] + position
        return SparseCode.build(unit, samples, codes[window, unit, position], 4, joined.shape[1] - 17)

    def squares(atoms, codes) -> float:
        residual, found = joined.astype(np.float64), events(codes)
        subtract(residual, atoms, found.unit, found.sample, found.amplitude)
        return float((residual**2).sum())

    def mean_l1(codes) -> float:
        return float(np.abs(codes).sum(dtype=np.float64)) / len(windows)

    def value(codes, lam) -> float:
        penalty = lam * (mean_l1(codes) + 4 * prior.delta) - (prior.n_positions + prior.r - 1) * 4 * np.log(lam)
        return squares(atoms, codes) / (2 * len(windows)) + penalty

    lam = prior.lambda_0
    codes = encode(windows, atoms, 1.5 * lam, True, 0.01)
    better = encode(windows, atoms, lam, True, 0.01, codes)
    assert value(better, lam) < value(codes, lam)
    assert squares(fit_templates(joined, events(better), 18), better) < squares(atoms, better)
    assert value(better, prior.update(mean_l1(better))) < value(better, lam)


def test_the_objective_falls_over_the_course_of_em(simulation):
    config = TrainConfig(annealing=0.0)
    result = train(simulation.windows, start_of(simulation), config, sigma=simulation.sigma, seed=0)
    objective = result.history["objective_history"]
    assert objective[-1] < objective[0]
    assert np.diff(objective).max() < 0.02 * (objective[0] - objective[-1])


def windows_at_rate(simulation, rate_hz: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Ten windows of one second in units of the noise, four Poisson neurons of this rate; spikes per neuron."""
    windows = rng.standard_normal((10, 1, 10000))
    counts = np.zeros(4)
    for window in windows:
        for unit in range(4):
            n = rng.poisson(rate_hz)
            place = np.sort(rng.integers(0, 9982, n))
            place = place[np.r_[True, np.diff(place) > 20][:n]]
            counts[unit] += len(place)
            subtract(window, simulation.templates, np.full(len(place), unit), place, -rng.normal(20, 3, len(place)))
    return windows.astype(np.float32), counts


@pytest.mark.parametrize("rate_hz", [1.0, 5.0, 20.0, 50.0])
def test_lambda_neither_kills_the_codes_nor_lets_them_all_live(simulation, rate_hz):
    windows, counts = windows_at_rate(simulation, rate_hz, np.random.default_rng(0))
    start = Dictionary.from_templates(20 * perturb_templates(simulation.templates, -6.0, np.random.default_rng(0)))
    config = TrainConfig(epochs=15)
    result = train(windows, start, config, seed=0)
    assert 1 / (1 + 1 / config.kappa) <= result.lam / result.lambda_0 <= 1 + 1 / config.kappa
    bias = result.lam * result.sigma**2
    codes = coordinate_descent(correlate(windows, result.dictionary.atoms), gram(result.dictionary.atoms), bias, True, 1e-3)
    found = (codes > 0).sum((0, 2))
    assert np.all(found >= 0.7 * counts)
    # a spike may spread over a few neighbouring samples, and its like may take a part
    assert found.sum() <= 4 * counts.sum() + 50


def test_without_the_prior_lambda_would_have_killed_them(simulation):
    """The maximum-likelihood lambda N_e C / ||x||_1 of the true code leaves nothing alive at 1 Hz (MODEL)."""
    windows, counts = windows_at_rate(simulation, 1.0, np.random.default_rng(0))
    lam = 4 * 9983 * len(windows) / (20 * counts.sum())
    atoms = simulation.templates
    assert not coordinate_descent(correlate(windows, atoms), gram(atoms), lam, True, 1e-3).any()


def test_units_of_the_signal_do_not_matter(simulation):
    config, start = TrainConfig(epochs=4), start_of(simulation)
    one = train(simulation.windows, start, config, sigma=simulation.sigma, seed=0)
    louder = replace(start, scale=1000 * start.scale)
    other = train(1000 * simulation.windows, louder, config, sigma=1000 * simulation.sigma, seed=0)
    np.testing.assert_allclose(other.dictionary.atoms, one.dictionary.atoms, atol=1e-3)
    assert other.lam * 1000 == pytest.approx(one.lam, rel=1e-4)
    assert other.sigma == pytest.approx(1000 * one.sigma, rel=1e-4)
    np.testing.assert_allclose(other.dictionary.scale, 1000 * one.dictionary.scale, rtol=1e-3)


def test_two_sided_codes_leave_no_doubt_about_the_sign(simulation):
    start = start_of(simulation)
    flipped = Dictionary(-start.atoms, start.scale)
    config = TrainConfig(shrinkage="two-sided", epochs=12)
    result = train(simulation.windows, flipped, config, sigma=simulation.sigma, seed=0)
    assert errors_db(simulation, result.dictionary).max() < -12
    assert np.all((result.dictionary.atoms * simulation.templates).sum((1, 2)) > 0.9)


def test_a_silent_unit_keeps_its_template_and_scale(simulation):
    odd = np.zeros((1, 1, 18))
    odd[0, 0, 8:10] = (1, -1)
    extra = Dictionary.from_templates(7 * odd)
    start = start_of(simulation)
    both = Dictionary(np.concatenate([start.atoms, extra.atoms]), np.concatenate([start.scale, extra.scale]))
    config = TrainConfig(epochs=3, annealing=20.0)
    result = train(simulation.windows, both, config, sigma=simulation.sigma, seed=0)
    np.testing.assert_allclose(result.atoms_history[1], both.atoms, atol=1e-6)


@pytest.mark.slow
def test_fista_trains_to_the_same_templates(simulation):
    start, config = start_of(simulation), TrainConfig(epochs=3, annealing=0.0, n_iterations=100)
    results = [
        train(simulation.windows[:30], start, replace(config, solver=solver), sigma=simulation.sigma, seed=0)
        for solver in ("coordinate", "fista")
    ]
    np.testing.assert_allclose(results[1].dictionary.atoms, results[0].dictionary.atoms, atol=0.03)
    assert results[1].lam == pytest.approx(results[0].lam, rel=1e-3)


def test_augmentation_stays_within_the_model():
    rng = np.random.default_rng(0)
    batch = rng.standard_normal((8, 2, 50)).astype(np.float32)
    np.testing.assert_array_equal(_augmented(batch, True, False, rng), batch)
    flipped = _augmented(batch, False, False, rng)
    signs = flipped[:, 0, 0] / batch[:, 0, 0]
    assert set(signs) == {-1.0, 1.0}
    np.testing.assert_array_equal(flipped, batch * signs[:, None, None])
    for before, after in zip(batch, _augmented(batch, True, True, rng), strict=True):
        shifts = [s for s in range(50) if np.array_equal(np.roll(before, s, axis=1), after)]
        assert len(shifts) == 1


def test_the_observer_hears_of_every_epoch(simulation):
    heard = []

    class Listener(Observer):
        def start(self, stage, total=None):
            heard.append((stage, total))

        def advance(self, n=1):
            heard.append(n)

        def finish(self, summary=""):
            heard.append(summary)

    config = TrainConfig(epochs=2)
    train(simulation.windows[:10], start_of(simulation), config, sigma=simulation.sigma, seed=0, observer=Listener())
    assert heard[:3] == [("train", 2), 1, 1] and heard[3].startswith("lambda")


def test_what_cannot_be_trained_is_refused(simulation):
    start, config = start_of(simulation), TrainConfig()
    windows = simulation.windows
    with pytest.raises(InputError, match="empty"):
        train(windows, Dictionary(np.zeros((0, 1, 18)), np.zeros(0)), config, seed=0)
    with pytest.raises(InputError, match="shorter than a template"):
        train(windows[:, :, :17], start, config, seed=0)
    with pytest.raises(InputError, match="1 channels"):
        train(np.repeat(windows, 2, axis=1), start, config, seed=0)
    with pytest.raises(InputError, match="at least one"):
        train(windows[:0], start, config, seed=0)
    with pytest.raises(UsageError, match="noise level"):
        train(windows, start, config, sigma=0.0, seed=0)
    with pytest.raises(UsageError, match="cannot be unrolled"):
        train(windows, start, TrainConfig(method="unrolled", solver="coordinate"), seed=0)
    with pytest.raises(UsageError, match="runs on the CPU"):
        train(windows, start, TrainConfig(solver="coordinate"), seed=0, device="cuda")


@pytest.mark.slow
def test_backpropagation_improves_the_templates_and_repeats_by_seed(simulation):
    """One annealed epoch on a few windows; unit norm and the bounds of lambda hold after every step."""
    config = TrainConfig(method="unrolled", epochs=1, n_iterations=15, batch_size=4)
    start = start_of(simulation)
    windows = simulation.windows[:16]
    first, second = (train(windows, start, config, sigma=simulation.sigma, seed=3) for _ in range(2))
    np.testing.assert_allclose(first.dictionary.atoms, second.dictionary.atoms, atol=1e-5)
    assert errors_db(simulation, first.dictionary).mean() < -6.0
    np.testing.assert_allclose((first.atoms_history**2).sum((2, 3)), 1, atol=1e-5)
    assert np.all(np.abs(np.log(first.history["lambda_history"] / first.lambda_0)) <= np.log(1 + 1 / config.kappa) + 1e-6)


def short_windows(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """64 windows of 250 samples at 16 dB, one N(180, 30) spike of each of two random neurons in each, in units of the
    noise; the unit-norm templates (2, 1, 18); the mean amplitude. Random shapes: a code is unique, as a smooth shape's
    hardly is, and 40 iterations get there."""
    templates = rng.standard_normal((2, 1, 18)) * np.hanning(20)[1:-1]
    templates /= np.sqrt((templates**2).sum((1, 2), keepdims=True))
    windows, amplitudes = np.zeros((64, 1, 250)), rng.normal(180, 30, (64, 2))
    for window, amplitude in zip(windows, amplitudes, strict=True):
        subtract(window, templates, np.arange(2), rng.integers(0, 233, 2), -amplitude)
    sigma = windows.std() / 10 ** (16 / 20)
    windows = windows / sigma + rng.standard_normal(windows.shape)
    return windows.astype(np.float32), templates, float(amplitudes.mean() / sigma)


@pytest.mark.slow
def test_backpropagation_and_closed_form_training_end_within_a_decibel(monkeypatch):
    """From the same start of -7 dB on the same windows, template by template."""
    import torch

    rng = np.random.default_rng(42)
    windows, templates, scale = short_windows(rng)
    start = Dictionary.from_templates(perturb_templates(templates, -7.0, rng) * scale)
    unrolled = TrainConfig(method="unrolled", n_iterations=40, epochs=24, learning_rate=0.03, batch_size=8)
    # so short convolutions are faster without oneDNN
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    results = [train(windows, start, config, seed=0).dictionary for config in (TrainConfig(), unrolled)]
    em, back = (np.array([template_error_db(t, a) for t, a in zip(templates, r.atoms, strict=True)]) for r in results)
    assert max(em.max(), back.max()) < -17
    np.testing.assert_allclose(back, em, atol=1.0)
