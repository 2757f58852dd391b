"""A probe is sorted as neighbourhoods: where they lie, and that the result is that of one sorting with each neuron once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.command_line import spikecrsae

from spikecrsae.config import Config
from spikecrsae.data.recording import Recording, recording_from_array
from spikecrsae.data.sorting import SortingData
from spikecrsae.errors import InputError
from spikecrsae.pipeline import groups
from spikecrsae.pipeline.learned import LearnedCache
from spikecrsae.pipeline.neighbourhoods import FEW_CHANNELS, MARGIN_UM, divide, in_words
from spikecrsae.pipeline.outcome import Outcome
from spikecrsae.readers import open_recording
from spikecrsae.results.folder import read_sorting
from spikecrsae.results.model_file import save_checkpoint
from spikecrsae.score import compare
from spikecrsae.simulate import preset_config, simulate

pytestmark = pytest.mark.slow
CONFIG = Config().with_values({"runtime": {"device": "cpu"}})
#: Rows of two electrodes, 25 um apart. The cores are rows 0 to 5 and 6 to 12.
ROWS = 13


def placed(positions: np.ndarray) -> Recording:
    return recording_from_array(np.zeros((1000, len(positions)), np.int16), 20000.0, channel_positions=positions)


def grid(columns: int, rows: int, pitch: float, at: float = 0.0) -> np.ndarray:
    return np.array([[at + pitch * (i % columns), pitch * (i // columns)] for i in range(columns * rows)])


# ---- the division


@pytest.mark.parametrize(
    "positions",
    [grid(2, 16, 25), grid(4, 32, 20), grid(1, 40, 100), grid(6, 6, 50), np.random.default_rng(0).uniform(0, 400, (50, 2))],
    ids=["two columns", "four columns", "wide pitch", "square", "scattered"],
)
def test_each_channel_is_in_one_core_whose_surroundings_are_seen(positions):
    found = divide(placed(positions))
    assert len(found) > 1
    assert sorted(channel for one in found for channel in one.core) == list(range(len(positions)))
    for one in found:
        distance = np.linalg.norm(positions[:, None] - positions[list(one.core)], axis=2).min(axis=1)
        assert set(np.flatnonzero(distance <= MARGIN_UM)) <= set(one.channels)
        assert len(one.channels) > len(one.core), "a neuron between two cores is seen from both sides by one"


def test_what_lies_far_apart_never_meets():
    shanks = divide(placed(np.concatenate([grid(2, 16, 25), grid(2, 16, 25, at=250)])))
    assert all(len({channel // 32 for channel in one.channels}) == 1 for one in shanks)
    tetrodes = divide(placed(np.concatenate([grid(2, 2, 25, at=300 * i) for i in range(16)])))
    assert [one.channels for one in tetrodes] == [tuple(range(4 * i, 4 * i + 4)) for i in range(16)]


@pytest.mark.parametrize("positions", [grid(2, FEW_CHANNELS // 2, 25), grid(1, FEW_CHANNELS, 1000), np.zeros((40, 2))])
def test_few_channels_and_those_at_one_place_are_not_divided(positions):
    (one,) = divide(placed(positions))
    assert one.channels == one.core == tuple(range(len(positions)))


def test_channels_without_positions_are_not_divided():
    assert len(divide(recording_from_array(np.zeros((1000, 40), np.int16), 20000.0))) == 1


def test_channels_in_words():
    recording = placed(grid(1, 6, 25))
    assert in_words(recording, [0, 1, 2, 4]) == "0 to 2, 4"


# ---- a sorting


@pytest.fixture(scope="module")
def probe(tmp_path_factory) -> tuple[Path, dict[str, np.ndarray]]:
    """A probe with four neurons where the cores meet and two near each end; the samples of their spikes."""
    place, trains = tmp_path_factory.mktemp("probe") / "probe.h5", {}
    traces = np.zeros((int(6.0 * 20000), 2 * ROWS), np.float32)
    for name, first, n_rows, n_units in (("middle", 0, ROWS, 4), ("low", 0, 4, 2), ("high", ROWS - 4, 4, 2)):
        settings = {"n_channels": 2 * n_rows, "n_units": n_units, "n_bursting": 0, "duration_s": 6.0, "snr_low": 12.0}
        part = simulate(preset_config("tetrode", **settings, rate_low_hz=8.0, seed=len(trains)))
        traces[:, 2 * first : 2 * (first + n_rows)] += part.traces
        trains |= {f"{name} {unit}": part.truth.spike_samples(unit) for unit in range(n_units)}
    with h5py.File(place, "w") as file:
        stored = file.create_dataset("traces", data=np.clip(traces, -32768, 32767).astype(np.int16))
        stored.attrs.update(sampling_frequency=20000.0, units="uV", gain=0.195)
        file["channel_positions"] = grid(2, ROWS, 25)
    return place, trains


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> LearnedCache:
    return LearnedCache(tmp_path_factory.mktemp("learned"), "key")


@pytest.fixture(scope="module")
def outcome(probe, cache) -> Outcome:
    with open_recording(probe[0]) as recording:
        return groups.sort(recording, CONFIG, cache=cache)


def same_sorting(one: SortingData, other: SortingData) -> None:
    np.testing.assert_array_equal(one.spikes, other.spikes)
    for name in ("templates", "templates_whitened", "templates_std", "peak_index", "unit_ids"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.units.keys() == other.units.keys()
    for name, values in one.units.items():
        np.testing.assert_array_equal(values, other.units[name])


def test_each_neuron_is_one_unit(probe, outcome):
    trains, sorting = probe[1], outcome.sorting
    score = compare(trains, sorting.trains(), sorting.sampling_frequency)
    accuracy = {unit.truth: unit.accuracy for unit in score.rows}
    assert accuracy.keys() == trains.keys() and min(accuracy.values()) > 0.9, accuracy
    assert sorting.n_units == len(trains)


def test_the_result_shows_no_neighbourhood(outcome):
    sorting = outcome.sorting
    assert "group" not in sorting.units and "group_names" not in sorting.channels
    assert not sorting.channels["groups"].any() and not sorting.channels["masked"].any()
    assert np.isfinite(sorting.channels["noise_level"]).all()
    assert np.ndim(sorting.model["sigma"]) == 0 and sorting.model["whitened_norm"].shape == (sorting.n_units,)
    assert sorting.templates.shape[:2] == (sorting.n_units, 2 * ROWS)
    assert sorting.example.std(axis=0).min() > 0
    assert not any(text.startswith("group") for text in outcome.warnings)


def test_a_neuron_that_two_neighbourhoods_found_is_a_decision(outcome):
    sorting = outcome.sorting
    found_twice = [row for row in sorting.curation if "another neighbourhood" in str(row.get("why"))]
    assert len(found_twice) >= 3 and all(row["statistic"] > row["level"] for row in found_twice)
    removed = {unit for row in found_twice for unit in row["units"]}
    assert not removed & set(sorting.units["curation_id"].tolist())


def test_a_model_of_neighbourhoods_is_applied(probe, outcome, tmp_path):
    save_checkpoint(outcome.checkpoint, tmp_path / "model.safetensors")
    with open_recording(probe[0]) as recording:
        again = groups.apply(tmp_path / "model.safetensors", recording, CONFIG)
        checksum = groups.input_checksum(recording, CONFIG, model_path=tmp_path / "model.safetensors")
        assert groups.input_checksum(recording, CONFIG) == checksum == outcome.input_checksum
    np.testing.assert_array_equal(again.sorting.spikes, outcome.sorting.spikes)
    np.testing.assert_array_equal(again.sorting.templates, outcome.sorting.templates)
    np.testing.assert_array_equal(again.sorting.channels["groups"], 0)


def test_each_neighbourhood_goes_on_with_what_it_has_learned(probe, outcome, cache):
    assert len(list(cache.folder.iterdir())) == 2
    with open_recording(probe[0]) as recording:
        same_sorting(groups.sort(recording, CONFIG, cache=cache).sorting, outcome.sorting)


def test_two_processes_give_the_same_and_the_log_tells_the_division(probe, outcome, tmp_path):
    words = ("--jobs", 2, "--device", "cpu", "-o", tmp_path / "out")
    result = spikecrsae("sort", probe[0], *words)
    assert result.exit_code == 0, result.stderr
    same_sorting(read_sorting(tmp_path / "out"), outcome.sorting)
    log = (tmp_path / "out" / "run.log").read_text()
    assert "2 neighbourhoods: channels 0 to 15; channels 8 to 25" in log


def test_a_group_may_consist_of_neighbourhoods(probe, outcome):
    """One group as above, and an electrode far away whose channels are flat."""
    with open_recording(probe[0]) as recording:
        with_flat = replace(
            recording,
            read_raw=lambda start, stop: np.pad(recording.read_raw(start, stop), ((0, 0), (0, 2))),
            channels=tuple(range(2 * ROWS + 2)),
            channel_ids=tuple(map(str, range(2 * ROWS + 2))),
            gain=np.full(2 * ROWS + 2, recording.gain[0]),
            offset=np.zeros(2 * ROWS + 2),
            channel_positions=np.concatenate([grid(2, ROWS, 25), grid(2, 1, 25, at=1000)]),
            channel_groups=("probe",) * 2 * ROWS + ("flat",) * 2,
        )
        both = groups.sort(with_flat, CONFIG)
        again = groups.apply(both.checkpoint, with_flat, CONFIG)
    np.testing.assert_array_equal(both.sorting.spikes, outcome.sorting.spikes)
    np.testing.assert_array_equal(both.sorting.templates[:, : 2 * ROWS], outcome.sorting.templates)
    assert both.sorting.units["group"].tolist() == [0] * outcome.sorting.n_units
    assert any(text.startswith("group flat: not sorted: ") for text in both.warnings)
    np.testing.assert_array_equal(again.sorting.spikes, outcome.sorting.spikes)


def test_a_number_of_units_is_that_of_the_whole_probe(probe):
    with open_recording(probe[0], stop_s=2.0) as recording:
        config = Config().with_values({"runtime": {"device": "cpu"}, "initialise": {"units": 5}})
        assert groups.sort(recording, config).sorting.n_units == 5


def test_many_channels_without_positions_draw_a_warning():
    rng = np.random.default_rng(1)
    recording = recording_from_array(rng.normal(0, 10, (4000, 16)).astype(np.float32), 20000.0)
    for channels, warned in ((recording, True), (recording.select(range(8)), False)):
        told = [text for text in groups.sort(channels, CONFIG).warnings if "--groups" in text]
        assert bool(told) == warned
    with_places = replace(recording, channel_positions=grid(2, 8, 25))
    assert not any("--groups" in text for text in groups.sort(with_places, CONFIG).warnings)


def test_a_neighbourhood_that_cannot_be_sorted_is_a_warning():
    """Two shanks of noise, then one of them flat, then both."""
    noise = np.random.default_rng(2).normal(0, 10, (6000, 32)).astype(np.float32)
    places = np.concatenate([grid(2, 8, 25), grid(2, 8, 25, at=300)])
    recording = recording_from_array(noise, 20000.0, channel_positions=places)
    outcome = groups.sort(recording, CONFIG)
    assert outcome.sorting.n_units == 0 and not outcome.sorting.channels["masked"].any()
    noise[:, 16:] = 0
    outcome = groups.sort(recording, CONFIG)
    assert any(text.startswith("channels 16 to 31: not sorted: ") for text in outcome.warnings)
    np.testing.assert_array_equal(outcome.sorting.channels["masked"], np.arange(32) >= 16)
    noise[:] = 0
    with pytest.raises(InputError, match="flat"):
        groups.sort(recording, CONFIG)
