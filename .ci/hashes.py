"""Write requirements-hashed.txt: the pins of constraints.txt with the SHA-256 of what pip would take.

    python .ci/hashes.py

asks the package index that pip is set up with, for CPython 3.11 to 3.13 on x86_64 Linux; nothing is installed. torch is left
out: its builds for CPU and CUDA have the same version and different hashes, and stand on indexes of their own.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Full versions: some wheels refuse the first ones of a series.
PYTHONS = ("3.11.9", "3.12.9", "3.13.3")
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in (34, 31, 28, 27, 26, 24, 17, 12, 5)]
PLATFORMS += ["manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"]
WITHOUT_HASH = ("torch",)
HEADER = """\
# The pins of constraints.txt with hashes, for CPython 3.11 to 3.13 on x86_64 Linux (glibc 2.28 or later). Made by
# `make hashes`; tests/test_supply.py compares it with constraints.txt. torch has no hash here, see docs/install.md.
"""


def pins() -> list[str]:
    """The lines of constraints.txt that name a version."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [line for line in lines if "==" in line and not line.startswith("#")]


def hashes(wanted: list[str], python: str) -> dict[str, str]:
    """Pin -> SHA-256 of the wheel that pip takes for that Python, or of the source where it has none."""
    wheels, sources = list(wanted), []
    where = ["--python-version", python, "--only-binary", ":all:"]
    for platform in PLATFORMS:
        where += ["--platform", platform]
    while True:
        try:
            found = _asked(wheels, where)
            break
        except subprocess.CalledProcessError as error:
            missing = re.findall(r"No matching distribution found for (\S+)", error.stderr)
            if not missing:
                raise RuntimeError(error.stderr) from error
            wheels, sources = [pin for pin in wheels if pin not in missing], sources + missing
    if sources:
        found |= _asked(sources, ["--no-binary", ":all:"])
    return found


def _asked(wanted: list[str], where: list[str]) -> dict[str, str]:
    """Pin -> SHA-256 of what pip would install."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        words = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps"]
        words += ["--target", folder, "--report", str(report), *where, *wanted]
        subprocess.run(words, check=True, capture_output=True, text=True)
        items = json.loads(report.read_text())["install"]
    pin_of = {pin.split("==")[0]: pin for pin in wanted}
    return {
        pin_of[re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()]: item["download_info"]["archive_info"]["hashes"][
            "sha256"
        ]
        for item in items
    }


def main() -> None:
    wanted = [pin for pin in pins() if pin.split("==")[0] not in WITHOUT_HASH]
    table: dict[str, set[str]] = {pin: set() for pin in wanted}
    for python in PYTHONS:
        for pin, digest in hashes(wanted, python).items():
            table[pin].add(digest)
    lines = [" \\\n    ".join([pin, *(f"--hash=sha256:{digest}" for digest in sorted(table[pin]))]) for pin in wanted]
    (ROOT / "requirements-hashed.txt").write_text(HEADER + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
