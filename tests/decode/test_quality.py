"""Quality columns against SpikeInterface's own numbers, and the labels of units against what is known of them."""

from __future__ import annotations

import csv
import io
import json
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from spikecrsae.cli.console import Narrator
from spikecrsae.cli.result import show_outcome
from spikecrsae.config import Config
from spikecrsae.data.recording import recording_from_array
from spikecrsae.data.timeline import Timeline
from spikecrsae.decode.collect import KEPT_WAVEFORMS, WaveformSample
from spikecrsae.decode.quality import (
    Evidence,
    isolation,
    label_units,
    mahalanobis_measures,
    mains_locking,
    pulse_locking,
    refractory_violations,
    unit_columns,
    waveform_fill,
)
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.preprocess.preprocessor import PreprocessedRecording, Preprocessor
from spikecrsae.results.sorting_h5 import sorting_from_hdf5, sorting_to_hdf5
from spikecrsae.results.tables import units_csv
from spikecrsae.simulate import preset_config, simulate

FS = 25000.0  # 1.5 ms are 37.5 samples: no interval lies on the limit, where SpikeInterface's seconds round either way
DEAD_TIME = 18


def poisson(rate: float, seconds: float, dead_time: int, rng: np.random.Generator) -> np.ndarray:
    """Samples of a Poisson train whose intervals are longer than dead_time samples."""
    n = int(rate * seconds * 1.5 + 50)
    samples = np.cumsum(dead_time + 1 + np.floor(rng.exponential(FS / rate, n)).astype(np.int64))
    return samples[samples < seconds * FS]


def pooled(*trains: np.ndarray, dead_time: int = DEAD_TIME) -> np.ndarray:
    """The spikes of all trains as one unit; of two closer than the decoder's dead time one is found."""
    kept = []
    for sample in np.sort(np.concatenate(trains)):
        if not kept or sample - kept[-1] > dead_time:
            kept.append(sample)
    return np.array(kept, np.int64)


def evidence(trains: list[np.ndarray], n_samples: int, **values) -> Evidence:
    """Evidence of strong units with these spike trains; each spike's waveform is one number, its amplitude."""
    rng = np.random.default_rng(3)
    amplitudes = [100 + 10 * rng.standard_normal(len(t)) for t in trains]
    n_units = len(trains)
    spike = np.exp(-0.5 * (np.arange(-40, 40) / 3.0) ** 2)
    given = {
        "samples": trains,
        "amplitudes": amplitudes,
        "waveforms": [a[:, None, None] for a in amplitudes],
        "waveform_samples": trains,
        "templates": np.tile(100 * spike, (n_units, 1, 1)),
        "templates_std": np.full((n_units, 1, 80), 10.0),
        "noise_level": np.array([8.0]),
        "whitened_norm": np.full(n_units, 12.0),
        "timeline": Timeline(np.zeros(1, np.int64), np.zeros(1), FS),
        "n_samples": n_samples,
        "dead_time": DEAD_TIME,
    }
    return Evidence(**given | values)


def labels(what: Evidence) -> list[str]:
    return label_units(unit_columns(what)).tolist()


# ---- SpikeInterface's numbers


@dataclass
class Compared:
    columns: dict[str, np.ndarray]
    theirs: dict


@pytest.fixture(scope="module")
def spike_measures() -> Compared:
    """Trains of several kinds over 130 s: two full minutes for the presence ratio, and a rest."""
    si = pytest.importorskip("spikeinterface")
    metrics = pytest.importorskip("spikeinterface.metrics")
    rng = np.random.default_rng(0)
    seconds = 130
    trains = [
        poisson(20, seconds, 60, rng),
        pooled(*(poisson(15, seconds, 60, rng) for _ in range(3))),
        poisson(8, 50, DEAD_TIME, rng),
        poisson(60, seconds, DEAD_TIME, rng),
        np.array([100, 130, 5000, 9000, 11000]),
    ]
    what = evidence(trains, int(seconds * FS))
    kept = np.concatenate([a[a > 88] for a in what.amplitudes[:1]])
    trains[0] = trains[0][: len(kept)]
    what = evidence(trains, int(seconds * FS), amplitudes=[kept, *what.amplitudes[1:]])
    what = replace(what, waveforms=[a[:, None, None] for a in what.amplitudes], waveform_samples=trains)
    silent = si.NumpyRecording(np.zeros((int(seconds * FS), 1), np.float32), FS)
    silent.set_dummy_probe_from_locations(np.zeros((1, 2)))
    sorting = si.NumpySorting.from_unit_dict({str(u): t for u, t in enumerate(trains)}, FS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analyzer = si.create_sorting_analyzer(sorting, silent, sparse=False, return_in_uV=False)
        analyzer.compute(["random_spikes", "templates", "noise_levels", "spike_amplitudes"])
        vector = analyzer.sorting.to_spike_vector()
        values = np.zeros(len(vector))
        for unit, amplitudes in enumerate(what.amplitudes):
            values[vector["unit_index"] == unit] = amplitudes
        analyzer.get_extension("spike_amplitudes").data["amplitudes"] = values
        analyzer.recording.set_property("noise_level_std_raw", what.noise_level)
        analyzer.get_extension("templates").data["average"] = what.templates.transpose(0, 2, 1)
        analyzer.get_extension("noise_levels").data["noise_levels"] = what.noise_level
        names = ["num_spikes", "firing_rate", "presence_ratio", "isi_violation", "rp_violation", "amplitude_cutoff"]
        table = metrics.compute_quality_metrics(
            analyzer,
            metric_names=[*names, "noise_cutoff", "sd_ratio", "snr"],
            metric_params={
                "isi_violation": {"isi_threshold_ms": 1.5, "min_isi_ms": 1000 * (DEAD_TIME + 1) / FS},
                "rp_violation": {"refractory_period_ms": 1.5, "censored_period_ms": 1000 * DEAD_TIME / FS},
                # our noise level is measured where no spike is
                "sd_ratio": {"correct_for_template_itself": False},
            },
        )
    return Compared(unit_columns(what), {name: table[name].to_numpy(dtype=float) for name in table.columns})


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "firing_rate",
        "presence_ratio",
        "isi_violations_ratio",
        "isi_violations_count",
        "rp_violations",
        "rp_contamination",
        "amplitude_cutoff",
        "noise_cutoff",
        "noise_ratio",
        "sd_ratio",
        "snr",
    ],
)
def test_columns_are_those_of_spikeinterface(spike_measures, name):
    ours, theirs = spike_measures.columns[name].astype(float), spike_measures.theirs[name]
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)
    assert np.isfinite(ours).sum() >= 3
    assert len(np.unique(ours[np.isfinite(ours)])) >= (1 if name == "snr" else 2)


def test_the_number_of_spikes_is_that_of_spikeinterface(spike_measures):
    np.testing.assert_array_equal(spike_measures.columns["n_spikes"], spike_measures.theirs["num_spikes"])


@pytest.fixture(scope="module")
def simulation():
    """Three neurons, and a short artefact on all channels in every period of 50 Hz mains."""
    base = simulate(
        preset_config(
            "tetrode", n_units=3, n_bursting=0, duration_s=15.0, seed=4, snrs=(14.0, 11.0, 9.0), rates_hz=(35.0, 18.0, 15.0)
        )
    )
    traces = base.traces.astype(np.float64)
    rng = np.random.default_rng(1)
    hum = np.arange(0.011, 14.9, 1 / 50.0) * base.sampling_frequency
    hum = np.rint(hum + 4 * rng.standard_normal(len(hum))).astype(np.int64)
    time = np.arange(-20, 21)
    pulse = 130 * np.sin(0.5 * time) * np.exp(-0.5 * (time / 5.0) ** 2) / base.gain
    for sample in hum:
        traces[sample + time] += pulse[:, None] * np.array([1.0, 0.9, 0.95, 1.0])
    return replace(base, traces=np.rint(traces).astype(np.int16)), hum


@pytest.fixture(scope="module")
def outcome(simulation):
    return sort_group(simulation[0].recording(), quick())


def quick() -> Config:
    return Config().with_values({"train": {"epochs": 3}, "runtime": {"device": "cpu"}})


@pytest.fixture(scope="module")
def analyzer(simulation, outcome):
    """SpikeInterface's view of the sorter's spikes in the high-passed recording."""
    si = pytest.importorskip("spikeinterface")
    sorting, preprocessor = outcome.sorting, Preprocessor(**outcome.checkpoint["preprocessor"])
    view = PreprocessedRecording(simulation[0].recording(), preprocessor)
    recording = si.NumpyRecording(view.highpassed(0, view.n_samples), sorting.sampling_frequency)
    recording.set_dummy_probe_from_locations(simulation[0].channel_positions)
    trains = si.NumpySorting.from_unit_dict(sorting.trains(), sorting.sampling_frequency)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        analyzer = si.create_sorting_analyzer(
            trains, recording, sparse=False, return_in_uV=False, peak_sign="both", peak_mode="extremum"
        )
        analyzer.compute("random_spikes", method="uniform", max_spikes_per_unit=100_000)
        analyzer.compute("waveforms", ms_before=1.5, ms_after=1.5)
        analyzer.compute(["templates", "noise_levels"])
        analyzer.compute("principal_components", mode="concatenated", n_components=5)
        analyzer.get_extension("noise_levels").data["noise_levels"] = preprocessor.noise_level
    return analyzer


def test_snr_of_a_sorting_is_that_of_spikeinterface(analyzer, outcome):
    """Same signal and noise levels. The mean waveform is gathered before the few outliers among the spikes are known, so it
    holds theirs too: up to 4 of 504 spikes, with the artefacts that they fell on."""
    metrics = pytest.importorskip("spikeinterface.metrics")
    table = metrics.compute_quality_metrics(analyzer, metric_names=["snr"])
    np.testing.assert_allclose(outcome.sorting.units["snr"], table["snr"].to_numpy(float), rtol=4 / 504)


def test_isolation_is_that_of_spikeinterface(analyzer):
    """On the same features: SpikeInterface's own components are an incremental approximation, fitted unit after unit."""
    metrics = pytest.importorskip("spikeinterface.metrics")
    table = metrics.compute_quality_metrics(analyzer, metric_names=["mahalanobis"])
    features, unit = analyzer.get_extension("principal_components").get_some_projections()
    assert features.shape[1] == 5
    ours = np.array([mahalanobis_measures(features[unit == u], features[unit != u]) for u in range(len(table))])
    theirs = table[["isolation_distance", "l_ratio"]].to_numpy(float)
    assert np.isfinite(theirs).all()
    np.testing.assert_allclose(ours[:, 0], theirs[:, 0], rtol=1e-6)
    # theirs is 1 - cdf, which is rounded at 1e-16 per spike
    np.testing.assert_allclose(ours[:, 1], theirs[:, 1], rtol=1e-6, atol=1e-12)


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
