"""Long and many: memory and speed over a stream of hours, and what a batch of recordings leaves behind.

    python benchmarks/reliability_load.py stream [--hours 12]
    python benchmarks/reliability_load.py batch [--recordings 200] [--early 20] [--jobs 1]

stream sorts a tetrode at 30 kHz that is made up while it is read (no file), prints seconds of computing per recorded minute in
the first and in the last hour, and the peak of resident memory. batch sorts many small recordings and prints what the processes
hold after the early ones and after the last: open files, memory, children, temporary files and shared memory. Each ends with
exit code 1 where its bound is broken. Linux only: the numbers are read from /proc.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np

from spikecrsae.config import Config
from spikecrsae.data.recording import Recording
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.progress import Observer
from spikecrsae.run.batch import run_jobs
from spikecrsae.run.job import Job
from spikecrsae.simulate import preset_config, simulate, write_simulation
from spikecrsae.system.processes import Processes

FS, BLOCK_S = 30_000.0, 60.0
#: What is promised: peak of resident memory of a long sort; how much slower the last hour may be than the first; growth of memory
#: of a process from the early recordings of a batch to the last.
MOST_MB, MOST_SLOWER, MOST_GROWTH_MB = 1500.0, 1.25, 40.0
_GAIN_UV = 0.195
#: One neuron that is as good as silent.
_SILENT = {"noise_uv": 8.66, "n_units": 1, "n_bursting": 0, "snrs": (0.1,), "rates_hz": (0.05,)}
#: Stages that go through the whole recording.
_THROUGH = ("check", "artefacts", "infer")


def peak_mb() -> float:
    """Return the most memory that this program has held.

    Linux counts the memory of the process that started it in ru_maxrss as well, so the kernel's own record is read.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return float(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def stream(hours: float, seed: int = 0) -> Recording:
    """A tetrode of that length: a minute of spikes in a little noise, again and again, and a minute of noise on top. In every
    minute both begin at another place of theirs, so that no stretch of noise comes twice."""
    spikes, noise = _minute(seed, noise_uv=5.0, snr_low=12.0, snr_high=30.0), _minute(seed + 1, **_SILENT)
    length, n = spikes.shape
    n_samples = round(hours * 3600 * FS)
    shifts = np.random.default_rng(seed).integers(0, length, (n_samples // length + 1, 2))
    tiles = [np.concatenate([minute] * 2) for minute in (spikes, noise)]

    def read(start: int, stop: int) -> np.ndarray:
        pieces = [np.zeros((0, n), spikes.dtype)]
        while start < stop:
            number, first = divmod(start, length)
            end = min(length, first + stop - start)
            pieces.append(sum(tile[at + first : at + end] for tile, at in zip(tiles, shifts[number], strict=True)))
            start += end - first
        return np.concatenate(pieces)

    return Recording(
        read_raw=read,
        n_samples=n_samples,
        sampling_frequency=FS,
        channels=tuple(range(n)),
        channel_ids=tuple(map(str, range(n))),
        gain=np.full(n, _GAIN_UV),
        offset=np.zeros(n),
        amplitude_unit="uV",
        source=Path("stream"),
        format="stream",
        dtype=str(spikes.dtype),
    )


def _minute(seed: int, **values) -> np.ndarray:
    """Stored numbers (n_samples, 4) of a simulated minute."""
    config = preset_config("tetrode", sampling_frequency=FS, duration_s=BLOCK_S, gain_uv=_GAIN_UV, seed=seed, **values)
    return simulate(config).traces


class _Pace(Observer):
    """When each stage had come how far, in samples."""

    def __init__(self) -> None:
        self.course: dict[str, list[tuple[int, float]]] = {}

    def start(self, stage: str, total: int | None = None) -> None:
        self._at = self.course[stage] = [(0, time.perf_counter())]

    def advance(self, n: int = 1) -> None:
        self._at.append((self._at[-1][0] + n, time.perf_counter()))

    def seconds(self, first: float, last: float) -> float:
        """Of computing between two samples of the recording, in all stages that go through the whole of it."""
        total = 0.0
        for stage in _THROUGH:
            samples, times = zip(*self.course.get(stage, [(0, 0.0)]), strict=True)
            total += float(np.diff(np.interp([first, last], samples, times))[0])
        return total


def sort_stream(hours: float, edge_hours: float) -> dict[str, float]:
    """Sort a stream; seconds per recorded minute at its two edges, of `edge_hours` each, and the peak in MB of this process."""
    recording, pace = stream(hours), _Pace()
    began = time.perf_counter()
    outcome = sort_group(recording, Config(), pace)
    edge, minutes = edge_hours * 3600 * FS, edge_hours * 60
    return {
        "hours": hours,
        "units": outcome.sorting.n_units,
        "spikes": len(outcome.sorting.spikes),
        "seconds": time.perf_counter() - began,
        "first": pace.seconds(0, edge) / minutes,
        "last": pace.seconds(recording.n_samples - edge, recording.n_samples) / minutes,
        "peak_mb": peak_mb(),
    }


def small_recordings(folder: Path, n: int, duration_s: float = 4.0) -> list[Path]:
    """n recordings of two simulated neurons on one wire; four different ones, under n names."""
    paths = []
    for k in range(n):
        path = folder / f"small{k:03d}.h5"
        if k < 4:
            values = {"n_units": 2, "n_bursting": 0, "n_channels": 1, "duration_s": duration_s, "seed": k, "snr_low": 10.0}
            write_simulation(simulate(preset_config("tetrode", **values)), path)
        else:
            path.write_bytes(paths[k % 4].read_bytes())
        paths.append(path)
    return paths


def _children(pid: int) -> list[int]:
    """Processes that this one has started and that are still there."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


def _held(pid: int) -> dict[str, float]:
    """Open files and resident MB of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return {"files": len(os.listdir(f"/proc/{pid}/fd")), "mb": pages * os.sysconf("SC_PAGE_SIZE") / 2**20}


def _shared(pid: int) -> set[str]:
    """Files of shared memory that a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if "/dev/shm/" in line}


def _state(temporary: Path, shared: set[str]) -> dict:
    """What this process and its children hold just now; adds to `shared` what they have mapped."""
    trackers = {resource_tracker._resource_tracker._pid}
    pids = [pid for pid in _children(os.getpid()) if pid not in trackers]
    shared.update(*map(_shared, (os.getpid(), *pids)))
    workers = [_held(pid) for pid in pids]
    return {
        "own": _held(os.getpid()),
        "workers": len(workers),
        "files": max((worker["files"] for worker in workers), default=0),
        "mb": max((worker["mb"] for worker in workers), default=0.0),
        "temporary": len(list(temporary.rglob("*"))),
        "shared": sum(map(os.path.exists, shared)),
    }


def sort_batch(folder: Path, n: int, early: int, jobs: int) -> dict[str, dict]:
    """Sort n small recordings; what is held after `early` of them, after all, and once the batch is closed."""
    temporary = folder / "tmp"
    temporary.mkdir()
    tempfile.tempdir, before = str(temporary), tempfile.tempdir
    os.environ["TMPDIR"], told = str(temporary), os.environ.get("TMPDIR")
    resource_tracker.ensure_running()
    shared: set[str] = set()
    try:
        todo = [Job((path,), folder / f"{path.stem}.sorted") for path in small_recordings(folder, n)]
        states: dict[str, dict] = {}
        for done, (_, result) in enumerate(run_jobs(todo, Processes(jobs)), start=1):
            if result.state != "sorted":
                raise RuntimeError(f"{result.recording}: {result.error}")
            if done in (early, n):
                states["early" if done == early else "last"] = _state(temporary, shared)
        states["closed"] = _state(temporary, shared)
    finally:
        tempfile.tempdir = before
        os.environ.pop("TMPDIR") if told is None else os.environ.update(TMPDIR=told)
    left = [path.name for path in folder.rglob("*") if path.name.endswith((".partial", ".lock", ".new"))]
    return states | {"left": left}


def leaks(states: dict) -> list[str]:
    """What a batch has left behind, in words; empty where nothing."""
    early, last, closed = states["early"], states["last"], states["closed"]
    checks = {
        f"open files of a worker grew from {early['files']} to {last['files']}": last["files"] > early["files"],
        f"open files here grew from {early['own']['files']} to {last['own']['files']}": last["own"]["files"]
        > early["own"]["files"],
        f"memory of a worker grew from {early['mb']:.0f} to {last['mb']:.0f} MB": last["mb"] > early["mb"] + MOST_GROWTH_MB,
        f"memory here grew from {early['own']['mb']:.0f} to {last['own']['mb']:.0f} MB": last["own"]["mb"]
        > early["own"]["mb"] + MOST_GROWTH_MB,
        f"{closed['workers']} processes are left": closed["workers"] > 0,
        f"{closed['temporary']} temporary files are left": closed["temporary"] > 0,
        f"{closed['shared']} pieces of shared memory are left": closed["shared"] > 0,
        f"half-written files are left: {states['left']}": bool(states["left"]),
    }
    return [said for said, broken in checks.items() if broken]


def _stream_command(arguments: argparse.Namespace) -> int:
    edge = min(1.0, arguments.hours / 4)
    row = sort_stream(arguments.hours, edge)
    print(json.dumps(row, indent=2))
    broken = []
    if row["peak_mb"] > MOST_MB:
        broken.append(f"the peak is {row['peak_mb']:.0f} MB, above {MOST_MB:.0f}")
    if row["last"] > MOST_SLOWER * row["first"]:
        broken.append(f"the end takes {row['last']:.3f} s per minute, the beginning {row['first']:.3f}")
    print("; ".join(broken) or "within its bounds")
    return int(bool(broken))


def _batch_command(arguments: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        states = sort_batch(Path(folder), arguments.recordings, arguments.early, arguments.jobs)
    print(json.dumps(states | {"seconds": time.perf_counter() - began}, indent=2))
    broken = leaks(states)
    print("; ".join(broken) or "nothing is left behind")
    return int(bool(broken))


def run(argv: Sequence[str]) -> int:
    """The command above; returns its exit code."""
    if not argv:
        return max(run(["stream"]), run(["batch"]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(required=True)
    one = parts.add_parser("stream")
    one.add_argument("--hours", type=float, default=12.0)
    one.set_defaults(command=_stream_command)
    many = parts.add_parser("batch")
    many.add_argument("--recordings", type=int, default=200)
    many.add_argument("--early", type=int, default=20)
    many.add_argument("--jobs", type=int, default=1)
    many.set_defaults(command=_batch_command)
    arguments = parser.parse_args(argv)
    return arguments.command(arguments)


if __name__ == "__main__":
    multiprocessing.freeze_support()
    sys.exit(run(sys.argv[1:]))
