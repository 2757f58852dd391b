"""The unrolled encoder: the paper's gradients against automatic differentiation, the prior of lambda, and back-propagation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from spikecrsae.config import TrainConfig
from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import Laplace, SpikeSlab
from spikecrsae.crsae.train import train
from spikecrsae.crsae.unrolled import LambdaPrior, Unrolled, _augmented, _shifted, lambda_loss, reconstruction_loss
from spikecrsae.csc.least_squares import subtract
from spikecrsae.csc.objective import kkt_violation
from spikecrsae.csc.operator import synthesis
from spikecrsae.csc.subsample import shift_in_time
from spikecrsae.simulate import paper_windows, perturb_templates, template_error_db

SIGMA = 0.8
#: lambda of each of three units, in units of 1 / sigma.
LAM = torch.tensor([1.4, 1.6, 1.9], dtype=torch.float64)


@pytest.fixture(autouse=True)
def short_convolutions(monkeypatch):
    """They are faster without oneDNN."""
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)


def problem(
    seed: int = 0, n_units: int = 3, n_channels: int = 1, n_times: int = 7, n_positions: int = 50, n_windows: int = 1
):
    """A signal of sparse codes and noise, and unit-norm atoms off the true ones; torch float64."""
    rng = np.random.default_rng(seed)
    atoms = rng.standard_normal((n_units, n_channels, n_times))
    codes = rng.uniform(3, 8, (n_windows, n_units, n_positions)) * (rng.random((n_windows, n_units, n_positions)) < 0.05)
    signal = synthesis(torch.from_numpy(codes), torch.from_numpy(atoms))
    signal = signal + 0.3 * torch.from_numpy(rng.standard_normal(signal.shape))
    start = torch.from_numpy(atoms + 0.3 * rng.standard_normal(atoms.shape))
    return signal, start / start.flatten(1).norm(dim=1)[:, None, None]


def unrolled(atoms: torch.Tensor, depth: int, one_sided: bool) -> Unrolled:
    """The encoder in double precision, with exactly these atoms."""
    net = Unrolled(CRsAE(atoms.numpy(), Laplace.first(len(atoms)), SIGMA), depth, one_sided).double()
    with torch.no_grad():
        net.atoms.copy_(atoms)
        net.lam.copy_(LAM[: len(atoms)])
    return net


class PaperRecursion:
    """Algorithms 1 to 3 and Eqs. 30-43 for one window and one channel, in numpy, with H as explicit convolutions.

    lam (n_units, 1): of every unit, in units of 1 / sigma. copy: with the path z_t -> z_(t-1) of the copied half of the state
    (Algorithm 1, line 6), which the printed Eqs. 33 and 43 leave out.
    """

    def __init__(self, y, h, lam, sigma, bound, depth, one_sided, copy=True):
        self.y, self.h, self.lam, self.sigma, self.bound, self.copy = y, h, lam, sigma, bound, copy
        x = older = np.zeros((len(h), len(y) - h.shape[1] + 1))
        bias, s = lam * sigma / bound, 0.0
        self.w, self.c, self.momentum = [], [], []
        for _ in range(depth):
            s_next = (1 + np.sqrt(1 + 4 * s**2)) / 2
            momentum = (s - 1) / s_next
            w = x + momentum * (x - older)
            c = w + self.analysis(y - self.synthesis(w)) / bound
            older, x = x, np.maximum(c - bias, 0) - (0 if one_sided else np.maximum(-c - bias, 0))
            s = s_next
            self.w.append(w)
            self.c.append(c)
            self.momentum.append(momentum)
        self.x = x
        self.active = [(c > bias) | ((c < -bias) & (not one_sided)) for c in self.c]

    def synthesis(self, x):
        return sum(np.convolve(code, atom) for code, atom in zip(x, self.h, strict=True))

    def analysis(self, y):
        return np.stack([np.correlate(y, atom, "valid") for atom in self.h])

    def along_h(self, codes, signal):
        """sum_n codes_c[n] signal[n + k]: the adjoint of h -> h * codes (Eqs. 36-37)."""
        return np.stack([np.correlate(signal, code, "valid") for code in codes])

    def back(self, first):
        """From the gradient of the loss with respect to x_T: yields t and dLoss/dc_t for t = T .. 1 (Eqs. 31-33)."""
        now, older = first, np.zeros_like(first)
        for t in reversed(range(len(self.c))):
            dc = self.active[t] * now
            yield t, dc
            dw = dc - self.analysis(self.synthesis(dc)) / self.bound
            now, older = (1 + self.momentum[t]) * dw + (older if self.copy else 0), -self.momentum[t] * dw

    def gradient_h(self):
        """Algorithm 2."""
        error = self.synthesis(self.x) - self.y
        gradient = self.along_h(self.x, error)
        for t, dc in self.back(self.analysis(error)):
            residual = self.y - self.synthesis(self.w[t])
            gradient += (self.along_h(dc, residual) - self.along_h(self.w[t], self.synthesis(dc))) / self.bound
        return gradient

    def gradient_lambda(self, prior):
        """Algorithm 3, Eq. 40, (n_units,); codes in units of sigma."""
        first = self.lam * np.sign(self.x) / self.sigma
        through = sum((-self.sigma / self.bound * np.sign(self.c[t]) * dc).sum(axis=1) for t, dc in self.back(first))
        mean_l1 = np.abs(self.x).sum(axis=1) / self.sigma
        return mean_l1 + prior.delta - (prior.n_positions + prior.r - 1) / self.lam[:, 0] + through


def losses(net: Unrolled, signal: torch.Tensor, prior: LambdaPrior) -> tuple[torch.Tensor, torch.Tensor]:
    """Eqs. 27 and 28."""
    reconstruction, codes = net(signal)
    return reconstruction_loss(signal, reconstruction), lambda_loss(codes / SIGMA, net.lam, prior)


def gradients(net: Unrolled, signal: torch.Tensor, prior: LambdaPrior) -> tuple[torch.Tensor, torch.Tensor]:
    """Of Eq. 27 along the atoms and of Eq. 28 along lambda."""
    data, penalty = losses(net, signal, prior)
    along_h = torch.autograd.grad(data, net.atoms, retain_graph=True)[0]
    return along_h, torch.autograd.grad(penalty, net.lam)[0]


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 12, 60])
def test_the_papers_backpropagation_is_the_automatic_gradient(depth, one_sided):
    signal, atoms = problem()
    net, prior = unrolled(atoms, depth, one_sided), LambdaPrior(3, 50, 1.0)
    along_h, along_lambda = gradients(net, signal, prior)
    arguments = signal[0, 0].numpy(), atoms[:, 0].numpy(), LAM.numpy()[:, None], SIGMA, net.lipschitz, depth, one_sided
    paper = PaperRecursion(*arguments)
    np.testing.assert_allclose(paper.x, net(signal)[1][0].detach().numpy(), atol=1e-12)
    assert paper.x.any()
    np.testing.assert_allclose(paper.gradient_h(), along_h[:, 0].numpy(), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(paper.gradient_lambda(prior), along_lambda.numpy(), rtol=1e-9)


@pytest.mark.parametrize("one_sided", [False, True])
def test_the_gradients_are_those_of_finite_differences(one_sided, monkeypatch):
    """At a step size that stays, as the gradients take it."""
    signal, atoms = problem(seed=3, n_channels=2, n_windows=2)
    net, prior, step = unrolled(atoms, 20, one_sided), LambdaPrior(3, 50, 1.0), 1e-6
    found = gradients(net, signal, prior)
    monkeypatch.setattr(Unrolled, "lipschitz", net.lipschitz)
    rng = np.random.default_rng(0)
    for which, parameter in enumerate((net.atoms, net.lam)):
        for place in rng.choice(parameter.numel(), min(parameter.numel(), 6), replace=False):
            values, flat = [], parameter.detach().flatten().clone()
            for sign in (1, -1):
                with torch.no_grad():
                    parameter.copy_((flat + sign * step * (torch.arange(len(flat)) == place)).view_as(parameter))
                    values.append(float(losses(net, signal, prior)[which]))
            with torch.no_grad():
                parameter.copy_(flat.view_as(parameter))
            difference = (values[0] - values[1]) / (2 * step)
            assert float(found[which].flatten()[place]) == pytest.approx(difference, rel=1e-4, abs=1e-6)


def test_the_printed_recursion_lacks_the_copied_half_of_the_state():
    signal, atoms = problem()
    net = unrolled(atoms, 12, True)
    along_h, _ = gradients(net, signal, LambdaPrior(3, 50, 1.0))
    arguments = signal[0, 0].numpy(), atoms[:, 0].numpy(), LAM.numpy()[:, None], SIGMA, net.lipschitz, 12, True
    printed = PaperRecursion(*arguments, copy=False).gradient_h()
    assert np.abs(printed - along_h[:, 0].numpy()).max() > 1e-3 * float(along_h.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("n_channels", [1, 3])
def test_only_the_full_objective_has_the_gradient_of_fixed_codes(n_channels):
    """The envelope theorem at converged codes; Eq. 27 through the encoder is another direction (MODEL)."""
    signal, atoms = problem(seed=2, n_channels=n_channels, n_windows=2)
    net = unrolled(atoms, 3000, one_sided=True)
    with torch.no_grad():
        net.lam.fill_(2 * SIGMA)
    lam = net.lam.detach()[:, None] / SIGMA
    reconstruction, codes = net(signal)
    assert kkt_violation(signal, codes, atoms, lam, SIGMA, True).max() < 1e-6
    data = reconstruction_loss(signal, reconstruction)
    full = data / SIGMA**2 + (lam * codes.abs()).sum((1, 2)).mean()
    through, data_alone = (torch.autograd.grad(loss, net.atoms, retain_graph=True)[0].flatten() for loss in (full, data))
    fixed_loss = reconstruction_loss(signal, synthesis(codes.detach(), net.atoms)) / SIGMA**2
    fixed = torch.autograd.grad(fixed_loss, net.atoms)[0].flatten()
    torch.testing.assert_close(through, fixed, rtol=1e-5, atol=1e-5 * float(fixed.abs().max()))
    assert torch.nn.functional.cosine_similarity(data_alone, fixed, dim=0) < 0.95


def test_forward_is_the_decoder_after_the_encoder_for_any_number_of_channels():
    for n_channels in (1, 4):
        signal, atoms = problem(n_channels=n_channels, n_windows=3)
        reconstruction, codes = unrolled(atoms, 500, True)(signal)
        assert codes.shape == (3, 3, 50) and codes.min() >= 0
        torch.testing.assert_close(reconstruction, synthesis(codes, atoms))
    two_sided = unrolled(atoms, 500, False)
    torch.testing.assert_close(two_sided(-signal)[1], -two_sided(signal)[1])


def test_more_penalty_is_lambda_times_as_large():
    signal, atoms = problem()
    net, larger = unrolled(atoms, 200, True), unrolled(atoms, 200, True)
    with torch.no_grad():
        larger.lam.mul_(1.7)
    torch.testing.assert_close(net(signal, excess=1.7)[1], larger(signal)[1])


@pytest.mark.parametrize("kappa", [0.5, 8.5])
@pytest.mark.parametrize("mean_l1", [0.0, 3.0, 200.0])
def test_eq_28_is_smallest_at_the_papers_lambda(mean_l1, kappa):
    """(N_e + r - 1) / (||x||_1 + delta), of every unit alone; the prior's bounds are a factor 1 + 1/kappa about its centre."""
    prior = LambdaPrior(4, 983, kappa)
    grid = torch.linspace(0.2, 3 * prior.bounds[1], 40001, dtype=torch.float64)
    codes = torch.tensor([[[mean_l1]]], dtype=torch.float64)
    values = torch.stack([lambda_loss(codes, lam[None], prior) for lam in grid[::40]])
    expected = (prior.n_positions + prior.r - 1) / (mean_l1 + prior.delta)
    assert float(grid[::40][values.argmin()]) == pytest.approx(expected, rel=2e-2)
    low, high = prior.bounds
    assert high / prior.lambda_0 == pytest.approx(prior.lambda_0 / low) == pytest.approx(1 + 1 / kappa)
    assert expected <= high


def test_the_prior_of_lambda_is_centred_and_its_weight_does_not_depend_on_the_window():
    prior = LambdaPrior(4, 983, 8.5)
    assert prior.lambda_0 == pytest.approx(np.sqrt(2 * np.log(4 * 983)))
    assert prior.r / prior.delta == pytest.approx(prior.lambda_0)
    for n_positions in (983, 98_300):
        longer, mean_l1 = LambdaPrior(4, n_positions, 8.5), 0.03 * n_positions
        optimum = (longer.n_positions + longer.r - 1) / (mean_l1 + longer.delta)
        assert optimum == pytest.approx(longer.lambda_0 * 9.5 / (8.5 + longer.lambda_0 * 0.03), rel=1e-3)


def test_copies_between_samples_are_those_of_the_encoder():
    templates, shifts = np.random.default_rng(0).standard_normal((3, 2, 18)), np.array([-0.4, 0.0, 0.3])
    found = _shifted(torch.from_numpy(templates).float(), shifts).numpy().reshape(3, 3, 2, 18)
    for step, by in enumerate(shifts):
        np.testing.assert_allclose(found[:, step], shift_in_time(templates, by), atol=1e-5)


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


# ---- back-propagation


def errors_db(true: np.ndarray, found: np.ndarray) -> np.ndarray:
    return np.array([template_error_db(t, f) for t, f in zip(true, found, strict=True)])


def short_windows(seed: int) -> tuple[np.ndarray, np.ndarray, CRsAE]:
    """64 windows of 250 samples at 16 dB, one N(180, 30) spike of each of two random neurons in each, in units of the
    noise; the unit-norm templates (2, 1, 18); a start of -7 dB. Random shapes: a code is unique, as a smooth shape's hardly is, and
    40 iterations get there."""
    rng = np.random.default_rng(seed)
    templates = rng.standard_normal((2, 1, 18)) * np.hanning(20)[1:-1]
    templates /= np.sqrt((templates**2).sum((1, 2), keepdims=True))
    windows, amplitudes = np.zeros((64, 1, 250)), rng.normal(180, 30, (64, 2))
    for window, amplitude in zip(windows, amplitudes, strict=True):
        subtract(window, templates, np.arange(2), rng.integers(0, 233, 2), -amplitude)
    sigma = windows.std() / 10 ** (16 / 20)
    windows = windows / sigma + rng.standard_normal(windows.shape)
    start = perturb_templates(templates, -7.0, rng) * float(amplitudes.mean() / sigma)
    return windows.astype(np.float32), templates, CRsAE(start, Laplace.first(2), n_shifts=1)


UNROLLED = TrainConfig(method="unrolled", n_iterations=40, epochs=24, learning_rate=0.03, batch_size=8)


@pytest.mark.slow
@pytest.mark.parametrize("shrinkage", ["one-sided", "two-sided"])
def test_backpropagation_and_closed_form_training_end_within_a_decibel(shrinkage):
    """From the same start of -7 dB on the same windows, template by template; with two-sided codes augmented by their sign."""
    windows, templates, start = short_windows(42)
    settings = TrainConfig(shrinkage=shrinkage), replace(UNROLLED, shrinkage=shrinkage, epochs=16)
    models = [train(windows, start, config, seed=0).model for config in settings]
    em, back = (errors_db(templates, model.templates) for model in models)
    assert max(em.max(), back.max()) < -17
    np.testing.assert_allclose(back, em, atol=1.0)
    norms = [np.sqrt(model.energy) * model.sigma for model in models]
    np.testing.assert_allclose(*norms, rtol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [42, 1, 2])
def test_backpropagation_through_the_slab_ends_within_a_decibel_too(seed):
    """Of closed-form training under the Laplace prior; measured over six seeds: 1.7 dB at most, and 0.4 dB on these."""
    windows, templates, start = short_windows(seed)
    slab = train(windows, replace(start, prior=SpikeSlab.first(2)), UNROLLED, seed=0)
    em = train(windows, start, TrainConfig(), seed=0)
    ours, theirs = (errors_db(templates, result.model.templates) for result in (slab, em))
    assert ours.max() < -17
    np.testing.assert_allclose(ours, theirs, atol=1.0)
    assert isinstance(slab.model.prior, SpikeSlab) and slab.history["spread"].shape == (len(slab.history["sigma"]), 2)
    # amplitudes are N(180, 30)
    np.testing.assert_allclose(slab.model.prior.spread, 1 / 6, atol=0.05)


@pytest.mark.parametrize("prior", [Laplace.first(4), SpikeSlab.first(4)], ids=lambda prior: prior.name)
def test_backpropagation_mends_spoiled_templates_and_repeats_by_seed(prior):
    """One epoch on a few windows of the paper's simulation; lambda stays within the bounds of its prior."""
    simulation = paper_windows(16, snr_db=16.0, seed=1)
    templates = perturb_templates(simulation.templates, -6.0, np.random.default_rng(1)) * simulation.amplitudes.mean()
    config = TrainConfig(method="unrolled", epochs=1, n_iterations=15, batch_size=4)
    start = CRsAE(templates, prior, simulation.sigma)
    first, second = (train(simulation.windows, start, config, seed=3) for _ in range(2))
    np.testing.assert_allclose(first.templates_history, second.templates_history, atol=1e-7)
    other = train(simulation.windows, start, config, seed=4)
    assert np.abs(other.model.templates - first.model.templates).max() > 1e-4
    assert errors_db(simulation.templates, first.model.templates).mean() < -6.0
    assert type(first.model.prior) is type(prior)
    if isinstance(prior, Laplace):
        bounds = LambdaPrior(4, 983, config.kappa).bounds
        assert np.all((first.history["lambda"] >= bounds[0] - 1e-5) & (first.history["lambda"] <= bounds[1] + 1e-5))
