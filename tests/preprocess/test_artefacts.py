"""What is left out: intervals given or found stay without influence, artefacts are told from spikes, and recordings without a
neuron give no unit."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from helpers.command_line import spikecrsae
from helpers.disturbed import FS, found_in, hum, noise, preprocessed, recorded, rubbing

from spikecrsae.config import Config, PreprocessConfig
from spikecrsae.data.artefacts import KINDS
from spikecrsae.data.intervals import in_any, inside
from spikecrsae.errors import InputError
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.preprocess import stretches
from spikecrsae.preprocess.artefacts import find_artefacts
from spikecrsae.preprocess.line_noise import find_lines, strongest
from spikecrsae.preprocess.preprocessor import PreprocessedRecording
from spikecrsae.progress import Observer
from spikecrsae.readers import open_recording
from spikecrsae.results.folder import read_sorting
from spikecrsae.simulate import preset_config, simulate, write_simulation

QUICK = Config().with_values({"train": {"epochs": 3}, "runtime": {"device": "cpu"}})


# ---- artefacts


@pytest.mark.parametrize("n_channels", [1, 4])
def test_movement_is_found_where_it_is_whatever_the_blocks(n_channels, monkeypatch):
    traces = noise(n_channels, 20.0)
    gains = np.linspace(0.7, 1.3, n_channels)
    for start, stop in ((3.0, 3.2), (12.4, 12.9)):
        traces += rubbing(len(traces), start, stop, 400) * gains
    found = found_in(recorded(traces)) / FS
    np.testing.assert_allclose(found, [[3.0, 3.2], [12.4, 12.9]], atol=0.07)
    assert np.all(found[:, 0] <= [3.0, 12.4])
    assert np.all(found[:, 1] >= [3.2, 12.9])
    assert len(found_in(recorded(traces), gaps=np.array([[30_000, 32_000]]))) == 1
    monkeypatch.setattr(stretches, "BLOCK", 7700)
    assert np.array_equal(found, found_in(recorded(traces)) / FS)


def test_movement_on_one_channel_of_four_is_no_artefact():
    traces = noise(4, 5.0)
    traces[:, :1] += rubbing(len(traces), 2.0, 2.5, 400)
    assert len(found_in(recorded(traces))) == 0


@pytest.mark.parametrize("at_s", [(0.0,), (7.3,), (2.0, 7.3, 7.31, 12.0)])
def test_a_few_clicks_are_found_and_many_are_pulses(at_s):
    traces = noise(2, 20)
    spikes = np.arange(0.5, 19.5, 0.1)
    for moment in spikes:
        traces[int(moment * FS) : int(moment * FS) + 8] -= 150
    assert len(found_in(recorded(traces))) == 0
    for moment in at_s:
        traces[int(moment * FS) : int(moment * FS) + 8] += 3000
    found = found_in(recorded(traces)) / FS
    for moment in at_s:
        assert np.any((found[:, 0] <= moment) & (moment + 0.0008 <= found[:, 1])), moment
    assert np.diff(found).sum() < 0.02 * len(at_s)
    irregular = np.sort(np.random.default_rng(4).uniform(0.5, 19.5, 20))
    for moment in irregular:
        traces[int(moment * FS) : int(moment * FS) + 8] += 3000
    table = find_artefacts(recorded(traces), PreprocessConfig(), Observer()).table
    pulses = table[table["kind"] == KINDS.index("pulse")]
    assert np.mean([np.abs(pulses["sample"] / FS - moment).min() < 0.002 for moment in irregular]) > 0.9


@pytest.mark.slow
def test_a_click_in_front_costs_no_neuron(simulation):
    """Least squares would pull the templates of all units to it."""
    whole = simulation.recording()
    counts = np.array(whole.raw(0, whole.n_samples))
    clean = sort_group(whole, QUICK).sorting
    counts[:16] = np.iinfo(counts.dtype).max
    clicked = sort_group(replace(whole, read_raw=lambda start, stop: counts[start:stop]), QUICK)
    assert "1 stretch looks like an artefact" in " ".join(clicked.warnings)
    assert clicked.sorting.n_units == clean.n_units
    assert abs(len(clicked.sorting.spikes) - len(clean.spikes)) <= 0.01 * len(clean.spikes)


def test_stuck_values_are_found():
    traces = noise(2, 5.0)
    traces[20_000:20_300] = 700.0
    found = found_in(recorded(traces))
    assert len(found) == 1
    assert found[0, 0] <= 20_000
    assert found[0, 1] >= 20_300


@pytest.mark.parametrize("n_channels", [1, 4])
@pytest.mark.parametrize("snr", [10.0, 75.0])
def test_dense_bursts_of_large_spikes_are_no_artefact(n_channels, snr):
    dense = simulate(
        preset_config(
            "tetrode", n_units=8, n_bursting=8, duration_s=10.0, rates_hz=(50.0,) * 8, n_channels=n_channels, seed=3,
            snrs=tuple(np.linspace(snr, snr / 2, 8)),
        )
    )  # fmt: skip
    assert len(found_in(dense.recording())) == 0


@pytest.mark.parametrize(
    ("file", "options"),
    [
        ("hc1_tetrode_dev.h5", {}),
        ("locust_trial_01.raw", {"sampling_frequency": 15000.0, "n_channels": 4, "dtype": "int16"}),
        ("synth_tetrode5.nwb", {}),
    ],
)
def test_nothing_is_left_out_of_the_development_recordings(data_dir, file, options):
    recording = open_recording(data_dir / file, **options)
    assert len(found_in(recording)) == 0
    assert len(found_in(recording.select([0]))) == 0
    recording.close()


# ---- hum


def test_lines_are_found_where_they_are_and_none_in_noise():
    traces = noise(2, 12.0)
    blocks = [traces[i : i + 10_000] for i in range(0, 120_000, 10_000)]
    everywhere = [np.ones(10_000, bool)] * 12
    assert len(find_lines(blocks, everywhere, FS)) == 0
    line = np.sin(2 * np.pi * 617.3 * np.arange(120_000) / FS)[:, None]
    blocks = [(traces + 3 * line)[i : i + 10_000] for i in range(0, 120_000, 10_000)]
    assert find_lines(blocks, everywhere, FS)[:, 0] == pytest.approx([617.3], abs=0.5)


def test_hum_is_taken_out_and_noise_stays():
    traces = noise(2, 10.0)
    none = np.zeros((0, 2), np.int64)
    clean, humming = (preprocessed(recorded(x), none) for x in (traces, traces + hum(len(traces), 900, 100)))
    assert clean.preprocessor.settling == 0
    left = slice(10_000, 90_000)
    signals = [view.highpassed(0, 100_000)[left, 0].astype(float) for view in (clean, humming)]
    lines = PreprocessedRecording(recorded(hum(len(traces), 900, 100)), clean.preprocessor).highpassed(0, 100_000)[left, 0]
    before, after = (np.abs((signals[1] - signals[0] + add) @ lines) / (lines @ lines) for add in (lines, 0))
    assert before == pytest.approx(1.0, abs=0.03)
    assert after < 0.03
    assert signals[1].std() == pytest.approx(signals[0].std(), rel=0.15)


def test_a_pure_tone_is_no_hundred_lines_of_hum():
    tone = 100 * np.sin(2 * np.pi * 700.3 * np.arange(60_000) / FS)[:, None]
    blocks = [tone[i : i + 10_000] for i in range(0, 60_000, 10_000)]
    found = find_lines(blocks, [np.ones(10_000, bool)] * 6, FS)
    assert len(found) > 100
    lines, said = strongest(found)
    assert len(lines) == 30 and lines[:, 2].sum() > 0.99 * found[:, 2].sum()
    assert np.abs(lines[:, 0] - 700.3).min() < 1
    assert f"{len(found)} lines" in said
    assert strongest(lines)[0] is lines


# ---- recordings without a neuron

N_S = 8.0


SILENT = {
    "noise, 1 channel": noise(1, N_S, 5),
    "noise, 4 channels": noise(4, N_S, 6),
    "white noise, 4 channels": 10 * np.random.default_rng(7).standard_normal((int(N_S * FS), 4)),
    "hum, 4 channels": noise(4, N_S, 8) + hum(int(N_S * FS), 900, 100),
    "hum, 1 channel": noise(1, N_S, 9) + hum(int(N_S * FS), 900, 100),
    "movement, 4 channels": noise(4, N_S, 10)
    + sum(rubbing(int(N_S * FS), t, t + 0.15, 400, seed) for seed, t in enumerate((1.0, 3.3, 4.1, 7.0))),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SILENT)
def test_without_a_neuron_there_is_no_unit(name):
    outcome = sort_group(recorded(SILENT[name]), QUICK)
    assert outcome.sorting.n_units == 0
    assert any("like artefacts" in said for said in outcome.warnings) == name.startswith("movement")


# ---- from end to end


@pytest.fixture(scope="module")
def simulation():
    return simulate(
        preset_config("tetrode", n_units=2, n_bursting=0, duration_s=6.0, seed=4, snrs=(14.0, 11.0), rates_hz=(15.0, 20.0))
    )


@pytest.mark.slow
def test_excluded_time_holds_no_spike_and_is_told(simulation, tmp_path):
    write_simulation(simulation, tmp_path / "r.h5")
    options = ["--exclude-s", "2-3,5.5-6", "--exclude-s", "2.5-3.5", "--quiet", "--epochs", "3"]
    words = ["sort", str(tmp_path / "r.h5"), *options]
    done = spikecrsae(*words)
    assert done.exit_code == 0, done.output
    sorting = read_sorting(tmp_path / "r.h5.sorted")
    fs = sorting.sampling_frequency
    np.testing.assert_allclose(sorting.excluded / fs, [[2, 3.5], [5.5, 6]], atol=0.004)
    assert not in_any(sorting.excluded, sorting.spikes["sample"]).any()
    truth = simulation.truth.spikes["sample"]
    assert len(sorting.spikes) == pytest.approx(np.sum(~in_any(sorting.excluded, truth)), rel=0.05)
    looked_at = 6 - np.diff(sorting.excluded).sum() / fs
    np.testing.assert_allclose(sorting.units["firing_rate"], sorting.units["n_spikes"] / looked_at)
    record = json.loads((tmp_path / "r.h5.sorted" / "run.json").read_text())
    np.testing.assert_allclose(record["excluded_s"], sorting.excluded / fs)
    assert record["config"]["preprocess"]["exclude_s"] == "2-3,5.5-6,2.5-3.5"


@pytest.mark.slow
def test_a_bad_interval_ends_with_one_line(simulation, tmp_path):
    write_simulation(simulation, tmp_path / "r.h5")
    done = spikecrsae("sort", tmp_path / "r.h5", "--exclude-s", "5-13")
    assert done.exit_code == 2
    assert "lasts from 0 to 6 s" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r.h5.sorted").exists()


@pytest.mark.slow
def test_artefacts_are_kept_when_asked(simulation):
    traces = simulation.traces[:80_000] * simulation.gain
    traces[60_000:60_400] = 5.0
    recording = recorded(traces, simulation.sampling_frequency)
    found = sort_group(recording, QUICK)
    assert np.all(inside(found.sorting.excluded, 60_000, 60_400))
    assert any("1 stretch looks like an artefact" in said for said in found.warnings)
    kept = sort_group(recording, QUICK.with_values({"preprocess": {"find_artefacts": False}}))
    assert len(kept.sorting.excluded) == 0
    assert not any("artefact" in said for said in kept.warnings)


@pytest.mark.slow
def test_a_recording_that_is_all_artefact_is_refused():
    traces = noise(1, 1.0)
    traces[:] = 3.0
    traces[::5000] += 1.0
    with pytest.raises(InputError, match=r"saturated|nothing is left"):
        sort_group(recorded(traces), QUICK)


def test_a_recording_that_is_mostly_switched_off_is_sorted_where_it_is_not(tmp_path):
    import h5py

    rng = np.random.default_rng(8)
    fs, n = 20_000, 10 * 20_000
    traces = np.zeros((3 * n, 2), np.int16)
    traces[n : 2 * n] = np.round(30 * rng.standard_normal((n, 2)))
    path = tmp_path / "off.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("traces", data=traces).attrs.update(sampling_frequency=fs, units="uV", gain=0.2)
    recording = open_recording(path)
    found = find_artefacts(recording, PreprocessConfig(), Observer()).gaps
    assert found.tolist() == [[0, pytest.approx(n, abs=0.1 * fs)], [pytest.approx(2 * n, abs=0.1 * fs), 3 * n]]
