"""The columns of units.csv against SpikeInterface's numbers."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest
from helpers.trains import DEAD_TIME, FS, evidence, poisson, pooled

from spikecrsae.decode.quality import (
    mahalanobis_measures,
    unit_columns,
)
from spikecrsae.preprocess.preprocessor import PreprocessedRecording, Preprocessor

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
