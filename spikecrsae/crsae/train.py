"""Training: templates and lambda from windows of whitened signal, by closed-form EM or by back-propagation (the paper)."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spikecrsae.config import TrainConfig
from spikecrsae.crsae.priors import LambdaPrior
from spikecrsae.csc.coordinate import encode
from spikecrsae.csc.least_squares import fit_templates, subtract
from spikecrsae.data.dictionary import Dictionary
from spikecrsae.data.sparse_code import SparseCode
from spikecrsae.errors import InputError, UsageError
from spikecrsae.progress import Observer
from spikecrsae.system.robust import deviation_about_zero

if TYPE_CHECKING:
    import torch

    from spikecrsae.crsae.model import CRsAE

log = logging.getLogger(__name__)

#: Coordinate descent ends when no optimality condition is violated by more than this many noise levels.
CODE_TOLERANCE = 1e-2
#: By this factor the excess of the penalty falls from epoch to epoch: slowly where an epoch is cheap (em; at 0.8 one start
#: of six lost two similar templates), faster where it is many steps (unrolled).
ANNEALING_RATE = {"em": 0.9, "unrolled": 0.8}
#: By this factor where templates and lambda have already settled for the penalty as it is.
SETTLED_RATE = 0.5
#: While the penalty falls, em learns from evenly spread windows, as many as hold this many codes of every unit.
ENOUGH_CODES = 600
#: Samples from which sigma is estimated at most, and at least.
MOST_QUIET, LEAST_QUIET = 200_000, 1000
#: Part of the first sigma below which an estimate is none: most channels there hold no noise of their own. With it the penalty
#: would vanish, and the codes of a signal without a penalty take hours.
LEAST_SIGMA = 0.1
#: Windows that FISTA codes at once on a CPU and on a GPU (halved where its memory is full), and the bytes of activations that back-propagation may keep.
FISTA_BATCH, GPU_BATCH, ACTIVATION_BYTES = 32, 512, 1 << 30


@dataclass(frozen=True)
class Training:
    """What training learnt.

    dictionary: atoms of unit norm; scale is the mean unpenalised amplitude of a unit's spikes, each weighted by its
    penalised amplitude so that codes of noise do not count; a unit without a code keeps the scale it came with.
    lam, sigma: as at the end; lambda_0: the centre of lambda's prior. atoms_history (n_epochs + 1, n_units, n_channels,
    n_times): the atoms at the start and after every epoch. history: objective_history, lambda_history, sigma_history,
    template_change_history, each (n_epochs,); the objective is Eq. 20 per window at the codes that the epoch found, of the
    windows that it used.
    """

    dictionary: Dictionary
    lam: float
    sigma: float
    lambda_0: float
    history: dict[str, np.ndarray]
    atoms_history: np.ndarray


def train(
    windows: np.ndarray,
    dictionary: Dictionary,
    config: TrainConfig,
    *,
    sigma: float = 1.0,
    seed: int,
    device: str = "cpu",
    observer: Observer | None = None,
    rotate: bool = False,
) -> Training:
    """Learn templates and lambda from windows (n_windows, n_channels, n_samples) of noise level sigma.

    config.method "em" alternates sparse coding (Eq. 19) with the closed forms of Eqs. 21-22 and re-estimates sigma;
    "unrolled" is Algorithm 4, Adam on Eqs. 27-28 through the encoder, with sigma known. Units keep their order. rotate:
    augment by circular rotation (unrolled; for the paper's simulation only, it tears spikes at the edge). seed decides
    about mini-batches and augmentation. Raises InputError for an empty dictionary or windows that do not fit it,
    UsageError for settings that contradict each other.
    """
    _check(windows, dictionary, config, sigma, device)
    observer = observer or Observer()
    # The work is done in units of sigma, so that tolerances and learning rates mean the same for every recording.
    scaled = np.ascontiguousarray(windows if sigma == 1 else windows / sigma, dtype=np.float32)
    observer.start("train", config.epochs)
    if config.method == "em":
        state = _em(scaled, dictionary, dictionary.scale / sigma, config, device, observer)
    else:
        state = _unrolled(
            scaled, dictionary, dictionary.scale / sigma, config, device, observer, np.random.default_rng(seed), rotate
        )
    observer.finish(f"lambda {state.lam / sigma:.3g} after {len(state.course)} epochs")
    codes = _encode(scaled, state.atoms, state.lam, state.sigma, config, device, state.codes)
    columns = np.array(state.course).T
    history = {
        "objective_history": columns[0],
        "lambda_history": columns[1] / sigma,
        "sigma_history": columns[2] * sigma,
        "template_change_history": columns[3],
    }
    scale = _scales(codes, state.lam * state.sigma**2, dictionary.scale / sigma, dictionary.n_times) * sigma
    return Training(
        Dictionary(_unit(state.atoms), scale),
        state.lam / sigma,
        state.sigma * sigma,
        state.prior.lambda_0 / sigma,
        history,
        np.stack(state.atoms_history),
    )


@dataclass
class _State:
    """Everything that training changes, in units of the first sigma. course: one row of history per epoch."""

    atoms: np.ndarray
    lam: float
    sigma: float
    prior: LambdaPrior
    codes: np.ndarray | None
    course: list[tuple[float, float, float, float]]
    atoms_history: list[np.ndarray]

    @classmethod
    def start(cls, windows: np.ndarray, dictionary: Dictionary, config: TrainConfig) -> _State:
        prior = LambdaPrior(dictionary.n_units, windows.shape[2] - dictionary.n_times + 1, 1.0, config.kappa)
        return cls(dictionary.atoms, prior.lambda_0, 1.0, prior, None, [], [dictionary.atoms])

    def settled(self, objective: float, atoms: np.ndarray, lam: float, tolerance: float) -> bool:
        """Take over an epoch's atoms and lambda; whether both have moved by less than the tolerance, relative."""
        cosine = np.abs((atoms * self.atoms).sum(axis=(1, 2)))
        change = float(np.sqrt(2 * np.clip(1 - cosine, 0, None)).max())
        moved = max(change, abs(lam - self.lam) / self.lam)
        self.atoms, self.lam = atoms, lam
        self.course.append((objective, lam, self.sigma, change))
        self.atoms_history.append(atoms)
        log.debug("epoch %d: objective %.6g, lambda %.4g, sigma %.4g, change %.2g", len(self.course), *self.course[-1])
        return moved < tolerance


def _em(
    windows: np.ndarray, dictionary: Dictionary, scale: np.ndarray, config: TrainConfig, device: str, observer: Observer
) -> _State:
    """Closed-form EM: sparse codes, then templates, sigma and lambda for these codes."""
    state = _State.start(windows, dictionary, config)
    excess, every = _first_excess(state.lam, scale, config), 1
    for epoch in range(config.epochs):
        settled, n_least = _em_epoch(windows[::every] if excess > 1 else windows, state, excess, config, device)
        observer.advance()
        if settled and excess == 1:
            break
        excess = max(1.0, excess * (SETTLED_RATE if settled else ANNEALING_RATE[config.method]))
        if epoch == 0:
            every = max(1, n_least // ENOUGH_CODES)
    return state


def _em_epoch(windows: np.ndarray, state: _State, excess: float, config: TrainConfig, device: str) -> tuple[bool, int]:
    """One epoch on these windows; whether templates and lambda have settled, and the fewest codes that any unit has."""
    n_windows, n_channels, n_samples = windows.shape
    n_units, _, n_times = state.atoms.shape
    joined = np.ascontiguousarray(windows.transpose(1, 0, 2)).reshape(n_channels, n_windows * n_samples)
    state.codes = _encode(windows, state.atoms, excess * state.lam, state.sigma, config, device, state.codes)
    events = _events(state.codes, n_times)
    mean_l1 = float(np.abs(events.amplitude).sum(dtype=np.float64)) / n_windows
    objective = _objective(joined, events, state, mean_l1, n_windows)
    atoms, norms = _normalised(fit_templates(joined, events, n_times), events, state.atoms)
    state.codes *= norms[:, None].astype(np.float32)
    state.sigma = _quiet_sigma(joined, events, n_times, state.sigma)
    state.prior = LambdaPrior(n_units, state.prior.n_positions, state.sigma, config.kappa)
    settled = state.settled(objective, atoms, state.prior.update(mean_l1), config.tolerance)
    return settled, int(np.bincount(events.unit, minlength=n_units).min())


def _first_excess(lam: float, scale: np.ndarray, config: TrainConfig) -> float:
    """The factor >= 1 on the penalty in the first epoch.

    What the first templates leave of a spike is noise to the codes (Sec. VI-C), in proportion to its amplitude.
    """
    return max(1.0, config.annealing * float(np.median(scale)) / lam)


def _encode(
    windows: np.ndarray,
    atoms: np.ndarray,
    lam: float,
    sigma: float,
    config: TrainConfig,
    device: str,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """E-step: codes (n_windows, n_units, n_positions) float32 by the configured solver.

    start: codes of a warm start; left aside where they are of other windows.
    """
    if start is not None and len(start) != len(windows):
        start = None
    one_sided = config.shrinkage == "one-sided"
    if config.solver == "coordinate" or (config.solver == "auto" and device == "cpu"):
        return encode(windows, atoms, lam * sigma**2, one_sided, CODE_TOLERANCE * sigma, start)
    import torch

    from spikecrsae.crsae.model import CRsAE

    model = CRsAE(atoms, lam, sigma, config.n_iterations, one_sided).to(device)
    codes = np.empty((len(windows), len(atoms), windows.shape[2] - atoms.shape[2] + 1), np.float32)
    size, first = (FISTA_BATCH if device == "cpu" else GPU_BATCH), 0
    while first < len(windows):
        batch = slice(first, first + size)
        try:
            with torch.no_grad():
                warm = None if start is None else torch.from_numpy(start[batch]).to(device)
                codes[batch] = model.encode(torch.from_numpy(windows[batch]).to(device), warm).cpu().numpy()
        except torch.cuda.OutOfMemoryError:
            if size == 1:
                raise
            size //= 2
            log.warning("the GPU's memory is full; it gets %d windows at a time from here on", size)
            torch.cuda.empty_cache()
            continue
        first += size
    return codes


def _events(codes: np.ndarray, n_times: int) -> SparseCode:
    """The non-zeros of all windows, laid end to end: atoms end inside their window, so none reaches into the next."""
    # faster than np.nonzero of the codes, by far
    window, unit, position = np.unravel_index(np.flatnonzero(codes != 0), codes.shape)
    n_samples = codes.shape[2] + n_times - 1
    n_positions = len(codes) * n_samples - n_times + 1
    return SparseCode.build(unit, window * n_samples + position, codes[window, unit, position], codes.shape[1], n_positions)


def _objective(joined: np.ndarray, events: SparseCode, state: _State, mean_l1: float, n_windows: int) -> float:
    """Minus Eq. 20 per window, up to a constant: data term, penalty, and the prior of lambda."""
    residual = joined.copy()
    subtract(residual, state.atoms, events.unit, events.sample, events.amplitude)
    residual = residual.reshape(n_windows * len(joined), -1)
    data = float(np.einsum("wn,wn->w", residual, residual).sum(dtype=np.float64)) / (2 * state.sigma**2 * n_windows)
    prior = state.prior
    weight = (prior.n_positions + prior.r - 1) * prior.n_units
    return data + state.lam * (mean_l1 + prior.n_units * prior.delta) - weight * np.log(state.lam)


def _normalised(templates: np.ndarray, events: SparseCode, old: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unit-norm atoms and the signed norms taken away; Hx stays as it is when the codes are multiplied by them.

    A template and its codes may change sign together (two-sided codes): the sign is the one with a positive sum of codes.
    A unit without a code keeps its old atom.
    """
    norms = np.sqrt((templates**2).sum(axis=(1, 2)))
    silent = norms <= 0
    signs = np.where(np.bincount(events.unit, events.amplitude, len(norms)) < 0, -1.0, 1.0)
    signed = np.where(silent, 1.0, norms * signs)
    atoms = np.where(silent[:, None, None], old, templates / signed[:, None, None])
    return atoms.astype(np.float32), signed


def _quiet_sigma(joined: np.ndarray, events: SparseCode, n_times: int, sigma: float) -> float:
    """Robust noise level of the samples that no event covers, all channels; sigma as it was where they are too few."""
    edges = np.zeros(joined.shape[1] + 1, np.int64)
    np.add.at(edges, events.sample, 1)
    np.add.at(edges, events.sample + n_times, -1)
    # The same samples in every epoch: drawn anew, they would make sigma and the objective jitter.
    step = -(-joined.shape[1] // MOST_QUIET)
    quiet = (np.cumsum(edges[:-1]) == 0)[::step]
    if quiet.sum() < LEAST_QUIET:
        return sigma
    estimate = float(deviation_about_zero(joined[:, ::step][:, quiet]))
    return estimate if estimate > LEAST_SIGMA else sigma


def _scales(codes: np.ndarray, bias: float, before: np.ndarray, n_times: int) -> np.ndarray:
    """Mean unpenalised amplitude per unit, (n_units,): see Training.

    codes: the optimum for this bias. Codes of one unit within a quarter template are one spike. The optimality conditions
    say what the penalty took from a spike that stands alone: the bias.
    """
    scale = np.array(before, np.float64)
    for unit in range(codes.shape[1]):
        window, position = np.nonzero(codes[:, unit])
        if not len(window):
            continue
        place = window * (codes.shape[2] + n_times) + position
        firsts = np.flatnonzero(np.r_[True, np.diff(place) > max(1, n_times // 4)])
        shrunk = np.abs(np.add.reduceat(codes[window, unit, position].astype(np.float64), firsts))
        if shrunk.sum() > 0:
            scale[unit] = np.average(shrunk + bias, weights=shrunk)
    return scale


def _unrolled(
    windows: np.ndarray,
    dictionary: Dictionary,
    scale: np.ndarray,
    config: TrainConfig,
    device: str,
    observer: Observer,
    rng: np.random.Generator,
    rotate: bool,
) -> _State:
    """Algorithm 4: per mini-batch one Adam step on Eq. 27 for the atoms and one on Eq. 28 for lambda.

    Both steps fall over the epochs by half a cosine, to nothing.
    """
    import torch

    from spikecrsae.crsae.model import CRsAE

    state = _State.start(windows, dictionary, config)
    model = CRsAE(dictionary.atoms, state.lam, 1.0, config.n_iterations, config.shrinkage == "one-sided").to(device)
    adams = [
        torch.optim.Adam([model.atoms], lr=config.learning_rate),
        torch.optim.Adam([model.lam], lr=config.learning_rate_lambda),
    ]
    # With a constant step Adam would hover around the optimum instead of settling.
    decays = [torch.optim.lr_scheduler.CosineAnnealingLR(adam, config.epochs) for adam in adams]
    excess = _first_excess(state.lam, scale, config)
    for _ in range(config.epochs):
        # the encoder's bias is lambda sigma^2 / L
        model.sigma = excess**0.5
        order = rng.permutation(len(windows))
        total = 0.0
        for first in range(0, len(order), config.batch_size):
            chosen = order[first : first + config.batch_size]
            batch = torch.from_numpy(_augmented(windows[chosen], model.one_sided, rotate, rng)).to(device)
            total += _step(model, adams, batch, state.prior) * len(chosen)
        for decay in decays:
            decay.step()
        atoms = model.atoms.detach().cpu().numpy().copy()
        settled = state.settled(total / len(order), atoms, model.lam.item(), config.tolerance)
        observer.advance()
        if settled and excess == 1:
            break
        excess = max(1.0, excess * (SETTLED_RATE if settled else ANNEALING_RATE[config.method]))
    return state


def _step(model: CRsAE, adams: list[torch.optim.Adam], batch: torch.Tensor, prior: LambdaPrior) -> float:
    """One update of atoms and lambda through the encoder; returns the objective per window before it.

    The batch is cut so that the activations of T iterations fit, and the gradients are added up.
    """
    import torch

    from spikecrsae.crsae.model import lambda_loss, reconstruction_loss

    per_window = 16 * model.n_iterations * len(model.atoms) * batch.shape[2]
    gradients, objective = [torch.zeros_like(model.atoms), torch.zeros_like(model.lam)], 0.0
    for part in batch.split(max(1, ACTIVATION_BYTES // per_window)):
        share = len(part) / len(batch)
        reconstruction, codes = model(part)
        data, penalty = reconstruction_loss(part, reconstruction), lambda_loss(codes, model.lam, prior)
        gradients[0] += share * torch.autograd.grad(data, model.atoms, retain_graph=True)[0]
        gradients[1] += share * torch.autograd.grad(penalty, model.lam)[0]
        objective += share * float(data.detach() + penalty.detach())
    model.atoms.grad, model.lam.grad = gradients
    for adam in adams:
        adam.step()
    model.normalise()
    with torch.no_grad():
        model.lam.clamp_(*prior.bounds)
    return objective


def _augmented(batch: np.ndarray, one_sided: bool, rotate: bool, rng: np.random.Generator) -> np.ndarray:
    """Flipped signs (only two-sided codes can follow) and, where asked for, circular rotation (Sec. VI-C)."""
    if not one_sided:
        batch = batch * rng.choice(np.array([-1, 1], np.float32), (len(batch), 1, 1))
    if rotate:
        places = (np.arange(batch.shape[2]) + rng.integers(0, batch.shape[2], (len(batch), 1))) % batch.shape[2]
        batch = np.take_along_axis(batch, places[:, None, :], axis=2)
    return np.ascontiguousarray(batch)


def _unit(atoms: np.ndarray) -> np.ndarray:
    """Atoms of exactly unit norm in float32."""
    return (atoms / np.sqrt((atoms.astype(np.float64) ** 2).sum(axis=(1, 2), keepdims=True))).astype(np.float32)


def _check(windows: np.ndarray, dictionary: Dictionary, config: TrainConfig, sigma: float, device: str) -> None:
    if not dictionary.n_units:
        raise InputError("the dictionary is empty; training needs at least one template to start from.")
    if windows.ndim != 3 or not len(windows) or windows.shape[1] != dictionary.n_channels:
        raise InputError(
            f"windows {windows.shape} must be (n_windows, n_channels, n_samples), at least one, "
            f"with the dictionary's {dictionary.n_channels} channels."
        )
    if windows.shape[2] < dictionary.n_times:
        raise InputError(
            f"windows of {windows.shape[2]} samples are shorter than a template of {dictionary.n_times}; use longer windows."
        )
    if not (np.isfinite(sigma) and sigma > 0):
        raise UsageError(f"sigma = {sigma} must be a positive noise level.")
    if config.solver == "coordinate" and config.method == "unrolled":
        raise UsageError("train.solver = coordinate cannot be unrolled; use train.solver = fista or auto.")
    if config.solver == "coordinate" and device != "cpu":
        raise UsageError(f"train.solver = coordinate runs on the CPU, not on {device}; use train.solver = fista or auto.")
