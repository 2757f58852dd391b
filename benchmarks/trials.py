"""Recordings with truth, sorted in process and scored, several at a time; what is found is kept as JSON.

What stability.py and drift.py share; calibration.py and learn_probability.py use parts of it. A kept result is valid as long as neither the source of the package's
sorting nor the recording has changed, so that an interrupted benchmark goes on where it was when the same command is given
again.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from runs import Case, Trains, checksum

import spikecrsae
from spikecrsae.config import Config
from spikecrsae.data.recording import Recording
from spikecrsae.score import compare
from spikecrsae.simulate import SimulationConfig, simulate
from spikecrsae.units import s_to_samples

DOCS = Path(__file__).parent / "notebook" / "benchmarks.md"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
#: Rooms of the package that change no sorting.
OUTSIDE = ("cli", "exports", "report")


@dataclass(frozen=True)
class Excerpt(Case):
    """A recording with truth in it, from its beginning to stop_s, or whole."""

    stop_s: float | None = None

    def load(self) -> tuple[Recording, Trains]:
        recording = self.open()
        trains = {name: np.asarray(train) for name, train in self.truth().items()}
        if self.stop_s is None:
            return recording, trains
        n_samples = min(recording.n_samples, s_to_samples(self.stop_s, recording.sampling_frequency))
        # read_raw counts from the beginning, so that a shorter recording needs nothing else
        cut = replace(recording, n_samples=n_samples)
        return cut, {name: train[train < n_samples] for name, train in trains.items()}

    def depends_on(self) -> str:
        return f"{checksum(self.path)} {self.options} {self.stop_s}"


@dataclass(frozen=True)
class Simulated:
    """A recording of spikecrsae.simulate."""

    name: str
    config: SimulationConfig
    exhaustive: bool = True

    def load(self) -> tuple[Recording, Trains]:
        simulation = simulate(self.config)
        return simulation.recording(), simulation.truth.trains()

    def depends_on(self) -> str:
        return repr(self)


@dataclass(frozen=True)
class Task:
    """One sorting: of a case (with name, exhaustive, load and depends_on), with what differs from the defaults.

    values: {stage: {field: value}} of the configuration. constants: {(module, name): value}, set in every module that has
    imported them. label names the difference.
    """

    case: Any
    label: str = "default"
    values: dict = field(default_factory=dict)
    constants: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """What a sorting found. error: why there is none. seconds: of the sorting alone.

    truth and test: units in order, with their numbers of spikes; counts (n_truth, n_test): spikes that agree; partner: truth
    name -> test name, one to one; accuracy: per truth unit.
    """

    valid_for: str
    error: str = ""
    seconds: float = 0.0
    truth: dict[str, int] = field(default_factory=dict)
    test: dict[str, int] = field(default_factory=dict)
    counts: list[list[int]] = field(default_factory=list)
    partner: dict[str, str] = field(default_factory=dict)
    accuracy: dict[str, float] = field(default_factory=dict)

    @property
    def mean_accuracy(self) -> float:
        return float(np.mean(list(self.accuracy.values()))) if self.accuracy else 0.0


def run_all(tasks: Sequence[Task], folder: Path, processes: int) -> list[Trial]:
    """The trials of the tasks in their order, out of the folder or, where it has no valid one, sorted now."""
    found = {i: known for i, task in enumerate(tasks) if (known := kept(task, folder))}
    missing = [i for i in range(len(tasks)) if i not in found]
    os.environ.update(dict.fromkeys(THREADS, "1"))  # read when the processes below start
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(run, tasks[i], folder): i for i in missing}
        try:
            for done, job in enumerate(as_completed(jobs), 1):
                trial, task = job.result(), tasks[jobs[job]]
                found[jobs[job]] = trial
                said = trial.error or f"accuracy {trial.mean_accuracy:.3f}, {len(trial.test)} units"
                print(
                    f"{done}/{len(jobs)} {task.case.name}, {task.label}: {said}, {trial.seconds:.1f} s",
                    file=sys.stderr,
                    flush=True,
                )
        finally:
            pool.shutdown(cancel_futures=True)
    return [found[i] for i in range(len(tasks))]


def path_of(task: Task, folder: Path) -> Path:
    return folder / task.case.name.replace(" ", "_").replace(",", "") / f"{task.label.replace(' ', '_')}.json"


def validity(task: Task) -> str:
    package = Path(spikecrsae.__file__).parent
    files = [path for path in package.rglob("*.py") if path.relative_to(package).parts[0] not in OUTSIDE]
    source = checksum(*sorted(files))
    return f"{source} {task.case.depends_on()} {task.values} {task.constants}"


def kept(task: Task, folder: Path) -> Trial | None:
    path = path_of(task, folder)
    if not path.exists():
        return None
    trial = Trial(**json.loads(path.read_text()))
    return trial if trial.valid_for == validity(task) else None


def run(task: Task, folder: Path) -> Trial:
    """Sort, score and keep, in this process."""
    trial = sort_and_score(task)
    path = path_of(task, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(trial)))
    partial.rename(path)
    return trial


def sort_and_score(task: Task) -> Trial:
    from spikecrsae.pipeline.sort import sort_group

    valid_for = validity(task)
    recording, truth = task.case.load()
    began = time.perf_counter()
    try:
        with constants_set(task.constants):
            sorting = sort_group(recording, Config().with_values(task.values)).sorting
    except Exception as error:  # a setting that fails is an entry of the table
        return Trial(valid_for, f"{type(error).__name__}: {error}", time.perf_counter() - began)
    finally:
        recording.close()
    seconds = time.perf_counter() - began
    trains = sorting.trains()
    comparison = compare(truth, trains, sorting.sampling_frequency)
    return Trial(
        valid_for,
        seconds=seconds,
        truth={name: len(train) for name, train in truth.items()},
        test={name: len(train) for name, train in trains.items()},
        counts=comparison.counts.tolist(),
        partner=comparison.one_to_one,
        accuracy={row.truth: row.accuracy for row in comparison.rows},
    )


@contextlib.contextmanager
def constants_set(constants: dict[tuple[str, str], Any]) -> Iterator[None]:
    """Constants of modules set to other values, also where another module of the package has imported them by name."""
    restore = []
    for (module, name), value in constants.items():
        original = getattr(importlib.import_module(module), name)
        for other in [m for key, m in sys.modules.items() if key.split(".")[0] == "spikecrsae"]:
            if vars(other).get(name) is original:
                restore.append((other, name, original))
                setattr(other, name, value)
    try:
        yield
    finally:
        for where, name, original in restore:
            setattr(where, name, original)


def markdown(heads: Sequence, rows: Sequence[Sequence]) -> list[str]:
    return ["| " + " | ".join(str(cell) for cell in cells) + " |" for cells in (heads, ["---"] * len(heads), *rows)]


def arguments_of(description: str, more: Callable[[argparse.ArgumentParser], None]) -> argparse.Namespace:
    """The options that the three benchmarks share, and `more`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="results are kept here")
    parser.add_argument("--processes", type=int, default=2, help="sortings at a time, one thread each")
    parser.add_argument("--docs", action="store_true", help="put what is printed into benchmarks/notebook/benchmarks.md")
    more(parser)
    return parser.parse_args()


def publish(mark: str, title: str, intro: str, lines: Sequence[str], docs: bool, page: Path = DOCS) -> None:
    """Print the lines; with docs also put them, with the command and the intro, between the mark's comments in the page."""
    print(*lines, sep="\n")
    if not docs:
        return
    words = iter(sys.argv[1:])
    local = (
        "--folder",
        "--source",
        "--recordings-folder",
        "--others-python",
        "--sporco-python",
    )  # of the machine, not of the benchmark
    shown = [word for word in words if not (word in local and next(words)) and word != "--docs"]
    folder = ["--folder", "DIR"] if "--folder" in sys.argv else []
    data = "SPIKECRSAE_DATA=<folder> " if "SPIKECRSAE_DATA" in os.environ else ""
    command = data + shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *folder, *shown])
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    section = "\n".join([begin, f"## {title}", "", f"Printed by `{command}`. {intro}", "", *lines, end])
    text = page.read_text()
    if begin in text and end in text:
        text = text[: text.index(begin)] + section + text[text.index(end) + len(end) :]
    else:
        text = text.rstrip("\n") + "\n\n" + section + "\n"
    page.write_text(text)
