"""Whether a unit's estimated rates of false alarms and misses are true, on recordings that know.

    SPIKECRSAE_DATA=<folder> python benchmarks/calibration.py --folder DIR [--set first|second] [--recordings-folder DIR] [--docs] [PART ...]

Recordings: six of spikecrsae.simulate with weak neurons (SNR from 3 to 8) and, where SPIKECRSAE_DATA is set, those of
accuracy.py: the development recordings and a set of recordings.py, made in the recordings' folder (DIR unless given) where
they are missing. PART: only recordings whose names contain one of the parts.

A unit belongs to the neuron with which it shares the most spikes (one to one at 0.4 ms); `matched` is whether the one-to-one
assignment of the whole sorting, agreement at least 0.5, gives it the same. True false alarms are the part of its spikes that
are none of that neuron's, true misses the part of that neuron's that it lacks. Where the truth names only some neurons, as
in real tissue, only matched units count: of the others nothing is known. The estimates are the columns estimated_false_alarm
and estimated_miss of the units.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.stats import rankdata
from trials import ESTIMATES, Excerpt, Simulated, Task, Trial, arguments_of, markdown, publish, run_all

from spikecrsae.simulate import SimulationConfig

BINS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
FIGURE = Path(__file__).parents[1] / "docs" / "figures" / "calibration.png"
RATES = dict(zip(("false alarms", "misses"), ESTIMATES, strict=True))
INTRO = (
    "Per unit, the rates of false alarms and of misses that `units.csv` estimates, against the true ones. A unit belongs to the neuron "
    "with which it shares the most spikes; matched: the one-to-one assignment agrees. Where the truth names only some neurons, "
    "only matched units count. `weak`: simulated neurons of SNR 3 to 8."
)


@dataclass(frozen=True)
class Unit:
    """A unit against its neuron. true and estimated: by name of the rate; NaN where it is not known."""

    recording: str
    name: str
    neuron: str
    is_matched: bool
    n_spikes: int
    true: dict[str, float]
    estimated: dict[str, float]


def weak() -> list[Simulated]:
    """Neurons from far above the noise to hardly in it."""
    found = []
    for n_channels, n_units in ((4, 6), (1, 2)):
        for seed in range(3):
            config = SimulationConfig(
                n_channels=n_channels, n_units=n_units, snr_low=3.0, snr_high=8.0, duration_s=90.0, seed=100 + seed
            )
            found.append(Simulated(f"weak, {n_channels} ch, seed {100 + seed}", config))
    return found


def recordings(arguments: argparse.Namespace) -> list[Excerpt | Simulated]:
    found: list[Excerpt | Simulated] = weak()
    if "SPIKECRSAE_DATA" in os.environ:
        from accuracy import cases  # which needs the extra `spikeinterface`

        folder = arguments.recordings_folder or arguments.folder
        found += [Excerpt(case.name, case.path, case.options, case.exhaustive) for case in cases(folder, arguments.set, [])]
    return [case for case in found if not arguments.names or any(part in case.name for part in arguments.names)]


def units_of(case: Excerpt | Simulated, trial: Trial) -> list[Unit]:
    counts = np.array(trial.counts, float).reshape(len(trial.truth), len(trial.test))
    truth, found = list(trial.truth), []
    for j, (name, n_spikes) in enumerate(trial.test.items()):
        best = int(counts[:, j].argmax())
        shared = counts[best, j]
        is_matched = trial.partner.get(truth[best]) == name
        if not (is_matched or case.exhaustive):
            continue
        miss = 1 - shared / trial.truth[truth[best]] if shared else np.nan
        true = {"false alarms": 1 - shared / n_spikes, "misses": miss}
        estimated = {
            rate: trial.estimates[column][j] if column in trial.estimates else np.nan for rate, column in RATES.items()
        }
        found.append(Unit(case.name, name, truth[best] if shared else "-", is_matched, n_spikes, true, estimated))
    return found


def unit_table(units: list[Unit]) -> list[str]:
    heads = ["recording", "unit", "neuron", "matched", "spikes"]
    heads += [f"{rate}, {kind}" for rate in RATES for kind in ("true", "estimated")]
    rows = []
    for unit in units:
        numbers = [value[rate] for rate in RATES for value in (unit.true, unit.estimated)]
        shown = ["-" if np.isnan(number) else f"{number:.3f}" for number in numbers]
        rows.append([unit.recording, unit.name, unit.neuron, "yes" if unit.is_matched else "no", unit.n_spikes, *shown])
    return markdown(heads, rows)


def both(units: list[Unit], rate: str) -> tuple[np.ndarray, np.ndarray]:
    """(estimated, true) of the units of which both are known."""
    values = np.array([[unit.estimated[rate], unit.true[rate]] for unit in units]).reshape(-1, 2)
    return tuple(values[np.isfinite(values).all(axis=1)].T)


def agreement_table(units: list[Unit]) -> list[str]:
    heads = [
        "rate",
        "units",
        "n",
        "mean estimated",
        "mean true",
        "mean absolute difference",
        "median",
        "correlation",
        "rank correlation",
    ]
    rows = []
    for rate in RATES:
        for which, chosen in (("matched", [unit for unit in units if unit.is_matched]), ("all", units)):
            estimated, true = both(chosen, rate)
            apart = np.abs(estimated - true)
            varied = len(true) > 2 and np.ptp(estimated) > 0 and np.ptp(true) > 0
            ranks = [rankdata(x) for x in (estimated, true)]
            rows.append(
                [rate, which, len(true)]
                + [f"{np.mean(x):.3f}" if len(x) else "-" for x in (estimated, true, apart)]
                + [f"{np.median(apart):.3f}" if len(apart) else "-"]
                + [f"{np.corrcoef(*x)[0, 1]:.2f}" if varied else "-" for x in ((estimated, true), ranks)]
            )
    return markdown(heads, rows)


def reliability_table(units: list[Unit]) -> list[str]:
    """Units by what is estimated of them, and what is true."""
    rows = []
    for rate in RATES:
        estimated, true = both(units, rate)
        place = np.clip(np.searchsorted(BINS, estimated, "right") - 1, 0, len(BINS) - 2)
        for i, (low, high) in enumerate(pairwise(BINS)):
            here = place == i
            if here.any():
                inside = [
                    f"{x:.3f}" for x in (estimated[here].mean(), true[here].mean(), true[here].min(), true[here].max())
                ]
                rows.append([rate, f"{low:g} to {high:g}", int(here.sum()), *inside])
    return markdown(["rate", "estimated", "units", "mean estimated", "mean true", "lowest true", "highest true"], rows)


def draw(units: list[Unit], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(8, 4), layout="constrained")
    for panel, rate in zip(panels, RATES, strict=True):
        for which, mark in ((True, "o"), (False, "x")):
            estimated, true = both([unit for unit in units if unit.is_matched == which], rate)
            panel.plot(
                np.maximum(estimated, 1e-3),
                np.maximum(true, 1e-3),
                mark,
                ms=4,
                alpha=0.7,
                label="matched" if which else "other",
            )
        panel.plot([1e-3, 1], [1e-3, 1], color="0.6", lw=1, zorder=0)
        panel.set(xscale="log", yscale="log", xlabel=f"estimated rate of {rate}", ylabel="true rate", aspect="equal")
    panels[0].legend(frameon=False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def report(cases: list, trials: list[Trial]) -> tuple[list[str], list[Unit]]:
    units = [unit for case, trial in zip(cases, trials, strict=True) for unit in units_of(case, trial)]
    lines = [*unit_table(units), ""]
    for case, trial in zip(cases, trials, strict=True):
        if trial.error:
            lines += [f"{case.name} fails: {trial.error}", ""]
    absent = [column for column in ESTIMATES if units and not any(column in trial.estimates for trial in trials)]
    if absent:
        lines += [
            f"**The units table has no column {' and no column '.join(absent)}: these true rates stand against nothing.**",
            "",
        ]
    if len(absent) < len(ESTIMATES):
        lines += ["**Agreement**", "", *agreement_table(units), ""]
        lines += ["**Reliability**, all units", "", *reliability_table(units), ""]
    return lines, units


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help="parts of the recordings' names; all by default")
    parser.add_argument("--set", choices=("first", "second"), default="first")
    parser.add_argument("--recordings-folder", type=Path, help="where the sets are, folders first and second")
    parser.add_argument("--figure", type=Path, nargs="?", const=FIGURE, help="draw true over estimated rates")


def main() -> None:
    arguments = arguments_of(__doc__, options)
    cases = recordings(arguments)
    tasks = [Task(case) for case in cases]
    lines, units = report(cases, run_all(tasks, arguments.folder / "calibration", arguments.processes))
    if arguments.figure:
        draw(units, arguments.figure)
        if arguments.figure == FIGURE:
            lines.append("![true over estimated rates](figures/calibration.png)")
    publish("calibration", "Calibration of the estimated error rates", INTRO, lines, arguments.docs)


if __name__ == "__main__":
    main()
