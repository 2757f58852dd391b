"""How well spikecrsae finds known neurons, against six other sorters, on the development recordings and a set of recordings.py.

    SPIKECRSAE_DATA=<folder> python benchmarks/accuracy.py --folder DIR [--set first|second|third] [--others-python PYTHON]
                             [--only ours,lupin,...] [--timeout 600] [NAME ...]

prints two tables (accuracy; seconds: ours of the whole process, the others' of run_sorter alone) and rewrites the set's section
of benchmarks/notebook/benchmarks.md where no NAME is given and every sorter shown has a result on every recording. Recordings are made
where they are missing, which needs the extra `spikeinterface`.

Environment of the others, optional; without --others-python they are shown from the cache only:

    python -m venv others && others/bin/pip install spikeinterface==0.105.3 mountainsort5==0.5.9 kilosort==4.1.7 \\
        torch==2.13.0 hdbscan numba isosplit6 networkx        # and --others-python others/bin/python

Ours is `spikecrsae sort FILE -o ...` with no other option; the others get the same traces (float32, uV where the gain is
known) and SpikeInterface's `run_sorter` with default parameters. A recording without positions is given to them as a column
or square of 20 um. Where a sorter fails on a recording sampled below 12 kHz (the usual 6 kHz low-pass is above its Nyquist
frequency) it gets a copy resampled to 30 kHz, its times are mapped back, and the table marks it (r). Kilosort 4 fails on
tetrodes (on mearec_tetrode6 it estimates a drift of 495 um, on a probe of 48 um, and no spike is left); it runs again
without drift correction, marked (p).

Every sorting is scored by spikecrsae.score.compare, the function behind `spikecrsae score`: units are matched one to one at
0.4 ms, agreement at least 0.5; accuracy is tp / (tp + fn + fp) per neuron, 0 without a partner, and its mean over the
neurons of the truth is shown. Extra units are the units that no neuron is matched with; they are counted where the truth
names all neurons (not with real tissue). A crash or a timeout is an entry of the table and counts 0 in the mean.

Differences: ours minus the best other sorter, with a paired 95 % interval by bootstrap over spikes. Within each neuron
the true spikes are drawn again with replacement, each with its two fates (found by ours, found by the other), and false
alarms of the two matched units, those at most 0.4 ms apart taken as one event, get independent Poisson(1) weights; both
accuracies are computed from one draw. Neurons are not drawn again: the interval is about these neurons.

Results are kept in DIR/results. The one of another sorter is valid as long as the recording has not changed, ours as long as
neither the recording nor the package's source has. --only runs the sorters that it names and takes all else from there.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import recordings
from development import RUNS
from runs import OURS, Case, Run, Runner

from spikecrsae.errors import SpikeCRsAEError
from spikecrsae.score import Comparison, compare, label_spikes

SORTERS = {
    OURS: "spikecrsae",
    "lupin": "Lupin",
    "spykingcircus2": "SpyKING CIRCUS 2",
    "tridesclous2": "Tridesclous 2",
    "mountainsort5": "MountainSort 5",
    "kilosort4": "Kilosort 4",
    "simple": "simple",
}
DEVELOPMENT = ("hc1_tetrode_dev", "hc1_tetrode_dev, channel 0", "mearec_tetrode6", "synth_tetrode5")
N_DRAWS, CLOSE = 2000, 0.01
DOCS = Path(__file__).parent / "notebook" / "benchmarks.md"


def cases(folder: Path, which: str, names: list[str]) -> list[Case]:
    """The development recordings and the set's, made where they are missing."""
    data = Path(os.environ["SPIKECRSAE_DATA"])
    found = []
    for name in DEVELOPMENT:
        file, options, _ = RUNS[name]
        found.append(Case(name, data / file, tuple(options), not name.startswith("hc1")))
    for specification in recordings.SPECIFICATIONS:
        path = folder / which / f"{specification.name}.h5"
        found.append(Case(specification.name, path, (), specification.noise != "locust"))
    found = [case for case in found if not names or any(part in case.name for part in names)]
    for specification in recordings.SPECIFICATIONS:
        path = folder / which / f"{specification.name}.h5"
        if any(case.path == path for case in found) and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            recordings.make(specification, which, path)
    return found


@dataclass(frozen=True)
class Entry:
    """One sorter on one recording, scored: comparison is None where it failed, n_extra where extra units cannot be told."""

    run: Run
    trains: dict
    comparison: Comparison | None
    n_extra: int | None

    @property
    def accuracy(self) -> float:
        return self.comparison.mean("accuracy") if self.comparison else 0.0

    def text(self) -> str:
        if self.comparison is None:
            return self.run.status
        extra = f" +{self.n_extra}" if self.n_extra else ""
        marks = " (r)" * self.run.resampled + " (p)" * bool(self.run.parameters)
        return f"{self.accuracy:.3f}{extra}{marks}"


def score(case: Case, run: Run, trains: dict) -> Entry:
    if run.status != "ok":
        return Entry(run, {}, None, None)
    comparison = compare(case.truth(), trains, case.open().sampling_frequency)
    extra = len(trains) - len(comparison.one_to_one) if case.exhaustive else None
    return Entry(run, trains, comparison, extra)


def difference(case: Case, a: Entry, b: Entry, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of mean accuracy of a less that of b, by the paired bootstrap of this file's docstring.

    Drawing n true spikes with replacement is a multinomial draw of their four fates (found by both, one, the other, none).
    """
    rng = np.random.default_rng(seed)
    totals = np.zeros(N_DRAWS)
    truth = case.truth()
    for name, train in truth.items():
        (found_a, false_a), (found_b, false_b) = (fates(entry, name, train) for entry in (a, b))
        fate = np.bincount(found_a * 2 + found_b, minlength=4)
        drawn = rng.multinomial(len(train), fate / len(train), N_DRAWS)
        tolerance = (a.comparison or b.comparison).tolerance
        shared = int(label_spikes(false_a, false_b, tolerance).truth_found.sum())
        both, only_a, only_b = (rng.poisson(n, N_DRAWS) for n in (shared, len(false_a) - shared, len(false_b) - shared))
        totals += (drawn[:, 2] + drawn[:, 3]) / (len(train) + both + only_a)
        totals -= (drawn[:, 1] + drawn[:, 3]) / (len(train) + both + only_b)
    low, high = np.percentile(totals / len(truth), (2.5, 97.5))
    return float(low), float(high)


def fates(entry: Entry, name: str, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which true spikes the unit matched with a neuron finds, (n_truth,) bool, and the samples of its false alarms."""
    unit = entry.comparison.one_to_one.get(name) if entry.comparison else None
    if unit is None:
        return np.zeros(len(train), bool), np.zeros(0, np.int64)
    labels = label_spikes(train, entry.trains[unit], entry.comparison.tolerance)
    return labels.truth_found, np.asarray(entry.trains[unit])[~labels.test_right]


def best_other(entries: dict[str, Entry]) -> str | None:
    others = [sorter for sorter, entry in entries.items() if sorter != OURS and entry.comparison]
    return max(others, key=lambda sorter: entries[sorter].accuracy, default=None)


def row(cells) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def accuracy_row(case: Case, entries: dict[str, Entry]) -> str:
    texts = [entries[sorter].text() if sorter in entries else "-" for sorter in SORTERS]
    best = best_other(entries)
    versus = "-"
    if OURS in entries and best:
        low, high = difference(case, entries[OURS], entries[best])
        gap = entries[OURS].accuracy - entries[best].accuracy
        versus = f"{gap:+.3f} [{low:+.3f}, {high:+.3f}] {SORTERS[best]}"
    n_neurons = len(case.truth())
    return row([case.name, n_neurons, *texts, versus])


def summary(table: dict[str, dict[str, Entry]]) -> list[str]:
    """The last row of the table, means over the recordings, and the sentence below it."""
    means = []
    for sorter in SORTERS:
        values = [entries[sorter].accuracy for entries in table.values() if sorter in entries]
        means.append(f"{np.mean(values):.3f}" if len(values) == len(table) else "-")
    gaps = []
    for entries in table.values():
        best = best_other(entries)
        if OURS in entries and best:
            gaps.append(entries[OURS].accuracy - entries[best].accuracy)
    lead, near = sum(gap >= 0 for gap in gaps), sum(gap >= -CLOSE for gap in gaps)
    sentence = (
        f"Of {len(gaps)} recordings spikecrsae is best, or equal, on {lead}, and best or within {CLOSE:g} of the best on {near}."
        if gaps
        else "No recording has a result of spikecrsae and of another sorter."
    )
    return [row(["**mean**", "", *means, ""]), "", sentence]


def seconds_table(table: dict[str, dict[str, Entry]]) -> list[str]:
    lines = [row(["seconds", *SORTERS.values()]), row(["---"] * (len(SORTERS) + 1))]
    for name, entries in table.items():
        lines.append(row([name, *(f"{entries[s].run.seconds:.0f}" if s in entries else "-" for s in SORTERS)]))
    return lines


def report(arguments: argparse.Namespace, runner: Runner) -> tuple[list[str], bool]:
    """The lines of the section, printed as they come, and whether every sorter shown has a result on every recording."""
    lines: list[str] = []

    def say(*more: str) -> None:
        lines.extend(more)
        print(*more, sep="\n", flush=True)

    heads = ["recording", "neurons", *SORTERS.values(), "ours - best other [95 %]"]
    say(row(heads), row(["---"] * len(heads)))
    table: dict[str, dict[str, Entry]] = {}
    for case in cases(arguments.folder, arguments.set, arguments.names):
        kind = "development" if case.name in DEVELOPMENT else arguments.set
        runner.folder = arguments.folder / "results" / kind
        got = {sorter: runner.obtain(sorter, case) for sorter in SORTERS}
        entries = {sorter: score(case, *result) for sorter, result in got.items() if result is not None}
        table[case.name] = entries
        say(accuracy_row(case, entries))
    versions = {}
    for sorter in SORTERS:
        runs = {entries[sorter].run.version for entries in table.values() if sorter in entries} - {""}
        versions[SORTERS[sorter]] = ", ".join(sorted(runs)) or "not run"
    say(*summary(table), "", *seconds_table(table), "")
    say("Versions: " + "; ".join(f"{name} {version}" for name, version in versions.items()) + ".")
    return lines, len({frozenset(entries) for entries in table.values()}) == 1


def rewrite(which: str, lines: list[str]) -> None:
    """Replace the section between the set's markers in benchmarks/notebook/benchmarks.md; append it where there is none."""
    mark = "accuracy" if which == "first" else f"accuracy-{which}"
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    intro = [
        f"## Accuracy against other sorters: development recordings and the {which} set",
        "",
        f"Printed by `python benchmarks/accuracy.py --set {which}` on {os.cpu_count()} cores ({platform.machine()}), no GPU. "
        "Mean accuracy over the true neurons, one to one at 0.4 ms; +n: units that match no neuron; "
        "(r): on a copy resampled to 30 kHz, because the sorter fails at 10 kHz; (p): not with default parameters, because it "
        "fails with them (Kilosort 4 without drift correction). Seconds of ours are of the whole process, "
        "the others' of `run_sorter` alone with one job (the first recording of a sorter includes its compilation).",
    ]
    section = "\n".join([begin, *intro, "", *lines, end])
    text = DOCS.read_text()
    if begin in text and end in text:
        text = text[: text.index(begin)] + section + text[text.index(end) + len(end) :]
    else:
        text = text.rstrip("\n") + "\n\n" + section + "\n"
    DOCS.write_text(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of the recordings' names; all by default")
    parser.add_argument("--folder", type=Path, required=True, help="recordings and results are kept here")
    parser.add_argument("--set", choices=recordings.SETS, default="first")
    parser.add_argument("--others-python", type=Path, help="python of the environment of the other sorters")
    parser.add_argument("--only", type=lambda text: text.split(","), help=f"run only these: {','.join(SORTERS)}")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one sorter on one recording")
    arguments = parser.parse_args()
    if unknown := set(arguments.only or ()) - set(SORTERS):
        parser.error(f"--only {','.join(unknown)} is no sorter; choose from {','.join(SORTERS)}.")
    if "SPIKECRSAE_DATA" not in os.environ:
        parser.error("set SPIKECRSAE_DATA to the folder of the development recordings.")
    runner = Runner(arguments.folder, arguments.only, arguments.others_python, arguments.timeout)
    try:
        lines, complete = report(arguments, runner)
    except SpikeCRsAEError as error:
        sys.exit(str(error))
    finally:
        runner.close()
    if complete and not arguments.names:
        rewrite(arguments.set, lines)
    else:
        print(
            "benchmarks/notebook/benchmarks.md is left as it is: it takes a table without gaps over all recordings.",
            file=sys.stderr,
        )


if __name__ == "__main__":
    main()
