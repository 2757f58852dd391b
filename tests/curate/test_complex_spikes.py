"""Complex spikes of Purkinje cells: units of their own where spikelets and a pause show them, with --complex-spikes only."""

from __future__ import annotations

import csv
import json

import h5py
import numpy as np
import pytest
from helpers.command_line import spikecrsae

import spikecrsae as package
from spikecrsae.curate.complex_spikes import pause_of

FS, SECONDS = 20_000, 40
#: Spikelets of a complex spike: ms after the first spike, and size relative to it.
SPIKELETS = ((2.4, 0.4), (4.8, 0.35), (7.0, 0.35))
PAUSE_S = 0.015


def bump(ms: np.ndarray, width: float = 1.0) -> np.ndarray:
    return -np.exp(-((ms / (0.13 * width)) ** 2)) + 0.4 * np.exp(-(((ms - 0.45 * width) / (0.28 * width)) ** 2))


def purkinje(seed: int, spikelets=SPIKELETS, pause_s: float = PAUSE_S, first: float = 1.15, sizes=(110,), rate: float = 1.0):
    """Traces (n_samples, n_channels) in uV of a Purkinje cell of these sizes on the channels, and its simple and complex spikes."""
    rng = np.random.default_rng(seed)
    traces = 9 * rng.standard_normal((FS * SECONDS, len(sizes))).astype(np.float32)
    complex_ = np.cumsum(0.2 + rng.exponential(1 / rate - 0.2, int(2 * rate * SECONDS)))
    complex_ = complex_[complex_ < SECONDS - 0.05]
    simple = np.cumsum(0.003 + rng.exponential(1 / 50, 80 * SECONDS))
    near = (simple[:, None] > complex_ - 0.003) & (simple[:, None] < complex_ + pause_s)
    simple = simple[(simple < SECONDS - 0.05) & ~near.any(axis=1)]
    ms = np.arange(-30, 300) * 1000 / FS
    whole = first * (bump(ms, 1.1) + sum(size * bump(ms - lag) for lag, size in spikelets))
    trains = {}
    for name, times, shape in (("simple", simple, bump(ms)), ("complex", complex_, whole)):
        trains[name] = (times * FS).astype(np.int64) + 30
        for sample in trains[name]:
            traces[sample - 30 : sample + 300] += np.outer(shape, sizes)
    return traces, trains


def write(path, traces: np.ndarray):
    with h5py.File(path, "w") as file:
        file.create_dataset("traces", data=np.round(traces / 0.195).astype(np.int16))
        file["traces"].attrs.update(sampling_frequency=float(FS), units="uV", gain=0.195)
    return path


def accuracy(train: np.ndarray, found: np.ndarray) -> float:
    hits = (np.abs(train[:, None] - found[None]) <= 8).any(axis=1).sum()
    return hits / (len(train) + len(found) - hits)


def rows_of(folder) -> list[dict[str, str]]:
    with (folder / "units.csv").open() as file:
        return list(csv.DictReader(file))


def warnings_of(folder) -> str:
    return " ".join(json.loads((folder / "run.json").read_text())["warnings"])


@pytest.fixture(scope="module")
def sorted_cell(tmp_path_factory):
    """A Purkinje cell sorted with the option; with its true spikes."""
    folder = tmp_path_factory.mktemp("purkinje")
    traces, trains = purkinje(1)
    path = write(folder / "cell.h5", traces)
    result = spikecrsae("sort", path, "-o", folder / "told", "--complex-spikes")
    assert result.exit_code == 0, result.stderr
    return folder, trains, result


def test_both_kinds_of_spikes_are_units(sorted_cell):
    folder, trains, _ = sorted_cell
    sorting = package.read_sorting(folder / "told")
    assert len(sorting.unit_ids) == 2
    rows = {("complex" if row["complex_of"] else "simple"): int(row["unit"]) for row in rows_of(folder / "told")}
    for name, unit in rows.items():
        assert accuracy(trains[name], sorting.spike_samples(unit)) > 0.97, name


def test_the_table_links_them_by_the_pause(sorted_cell):
    folder, _, result = sorted_cell
    complex_, simple = sorted(rows_of(folder / "told"), key=lambda row: row["complex_of"] == "")
    assert complex_["complex_of"] == simple["unit"] and simple["complex_of"] == simple["pause_p"] == ""
    assert float(complex_["pause_ratio"]) < 0.1 and float(complex_["pause_p"]) < 1e-6
    assert "complex spikes" in warnings_of(folder / "told") and "Warning: " in result.stderr


def test_without_the_option_nothing_is_split(sorted_cell):
    folder, _, _ = sorted_cell
    assert spikecrsae("sort", folder / "cell.h5", "-o", folder / "plain", "--quiet").exit_code == 0
    assert len(rows_of(folder / "plain")) == 1 and "complex_of" not in rows_of(folder / "plain")[0]


def test_the_model_finds_both_again(sorted_cell):
    """On the same recording the same spikes, and on another one of the cell both kinds under their numbers."""
    folder, _, _ = sorted_cell
    assert spikecrsae("apply", folder / "told", folder / "cell.h5", "-o", folder / "again", "--quiet").exit_code == 0
    assert (folder / "again" / "spikes.csv").read_bytes() == (folder / "told" / "spikes.csv").read_bytes()
    traces, trains = purkinje(2)
    found = package.apply(folder / "told", traces, sampling_frequency=float(FS))
    for row in rows_of(folder / "told"):
        name = "complex" if row["complex_of"] else "simple"
        assert accuracy(trains[name], found.spike_samples(int(row["unit"]))) > 0.95, name


@pytest.mark.parametrize(
    ("what", "given"),
    [
        ("few", {"rate": 0.4}),
        ("two large spikelets", {"spikelets": ((2.0, 0.55), (5.5, 0.5)), "first": 1.3}),
        ("a tetrode", {"sizes": (110, 70, 40, 20)}),
    ],
)
def test_other_complex_spikes(what, given):
    traces, trains = purkinje(3, **given)
    sorting = package.sort(traces, sampling_frequency=float(FS), complex_spikes=True)
    found = sorting.data.trains().values()
    for name, train in trains.items():
        assert max(accuracy(train, samples) for samples in found) > 0.9, (what, name)


@pytest.mark.parametrize(
    ("given", "why"),
    [({"spikelets": ()}, "no spikes with spikelets"), ({"pause_s": 0.0}, "no pause of the simple spikes")],
)
def test_without_spikelets_or_without_a_pause_nothing_is_split(given, why):
    traces, _ = purkinje(4, **given)
    sorting = package.sort(traces, sampling_frequency=float(FS), complex_spikes=True)
    assert np.isnan(sorting.data.units["complex_of"]).all()
    assert why in " ".join(sorting.run["warnings"])


def test_complex_spikes_of_two_groups_name_the_simple_unit_of_their_own(tmp_path):
    one, two = (purkinje(seed)[0] for seed in (5, 6))
    path = write(tmp_path / "two.h5", np.concatenate([one, two], axis=1))
    assert (
        spikecrsae("sort", path, "-o", tmp_path / "out", "--complex-spikes", "--groups", "0,1", "--jobs", 1).exit_code == 0
    )
    rows = {row["unit"]: row for row in rows_of(tmp_path / "out")}
    linked = [row for row in rows.values() if row["complex_of"]]
    assert len(rows) == 4 and len(linked) == 2
    for row in linked:
        simple = rows[row["complex_of"]]
        assert simple["group"] == row["group"] and int(simple["n_spikes"]) > 10 * int(row["n_spikes"])


def test_a_pause_is_a_lower_rate_after_than_before():
    rng = np.random.default_rng(0)
    simple, complex_ = np.sort(rng.integers(0, 10**6, 4000)), np.arange(5000, 995_000, 5000)
    ratio, p = pause_of(simple, complex_, 300, 1200)
    assert 0.8 < ratio < 1.2 and p > 0.01
    after = ((simple[:, None] > complex_) & (simple[:, None] <= complex_ + 300)).any(axis=1)
    ratio, p = pause_of(simple[~after], complex_, 300, 1200)
    assert ratio == 0 and p < 1e-6
