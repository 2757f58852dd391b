"""Peak resident memory of `spikecrsae sort` under memory limits.

    python benchmarks/memory.py --limits 600,800,1200 FILE [FILE ...]

prints one row per recording and limit: what `memory.within_limit` leaves to learn from, and the peak of the process.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path

from sort_speed import sort

from spikecrsae.config import Config
from spikecrsae.errors import UsageError
from spikecrsae.pipeline.memory import within_limit
from spikecrsae.readers import open_recording


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--limits", default="600,800,1200", help="in MB, with commas")
    arguments = parser.parse_args()
    print("| recording | channels | limit MB | learns from s | chunk s | peak MB |\n| --- | --- | --- | --- | --- | --- |")
    for path in arguments.files:
        with contextlib.closing(open_recording(path)) as recording:
            n_channels, fs = recording.n_channels, recording.sampling_frequency
        for limit in arguments.limits.split(","):
            row = f"| {path.stem} | {n_channels} | {limit} |"
            try:
                config = within_limit(Config().with_values({"runtime": {"memory_limit": float(limit)}}), n_channels, fs)
            except UsageError:
                print(row, "too small | - | - |")
                continue
            with tempfile.TemporaryDirectory() as folder:
                peak = sort(path, Path(folder), "--memory-limit", limit)[1]
            print(row, f"{config.initialise.max_signal_s:.0f} | {config.infer.chunk_s:.1f} | {peak:.0f} |", flush=True)


if __name__ == "__main__":
    main()
