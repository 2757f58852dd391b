"""How fast the CPU encoder and the training are, beside what else does the same work, in one run on one machine.

    python benchmarks/speed.py [--sporco-python PATH] [--docs] [encoder] [learning]

encoder   sparse codes of the paper's 17 minutes (10,100 windows, one channel, four templates) with learned templates:
coordinate
          descent against 180 iterations of our own FISTA, tenth by tenth in turns.
learning  the four templates of the paper's simulation (1,000 windows, 16 dB, from -3.5 dB) until all are at -19 dB: training
against
          Sporco, in turns. Sporco has an environment of its own: python -m venv DIR; DIR/bin/pip install sporco.

What a whole sort takes is in sort_speed.py.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from paper_speed import Clock, run_sporco
from paper_ways import errors_by_epoch, oracle_start
from trials import publish

import spikecrsae
from spikecrsae.config import TrainConfig
from spikecrsae.crsae.course import Training
from spikecrsae.crsae.train import train
from spikecrsae.csc.coordinate import encode
from spikecrsae.csc.fista import fista
from spikecrsae.csc.objective import kkt_violation, objective
from spikecrsae.csc.pursuit import TOLERANCE
from spikecrsae.csc.step_size import lipschitz_bound
from spikecrsae.simulate import match_templates, paper_windows
from spikecrsae.simulate.shapes import unit_norm
from spikecrsae.system.threads import in_threads

PARTS, REPEATS, WHOLE_REPEATS, FISTA_ITERATIONS, GOAL_DB = 10, 3, 20, 180, -19.0
#: A first call, its result, and the seconds until then.
FIRST_CALL = """
import json, sys, time
import numpy as np
from spikecrsae.csc.coordinate import encode
began = time.perf_counter()
encode(np.ones((1, 1, 100), np.float32), np.full((1, 1, 4), 0.5), 1.0, True, 1e-2)
print(time.perf_counter() - began)
"""


def seconds_of(work: Callable[[], object]) -> tuple[float, float, object]:
    """Seconds by the clock, seconds of processor time, and the result."""
    began, used = time.perf_counter(), time.process_time()
    result = work()
    return time.perf_counter() - began, time.process_time() - used, result


def middle(values) -> str:
    """Median and range."""
    return f"{np.median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def by_fista(windows: np.ndarray, atoms: np.ndarray, lam: np.ndarray, sigma: float) -> np.ndarray:
    """Codes by FISTA, 32 windows at a time on every core, one thread each and without oneDNN: of the ways the fastest."""
    lipschitz, weights = lipschitz_bound(atoms), torch.from_numpy(lam.astype(np.float32))[:, None]
    codes = np.empty((len(windows), len(atoms), windows.shape[2] - atoms.shape[2] + 1), np.float32)

    def work(part: slice) -> None:
        with torch.no_grad():
            batch = torch.from_numpy(windows[part])
            codes[part] = fista(batch, torch.from_numpy(atoms), weights, sigma, lipschitz, FISTA_ITERATIONS, True).numpy()

    in_threads(work, len(windows), 32)
    return codes


def quality(windows, codes, atoms, lam, sigma) -> np.ndarray:
    """Objective of every window, and its largest violation of the optimality conditions, (2, n_windows)."""
    tensors = [torch.from_numpy(np.asarray(array, np.float64)) for array in (windows, codes, atoms)]
    weights = torch.from_numpy(lam)[:, None]
    return np.stack([objective(*tensors, weights, sigma).numpy(), kkt_violation(*tensors, weights, sigma, True).numpy()])


def first_calls() -> tuple[float, float]:
    """Seconds of the first call in a process that compiles, and in the next one."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"NUMBA_CACHE_DIR": folder, "PYTHONPATH": str(Path(spikecrsae.__file__).parents[1])}
        words = [sys.executable, "-c", FIRST_CALL]
        runs = [subprocess.run(words, env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
    first, second = (json.loads(run.stdout) for run in runs)
    return first, second


def encoder(arguments: argparse.Namespace) -> list[str]:
    torch.set_num_threads(1)
    torch.backends.mkldnn.enabled = False
    simulation = paper_windows(arguments.windows, 16.0, 0)
    start = oracle_start(simulation, 0)
    training = train(simulation.windows[:1000], start, TrainConfig(), seed=0)
    # in units of the noise, as everywhere in the pipeline
    windows = np.ascontiguousarray(simulation.windows / simulation.sigma, np.float32)
    learned, sigma = training.model, training.model.sigma / simulation.sigma
    # lambda of the units, weight of ||x||_1 for a sigma of its own
    model = unit_norm(learned.templates).astype(np.float32), learned.prior.lam / sigma, sigma
    ways = {
        "coordinate descent": lambda part: encode(part, model[0], model[1] * model[2] ** 2, True, TOLERANCE),
        f"FISTA, T = {FISTA_ITERATIONS}": lambda part: by_fista(part, *model),
    }
    for work in ways.values():
        work(windows[:2])
    seconds = {name: [] for name in ways}
    results = {name: [] for name in ways}
    for part in np.array_split(windows, PARTS):
        for name, work in ways.items():
            *took, codes = seconds_of(lambda work=work, part=part: work(part))
            seconds[name].append(took)
            results[name].append(quality(part, codes, *model))
    whole = np.array([seconds_of(lambda: ways["coordinate descent"](windows))[:2] for _ in range(WHOLE_REPEATS)])
    lines = ["| | s, sum of ten parts | processor s | objective per window | largest KKT violation |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for name in ways:
        value, violation = np.concatenate(results[name], axis=1)
        took, used = np.sum(seconds[name], axis=0)
        lines.append(f"| {name} | {took:.2f} | {used:.2f} | {value.mean():.3f} | {violation.max():.2g} |")
    ours, theirs = (np.array(rows) for rows in seconds.values())
    better = [a[0].mean() <= b[0].mean() for a, b in zip(*results.values(), strict=True)]
    compiling, loading = first_calls()
    return [
        *lines,
        "",
        f"{len(windows)} windows of {windows.shape[2]} samples. Coordinate descent is {middle(theirs[:, 0] / ours[:, 0])} times as fast "
        f"by the clock and {middle(theirs[:, 1] / ours[:, 1])} times by processor time (median and range of the ten parts), at a lower objective in {sum(better)} of {PARTS}. Its tolerance is a KKT "
        f"violation of {TOLERANCE:g} noise levels. All windows in one call: {middle(whole[:, 0])} s, {middle(whole[:, 1])} s "
        f"of processor time (median and range of {WHOLE_REPEATS}).",
        f"The first call takes {compiling:.1f} s where it has to be compiled, and {loading:.2f} s in the next process.",
    ]


def learn(simulation, start) -> tuple[float, float, Training]:
    """Seconds until all templates are at the goal for good, seconds until training ends by itself, and the training."""
    clock = Clock()
    took, _, training = seconds_of(lambda: train(simulation.windows, start, TrainConfig(), seed=0, observer=clock))
    above = np.flatnonzero(errors_by_epoch(simulation, training).max(axis=1) > GOAL_DB)
    reached = above[-1] + 1
    return (clock.seconds[reached] if reached < len(clock.seconds) else np.nan), took, training


def learn_by_sporco(simulation, start, python: Path, iterations: int) -> tuple[float, float, np.ndarray, str]:
    """Seconds until all templates are at the goal for good, seconds of all iterations, final errors, version."""
    seconds, atoms, version = run_sporco(simulation, start, python, iterations)
    # its filters may have moved within their window
    errors = np.array([match_templates(simulation.templates, filters[:, None])[2] for filters in atoms])
    above = np.flatnonzero(errors.max(axis=1) > GOAL_DB)
    reached = above[-1] + 1 if len(above) else 0
    return (seconds[reached] if reached < len(seconds) else np.nan), seconds[-1], errors[-1], version


def learning(arguments: argparse.Namespace) -> list[str]:
    simulation = paper_windows(1000, 16.0, 0)
    start = oracle_start(simulation, 0)
    train(simulation.windows[:4], start, TrainConfig(epochs=1), seed=0)
    lines = [
        f"| | s until {GOAL_DB:g} dB | s until it ends | errors (dB) | ends |",
        "| --- | --- | --- | --- | --- |",
    ]
    ours, theirs = [], []
    for _ in range(REPEATS):
        ours.append(learn(simulation, start))
        if arguments.sporco_python:
            theirs.append(learn_by_sporco(simulation, start, arguments.sporco_python, arguments.iterations))
    errors = errors_by_epoch(simulation, ours[-1][2])
    rows = [("spikecrsae", ours, errors[-1], f"settled, {len(errors) - 1} epochs")]
    if theirs:
        rows.append((f"Sporco {theirs[-1][3]}", theirs, theirs[-1][2], f"{arguments.iterations} iterations"))
    for name, runs, final, end in rows:
        reached, took = ([run[i] for run in runs] for i in (0, 1))
        lines.append(f"| {name} | {middle(reached)} | {middle(took)} | {', '.join(f'{e:.1f}' for e in final)} | {end} |")
    lines.append("")
    if not theirs:
        return [*lines, "Sporco was not run: --sporco-python names no environment with it."]
    ratios = [
        f"{middle([b[0] / a[0] for a, b in zip(ours, theirs, strict=True)])} times until {GOAL_DB:g} dB",
        f"{middle([b[0] / a[1] for a, b in zip(ours, theirs, strict=True)])} times if ours must end by itself and Sporco may be "
        "stopped by who knows the truth",
        f"{middle([b[1] / a[1] for a, b in zip(ours, theirs, strict=True)])} times from start to end",
    ]
    return [*lines, f"Medians and ranges of {REPEATS} runs in turns. Ours is faster {'; '.join(ratios)}."]


ROWS = {"encoder": ("Sparse codes", encoder), "learning": ("Templates", learning)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", default=list(ROWS), help=f"{', '.join(ROWS)}; all by default")
    parser.add_argument("--windows", type=int, default=10100, help="windows that the encoder codes")
    parser.add_argument("--sporco-python", type=Path, help="Python of an environment with Sporco")
    parser.add_argument("--iterations", type=int, default=100, help="of Sporco")
    parser.add_argument("--docs", action="store_true", help="put what is printed into benchmarks/notebook/benchmarks.md")
    arguments = parser.parse_args()
    if unknown := set(arguments.rows) - set(ROWS):
        parser.error(f"there is no {', '.join(unknown)}; choose from {', '.join(ROWS)}.")
    text: list[str] = []
    for row in arguments.rows:
        title, measure = ROWS[row]
        text += [f"**{title}**", "", *measure(arguments), ""]
    intro = (
        f"On {os.cpu_count()} cores ({platform.machine()}), no GPU, Python {platform.python_version()}. Other work ran on the machine, "
        f"on average {os.getloadavg()[2]:.1f} processes with this one's: seconds by the clock are upper bounds."
    )
    publish("speed", "Speed of the CPU encoder and of training", intro, text, arguments.docs)


if __name__ == "__main__":
    main()
