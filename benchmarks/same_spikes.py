"""Compare the spikes of two versions of the program, byte by byte: python benchmarks/same_spikes.py REVISION

Sorts sample_data and the development recordings (SPIKECRSAE_DATA) with the code of a git revision and with the code of the
working tree, each as a process of its own, and compares spikes.csv. Prints one line per recording and "identical" at the end;
exits with 1 where a recording differs.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Development recordings, and what `sort` must be told about those that do not say it themselves.
RECORDINGS = {
    "hc1_d533101_5s.h5": (),
    "hc1_d533101_ch0_paper.h5": (),
    "hc1_tetrode_dev.h5": (),
    "locust_trial_01.raw": ("--sampling-frequency", "15000", "--n-channels", "4", "--dtype", "int16"),
    "mearec_tetrode6.h5": (),
    "synth_tetrode5.nwb": (),
}


def recordings() -> dict[Path, tuple[str, ...]]:
    """Return every recording that is there, with its options."""
    data = os.environ.get("SPIKECRSAE_DATA")
    found = {ROOT / "sample_data" / "tetrode.h5": ()}
    if data:
        found |= {Path(data) / name: options for name, options in RECORDINGS.items()}
    return {path: options for path, options in found.items() if path.exists()}


def spikes(code: Path, recording: Path, options: tuple[str, ...], folder: Path) -> bytes:
    """Sort a recording with the package in the folder `code`; return the bytes of spikes.csv.

    A result that `folder` holds already is taken as it is.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not (folder / "spikes.csv").exists():
        subprocess.run(
            [sys.executable, "-m", "spikecrsae", "sort", str(recording), *options, "-o", str(folder), "--quiet"],
            cwd=code,
            env=os.environ | {"PYTHONPATH": str(code)},
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return (folder / "spikes.csv").read_bytes()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="git revision to compare the working tree with")
    parser.add_argument("--keep", type=Path, help="folder in which the results of the revision stay for the next comparison")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        before = Path(scratch) / "code"
        subprocess.run(
            ["git", "worktree", "add", "--detach", str(before), options.revision], cwd=ROOT, check=True, capture_output=True
        )
        try:
            differing = 0
            for recording, arguments in recordings().items():
                kept = (options.keep or Path(scratch) / "before").absolute() / recording.name
                old = spikes(before, recording, arguments, kept)
                new = spikes(ROOT, recording, arguments, Path(scratch) / "now" / recording.name)
                differing += old != new
                said = "identical" if old == new else "DIFFERENT"
                print(f"{recording.name:28} {said}, {len(new.splitlines()) - 1} spikes", flush=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(before)], cwd=ROOT, check=True)
    print(f"{differing} recordings differ" if differing else "identical")
    return int(differing > 0)


if __name__ == "__main__":
    sys.exit(main())
