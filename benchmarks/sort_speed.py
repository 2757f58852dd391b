"""How long a whole sort takes, and how much memory: 120 s of tetrode against other sorters, and an hour against its own tenth.

    SPIKECRSAE_DATA=<folder> python benchmarks/sort_speed.py --folder DIR [--others-python PATH] [--docs] [tetrodes] [long]

tetrodes  mearec_tetrode6 and synth_tetrode5, every sorter in a process of its own, in turns (--turns), after a run of each that is
          not counted: what had to be compiled once is on disk by then. Seconds of the process from its start to the result, ours
          with report and all, those of the others with as many jobs as there are cores, and of their run_sorter alone.
          Median and range; a shared machine's speed changes within minutes, so ratios are those of one turn.
long      six neurons of 15 Hz on a tetrode at 30 kHz, from spikecrsae.simulate: ten minutes, and an hour (864 MB) that begins with
          them and goes on with five times ten minutes of the same neurons, other spikes and other noise. Seconds, and the peak
          of the resident memory of all its processes together (Linux).

The environment of the others is that of accuracy.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from accuracy import SORTERS
from runs import Case, Worker, hand_over
from trials import publish

from spikecrsae.simulate import Simulation, generate, preset_config, simulate

TETRODES = {"mearec_tetrode6": "mearec_tetrode6.h5", "synth_tetrode5": "synth_tetrode5.nwb"}
FASTEST = ("lupin", "spykingcircus2", "tridesclous2")


def resident_mb(pid: int) -> float:
    """Resident memory of a process and of all that it has started, each for itself: what they share counts as often (Linux)."""
    place = Path("/proc") / str(pid)
    try:
        pages = int((place / "statm").read_text().split()[1])
        children = [child for task in (place / "task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:  # it has ended meanwhile
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20 + sum(resident_mb(int(child)) for child in children)


def sort(path: Path, folder: Path, *options: str) -> tuple[float, float, dict]:
    """Seconds and peak memory in MB of `spikecrsae sort` with these options, and seconds per stage."""
    words = [
        sys.executable,
        "-m",
        "spikecrsae",
        "sort",
        str(path),
        "-o",
        str(folder / "out"),
        "--overwrite",
        "--quiet",
        *options,
    ]
    began = time.perf_counter()
    process, memory = subprocess.Popen(words, stdout=subprocess.DEVNULL), 0.0
    while process.poll() is None:
        memory = max(memory, resident_mb(process.pid))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    seconds = time.perf_counter() - began
    if process.returncode:
        sys.exit(f"{' '.join(words)} ended with {process.returncode}")
    return seconds, memory, json.loads((folder / "out" / "run.json").read_text())["stage_seconds"]


def other(sorter: str, case: Case, python: Path, folder: Path) -> tuple[float, float]:
    """Seconds of a process that sorts the case once, and of run_sorter in it."""
    recording = case.open()
    with tempfile.TemporaryDirectory() as name:
        scratch, fs = Path(name), recording.sampling_frequency
        hand_over(scratch, recording.traces(0, recording.n_samples), fs, fs, recording.channel_positions)
        began = time.perf_counter()
        worker = Worker(python, sorter, folder / f"{sorter}.log", n_jobs=os.cpu_count() or 1)
        run = worker.serve(scratch, 600.0)
        seconds = time.perf_counter() - began
        worker.stop()
    return (seconds, run["seconds"]) if run["status"] == "ok" else (np.nan, np.nan)


def tetrodes(folder: Path, python: Path | None, names: list[str], sorters: list[str], turns: int) -> list[str]:
    """One table: every sorter on the recordings, after a run that is not counted, in turns."""
    data = os.environ.get("SPIKECRSAE_DATA")
    if not data:
        return ["SPIKECRSAE_DATA is not set: no development recording to sort."]
    lines = [
        "| recording | sorter | s, whole process | s, run_sorter | times ours, in the same turn |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in names:
        case = Case(name, Path(data) / TETRODES[name], (), True)
        ours, others = [], {sorter: [] for sorter in sorters if python}
        for _ in range(1 + turns):
            ours.append(sort(case.path, folder))
            for sorter, runs in others.items():
                runs.append(other(sorter, case, python, folder))
        whole = np.array([run[0] for run in ours[1:]])
        stages = ", ".join(f"{stage} {np.median([run[2][stage] for run in ours[1:]]):.1f}" for stage in ours[-1][2])
        lines.append(f"| {name} | spikecrsae | {middle(whole)} | - | 1 ({stages}) |")
        for sorter, runs in others.items():
            seconds, alone = np.array(runs[1:]).T
            lines.append(f"| {name} | {SORTERS[sorter]} | {middle(seconds)} | {middle(alone)} | {middle(seconds / whole)} |")
    return lines


def middle(values: np.ndarray) -> str:
    """Median and range."""
    return f"{np.median(values):.3g} ({values.min():.3g} to {values.max():.3g})"


def write_long(paths: dict[int, Path]) -> None:
    """Recordings of so many minutes, tens of them."""
    with contextlib.ExitStack() as stack:
        files = {minutes: stack.enter_context(h5py.File(path, "w")) for minutes, path in paths.items()}
        for k in range(max(paths) // 10):
            simulation = ten_minutes(k)
            n, width = simulation.traces.shape
            for minutes, file in files.items():
                if k == 0:
                    traces = file.create_dataset("traces", (minutes // 10 * n, width), np.int16, chunks=(30000, width))
                    traces.attrs.update({"sampling_frequency": 30000.0, "units": "uV", "gain": simulation.gain})
                if k < minutes // 10:
                    file["traces"][k * n : (k + 1) * n] = simulation.traces


def ten_minutes(part: int) -> Simulation:
    """Six neurons, the same in every part."""
    config = preset_config("tetrode", n_units=6, rates_hz=(15.0,) * 6, sampling_frequency=30000.0, duration_s=600.0, seed=7)
    cells = generate._cells
    same = np.random.default_rng(config.seed).spawn(1)[0]
    generate._cells = lambda config, positions, rng: cells(config, positions, same)
    try:
        return simulate(replace(config, seed=config.seed + part))
    finally:
        generate._cells = cells


def long(folder: Path) -> list[str]:
    """One table: ten minutes and an hour."""
    paths = {minutes: folder / f"tetrode_{minutes}_minutes_of_60.h5" for minutes in (10, 60)}
    if not all(path.exists() for path in paths.values()):
        write_long(paths)
    lines = ["| minutes | s | peak memory MB | stages, s |", "| --- | --- | --- | --- |"]
    results = {}
    for minutes, path in paths.items():
        results[minutes] = sort(path, folder)
        seconds, memory, stages = results[minutes]
        words = ", ".join(f"{stage} {value:.1f}" for stage, value in stages.items())
        lines.append(f"| {minutes} | {seconds:.1f} | {memory:.0f} | {words} |")
    (short, little, _), (whole, much, _) = results[10], results[60]
    lines += [
        "",
        f"Six times the length takes {whole / short:.1f} times as long, {(whole - short) / 50:.2f} s for each further minute, ",
    ]
    lines[-1] += f"and {100 * (much / little - 1):+.0f} % memory."
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["tetrodes", "long"], help="tetrodes, long; both by default")
    parser.add_argument("--folder", type=Path, required=True, help="recordings and results are kept here")
    parser.add_argument("--others-python", type=Path, help="Python of an environment with the other sorters")
    parser.add_argument("--recordings", type=lambda text: text.split(","), default=list(TETRODES), help="of the tetrodes")
    parser.add_argument("--sorters", type=lambda text: text.split(","), default=list(FASTEST), help="the others")
    parser.add_argument("--turns", type=int, default=3, help="counted runs of every sorter on the tetrodes")
    parser.add_argument("--docs", action="store_true", help="put what is printed into benchmarks/notebook/benchmarks.md")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    text: list[str] = []
    if "tetrodes" in arguments.parts:
        names, sorters, turns = arguments.recordings, arguments.sorters, arguments.turns
        text += [f"**120 s of tetrode**, {turns} turns", ""]
        text += [*tetrodes(arguments.folder, arguments.others_python, names, sorters, turns), ""]
    if "long" in arguments.parts:
        text += ["**An hour**", "", *long(arguments.folder), ""]
    intro = f"On {os.cpu_count()} cores ({platform.machine()}), no GPU."
    publish("sort-speed", "Speed and memory of a whole sort", intro, text, arguments.docs)


if __name__ == "__main__":
    main()
