"""The paper's simulation (Sec. VII-A, Table III): template error by way of training, over SNR and epochs; lambda; the time it takes.

    python benchmarks/paper_simulation.py --windows 1000 --figures docs/figures

prints the tables of docs/benchmarks.md in Markdown. --windows 10100 is the size of the paper.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.signal import find_peaks

from spikecrsae.config import TrainConfig
from spikecrsae.crsae.course import Training
from spikecrsae.crsae.em import expectation_maximisation
from spikecrsae.crsae.first_training import joined
from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import FIRST_LAMBDA, Laplace, SpikeSlab
from spikecrsae.crsae.train import train
from spikecrsae.detect.clustering import cluster, principal_components, templates_from_labels
from spikecrsae.detect.windows import windows_at
from spikecrsae.simulate import PaperSimulation, match_templates, paper_windows, perturb_templates, template_error_db
from spikecrsae.simulate.shapes import unit_norm

START_DB, GOAL_DB, SNRS = -3.5, -14.0, (7.0, 10.0, 13.0, 16.0)
#: Rounds of EM with the slab alone, where nothing else is done.
ROUNDS = 6


def model_of(simulation: PaperSimulation, templates: np.ndarray) -> CRsAE:
    """Templates at full scale with the Laplace prior. The simulation's spikes stand at whole samples."""
    return CRsAE(templates, Laplace.first(len(templates)), simulation.sigma, n_shifts=1)


def oracle_start(simulation: PaperSimulation, seed: int) -> CRsAE:
    """The true templates moved START_DB away, at the scale of a mean spike."""
    templates = perturb_templates(simulation.templates, START_DB, np.random.default_rng(seed))
    return model_of(simulation, templates * simulation.amplitudes.mean())


def clustered_start(simulation: PaperSimulation, seed: int) -> CRsAE:
    """Threshold, windows, two principal components, k-means with C clusters (Sec. VII-B): nothing known but C."""
    n_times = simulation.templates.shape[2]
    found = []
    for window in simulation.windows:
        signal = window.T / simulation.sigma
        starts = find_peaks(np.abs(signal[:, 0]), height=8.0, distance=n_times // 2)[0] - n_times // 3
        found.append(windows_at(signal, starts[(starts >= 0) & (starts + n_times <= len(signal))], n_times))
    spikes = np.concatenate(found)
    labels = cluster(principal_components(spikes, 2, seed), len(simulation.templates), seed)
    return model_of(simulation, templates_from_labels(spikes, labels, 1) * simulation.sigma)


def errors_db(simulation: PaperSimulation, templates: np.ndarray) -> np.ndarray:
    """Eq. 29 (n_units,), without shift or permutation."""
    return np.array([template_error_db(t, a) for t, a in zip(simulation.templates, templates, strict=True)])


def errors_by_epoch(simulation: PaperSimulation, training: Training) -> np.ndarray:
    """Eq. 29 (n_epochs + 1, n_units)."""
    return np.array([errors_db(simulation, templates) for templates in training.templates_history])


def timed(simulation: PaperSimulation, start: CRsAE, config: TrainConfig, seed: int) -> tuple[Training, float]:
    begin = time.perf_counter()
    training = train(simulation.windows, start, config, seed=seed, rotate=config.method == "unrolled")
    return training, time.perf_counter() - begin


def rounds_of_em(simulation: PaperSimulation, model: CRsAE, n_rounds: int) -> CRsAE:
    """EM of a model on the windows laid end to end."""
    return expectation_maximisation(joined(simulation.windows, model.n_times), model, n_rounds)[0]


@dataclass(frozen=True)
class Way:
    """A way to learn templates. learn: of a simulation, a start with the Laplace prior, settings and a seed."""

    name: str
    learn: Callable[[PaperSimulation, CRsAE, TrainConfig, int], CRsAE]
    is_slow: bool = False


def with_slab(model: CRsAE) -> CRsAE:
    return replace(model, prior=SpikeSlab.first(model.n_units))


def annealed(simulation: PaperSimulation, start: CRsAE, config: TrainConfig, seed: int) -> CRsAE:
    return timed(simulation, start, replace(config, method="em"), seed)[0].model


def back_propagated(simulation: PaperSimulation, start: CRsAE, config: TrainConfig, seed: int) -> CRsAE:
    return timed(simulation, start, replace(config, method="unrolled"), seed)[0].model


WAYS = (
    Way("annealed l1", annealed),
    Way(
        "annealed l1, then one round with the slab",
        lambda s, m, c, seed: rounds_of_em(s, with_slab(annealed(s, m, c, seed)), 1),
    ),
    Way(f"{ROUNDS} rounds with the slab alone", lambda s, m, c, seed: rounds_of_em(s, with_slab(m), ROUNDS)),
    Way("back-propagation, Laplace", back_propagated, is_slow=True),
    Way("back-propagation, slab", lambda s, m, c, seed: back_propagated(s, with_slab(m), c, seed), is_slow=True),
)


def line(*cells) -> None:
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def table(*heads: str) -> None:
    print()
    line(*heads)
    line(*["---"] * len(heads))


def decibels(values) -> str:
    return ", ".join(f"{value:.1f}" for value in values)


def over_snr(n_windows: int, config: TrainConfig, n_seeds: int, ways: tuple[Way, ...]) -> dict[str, dict[float, np.ndarray]]:
    """Errors (n_seeds, n_units) by way and SNR; prints one line for each."""
    table(
        "way",
        "SNR (dB)",
        "mean error (dB)",
        "median",
        "worst of four, by seed",
        f"seeds with all four <= {GOAL_DB:g} dB",
        "s per run",
    )
    results: dict[str, dict[float, np.ndarray]] = {way.name: {} for way in ways}
    for way in ways:
        for snr_db in SNRS:
            rows, seconds = [], []
            for seed in range(n_seeds):
                simulation = paper_windows(n_windows, snr_db, seed)
                begin = time.perf_counter()
                model = way.learn(simulation, oracle_start(simulation, seed), config, seed)
                seconds.append(time.perf_counter() - begin)
                rows.append(errors_db(simulation, model.templates))
            errors = results[way.name][snr_db] = np.array(rows)
            worst = errors.max(axis=1)
            reached = f"{np.sum(worst <= GOAL_DB)} of {n_seeds}"
            middle = f"{errors.mean():.1f}", f"{np.median(errors):.1f}"
            line(way.name, f"{snr_db:g}", *middle, decibels(worst), reached, f"{np.mean(seconds):.1f}")
    return results


def over_epochs(simulation: PaperSimulation, training: Training, seconds: float) -> None:
    errors = errors_by_epoch(simulation, training)
    table("epoch", "errors of the four templates (dB)", "lambda of the four", "sigma")
    for epoch, row in enumerate(errors):
        lam, sigma = (training.history[name][max(epoch - 1, 0)] for name in ("lambda", "sigma"))
        line(epoch, decibels(row), ", ".join(f"{v:.2f}" for v in lam) if epoch else "", f"{sigma:.5f}" if epoch else "")
    reached = np.flatnonzero((errors <= GOAL_DB).all(axis=1))
    when = f"after {reached[0]} epochs" if len(reached) else "never"
    print(f"\nAll four at {GOAL_DB:g} dB {when}; {len(errors) - 1} epochs took {seconds:.1f} s.")


def without_oracle(n_windows: int, config: TrainConfig, n_seeds: int) -> None:
    table(
        "seed", "errors after PCA and k-means (dB)", "errors after training (dB)", "and a round with the slab", "epochs", "s"
    )
    for seed in range(n_seeds):
        simulation = paper_windows(n_windows, 16.0, seed)
        start = clustered_start(simulation, seed)
        training, took = timed(simulation, start, replace(config, method="em"), seed)
        last = rounds_of_em(simulation, with_slab(training.model), 1)
        models = start, training.model, last
        errors = [decibels(match_templates(simulation.templates, model.templates)[2]) for model in models]
        line(seed, *errors, len(training.templates_history) - 1, f"{took:.1f}")


def draw(folder: Path, by_snr: dict, simulation: PaperSimulation, training: Training) -> None:
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
        axes.plot(milliseconds, unit_norm(training.templates_history[0])[unit, 0], color="0.7", label="start")
        axes.plot(milliseconds, simulation.templates[unit, 0], color="black", linewidth=2.5, label="true")
        axes.plot(
            milliseconds, unit_norm(training.model.templates)[unit, 0], color="tab:red", linewidth=1.2, label="learned"
        )
        axes.set(xlabel="time (ms)", title=f"template {unit + 1}")
    panels[0].legend(frameon=False, fontsize=7)
    save(figure, "templates")

    figure, axes = axes_of()
    epochs = np.arange(len(training.templates_history))
    course = np.concatenate([np.full((1, n_units), FIRST_LAMBDA), training.history["lambda"]])
    axes.plot(epochs, course, label=[f"template {i + 1}" for i in range(n_units)])
    axes.set(xlabel="epoch", ylabel="lambda (1 / sigma)")
    axes.legend(frameon=False)
    save(figure, "lambda")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--windows", type=int, default=10100)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=180, help="T of the unrolled encoder")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--unrolled", action="store_true", help="also back-propagation, which takes a hundred times as long")
    parser.add_argument("--first", action="store_true", help="only the first two tables: error over SNR and over epochs")
    parser.add_argument("--figures", type=Path, help="folder for the figures")
    arguments = parser.parse_args()
    if arguments.first and arguments.figures:
        parser.error("the figures need all tables; leave out --first or --figures.")
    config = TrainConfig(n_iterations=arguments.iterations, epochs=arguments.epochs)
    print(f"{arguments.windows} windows, Python {platform.python_version()}, {platform.machine()}.")
    ways = tuple(way for way in WAYS if arguments.unrolled or not way.is_slow)
    # compiled functions are loaded before anything is timed
    small = paper_windows(4)
    rounds_of_em(small, timed(small, oracle_start(small, 0), replace(config, epochs=1), 0)[0].model, 1)

    print(f"\n**Error over SNR**, from {START_DB:g} dB")
    by_way = over_snr(arguments.windows, config, arguments.seeds, ways)
    print("\n**Error over epochs of the annealed l1 stage**, 16 dB, seed 0")
    simulation = paper_windows(arguments.windows, 16.0, 0)
    training, seconds = timed(simulation, oracle_start(simulation, 0), config, 0)
    over_epochs(simulation, training, seconds)
    if arguments.first:
        return
    print("\n**Without the oracle**: threshold, two principal components, k-means with C = 4; 16 dB")
    without_oracle(arguments.windows, config, min(arguments.seeds, 4))
    if arguments.figures:
        draw(arguments.figures, by_way[WAYS[1].name], simulation, training)


if __name__ == "__main__":
    main()
