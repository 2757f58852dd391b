"""Whether the self-test is right: hybrid recall and precision beside the true ones, on recordings whose spikes are known.

    SPIKECRSAE_DATA=<folder of the recordings> python benchmarks/self_test.py [--folder DIR] [NAME ...]

sorts sample_data/tetrode.h5, the development recordings and, with --folder, every .h5 file in DIR (made by recordings.py)
with default settings and the self-test. A unit is compared with the neuron that `spikecrsae score` matches it with, one to
one; units without a neuron have no true figures and are counted. Prints one row per unit, then the mean absolute differences
over all units, over those with a true error of more than 5 %, the rank correlations, and how often an estimate says less
error than there is. Recordings that name only some neurons (hc1, hybrid_locust) have true figures for these.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from spikecrsae.config import Config
from spikecrsae.pipeline import self_test
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.readers import open_recording, read_truth
from spikecrsae.score import compare

DEVELOPMENT = ("mearec_tetrode6.h5", "synth_tetrode5.nwb", "hc1_tetrode_dev.h5")
ERROR = 0.05


def paths(folder: Path | None, names: list[str]) -> list[Path]:
    if "SPIKECRSAE_DATA" not in os.environ:
        sys.exit("set SPIKECRSAE_DATA to the folder of the development recordings")
    found = [Path(__file__).parents[1] / "sample_data" / "tetrode.h5"]
    found += [Path(os.environ["SPIKECRSAE_DATA"]) / name for name in DEVELOPMENT]
    found += sorted(folder.glob("*.h5")) if folder else []
    return [path for path in found if not names or any(name in path.name for name in names)]


def rows(path: Path) -> tuple[list[tuple], int]:
    """(unit, spikes, SNR, true recall, hybrid recall, true precision, hybrid precision) of the units that are a neuron, and
    the number of the others."""
    recording = open_recording(path)
    try:
        sorting = self_test.self_test(recording, sort_group(recording, Config())).sorting
    finally:
        recording.close()
    truth = dict(read_truth(path, recording.sampling_frequency))
    found = []
    for row in compare(truth, sorting.trains(), recording.sampling_frequency).rows:
        if row.test is not None:
            unit = {name: sorting.units[name][int(row.test)] for name in ("n_spikes", "snr", *hybrid_columns())}
            recall, precision = (unit[name] for name in hybrid_columns())
            found.append((int(row.test), unit["n_spikes"], unit["snr"], row.recall, recall, row.precision, precision))
    return sorted(found), sorting.n_units - len(found)


def hybrid_columns() -> tuple[str, str]:
    return "hybrid_recall", "hybrid_precision"


def summary(name: str, true: np.ndarray, estimated: np.ndarray) -> str:
    known = np.isfinite(estimated)
    true, estimated = true[known], estimated[known]
    off, bad = np.abs(estimated - true), true < 1 - ERROR
    worse = (
        f"{off[bad].mean():.3f} over the {bad.sum()} below {1 - ERROR:.2f}" if bad.any() else f"none below {1 - ERROR:.2f}"
    )
    rank = spearmanr(true, estimated).statistic if len(true) > 2 else np.nan
    return (
        f"{name}: mean absolute difference {off.mean():.3f} over {len(off)} units, {worse}; rank correlation {rank:.2f}; "
        f"estimated more than {ERROR:.2f} too high: {np.sum(estimated - true > ERROR)}, too low: {np.sum(true - estimated > ERROR)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of the recordings' names; all by default")
    parser.add_argument("--folder", type=Path, help="recordings of recordings.py, such as DIR/first")
    arguments = parser.parse_args()
    print("| recording | unit | spikes | SNR | recall: true | hybrid | precision: true | hybrid |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    every, n_others = [], 0
    for path in paths(arguments.folder, arguments.names):
        found, others = rows(path)
        every, n_others = every + found, n_others + others
        for unit, n_spikes, snr, *figures in found:
            text = " | ".join(f"{figure:.3f}" for figure in figures)
            print(f"| {path.stem} | {unit} | {n_spikes} | {snr:.1f} | {text} |", flush=True)
    if not every:
        sys.exit("no unit was matched with a neuron")
    table = np.array(every, float)
    print(f"\n{len(every)} units that are a neuron, {n_others} others")
    print(summary("recall", table[:, 3], table[:, 4]))
    print(summary("precision", table[:, 5], table[:, 6]), flush=True)


if __name__ == "__main__":
    main()
