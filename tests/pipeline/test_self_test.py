"""The self-test: copies stand in the recording where they are said to, and their fate says how well a unit is found."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.command_line import spikecrsae

from spikecrsae.config import Config, PreprocessConfig
from spikecrsae.data.intervals import in_any
from spikecrsae.data.recording import Recording, recording_from_array
from spikecrsae.data.sorting import SPIKE_DTYPE, SortingData
from spikecrsae.decode.probability import judge as judge_spikes
from spikecrsae.errors import InputError
from spikecrsae.pipeline.self_test import draw_copies, self_test, unfiltered, unselected_scale, with_copies
from spikecrsae.pipeline.self_test_verdict import Copies, KnownSpikes, at_copies, judge, matches_of, recalibrated
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.preprocess.filters import design_filter
from spikecrsae.preprocess.preprocessor import filtered
from spikecrsae.progress import Observer
from spikecrsae.results.folder import read_sorting
from spikecrsae.score.calibration import expected_calibration_error, judged_spikes
from spikecrsae.simulate import preset_config, simulate, write_simulation

pytestmark = pytest.mark.slow

QUICK = Config().with_values({"train": {"epochs": 5}, "runtime": {"device": "cpu"}})
COLUMNS = ("hybrid_recall", "hybrid_precision", "hybrid_injected")
FS = 20000.0
NO_GAPS = np.zeros((0, 2), np.int64)


@pytest.fixture(scope="module")
def simulation():
    """Two neurons that stand out and one whose peak is three noise levels high, on a tetrode."""
    given = {"n_units": 3, "n_bursting": 0, "snrs": (14.0, 11.0, 3.0), "rates_hz": (12.0, 18.0, 15.0)}
    return simulate(preset_config("tetrode", duration_s=15.0, seed=4, **given))


@pytest.fixture(scope="module")
def outcome(simulation):
    return sort_group(simulation.recording(), QUICK)


class Course(Observer):
    def __init__(self) -> None:
        self.seen = []

    def start(self, stage: str, total: int | None = None) -> None:
        self.seen.append([stage, total, 0])

    def advance(self, n: int = 1) -> None:
        self.seen[-1][2] += n


@pytest.fixture(scope="module")
def tested(simulation, outcome):
    course = Course()
    return self_test(simulation.recording(), outcome, course), course


def copies(samples, units=0, scales=1.0, shifts=0.0) -> Copies:
    n = len(samples)
    return Copies(np.array(samples), *(np.broadcast_to(np.array(v), n) for v in (units, scales, shifts)))


def found(trains: dict[int, list[int]], n_samples: int = 1_000_000) -> SortingData:
    """A sorting that consists of spike trains."""
    spikes = np.zeros(sum(map(len, trains.values())), SPIKE_DTYPE)
    spikes["sample"] = np.array([sample for train in trains.values() for sample in train], int)
    spikes["unit"] = np.array([unit for unit, train in trains.items() for _ in train], int)
    return SortingData(np.sort(spikes, order="sample"), np.array(list(trains), np.int32), FS, n_samples, 1, "uV")


# ---- the hybrid recording


@pytest.mark.parametrize("dtype", ["int16", "float32", "uint8"])
def test_copies_of_nothing_change_no_number(dtype):
    stored = np.random.default_rng(0).integers(0, 200, (3000, 2)).astype(dtype)
    recording = replace(recording_from_array(stored, FS), gain=np.array([0.195, 0.2]))
    hybrid = with_copies(recording, copies([500, 1501], scales=0.0, shifts=0.3), np.ones((1, 2, 40)), np.array([10]))
    assert hybrid.raw(0, 3000).dtype == dtype
    np.testing.assert_array_equal(hybrid.raw(0, 3000), stored)
    np.testing.assert_array_equal(hybrid.traces(480, 560), recording.traces(480, 560))


def test_copies_of_nothing_give_the_same_sorting(simulation, outcome):
    sorting = outcome.sorting
    nothing = copies(np.arange(1000, 200_000, 5000), scales=0.0)
    again = sort_group(with_copies(simulation.recording(), nothing, sorting.templates, sorting.peak_index), QUICK).sorting
    np.testing.assert_array_equal(again.spikes, sorting.spikes)
    np.testing.assert_array_equal(again.templates, sorting.templates)


def waveforms(n_channels: int = 2, n_times: int = 40) -> np.ndarray:
    """Two units with their largest deflection at sample 15, in uV."""
    bump = np.exp(-0.5 * ((np.arange(n_times) - 15) / 3.0) ** 2)
    return np.stack([-80 * bump * np.linspace(1, 0.4, n_channels)[:, None], 30 * bump * np.ones((n_channels, 1))])


def test_a_copy_stands_at_its_time_in_its_scale():
    recording = recording_from_array(np.zeros((2000, 2)), FS)
    hybrid = with_copies(recording, copies([300, 310], units=[0, 1], scales=[0.5, 2.0]), waveforms(), np.array([15, 15]))
    expected = np.zeros((2000, 2))
    expected[285:325] += 0.5 * waveforms()[0].T
    expected[295:335] += 2.0 * waveforms()[1].T
    np.testing.assert_allclose(hybrid.traces(0, 2000), expected, atol=1e-4)


def test_a_shift_moves_the_copy_by_part_of_a_sample():
    recording = recording_from_array(np.zeros((2000, 1)), FS)
    hybrid = with_copies(recording, copies([300], shifts=0.5), waveforms(1), np.array([15]))
    late = -80 * np.exp(-0.5 * ((np.arange(40) - 15.5) / 3.0) ** 2)
    np.testing.assert_allclose(hybrid.traces(285, 325)[:, 0], late, atol=0.05)


def test_whole_numbers_with_gain_offset_and_picked_channels():
    """Stored numbers are uV / gain, rounded; channels that are not in use, or in another order, get none or their own."""
    stored = np.full((1000, 3), 2000, np.uint16)
    recording = Recording(
        lambda start, stop: stored[start:stop], 1000, FS, (2, 0), ("c", "a"), np.array([0.5, 0.25]), np.array([-1000.0, -500.0]),
        "uV", recording_from_array(stored, FS).source, "test", "uint16",
    )  # fmt: skip
    hybrid = with_copies(recording, copies([400]), waveforms(), np.array([15]))
    added = hybrid.read_raw(0, 1000).astype(int) - 2000
    assert added[400].tolist() == [-128, 0, -160]
    np.testing.assert_allclose(hybrid.traces(385, 425), waveforms()[0].T, atol=0.2501)
    assert (stored == 2000).all()
    np.testing.assert_array_equal(hybrid.select([1]).raw(0, 1000)[:, 0], hybrid.raw(0, 1000)[:, 1])


def test_whole_numbers_do_not_wrap_round():
    recording = recording_from_array(np.full((1000, 1), -100, np.int8), FS)
    hybrid = with_copies(recording, copies([400]), waveforms(1), np.array([15]))
    assert hybrid.raw(0, 1000).min() == hybrid.raw(400, 401)[0, 0] == -128


@pytest.mark.parametrize("size", [1, 7, 64, 333])
def test_chunks_are_the_whole(size):
    noise = np.random.default_rng(1).integers(-50, 50, (1000, 2)).astype(np.int16)
    samples = [5, 64, 128, 333, 335, 640, 998]
    hybrid = with_copies(
        recording_from_array(noise, FS), copies(samples, units=[0, 1, 0, 1, 0, 1, 0]), waveforms(), np.array([15, 3])
    )
    whole = hybrid.traces(0, 1000)
    assert (whole != noise).any(axis=1).sum() > 100
    np.testing.assert_array_equal(np.concatenate([c.traces[c.core] for c in hybrid.chunks(size, margin=11)]), whole)


@pytest.mark.parametrize("highpass_hz", [300.0, 500.0])
def test_an_unfiltered_template_is_the_template_once_filtered(outcome, highpass_hz):
    config = PreprocessConfig(highpass_hz=highpass_hz)
    template = highpassed(outcome.sorting.templates, config)
    right = highpassed(unfiltered(template, config, FS), config) - template
    twice = highpassed(template, config) - template
    assert np.linalg.norm(right) < 0.02 * np.linalg.norm(template)
    assert np.linalg.norm(right) < 0.2 * np.linalg.norm(twice)


def highpassed(waveforms: np.ndarray, config: PreprocessConfig) -> np.ndarray:
    """Waveforms (n_units, n_channels, n_times) as the pipeline filters them, alone in a recording."""
    sos, margin = design_filter(config, FS)
    alone = np.pad(waveforms, ((0, 0), (0, 0), (2 * margin, 2 * margin)))
    recordings = [recording_from_array(waveform.T, FS) for waveform in alone]
    passed = [filtered(r, NO_GAPS, 0, r.n_samples, sos, margin, "none") for r in recordings]
    return np.stack(passed).transpose(0, 2, 1)[:, :, 2 * margin : -2 * margin]


# ---- where copies go, and how large they are


def test_copies_keep_their_distance(outcome):
    sorting = replace(outcome.sorting, excluded=np.array([[100_000, 140_000]]))
    drawn, rest, n_times = draw_copies(sorting, 0), 0.002 * sorting.sampling_frequency, sorting.templates.shape[2]
    assert (np.diff(drawn.sample) >= 0).all()
    assert not in_any(np.array([[100_000 - n_times, 140_000 + n_times]]), drawn.sample).any()
    assert drawn.sample.min() >= n_times
    assert drawn.sample.max() < sorting.n_samples - n_times
    for row, unit in enumerate(sorting.unit_ids):
        mine, own = drawn.of(row), sorting.spike_samples(unit)
        assert len(mine) == min(len(own), 200)
        assert np.diff(mine).min() > rest
        assert np.abs(mine[:, None] - own).min() > rest
    # they do overlap with the others' spikes
    others = sorting.spike_samples(1)
    assert np.abs(drawn.of(0)[:, None] - others).min() < rest


def test_a_seed_decides_the_copies(outcome):
    first, same, other = (draw_copies(outcome.sorting, seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.sample, same.sample)
    np.testing.assert_array_equal(first.scale, same.scale)
    assert not np.array_equal(first.sample, other.sample)


def test_the_scale_undoes_the_selection_by_the_threshold():
    """Amplitudes drawn about the scale and cut off at the threshold have the mean 1 that the template was made with."""
    model = {"whitened_norm": np.array([6.0, 30.0]), "spread": np.array([0.1, 0.1]), "penalty": np.array([8.0, 8.0])}
    scale = unselected_scale(model, model["spread"])
    assert scale[1] == pytest.approx(1, abs=0.005)
    assert 0.9 < scale[0] < 0.99
    seen = scale[0] + np.random.default_rng(0).normal(0, np.hypot(0.1, 1 / 6), 400_000)
    energy, precision = 6.0**2, 1 / 0.1**2
    gain = 0.5 * (seen * energy + precision) ** 2 / (energy + precision) - precision / 2
    assert seen[gain > 0.5 * np.log1p(energy / precision) + 8].mean() == pytest.approx(1, abs=0.01)


# ---- the verdict


def test_counting_by_hand():
    """Unit 0: of four copies one is missed and one goes to unit 1, where it stands for 2 real spikes; unit 1 gets one spike
    out of nowhere. A spike of unit 0 that changes to unit 1 counts for neither."""
    first = found({0: [10_000, 20_000, 30_000, 40_000, 50_000, 60_000, 70_000, 80_000], 1: [15_000, 25_000]})
    injected = copies([100_000, 110_000, 120_000, 130_000, 140_000, 150_000], units=[0, 0, 0, 0, 1, 1])
    again = found(
        {
            7: [15_003, 25_000, 120_001, 140_000, 150_005, 80_004, 500_000],
            8: [10_000, 20_000, 30_000, 40_000, 50_000, 60_000, 70_000, 100_004, 110_000],
        }
    )
    columns = judge(first, injected, matches_of(first, injected, again))
    assert columns["hybrid_injected"].tolist() == [4, 2]
    assert columns["hybrid_recall"].tolist() == [0.5, 1.0]
    assert columns["hybrid_precision"].tolist() == [1.0, pytest.approx(2 / (2 + 2 + 1))]


def test_what_is_known_of_spikes_at_copies():
    """A copy of its unit is right; beside another unit's copy a spike is false; of the others nothing is known."""
    first = found({0: [10_000, 20_000, 30_000, 40_000], 1: [15_000, 25_000]})
    again = found({7: [10_000, 20_000, 30_003, 100_002, 140_005, 40_015, 300_000], 8: [15_000, 25_000, 150_000]})
    again.spikes["probability"] = again.spikes["sample"] / 1e6
    injected = copies([100_000, 140_000, 150_000], units=[0, 1, 1])
    known = at_copies(first, injected, matches_of(first, injected, again))
    told = sorted(zip(known.probability.round(6), known.right, known.weight, strict=True))
    assert told == [(0.100002, True, 4.0), (0.140005, False, 1.0), (0.15, True, 1.0)]


@pytest.mark.parametrize(("said", "changes"), [(0.999, True), (0.9, False)])
def test_probabilities_fall_only_where_more_copies_are_false_than_said(said, changes):
    """A tenth of the spikes at copies is false."""
    sorting = found({0: list(range(1000, 101_000, 1000))})
    sorting.spikes["probability"] = said
    rate, high = np.array([1 - said]), np.array([0.2])
    sorting = replace(sorting, units={"false_alarm": rate, "false_alarm_low": 0 * rate, "false_alarm_high": high})
    known = KnownSpikes(np.full(200, said), np.arange(200) % 10 > 0, np.ones(200))
    after, sentence = recalibrated(sorting, known)
    fall = said - after.spikes["probability"].mean()
    assert (fall > 0.05) == changes and fall > -1e-6
    assert after.units["false_alarm"][0] == pytest.approx(1 - after.spikes["probability"].mean(), abs=1e-5)
    assert after.units["false_alarm_high"][0] >= high[0]
    assert f"10.00% of the spikes found at copies are false where {1 - said:.2%} were expected" in sentence


@pytest.fixture(scope="module")
def crowded():
    """One wire, three neurons of similar size that fire often: overlaps and confused units are the errors."""
    given = {"n_channels": 1, "n_units": 3, "snrs": (7.0, 5.5, 6.0), "rates_hz": (25.0, 30.0, 20.0), "n_bursting": 0}
    return simulate(preset_config("tetrode", duration_s=30.0, seed=2, **given))


@pytest.mark.parametrize("overconfident", [False, True])
def test_the_copies_mend_a_wrong_model_and_leave_a_right_one(crowded, monkeypatch, overconfident):
    """The wrong model says a tenth of the chance that overlaps, other units or noise make a spike false."""

    def wrong(*facts):
        told = judge_spikes(*facts)
        isolated = 1 - 0.1 * (1 - told.isolated)
        return replace(told, isolated=isolated, probability=told.probability * isolated / told.isolated)

    if overconfident:
        monkeypatch.setattr("spikecrsae.decode.build.judge", wrong)
    recording, truth = crowded.recording(), crowded.truth.trains()
    before = sort_group(recording, Config())
    after = self_test(recording, before).sorting
    errors = []
    for sorting in (before.sorting, after):
        judged = judged_spikes(truth, sorting, exhaustive=True)
        errors.append(expected_calibration_error(judged.probability, judged.right))
    if overconfident:
        assert errors[1] < 0.7 * errors[0]
        assert after.units["false_alarm"].mean() > after.units["false_alarm_before"].mean()
    else:
        assert errors[1] < errors[0] + 0.003


def test_a_lost_unit_has_recall_0_and_no_precision():
    first = found({0: [10_000, 20_000], 1: [15_000, 25_000]})
    injected = copies([100_000, 110_000], units=[0, 1])
    columns = judge(first, injected, matches_of(first, injected, found({0: [10_000, 20_000, 100_000]})))
    assert columns["hybrid_recall"].tolist() == [1.0, 0.0]
    assert columns["hybrid_precision"][0] == 1
    assert np.isnan(columns["hybrid_precision"][1])


def test_a_second_sorting_without_units_finds_nothing():
    columns = judge(found({0: [10_000]}), copies([100_000]), [])
    assert columns["hybrid_recall"].tolist() == [0.0]


def test_a_strong_unit_is_found_and_a_buried_one_is_not_always(tested):
    units = tested[0].sorting.units
    assert units["snr"][:2].min() > 8
    assert units["hybrid_recall"][:2].min() > 0.95
    assert units["hybrid_precision"][:2].min() > 0.95
    assert len(units["snr"]) == 3
    assert units["hybrid_recall"][2] < 0.85
    assert (units["hybrid_injected"] >= 100).all()


def test_found_copies_narrow_the_misses(tested, outcome):
    before, after = outcome.sorting.units, tested[0].sorting.units
    strong, buried = slice(0, 2), 2
    assert np.all(
        (after["miss_high"] - after["miss_low"])[strong] <= (before["miss_high"] - before["miss_low"])[strong] + 0.02
    )
    assert after["miss_low"][buried] <= 1 - after["hybrid_recall"][buried] + 0.1
    assert after["miss"][buried] > after["miss"][strong].max()


def test_the_sorting_itself_stays_and_the_course_is_one_stage(tested, outcome):
    result, course = tested
    names = [name for name in SPIKE_DTYPE.names if name != "probability"]
    np.testing.assert_array_equal(result.sorting.spikes[names], outcome.sorting.spikes[names])
    assert not set(COLUMNS) & set(outcome.sorting.units)
    assert [stage for stage, *_ in course.seen] == ["self-test"]
    _, total, done = course.seen[0]
    assert 0.5 * total < done <= total
    assert result.stage_seconds["self-test"] > 0


def test_where_the_hybrid_cannot_be_sorted_the_result_stays(simulation, outcome, monkeypatch):
    def refuse(*_, **__):
        raise InputError("never quiet.")

    monkeypatch.setattr("spikecrsae.pipeline.self_test.sort_group", refuse)
    result = self_test(simulation.recording(), outcome)
    assert result.warnings[-1] == "no self-test: never quiet."
    assert np.isnan(result.sorting.units["hybrid_recall"]).all()


def test_without_units_there_is_nothing_to_test(simulation, outcome):
    none = found({}, simulation.recording().n_samples)
    empty = replace(outcome, sorting=replace(none, templates=np.zeros((0, 4, 80), np.float32), model=_no_prior()))
    result = self_test(simulation.recording(), empty)
    assert [len(result.sorting.units[name]) for name in COLUMNS] == [0, 0, 0]


def _no_prior() -> dict[str, np.ndarray]:
    return {name: np.zeros(0) for name in ("spread", "penalty", "whitened_norm")}


# ---- the command line


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    path = tmp_path_factory.mktemp("recording") / "two.h5"
    write_simulation(simulate(preset_config("tetrode", n_units=2, n_bursting=0, duration_s=6.0, seed=3, snr_low=10.0)), path)
    return path


def test_the_command_line_shows_and_writes_the_columns(two, tmp_path):
    result = spikecrsae("sort", two, "-o", tmp_path / "r", "--epochs", 3, "--device", "cpu", "--estimate-errors")
    assert result.exit_code == 0, result.stderr
    assert "self-test" in result.stderr
    assert "hybrid recall" in result.stdout
    units = read_sorting(tmp_path / "r").units
    rows = list(csv.DictReader((tmp_path / "r" / "units.csv").read_text().splitlines()))
    assert [float(row["hybrid_recall"]) for row in rows] == pytest.approx(units["hybrid_recall"])
    assert [int(row["hybrid_injected"]) for row in rows] == units["hybrid_injected"].tolist()
    run = json.loads((tmp_path / "r" / "run.json").read_text())
    assert run["stage_seconds"]["self-test"] > 0
