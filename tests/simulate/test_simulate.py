"""The generative model: what was asked for is in the recording, and the truth says where."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.dense_code import dense
from scipy.signal import welch

from spikecrsae.errors import UsageError
from spikecrsae.simulate import (
    SimulationConfig,
    paper_windows,
    preset_config,
    simulate,
)
from spikecrsae.simulate.distance import best_correlations
from spikecrsae.simulate.shapes import paper_templates

OFF_DIAGONAL = ~np.eye(4, dtype=bool)


@pytest.fixture(scope="module")
def paper():
    return simulate(preset_config("paper", duration_s=60.0, seed=1))


@pytest.fixture(scope="module")
def windows():
    return paper_windows(200, snr_db=10.0, seed=4)


def uv(simulation) -> np.ndarray:
    return simulation.traces * simulation.gain + simulation.offset


def quiet(simulation) -> np.ndarray:
    """Samples that no spike's template touches."""
    n_times = simulation.truth.templates.shape[2]
    touched = np.zeros(len(simulation.traces), bool)
    for sample in simulation.truth.spikes["sample"]:
        touched[max(0, sample - n_times) : sample + n_times] = True
    return ~touched


def reconstruction(simulation) -> np.ndarray:
    """H x from the truth alone, for spikes that fall on samples."""
    truth = simulation.truth
    signal = np.zeros(simulation.traces.shape)
    for spike in truth.spikes:
        template = truth.templates[spike["unit"]]
        start = spike["sample"] - truth.peak_index[spike["unit"]]
        scale = spike["amplitude"] / np.abs(template).max()
        signal[start : start + template.shape[1]] += scale * template.T
    return signal


# --- the paper's data -------------------------------------------------------------------------------------------------


def test_paper_templates_are_correlated_as_the_paper_says():
    templates = paper_templates()
    assert templates.shape == (4, 1, 18)
    np.testing.assert_allclose(np.linalg.norm(templates, axis=(1, 2)), 1)
    at_zero = (templates[:, 0] @ templates[:, 0].T)[OFF_DIAGONAL]
    at_best = np.abs(best_correlations(templates, templates)[0])[OFF_DIAGONAL]
    for correlation in (at_zero, at_best):
        assert 0.5 <= correlation.min() < 0.65
        assert 0.9 < correlation.max() <= 0.95
    assert np.all(np.abs(templates).argmax(axis=2) == 6)
    assert np.abs(templates[:, :, [0, -1]]).max() < 0.02  # nothing is cut off


def test_paper_windows_are_the_model_plus_noise(windows):
    assert windows.windows.shape == (200, 1, 1000)
    assert np.abs(windows.windows).max() == pytest.approx(1)
    clean = np.stack(
        [
            sum(np.convolve(code, h[0]) for code, h in zip(codes, windows.templates, strict=True))
            for codes in (dense(windows.code(k)) for k in range(200))
        ]
    )
    noise = windows.windows[:, 0] - clean
    assert noise.std() == pytest.approx(windows.sigma, rel=0.01)
    assert 10 * np.log10(clean.var() / windows.sigma**2) == pytest.approx(10.0, abs=0.01)
    # White: the autocorrelation is that of independent samples.
    assert abs((noise[:, 1:] * noise[:, :-1]).mean()) < 4 * windows.sigma**2 / np.sqrt(noise.size)


def test_paper_codes_have_the_stated_statistics(windows):
    assert windows.positions.shape == (200, 4, 3)
    assert windows.positions.min() >= 0 and windows.positions.max() <= 982
    assert np.diff(windows.positions, axis=-1).min() >= 18
    amplitudes = windows.amplitudes * windows.scale
    assert amplitudes.mean() == pytest.approx(180, abs=4 * 30 / np.sqrt(amplitudes.size))
    assert amplitudes.std() == pytest.approx(30, rel=0.05)
    # Neurons overlap: some pairs of different neurons lie closer than a template is long.
    first, second = windows.positions[:, 0, :, None], windows.positions[:, 1, None, :]
    assert (np.abs(first - second) < 18).any()
    # Uniform over the window.
    assert np.histogram(windows.positions, bins=4, range=(0, 983))[0] == pytest.approx(600, rel=0.15)


def test_paper_windows_follow_the_seed():
    first, same, other = paper_windows(5, seed=1), paper_windows(5, seed=1), paper_windows(5, seed=2)
    np.testing.assert_array_equal(first.windows, same.windows)
    assert not np.array_equal(first.windows, other.windows)


@pytest.mark.parametrize("snr_db", [7.0, 16.0])
def test_paper_recording_is_its_truth_plus_white_noise_at_the_snr(snr_db):
    simulation = simulate(preset_config("paper", duration_s=20.0, snr_db=snr_db, seed=1))
    clean = reconstruction(simulation)
    noise = uv(simulation) - clean
    assert 10 * np.log10(clean.var() / noise.var()) == pytest.approx(snr_db, abs=0.1)
    assert noise.std() == pytest.approx(simulation.noise_uv, rel=0.01)
    assert abs(np.corrcoef(noise[1:, 0], noise[:-1, 0])[0, 1]) < 0.01


def test_paper_recording_has_the_paper_numbers(paper):
    truth = paper.truth
    assert (truth.n_units, truth.n_channels, truth.sampling_frequency, truth.templates.shape[2]) == (4, 1, 10000.0, 18)
    assert preset_config("paper").duration_s == 1010.0
    for unit in range(4):
        assert truth.units["rate_hz"][unit] == pytest.approx(30, abs=4 * np.sqrt(30 / 60))
        assert np.diff(truth.spike_samples(unit)).min() >= 18
    amplitude = truth.spikes["amplitude"] / np.abs(truth.templates).max(axis=(1, 2))[truth.spikes["unit"]]
    assert amplitude.mean() == pytest.approx(1, abs=0.01)
    assert amplitude.std() == pytest.approx(30 / 180, rel=0.05)
    np.testing.assert_allclose(np.linalg.norm(truth.templates, axis=(1, 2)), 180, rtol=1e-5)


# --- tetrode ----------------------------------------------------------------------------------------------------------


def test_noise_has_the_level_asked_for(tetrode):
    noise = uv(tetrode)[quiet(tetrode)]
    assert tetrode.noise_uv == 10.0
    assert noise.std(axis=0) == pytest.approx(10, rel=0.03)


def test_noise_is_correlated_over_channels_by_their_distance(tetrode):
    measured = np.corrcoef(uv(tetrode)[quiet(tetrode)].T)
    positions = tetrode.channel_positions
    distance = np.linalg.norm(positions[:, None] - positions, axis=-1)
    assert distance.max() == pytest.approx(25 * np.sqrt(2))
    np.testing.assert_allclose(measured, np.exp(-distance / 40), atol=0.03)


def test_noise_is_coloured_unless_white():
    silent = {"duration_s": 20.0, "n_units": 1, "n_bursting": 0, "rates_hz": (0.01,)}
    ratio = {}
    for kind in ("neural", "white"):
        frequency, power = welch(uv(simulate(preset_config("tetrode", noise=kind, **silent)))[:, 0], 20000, nperseg=2048)
        bands = [(20, 80), (400, 900), (5000, 9000)]
        ratio[kind] = [power[(frequency > low) & (frequency < high)].mean() for low, high in bands]
    assert ratio["white"] == pytest.approx([np.mean(ratio["white"])] * 3, rel=0.1)
    low, middle, high = ratio["neural"]
    assert middle > 5 * high and middle > 10 * low


def test_hum_is_at_50_hz():
    config = preset_config("tetrode", duration_s=10.0, hum_uv=20.0)
    traces, without = uv(simulate(config)), uv(simulate(preset_config("tetrode", duration_s=10.0)))
    time = np.arange(len(traces)) / 20000
    amplitude = 2 * np.abs((traces - without).T @ np.exp(-2j * np.pi * 50 * time)) / len(time)
    np.testing.assert_allclose(amplitude, 20, atol=0.1)


def test_averages_at_the_true_samples_are_the_templates():
    """The truth points at the trough: no shift fits better, and the peak over the noise is the SNR that was asked for."""
    snrs = (12.0, 9.0, 6.0)
    config = preset_config("tetrode", n_units=3, snrs=snrs, rates_hz=(20.0,) * 3, synchrony=0, n_bursting=0, seed=5)
    simulation = simulate(config)
    truth, traces = simulation.truth, uv(simulation)
    np.testing.assert_allclose(truth.units["snr"], snrs, rtol=1e-6)
    offsets = np.arange(truth.templates.shape[2])
    for unit in range(3):
        start = truth.spike_samples(unit) - truth.peak_index[unit]
        average = traces[start[:, None] + offsets].mean(axis=0).T
        template = truth.templates[unit]
        # Averages of spikes between samples are a little blunter than the template, and other units cross them.
        np.testing.assert_allclose(average, template, atol=0.06 * np.abs(template).max())
        channel, sample = np.unravel_index(np.abs(average).argmax(), average.shape)
        assert (channel, sample) == (np.abs(template).max(axis=1).argmax(), truth.peak_index[unit])
        assert average[channel, sample] < 0
        assert -average.min() / 10 == pytest.approx(snrs[unit], rel=0.06)


def test_subsample_shifts_move_the_waveform():
    """At high SNR the parabola through the three samples at a trough finds the shift that the truth states."""
    one = {"n_units": 1, "n_bursting": 0, "rates_hz": (10.0,), "snrs": (300.0,), "noise_uv": 0.5, "gain_uv": 0.01}
    simulation = simulate(preset_config("tetrode", amplitude_jitter=0.0, sampling_frequency=30000.0, **one))
    spikes = simulation.truth.spikes
    assert np.abs(spikes["shift"]).max() <= 0.5 and spikes["shift"].std() == pytest.approx(np.sqrt(1 / 12), rel=0.1)
    trace = uv(simulation)[:, np.abs(simulation.truth.templates[0]).max(axis=1).argmax()]
    left, centre, right = (trace[spikes["sample"] + i] for i in (-1, 0, 1))
    vertex = 0.5 * (left - right) / (left - 2 * centre + right)
    assert np.corrcoef(vertex, spikes["shift"])[0, 1] > 0.9
    assert np.polyfit(spikes["shift"], vertex, 1)[0] == pytest.approx(1, abs=0.15)


@pytest.mark.slow
def test_rates_are_as_drawn_or_given():
    given = (1.0, 5.0, 20.0, 50.0)
    config = preset_config("tetrode", n_units=4, rates_hz=given, duration_s=100.0)
    measured = simulate(config).truth.units["rate_hz"]
    # Bursts (unit 0) come as clumps: more variance than Poisson.
    assert measured[0] == pytest.approx(1.0, abs=4 * np.sqrt(3 / 100))
    assert all(abs(m - r) < 4 * np.sqrt(r / 100) for m, r in zip(measured[1:], given[1:], strict=True))
    drawn = np.sort(simulate(preset_config("tetrode", seed=11, duration_s=200.0)).truth.units["rate_hz"])
    edges = 2 * 20 ** (np.arange(6) / 5)  # one unit in each fifth of 2..40 Hz, on a logarithmic scale
    assert np.all(drawn > 0.75 * edges[:-1]) and np.all(drawn < 1.25 * edges[1:])


@pytest.mark.parametrize("synchrony", [0.0, 0.3])
@pytest.mark.parametrize("refractory_ms", [2.0, 3.0])
def test_no_spike_breaks_the_refractory_period(synchrony, refractory_ms):
    config = preset_config("tetrode", refractory_ms=refractory_ms, synchrony=synchrony, n_bursting=2, rate_high_hz=50.0)
    truth = simulate(config).truth
    for unit in range(truth.n_units):
        # Rounding to samples may take one sample off.
        assert np.diff(truth.spike_samples(unit)).min() >= refractory_ms * 20 - 1


@pytest.mark.slow
def test_synchrony_sets_the_share_of_overlaps():
    config = {"n_units": 2, "n_bursting": 0, "rates_hz": (10.0, 10.0), "duration_s": 200.0}
    share = {}
    for synchrony in (0.0, 0.2):
        truth = simulate(preset_config("tetrode", synchrony=synchrony, **config)).truth
        first, second = truth.spike_samples(0), truth.spike_samples(1)
        nearest = np.abs(second[:, None] - first).min(axis=1)
        share[synchrony] = np.mean(nearest <= 11)  # 0.5 ms and a sample of rounding
    chance = 1 - np.exp(-10 * 0.00105)
    assert share[0.0] == pytest.approx(chance, abs=0.01)
    assert share[0.2] == pytest.approx(0.2 + 0.8 * chance, abs=0.025)


@pytest.mark.slow
def test_bursting_units_fire_attenuating_bursts():
    config = preset_config("tetrode", n_bursting=1, n_units=2, rates_hz=(10.0, 10.0), duration_s=200.0, amplitude_jitter=0.0)
    truth = simulate(config).truth
    within = []
    for unit in range(2):
        spikes = truth.spikes[truth.spikes["unit"] == unit]
        interval_ms = np.diff(spikes["sample"] + spikes["shift"]) / 20
        within.append(np.mean((interval_ms > 3.9) & (interval_ms < 8.1)))
    # Poisson at 10 Hz has 4 % of its intervals there; of the bursting unit's spikes 0.9 / 1.9 follow another in a burst.
    assert within[1] < 0.08 and within[0] == pytest.approx(0.9 / 1.9, abs=0.08)
    spikes = truth.spikes[truth.spikes["unit"] == 0]
    relative = spikes["amplitude"] / spikes["amplitude"].max()
    levels = np.unique(relative.round(3))
    np.testing.assert_allclose(levels, np.sort(0.88 ** np.arange(6)), atol=2e-3)


def test_drift_changes_the_amplitudes_over_the_recording():
    config = preset_config("tetrode", drift=0.4, n_bursting=0, rate_low_hz=10.0)
    truth = simulate(config).truth
    for unit in range(truth.n_units):
        spikes = truth.spikes[truth.spikes["unit"] == unit]
        peak = np.abs(truth.templates[unit]).max()
        slope = np.polyfit(spikes["sample"] / truth.n_samples, spikes["amplitude"] / peak, 1)[0]
        assert abs(slope) == pytest.approx(0.4, abs=0.05)


def test_intracellular_spikes_follow_the_extracellular_ones(tetrode):
    potential = tetrode.intracellular
    assert potential.shape == (len(tetrode.traces),) and potential.dtype == np.float32
    extracellular = tetrode.truth.spike_samples(0)
    crossings = np.flatnonzero((potential[1:] >= -20) & (potential[:-1] < -20))
    assert len(crossings) == len(extracellular)
    peaks = np.array([c + potential[c : c + 40].argmax() for c in crossings])
    np.testing.assert_allclose(peaks - extracellular, 4, atol=1)  # 0.2 ms
    resting = potential[quiet(tetrode)]
    assert resting.min() > -75 and resting.max() < -55
    assert resting[: 20000 * 5].mean() != pytest.approx(resting[-20000 * 5 :].mean(), abs=0.2)  # it drifts


def test_the_seed_decides_and_the_duration_keeps_the_cells(tetrode):
    again = simulate(tetrode.config)
    np.testing.assert_array_equal(again.traces, tetrode.traces)
    np.testing.assert_array_equal(again.truth.spikes, tetrode.truth.spikes)
    shorter = simulate(preset_config("tetrode", duration_s=5.0, seed=3))
    np.testing.assert_array_equal(shorter.truth.templates, tetrode.truth.templates)
    other = simulate(preset_config("tetrode", duration_s=5.0, seed=4))
    assert not np.allclose(shorter.truth.templates, other.truth.templates)


def test_recording_is_in_uv(tetrode):
    recording = tetrode.recording()
    assert (recording.amplitude_unit, recording.n_channels) == ("uV", 4)
    np.testing.assert_allclose(recording.traces(100, 200), uv(tetrode)[100:200], rtol=1e-5)


# --- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "overrides", "says"),
    [
        ("octopus", {}, "paper, tetrode"),
        ("tetrode", {"snr_db": 10.0}, "no effect"),
        ("paper", {"n_channels": 4}, "one channel"),
        ("paper", {"n_units": 5}, "at most 4"),
        ("tetrode", {"colour": "red"}, "colour"),
        ("tetrode", {"rates_hz": (1.0, 2.0)}, "each of the 5"),
        ("tetrode", {"duration_s": 0.0}, "at least 0.1"),
        ("tetrode", {"intracellular_unit": 5}, "5 units"),
        ("tetrode", {"snr_low": 20.0}, "must not exceed"),
    ],
)
def test_bad_values_are_named(preset, overrides, says):
    with pytest.raises(UsageError, match=says):
        preset_config(preset, **overrides)


def test_a_rate_that_the_refractory_period_forbids_is_refused():
    with pytest.raises(UsageError, match="at most"):
        simulate(SimulationConfig(n_units=1, rates_hz=(250.0,), rate_high_hz=300.0, refractory_ms=4.0, n_bursting=0))


def test_overrides_that_are_none_are_left_out():
    assert preset_config("paper", seed=None, duration_s=3.0).duration_s == 3.0
    assert preset_config("paper", n_units=2).rates_hz == (30.0, 30.0)
