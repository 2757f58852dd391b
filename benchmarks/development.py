"""Sort the development recordings with no option but -o (and raw files' physical facts), score them, print a table.

    SPIKECRSAE_DATA=<folder of the recordings> python benchmarks/development.py [NAME ...] [--prior laplace] [--keep FOLDER]

Everything goes through the command line, as a user would do it. Seconds are of the whole process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RAW_HC1 = ["--sampling-frequency", "10000", "--n-channels", "4", "--dtype", "uint16"]
RAW_LOCUST = ["--sampling-frequency", "15000", "--n-channels", "4", "--dtype", "int16"]
#: name: (file, options of sort, truth file or None)
RUNS = {
    "hc1_tetrode_dev": ("hc1_tetrode_dev.h5", [], "hc1_tetrode_dev.h5"),
    "hc1_tetrode_dev, channel 0": ("hc1_tetrode_dev.h5", ["--channels", "0"], "hc1_tetrode_dev.h5"),
    "hc1_d533101_5s.h5": ("hc1_d533101_5s.h5", [], "hc1_d533101_5s_truth.csv"),
    "hc1_d533101_5s.dat": ("hc1_d533101_5s.dat", RAW_HC1, "hc1_d533101_5s_truth.csv"),
    "mearec_tetrode6": ("mearec_tetrode6.h5", [], "mearec_tetrode6.h5"),
    "synth_tetrode5": ("synth_tetrode5.nwb", [], "synth_tetrode5.nwb"),
    "locust_trial_01": ("locust_trial_01.raw", RAW_LOCUST, None),
}


def command(*words: str) -> dict:
    done = subprocess.run([sys.executable, "-m", "spikecrsae", *words, "--json"], capture_output=True, text=True)
    if done.returncode not in (0, 5):
        sys.exit(f"{' '.join(words)}: exit {done.returncode}\n{done.stderr}")
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of the recordings' names; all by default")
    parser.add_argument("--prior", choices=("spike-slab", "laplace"), help="prior of inference, the default one otherwise")
    parser.add_argument("--keep", type=Path, help="keep the results in this folder")
    arguments = parser.parse_args()
    if "SPIKECRSAE_DATA" not in os.environ:
        sys.exit("set SPIKECRSAE_DATA to the folder of the development recordings")
    data = Path(os.environ["SPIKECRSAE_DATA"])
    print("| recording | units | spikes | s | accuracy, one to one (mean) | matched unit: found / missed / false |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, (file, options, truth) in RUNS.items():
            if arguments.names and not any(part in name for part in arguments.names):
                continue
            out = (arguments.keep or Path(folder)) / name.replace(", ", "_").replace(" ", "_")
            out.parent.mkdir(parents=True, exist_ok=True)
            prior = ["--prior", arguments.prior] if arguments.prior else []
            began = time.perf_counter()
            result = command("sort", str(data / file), "-o", str(out), "--overwrite", *options, *prior)
            seconds = time.perf_counter() - began
            spikes = sum(unit["n_spikes"] for unit in result["units"])
            print(
                f"| {name} | {result['n_units']} | {spikes} | {seconds:.1f} | {scores(out, data / truth if truth else None)} |",
                flush=True,
            )


def scores(result: Path, truth: Path | None) -> str:
    if truth is None:
        return "no truth | -"
    rows = command("score", str(result), "--truth", str(truth))["one_to_one"]
    mean = sum(row["accuracy"] for row in rows) / len(rows)
    each = ", ".join(f"{row['accuracy']:.3f}" for row in rows)
    counts = f"{rows[0]['tp']} / {rows[0]['fn']} / {rows[0]['fp']}" if len(rows) == 1 else "-"
    return f"{mean:.3f}" + (f" ({each})" if len(rows) > 1 else "") + f" | {counts}"


if __name__ == "__main__":
    main()
