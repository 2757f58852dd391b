"""What each part of the engine is worth: the same recordings sorted with one part left out.

    SPIKECRSAE_DATA=<folder> python benchmarks/ablation.py --folder DIR [--seeds 0,1,2] [--only a,b,...] [NAME ...]

Recordings: the development recordings of accuracy.py, and FIRST of its first simulated set, made in DIR/first where they are
missing. NAME: parts of their names. Every sort runs in this process, through pipeline.sort.sort_group.

Variants; each leaves out what it names and nothing else:

a  everything: the default configuration.
b  no training of templates: no l1 stage (as f), CRsAE.maximise learns the prior but keeps the templates, and fit_drift keeps
   them too. Templates are those of the first clusters and of splits, merges and additions.
c  no training of the prior: SpikeSlab.maximise returns the prior as it is, so every unit keeps the first spread and penalty.
   Templates are trained. The lambda of the l1 stage is still learned: it is part of that stage.
d  l1 only: infer.prior = laplace. No spike-and-slab prior is used anywhere.
e  no local search: infer.local_search = false.
f  no l1 stage: train.max_windows = 0. EM starts from the first clusters.
g  spoiled start: simulate.perturb_templates puts the first templates at an error of SPOILED_DB (Eq. 29).
h  spoiled start without the l1 stage: g and f together.

Three more variants only serve the table of learned priors. They double what is assumed before anything is known:

i  the first spread (FIRST_SPREAD, also the centre of its log-normal prior).
j  the first penalty.
k  the first lambda (FIRST_LAMBDA, also what few spikes are drawn to), with infer.prior = laplace; its reference is d.

First table: accuracy as in accuracy.py (mean over the true neurons, one to one at 0.4 ms), mean over the seeds; a sort that
fails counts 0. "=" marks a recording whose spikes (sample and unit) are those of a for every seed. "l1 stage taken" counts sorts
in which the held-out windows preferred the templates of the l1 stage, of those in which it ran.

Second table, first seed only: how far the learned priors of units with MANY_SPIKES spikes move. Units of two sorts are
matched one to one by their spikes. A unit that is not found again has no move: the table says how many are.

Every result is a line of DIR/ablation.jsonl, with its spikes in DIR/ablation. A line is valid as long as neither the
recording nor the source of the package has changed, so an interrupted run goes on. Delete the file after a change of a variant.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

import numpy as np
from accuracy import DEVELOPMENT, cases
from runs import OURS, Case, Trains, valid_for
from trials import constants_set, markdown

from spikecrsae.config import Config
from spikecrsae.crsae import priors
from spikecrsae.crsae.drift import DEGREE, Drifting
from spikecrsae.crsae.first_training import FirstTraining
from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import Laplace, Prior, SpikeSlab
from spikecrsae.curate import curate
from spikecrsae.data.spikes import Spikes
from spikecrsae.pipeline import fit
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.score import compare
from spikecrsae.simulate import perturb_templates

#: Of the first simulated set: one to four channels, white, broadband and real noise.
FIRST = ("stereotrode_4", "tetrode_6", "tetrode_5_10k_broadband", "hybrid_locust_3", "wire_3")
SPOILED_DB = -4.0
#: Units with fewer spikes are left out of the second table: what is assumed at the start may decide there.
MANY_SPIKES = 200
#: A parameter that moves by more than this share counts as moved.
MOVED = 0.1


@contextmanager
def templates_kept() -> Iterator[None]:
    """The prior is learned, the templates are not: neither by the M-step nor by the fit of drift."""

    def maximise(model: CRsAE, signal: np.ndarray, spikes: Spikes, n_positions: int | None = None) -> CRsAE:
        if not len(spikes) or not model.n_units:
            return model
        amplitude = model.shrinkage.unshrunk(spikes.unit, spikes.amplitude, model.energy)
        n_positions = n_positions or signal.shape[1] - model.n_times + 1
        return replace(model, prior=model.prior.maximise(spikes.unit, amplitude, model.energy, n_positions))

    def still(signal: np.ndarray, model: CRsAE, spikes: Spikes, samples: np.ndarray, n_samples: int, steps=()) -> Drifting:
        return Drifting(
            model, np.zeros((DEGREE + len(steps), *model.templates.shape)), n_samples, np.asarray(steps, np.int64)
        )

    with patch.object(CRsAE, "maximise", maximise), patch.object(fit, "fit_drift", still):
        yield


@contextmanager
def prior_kept() -> Iterator[None]:
    """Every unit keeps the spike-and-slab prior of before anything is known."""
    with patch.object(SpikeSlab, "maximise", lambda prior, *given: prior):
        yield


@contextmanager
def spoiled(seed: int) -> Iterator[None]:
    """The first templates have an error of SPOILED_DB; the events that they are the means of stay known."""
    first_templates = fit.first_templates

    def perturbed(*given: Any) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
        events, templates, members = first_templates(*given)
        if len(templates):
            templates = perturb_templates(templates, SPOILED_DB, np.random.default_rng(seed)).astype(templates.dtype)
        return events, templates, members

    with patch.object(fit, "first_templates", perturbed):
        yield


@contextmanager
def doubled(prior: type[Prior], name: str, constant: str | None = None) -> Iterator[None]:
    """A parameter of a prior starts at twice its value; so does the constant of the module that it comes from."""
    parameter = next(f for f in fields(prior) if f.name == name)
    before = parameter.metadata
    constants = {(priors.__name__, constant): 2 * getattr(priors, constant)} if constant else {}
    parameter.metadata = MappingProxyType(before | {"start": 2 * before["start"]})
    try:
        with constants_set(constants):
            yield
    finally:
        parameter.metadata = before


@dataclass(frozen=True)
class Variant:
    """What differs from the default run: settings of the configuration, and patches during the sort, made from its seed."""

    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    patches: Callable[[int], AbstractContextManager] = lambda seed: nullcontext()


VARIANTS = {
    "a": Variant("everything"),
    "b": Variant("no training of templates", {"max_windows": 0}, lambda seed: templates_kept()),
    "c": Variant("no training of the prior", {}, lambda seed: prior_kept()),
    "d": Variant("l1 only", {"prior": "laplace"}),
    "e": Variant("no local search", {"local_search": False}),
    "f": Variant("no l1 stage", {"max_windows": 0}),
    "g": Variant("spoiled start", {}, spoiled),
    "h": Variant("spoiled start, no l1 stage", {"max_windows": 0}, spoiled),
}
DOUBLED = {
    "i": Variant("first spread", {}, lambda seed: doubled(SpikeSlab, "spread", "FIRST_SPREAD")),
    "j": Variant("first penalty", {}, lambda seed: doubled(SpikeSlab, "penalty")),
    "k": Variant("first lambda", {"prior": "laplace"}, lambda seed: doubled(Laplace, "lam", "FIRST_LAMBDA")),
}
#: With which variant another one is compared, where it is not a.
REFERENCE = {"k": "d"}


@dataclass(frozen=True)
class Result:
    """One sort. l1: gain and standard error of the l1 stage, and whether it was taken; None where it did not run. prior: parameters
    of the reported units, by name. drifting: units whose templates change over time. spikes: file with the trains. error: why
    the sort failed; it then has no unit and an accuracy of 0."""

    variant: str
    recording: str
    seed: int
    valid_for: str
    accuracy: float
    l1: tuple[float, float, bool] | None
    prior: dict[str, list[float]]
    drifting: int
    seconds: float
    spikes: str
    error: str = ""

    @property
    def key(self) -> tuple:
        return self.variant, self.recording, self.seed, self.valid_for


class Results:
    """The results in a folder; what is missing is sorted and added."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.table = folder, folder / "ablation.jsonl"
        self.known: dict[tuple, Result] = {}
        for line in self.table.read_text().splitlines() if self.table.exists() else ():
            try:
                result = Result(**json.loads(line))
            except ValueError:  # an interrupted run wrote half a line
                continue
            self.known[result.key] = result

    def obtain(self, letter: str, case: Case, seed: int) -> Result:
        valid = valid_for(OURS, case)
        known = self.known.get((letter, case.name, seed, valid))
        if known is None or not (self.folder / known.spikes).exists():
            known = self._sorted(letter, case, seed, valid)
        return known

    def trains(self, result: Result) -> Trains:
        with np.load(self.folder / result.spikes) as file:
            return {unit: file[unit] for unit in file.files}

    def _sorted(self, letter: str, case: Case, seed: int, valid: str) -> Result:
        result, trains = sort(letter, case, seed, valid)
        path = self.folder / result.spikes
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **trains)
        with self.table.open("a") as file:
            file.write(json.dumps(asdict(result)) + "\n")
        self.known[result.key] = result
        label = (VARIANTS | DOUBLED)[letter].label
        said = result.error or f"accuracy {result.accuracy:.3f}, {len(trains)} units, {result.seconds:.1f} s"
        print(f"{case.name}, seed {seed}, {letter} ({label}): {said}", file=sys.stderr, flush=True)
        return result


def sort(letter: str, case: Case, seed: int, valid: str) -> tuple[Result, Trains]:
    """Sort a recording by a variant, score it, and note what the l1 stage did."""
    variant, stages = (VARIANTS | DOUBLED)[letter], []
    train_first = curate.train_first

    def noted(*given: Any) -> FirstTraining:
        stages.append(train_first(*given))
        return stages[-1]

    config, recording = Config().with_settings(**variant.settings, seed=seed), case.open()
    names = [f.metadata.get("name", f.name) for f in fields(priors.PRIORS[config.infer.prior])]
    found, accuracy, trains, error = {"drift": [], **{name: [] for name in names}}, 0.0, {}, ""
    began = time.perf_counter()
    try:
        with recording, variant.patches(seed), patch.object(curate, "train_first", noted):
            sorting = sort_group(recording, config).sorting
        trains = sorting.trains()
        accuracy = compare(case.truth(), trains, sorting.sampling_frequency).mean("accuracy")
        found = {"drift": sorting.units["drift"], **{name: sorting.model[name] for name in names}}
    except Exception as failure:  # a variant that fails is an entry of the table
        error = f"{type(failure).__name__}: {failure}"
    result = Result(
        variant=letter,
        recording=case.name,
        seed=seed,
        valid_for=valid,
        accuracy=accuracy,
        # without windows nothing is compared, and the standard error is 0
        l1=next(((s.gain, s.error, bool(s.taken)) for s in stages if s.error > 0), None),
        prior={name: np.asarray(found[name], float).tolist() for name in names},
        drifting=int((np.asarray(found["drift"], float) > 0).sum()),
        seconds=round(time.perf_counter() - began, 2),
        spikes=f"ablation/{case.name.replace(', ', '_').replace(' ', '_')}-{letter}-{seed}-{valid}.npz",
        error=error,
    )
    return result, trains


def is_same(a: Trains, b: Trains) -> bool:
    """Whether two sortings have the same spikes of the same units."""
    return a.keys() == b.keys() and all(np.array_equal(a[unit], b[unit]) for unit in a)


def main_table(results: Results, found: list[Case], letters: list[str], seeds: list[int]) -> Iterator[str]:
    """Lines of the first table, as they come."""
    heads = ["recording", *(f"{letter}: {VARIANTS[letter].label}" for letter in letters)]
    yield from markdown(heads, [])
    means: dict[str, list[float]] = {letter: [] for letter in letters}
    changed, l1 = dict.fromkeys(letters, 0), {letter: [] for letter in letters}
    for case in found:
        cells = [case.name]
        base = [results.trains(results.obtain("a", case, seed)) for seed in seeds]
        for letter in letters:
            runs = [results.obtain(letter, case, seed) for seed in seeds]
            same = all(is_same(trains, results.trains(run)) for trains, run in zip(base, runs, strict=True))
            means[letter].append(float(np.mean([run.accuracy for run in runs])))
            changed[letter] += not same
            l1[letter] += [run.l1[2] for run in runs if run.l1]
            failed = any(run.error for run in runs)
            cells.append(f"{means[letter][-1]:.3f}" + " =" * (same and letter != "a") + " (fails)" * failed)
        yield row(cells)
    yield row(["**mean**", *(f"{np.mean(means[letter]):.3f}" for letter in letters)])
    yield row(["spikes changed, of recordings", *(f"{changed[x]} of {len(found)}" if x != "a" else "-" for x in letters)])
    yield row(["l1 stage taken, of sorts", *(f"{sum(l1[x])} of {len(l1[x])}" if l1[x] else "-" for x in letters)])


def row(cells: list) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def prior_table(results: Results, found: list[Case], letters: list[str], seed: int) -> Iterator[str]:
    """Lines of the second table, and what is said of the units of a before it."""
    base = [results.obtain("a", case, seed) for case in found]
    spreads = np.concatenate([result.prior["spread"] for result in base])
    n_edge = int(at_edge(spreads).sum())
    drifting = sum(result.drifting for result in base)
    yield (
        f"{len(spreads)} units over all recordings of a, {drifting} of them drifting. No parameter of the prior has bounds; "
        f"{n_edge} spreads are at an edge of the grid on which they are sought. Spreads are from {spreads.min():.4f} to {spreads.max():.4f}."
    )
    yield ""
    heads = [
        "doubled",
        "parameter",
        f"units with >= {MANY_SPIKES} spikes",
        "median move",
        "95 %",
        f"above {100 * MOVED:.0f} %",
    ]
    yield from markdown(heads, [])
    for letter in letters:
        reference = REFERENCE.get(letter, "a")
        moves: dict[str, list[float]] = {}
        n_many = 0
        for case in found:
            pair = [results.obtain(which, case, seed) for which in (reference, letter)]
            n_many += sum(len(train) >= MANY_SPIKES for train in results.trains(pair[0]).values())
            for name, values in moves_of(*pair, *map(results.trains, pair), case.open().sampling_frequency).items():
                moves.setdefault(name, []).extend(values)
        for name, values in sorted(moves.items(), reverse=True):
            yield row([DOUBLED[letter].label, name, f"{len(values)} of {n_many}", *moved(np.array(values))])


def at_edge(spreads: np.ndarray) -> np.ndarray:
    """Spreads (bool, n) that the grid of priors.learned_spread cuts off: it ends one step inside."""
    grid = priors._LOG_SPREADS
    return (np.log(spreads) <= grid[1]) | (np.log(spreads) >= grid[-2])


def moved(values: np.ndarray) -> list[str]:
    if not len(values):
        return ["-"] * 3
    return [*(f"{100 * np.percentile(values, q):.2f} %" for q in (50, 95)), f"{100 * np.mean(values > MOVED):.1f} %"]


def moves_of(before: Result, after: Result, a: Trains, b: Trains, fs: float) -> dict[str, list[float]]:
    """By how much each parameter of the prior differs, relative, for the units of the first sort with many spikes that have a
    partner in the second."""
    partner, order = compare(a, b, fs).one_to_one, list(b)
    pairs = [(i, order.index(partner[unit])) for i, unit in enumerate(a) if len(a[unit]) >= MANY_SPIKES and unit in partner]
    return {name: [abs(after.prior[name][j] / before.prior[name][i] - 1) for i, j in pairs] for name in before.prior}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    comma = partial(str.split, sep=",")
    parser.add_argument("names", nargs="*", help="parts of the recordings' names; all by default")
    parser.add_argument("--folder", type=Path, required=True, help="recordings and results are kept here")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=[0, 1, 2])
    parser.add_argument("--only", type=comma, help=f"these variants: {','.join(VARIANTS | DOUBLED)}; all by default")
    arguments = parser.parse_args()
    wanted = arguments.only or [*VARIANTS, *DOUBLED]
    if unknown := set(wanted) - set(VARIANTS | DOUBLED):
        parser.error(f"--only {','.join(sorted(unknown))} is no variant; choose from {','.join(VARIANTS | DOUBLED)}.")
    if "SPIKECRSAE_DATA" not in os.environ:
        parser.error("set SPIKECRSAE_DATA to the folder of the development recordings.")
    names = [n for n in (*DEVELOPMENT, *FIRST) if not arguments.names or any(part in n for part in arguments.names)]
    if not names:
        parser.error(f"no recording is named so; there are {', '.join((*DEVELOPMENT, *FIRST))}.")
    found = [case for case in cases(arguments.folder, "first", names) if case.name in names]
    results = Results(arguments.folder)
    tables = []
    if letters := [letter for letter in VARIANTS if letter in wanted]:
        tables.append(main_table(results, found, letters, arguments.seeds))
    if letters := [letter for letter in DOUBLED if letter in wanted]:
        tables.append(prior_table(results, found, letters, arguments.seeds[0]))
    for table in tables:
        for line in table:
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
