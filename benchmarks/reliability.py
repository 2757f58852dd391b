"""The promises about reliability, tried in large numbers: python benchmarks/reliability.py PART [OPTIONS].

A part is a module reliability_<part>.py beside this one with a function run(words), which prints its figures and returns an
exit code; whatever stands there can be called. Without a part, all run one after the other with their defaults.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

PARTS = sorted(path.stem.removeprefix("reliability_") for path in Path(__file__).parent.glob("reliability_*.py"))


def run(part: str, words: list[str]) -> int:
    print(f"\n## {part}\n", flush=True)
    return importlib.import_module(f"reliability_{part}").run(words)


def main() -> int:
    part, *words = sys.argv[1:] or ["all"]
    if part in ("-h", "--help") or part not in (*PARTS, "all"):
        print(f"{__doc__}\nParts: {', '.join(PARTS)}")
        return 0 if part in ("-h", "--help") else 2
    return max(run(name, words) for name in (PARTS if part == "all" else [part]))


if __name__ == "__main__":
    sys.exit(main())
