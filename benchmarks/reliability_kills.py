"""Kill `sort` by SIGKILL at random moments of every stage, go on with --resume, and compare with an undisturbed run.

    python benchmarks/reliability.py kills [--trials 110] [--stops 32] [--jobs 2] [--seconds 4] [--seed 0]

Every other trial replaces an earlier result (--overwrite) that was made with another seed. A trial kills the run at a moment
drawn within one stage, goes on with --resume, kills that run in every second trial too, at any moment, and then lets it end.
After each kill and at the end it is checked that the recording is untouched, that a result under the final name is whole,
the earlier or the new one, that whole files only bear final names; that the end is the undisturbed result and that nothing
is left over. Then SIGINT and SIGTERM, half of the trials with four groups of channels: how long a run takes to end, and with
what exit code.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np

from spikecrsae.results.folder import ResultFolder

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from helpers.stopped_runs import finished, start

SAMPLE = Path(__file__).parents[1] / "sample_data" / "tetrode.h5"
STAGES = ("start", "check", "artefacts", "noise", "initialise", "curate", "train", "infer", "write", "place")
#: What of run.json differs between two runs that give the same.
TIMES = {"began", "seconds", "stage_seconds", "command"}
OLD = ["--seed", "5", "--detection-threshold", "5"]


def cut(target: Path, seconds: float) -> Path:
    """The first seconds of the sample recording as a recording of its own."""
    with h5py.File(SAMPLE) as source, h5py.File(target, "w") as file:
        stored = source["traces"]
        file["traces"] = stored[: int(seconds * stored.attrs["sampling_frequency"])]
        file["traces"].attrs.update(dict(stored.attrs))
    return target


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def content(folder: Path) -> dict[str, object]:
    """All of a result that a second run must give again."""
    facts = {name: digest(folder / name) for name in ("spikes.csv", "units.csv", "model.safetensors")}
    with h5py.File(folder / "sorting.h5") as file:
        file.visititems(lambda name, item: facts.update({name: _bytes(item)}) if isinstance(item, h5py.Dataset) else None)
    run = json.loads((folder / "run.json").read_text())
    return facts | {f"run.json {name}": value for name, value in run.items() if name not in TIMES}


def _bytes(data: h5py.Dataset) -> bytes:
    values = np.asarray(data[()])
    if data.name == "/provenance":
        return b""
    return repr(values.tolist()).encode() if values.dtype.hasobject else values.tobytes()


@dataclass
class Tally:
    """What the trials have shown: kills and what became of them by stage, and failures in words."""

    kills: Counter = field(default_factory=Counter)
    resumed: Counter = field(default_factory=Counter)
    between: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Lab:
    """The recording, and what sorting it gives: undisturbed, with other settings (the earlier result), and how long stages
    take."""

    root: Path
    recording: Path
    checksum: str
    new: dict
    old: dict
    lengths: dict[str, float]

    @classmethod
    def build(cls, root: Path, seconds: float) -> Lab:
        recording = cut(root / "recording.h5", seconds)
        for name, words in (("warm", []), ("new", []), ("old", OLD)):
            if code := finished("sort", recording, "-o", root / name, *words, errors=root / "errors"):
                sys.exit(f"the undisturbed run ended with {code}: {(root / 'errors').read_text()}")
        run = json.loads((root / "new" / "run.json").read_text())
        lengths = {"start": 0.3, "write": 2.0, "place": 0.02} | run["stage_seconds"]
        return cls(root, recording, digest(recording), content(root / "new"), content(root / "old"), lengths)


def stage_of(out: Path) -> str:
    """The stage that the run into `out` has come to."""
    try:
        log = (ResultFolder(out).unfinished / "run.log").read_text(errors="replace")
    except OSError:
        return "start"
    begun = [line.split()[-2] for line in log.splitlines() if line.endswith(" starts")]
    ended = any("stages: write ended" in line for line in log.splitlines()[-3:])
    return "place" if ended else begun[-1] if begun else "start"


def wait_for(process, out: Path, stage: str, delay: float) -> None:
    """Until `delay` seconds after a run has come to a stage, or has ended."""
    while process.is_alive() and STAGES.index(stage_of(out)) < STAGES.index(stage):
        time.sleep(0.001)
    time.sleep(delay)


def is_whole(folder: Path) -> bool:
    return ResultFolder(folder).is_finished() and not ResultFolder(folder).changed_files()


def check(lab: Lab, out: Path, has_old: bool, tally: Tally, where: str) -> None:
    """What must hold after a kill."""

    def failed(what: str) -> None:
        tally.failures.append(f"{where}: {what}")

    if digest(lab.recording) != lab.checksum:
        failed("the recording has changed")
    places = [out, out.with_name(f".{out.name}.replaced"), ResultFolder(out).unfinished]
    if out.exists():
        if not is_whole(out):
            failed("a result under the final name is not whole")
        elif content(out) not in (lab.new, lab.old):
            failed("a result is neither the earlier nor the new one")
        if has_old and not any((place / "notes.txt").exists() for place in places[:2]):
            failed("a file of other origin is lost")
    elif has_old:
        tally.between += 1
        if not all(map(is_whole, places[1:])):
            failed("neither the earlier nor the new result is whole")
    for name in ("spikes.csv", "units.csv", "model.safetensors"):
        file = places[2] / name
        if file.exists() and digest(file) != lab.new[name]:
            failed(f"{file.name} of the unfinished run is not whole")


def trial(lab: Lab, number: int, seed: int, tally: Tally) -> None:
    rng = np.random.default_rng([seed, number])
    stage, has_old = STAGES[number % len(STAGES)], number // len(STAGES) % 2 == 1
    place = lab.root / f"trial{number}"
    place.mkdir()
    out = place / "out"
    words = ["sort", lab.recording, "-o", out, "--quiet"]
    if has_old:
        shutil.copytree(lab.root / "old", out)
        (out / "notes.txt").write_text("of other origin")
        words.append("--overwrite")
    where = f"trial {number}, {stage}"
    delays = [(stage, rng.uniform(0, lab.lengths.get(stage, 0.3)))]
    if number % 2:
        delays.append((str(rng.choice(STAGES)), rng.uniform(0, 1)))
    for attempt, (wanted, delay) in enumerate(delays):
        process = start(*words, *["--resume"] * bool(attempt))
        wait_for(process, out, wanted, delay)
        process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            tally.kills[stage_of(out) if ResultFolder(out).unfinished.exists() else wanted] += 1
            check(lab, out, has_old, tally, where)
    had = any(ResultFolder(out).unfinished.glob("resume/*.safetensors"))
    errors = lab.root / f"errors{number}"
    if code := finished(*words, "--resume", errors=errors):
        tally.failures.append(f"{where}: --resume ended with {code}: {errors.read_text()}")
    elif different := sorted(name for name, value in content(out).items() if lab.new.get(name) != value):
        tally.failures.append(f"{where}: the end differs from the undisturbed result in {', '.join(different)}")
    elif not is_whole(out):
        tally.failures.append(f"{where}: the end is not whole")
    if left := {path.name for path in place.iterdir()} - {"out"}:
        tally.failures.append(f"{where}: left over: {left}")
    if has_old and not (out / "notes.txt").exists():
        tally.failures.append(f"{where}: a file of other origin is lost")
    tally.resumed["from what was learned" if had else "from the beginning, or finished"] += 1
    shutil.rmtree(place)


def stop(lab: Lab, number: int, seed: int, seconds: dict, failures: list[str]) -> None:
    """A run that is asked to end, by SIGINT or SIGTERM, at a moment of one stage."""
    rng = np.random.default_rng([seed, 1000 + number])
    sent, grouped = (signal.SIGINT, signal.SIGTERM)[number % 2], number % 4 > 1
    stage = "check" if grouped else STAGES[1 + number // 4 * 2 % 8 + number % 2]
    place = lab.root / f"stop{number}"
    place.mkdir()
    out = place / "out"
    errors = lab.root / f"stop{number}.txt"
    process = start("sort", lab.recording, "-o", out, *(["--groups", "0,1,2,3"] if grouped else []), errors=errors)
    wait_for(process, out, "check" if not grouped else "start", 0)
    while grouped and process.is_alive() and not ResultFolder(out).unfinished.exists():
        time.sleep(0.002)
    wait_for(process, out, "start" if grouped else stage, rng.uniform(0, 4 if grouped else lab.lengths.get(stage, 0.3)))
    if not process.is_alive():
        return
    began = time.monotonic()
    os.kill(process.pid, sent)
    process.join()
    took = time.monotonic() - began
    if process.exitcode == 0:
        return
    seconds["groups" if grouped else stage].append(took)
    learned, said = any(ResultFolder(out).unfinished.glob("resume/*.safetensors")), errors.read_text()
    hard = "is taken back by the next run" in said
    if process.exitcode != 128 + sent or (not hard and ("To go on" in said) != learned) or "Traceback" in said:
        failures.append(f"stop {number}, {stage}: exit {process.exitcode}, learned {learned}: {said}")
    if not learned and not hard and list(place.iterdir()):
        failures.append(f"stop {number}, {stage}: left over: {[path.name for path in place.iterdir()]}")
    shutil.rmtree(place)


def run(words: list[str]) -> int:
    parser = argparse.ArgumentParser("reliability.py kills", description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=110)
    parser.add_argument("--stops", type=int, default=32)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(words)
    tally, seconds = Tally(), defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab.build(Path(folder), given.seconds)
        with ThreadPoolExecutor(given.jobs) as pool:
            list(pool.map(lambda number: trial(lab, number, given.seed, tally), range(given.trials)))
            list(pool.map(lambda number: stop(lab, number, given.seed, seconds, tally.failures), range(given.stops)))
    print(f"{given.trials} trials on {given.seconds:g} s of the sample recording, seed {given.seed}.\n")
    if given.trials:
        print("| stage | SIGKILLs |\n|---|---|")
        for stage in STAGES:
            print(f"| {stage} | {tally.kills[stage]} |")
        print(f"| all | {tally.kills.total()} |\n")
        ways = "; ".join(f"{n} ended {how}" for how, n in tally.resumed.items())
        print(f"{ways}; {tally.between} kills between the two renames.\n")
    print("| asked to end in | runs | slowest, s |\n|---|---|---|")
    for stage, took in seconds.items():
        print(f"| {stage} | {len(took)} | {max(took):.2f} |")
    print(f"\n{len(tally.failures)} failures.")
    for failure in tally.failures:
        print(f"- {failure}")
    return bool(tally.failures)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
