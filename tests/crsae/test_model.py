"""CRsAE: the module, the prior of lambda, and the paper's gradients against automatic differentiation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spikecrsae.crsae.model import CRsAE, lambda_loss, reconstruction_loss
from spikecrsae.crsae.priors import LambdaPrior
from spikecrsae.csc.objective import kkt_violation
from spikecrsae.csc.operator import synthesis
from spikecrsae.errors import InputError, UsageError

SIGMA, LAM = 0.8, 2.0


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


class PaperRecursion:
    """Algorithms 1 to 3 and Eqs. 30-43 for one window and one channel, in numpy, with H as explicit convolutions.

    copy: with the path z_t -> z_(t-1) of the copied half of the state (Algorithm 1, line 6), which the printed Eqs. 33
    and 43 leave out.
    """

    def __init__(self, y, h, lam, sigma, bound, depth, one_sided, copy=True):
        self.y, self.h, self.lam, self.sigma, self.bound, self.copy = y, h, lam, sigma, bound, copy
        x = older = np.zeros((len(h), len(y) - h.shape[1] + 1))
        bias, s = lam * sigma**2 / bound, 0.0
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
        """Algorithm 3, Eq. 40."""
        n_units = len(self.h)
        through = sum(
            float((-(self.sigma**2) / self.bound * np.sign(self.c[t]) * dc).sum()) for t, dc in self.back(np.sign(self.x))
        )
        weight = (prior.n_positions + prior.r - 1) * n_units
        return np.abs(self.x).sum() + n_units * prior.delta - weight / self.lam + self.lam * through


def autograd_gradients(signal, atoms, depth, one_sided, prior):
    model = CRsAE(atoms, LAM, SIGMA, depth, one_sided)
    reconstruction, codes = model(signal)
    along_h = torch.autograd.grad(reconstruction_loss(signal, reconstruction), model.atoms, retain_graph=True)[0]
    along_lambda = torch.autograd.grad(lambda_loss(codes, model.lam, prior), model.lam)[0]
    return model, along_h[:, 0].numpy(), float(along_lambda)


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("depth", [1, 2, 12, 60])
def test_the_papers_backpropagation_is_the_automatic_gradient(depth, one_sided):
    signal, atoms = problem()
    prior = LambdaPrior(3, 50, SIGMA, 1.0)
    model, along_h, along_lambda = autograd_gradients(signal, atoms, depth, one_sided, prior)
    paper = PaperRecursion(signal[0, 0].numpy(), atoms[:, 0].numpy(), LAM, SIGMA, model.lipschitz, depth, one_sided)
    np.testing.assert_allclose(paper.x, model.encode(signal)[0].detach().numpy(), atol=1e-12)
    assert paper.x.any()
    np.testing.assert_allclose(paper.gradient_h(), along_h, rtol=1e-9, atol=1e-9)
    assert paper.gradient_lambda(prior) == pytest.approx(along_lambda, rel=1e-9)


def test_the_printed_recursion_lacks_the_copied_half_of_the_state():
    signal, atoms = problem()
    model, along_h, _ = autograd_gradients(signal, atoms, 12, True, LambdaPrior(3, 50, SIGMA, 1.0))
    arguments = (signal[0, 0].numpy(), atoms[:, 0].numpy(), LAM, SIGMA, model.lipschitz, 12, True)
    printed = PaperRecursion(*arguments, copy=False).gradient_h()
    assert np.abs(printed - along_h).max() > 1e-3 * np.abs(along_h).max()


@pytest.mark.slow
@pytest.mark.parametrize("n_channels", [1, 3])
def test_only_the_full_objective_has_the_gradient_of_fixed_codes(n_channels):
    """The envelope theorem at converged codes; Eq. 27 through the encoder is another direction (MODEL)."""
    signal, atoms = problem(seed=2, n_channels=n_channels, n_windows=2)
    model = CRsAE(atoms, LAM, SIGMA, 3000, one_sided=True)
    reconstruction, codes = model(signal)
    assert kkt_violation(signal, codes, atoms, LAM, SIGMA, True).max() < 1e-6
    data = reconstruction_loss(signal, reconstruction)
    full = data / SIGMA**2 + LAM * codes.abs().sum((1, 2)).mean()
    through, data_alone = (torch.autograd.grad(loss, model.atoms, retain_graph=True)[0].flatten() for loss in (full, data))
    fixed_loss = reconstruction_loss(signal, synthesis(codes.detach(), model.atoms)) / SIGMA**2
    fixed = torch.autograd.grad(fixed_loss, model.atoms)[0].flatten()
    torch.testing.assert_close(through, fixed, rtol=1e-5, atol=1e-5 * float(fixed.abs().max()))
    cosine = torch.nn.functional.cosine_similarity(data_alone, fixed, dim=0)
    assert cosine < 0.95


def test_forward_is_the_decoder_after_the_encoder_for_any_number_of_channels():
    for n_channels in (1, 4):
        signal, atoms = problem(n_channels=n_channels, n_windows=3)
        model = CRsAE(atoms, LAM, SIGMA, 500)
        reconstruction, codes = model(signal)
        assert codes.shape == (3, 3, 50) and codes.min() >= 0
        torch.testing.assert_close(reconstruction, synthesis(codes, atoms))
        warm = CRsAE(atoms, LAM, SIGMA, 1).encode(signal, start=codes.detach())
        torch.testing.assert_close(warm, codes, atol=1e-4, rtol=0)
    two_sided = CRsAE(atoms, LAM, SIGMA, 500, one_sided=False)
    torch.testing.assert_close(two_sided.encode(-signal), -two_sided.encode(signal))


def test_normalise_brings_the_atoms_back_and_the_step_follows():
    _, atoms = problem()
    model = CRsAE(3 * atoms, LAM)
    before = model.lipschitz
    torch.testing.assert_close(model.normalise(), torch.full((3,), 3.0, dtype=torch.float64))
    torch.testing.assert_close(model.atoms.detach(), atoms)
    assert model.lipschitz == pytest.approx(before / 9)


def test_the_state_dict_carries_atoms_and_lambda():
    _, atoms = problem()
    other = CRsAE(torch.ones_like(atoms), 1.0)
    other.load_state_dict(CRsAE(atoms, LAM).state_dict())
    torch.testing.assert_close(other.atoms.detach(), atoms)
    assert other.lam.item() == LAM


def test_what_does_not_fit_is_refused():
    signal, atoms = problem(n_channels=2)
    with pytest.raises(InputError, match="at least one unit"):
        CRsAE(np.zeros((0, 2, 7)), LAM)
    with pytest.raises(UsageError, match="positive"):
        CRsAE(atoms, 0.0)
    for wrong in (signal[:, :1], signal[:, :, :6], signal[0]):
        with pytest.raises(InputError, match="2 channels, at least 7 samples"):
            CRsAE(atoms, LAM).encode(wrong)


@pytest.mark.parametrize("mean_l1", [0.0, 3.0, 200.0, 1e6])
@pytest.mark.parametrize("kappa", [0.5, 8.5])
def test_the_closed_form_of_lambda_minimises_eq_28_within_its_bounds(mean_l1, kappa):
    prior = LambdaPrior(4, 983, 0.5, kappa)
    low, high = prior.bounds
    grid = torch.linspace(low, high, 20001, dtype=torch.float64)
    codes = torch.full((1, 1, 1), mean_l1, dtype=torch.float64)
    values = lambda_loss(codes, grid, prior)
    assert prior.update(mean_l1) == pytest.approx(float(grid[values.argmin()]), rel=1e-3)
    assert low <= prior.update(mean_l1) <= high == pytest.approx(prior.lambda_0 * (1 + 1 / kappa))


def test_the_prior_is_centred_on_lambda_0_and_scale_free():
    prior = LambdaPrior(4, 983, 0.024, 8.5)
    assert prior.lambda_0 == pytest.approx(np.sqrt(2 * np.log(4 * 983)) / 0.024)
    assert prior.r / prior.delta == pytest.approx(prior.lambda_0)
    rate = 0.03
    for n_positions in (983, 98300):
        longer = LambdaPrior(4, n_positions, 1.0, 8.5)
        expected = longer.lambda_0 * 9.5 / (8.5 + longer.lambda_0 * rate / 4)
        assert longer.update(rate * n_positions) == pytest.approx(expected, rel=1e-3)
