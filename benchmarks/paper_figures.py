"""The figures of the paper's simulation, drawn as PNG files into docs/figures."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from lcsc import train_lcsc
from paper_ways import GOAL_DB

from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import FIRST_LAMBDA
from spikecrsae.simulate import PaperSimulation
from spikecrsae.simulate.shapes import unit_norm

matplotlib.use("Agg")
from matplotlib import pyplot

FOLDER = Path(__file__).parents[1] / "docs" / "figures"
STYLE = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 9, "legend.frameon": False, "legend.fontsize": 7}


@contextlib.contextmanager
def saved(name: str, n_panels: int = 1, size: tuple[float, float] = (4.4, 3.2), **options: Any) -> Iterator[Any]:
    """The axes of a figure (an array of several), which is saved at the end."""
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(1, n_panels, figsize=size, layout="constrained", **options)
        yield axes
        FOLDER.mkdir(parents=True, exist_ok=True)
        figure.savefig(FOLDER / f"paper_simulation_{name}.png", dpi=130)
        pyplot.close(figure)


def error_over_snr(by_way: dict[str, dict[float, np.ndarray]]) -> None:
    """Fig. 4. by_way: errors (n_trials, n_units) by way and SNR; bars are standard deviations over trials of their mean."""
    with saved("error_snr", size=(6.6, 3.2)) as axes:
        for name, by_snr in by_way.items():
            means = [errors.mean(axis=1) for errors in by_snr.values()]
            middle, deviation = [m.mean() for m in means], [m.std() for m in means]
            axes.errorbar(list(by_snr), middle, deviation, marker="o", markersize=3, capsize=2, label=name)
        axes.axhline(GOAL_DB, color="0.6", linestyle=":")
        axes.set(xlabel="SNR (dB)", ylabel="template error (dB), mean of four", xticks=list(by_snr))
        axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


def error_over_epochs(errors: np.ndarray) -> None:
    """Fig. 5. errors (n_epochs + 2, n_units): from the start on; the last is after the round with the slab."""
    with saved("error_epoch") as axes:
        axes.plot(errors, marker="o", markersize=3, label=[f"template {i + 1}" for i in range(errors.shape[1])])
        axes.axhline(GOAL_DB, color="0.6", linestyle=":")
        axes.axvline(len(errors) - 1.5, color="0.8")
        axes.annotate("slab", (len(errors) - 1.4, errors.max()), va="top", fontsize=7)
        axes.set(xlabel="epoch", ylabel="template error (dB)")
        axes.legend()


def lcsc_filters(simulation: PaperSimulation, start: CRsAE) -> np.ndarray:
    """The decoder's filters (n_units, 1, n_times) that LCSC learns from a start."""
    return train_lcsc(simulation.windows / simulation.sigma, unit_norm(start.templates), 0).filters


def templates(simulation: PaperSimulation, start: np.ndarray, learned: np.ndarray, by_lcsc: np.ndarray) -> None:
    """Fig. 6."""
    milliseconds = np.arange(simulation.templates.shape[2]) / 10
    with saved("templates", len(start), (8, 2.3), sharey=True) as panels:
        for unit, axes in enumerate(panels):
            axes.plot(milliseconds, unit_norm(start)[unit, 0], color="0.7", label="start")
            axes.plot(milliseconds, simulation.templates[unit, 0], color="black", linewidth=2.5, label="true")
            axes.plot(milliseconds, unit_norm(learned)[unit, 0], color="tab:red", linewidth=1.2, label="CRsAE")
            axes.plot(milliseconds, by_lcsc[unit, 0], color="tab:green", linewidth=1, label="LCSC")
            axes.set(xlabel="time (ms)", title=f"template {unit + 1}")
        panels[-1].legend()


def lambda_over_epochs(lam: np.ndarray) -> None:
    """Fig. 7. lam (n_epochs, n_units), in units of 1 / sigma."""
    course = np.concatenate([np.full((1, lam.shape[1]), FIRST_LAMBDA), lam])
    with saved("lambda") as axes:
        axes.plot(course, marker="o", markersize=3, label=[f"template {i + 1}" for i in range(lam.shape[1])])
        axes.set(xlabel="epoch", ylabel="lambda (1 / sigma)")
        axes.legend()


def loss_over_time(courses: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Fig. 8. courses: seconds (n,) and reconstruction loss (n,) by name."""
    with saved("loss_time", 2, (8.4, 3.2), sharey=True) as (by_time, by_epoch):
        for name, (seconds, loss) in courses.items():
            by_time.plot(np.maximum(seconds, 0.02), loss, marker="o", markersize=2)
            by_epoch.plot(loss, marker="o", markersize=2, label=name)
        by_time.set(xlabel="time (s)", ylabel="reconstruction loss (sigma^2)", xscale="log", yscale="log")
        by_epoch.set(xlabel="epoch (Sporco: five iterations)")
        by_epoch.legend()
