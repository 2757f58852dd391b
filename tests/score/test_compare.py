"""spikecrsae compare: SpikeInterface's numbers for two sortings."""

from __future__ import annotations

import json

import numpy as np
import pytest
from helpers.command_line import spikecrsae
from helpers.sortings import write_result
from hypothesis import given, settings
from hypothesis import strategies as st

from spikecrsae.results.folder import read_sorting
from spikecrsae.score import compare as compare_trains
from spikecrsae.simulate import preset_config, simulate

FS = 20000.0


def compare(*arguments):
    return spikecrsae("compare", *arguments)


def by_spikeinterface(first: dict, second: dict):
    from spikeinterface.comparison import compare_two_sorters
    from spikeinterface.core import NumpySorting

    sortings = [NumpySorting.from_unit_dict(trains, sampling_frequency=FS) for trains in (first, second)]
    return compare_two_sorters(*sortings, delta_time=0.4)


def bursty(rng, n_units: int, n_spikes: int) -> dict[str, np.ndarray]:
    """Trains with many intervals near the tolerance of 8 samples."""
    gaps = rng.choice([2, 5, 8, 9, 40, 300], (n_units, n_spikes))
    return {str(unit): np.cumsum(row).astype(np.int64) for unit, row in enumerate(gaps)}


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 5))
def test_numbers_are_those_of_compare_two_sorters(seed, n_first, n_second):
    rng = np.random.default_rng(seed)
    first, second = bursty(rng, n_first, 60), bursty(rng, n_second, 80)
    second["0"] = np.sort(first["0"] + rng.integers(-9, 10, 60)).clip(0)  # some units do agree
    ours, theirs = compare_trains(first, second, FS, symmetric=True), by_spikeinterface(first, second)
    # within bursts SpikeInterface can count more matches than the first train has spikes, and then agree by more than 1
    n_first = np.array([len(train) for train in first.values()])[:, None]
    counts = theirs.match_event_count.to_numpy()
    np.testing.assert_array_equal(ours.counts, np.minimum(counts, n_first))
    possible = counts <= n_first
    np.testing.assert_allclose(ours.agreement[possible], theirs.agreement_scores.to_numpy()[possible])
    matched = {str(a): str(b) for a, b in theirs.hungarian_match_12.items() if b not in (-1, "")}
    assert not possible.all() or ours.one_to_one == matched


def test_a_comparison_does_not_depend_on_who_comes_first():
    rng = np.random.default_rng(5)
    first, second = bursty(rng, 4, 200), bursty(rng, 3, 150)
    there, back = (compare_trains(a, b, FS, symmetric=True) for a, b in ((first, second), (second, first)))
    np.testing.assert_array_equal(there.counts, back.counts.T)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two results: the truth of a simulation, and the same without one unit and with another one doubled."""
    truth = simulate(preset_config("tetrode", n_units=3, n_bursting=0, duration_s=6.0, seed=2)).truth
    kept = truth.spikes[truth.spikes["unit"] != 2].copy()
    moved = truth.spikes[truth.spikes["unit"] == 0].copy()
    moved["sample"] += 400
    moved["unit"] = 2
    spikes = np.sort(np.concatenate([kept, moved[moved["sample"] < truth.n_samples]]), order="sample")
    other = type(truth)(spikes, truth.unit_ids, FS, truth.n_samples, 4, "uV")
    root = tmp_path_factory.mktemp("pair")
    return [write_result(root / name, sorting, {}) for name, sorting in (("a", truth), ("b", other))]


@pytest.mark.slow
def test_matches_and_units_of_one_side_only(pair):
    document = json.loads(compare(*pair, "--json").stdout)
    assert [(row["a"], row["b"]) for row in document["matches"]] == [("0", "0"), ("1", "1"), ("2", None)]
    assert document["only_in_a"] == document["only_in_b"] == ["2"]
    theirs = by_spikeinterface(*(read_sorting(folder).trains() for folder in pair))
    np.testing.assert_allclose(document["agreement"], theirs.agreement_scores.to_numpy())
    text = compare(*pair).stdout
    assert "1.00" in text
    assert "2 units match" in text
    assert "only in A: 1 (2)" in text and "only in B: 1 (2)" in text


def test_a_and_b_may_be_anything_that_score_takes(pair, tmp_path):
    folder = pair[0]
    whole = json.loads(compare(folder, folder, "--json").stdout)
    table = json.loads(compare(folder / "spikes.csv", folder / "sorting.h5", "--json").stdout)
    assert table["agreement"] == whole["agreement"]
    result = compare(folder / "spikes.csv", folder / "spikes.csv")
    assert result.exit_code == 2 and "--sampling-frequency" in result.stderr
    both = json.loads(compare(folder / "spikes.csv", folder / "spikes.csv", "--sampling-frequency", FS, "--json").stdout)
    assert both["agreement"] == whole["agreement"]
    phy = tmp_path / "phy"
    phy.mkdir()
    spikes = read_sorting(folder).spikes
    np.save(phy / "spike_times.npy", spikes["sample"])
    np.save(phy / "spike_clusters.npy", spikes["unit"])
    assert json.loads(compare(folder, phy, "--json").stdout)["agreement"] == whole["agreement"]


def test_a_rate_that_contradicts_the_result_is_refused(pair):
    result = compare(*pair, "--sampling-frequency", 15000)
    assert result.exit_code == 2
    assert result.stderr.count("\n") == 1


def test_what_is_not_there_is_3(pair):
    assert compare(pair[0], "nowhere").exit_code == 3


@pytest.mark.slow
def test_a_result_without_units_agrees_with_nothing(pair, tmp_path):
    sorting = read_sorting(pair[0])
    empty = type(sorting)(sorting.spikes[:0], sorting.unit_ids[:0], FS, sorting.n_samples, 4, "uV")
    folder = write_result(tmp_path / "none", empty, {})
    for words in ((pair[0], folder), (folder, pair[0]), (folder, folder)):
        result = compare(*words)
        assert result.exit_code == 0, result.stderr
        assert "0 units match" in result.stdout


def test_many_units_are_shown_in_pieces_that_fit(tmp_path, monkeypatch):
    truth = simulate(preset_config("paper", duration_s=4.0)).truth
    spikes = truth.spikes.copy()
    spikes["unit"] = np.arange(len(spikes)) % 40
    many = type(truth)(spikes, np.arange(40, dtype=np.int32), truth.sampling_frequency, truth.n_samples, 1, "uV")
    folder = write_result(tmp_path / "many", many, {})
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    lines = compare(folder, folder).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert sum(line.split()[:3] == ["A", "\\", "B"] for line in lines) > 2
