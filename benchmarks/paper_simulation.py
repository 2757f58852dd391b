"""The paper's simulation (Sec. VII-A, Table III): template error over SNR and epochs, lambda, and the time it takes.

    python benchmarks/paper_simulation.py --windows 1000 --figures docs/figures

prints the tables of docs/benchmarks.md in Markdown. --windows 10100 is the size of the paper.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.signal import find_peaks

from spikecrsae.config import TrainConfig
from spikecrsae.crsae.priors import LambdaPrior
from spikecrsae.crsae.train import Training, train
from spikecrsae.data.dictionary import Dictionary
from spikecrsae.detect.clustering import cluster, principal_components, templates_from_labels
from spikecrsae.detect.windows import windows_at
from spikecrsae.simulate import PaperSimulation, match_templates, paper_windows, perturb_templates, template_error_db

START_DB, GOAL_DB, SNRS = -3.5, -14.0, (7.0, 10.0, 13.0, 16.0)


def oracle_start(simulation: PaperSimulation, seed: int) -> Dictionary:
    """The true templates moved START_DB away, at the scale of a mean spike."""
    templates = perturb_templates(simulation.templates, START_DB, np.random.default_rng(seed))
    return Dictionary.from_templates(templates * simulation.amplitudes.mean())


def clustered_start(simulation: PaperSimulation, seed: int) -> Dictionary:
    """Threshold, windows, two principal components, k-means with C clusters (Sec. VII-B): nothing known but C."""
    n_times = simulation.templates.shape[2]
    found = []
    for window in simulation.windows:
        signal = window.T / simulation.sigma
        starts = find_peaks(np.abs(signal[:, 0]), height=8.0, distance=n_times // 2)[0] - n_times // 3
        found.append(windows_at(signal, starts[(starts >= 0) & (starts + n_times <= len(signal))], n_times))
    spikes = np.concatenate(found)
    labels = cluster(principal_components(spikes, 2, seed), len(simulation.templates), seed)
    return Dictionary.from_templates(templates_from_labels(spikes, labels, 1) * simulation.sigma)


def errors_by_epoch(simulation: PaperSimulation, training: Training) -> np.ndarray:
    """Eq. 29 (n_epochs + 1, n_units), without shift or permutation."""
    return np.array(
        [
            [template_error_db(t, a) for t, a in zip(simulation.templates, atoms, strict=True)]
            for atoms in training.atoms_history
        ]
    )


def timed(simulation: PaperSimulation, start: Dictionary, config: TrainConfig, seed: int) -> tuple[Training, float]:
    begin = time.perf_counter()
    training = train(
        simulation.windows, start, config, sigma=simulation.sigma, seed=seed, rotate=config.method == "unrolled"
    )
    return training, time.perf_counter() - begin


def line(*cells) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def table(*heads: str) -> None:
    print()
    line(*heads)
    line(*["---"] * len(heads))


def decibels(values) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def over_snr(n_windows: int, config: TrainConfig, n_seeds: int) -> dict[float, np.ndarray]:
    """Errors (n_seeds, n_units) by SNR; prints one line per SNR."""
    table(
        "SNR (dB)",
        "mean error (dB)",
        "median",
        "worst of four, by seed",
        f"seeds with all four <= {GOAL_DB:g} dB",
        "s per run",
    )
    results = {}
    for snr_db in SNRS:
        errors, seconds = [], []
        for seed in range(n_seeds):
            simulation = paper_windows(n_windows, snr_db, seed)
            training, took = timed(simulation, oracle_start(simulation, seed), config, seed)
            errors.append(errors_by_epoch(simulation, training)[-1])
            seconds.append(took)
        results[snr_db] = np.array(errors)
        worst = results[snr_db].max(axis=1)
        mean, median = results[snr_db].mean(), np.median(results[snr_db])
        reached = f"{np.sum(worst <= GOAL_DB)} of {n_seeds}"
        line(f"{snr_db:g}", f"{mean:.1f}", f"{median:.1f}", decibels(worst), reached, f"{np.mean(seconds):.1f}")
    return results


def over_epochs(simulation: PaperSimulation, training: Training, seconds: float) -> None:
    errors = errors_by_epoch(simulation, training)
    table("epoch", "errors of the four templates (dB)", "lambda", "sigma")
    for epoch, row in enumerate(errors):
        lam, sigma = (training.history[name][max(epoch - 1, 0)] for name in ("lambda_history", "sigma_history"))
        line(epoch, decibels(row), f"{lam:.2f}" if epoch else "", f"{sigma:.5f}" if epoch else "")
    reached = np.flatnonzero((errors <= GOAL_DB).all(axis=1))
    when = f"after {reached[0]} epochs" if len(reached) else "never"
    print(f"\nAll four at {GOAL_DB:g} dB {when}; {len(errors) - 1} epochs took {seconds:.1f} s.")


def what_decides_lambda(simulation: PaperSimulation, start: Dictionary, config: TrainConfig) -> dict[float, Training]:
    """The course of lambda for a strong and a weak prior, in the paper's terms."""
    table(
        "kappa",
        "lambda_0",
        "final lambda",
        "largest allowed",
        "(N_e + r - 1) / delta",
        "without prior: N_e C / l1",
        "errors (dB)",
    )
    results = {}
    for kappa in (8.5, 2.7, 0.5):
        training, _ = timed(simulation, start, replace(config, kappa=kappa), 0)
        n_units, _, n_times = simulation.templates.shape
        prior = LambdaPrior(n_units, simulation.windows.shape[2] - n_times + 1, training.sigma, kappa)
        free = prior.n_positions * n_units / simulation.amplitudes.sum(axis=(1, 2)).mean()
        line(
            f"{kappa:g}",
            f"{training.lambda_0:.2f}",
            f"{training.lam:.2f}",
            f"{prior.bounds[1]:.2f}",
            f"{(prior.n_positions + prior.r - 1) / prior.delta:.2f}",
            f"{free:.2f}",
            decibels(errors_by_epoch(simulation, training)[-1]),
        )
        results[kappa] = training
    return results


def without_oracle(n_windows: int, config: TrainConfig, n_seeds: int) -> None:
    table("seed", "errors after PCA and k-means (dB)", "errors after training (dB)", "epochs", "s")
    for seed in range(n_seeds):
        simulation = paper_windows(n_windows, 16.0, seed)
        start = clustered_start(simulation, seed)
        training, took = timed(simulation, start, config, seed)
        before, after = (match_templates(simulation.templates, d.atoms)[2] for d in (start, training.dictionary))
        line(seed, decibels(before), decibels(after), len(training.atoms_history) - 1, f"{took:.1f}")


def draw(folder: Path, by_snr: dict, simulation: PaperSimulation, training: Training, by_kappa: dict) -> None:
    """Figures 4 to 7 of the paper, one PNG each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    pyplot.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "font.size": 9})
    n_units = len(simulation.templates)

    def axes_of(width: float = 4.2):
        return pyplot.subplots(figsize=(width, 3), layout="constrained")

    def save(figure, name: str) -> None:
        figure.savefig(folder / f"paper_simulation_{name}.png", dpi=140)
        pyplot.close(figure)

    figure, axes = axes_of()
    for unit in range(n_units):
        values = np.array([np.percentile(errors[:, unit], (50, 0, 100)) for errors in by_snr.values()])
        x = np.array(list(by_snr)) + 0.15 * (unit - 1.5)
        reach = np.abs(values[:, 1:] - values[:, :1]).T
        axes.errorbar(x, values[:, 0], reach, marker="o", markersize=3, capsize=2, label=f"template {unit + 1}")
    axes.set(xlabel="SNR (dB)", ylabel="template error (dB)", xticks=list(by_snr))
    axes.axhline(GOAL_DB, color="0.6", linestyle=":")
    axes.legend(frameon=False, title="median and range of seeds")
    save(figure, "error_snr")

    figure, axes = axes_of()
    axes.plot(
        errors_by_epoch(simulation, training), marker="o", markersize=3, label=[f"template {i + 1}" for i in range(n_units)]
    )
    axes.axhline(GOAL_DB, color="0.6", linestyle=":")
    axes.set(xlabel="epoch", ylabel="template error (dB)")
    axes.legend(frameon=False)
    save(figure, "error_epoch")

    figure, panels = pyplot.subplots(1, n_units, figsize=(8, 2.2), sharey=True, layout="constrained")
    for unit, axes in enumerate(panels):
        milliseconds = np.arange(simulation.templates.shape[2]) / 10
        axes.plot(milliseconds, training.atoms_history[0][unit, 0], color="0.7", label="start")
        axes.plot(milliseconds, simulation.templates[unit, 0], color="black", linewidth=2.5, label="true")
        axes.plot(milliseconds, training.dictionary.atoms[unit, 0], color="tab:red", linewidth=1.2, label="learned")
        axes.set(xlabel="time (ms)", title=f"template {unit + 1}")
    panels[0].legend(frameon=False, fontsize=7)
    save(figure, "templates")

    figure, axes = axes_of()
    for kappa, result in by_kappa.items():
        axes.plot(np.arange(1, len(result.atoms_history)), result.history["lambda_history"], label=f"kappa = {kappa:g}")
    axes.axhline(training.lambda_0, color="0.6", linestyle=":", label="centre of the prior")
    axes.set(xlabel="epoch", ylabel="lambda")
    axes.legend(frameon=False)
    save(figure, "lambda")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=10100)
    parser.add_argument("--method", choices=("em", "unrolled"), default="em")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=180, help="T of the unrolled encoder")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--first", action="store_true", help="only the first two tables: error over SNR and over epochs")
    parser.add_argument("--figures", type=Path, help="folder for the figures")
    arguments = parser.parse_args()
    if arguments.first and arguments.figures:
        parser.error("the figures need all tables; leave out --first or --figures.")
    config = TrainConfig(method=arguments.method, n_iterations=arguments.iterations, epochs=arguments.epochs)
    print(
        f"{arguments.windows} windows, method {arguments.method}, Python {platform.python_version()}, {platform.machine()}."
    )
    # compiled functions are loaded before anything is timed
    small = paper_windows(4)
    timed(small, oracle_start(small, 0), replace(config, method="em", epochs=1), 0)

    print(f"\n**Error over SNR**, from {START_DB:g} dB")
    by_snr = over_snr(arguments.windows, config, arguments.seeds)
    print("\n**Error over epochs**, 16 dB, seed 0")
    simulation = paper_windows(arguments.windows, 16.0, 0)
    start = oracle_start(simulation, 0)
    training, seconds = timed(simulation, start, config, 0)
    over_epochs(simulation, training, seconds)
    if arguments.first:
        return
    print("\n**What decides lambda**, 16 dB, seed 0")
    by_kappa = what_decides_lambda(simulation, start, config)
    print("\n**Without the oracle**: threshold, two principal components, k-means with C = 4; 16 dB")
    without_oracle(arguments.windows, config, min(arguments.seeds, 4))
    if arguments.figures:
        draw(arguments.figures, by_snr, simulation, training, by_kappa)


if __name__ == "__main__":
    main()
