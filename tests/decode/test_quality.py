"""Quality columns, and the labels of units against what is known of them."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.trains import DEAD_TIME, FS, evidence, poisson, pooled, quick

from spikecrsae.cli.console import Narrator
from spikecrsae.cli.result import show_outcome
from spikecrsae.data.recording import recording_from_array
from spikecrsae.decode.collect import KEPT_WAVEFORMS, WaveformSample
from spikecrsae.decode.quality import (
    Evidence,
    isolation,
    label_units,
    mains_locking,
    pulse_locking,
    refractory_violations,
    unit_columns,
    waveform_fill,
)
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.results.sorting_h5 import sorting_from_hdf5, sorting_to_hdf5
from spikecrsae.results.tables import units_csv


def labels(what: Evidence) -> list[str]:
    return label_units(unit_columns(what)).tolist()


# ---- isolation


def test_units_that_overlap_are_less_isolated():
    rng = np.random.default_rng(0)
    shape = rng.standard_normal((20, 2))
    near, far = ([k * shape + rng.standard_normal((300, 20, 2)) for k in (2, 2 + gap)] for gap in (0.5, 4))
    (near_distance, near_ratio), (far_distance, far_ratio) = isolation(near), isolation(far)
    assert (far_distance > 2 * near_distance).all()
    assert (far_ratio < 0.01 * near_ratio).all()


def test_isolation_needs_other_spikes_and_enough_of_its_own():
    rng = np.random.default_rng(0)
    waveforms = [rng.standard_normal((n, 10, 2)) for n in (5, 200)]
    distance, ratio = isolation(waveforms)
    assert np.isnan(distance).tolist() == np.isnan(ratio).tolist() == [True, False]
    assert np.isnan(isolation(waveforms[1:])[0]).all()
    assert len(isolation([])[0]) == 0


def test_the_kept_waveforms_are_few_and_the_same_for_every_chunk_length():
    rng = np.random.default_rng(0)
    traces = rng.standard_normal((200_000, 2)).astype(np.float32)
    starts = np.sort(rng.choice(199_000, 4000, replace=False))

    def sample(chunk: int, seed: int = 0) -> WaveformSample:
        kept = WaveformSample(n_times=20, n_channels=2, seed=seed)
        for first in range(0, len(traces), chunk):
            mine = starts[(starts >= first) & (starts < first + chunk)]
            kept.add(mine, traces[first : first + chunk + 20], mine - first)
        return kept

    whole, pieces = sample(200_000), sample(777)
    np.testing.assert_array_equal(whole.samples, pieces.samples)
    np.testing.assert_array_equal(whole.windows, pieces.windows)
    np.testing.assert_array_equal(whole.windows[7], traces[whole.samples[7] : whole.samples[7] + 20])
    assert len(whole.windows) == KEPT_WAVEFORMS
    assert np.isin(whole.samples, starts).all()
    assert len(np.intersect1d(whole.samples, sample(200_000, seed=1).samples)) < 120  # 62 by chance
    # drawn evenly: the mean of 500 of 200,000 equally likely places
    assert abs(whole.samples.mean() - starts.mean()) < 4 * 57_700 / np.sqrt(KEPT_WAVEFORMS)


# ---- contamination


@pytest.mark.parametrize("part", [0.0, 0.05, 0.3])
def test_the_interval_of_the_contamination_holds_the_truth(part):
    """Foreign spikes, independent of the neuron's and of each other, make up `part` of a unit."""
    rng = np.random.default_rng(2)
    n_samples = int(600 * FS)
    train = pooled(poisson(30 * (1 - part), 600, 75, rng), *([poisson(30 * part, 600, 0, rng)] if part else []))
    found = refractory_violations(train, FS, n_samples, DEAD_TIME)
    assert found["contamination_low"] <= part <= found["contamination_high"]
    assert found["contamination_low"] <= found["rp_contamination"] <= found["contamination_high"]
    assert found["contamination_high"] - found["contamination_low"] < 0.15


def test_few_spikes_prove_nothing():
    train = poisson(2, 60, 75, np.random.default_rng(0))
    found = refractory_violations(train, FS, int(60 * FS), DEAD_TIME)
    assert (found["contamination_low"], found["contamination_high"]) == (0, 1)
    assert labels(evidence([train], int(60 * FS))) == ["single"]


def test_a_dead_time_beyond_the_refractory_period_hides_every_violation():
    found = refractory_violations(poisson(20, 60, 50, np.random.default_rng(0)), FS, int(60 * FS), dead_time=50)
    assert found["isi_violations_count"] == 0
    assert np.isnan([found["isi_violations_ratio"], found["rp_contamination"], found["contamination_high"]]).all()


# ---- labels


def test_three_neurons_in_one_unit_are_multi_and_each_alone_is_single():
    rng = np.random.default_rng(5)
    trains = [poisson(rate, 60, 75, rng) for rate in (20, 15, 12)]
    assert labels(evidence([*trains, pooled(*trains)], int(60 * FS))) == ["single"] * 3 + ["multi"]


def test_a_sorting_labels_its_neurons_and_the_hum(simulation, outcome):
    """Three neurons are single; the artefact in every period of the mains is noise."""
    sorting, hum = outcome.sorting, simulation[1]
    of_hum = [
        np.mean(np.abs(hum[:, None] - sorting.spike_samples(u)[None]).min(axis=1) < 20) > 0.8 for u in sorting.unit_ids
    ]
    assert np.sum(of_hum) == 1
    assert sorting.units["label"].tolist() == ["noise" if mine else "single" for mine in of_hum]
    assert (sorting.units["mains_locking"][of_hum] > 0.9).all()
    assert (sorting.units["mains_locking"][~np.array(of_hum)] < 0.1).all()


@pytest.mark.parametrize("frequency", [50.0, 60.0, 50.02, 59.98])
@pytest.mark.parametrize("part", [1.0, 0.1])
def test_spikes_in_phase_with_the_mains_are_noise(frequency, part):
    """Also when the grid is off its nominal frequency, and when few of its periods show."""
    rng = np.random.default_rng(0)
    times = np.arange(0.1, 60, 1 / frequency)
    times = times[rng.random(len(times)) < part]
    times += 0.0005 * rng.standard_normal(len(times))
    train = np.sort(np.rint(times * FS).astype(np.int64))
    assert mains_locking(train, FS) > 0.85
    assert labels(evidence([train], int(60 * FS))) == ["noise"]


@pytest.mark.parametrize("frequency", [2.0, 10.0, 15.0, 20.0])
def test_spikes_in_phase_with_a_slow_stimulus_are_a_neurons(frequency):
    """Every multiple of 10 Hz is a multiple of the stimulus' rhythm, 50 Hz as well."""
    times = np.arange(0.1, 60, 1 / frequency)
    times += 0.0005 * np.random.default_rng(0).standard_normal(len(times))
    train = np.rint(times * FS).astype(np.int64)
    assert mains_locking(train, FS) == 0.0
    assert labels(evidence([train], int(60 * FS))) == ["single"]


@pytest.mark.parametrize("lag_ms", [-0.4, 0.0, 0.5, 3.0, 15.0])
def test_spikes_at_one_lag_to_pulses_are_an_artefact(lag_ms):
    rng = np.random.default_rng(0)
    pulses = np.sort(rng.integers(1000, int(59 * FS), 120))
    train = pulses + round(lag_ms * FS / 1000) + rng.integers(-1, 2, 120)
    for n_own, is_artefact in ((0, True), (60, True), (400, False)):
        mixed = pooled(train, np.sort(rng.integers(1000, int(59 * FS), n_own)))
        found = evidence([mixed], int(60 * FS), pulses=pulses)
        assert (labels(found) == ["artefact"]) == is_artefact
        assert pulse_locking(mixed, pulses, FS) == pytest.approx(120 / (120 + n_own), abs=0.06)


def test_spikes_at_several_lags_to_pulses_are_an_artefact():
    """What is left of a pulse is found where its template begins and ends."""
    rng = np.random.default_rng(0)
    pulses = np.sort(rng.integers(1000, int(59 * FS), 120))
    lags = np.rint(np.array([5.0, 9.0, 14.0]) * FS / 1000).astype(np.int64)
    train = pooled(pulses + lags[rng.integers(0, 3, 120)], pulses[rng.random(120) < 0.3] + lags[0])
    own = np.sort(rng.integers(1000, int(59 * FS), 40))
    found = evidence([pooled(train, own)], int(60 * FS), pulses=pulses)
    assert labels(found) == ["artefact"]
    assert unit_columns(found)["pulse_locking"][0] == pytest.approx(len(train) / (len(train) + 40), abs=0.06)


@pytest.mark.parametrize("jitter_ms", [0.1, 0.3, 1.0])
@pytest.mark.parametrize("period_s", [0.25, None])
def test_a_neuron_that_answers_pulses_is_none(jitter_ms, period_s):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        times = np.arange(0.1, 59, period_s) if period_s else np.sort(rng.uniform(0.1, 59, 50))
        pulses = np.rint(times * FS).astype(np.int64)
        train = np.sort(np.rint((times + 0.003 + jitter_ms / 1000 * rng.standard_normal(len(times))) * FS).astype(np.int64))
        found = evidence([train], int(60 * FS), pulses=pulses)
        assert labels(found) == ["single"]
        assert unit_columns(found)["pulse_locking"][0] < 0.5


def test_spikes_that_keep_time_are_an_artefact_without_known_pulses():
    rng = np.random.default_rng(0)
    clock = np.rint(np.arange(0.1, 59, 0.2501) * FS).astype(np.int64)
    regular = np.cumsum(np.rint(FS * 0.1 * (1 + 0.05 * rng.standard_normal(580))).astype(np.int64))
    trains = [clock, regular, poisson(30, 60, 75, rng)]
    assert labels(evidence(trains, int(60 * FS))) == ["artefact", "single", "single"]


def test_few_spikes_near_pulses_are_chance():
    rng = np.random.default_rng(0)
    pulses = np.sort(rng.integers(0, int(60 * FS), 6000))
    assert pulse_locking(poisson(5, 60, 75, rng), pulses, FS) == 0
    assert pulse_locking(pulses[[10, 400]] + 5, pulses, FS) == 0
    assert pulse_locking(np.zeros(0, np.int64), pulses, FS) == 0


def test_neurons_are_not_taken_for_mains():
    """Poisson trains, and one that fires fifty times a second at nearly equal intervals."""
    rng = np.random.default_rng(0)
    regular = np.cumsum(np.rint(FS * 0.02 * (1 + 0.15 * rng.standard_normal(2900))).astype(np.int64))
    trains = [poisson(rate, 60, 75, rng) for rate in (0.2, 3, 30, 90)] + [regular]
    assert max(mains_locking(train, FS) for train in trains) < 0.3
    assert labels(evidence(trains, int(60 * FS))) == ["single"] * 5


def test_a_typical_spike_must_be_more_probable_than_noise():
    """At 1 Hz of 25,000 samples the odds are even for a whitened norm of sqrt(2 log 25,000) = 4.5."""
    train = poisson(1, 600, 75, np.random.default_rng(0))
    n_samples = len(train) * 25_000
    for norm, label in ((4.4, "noise"), (4.6, "single")):
        assert labels(evidence([train], n_samples, whitened_norm=np.array([norm]))) == [label]


def test_a_waveform_that_does_not_end_is_no_spike():
    train = poisson(5, 60, 75, np.random.default_rng(0))
    wave = 100 * np.sin(2 * np.pi * np.arange(80) / 20)[None, None]
    assert waveform_fill(wave, np.zeros_like(wave), np.array([len(train)]))[0] == pytest.approx(2 / 3)
    assert labels(evidence([train], int(60 * FS), templates=wave)) == ["noise"]
    assert unit_columns(evidence([train], int(60 * FS)))["waveform_fill"][0] < 0.2


def test_estimated_error_rates_count_where_they_are_known():
    columns = unit_columns(evidence([poisson(10, 60, 75, np.random.default_rng(u)) for u in range(4)], int(60 * FS)))
    assert label_units(columns).tolist() == ["single"] * 4
    columns["false_alarm"] = np.array([0.02, 0.2, 0.02, np.nan])
    columns["miss"] = np.array([0.05, 0.0, 0.3, np.nan])
    assert label_units(columns).tolist() == ["single", "multi", "multi", "single"]


def test_a_unit_whose_interval_is_too_wide_is_unsure():
    columns = unit_columns(evidence([poisson(10, 60, 75, np.random.default_rng(u)) for u in range(3)], int(60 * FS)))
    columns |= {"false_alarm": np.array([0.01, 0.05, 0.2]), "false_alarm_high": np.array([0.05, 0.3, 0.3])}
    assert label_units(columns).tolist() == ["single", "unsure", "multi"]


# ---- where the columns go


def test_the_label_is_in_every_form_of_the_result(outcome, tmp_path, capsys):
    found = outcome.sorting.units["label"].tolist()
    rows = list(csv.DictReader(io.StringIO(units_csv(outcome.sorting).decode())))
    assert [row["label"] for row in rows] == found
    assert {row["presence_ratio"] for row in rows} == {""}  # no full minute
    (tmp_path / "sorting.h5").write_bytes(sorting_to_hdf5(outcome.sorting, "{}"))
    assert sorting_from_hdf5(tmp_path / "sorting.h5")[0].units["label"].tolist() == found
    narrator = Narrator(quiet=True)
    show_outcome(outcome, Path("result"), True, narrator)
    units = json.loads(capsys.readouterr().out)["units"]
    assert [unit["label"] for unit in units] == found
    assert {unit["presence_ratio"] for unit in units} == {None}
    show_outcome(outcome, Path("result"), False, narrator)
    heading, _, *lines = capsys.readouterr().out.splitlines()
    assert heading.split()[1] == "label"
    assert [line.split()[1] for line in lines] == found


@pytest.mark.slow
def test_a_sorting_without_units_has_all_columns():
    noise = 10 * np.random.default_rng(1).standard_normal((40_000, 2))
    sorting = sort_group(recording_from_array(noise.astype(np.float32), 20000.0), quick()).sorting
    assert sorting.n_units == 0
    assert {"label", "firing_rate", "isolation_distance", "l_ratio", "amplitude_cutoff"} <= set(sorting.units)
    assert sorting.units["isi_violations_count"].dtype == np.int64


@pytest.mark.slow
def test_the_mirror_image_has_the_same_sorting(simulation, outcome):
    """Nothing in the method prefers a sign: sort(-x) has the spikes of sort(x), bit by bit, and its templates mirrored."""
    original = simulation[0]
    mirrored = sort_group(replace(original, traces=-original.traces).recording(), quick()).sorting
    np.testing.assert_array_equal(mirrored.spikes, outcome.sorting.spikes)
    np.testing.assert_array_equal(mirrored.templates, -outcome.sorting.templates)
