"""Disks and files that fail: runs tests/results/test_faults.py and prints how many faults each of its tests has tried.

python benchmarks/reliability.py faults
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).parents[1]


def run(words: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "tests/results/test_faults.py",
            "-o",
            "junit_family=xunit1",
            f"--junitxml={report}",
            *words,
        ]
        code = subprocess.run(command, cwd=ROOT, stdout=sys.stderr).returncode
        cases = list(ElementTree.parse(report).iter("testcase"))
    print("| test | faults tried | outcome |\n|---|---|---|")
    total = 0
    for case in cases:
        properties = {found.get("name"): found.get("value") for found in case.iter("property")}
        faults = int(properties.get("faults", 1))
        outcome = next((kind for kind in ("failure", "error", "skipped") if case.find(kind) is not None), "passed")
        total += faults * (outcome != "skipped")
        print(f"| {case.get('name').removeprefix('test_').replace('_', ' ')} | {faults} | {outcome} |")
    print(f"| all | {total} | |")
    return code
