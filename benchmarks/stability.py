"""How much accuracy moves when a numeric default changes by 5 %, and over seeds.

    SPIKECRSAE_DATA=<folder> python benchmarks/stability.py --folder DIR [--seconds 40] [--seeds 5] [--docs] [PART ...]

Every number of the configuration (stages preprocess, initialise, train, infer) that the default run reads, and every
constant in capitals of the code that decides (DECIDING), is set 5 % lower and 5 % higher, one at a time. A whole number
moves by the nearest step; where one step is more than 5 % it is left out, and the end of the table says so. Numbers without
a name, inside functions, are not varied. PART: only settings whose names contain one of the parts.

Recordings: the project's sample_data/tetrode.h5 and, where SPIKECRSAE_DATA is set, hc1_tetrode_dev whole, synth_tetrode5
and mearec_tetrode6 from their beginnings to --seconds. Each entry is the change of the mean accuracy over the true neurons
(one to one at 0.4 ms) against the defaults, and in brackets the change of the number of units where it changes.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import os
from collections.abc import Iterator
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

from development import RUNS
from trials import Excerpt, Task, Trial, arguments_of, markdown, publish, run_all

from spikecrsae.config import Config

SHARE, ALLOWED = 0.05, 0.02
SAMPLE = Path(__file__).parents[1] / "sample_data" / "tetrode.h5"
CUT = {"hc1_tetrode_dev": False, "synth_tetrode5": True, "mearec_tetrode6": True}
STAGES = ("preprocess", "initialise", "train", "infer")
DECIDING = (
    "spikecrsae.curate.curate",
    "spikecrsae.curate.removals",
    "spikecrsae.crsae.priors",
    "spikecrsae.curate.evidence",
    "spikecrsae.detect.clustering",
    "spikecrsae.detect.bimodality",
    "spikecrsae.csc.pursuit",
    "spikecrsae.csc.local_search",
)
INTRO = (
    "Change of the mean accuracy when one number is set 5 % lower or higher, and of the number of units in brackets where it changes. "
    "Whole numbers move by the nearest step; recordings other than hc1_tetrode_dev and sample_data are cut to the length given."
)
#: Fields that the default run does not read, and what reads them.
UNREAD = {
    "train.n_iterations": "FISTA",
    "train.learning_rate": "method unrolled",
    "train.learning_rate_lambda": "method unrolled",
    "train.batch_size": "method unrolled",
}


def recordings(seconds: float, names: list[str] | None) -> list[Excerpt]:
    found = [Excerpt("sample_data", SAMPLE, (), True)]
    if "SPIKECRSAE_DATA" in os.environ:
        for name, is_cut in CUT.items():
            path = Path(os.environ["SPIKECRSAE_DATA"]) / RUNS[name][0]
            found.append(Excerpt(name, path, (), not name.startswith("hc1"), seconds if is_cut else None))
    return [case for case in found if not names or any(part in case.name for part in names)]


def neighbours(value: float) -> tuple | None:
    """The value 5 % lower and higher; None where that is no change, or where one step of a whole number is more."""
    if isinstance(value, float):
        low, high = (float(f"{value * factor:.6g}") for factor in (1 - SHARE, 1 + SHARE))
        return (low, high) if value else None
    step = round(SHARE * value)
    return (value - step, value + step) if value * SHARE >= 1 else None


def numeric_fields() -> Iterator[tuple[str, float]]:
    """(stage.name, default) of every number of the stages."""
    for stage in STAGES:
        section = getattr(Config(), stage)
        for option in fields(section):
            value = getattr(section, option.name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                yield f"{stage}.{option.name}", value


def constants(module: str) -> Iterator[tuple[str, object]]:
    """(name, value) of the constants in capitals that a module's source assigns: numbers, and tuples of numbers."""
    loaded = importlib.import_module(module)
    for node in ast.parse(Path(loaded.__file__).read_text(encoding="utf-8")).body:
        for target in node.targets if isinstance(node, ast.Assign) else ():
            for name in [n.id for n in ast.walk(target) if isinstance(n, ast.Name)]:
                value = getattr(loaded, name)
                numbers = value if isinstance(value, tuple) else (value,)
                if name.isupper() and all(isinstance(v, int | float) for v in numbers):
                    yield name, value


def is_compiled(module: str, name: str) -> bool:
    """Whether compiled code holds the constant: setting the attribute would change nothing there."""
    compiled = [f.py_func for f in vars(importlib.import_module(module)).values() if hasattr(f, "py_func")]
    return any(name in function.__code__.co_names for function in compiled)


def settings() -> tuple[list[dict], list[dict], list[str]]:
    """Arguments of Task (label, values, constants) for the fields and for the constants, and what is left out and why."""
    of_fields, of_constants, left_out = [], [], []
    for name, value in numeric_fields():
        stage, field = name.split(".")
        pair = neighbours(value)
        if name in UNREAD:
            left_out.append(f"{name} (only read with {UNREAD[name]})")
        elif pair is None:
            left_out.append(f"{name} = {value:g} (one step is more than 5 %)" if value else f"{name} = 0")
        else:
            of_fields += [{"label": f"{name} {value:g} to {new:g}", "values": {stage: {field: new}}} for new in pair]
    for module in filter(find_spec, DECIDING):
        for name, value in constants(module):
            short = f"{module.removeprefix('spikecrsae.')}.{name}"
            numbers = value if isinstance(value, tuple) else (value,)
            for i, number in enumerate(numbers):
                shown = f"{short}[{i}]" if isinstance(value, tuple) else short
                pair = neighbours(number)
                if pair is None or is_compiled(module, name):
                    why = "compiled in" if pair else "one step is more than 5 %"
                    left_out.append(f"{shown} = {number:g} ({why})")
                    continue
                for new in pair:
                    changed = (*value[:i], new, *value[i + 1 :]) if isinstance(value, tuple) else new
                    of_constants.append({"label": f"{shown} {number:g} to {new:g}", "constants": {(module, name): changed}})
    return of_fields, of_constants, left_out


def change(trial: Trial, base: Trial) -> float:
    return trial.mean_accuracy - base.mean_accuracy


def entry(trial: Trial, base: Trial) -> str:
    if trial.error:
        return f"fails ({trial.error})"
    units = len(trial.test) - len(base.test)
    return f"{change(trial, base):+.3f}" + (f" ({units:+d})" if units else "")


def section(title: str, labels: list[str], table: dict[str, dict[str, Trial]], base: dict[str, Trial]) -> list[str]:
    """One table, label by recording, and the largest change in it."""
    lines = [f"**{title}**", ""]
    rows = [[label, *(entry(table[label][name], base[name]) for name in base)] for label in labels]
    lines += [*markdown(["setting", *base], rows), ""]
    moves = [(abs(change(table[label][name], base[name])), label, name) for label in labels for name in base]
    if moves:
        largest, label, name = max(moves)
        beyond = sum(move >= ALLOWED for move, *_ in moves)
        lines += [
            f"Largest change: {largest:.3f} ({label}, {name}); {beyond} of {len(moves)} entries reach {ALLOWED:g}. "
            f"Mean over the recordings, largest: {max(mean_change(table[label], base) for label in labels):.3f}.",
            "",
        ]
    return lines


def mean_change(trials: dict[str, Trial], base: dict[str, Trial]) -> float:
    return abs(sum(change(trials[name], base[name]) for name in base) / len(base))


def seed_section(table: dict[str, dict[str, Trial]], labels: list[str], base: dict[str, Trial]) -> list[str]:
    rows = [
        [
            label,
            *(table[label][n].error or f"{table[label][n].mean_accuracy:.3f} ({len(table[label][n].test)})" for n in base),
        ]
        for label in labels
    ]
    accuracies = {name: [table[label][name].mean_accuracy for label in labels] for name in base}
    ranges = {name: max(values) - min(values) for name, values in accuracies.items()}
    rows.append(["range", *(f"{value:.3f}" for value in ranges.values())])
    worst = max(ranges, key=ranges.get)
    return [
        "**Seeds**: mean accuracy (units); the first row is the default that the tables above are measured against",
        "",
        *markdown(["seed", *base], rows),
        "",
        f"Largest range: {ranges[worst]:.3f} ({worst}).",
    ]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help="parts of the settings' names; all by default")
    parser.add_argument("--seconds", type=float, default=40.0, help="length of the longer recordings")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--recordings", type=lambda text: text.split(","), help="parts of the recordings' names, with commas"
    )


def main() -> None:
    arguments = arguments_of(__doc__, options)
    cases = recordings(arguments.seconds, arguments.recordings)
    groups = settings()
    wanted = [
        [s for s in group if not arguments.names or any(part in s["label"] for part in arguments.names)]
        for group in groups[:2]
    ]
    seeds = [{"label": f"seed {i}", "values": {"runtime": {"seed": i}}} for i in range(arguments.seeds)]
    tasks = [Task(case, **setting) for setting in (*seeds, *wanted[0], *wanted[1]) for case in cases]
    table: dict[str, dict[str, Trial]] = {}
    for task, trial in zip(tasks, run_all(tasks, arguments.folder / "stability", arguments.processes), strict=True):
        table.setdefault(task.label, {})[task.case.name] = trial
    base = table["seed 0"]
    lines = section("Configuration", [s["label"] for s in wanted[0]], table, base)
    lines += section("Constants of the deciding code", [s["label"] for s in wanted[1]], table, base)
    lines += [f"Left out: {', '.join(groups[2])}.", "", *seed_section(table, [s["label"] for s in seeds], base)]
    publish("stability", "Stability: defaults changed by 5 %, and seeds", INTRO, lines, arguments.docs)


if __name__ == "__main__":
    main()
