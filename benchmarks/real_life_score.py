#!/usr/bin/env python3
"""Score of a sorting of one of these recordings: python real_life_score.py RECORDING.h5 SPIKES.csv   (needs SpikeInterface and h5py).

Prints one JSON line: accuracy of every true neuron (SpikeInterface, 0.4 ms, one to one), the same without the loud stretches and
1 ms before to 8 ms after each pulse (accuracy_quiet), phantom_hz: the rate of spikes in units that match no neuron and are not labelled artefact in the units.csv beside it, artefact_hz: in units
that are, and wrong_artefacts: neurons whose unit is labelled artefact.
"""
import csv
import json
import sys
import warnings
from pathlib import Path

import h5py
import numpy as np

warnings.filterwarnings("ignore")


def performance(truth, found, fs):
    from spikeinterface.comparison import compare_sorter_to_ground_truth
    from spikeinterface.core import NumpySorting

    if not found:
        return {k: 0.0 for k in truth}, set()
    c = compare_sorter_to_ground_truth(NumpySorting.from_unit_dict(truth, fs), NumpySorting.from_unit_dict(found, fs), exhaustive_gt=True, delta_time=.4)
    accuracy = c.get_performance(method="by_unit", output="dataframe").accuracy
    return {k: round(float(accuracy[k]), 3) for k in truth}, {u for u in c.hungarian_match_12 if u != -1 and u != ""}


def score(recording, spikes):
    with h5py.File(recording) as f:
        fs = float(f["traces"].attrs["sampling_frequency"])
        seconds = len(f["traces"]) / fs
        truth = {k: f["truth"][k]["spike_samples"][()] for k in f["truth"]}
        bad = [f["loud"][()]] if "loud" in f else []
        if "pulses" in f:
            bad.append(np.stack([f["pulses"][()] - int(.001 * fs), f["pulses"][()] + int(.008 * fs)], 1))
    found = {}
    with open(spikes) as file:
        for row in csv.DictReader(file):
            found.setdefault(row["unit"], []).append(int(row["sample"]))
    found = {k: np.sort(np.array(v, np.int64)) for k, v in found.items()}

    def quiet(samples):
        keep = np.ones(len(samples), bool)
        for a, b in np.concatenate(bad) if bad else []:
            keep &= (samples < a) | (samples >= b)
        return samples[keep]

    whole, matched = performance(truth, found, fs)
    inside = {k: v for k, v in ((k, quiet(v)) for k, v in found.items()) if len(v)}
    part, _ = performance({k: quiet(v) for k, v in truth.items()}, inside, fs)
    table = Path(spikes).with_name("units.csv")
    with open(table) if table.exists() else open("/dev/null") as file:
        artefacts = {row["unit"] for row in csv.DictReader(file) if row.get("label") == "artefact"}
    rate = lambda units: round(sum(len(found[k]) for k in units) / seconds, 2)  # noqa: E731
    return dict(accuracy=whole, mean=round(float(np.mean(list(whole.values()))), 3), accuracy_quiet=part,
                mean_quiet=round(float(np.mean(list(part.values()))), 3), units=len(found), neurons=len(truth),
                phantom_hz=rate(set(found) - matched - artefacts), artefact_hz=rate((set(found) - matched) & artefacts), wrong_artefacts=len(matched & artefacts))


if __name__ == "__main__":
    print(json.dumps(score(*sys.argv[1:3])))
