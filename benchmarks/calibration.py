"""Whether what a sorting says of its errors is true: probabilities of spikes, rates of units with intervals. On recordings with truth.

    SPIKECRSAE_DATA=<folder> python benchmarks/calibration.py --folder DIR [--recordings-folder DIR] [--seeds FIRST LAST] [--docs] [PART ...]

Recordings: `simulated`, the sets first, second and third of recordings.py without real noise, and 50 of simulated.py with the seeds
100 to 149; `real`, the hybrids in locust noise of those sets, hc1_tetrode_dev with four channels and with one, and the paper's
recording, where SPIKECRSAE_DATA has it; `real life`, the cases of real_life_recordings.py with the seeds 21 to 23. PART: only
recordings whose names contain one of the parts. Recordings and results are kept in the folders; what exists is not made again.

No weight is learned from them: learn_probability.py has seeds of its own. All were looked at during development, and the few numbers
that are set by hand (LEAST_FOREIGN and NOT_A_NEURON in decode.probability, those of decode.rates) were chosen with them in view. So
this is no test on unseen data; recordings of other seeds are.

A unit's neuron is the one with which it shares most spikes, one to one at 0.4 ms. Where the truth names only some neurons, as in
real tissue, only units count that the one-to-one assignment of the whole sorting gives the same. In the sets' tetrode_5_hash some
thirty neurons below the noise are in no truth: two or three units of many neurons are false nearly to the last spike, a seventh of all
spikes that are counted. The table has all measures without them as well.
"""

from __future__ import annotations

import argparse
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import real_life_recordings as real_life
import recordings
from runs import Trains
from simulated import fresh
from trials import THREADS, Excerpt, Task, arguments_of, markdown, publish, validity

from spikecrsae.config import Config
from spikecrsae.data.recording import Recording
from spikecrsae.data.sorting import SortingData
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.score.calibration import (
    RATES,
    JudgedSpikes,
    coverage,
    expected_calibration_error,
    judged_spikes,
    least_certain,
    log_loss,
)
from spikecrsae.score.matching import label_spikes
from spikecrsae.units import tolerance_to_samples

SEEDS, REAL_LIFE_SEEDS = range(100, 150), (21, 22, 23)
#: Cases of real life, with their levels.
CASES = (
    ("clean", 1), ("loud_stretches", 3), ("loud_stretches", 6), ("loud_half", 2), ("rare", 60), ("sometimes", 8),
    ("sparse_wire", 0.05), ("stimulation", 1), ("stimulation", 10), ("laser", 250), ("movement", 600), ("complex_spikes", 1),
    ("next_day", 0.8), ("step", 0.8), ("noisy_reference", 60), ("one_loud_channel", 10), ("noise_channel", 450),
)  # fmt: skip
PAPER = "hc1_d533101_ch0_paper"
KINDS = ("simulated", "real", "real life")
INTRO = (
    "A spike is right if it is matched with a spike of its unit's neuron; see the script for the recordings. Least certain: the tenth of "
    "the spikes with the smallest probabilities. Base: every spike has its unit's true part of right spikes."
)


@dataclass(frozen=True)
class RealLife:
    """A recording of real_life_recordings.py, made in the folder when it is loaded."""

    case: str
    level: float
    seed: int
    folder: Path
    exhaustive: bool = True

    @property
    def name(self) -> str:
        return f"{self.case} {self.level:g}, seed {self.seed}"

    def load(self) -> tuple[Recording, Trains]:
        path = self.folder / "real_life" / f"{self.case}-{self.level:g}-{self.seed}.h5"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            real_life.write(self.case, path, self.seed, self.level)
        return Excerpt(self.name, path, (), True).load()

    def depends_on(self) -> str:
        return f"{self.case} {self.level} {self.seed}"


@dataclass(frozen=True)
class Result:
    """The judged spikes of a recording, and the columns of the units (one value for each of judged.units).
    reasons: of each of these units, what its false spikes are."""

    valid_for: str
    name: str
    kind: str
    judged: JudgedSpikes
    units: dict[str, np.ndarray]
    reasons: tuple[str, ...]


def cases(folder: Path) -> list[tuple[str, Any]]:
    """(kind, case) of every recording."""
    found: list[tuple[str, Any]] = []
    for which in ("first", "second", "third"):
        for specification in recordings.SPECIFICATIONS:
            path = folder / which / f"{specification.name}.h5"
            known = specification.noise != "locust"
            case = Excerpt(f"{which} {specification.name}", path, (), known)
            found.append(("simulated" if known else "real", case))
    found += [("simulated", fresh(seed)) for seed in SEEDS]
    if "SPIKECRSAE_DATA" in os.environ:
        data = Path(os.environ["SPIKECRSAE_DATA"])
        hc1 = data / "hc1_tetrode_dev.h5"
        known_channels = (("hc1_tetrode_dev", hc1, ()), ("hc1_tetrode_dev, channel 0", hc1, ("--channels", "0")))
        each = (*known_channels, (PAPER, data / f"{PAPER}.h5", ()))
        found += [("real", Excerpt(name, path, options, False)) for name, path, options in each if path.exists()]
    return found + [("real life", RealLife(case, level, seed, folder)) for case, level in CASES for seed in REAL_LIFE_SEEDS]


def make_missing(case: Any) -> None:
    """The recording of a set, where it is missing."""
    if isinstance(case, Excerpt) and not case.path.exists():
        specification = next(one for one in recordings.SPECIFICATIONS if case.path.stem == one.name)
        case.path.parent.mkdir(parents=True, exist_ok=True)
        recordings.make(specification, case.path.parent.name, case.path)


def result_of(kind: str, case: Any, folder: Path) -> Result:
    """Sort, judge and keep; out of the folder where a valid result is there."""
    path = folder / "calibration" / f"{case.name.replace(' ', '_').replace(',', '')}.pkl"
    make_missing(case)
    valid_for = validity(Task(case))
    if path.exists() and (kept := pickle.loads(path.read_bytes())).valid_for == valid_for:
        return kept
    recording, truth = case.load()
    sorting = sort_group(recording, Config()).sorting
    recording.close()
    return keep(path, valid_for, kind, case, sorting, truth)


def keep(path: Path, valid_for: str, kind: str, case: Any, sorting: SortingData, truth: Trains) -> Result:
    judged = judged_spikes(truth, sorting, exhaustive=case.exhaustive)
    rows = [int(np.flatnonzero(sorting.unit_ids == unit)[0]) for unit in judged.units]
    columns = {name: values[rows] for name, values in sorting.units.items()}
    result = Result(valid_for, case.name, kind, judged, columns, reasons(judged, sorting, truth))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(result))
    return result


def reasons(judged: JudgedSpikes, sorting: SortingData, truth: Trains) -> tuple[str, ...]:
    """Of each judged unit, whose its false spikes are: of a neuron with a unit of its own, of one without (merged), or of none."""
    tolerance = tolerance_to_samples(0.4, sorting.sampling_frequency)
    found = []
    for unit, own in zip(judged.units, judged.neuron, strict=True):
        mine = judged.unit == unit
        left = sorting.spikes["sample"][sorting.spikes["unit"] == unit][~judged.right[mine]]
        parts, total = [], max(len(left), 1)
        for name in truth:
            if name == own:
                continue
            matched = label_spikes(np.asarray(truth[name]), left, tolerance).test_right
            if matched.any():
                has = "with a unit of its own" if name in judged.neuron else "merged: without a unit of its own"
                parts.append((int(matched.sum()), f"{matched.sum() / total:.0%} are neuron {name}'s ({has})"))
                left = left[~matched]
        parts.append((len(left), f"{len(left) / total:.0%} are no known neuron's"))
        found.append("; ".join(text for n, text in sorted(parts, reverse=True) if n))
    return tuple(found)


@dataclass(frozen=True)
class Spikes:
    """The spikes of several recordings together: probability, right, and the part of right spikes of each one's unit."""

    probability: np.ndarray
    right: np.ndarray
    of_unit: np.ndarray

    @classmethod
    def of(cls, results: Sequence[Result]) -> Spikes:
        parts = [(one.judged.probability, one.judged.right, _of_unit(one.judged)) for one in results]
        return cls(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def row(self) -> list[Any]:
        low, false = least_certain(self.probability), ~self.right
        loss, base = log_loss(self.probability, self.right), log_loss(self.of_unit, self.right)
        in_low = np.count_nonzero(false[low]) / max(np.count_nonzero(false), 1)
        error, low_error = (expected_calibration_error(p, r) for p, r in (
            (self.probability, self.right), (self.probability[low], self.right[low])))  # fmt: skip
        shown = [false.mean(), 1 - self.probability.mean(), error, low_error]
        return [len(false), *(f"{value:.4f}" for value in shown), f"{in_low:.3f}", f"{loss / base:.3f}" if base else "-"]


def _of_unit(judged: JudgedSpikes) -> np.ndarray:
    right = 1 - judged.false_alarm
    return right[np.searchsorted(judged.units, judged.unit)] if len(right) else np.zeros(0)


def spike_table(results: Sequence[Result]) -> list[str]:
    def without(kinds: Sequence[str]) -> list[Result]:
        return [one for one in results if one.kind in kinds and "hash" not in one.name]

    chosen = {kind: [one for one in results if one.kind == kind] for kind in KINDS}
    chosen |= {"all": list(results), "simulated, without hash": without(["simulated"]), "all, without hash": without(KINDS)}
    heads = [
        "recordings",
        "spikes",
        "false",
        "said to be",
        "calibration error",
        "least certain",
        "false in these",
        "log loss / base",
    ]
    return markdown(heads, [[name, *Spikes.of(some).row()] for name, some in chosen.items() if some])


def unit_table(results: Sequence[Result]) -> list[str]:
    """Coverage of the intervals, by kind and over all."""
    rows = []
    for kind in (*KINDS, "all"):
        some = [one for one in results if kind in (one.kind, "all")]
        if not some:
            continue
        for rate in RATES:
            low, high, true, n = (np.concatenate([get(one) for one in some]) for get in (
                _column(f"{rate}_low"), _column(f"{rate}_high"), lambda one, rate=rate: getattr(one.judged, rate),
                lambda one: one.judged.n_spikes))  # fmt: skip
            with_errors = true > 0
            narrow = (low == 0) & (high <= 5 / n + 0.005)
            held = coverage(low[with_errors], high[with_errors], true[with_errors])
            shown = (with_errors.sum(), f"{held:.3f}", (~with_errors).sum(), f"{narrow[~with_errors].mean():.3f}")
            rows.append([kind, rate.replace("_", " "), *shown, f"{np.mean(high - low):.4f}"])
    return markdown(
        ["recordings", "rate", "units with errors", "coverage", "without", "interval from 0, narrow", "mean width"], rows
    )


def _column(name: str) -> Callable[[Result], np.ndarray]:
    return lambda one: np.asarray(one.units[name], float)


def remarkable(results: Sequence[Result]) -> list[str]:
    """Units said to be clean that are not, and the width of the intervals of strong units with many spikes."""
    said, listed, widths = 0, [], []
    for one in results:
        for row, unit in enumerate(one.judged.units):
            false, estimate = one.judged.false_alarm[row], one.units["false_alarm"][row]
            said += estimate < 0.01
            if estimate < 0.01 and false > 0.05:
                listed.append(
                    f"{one.name}, unit {unit}: said {estimate:.3f}, true {false:.3f}, {one.judged.n_spikes[row]} spikes; "
                    f"of the false spikes, {one.reasons[row]}"
                )
            if one.units["snr"][row] > 8 and one.judged.n_spikes[row] > 500:
                widths.append(one.units["false_alarm_high"][row] - one.units["false_alarm_low"][row])
    lines = [f"{said} units are said to have less than 1 % false alarms; {len(listed)} of them have more than 5 %."]
    lines += [f"- {text}" for text in listed]
    return [
        *lines,
        "",
        f"Mean width of the false-alarm interval over {len(widths)} units of SNR above 8 with more than 500 spikes: {np.mean(widths):.4f}.",
    ]


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", help="parts of the recordings' names; all by default")
    parser.add_argument("--recordings-folder", type=Path, help="where the sets are, folders first, second and third")
    parser.add_argument(
        "--seeds", type=int, nargs=2, metavar=("FIRST", "LAST"), help="these fresh recordings in place of all others"
    )


def main() -> None:
    arguments = arguments_of(__doc__, options)
    chosen = cases(arguments.recordings_folder or arguments.folder)
    if arguments.seeds:
        chosen = [("simulated", fresh(seed)) for seed in range(arguments.seeds[0], arguments.seeds[1] + 1)]
    chosen = [(k, c) for k, c in chosen if not arguments.names or any(part in c.name for part in arguments.names)]
    os.environ.update(dict.fromkeys(THREADS, "1"))
    with ProcessPoolExecutor(arguments.processes, mp_context=get_context("spawn")) as pool:
        results = []
        for done in pool.map(result_of, *zip(*chosen, strict=True), [arguments.folder] * len(chosen)):
            results.append(done)
            print(f"{len(results)}/{len(chosen)} {done.name}", file=sys.stderr, flush=True)
    lines = [*spike_table(results), "", *unit_table(results), "", *remarkable(results)]
    publish("calibration", "Calibration of probabilities and rates", INTRO, lines, arguments.docs)


if __name__ == "__main__":
    main()
