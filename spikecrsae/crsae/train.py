"""Training from windows: l1 codes under an annealed penalty and closed forms in turn, or back-propagation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spikecrsae.config import TrainConfig
from spikecrsae.crsae.course import ANNEALING_RATE, SETTLED_RATE, Course, Training, mean_sizes, spike_sizes
from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import Prior
from spikecrsae.csc.least_squares import fit_templates
from spikecrsae.errors import InputError
from spikecrsae.progress import Observer
from spikecrsae.system.robust import deviation_about_zero

#: Training codes under at least so many times the prior's lambda: small codes, which noise and other units make, spoil templates
#: more than small spikes that are missed.
PURE = 2.0
#: While the penalty falls, training learns from evenly spread windows, as many as hold this many codes of every unit.
ENOUGH_CODES = 600
#: Samples from which sigma is estimated at most, and at least.
MOST_QUIET, LEAST_QUIET = 200_000, 1000
#: Part of the first sigma below which an estimate is none: most channels there hold no noise of their own. With it the penalty
#: would vanish, and the codes of a signal without a penalty take hours.
LEAST_SIGMA = 0.1


def train(
    windows: np.ndarray,
    model: CRsAE,
    config: TrainConfig,
    *,
    seed: int = 0,
    observer: Observer | None = None,
    rotate: bool = False,
) -> Training:
    """Learn templates and prior from windows (n_windows, n_channels, n_samples); units keep their order.

    config.method "em" needs the Laplace prior: it alternates l1 codes (Eq. 19), whose penalty begins high and falls, with the
    closed form of Eq. 21 and the prior's M-step, and re-estimates sigma. "unrolled" is Algorithm 4 for either prior, see
    crsae.unrolled. seed decides about its mini-batches and augmentation; rotate: augment by circular rotation (for the
    paper's simulation only, it tears spikes at the edge). Raises InputError for a model without units or windows that do
    not fit it.
    """
    _check(windows, model, config)
    observer = observer or Observer()
    observer.start("train", config.epochs)
    windows = np.ascontiguousarray(windows, np.float32)
    if config.method == "unrolled":
        from spikecrsae.crsae.unrolled import back_propagate

        course = back_propagate(windows, model, config, np.random.default_rng(seed), observer, rotate)
    else:
        course = anneal(windows, model, config, observer)
    observer.finish(f"{len(course.rows)} epochs")
    return course.training()


def anneal(windows: np.ndarray, model: CRsAE, config: TrainConfig, observer: Observer) -> Course:
    """Closed-form EM under an l1 penalty that begins high, the same for all units, and falls to PURE times the prior's own."""
    course = Course(model)
    # what the first templates leave of a spike is noise to the codes (Sec. VI-C), in proportion to its amplitude
    level = config.annealing * float(np.median(np.sqrt(model.energy)))
    every, codes = 1, None
    for epoch in range(config.epochs):
        lowest = PURE * _bias(course.model)
        annealed = level <= lowest.min()
        here = windows if annealed else windows[::every]
        codes = codes if codes is not None and len(codes) == len(here) else None
        moved, n_least, codes = _epoch(here, course, np.maximum(level, lowest), codes, config.shrinkage == "one-sided")
        observer.advance()
        if moved < config.tolerance and annealed:
            break
        level *= SETTLED_RATE if moved < config.tolerance else ANNEALING_RATE
        if epoch == 0:
            every = max(1, n_least // ENOUGH_CODES)
    return course


def _epoch(
    windows: np.ndarray, course: Course, lam: np.ndarray, start: np.ndarray | None, one_sided: bool
) -> tuple[float, int, np.ndarray]:
    """One epoch on these windows, with codes under the penalty lam (n_units,). Returns by how much the model has moved, the fewest
    codes that any unit has, and the codes."""
    model = course.model
    norms = np.sqrt(model.energy) * model.sigma
    atoms = (model.templates / norms[:, None, None]).astype(np.float32)
    bias = lam * model.sigma
    codes = model.backend.l1_codes(windows, atoms, bias, one_sided, start)
    n_windows, n_channels, n_samples = windows.shape
    joined = np.ascontiguousarray(windows.transpose(1, 0, 2)).reshape(n_channels, n_windows * n_samples)
    unit, sample, amplitude = _events(codes, n_samples)
    rest = model.backend.subtract(joined, atoms, unit, sample, amplitude)
    penalty = float((np.bincount(unit, np.abs(amplitude), model.n_units) * lam).sum()) / model.sigma
    objective = (float(np.vdot(rest, rest)) / (2 * model.sigma**2) + penalty) / n_windows
    fitted = fit_templates(*model.backend.code_statistics(joined, unit, sample, amplitude, model.n_units, model.n_times))
    sigma = _quiet_sigma(joined, sample, model.n_times, model.sigma)
    fitted, grown = _normalised(fitted, unit, amplitude, atoms)
    # not from the grown codes: least squares has made the templates as much larger as the penalty has made the codes smaller
    sizes = spike_sizes(codes, model.n_times)
    scale = mean_sizes(sizes, bias, norms)
    prior = _maximised(model, sizes, bias, scale, n_windows * (n_samples - model.n_times + 1))
    counts = np.bincount(unit, minlength=model.n_units)
    after = replace(model, templates=fitted * scale[:, None, None] * model.support[:, :, None], prior=prior, sigma=sigma)
    return course.advance(after, objective), int(counts.min()), codes * grown[:, None].astype(np.float32)


def _bias(model: CRsAE) -> np.ndarray:
    """The weight (n_units,) of the l1 penalty, in units of 1 / sigma."""
    assert model.prior.l1 is not None
    return model.prior.l1.bias


def _maximised(model: CRsAE, sizes: list[np.ndarray], bias: np.ndarray, scale: np.ndarray, n_positions: int) -> Prior:
    """The prior's M-step from the sizes of the spikes in l1 codes, from which the penalty took the bias (n_units,)."""
    if not any(map(len, sizes)):
        return model.prior
    unit = np.repeat(np.arange(model.n_units), [len(mine) for mine in sizes])
    amplitude = (np.concatenate(sizes) + bias[unit]) / scale[unit]
    return model.prior.maximise(unit, amplitude, (scale / model.sigma) ** 2, n_positions)


def _events(codes: np.ndarray, n_samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(unit, sample, amplitude) of the non-zeros of all windows, laid end to end and in order: atoms end inside their window, so
    none reaches into the next."""
    # faster than np.nonzero of the codes, by far
    window, unit, position = np.unravel_index(np.flatnonzero(codes != 0), codes.shape)
    sample = window * n_samples + position
    order = np.lexsort((unit, sample))
    return unit[order], sample[order], codes[window, unit, position][order].astype(np.float64)


def _normalised(
    templates: np.ndarray, unit: np.ndarray, amplitude: np.ndarray, old: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Unit-norm atoms and the signed norms taken away; Hx stays as it is when the codes are multiplied by them.

    A template and its codes may change sign together (two-sided codes): the sign is the one with a positive sum of codes.
    A unit without a code keeps its old atom.
    """
    norms = np.sqrt((templates**2).sum(axis=(1, 2)))
    silent = norms <= 0
    signs = np.where(np.bincount(unit, amplitude, len(norms)) < 0, -1.0, 1.0)
    signed = np.where(silent, 1.0, norms * signs)
    return np.where(silent[:, None, None], old, templates / signed[:, None, None]), signed


def _quiet_sigma(joined: np.ndarray, sample: np.ndarray, n_times: int, sigma: float) -> float:
    """Robust noise level of the samples that no event covers, all channels; sigma as it was where they are too few."""
    edges = np.zeros(joined.shape[1] + 1, np.int64)
    np.add.at(edges, sample, 1)
    np.add.at(edges, sample + n_times, -1)
    # the same samples in every epoch: drawn anew, they would make sigma and the objective jitter
    step = -(-joined.shape[1] // MOST_QUIET)
    quiet = (np.cumsum(edges[:-1]) == 0)[::step]
    if quiet.sum() < LEAST_QUIET:
        return sigma
    estimate = float(deviation_about_zero(joined[:, ::step][:, quiet]))
    return estimate if estimate > LEAST_SIGMA * sigma else sigma


def _check(windows: np.ndarray, model: CRsAE, config: TrainConfig) -> None:
    if not model.n_units:
        raise InputError("the model has no units; training needs at least one template to start from.")
    if windows.ndim != 3 or not len(windows) or windows.shape[1] != model.templates.shape[1]:
        raise InputError(
            f"windows {windows.shape} must be (n_windows, n_channels, n_samples), at least one, "
            f"with the model's {model.templates.shape[1]} channels."
        )
    if windows.shape[2] < model.n_times:
        raise InputError(
            f"windows of {windows.shape[2]} samples are shorter than a template of {model.n_times}; use longer windows."
        )
    if config.method == "em" and model.prior.l1 is None:
        raise InputError(
            f"annealed training (train.method = em) needs the laplace prior, not {model.prior.name}; give that, or "
            "train.method = unrolled."
        )
