"""Fig. 8 and Table IV: reconstruction loss over time of CRsAE and Sporco, and how long the sorting of 17 minutes takes."""

from __future__ import annotations

import argparse
import subprocess
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import paper_figures
import torch
from paper_ways import (
    GOAL_DB,
    UNROLLED_EPOCHS,
    UNROLLED_WINDOWS,
    annealed,
    back_propagated,
    oracle_start,
    rounds_of_em,
    with_slab,
)
from trials import markdown

from spikecrsae.crsae.first_training import joined
from spikecrsae.crsae.model import CRsAE
from spikecrsae.csc.numba_backend import NUMBA
from spikecrsae.progress import Observer
from spikecrsae.simulate import PaperSimulation, match_templates, paper_windows
from spikecrsae.simulate.shapes import unit_norm

#: Sporco's settings: lambda sigma^2 in the data's units, and rho; the best of those tried (benchmarks/notebook/performance.md).
SPORCO = {"lmbda": 0.07, "rho": 0.3, "iterations": 200, "every": 5}
#: Windows whose loss is measured, and windows of the 17 minutes.
N_JUDGED, WHOLE = 200, 10_100


class Clock(Observer):
    """Seconds from the start of a stage to the end of each epoch."""

    def start(self, stage: str, total: int | None = None) -> None:
        self.began, self.seconds = time.perf_counter(), [0.0]

    def advance(self, n: int = 1) -> None:
        self.seconds.append(time.perf_counter() - self.began)


@dataclass(frozen=True)
class Learning:
    """templates (n, n_units, 1, n_times) after `seconds` (n,), from the start on; epochs: of them all."""

    seconds: np.ndarray
    templates: np.ndarray
    epochs: int


def run_sporco(
    simulation: PaperSimulation, start: CRsAE, python: Path, iterations: int
) -> tuple[np.ndarray, np.ndarray, str]:
    """Sporco's seconds (n,), its atoms (n, n_units, n_times) at these times, and its version."""
    with tempfile.TemporaryDirectory() as name:
        given, out = Path(name) / "in.npz", Path(name) / "out.npz"
        settings = SPORCO | {"iterations": iterations}
        np.savez(given, windows=simulation.windows[:, 0], atoms=unit_norm(start.templates)[:, 0], **settings)
        script = Path(__file__).with_name("sporco_learning.py")
        subprocess.run([str(python), str(script), str(given), str(out)], check=True, stdout=subprocess.DEVNULL)
        with np.load(out) as file:
            return file["seconds"], file["atoms"], str(file["version"])


def learn_all(simulation: PaperSimulation, python: Path | None) -> dict[str, Learning]:
    """The course of every way on one simulation, from the same start."""
    start, clock = oracle_start(simulation, 0), Clock()
    training = annealed(simulation, start, 0, clock)
    l1 = Learning(np.array(clock.seconds), training.templates_history, len(clock.seconds) - 1)
    began = time.perf_counter()
    last = rounds_of_em(simulation, with_slab(training.model), 1)
    seconds = np.append(l1.seconds, l1.seconds[-1] + time.perf_counter() - began)
    courses = {
        "CRsAE, annealed l1": l1,
        "CRsAE, then the slab": Learning(seconds, np.concatenate([l1.templates, last.templates[None]]), l1.epochs + 1),
    }
    if python:
        seconds, atoms, version = run_sporco(simulation, start, python, SPORCO["iterations"])
        atoms = np.concatenate([unit_norm(start.templates)[None], atoms[:, :, None]])
        courses[f"Sporco {version}"] = Learning(np.append(0.0, seconds), atoms, SPORCO["iterations"])
    few = replace(simulation, windows=simulation.windows[:UNROLLED_WINDOWS])
    for name, part, model, epochs in (
        (f"back-propagation, Laplace, {len(few.windows)} windows", few, start, UNROLLED_EPOCHS),
        ("back-propagation, slab", simulation, with_slab(start), 30),
    ):
        training = back_propagated(part, model, 0, epochs, clock)
        courses[name] = Learning(np.array(clock.seconds), training.templates_history, len(clock.seconds) - 1)
    return courses


def loss(simulation: PaperSimulation, templates: np.ndarray) -> float:
    """Half the residual's energy per window over sigma^2, of l1 codes under Sporco's penalty, whoever learned the templates."""
    windows = simulation.windows[:N_JUDGED]
    atoms = unit_norm(templates).astype(np.float32)
    codes = NUMBA.l1_codes(windows, atoms, SPORCO["lmbda"], True)
    window, position, unit = np.nonzero(codes.transpose(0, 2, 1))  # in order of time
    sample, amplitude = window * windows.shape[2] + position, codes[window, unit, position].astype(np.float64)
    rest = NUMBA.subtract(windows.reshape(1, -1), atoms, unit, sample, amplitude)
    return 0.5 * float(np.vdot(rest, rest)) / (simulation.sigma**2 * len(windows))


def first_below(values: np.ndarray, goal: float, seconds: np.ndarray) -> str:
    """When values are at the goal for good."""
    above = np.flatnonzero(values > goal)
    reached = above[-1] + 1 if len(above) else 0
    return f"{seconds[reached]:.1f}" if reached < len(seconds) else "never"


def speed(arguments: argparse.Namespace) -> list[str]:
    """Fig. 8 and Table IV."""
    torch.backends.mkldnn.enabled = False
    small = paper_windows(8)  # compiled functions are loaded before anything is timed
    rounds_of_em(small, with_slab(annealed(small, oracle_start(small, 0), 0).model), 1)
    table_iv = whole()
    simulation = paper_windows(arguments.windows, 16.0, 0)
    courses = learn_all(simulation, arguments.sporco_python)
    found = {name: np.array([loss(simulation, t) for t in course.templates]) for name, course in courses.items()}
    true = loss(simulation, simulation.templates)
    goal = 1.01 * true
    rows = []
    for name, course in courses.items():
        # Sporco's filters may have moved within their window
        errors = np.array([match_templates(simulation.templates, t)[2] for t in course.templates])
        cells = [name, course.epochs, f"{course.seconds[-1]:.1f}", first_below(found[name], goal, course.seconds)]
        cells.append(first_below(errors.max(axis=1), GOAL_DB, course.seconds))
        rows.append([*cells, f"{found[name][-1]:.1f}", f"{errors[-1].mean():.1f}"])
    if arguments.docs:
        paper_figures.loss_over_time({name: (course.seconds, found[name]) for name, course in courses.items()})
    heads = ["way", "epochs", "s to the end", "s to the loss", f"s to {GOAL_DB:g} dB for all four"]
    heads += ["loss at the end", "mean error (dB)"]
    text = f"The loss to be reached is {goal:.1f}, within 1 % of that of the true templates, {true:.1f}."
    return [*markdown(heads, rows), "", text, *([] if arguments.sporco_python else ["Sporco was not run."]), "", *table_iv]


def whole() -> list[str]:
    """Table IV at the paper's size: learning, then sorting with what was learned."""
    simulation = paper_windows(WHOLE, 16.0, 0)
    began = time.perf_counter()
    relaxed = annealed(simulation, oracle_start(simulation, 0), 0).model
    after_l1 = time.perf_counter()
    model = rounds_of_em(simulation, with_slab(relaxed), 1)
    learned = time.perf_counter()
    signal = joined(simulation.windows, model.n_times)
    rows = [["learning, annealed l1", f"{after_l1 - began:.1f}"], ["learning, then the slab", f"{learned - began:.1f}"]]
    for name, sorter in (("slab, with local search", model), ("l1 codes, Laplace", relaxed)):
        began = time.perf_counter()
        spikes = sorter.encode(signal)
        rows.append([f"sorting, {name}: {len(spikes)} spikes of {12 * WHOLE}", f"{time.perf_counter() - began:.1f}"])
    return markdown([f"{WHOLE} windows (17 minutes)", "s"], rows)
