"""How long a command takes before it does anything: `--help`, `--version` and `info`, and what is imported for it.

    python benchmarks/startup.py [--docs]

Seconds of the process from its start to its end, smallest and median of eleven runs after one that fills the caches; in a quiet
process the rest is the machine's. The heaviest imports are those of `python -X importtime`, with everything that they import
in turn.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from trials import publish

SAMPLE = Path(__file__).parents[1] / "sample_data"
RUNS, HEAVIEST = 11, 6
#: What each command is to take at most, seconds.
WANTED = {"--help": 0.3, "--version": 0.3, "info": 1.0}


def words(command: str) -> list[str]:
    return [command, str(next(SAMPLE.glob("*.h5")))] if command == "info" else [command]


def seconds(command: str) -> list[float]:
    """Of RUNS processes, after one that is not counted."""
    taken = []
    for _ in range(RUNS + 1):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "spikecrsae", *words(command)], check=True, stdout=subprocess.DEVNULL)
        taken.append(time.perf_counter() - began)
    return sorted(taken[1:])


def imports(command: str) -> list[tuple[float, str]]:
    """(milliseconds with what it imports in turn, module) of the heaviest packages, each with its outermost module only."""
    line = [sys.executable, "-X", "importtime", "-m", "spikecrsae", *words(command)]
    told = subprocess.run(line, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True).stderr
    heaviest: dict[str, float] = {}
    for row in told.splitlines():
        _, whole, module = row.removeprefix("import time:").split("|")
        if whole.strip().isdigit():
            package = module.strip().split(".")[0]
            heaviest[package] = max(heaviest.get(package, 0.0), int(whole) / 1000)
    return sorted(((spent, package) for package, spent in heaviest.items()), reverse=True)[:HEAVIEST]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--docs", action="store_true", help="put what is printed into benchmarks/notebook/benchmarks.md")
    arguments = parser.parse_args()
    lines = ["| command | s, smallest | s, median | at most | heaviest imports, ms |", "| --- | --- | --- | --- | --- |"]
    for command, wanted in WANTED.items():
        taken = seconds(command)
        named = ", ".join(f"{package} {spent:.0f}" for spent, package in imports(command))
        lines.append(f"| {command} | {taken[0]:.2f} | {statistics.median(taken):.2f} | {wanted:g} | {named} |")
    intro = f"On {os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}."
    publish("startup", "Start of the program", intro, lines, arguments.docs)


if __name__ == "__main__":
    main()
