"""Running spikecrsae and other sorters on recordings with truth, each with a time limit, and keeping what they found."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy.signal import resample_poly

import spikecrsae
from spikecrsae.readers import ReadOptions, open_recording, read_truth
from spikecrsae.results.folder import read_sorting

OURS = "ours"
LOW_RATE, RESAMPLED = 12e3, 30e3
Trains = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A recording with truth in it. options: of `spikecrsae sort`. exhaustive: the truth names every neuron."""

    name: str
    path: Path
    options: tuple[str, ...]
    exhaustive: bool

    def open(self):
        channels = dict(zip(self.options[::2], self.options[1::2], strict=True)).get("--channels")
        return open_recording(self.path, ReadOptions(channels=channels))

    def truth(self) -> Trains:
        return dict(read_truth(self.path, self.open().sampling_frequency))


@dataclass(frozen=True)
class Run:
    """What became of one sorter on one recording: status "ok", "crash" or "timeout".

    seconds: ours, the whole process; others, run_sorter without the start of Python. valid_for: what the result depends on.
    parameters: what is not default, because the sorter failed (with `error`) where it was. resampled: to 30 kHz.
    """

    status: str
    seconds: float
    valid_for: str
    version: str = ""
    error: str = ""
    resampled: bool = False
    parameters: dict = field(default_factory=dict)


class Runner:
    """Results by sorter and recording: out of the cache in `folder` or, where it may, by running the sorter.

    only: the sorters that may run (all for None). python: of the environment of the others, which do not run without it.
    """

    def __init__(self, folder: Path, only: list[str] | None, python: Path | None, timeout: float) -> None:
        self.folder, self.only, self.python, self.timeout = folder, only, python, timeout
        self.workers: dict[str, Worker] = {}

    def obtain(self, sorter: str, case: Case) -> tuple[Run, Trains] | None:
        """The run and its spike trains (samples of the recording); None where it is neither there nor may run."""
        path = self.folder / sorter / f"{case.name.replace(', ', '_').replace(' ', '_')}.json"
        may_run = (self.only is None or sorter in self.only) and (sorter == OURS or self.python is not None)
        key = valid_for(sorter, case)
        known = cached(path)
        if known is not None and known[0].valid_for == key:
            return known
        if not may_run:
            # an older result of ours on the same recording is better than none, and says that it is old
            same = known is not None and known[0].valid_for.split("-")[0] == key.split("-")[0]
            return (replace(known[0], version=f"{known[0].version} of an older source"), known[1]) if same else None
        path.parent.mkdir(parents=True, exist_ok=True)
        run, trains = run_ours(case, path, self.timeout) if sorter == OURS else self.run_other(sorter, case, path)
        np.savez(path.with_suffix(".npz"), **trains)
        path.write_text(json.dumps(asdict(run), indent=1))
        print(f"{case.name}, {sorter}: {run.status} {run.error} {run.seconds:.1f} s", file=sys.stderr, flush=True)
        return run, trains

    def run_other(self, sorter: str, case: Case, path: Path) -> tuple[Run, Trains]:
        """The sorter on the recording and, where it fails on one of low rate, on a copy resampled to 30 kHz."""
        recording = case.open()
        fs = recording.sampling_frequency
        traces = recording.traces(0, recording.n_samples)
        for rate in (fs, RESAMPLED) if fs < LOW_RATE else (fs,):
            with tempfile.TemporaryDirectory() as name:
                scratch = Path(name)
                hand_over(scratch, traces, fs, rate, recording.channel_positions)
                worker = self.workers.get(sorter)
                if worker is None or not worker.alive:
                    worker = self.workers[sorter] = Worker(self.python, sorter, path.with_suffix(".log"))
                served = worker.serve(scratch, self.timeout)
                facts = {name: value for name, value in served.items() if name not in ("processor_s", "process_s")}
                run = Run(**facts, valid_for=valid_for(sorter, case), resampled=rate != fs)
                if run.status == "ok":
                    with np.load(scratch / "spikes.npz") as spikes:
                        return run, {u: np.round(spikes[u] * (fs / rate)).astype(np.int64) for u in spikes.files}
        return run, {}

    def close(self) -> None:
        for worker in self.workers.values():
            worker.stop()


class Worker:
    """A process of other_sorters.py, which serves recording after recording until it is stopped or dies."""

    def __init__(self, python: Path, sorter: str, log: Path, n_jobs: int = 1, script: str = "other_sorters.py") -> None:
        with log.open("w") as file:
            self.process = subprocess.Popen(
                [str(python), str(Path(__file__).with_name(script)), sorter, str(n_jobs)],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
            )
        self.name, self.log, self.served = f"{sorter} of {python}", log, 0

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def serve(self, folder: Path, timeout: float) -> dict:
        """status, error, seconds and version. A process that ends before its first outcome cannot start: SystemExit."""
        began = time.perf_counter()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(f"{folder}\n")
            self.process.stdin.flush()
        outcome = folder / "outcome.json"
        while self.alive and not outcome.exists() and time.perf_counter() - began < timeout:
            time.sleep(0.05)
        if outcome.exists():
            self.served += 1
            return json.loads(outcome.read_text())
        seconds = time.perf_counter() - began
        if self.alive:
            self.stop()
            return {"status": "timeout", "error": f"stopped after {timeout:g} s", "seconds": seconds}
        if not self.served and not (folder / "sorter").exists():
            sys.exit(f"{self.name} cannot be started: {last_line(self.log)}")
        return {"status": "crash", "error": f"the process ended with {self.process.returncode}", "seconds": seconds}

    def stop(self) -> None:
        if self.alive:
            os.killpg(self.process.pid, signal.SIGKILL)  # its own children end with it
            self.process.wait()


def run_ours(case: Case, path: Path, timeout: float) -> tuple[Run, Trains]:
    """`spikecrsae sort` with no option but the recording's own; exit code 5, no unit found, is a result."""
    out, log, key = path.with_suffix(".sorted"), path.with_suffix(".log"), valid_for(OURS, case)
    words = [sys.executable, "-m", "spikecrsae", "sort", str(case.path), "-o", str(out), "--overwrite", *case.options]
    began = time.perf_counter()
    status, error, trains = "ok", "", {}
    with log.open("w") as file:
        try:
            code = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT, timeout=timeout).returncode
        except subprocess.TimeoutExpired:
            status, error, code = "timeout", f"stopped after {timeout:g} s", None
    seconds = time.perf_counter() - began
    if code in (0, 5):
        trains = dict(read_sorting(out).trains())
    elif code is not None:
        status, error = "crash", last_line(log)
    return Run(status, seconds, key, version("spikecrsae"), error), trains


def hand_over(scratch: Path, traces: np.ndarray, fs: float, rate: float, positions: np.ndarray | None) -> None:
    """What other_sorters.py reads: traces (n_samples, n_channels), resampled from fs to rate where they differ."""
    if rate != fs:
        traces = resample_poly(traces, int(rate), int(fs), axis=0, padtype="median")
    if positions is None:
        contact = np.arange(traces.shape[1])
        positions = 20.0 * np.stack([contact % 2, contact // 2], axis=1)
    traces.astype("<f4").tofile(scratch / "traces.dat")
    about = {"sampling_frequency": rate, "channel_positions": np.asarray(positions, float).tolist()}
    (scratch / "about.json").write_text(json.dumps(about))


def cached(path: Path) -> tuple[Run, Trains] | None:
    """The result in the cache, valid or not."""
    if not path.exists():
        return None
    with np.load(path.with_suffix(".npz")) as file:
        return Run(**json.loads(path.read_text())), {unit: file[unit] for unit in file.files}


def valid_for(sorter: str, case: Case) -> str:
    """What a cached result depends on: the recording's bytes, and for ours the package's source."""
    source = sorted(Path(spikecrsae.__file__).parent.rglob("*.py")) if sorter == OURS else ()
    return checksum(case.path) + ("-" + checksum(*source) if source else "")


@cache
def checksum(*paths: Path) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def last_line(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or ["nothing was said"])[-1]
