"""The paper's simulation (Sec. VII-A): Figs. 4 to 8 and Tables III and IV, with the paper's baselines beside.

    python benchmarks/paper_simulation.py --folder DIR --docs

prints the tables of docs/paper.md and puts them there; --docs also draws the figures. Trials are kept in the folder, so that
an interrupted run goes on where it was. --windows 10100 is the size of the paper.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import paper_figures
from paper_lambda import what_decides
from paper_speed import speed
from paper_ways import (
    FROM_CLUSTERS,
    GOAL_DB,
    SNRS,
    START_DB,
    WAYS,
    Trial,
    annealed,
    errors_by_epoch,
    errors_db,
    oracle_start,
    rounds_of_em,
    trial,
    with_slab,
)
from trials import DOCS, markdown, publish

from spikecrsae.simulate import paper_windows

PAGE = DOCS.with_name("paper.md")


def decibels(values) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def reached(errors: np.ndarray) -> str:
    """In how many trials all of the errors (n_trials, n_units) are at the goal."""
    return f"{np.sum(errors.max(axis=1) <= GOAL_DB)} of {len(errors)}"


def trials_of(key: str, snr_db: float, arguments: argparse.Namespace) -> list[Trial]:
    """Trials 0, 1, ... of a way."""
    n = max(1, arguments.seeds // (WAYS | FROM_CLUSTERS)[key].slowness)
    return [trial(key, snr_db, seed, arguments.windows, arguments.folder) for seed in range(n)]


def errors(arguments: argparse.Namespace) -> list[str]:
    """Fig. 4: the error over SNR."""
    heads = ["way", "SNR (dB)", "mean error (dB)", "worst", f"trials with all four <= {GOAL_DB:g} dB"]
    heads += ["mean after the best permutation and shift", f"trials with all four <= {GOAL_DB:g} dB after it"]
    heads += ["residual / noise", "spikes per window", "lambda", "s per trial"]
    rows, by_way = [], {}
    for key in arguments.ways:
        for snr_db in SNRS:
            trials = trials_of(key, snr_db, arguments)
            found = np.array([t.errors for t in trials])
            by_way.setdefault(WAYS[key].name, {})[snr_db] = found
            matched = np.array([t.matched for t in trials])
            cells = [WAYS[key].name, f"{snr_db:g}", f"{found.mean():.1f}", f"{found.max():.1f}", reached(found)]
            cells += [f"{matched.mean():.1f}", reached(matched)]
            residual, n_codes, seconds = (
                np.mean([getattr(t, name) for t in trials]) for name in ("residual", "n_codes", "seconds")
            )
            lam = np.mean([t.lam for t in trials]) if trials[0].lam else None
            cells += [f"{residual:.2f}", f"{n_codes:.1f}" if n_codes < 100 else f"{n_codes:.0f}"]
            rows.append([*cells, "" if lam is None else f"{lam:.2f}", f"{seconds:.1f}"])
    if arguments.docs and arguments.windows == 1000:
        paper_figures.error_over_snr(by_way)
    return markdown(heads, rows)


def epochs(arguments: argparse.Namespace) -> list[str]:
    """Figs. 5 to 7: one trial, epoch by epoch."""
    simulation = paper_windows(arguments.windows, 16.0, 0)
    training = annealed(simulation, oracle_start(simulation, 0), 0)
    end = rounds_of_em(simulation, with_slab(training.model), 1)
    found = errors_by_epoch(simulation, training)
    lam, sigma = training.history["lambda"], training.history["sigma"] / simulation.sigma
    rows = [[0, decibels(found[0]), "", ""]]
    rows += [
        [epoch, decibels(found[epoch]), ", ".join(f"{value:.2f}" for value in lam[epoch - 1]), f"{sigma[epoch - 1]:.3f}"]
        for epoch in range(1, len(found))
    ]
    rows.append(["slab", decibels(errors_db(simulation, end.templates)), "", ""])
    above = np.flatnonzero(found.max(axis=1) > GOAL_DB)
    if arguments.docs:
        by_lcsc = paper_figures.lcsc_filters(simulation, oracle_start(simulation, 0))
        paper_figures.error_over_epochs(np.vstack([found, errors_db(simulation, end.templates)]))
        paper_figures.templates(simulation, training.templates_history[0], end.templates, by_lcsc)
        paper_figures.lambda_over_epochs(lam)
    heads = ["epoch", "errors of the four templates (dB)", "lambda of the four (1 / sigma)", "sigma / its true value"]
    return [*markdown(heads, rows), "", f"All four stay below {GOAL_DB:g} dB from epoch {above[-1] + 1} on."]


def from_clusters(arguments: argparse.Namespace) -> list[str]:
    """From PCA and k-means, without the oracle."""
    heads = ["way", "SNR (dB)", f"trials with all four <= {GOAL_DB:g} dB", "mean of the four (dB)", "worst, by trial"]
    heads += ["trials by number of units", "spikes per window", "s per trial"]
    rows = []
    for key, way in FROM_CLUSTERS.items():
        for snr_db in SNRS[:: len(SNRS) - 1]:
            trials = trials_of(key, snr_db, arguments)
            found = np.array([t.matched for t in trials])
            worst = found.max(axis=1)
            counts = zip(*np.unique([t.n_units for t in trials], return_counts=True), strict=True)
            cells = [
                way.name,
                f"{snr_db:g}",
                f"{np.sum(worst <= GOAL_DB)} of {len(trials)}",
                f"{found.mean():.1f}",
                decibels(worst),
            ]
            cells.append(", ".join(f"{n}: {trials_with}" for n, trials_with in counts))
            means = [np.mean([getattr(t, name) for t in trials]) for name in ("n_codes", "seconds")]
            rows.append([*cells, *(f"{mean:.1f}" for mean in means)])
    return markdown(heads, rows)


PARTS = {
    "errors": ("Fig. 4: error over SNR", errors),
    "epochs": ("Figs. 5 to 7: one trial, epoch by epoch", epochs),
    "lambda": ("Fig. 7: what decides lambda", what_decides),
    "speed": ("Fig. 8 and Table IV: speed", speed),
    "clusters": ("Without the oracle: from principal components and k-means", from_clusters),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"{', '.join(PARTS)}; all by default")
    parser.add_argument("--windows", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=20, help="trials of each way; slow ways have fewer")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), help="lines of Fig. 4")
    parser.add_argument("--folder", type=Path, help="trials are kept here")
    parser.add_argument("--sporco-python", type=Path, help="Python of an environment with Sporco")
    parser.add_argument("--docs", action="store_true", help="put what is printed into docs/paper.md, and draw the figures")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"there is no {', '.join(unknown)}; choose from {', '.join(PARTS)}.")
    if arguments.seeds < 1:
        parser.error(f"--seeds {arguments.seeds} must be at least 1.")
    for part in arguments.parts:
        title, measure = PARTS[part]
        size = "" if arguments.windows == 1000 else f", {arguments.windows} windows"
        intro = f"{arguments.windows} windows, from {START_DB:g} dB, two cores, no GPU."
        mark = f"simulation-{part}" + (f"-{arguments.windows}" if size else "")
        publish(mark, title + size, intro, measure(arguments), arguments.docs, PAGE)


if __name__ == "__main__":
    main()
