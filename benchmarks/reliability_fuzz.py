"""Coverage-guided fuzzing of all that the program reads: executions and findings by target.

    python benchmarks/reliability_fuzz.py --seconds 30

Needs atheris (pip install atheris; Linux), which is not among the project's own dependencies. A finding is an exception that
is no SpikeCRsAEError, a read of more than --slow-s seconds, more than --memory-mb of memory, or the end of the process. One
input of each is written into the folder --findings; those worth keeping go into tests/fuzz_corpus/<target>/, which the tests
replay. Exit code 0 without a finding, 1 with one, 2 where atheris is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import inspect
import json
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS))
#: What of the program a fuzzer sees into; of neo, where it reads.
OURS = [
    "spikecrsae.readers",
    "spikecrsae.config",
    "spikecrsae.data.intervals",
    "spikecrsae.results.sorting_h5",
    "spikecrsae.results.folder",
]


def run(argv: Sequence[str] | None = None) -> int:
    """Fuzz each target for a while, print the figures; 0 without a finding, 1 with one, 2 without atheris."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0, help="for each target")
    parser.add_argument("--only", nargs="*", default=[], metavar="TARGET", help="these targets, all unless given")
    parser.add_argument("--slow-s", type=float, default=5.0, help="a read that takes longer is a finding")
    parser.add_argument("--memory-mb", type=float, default=2000.0, help="more memory than this is a finding")
    parser.add_argument("--findings", type=Path, default=Path("fuzz_findings"), metavar="FOLDER", help="where they go")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if importlib.util.find_spec("atheris") is None:
        print("atheris is missing: pip install atheris (Linux, Python 3.11 to 3.13). Nothing was fuzzed.", file=sys.stderr)
        return 2
    if options.child:
        return _fuzz(options.child, options)
    from helpers.fuzz_targets import targets

    wanted = options.only or list(targets())
    print(f"{'target':<14} {'executions':>10} {'per s':>7} {'findings':>8}")
    total, n_findings = 0, 0
    for name in wanted:
        executions, seconds, found = _in_child(name, options)
        total, n_findings = total + executions, n_findings + len(found)
        print(f"{name:<14} {executions:>10} {executions / max(seconds, 1e-9):>7.0f} {len(found):>8}", flush=True)
        for line in found:
            print(f"    {line}", flush=True)
    print(f"{'all':<14} {total:>10} {'':>7} {n_findings:>8}")
    return int(n_findings > 0)


def _in_child(name: str, options: argparse.Namespace) -> tuple[int, float, list[str]]:
    """(executions, seconds of fuzzing, findings) of one target, in a process of its own, begun anew where it dies."""
    executions, spent, found = 0, 0.0, []
    while spent < options.seconds:
        with tempfile.TemporaryDirectory() as folder:
            words = [
                sys.executable,
                __file__,
                "--child",
                name,
                "--seconds",
                str(options.seconds - spent),
                "--findings",
                folder,
            ]
            words += ["--slow-s", str(options.slow_s), "--memory-mb", str(options.memory_mb)]
            ended = subprocess.run(words, capture_output=True, text=True, errors="replace")
            told = Path(folder) / "course.json"
            course = (
                json.loads(told.read_text())
                if told.is_file()
                else {"executions": 0, "seconds": options.seconds, "found": {}}
            )
            executions, spent = executions + course["executions"], spent + max(course["seconds"], 1.0)
            found += [line for line in course["found"].values() if line not in found]
            dead = ended.returncode != 0
            if dead:
                reason = next(
                    (line for line in ended.stderr.splitlines() if "ERROR" in line or "Error" in line), "no reason given"
                )
                found.append(f"the process ended with {ended.returncode}: {reason.strip()[:200]}")
            kept = options.findings / name
            for path in Path(folder).iterdir():
                if path.suffix == ".input" or (dead and path.name in ("last", *course["found"])):
                    kept.mkdir(parents=True, exist_ok=True)
                    data = path.read_bytes()
                    (kept / hashlib.sha256(data).hexdigest()[:12]).write_bytes(data)
    return executions, spent, found


class _Course:
    """Executions, seconds and findings of this process, in a file that outlives it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.began = folder, time.monotonic()
        self.executions, self.found, self._told = 0, {}, 0.0

    def find(self, key: str, line: str, data: bytes) -> None:
        if key not in self.found:
            self.found[key] = line
            (self.folder / f"{hashlib.sha256(key.encode()).hexdigest()[:12]}.input").write_bytes(data)
            self.tell()

    def tell(self) -> None:
        self._told = time.monotonic()
        seconds = self._told - self.began
        document = {"executions": self.executions, "seconds": seconds, "found": self.found}
        (self.folder / "course.json").write_text(json.dumps(document))

    def step(self) -> None:
        self.executions += 1
        if time.monotonic() - self._told > 0.5:
            self.tell()


def _see_into(module) -> None:
    """Let atheris see the branches of a module's own functions and methods. To instrument all imports of neo takes minutes."""
    import atheris

    for holder in (
        module,
        *(kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__),
    ):
        for name, function in list(vars(holder).items()):
            if inspect.isfunction(function) and function.__module__ == module.__name__:
                setattr(holder, name, atheris.instrument_func(function))


def _fuzz(name: str, options: argparse.Namespace) -> int:
    """Fuzz one target in this process until its time is over."""
    import atheris

    with atheris.instrument_imports(include=OURS):
        from helpers import fuzz_targets
    from spikecrsae.system import safe_hdf5

    safe_hdf5.MOST_CPU_S = 1  # a file over which it ends is refused, as it should be
    target = fuzz_targets.targets()[name]
    if target.neo:
        _see_into(importlib.import_module(f"neo.rawio.{target.neo}"))
    work = fuzz_targets.clean(options.findings / "work")
    seeds = options.findings / "seeds"
    seeds.mkdir()
    for number, seed in enumerate(target.seeds):
        (seeds / str(number)).write_bytes(seed)
    kept = TESTS / "fuzz_corpus" / name
    for path in kept.glob("*") if kept.is_dir() else ():
        (seeds / path.name).write_bytes(path.read_bytes())
    target.prepare(work)
    course, last = _Course(options.findings), options.findings / "last"

    def once(data: bytes) -> None:
        last.write_bytes(data)
        began = time.monotonic()
        try:
            target.run(data, work)
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            course.find(f"{type(error).__name__} {place}", f"{type(error).__name__} in {place}: {str(error)[:150]}", data)
        seconds = time.monotonic() - began
        if seconds > options.slow_s:
            course.find("slow", f"a read takes {seconds:.1f} s", data)
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if used > options.memory_mb:
            course.find("memory", f"a read takes the process to {used:.0f} MB", data)
        course.step()

    words = ["fuzz", str(seeds), f"-max_total_time={max(1, round(options.seconds))}", "-timeout=60", "-rss_limit_mb=0"]
    words += ["-max_len=65536", "-print_final_stats=0", f"-artifact_prefix={options.findings}/"]
    atheris.Setup(words, once)
    course.began = time.monotonic()
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(run())
