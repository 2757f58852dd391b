"""Recordings as laboratories have them: loud stretches, stimulation, rare neurons, steps, references. Ours, others and an oracle.

    python benchmarks/real_life.py --folder DIR [--seeds 5] [--cases clean step ...] [--only ours oracle SORTER ...]
        [--others-python PYTHON] [--timeout 300]

real_life_recordings.py makes a recording for every case, level and seed (21, 22, ... unless --first-seed says otherwise) in DIR;
real_life_score.py scores it. Printed, with what is to be reached: mean accuracy, the same outside of loud stretches and pulses,
phantom spikes a second (of units that match no neuron and are not labelled artefact), and processor time as a multiple of
`clean`, whose length is taken into account.

ours: `spikecrsae sort` as a process with its defaults (complex_spikes with --complex-spikes; next_day is `spikecrsae apply` with the
model of `clean` of the same seed). others: through SpikeInterface with their defaults, first seed only, in the environment of
--others-python; their seconds are wall time in a process that has sorted before. oracle: our encoder with what nobody knows: the
true neurons' templates (means of the true spikes' waveforms), the true noise over time, the true pulses blanked for as long as they
are above the noise. It is the ceiling of what a choice of units can reach;
taking a pulse out may beat blanking it.

A result is kept in DIR as JSON, and is valid as long as neither the package's source nor the recording changes.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import real_life_oracle as oracle
import real_life_recordings as recordings
from real_life_score import score
from runs import OURS, Case, Runner, valid_for
from trials import markdown, publish

ORACLE = "oracle"


@dataclass(frozen=True)
class Target:
    """What a case at a level is to reach: accuracy, accuracy outside of loud stretches and pulses, phantom Hz, and processor time as a
    multiple of clean's for the same length. NaN: nothing is asked."""

    case: str
    level: float
    accuracy: float
    quiet: float
    phantom_hz: float
    cost: float
    words: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.case} {self.level:g}"


NAN = float("nan")
TARGETS = (
    Target("clean", 1, 0.995, 0.995, 0, 1),
    Target("loud_stretches", 3, 0.96, 0.99, 0.5, 3),
    Target("loud_stretches", 4, 0.92, 0.99, 0.5, 3),
    Target("loud_stretches", 6, 0.88, 0.99, 0.5, 3),
    Target("loud_half", 2, 0.98, 0.99, 1, 2),
    Target("loud_half", 3, 0.87, 0.99, 1, 2),
    Target("rare", 60, 0.97, NAN, 0.1, 1.5),
    Target("rare", 40, 0.95, NAN, 0.1, 1.5),
    Target("sometimes", 8, 0.98, NAN, 0.1, 1.5),
    Target("sparse_wire", 0.05, 0.88, NAN, 0.1, 1.5),
    Target("stimulation", 1, 0.98, 0.98, 0.5, 2.5),
    Target("stimulation", 10, 0.95, 0.98, 0.5, 2.5),
    Target("laser", 250, 0.98, 0.98, 0.5, 2.5),
    Target("movement", 600, 0.97, 0.98, 0.5, 2.5),
    Target("step", 0.8, 0.95, NAN, 0.2, 2),
    Target("one_loud_channel", 10, 0.99, NAN, 0.5, 2),
    Target("noise_channel", 450, 0.99, NAN, 0.5, 2),
    Target("noisy_reference", 60, 0.97, NAN, 0.5, 2),
    Target("next_day", 0.8, 0.95, NAN, NAN, NAN),
    Target("complex_spikes", 1, 0.90, NAN, NAN, NAN, ("--complex-spikes",)),
)  # fmt: skip
#: What is printed of several seeds.
MEASURES = ("mean", "mean_quiet", "phantom_hz", "artefact_hz", "wrong_artefacts")


def recording_of(folder: Path, case: str, level: float, seed: int) -> Path:
    """The recording, made where it is missing."""
    path = folder / "recordings" / f"{case}_{level:g}_{seed}.h5"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        recordings.write(case, unfinished, seed, level)
        unfinished.rename(path)
    return path


def run(words: list[str], timeout: float) -> tuple[float, str]:
    """Processor seconds of a command, and its error: what it said last where it failed, or that it was stopped."""
    before, error = resource.getrusage(resource.RUSAGE_CHILDREN), ""
    try:
        done = subprocess.run([sys.executable, "-m", "spikecrsae", *words], capture_output=True, text=True, timeout=timeout)
        if done.returncode not in (0, 5):
            error = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
    except subprocess.TimeoutExpired:
        error = f"stopped after {timeout:g} s"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, error


def ours(folder: Path, target: Target, seed: int, timeout: float) -> dict[str, Any]:
    """What our sort of a recording scores."""
    path = recording_of(folder, target.case, target.level, seed)
    out = folder / OURS / f"{path.stem}.sorted"
    if target.case == "next_day":
        model = folder / OURS / f"clean_1_{seed}.sorted"
        if not (model / "model.safetensors").exists():
            run(["sort", str(recording_of(folder, "clean", 1, seed)), "-o", str(model), "--overwrite", "--quiet"], timeout)
        words = ["apply", str(model), str(path), "-o", str(out), "--overwrite", "--quiet"]
    else:
        words = ["sort", str(path), "-o", str(out), "--overwrite", "--quiet", *target.words]
    seconds, error = run(words, timeout)
    if error:
        return {"error": error, "seconds": seconds}
    found = score(path, out / "spikes.csv") | {"seconds": seconds}
    if target.case == "next_day":
        accuracy = {name: value for name, value in found["accuracy"].items() if name != "new"}
        said = json.loads((out / "run.json").read_text())["warnings"]
        found |= {"accuracy": accuracy, "mean": float(np.mean(list(accuracy.values())))}
        found |= {"forced": forced(path, out / "spikes.csv"), "said": any("new" in text for text in said)}
    return found


def forced(path: Path, spikes: Path) -> float:
    """The part of the new neuron's spikes within 0.4 ms of which no known neuron fired, and a unit did."""
    with h5py.File(path) as file:
        fs = float(file["traces"].attrs["sampling_frequency"])
        truth = {name: file["truth"][name]["spike_samples"][()] for name in file["truth"]}
    with spikes.open() as file:
        found = np.sort([int(row["sample"]) for row in csv.DictReader(file)])
    new = truth.pop("new")
    known = np.sort(np.concatenate(list(truth.values())))
    alone = new[distance(known, new) > 0.0008 * fs]
    return float(np.mean(distance(found, alone) <= 0.0004 * fs))


def distance(samples: np.ndarray, of: np.ndarray) -> np.ndarray:
    """How far each of `of` is from the nearest of the samples (ascending)."""
    if not len(samples):
        return np.full(len(of), np.inf)
    at = np.searchsorted(samples, of)
    return np.minimum(np.abs(samples[np.minimum(at, len(samples) - 1)] - of), np.abs(samples[np.maximum(at - 1, 0)] - of))


def of_trains(path: Path, trains: dict[str, np.ndarray]) -> dict[str, Any]:
    """The score of spike trains, samples by unit."""
    with tempfile.TemporaryDirectory() as name:
        table = Path(name) / "spikes.csv"
        with table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["unit", "sample"])
            writer.writerows((unit, int(sample)) for unit, train in trains.items() for sample in train)
        return score(path, table)


def others(folder: Path, runner: Runner, sorter: str, target: Target, seed: int) -> dict[str, Any]:
    """What another sorter's sort scores; the first recording of a sorter is sorted twice, since it includes its start."""
    path = recording_of(folder, target.case, target.level, seed)
    if sorter not in runner.workers:
        warm = recording_of(folder, "clean", 1, seed)
        runner.run_other(sorter, Case(warm.stem, warm, (), True), folder / sorter / "warm.json")
    found, trains = runner.run_other(sorter, Case(path.stem, path, (), True), folder / sorter / f"{path.stem}.json")
    if found.status != "ok":
        return {"error": found.error, "seconds": found.seconds}
    return of_trains(path, trains) | {"seconds": found.seconds}


def results(
    folder: Path, runner: Runner, who: str, target: Target, seeds: list[int], timeout: float
) -> list[dict[str, Any]]:
    """Of every seed, kept or made now."""
    kept = []
    for seed in seeds:
        path = recording_of(folder, target.case, target.level, seed)
        file = folder / who / f"{path.stem}.score.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        key = valid_for(OURS if who in (OURS, ORACLE) else who, Case(path.stem, path, (), True))
        known = json.loads(file.read_text()) if file.exists() else {}
        if known.get("valid_for") != key:
            began = time.perf_counter()
            if who == OURS:
                known = ours(folder, target, seed, timeout)
            elif who == ORACLE:
                known = of_trains(path, oracle.trains(path, target.case, target.level)) | {"seconds": NAN}
            else:
                known = others(folder, runner, who, target, seed)
            known |= {"valid_for": key}
            file.write_text(json.dumps(known, indent=1))
            print(
                f"{target.name}, seed {seed}, {who}: {known.get('mean', known.get('error'))}, {time.perf_counter() - began:.1f} s",
                file=sys.stderr,
            )
        kept.append(known)
    return kept


def duration_s(path: Path) -> float:
    with h5py.File(path) as file:
        return len(file["traces"]) / float(file["traces"].attrs["sampling_frequency"])


def summary(found: list[dict[str, Any]]) -> dict[str, float]:
    """Means over the seeds; a run that failed has accuracy 0."""
    values = {name: [one.get(name, 0.0 if name.startswith("mean") else NAN) for one in found] for name in MEASURES}
    return {name: float(np.nanmean(each)) if np.isfinite(each).any() else NAN for name, each in values.items()} | {
        "worst": min(one.get("mean", 0.0) for one in found),
        "failed": sum("error" in one for one in found),
        "seconds": float(np.mean([one["seconds"] for one in found])),
    }


def row(target: Target, found: list[dict[str, Any]], clean: float, length: float) -> list[str]:
    """Of our results: what was reached beside what is asked, and whether all of it was."""
    s = summary(found)
    cost = s["seconds"] / clean / (length / 60.0)
    reached = [(s["mean"], target.accuracy, 1), (s["mean_quiet"], target.quiet, 1), (s["phantom_hz"], target.phantom_hz, -1)]
    # no phantom at all is asked of clean, to two decimals; a cost of one clean is one of itself
    reached += [(cost, target.cost if target.case != "clean" else NAN, -1)]
    met = (
        all(np.isnan(asked) or sign * round(value, 3) >= sign * asked for value, asked, sign in reached) and not s["failed"]
    )
    cells = [f"{value:.3f}" + ("" if np.isnan(asked) else f" ({asked:g})") for value, asked, _ in reached[:2]]
    cells += [f"{value:.2f}" + ("" if np.isnan(asked) else f" ({asked:g})") for value, asked, _ in reached[2:]]
    more = f"{s['failed']} failed" if s["failed"] else ""
    if "forced" in found[0]:
        met &= all(one["forced"] < 0.05 and one["said"] for one in found)
        more = f"forced {max(one['forced'] for one in found):.3f}, said {sum(one['said'] for one in found)} of {len(found)}"
    return [
        target.name,
        *cells,
        f"{s['worst']:.3f}",
        f"{s['artefact_hz']:.2f}",
        f"{s['wrong_artefacts']:g}",
        more,
        "yes" if met else "no",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=21)
    parser.add_argument("--cases", nargs="+", help="clean is always one of them")
    parser.add_argument("--only", nargs="+", default=[OURS], help="ours, oracle, or names of SpikeInterface's sorters")
    parser.add_argument("--others-python", type=Path, default=Path(sys.executable))
    parser.add_argument("--timeout", type=float, default=300.0)
    parser.add_argument("--docs", action="store_true")
    given = parser.parse_args()
    seeds = list(range(given.first_seed, given.first_seed + given.seeds))
    targets = [t for t in TARGETS if not given.cases or t.case in given.cases or t.case == "clean"]
    runner = Runner(given.folder, None, given.others_python, given.timeout)
    lines: list[str] = []
    if OURS in given.only:
        rows, clean = [], NAN
        # what numba compiles on the first sort of an installation is no part of a sort
        run(
            ["sort", str(recording_of(given.folder, "clean", 1, seeds[0])), "-o", str(given.folder / "warm"), "--overwrite"],
            given.timeout,
        )
        for target in targets:
            found = results(given.folder, runner, OURS, target, seeds, given.timeout)
            clean = summary(found)["seconds"] if target.case == "clean" else clean
            rows.append(
                row(target, found, clean, duration_s(recording_of(given.folder, target.case, target.level, seeds[0])))
            )
        heads = ["case", "accuracy (asked)", "outside (asked)", "phantom Hz (asked)", "cost (asked)", "worst seed", "artefact Hz",
                 "neurons called artefact", "more", "met"]  # fmt: skip
        lines += [*markdown(heads, rows), "", f"clean: {clean:.1f} s of processor time."]
    names = [who for who in given.only if who != OURS]
    if names:
        rows = []
        for target in (t for t in targets if t.case != "next_day"):
            cells = []
            for who in names:
                s = summary(results(given.folder, runner, who, target, seeds if who == ORACLE else seeds[:1], given.timeout))
                cells.append("failed" if s["failed"] else f"{s['mean']:.3f} / {s['mean_quiet']:.3f} / {s['phantom_hz']:.1f}")
            rows.append([target.name, *cells])
        lines += ["", *markdown(["case (accuracy / outside / phantom Hz)", *names], rows)]
    runner.close()
    shutil.rmtree(given.folder / "scratch", ignore_errors=True)
    intro = f"Seeds {seeds[0]} to {seeds[-1]}; others: seed {seeds[0]}."
    publish("real-life", "Recordings as laboratories have them", intro, lines, given.docs)


if __name__ == "__main__":
    main()
