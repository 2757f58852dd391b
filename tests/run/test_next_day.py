"""apply on another day: a neuron is gone, one is new, the others have changed."""

from __future__ import annotations

import csv
import json

import h5py
import numpy as np
import pytest
from helpers.command_line import refused, spikecrsae

import spikecrsae as package
from spikecrsae.errors import UsageError

FS, SECONDS = 20_000, 20
#: Size (uV) on four channels, and width, of neurons; `late` fires on the second day only, `gone` on the first only.
NEURONS = {
    "first": ([150, 90, 40, 30], 1.0),
    "second": ([25, 120, 60, 50], 0.8),
    "gone": ([30, 20, 30, 100], 1.5),
    "late": ([70, 60, 115, 55], 1.1),
}
RATES = {"first": 8, "second": 6, "gone": 7, "late": 9}


def waveform(width: float) -> np.ndarray:
    ms = np.arange(-1.5, 3, 1000 / FS)
    return -np.exp(-((ms / (0.13 * width)) ** 2)) + 0.4 * np.exp(-(((ms - 0.45 * width) / (0.28 * width)) ** 2))


def record(path, seed: int, sizes: dict[str, np.ndarray], noise_uv: float = 8.0) -> dict[str, np.ndarray]:
    """Write a recording of these neurons with their sizes (uV) on the channels; returns their spike samples."""
    rng = np.random.default_rng(seed)
    n_channels = len(next(iter(sizes.values())))
    traces = noise_uv * rng.standard_normal((FS * SECONDS, n_channels)).astype(np.float32)
    truth = {}
    for name, uv in sizes.items():
        shape, rate = waveform(NEURONS[name.rstrip("2")][1]), RATES[name.rstrip("2")]
        times = np.cumsum(0.003 + rng.exponential(1 / rate, int(2 * rate * SECONDS)))
        truth[name] = (times[times < SECONDS - 0.01] * FS).astype(np.int64) + 40
        for sample in truth[name]:
            traces[sample - 30 : sample + 60] += np.outer(shape, uv)
    with h5py.File(path, "w") as file:
        file.create_dataset("traces", data=np.round(traces / 0.195).astype(np.int16))
        file["traces"].attrs.update(sampling_frequency=float(FS), units="uV", gain=0.195)
    return truth


def uv(name: str, gain: float = 1.0, changes: tuple[float, ...] = (0, 0, 0, 0)) -> np.ndarray:
    return gain * np.array(NEURONS[name][0]) * (1 + np.array(changes))


CHANGES = {"first": (0.08, -0.06, 0.1, -0.1), "second": (0.1, 0.05, -0.09, 0.07)}


def day_two(gain: float) -> dict[str, np.ndarray]:
    return {name: uv(name, gain, change) for name, change in CHANGES.items()} | {"late": uv("late")}


def trains_of(folder) -> dict[str, np.ndarray]:
    trains: dict[str, list[int]] = {}
    with (folder / "spikes.csv").open() as file:
        for row in csv.DictReader(file):
            trains.setdefault(row["unit"], []).append(int(row["sample"]))
    return {unit: np.array(samples) for unit, samples in trains.items()}


def unit_of(folder, train: np.ndarray) -> str:
    """The unit with most of a neuron's spikes."""
    return max(trains := trains_of(folder), key=lambda unit: near(train, trains[unit]).sum())


def near(samples: np.ndarray, others: np.ndarray, reach: int = 8) -> np.ndarray:
    """Samples (bool, n) that lie within `reach` of one of the others."""
    return (np.abs(samples[:, None] - others[None]) <= reach).any(axis=1)


def accuracy(train: np.ndarray, found: np.ndarray) -> float:
    hits = near(train, found).sum()
    return hits / (len(train) + len(found) - hits)


@pytest.fixture(scope="module")
def days(tmp_path_factory):
    """The sorted first day, and the second day; with the truth of both."""
    folder = tmp_path_factory.mktemp("days")
    first = record(folder / "one.h5", 1, {name: uv(name) for name in ("first", "second", "gone")})
    second = record(folder / "two.h5", 2, day_two(0.7))
    assert spikecrsae("sort", folder / "one.h5", "-o", folder / "sorted", "--quiet").exit_code == 0
    return folder, first, second


@pytest.fixture(scope="module")
def applied(days):
    folder, _, _ = days
    result = spikecrsae("apply", folder / "sorted", folder / "two.h5", "-o", folder / "applied")
    assert result.exit_code == 0, result.stderr
    return folder / "applied", result


def test_known_units_keep_their_spikes_and_their_numbers(days, applied):
    folder, first, second = days
    trains = trains_of(applied[0])
    assert len(trains) == 2
    for name in ("first", "second"):
        unit = unit_of(folder / "sorted", first[name])
        assert accuracy(second[name], trains[unit]) > 0.97, name


def test_spikes_of_a_new_neuron_go_to_no_known_unit(days, applied):
    _, _, second = days
    known = np.concatenate([second["first"], second["second"]])
    alone = second["late"][~near(second["late"], known, 40)]
    found = np.concatenate(list(trains_of(applied[0]).values()))
    assert near(alone, found).mean() < 0.02


def test_the_run_says_how_many_spikes_fit_no_unit_and_where(days, applied):
    """In words on the screen, in run.json and on the page."""
    warnings = json.loads((applied[0] / "run.json").read_text())["warnings"]
    told = next(text for text in warnings if "fit no unit" in text)
    n = len(days[2]["late"])
    assert abs(int(told.split()[0]) - n) < 0.05 * n and "1 new unit" in told and "on channel 2" in told
    assert told in applied[1].stderr
    assert "fit no unit" in (applied[0] / "report.html").read_text()


def test_a_unit_that_is_silent_is_named(days, applied):
    folder, first, _ = days
    gone = unit_of(folder / "sorted", first["gone"])
    assert gone not in trains_of(applied[0])
    assert f"Warning: unit {gone} of the model is silent here" in applied[1].stderr


def test_the_table_says_how_units_have_changed(days, applied):
    with (applied[0] / "units.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(0.6 < float(row["model_gain"]) < 0.85 and 0.97 < float(row["model_cosine"]) <= 1 for row in rows)
    assert "--adapt lets templates follow" in applied[1].stderr


def test_on_the_same_recording_nothing_is_new_silent_or_changed(days):
    folder, _, _ = days
    result = spikecrsae("apply", folder / "sorted", folder / "one.h5", "-o", folder / "again")
    assert result.exit_code == 0 and "Warning" not in result.stderr
    assert (folder / "again" / "spikes.csv").read_bytes() == (folder / "sorted" / "spikes.csv").read_bytes()


def test_adapted_templates_are_those_of_the_day(days):
    """Half as large: the templates of the result are, and its model finds the same spikes without adapting."""
    folder, first, _ = days
    second = record(folder / "half.h5", 3, day_two(0.5))
    result = spikecrsae("apply", folder / "sorted", folder / "half.h5", "-o", folder / "adapted", "--adapt")
    assert result.exit_code == 0 and "they were adapted" in result.stderr
    trains = trains_of(folder / "adapted")
    for name in ("first", "second"):
        unit = unit_of(folder / "sorted", first[name])
        assert accuracy(second[name], trains[unit]) > 0.97, name
    model = package.read_sorting(folder / "adapted")
    again = package.apply(model, folder / "half.h5")
    assert {str(unit): len(again.spike_samples(unit)) for unit in again.unit_ids} == pytest.approx(
        {unit: len(train) for unit, train in trains.items()}, rel=0.02
    )
    gains = again.data.units["model_gain"]
    assert np.all(np.abs(gains - 1) < 0.1)


def test_a_neuron_of_another_shape_is_not_adapted_to(days):
    """Where only a new neuron fires, known units keep their templates and are silent."""
    folder, _, _ = days
    record(folder / "late.h5", 4, {"late": uv("late")})
    result = spikecrsae("apply", folder / "sorted", folder / "late.h5", "-o", folder / "other", "--adapt")
    assert result.exit_code == 5
    assert result.stderr.count("is silent here") == 3 and "1 new unit" in result.stderr


def test_rerun_repeats_an_adapted_run(days):
    folder, _, _ = days
    words = ["apply", folder / "sorted", folder / "two.h5", "-o", folder / "third", "--adapt", "--quiet"]
    assert spikecrsae(*words).exit_code == 0
    assert json.loads((folder / "third" / "run.json").read_text())["config"]["infer"]["adapt"] is True
    assert spikecrsae("rerun", folder / "third", "-o", folder / "fourth", "--quiet").exit_code == 0
    assert (folder / "third" / "spikes.csv").read_bytes() == (folder / "fourth" / "spikes.csv").read_bytes()
    result = spikecrsae(*words[:-2], "--resume")
    assert result.exit_code == 6 and "infer.adapt" in result.stderr


def test_units_of_groups_keep_their_numbers(tmp_path):
    """Two tetrodes; of the first one, one unit is gone, and of the second one the other unit is the larger now."""
    none = np.zeros(4)
    one = {"first": np.r_[uv("first"), none], "gone": np.r_[uv("gone"), none]}
    two = {"first2": np.r_[none, uv("first")], "second2": np.r_[none, uv("second")]}
    before = record(tmp_path / "one.h5", 5, one | two)
    two["first2"] = two["first2"] * 0.7
    after = record(tmp_path / "two.h5", 6, {"first": one["first"]} | two)
    words = ("--groups", "0-3,4-7", "--jobs", 1, "--quiet")
    assert spikecrsae("sort", tmp_path / "one.h5", "-o", tmp_path / "sorted", *words).exit_code == 0
    result = spikecrsae("apply", tmp_path / "sorted", tmp_path / "two.h5", "-o", tmp_path / "applied", "--jobs", 1)
    assert result.exit_code == 0, result.stderr
    trains = trains_of(tmp_path / "applied")
    assert len(trains) == 3
    for name in after:
        unit = unit_of(tmp_path / "sorted", before[name])
        assert accuracy(after[name], trains[unit]) > 0.95, name
    gone = unit_of(tmp_path / "sorted", before["gone"])
    assert gone not in trains
    assert f"unit {gone} of the model is silent here" in (tmp_path / "applied" / "run.json").read_text()


def test_adapt_belongs_to_apply(days):
    folder, _, _ = days
    with pytest.raises(UsageError, match="no known units to adapt"):
        package.sort(folder / "one.h5", adapt=True)
    config = folder / "adapt.toml"
    config.write_text("[infer]\nadapt = true\n")
    refused(spikecrsae("sort", folder / "one.h5", "-o", folder / "x", "--config", config), "infer.adapt", code=2)
