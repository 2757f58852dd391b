"""Training by back-propagation through the unrolled encoder (Algorithms 2 to 4), for either prior, in torch.

With the Laplace prior the encoder is FISTA and every operation of it is differentiated. The slab's encoder selects spikes by
a hard threshold, which has no useful derivative: the support (which spikes there are) is held fixed, and the gradient goes
through one more layer of amplitudes on it (Sparse autoencoder neural operators, "fixed support").
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from spikecrsae.config import TrainConfig
from spikecrsae.crsae.course import ANNEALING_RATE, SETTLED_RATE, Course, mean_sizes, spike_sizes
from spikecrsae.crsae.em import E_STEP
from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import FIRST_LAMBDA, Laplace
from spikecrsae.csc.fista import fista
from spikecrsae.csc.operator import analysis, synthesis
from spikecrsae.csc.step_size import lipschitz_bound
from spikecrsae.progress import Observer

#: Bytes of activations that back-propagation may keep.
ACTIVATION_BYTES = 1 << 30
#: An epoch is many steps, so the penalty falls faster than in EM.
RATE = ANNEALING_RATE**2


@dataclass(frozen=True)
class LambdaPrior:
    """The paper's Gamma(r, delta) prior of each lambda_c, scale-free, centred on lambda_0 = sqrt(2 log(C N_e)).

    r = delta lambda_0, delta = kappa N_e / lambda_0: with delta in proportion to N_e the weight of the prior is kappa whatever the
    length of a window. A weak prior kills the codes: spikes are so rare that the maximum-likelihood lambda lets none survive.
    The prior is cut off at `bounds`, a factor 1 + 1/kappa each way. n_positions is N_e, the length of one code; n_units is C.
    """

    n_units: int
    n_positions: int
    kappa: float

    @property
    def lambda_0(self) -> float:
        return float(np.sqrt(2 * np.log(max(2, self.n_units * self.n_positions))))

    @property
    def delta(self) -> float:
        return self.kappa * self.n_positions / self.lambda_0

    @property
    def r(self) -> float:
        return self.delta * self.lambda_0

    @property
    def bounds(self) -> tuple[float, float]:
        factor = 1 + 1 / self.kappa
        return self.lambda_0 / factor, self.lambda_0 * factor


class Unrolled(nn.Module):
    """The encoder and tied decoder of a CRsAE with the Laplace prior, unrolled.

    Parameters: atoms (n_units, n_channels, n_times) of unit norm, shared by encoder and decoder, and lam (n_units,) in units of
    1 / sigma. n_iterations: T. one_sided: non-negative codes, else Eq. 25.
    """

    def __init__(self, model: CRsAE, n_iterations: int, one_sided: bool) -> None:
        super().__init__()
        norms = np.linalg.norm(model.templates.reshape(model.n_units, -1), axis=1)
        self.atoms = nn.Parameter(torch.tensor(model.templates / norms[:, None, None], dtype=torch.float32))
        self.lam = nn.Parameter(torch.full((model.n_units,), FIRST_LAMBDA))
        self.sigma, self.n_iterations, self.one_sided = model.sigma, n_iterations, one_sided

    @property
    def lipschitz(self) -> float:
        """L of the present atoms, >= the largest eigenvalue of H^T H; a constant for the gradients."""
        return lipschitz_bound(self.atoms.detach().cpu().numpy())

    def forward(self, signal: torch.Tensor, excess: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        """(reconstruction, codes) of signal (n_windows, n_channels, n_samples), Eq. 26, under `excess` times the penalty."""
        lam = excess * self.lam[:, None] / self.sigma
        codes = fista(signal, self.atoms, lam, self.sigma, self.lipschitz, self.n_iterations, self.one_sided)
        return synthesis(codes, self.atoms), codes


def reconstruction_loss(signal: torch.Tensor, reconstruction: torch.Tensor) -> torch.Tensor:
    """1/2 ||y - CRsAE(y)||^2 (Eq. 27), averaged over windows; signal (n_windows, n_channels, n_samples)."""
    return 0.5 * (signal - reconstruction).square().sum((1, 2)).mean()


def lambda_loss(codes: torch.Tensor, lam: torch.Tensor, prior: LambdaPrior) -> torch.Tensor:
    """Sum over units of lambda_c (||x_c||_1 + delta) - (N_e + r - 1) log lambda_c (Eq. 28), ||x_c||_1 averaged over windows;
    codes in units of sigma."""
    mean_l1 = codes.abs().sum(2).mean(0)
    return (lam * (mean_l1 + prior.delta) - (prior.n_positions + prior.r - 1) * torch.log(lam)).sum()


def back_propagate(
    windows: np.ndarray,
    model: CRsAE,
    config: TrainConfig,
    rng: np.random.Generator,
    observer: Observer,
    rotate: bool,
) -> Course:
    """Algorithm 4: per mini-batch one Adam step on Eq. 27 for the atoms and, with the Laplace prior, one on Eq. 28 for lambda;
    the slab's prior has its M-step after every epoch. The steps fall over the epochs by half a cosine, to nothing."""
    kind = _LaplaceSteps if isinstance(model.prior, Laplace) else _SlabSteps
    steps, course = kind(model, config, windows.shape[2]), Course(model)
    excess = steps.first_excess
    for _ in range(config.epochs):
        order, total = rng.permutation(len(windows)), 0.0
        for first in range(0, len(order), config.batch_size):
            chosen = order[first : first + config.batch_size]
            batch = _augmented(windows[chosen], steps.one_sided, rotate, rng)
            total += steps.step(batch, excess) * len(chosen)
        moved = course.advance(steps.model(), total / len(order))
        steps.decay()
        observer.advance()
        if moved < config.tolerance and excess == 1:
            break
        excess = max(1.0, excess * (SETTLED_RATE if moved < config.tolerance else RATE))
    return course


class _Steps:
    """Adam on the atoms; with what the two priors share."""

    def __init__(self, model: CRsAE, config: TrainConfig) -> None:
        self.before, self.config = model, config
        self.device = getattr(model.backend, "device", "cpu")
        self.scale = np.linalg.norm(model.templates.reshape(model.n_units, -1), axis=1)

    def _adams(self, *groups: tuple[nn.Parameter, float]) -> None:
        self.adams = [torch.optim.Adam([parameter], lr=rate) for parameter, rate in groups]
        # with a constant step Adam would hover around the optimum instead of settling
        self.decays = [torch.optim.lr_scheduler.CosineAnnealingLR(adam, self.config.epochs) for adam in self.adams]

    def decay(self) -> None:
        for decay in self.decays:
            decay.step()

    @torch.no_grad()
    def _update(self, atoms: nn.Parameter) -> None:
        for adam in self.adams:
            adam.step()
        norms = atoms.flatten(1).norm(dim=1).clamp(min=torch.finfo(atoms.dtype).tiny)
        atoms.div_(norms[:, None, None])

    def _tensor(self, batch: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(batch).to(self.device)


class _LaplaceSteps(_Steps):
    def __init__(self, model: CRsAE, config: TrainConfig, n_samples: int) -> None:
        super().__init__(model, config)
        self.one_sided = config.shrinkage == "one-sided"
        self.net = Unrolled(model, config.n_iterations, self.one_sided).to(self.device)
        self.prior = LambdaPrior(model.n_units, n_samples - model.n_times + 1, config.kappa)
        with torch.no_grad():
            self.net.lam.fill_(self.prior.lambda_0)
        self._adams((self.net.atoms, config.learning_rate), (self.net.lam, config.learning_rate_lambda))
        # what the first templates leave of a spike is noise to the codes (Sec. VI-C), in proportion to its amplitude
        self.first_excess = max(1.0, config.annealing * float(np.median(self.scale)) / model.sigma / self.prior.lambda_0)

    def step(self, batch: np.ndarray, excess: float) -> float:
        """One update of atoms and lambda through the encoder; returns the objective per window before it. The batch is cut so
        that the activations of T iterations fit, and the gradients are added up."""
        net = self.net
        per_window = 16 * net.n_iterations * len(net.atoms) * batch.shape[2]
        gradients, objective = [torch.zeros_like(net.atoms), torch.zeros_like(net.lam)], 0.0
        for part in self._tensor(batch).split(max(1, ACTIVATION_BYTES // per_window)):
            share = len(part) / len(batch)
            reconstruction, codes = net(part, excess)
            data = reconstruction_loss(part, reconstruction) / net.sigma**2
            penalty = lambda_loss(codes / net.sigma, net.lam, self.prior)
            gradients[0] += share * torch.autograd.grad(data, net.atoms, retain_graph=True)[0]
            gradients[1] += share * torch.autograd.grad(penalty, net.lam)[0]
            objective += share * float(data.detach() + penalty.detach())
            self._measure(codes.detach().cpu().numpy(), excess)
        net.atoms.grad, net.lam.grad = gradients
        self._update(net.atoms)
        with torch.no_grad():
            net.lam.clamp_(*self.prior.bounds)
        return objective

    def _measure(self, codes: np.ndarray, excess: float) -> None:
        """Follow the mean size of every unit's spikes; codes: under `excess` times the penalty."""
        bias = excess * self.net.lam.detach().cpu().numpy() * self.net.sigma
        self.scale = 0.9 * self.scale + 0.1 * mean_sizes(spike_sizes(codes, self.before.n_times), bias, self.scale)

    def model(self) -> CRsAE:
        atoms = self.net.atoms.detach().cpu().numpy().astype(np.float64)
        prior = Laplace(self.net.lam.detach().cpu().numpy().astype(np.float64))
        templates = atoms * self.scale[:, None, None] * self.before.support[:, :, None]
        return replace(self.before, templates=templates, prior=prior)


class _SlabSteps(_Steps):
    one_sided, first_excess = True, 1.0

    def __init__(self, model: CRsAE, config: TrainConfig, n_samples: int) -> None:
        super().__init__(model, config)
        self.n_samples, self.n_seen = n_samples, 0
        atoms = torch.tensor(model.templates / self.scale[:, None, None], dtype=torch.float32)
        self.atoms = nn.Parameter(atoms.to(self.device))
        self.found: list[tuple[np.ndarray, np.ndarray]] = []
        self._adams((self.atoms, config.learning_rate))

    def step(self, batch: np.ndarray, excess: float) -> float:
        """One update of the atoms; returns half the energy of the residual per window before it."""
        model = self._now()
        # spikes of one window must not reach into the next
        apart = np.pad(batch, ((0, 0), (0, 0), (0, model.n_times)))
        joined = np.ascontiguousarray(apart.transpose(1, 0, 2)).reshape(batch.shape[1], -1)
        spikes = model.encode(joined, E_STEP)
        window, position = np.divmod(spikes.sample, apart.shape[2])
        inside = position <= batch.shape[2] - model.n_times
        where = tuple(torch.from_numpy(index[inside]).to(self.device) for index in (window, model.copy_of(spikes), position))
        self.found.append((spikes.unit[inside], model.unshrunk(spikes)[inside]))
        self.n_seen += len(batch)
        signal, amplitude = self._tensor(batch), torch.from_numpy(spikes.amplitude[inside]).float().to(self.device)
        copies = _shifted(self.atoms * torch.from_numpy(self.scale).float().to(self.device)[:, None, None], model.shifts())
        reconstruction = synthesis(
            _placed(self._layer(signal, copies, where, amplitude, model), where, signal, copies), copies
        )
        loss = reconstruction_loss(signal, reconstruction)
        self.atoms.grad = torch.autograd.grad(loss, self.atoms)[0]
        self._update(self.atoms)
        return float(loss.detach())

    def _layer(
        self,
        signal: torch.Tensor,
        copies: torch.Tensor,
        where: tuple[torch.Tensor, ...],
        amplitude: torch.Tensor,
        model: CRsAE,
    ) -> torch.Tensor:
        """The amplitudes (n_spikes,) after one more layer on the support: the slab's shrinkage of H^T (y - H x) + g x."""
        energy = copies.square().sum((1, 2))[where[1]] / model.sigma**2
        rest = signal - synthesis(_placed(amplitude, where, signal, copies), copies)
        b = analysis(rest, copies)[where[0], where[1], where[2]] / model.sigma**2 + amplitude * energy
        shrinkage, unit = model.shrinkage, where[1] // model.n_shifts
        pull, more = (
            torch.from_numpy(part).float().to(self.device)[unit] for part in (shrinkage.pull, shrinkage.total - model.energy)
        )
        return (b + pull) / (energy + more)

    def _now(self) -> CRsAE:
        atoms = self.atoms.detach().cpu().numpy().astype(np.float64)
        return replace(self.before, templates=atoms * self.scale[:, None, None] * self.before.support[:, :, None])

    def model(self) -> CRsAE:
        """After an epoch: the templates, and the prior's M-step."""
        now = self._now()
        unit, amplitude = (np.concatenate(part) for part in zip(*self.found, strict=True))
        counts = np.bincount(unit, minlength=now.n_units)
        mean = np.where(counts > 1, np.bincount(unit, amplitude, now.n_units) / np.maximum(counts, 1), 1.0)
        self.scale = self.scale * mean
        n_positions = self.n_seen * (self.n_samples - now.n_times + 1)
        prior = now.prior.maximise(unit, amplitude / mean[unit], now.energy * mean**2, n_positions)
        self.found, self.n_seen = [], 0
        self.before = replace(now, templates=now.templates * mean[:, None, None], prior=prior)
        return self.before


def _placed(
    amplitude: torch.Tensor, where: tuple[torch.Tensor, ...], signal: torch.Tensor, copies: torch.Tensor
) -> torch.Tensor:
    """Dense codes (n_windows, n_copies, n_positions) with these amplitudes at (window, copy, position)."""
    shape = len(signal), len(copies), signal.shape[2] - copies.shape[2] + 1
    return torch.zeros(shape, device=signal.device).index_put(where, amplitude)


def _shifted(templates: torch.Tensor, shifts: np.ndarray) -> torch.Tensor:
    """csc.subsample.shift_in_time of templates (n_units, n_channels, n_times), differentiable; the copies of a unit stand
    together."""
    n_times = templates.shape[2]
    frequency = torch.fft.rfftfreq(2 * n_times, device=templates.device)
    by = torch.tensor(shifts, dtype=torch.float32, device=templates.device)
    phase = torch.exp(-2j * torch.pi * frequency * by[:, None])
    spectra = torch.fft.rfft(templates, 2 * n_times)[:, None] * phase[None, :, None]
    return torch.fft.irfft(spectra, 2 * n_times)[..., :n_times].flatten(0, 1)


def _augmented(batch: np.ndarray, one_sided: bool, rotate: bool, rng: np.random.Generator) -> np.ndarray:
    """Flipped signs (only two-sided codes can follow) and, where asked for, circular rotation (Sec. VI-C)."""
    if not one_sided:
        batch = batch * rng.choice(np.array([-1, 1], np.float32), (len(batch), 1, 1))
    if rotate:
        places = (np.arange(batch.shape[2]) + rng.integers(0, batch.shape[2], (len(batch), 1))) % batch.shape[2]
        batch = np.take_along_axis(batch, places[:, None, :], axis=2)
    return np.ascontiguousarray(batch)
