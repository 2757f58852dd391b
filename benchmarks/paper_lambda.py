"""Fig. 7: what decides lambda, and the slab's penalty and spread: the data, the prior or the start."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from paper_ways import SNRS, annealed, oracle_start, rounds_of_em, with_slab
from trials import constants_set, markdown

from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import FIRST_LAMBDA, FIRST_SPREAD, LAMBDA_COUNT, Laplace, SpikeSlab
from spikecrsae.csc.numba_backend import NUMBA
from spikecrsae.simulate import PaperSimulation, paper_windows

PRIORS = "spikecrsae.crsae.priors"
#: The paper's delta of 50, free of scale: delta = KAPPA N_e / lambda_0.
KAPPA, EPOCHS, ROUNDS = 8.5, 30, 4
#: What is changed: the prior's weight, the start, and the prior's centre, each as a factor.
CHANGES = {
    "end": (1.0, 1.0, 1.0),
    "no prior": (0.0, 1.0, 1.0),
    "weight x 1/2": (0.5, 1.0, 1.0),
    "weight x 2": (2.0, 1.0, 1.0),
    "start x 1/2": (1.0, 0.5, 1.0),
    "start x 2": (1.0, 2.0, 1.0),
    "centre x 1/2": (1.0, 1.0, 0.5),
    "centre x 2": (1.0, 1.0, 2.0),
}


def by_eq_22(simulation: PaperSimulation, weight: float, start: float, centre: float) -> float | None:
    """The paper's one lambda, in units of 1 / sigma, after EPOCHS rounds of Eqs. 19 and 22 with the true templates: the templates
    have no part in it. None where no code survives and there is no prior."""
    atoms = simulation.templates.astype(np.float32)
    n_positions = simulation.windows.shape[2] - atoms.shape[2] + 1
    lambda_0 = float(np.sqrt(2 * np.log(len(atoms) * n_positions)))
    delta = KAPPA * weight * n_positions / lambda_0
    r = delta * lambda_0 * centre
    lam, codes = start * lambda_0, None
    for _ in range(EPOCHS):
        codes = NUMBA.l1_codes(simulation.windows, atoms, lam * simulation.sigma, True, codes)
        l1 = float(np.abs(codes).sum()) / len(codes) / simulation.sigma
        if l1 + delta == 0:
            return None
        lam = (n_positions + r - 1) * len(atoms) / (l1 + len(atoms) * delta)
    return lam


def by_laplace(simulation: PaperSimulation, weight: float, start: float, centre: float) -> float:
    """lambda of a unit, mean of the four, after annealed training."""
    constants = {(PRIORS, "LAMBDA_COUNT"): LAMBDA_COUNT * weight, (PRIORS, "FIRST_LAMBDA"): FIRST_LAMBDA * centre}
    model = oracle_start(simulation, 0)
    with constants_set(constants):
        trained = annealed(simulation, replace(model, prior=Laplace(start * model.prior.lam)), 0).model
    return float(trained.prior.lam.mean())


def by_slab(simulation: PaperSimulation, model: CRsAE, weight: float, start: float, centre: float) -> tuple[float, float]:
    """Penalty and spread, means of the four, after ROUNDS of EM with the slab from a model that the l1 stage has trained."""
    deviation = 1 / np.sqrt(weight) if weight else 1e6
    first = with_slab(model)
    prior = SpikeSlab(start * first.prior.spread, start * first.prior.penalty)
    with constants_set({(PRIORS, "SPREAD_DEVIATION"): deviation, (PRIORS, "FIRST_SPREAD"): FIRST_SPREAD * centre}):
        end = rounds_of_em(simulation, replace(first, prior=prior), ROUNDS).prior
    return float(end.penalty.mean()), float(end.spread.mean())


def row(name: str, snr_db: float, start: float, prior: str, learn: Callable[..., float | None], digits: int) -> list[str]:
    ends = [learn(*change) for change in CHANGES.values()]
    cells = ["none survives" if end is None else f"{end:.{digits}f}" for end in ends]
    return [name, f"{snr_db:g}", f"{start:.{digits}f}", prior, *cells]


def what_decides(arguments: argparse.Namespace) -> list[str]:
    """Three rules for lambda and the slab's two parameters, with the prior's weight, the start and the prior's centre changed."""
    rows: dict[str, list[list[str]]] = {"eq22": [], "laplace": [], "penalty": [], "spread": []}
    for snr_db in SNRS:
        simulation = paper_windows(arguments.windows, snr_db, 0)
        n_positions = simulation.windows.shape[2] - simulation.templates.shape[2] + 1
        lambda_0 = float(np.sqrt(2 * np.log(len(simulation.templates) * n_positions)))
        paper = row(
            "lambda, Eq. 22",
            snr_db,
            lambda_0,
            f"{lambda_0 * (1 + 1 / KAPPA):.2f}",
            lambda *c, s=simulation: by_eq_22(s, *c),
            2,
        )
        rows["eq22"].append(paper)
        each = row(
            "lambda_c, per unit", snr_db, FIRST_LAMBDA, f"{FIRST_LAMBDA:.2f}", lambda *c, s=simulation: by_laplace(s, *c), 2
        )
        rows["laplace"].append(each)
        model = annealed(simulation, oracle_start(simulation, 0), 0).model
        ends = {change: by_slab(simulation, model, *change) for change in CHANGES.values()}
        first = SpikeSlab.first(1)
        penalty = row("p_c", snr_db, first.penalty[0], "none", lambda *c, e=ends: e[c][0], 2)
        rows["penalty"].append(penalty)
        spread = row("s_c", snr_db, first.spread[0], f"{FIRST_SPREAD:.3f}", lambda *c, e=ends: e[c][1], 3)
        rows["spread"].append(spread)
    heads = ["what", "SNR (dB)", "start", "prior alone", *CHANGES]
    return markdown(heads, [cells for part in rows.values() for cells in part])
