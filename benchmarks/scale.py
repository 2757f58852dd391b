"""Processor time as recordings grow: more channels, more groups, more recordings, each part by itself.

    SPIKECRSAE_DATA=<folder> python benchmarks/scale.py --folder DIR --others-python PATH [--docs] [--sorters lupin,...]
                                                        [--seconds S] [--seeds N] PART ...

cuts      mearec_tetrode6 and synth_tetrode5: three cuts, 1, 2 and 3 s off the start, later sorts of one process
columns   tetrode_12 and columns16_12_coloured of the three sets of recordings.py (--sets DIR holds a folder for each)
probe16, probe32, probe64, probe128
          dense probes of so many channels (probe_recordings.py), of --seconds, with --seeds seeds
groups    16 tetrodes of two minutes at 20 kHz in one raw file, `sort --groups`, in two processes
wires     --wires single wires of ten minutes, `batch` in two processes

Every sorter gets the same traces in a process of its own, which sorts one recording after the other, without parallel jobs. Cold is
the first sort with the start of its process; warm the mean of the sorts after it, of which the first repeats the cold
one. Both are processor seconds, of child processes too. Accuracy: mean over neurons of the warm sorts. The last column is
our warm time over the other's. An hour of tetrode is in sort_speed.py. A sorter that takes longer than --timeout for a recording
is left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from accuracy import SORTERS
from runs import OURS, Worker, hand_over
from sort_speed import FASTEST, TETRODES, resident_mb
from trials import publish

from spikecrsae.readers import open_recording, read_truth
from spikecrsae.results.folder import read_sorting
from spikecrsae.score import compare
from spikecrsae.simulate import preset_config, simulate, write_simulation

#: Neurons of a dense probe by its channels.
NEURONS = {16: 10, 32: 20, 64: 40, 128: 80}
CUTS_S = (1.0, 2.0, 3.0)
HERE = Path(__file__).parent
HEADING = ["| recording | sorter | cold | warm | accuracy | ours / other |", "| --- | --- | --- | --- | --- | --- |"]


@dataclass(frozen=True)
class Signal:
    """A recording from first_s on, with the samples of its neurons' spikes."""

    path: Path
    first_s: float = 0.0

    def hand_over(self, folder: Path) -> None:
        """Write what the sorters read into the folder."""
        with open_recording(self.path) as recording:
            fs = recording.sampling_frequency
            traces = recording.traces(round(self.first_s * fs), recording.n_samples)
            hand_over(folder, traces, fs, fs, recording.channel_positions)

    def accuracy(self, spikes: Path) -> float:
        """Mean accuracy over the neurons of the trains in a file."""
        with open_recording(self.path) as recording:
            fs = recording.sampling_frequency
        first = round(self.first_s * fs)
        truth = {name: train[train >= first] - first for name, train in read_truth(self.path, fs).items()}
        with np.load(spikes) as found:
            return compare(truth, dict(found), fs).mean("accuracy")


def measure(sorter: str, signals: list[Signal], arguments: argparse.Namespace) -> tuple[float, float, float] | None:
    """Cold and warm processor seconds, and the mean accuracy, of a process that sorts the first signal twice, then the others."""
    log, python = arguments.folder / f"{sorter}.log", arguments.others_python
    worker = Worker(sys.executable, OURS, log, script="scale_ours.py") if sorter == OURS else Worker(python, sorter, log)
    seconds, accuracies = [], []
    try:
        for signal in (signals[0], *signals):
            with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
                signal.hand_over(Path(name))
                run = worker.serve(Path(name), arguments.timeout)
                if run["status"] != "ok":
                    print(f"{signal.path.name}, {sorter}: {run['status']} {run['error']}", file=sys.stderr)
                    return None
                seconds.append(run["processor_s"] if seconds else run["process_s"])
                accuracies.append(signal.accuracy(Path(name) / "spikes.npz"))
                print(
                    f"{signal.path.name}, {sorter}: {seconds[-1]:.1f} s, {accuracies[-1]:.3f}", file=sys.stderr, flush=True
                )
    finally:
        worker.stop()
    return seconds[0], float(np.mean(seconds[1:])), float(np.mean(accuracies[1:]))


def rows(name: str, signals: list[Signal], arguments: argparse.Namespace) -> list[str]:
    """A row of the table for each sorter."""
    others = arguments.sorters if arguments.others_python else []
    found = {sorter: measure(sorter, signals, arguments) for sorter in (OURS, *others)}
    lines, ours = [], found[OURS]
    for sorter, result in found.items():
        if result is None:
            lines.append(f"| {name} | {SORTERS[sorter]} | - | - | - | - |")
            continue
        cold, warm, accuracy = result
        ratio = f"{ours[1] / warm:.2f} (cold {ours[0] / cold:.2f})" if ours and sorter != OURS else "-"
        lines.append(f"| {name} | {SORTERS[sorter]} | {cold:.1f} | {warm:.1f} | {accuracy:.3f} | {ratio} |")
    return lines


def cuts(arguments: argparse.Namespace) -> list[str]:
    data = Path(os.environ["SPIKECRSAE_DATA"])
    return [
        line
        for name, file in TETRODES.items()
        for line in rows(name, [Signal(data / file, first) for first in CUTS_S], arguments)
    ]


def columns(arguments: argparse.Namespace) -> list[str]:
    if arguments.sets is None:
        sys.exit("columns needs --sets, a folder with the folders first, second and third that recordings.py has written.")
    return [
        line
        for name in ("tetrode_12", "columns16_12_coloured")
        for line in rows(
            name, [Signal(arguments.sets / one / f"{name}.h5") for one in ("first", "second", "third")], arguments
        )
    ]


def probe(n_channels: int, arguments: argparse.Namespace) -> list[str]:
    signals = []
    for seed in range(arguments.seeds):
        path = arguments.folder / f"probe{n_channels}_{arguments.seconds:g}s_{seed}.h5"
        words = [n_channels, NEURONS[n_channels], seed, arguments.seconds]
        if not path.exists():
            command = [arguments.others_python, HERE / "probe_recordings.py", path, *words]
            subprocess.run(list(map(str, command)), check=True)
        signals.append(Signal(path))
    return rows(f"{n_channels} channels, {NEURONS[n_channels]} neurons, {arguments.seconds:g} s", signals, arguments)


def command(*words: object) -> tuple[float, float, float]:
    """Seconds, processor seconds, and peak memory in MB of all its processes, of a command of ours."""
    before, began, memory = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter(), 0.0
    process = subprocess.Popen([sys.executable, "-m", "spikecrsae", *map(str, words)], stdout=subprocess.DEVNULL)
    while process.poll() is None:
        memory = max(memory, resident_mb(process.pid))
        time.sleep(0.1)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        sys.exit(f"{' '.join(map(str, words))} ended with {process.returncode}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, memory


def groups(arguments: argparse.Namespace) -> list[str]:
    """16 tetrodes of 3 to 5 neurons."""
    raw, truth = arguments.folder / "tetrodes16.dat", {}
    traces = np.zeros((120 * 20000, 64), np.int16)
    for tetrode in range(16):
        made = simulate(preset_config("tetrode", n_units=3 + tetrode % 3, duration_s=120.0, seed=tetrode))
        traces[:, 4 * tetrode : 4 * tetrode + 4] = made.traces
        truth |= {f"{tetrode}, {unit}": made.truth.spike_samples(unit) for unit in made.truth.unit_ids}
    traces.tofile(raw)
    named = ",".join(f"{first}-{first + 3}" for first in range(0, 64, 4))
    reading = ["--n-channels", 64, "--dtype", "int16", "--sampling-frequency", 20000, "--groups", named]
    out = arguments.folder / "tetrodes16.sorted"
    seconds, processor, memory = command("sort", raw, *reading, "--jobs", 2, "-o", out, "--overwrite", "--quiet")
    sorting = read_sorting(out)
    accuracy = compare(truth, sorting.trains(), 20000.0).mean("accuracy")
    raw.unlink()
    return [
        f"16 tetrodes of two minutes in one file: {seconds:.0f} s, {processor:.0f} processor seconds, {memory:.0f} MB, "
        f"mean accuracy {accuracy:.4f} of {len(truth)} neurons in {sorting.n_units} units."
    ]


def wires(arguments: argparse.Namespace) -> list[str]:
    """Single wires of two neurons."""
    folder = arguments.folder / "wires"
    folder.mkdir(exist_ok=True)
    for seed in range(arguments.wires):
        if not (path := folder / f"wire_{seed}.h5").exists():
            write_simulation(simulate(preset_config("tetrode", n_channels=1, n_units=2, duration_s=600.0, seed=seed)), path)
    files = [folder / f"wire_{seed}.h5" for seed in range(arguments.wires)]
    seconds, processor, memory = command(
        "batch", *files, "-o", arguments.folder / "wires.out", "--jobs", 2, "--overwrite", "--quiet"
    )
    return [
        f"{len(files)} single wires of ten minutes: {seconds / len(files):.2f} s a wire, {processor / len(files):.2f} processor seconds, "
        f"{memory:.0f} MB."
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = {"cuts": cuts, "columns": columns} | {f"probe{n}": lambda a, n=n: probe(n, a) for n in NEURONS}
    sentences = {"groups": groups, "wires": wires}
    parser.add_argument("parts", nargs="+", choices=[*tables, *sentences], metavar="PART", help="what to measure")
    parser.add_argument("--folder", type=Path, required=True, help="recordings and results are kept here")
    parser.add_argument("--others-python", type=Path, help="Python of an environment with the other sorters")
    parser.add_argument("--sorters", type=lambda text: text.split(","), default=list(FASTEST), help="the others")
    parser.add_argument("--sets", type=Path, help="folder of the three sets of recordings.py")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of a dense probe's recording")
    parser.add_argument("--seeds", type=int, default=3, help="recordings of a dense probe")
    parser.add_argument("--wires", type=int, default=100, help="single wires")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds for one recording")
    parser.add_argument("--docs", action="store_true", help="put what is printed into benchmarks/notebook/benchmarks.md")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for part in arguments.parts:
        text = [*HEADING, *tables[part](arguments)] if part in tables else sentences[part](arguments)
        intro = f"On {os.cpu_count()} cores ({platform.machine()}), no GPU."
        publish(f"scale-{part}", f"Scale: {part}", intro, text, arguments.docs)


if __name__ == "__main__":
    main()
