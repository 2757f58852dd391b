"""Preprocessing: every stretch equals the whole, filters keep spikes where they are, whitened noise is white, bad channels
are found."""

from __future__ import annotations

import logging
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from scipy import signal as sps

from spikecrsae.config import PreprocessConfig
from spikecrsae.data.recording import Recording, recording_from_array
from spikecrsae.errors import InputError
from spikecrsae.preprocess import artefacts, stretches
from spikecrsae.preprocess.filters import SAMPLES_PER_TASK, design_filter, whiten, zero_phase
from spikecrsae.preprocess.preprocessor import PreprocessedRecording
from spikecrsae.preprocess.survey import survey
from spikecrsae.preprocess.whitening import fit
from spikecrsae.progress import Observer
from spikecrsae.simulate import preset_config, simulate

FS = 20000.0


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def preprocessed(recording, **values) -> PreprocessedRecording:
    return PreprocessedRecording(recording, fit(recording, PreprocessConfig(**values), np.random.default_rng(0), Observer()))


@pytest.fixture(scope="module")
def simulation():
    """Four channels of coloured noise, correlated between contacts, with spikes of two neurons."""
    return simulate(
        preset_config("tetrode", n_units=2, n_bursting=0, duration_s=30.0, seed=5, snrs=(25.0, 12.0), rates_hz=(20.0, 20.0))
    )


@pytest.fixture(scope="module")
def view(simulation):
    return preprocessed(simulation.recording())


@pytest.fixture(scope="module")
def quiet(simulation):
    """Samples (bool) at least 2 ms from every true spike."""
    mask = np.ones(len(simulation.traces), bool)
    for sample in simulation.truth.spikes["sample"]:
        mask[max(0, sample - 40) : sample + 40 + 1] = False
    return mask


# ---- filters


@pytest.mark.parametrize(("n_samples", "n_channels"), [(2, 1), (300, 2), (5000, 1), (2 * SAMPLES_PER_TASK + 1000, 3)])
def test_the_zero_phase_filter_is_that_of_scipy(rng, n_samples, n_channels):
    traces = (300 + np.cumsum(rng.standard_normal((n_samples, n_channels)), axis=0)).astype(np.float32)
    for config in (PreprocessConfig(), PreprocessConfig(lowpass_hz=6000.0, filter_order=4)):
        sos, margin = design_filter(config, FS)
        expected = sps.sosfiltfilt(sos, traces, axis=0, padlen=min(margin, n_samples - 1))
        passed = zero_phase(traces, sos, margin)
        assert passed.dtype == np.float32
        # what is left of a filter's transients is 1e-8 of the signal
        np.testing.assert_allclose(passed, expected, rtol=0, atol=3e-7 * np.abs(traces).max())


@pytest.mark.parametrize("n_taps", [1, 4, 31, 90])
@pytest.mark.parametrize("n_samples", [1, 50, 2 * SAMPLES_PER_TASK + 77])
def test_whitening_is_a_causal_filter_of_each_channel_and_a_mixture_of_the_channels(rng, n_samples, n_taps):
    traces = rng.standard_normal((n_samples, 3)).astype(np.float32)
    taps, matrix = rng.standard_normal((3, n_taps)), rng.standard_normal((2, 3))
    predicted = np.stack([np.convolve(x, h)[:n_samples] for x, h in zip(traces.T, taps, strict=True)], axis=1)
    np.testing.assert_allclose(whiten(traces, taps, matrix), matrix @ predicted.T, rtol=0, atol=1e-4)


# ---- chunks


@pytest.mark.parametrize("chunk_size", [997, 4096, 50_000, 123_457])
def test_chunks_equal_the_whole(simulation, chunk_size):
    view = preprocessed(recording_from_array(simulation.traces[:130_000] * 0.195, FS))
    whole = view.both(0, view.n_samples)
    starts = range(0, view.n_samples, chunk_size)
    if len(starts) > 20:  # of many small chunks those at the ends and some between say it all
        starts = [*starts[:4], *starts[50:54], *starts[-4:]]
    for start in starts:
        stop = min(start + chunk_size, view.n_samples)
        high, white = view.both(start, stop)
        for part, all_of_it in ((high, whole[0]), (white.T, whole[1].T)):
            assert part.shape == (stop - start, 4)
            np.testing.assert_allclose(part, all_of_it[start:stop], rtol=0, atol=2e-5 * np.abs(all_of_it).max())


def test_high_passed_traces_are_the_same_alone_and_with_the_whitened_signal(view):
    high, _ = view.both(5000, 9000)
    np.testing.assert_allclose(view.highpassed(5000, 9000), high, atol=1e-3)


# ---- filter


@pytest.mark.parametrize("sign", [-1, 1])
def test_the_filter_does_not_move_a_spike(rng, sign):
    traces = rng.standard_normal((40_000, 1)) + 500.0
    time = np.arange(-30, 31) / 6.0
    traces[20_000 - 30 : 20_000 + 31, 0] += sign * 300 * np.exp(-(time**2) / 2)
    filtered = preprocessed(recording_from_array(traces, FS)).highpassed(19_900, 20_101)[:, 0]
    assert np.abs(filtered).argmax() == 100
    assert np.sign(filtered[100]) == sign
    # zero phase: the two sides of a symmetric spike stay alike
    np.testing.assert_allclose(filtered[70:100], filtered[101:131][::-1], atol=10.0)


def test_slow_waves_go_and_spikes_stay(rng):
    time = np.arange(60_000) / FS
    slow, fast = 1000 * np.sin(2 * np.pi * 5 * time), 50 * np.sin(2 * np.pi * 1500 * time)
    traces = (slow + fast + rng.standard_normal(60_000))[:, None]
    view = preprocessed(recording_from_array(traces, FS), quiet_threshold=100.0)
    middle = view.highpassed(20_000, 40_000)[:, 0]
    assert middle.std() == pytest.approx(50 / np.sqrt(2), rel=0.03)


def test_an_upper_edge_above_nyquist_is_lowered_with_a_warning(rng, caplog):
    recording = recording_from_array(rng.standard_normal((20_000, 2)), 10_000.0)
    with caplog.at_level(logging.WARNING, logger="spikecrsae"):
        view = preprocessed(recording, lowpass_hz=6000.0)
    assert caplog.text.count("lowered to 4500 Hz") == 1
    assert np.isfinite(view.both(0, 20_000)[1]).all()


def test_an_upper_edge_below_nyquist_is_kept(rng, caplog):
    recording = recording_from_array(rng.standard_normal((60_000, 1)), FS)
    with caplog.at_level(logging.WARNING, logger="spikecrsae"):
        signal = preprocessed(recording, lowpass_hz=3000.0).highpassed(0, 60_000)[:, 0]
    assert not caplog.records
    frequency, power = sps.welch(signal, FS, nperseg=2048)
    assert power[frequency > 6000].max() < 1e-2 * power[(frequency > 800) & (frequency < 2000)].mean()


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"highpass_hz": 5000.0}, "^the filter's lower edge, 5000 Hz, must be below the Nyquist frequency, 5000 Hz"),
        ({"highpass_hz": 3000.0, "lowpass_hz": 2000.0}, "upper edge"),
        ({"highpass_hz": 2400.0, "lowpass_hz": 4900.0}, "at least 2 times"),
    ],
)
def test_impossible_edges_are_refused(rng, values, word):
    with pytest.raises(InputError, match=word):
        preprocessed(recording_from_array(rng.standard_normal((20_000, 2)), 10_000.0), **values)


@pytest.mark.parametrize(("kind", "centre"), [("median", np.median), ("mean", np.mean)])
def test_common_reference_takes_away_what_channels_share(rng, kind, centre):
    shared = 100 * rng.standard_normal((40_000, 1))
    recording = recording_from_array(shared + rng.standard_normal((40_000, 4)), FS)
    signal = preprocessed(recording, common_reference=kind).highpassed(0, 40_000)
    assert signal.std() < 1.2
    np.testing.assert_allclose(centre(signal, axis=1), 0, atol=1e-3)


# ---- noise


def test_noise_level_is_that_of_the_noise_whatever_the_spikes(simulation, view):
    """The same recording without spikes is known: same seed, spikes of vanishing size."""
    silent = simulate(
        preset_config("tetrode", n_units=2, n_bursting=0, duration_s=30.0, seed=5, snrs=(1e-6, 1e-6), rates_hz=(20.0, 20.0))
    )
    true = preprocessed(silent.recording()).highpassed(0, 600_000).std(axis=0)
    assert view.highpassed(0, 600_000).std(axis=0).max() > 1.15 * true.max()
    np.testing.assert_allclose(view.preprocessor.noise_level, true, rtol=0.04)


def test_whitened_noise_is_white(view, quiet):
    white = view.both(0, view.n_samples)[1].T
    noise = white[quiet]
    np.testing.assert_allclose(noise.std(axis=0), 1.0, atol=0.04)
    assert np.abs(np.corrcoef(noise.T) - np.eye(4)).max() < 0.03
    for lag in range(1, 8):
        both = quiet[:-lag] & quiet[lag:]
        assert np.abs((white[:-lag][both] * white[lag:][both]).mean(axis=0)).max() < 0.05


def test_the_spectrum_of_whitened_noise_is_flat(view, quiet):
    edges = np.flatnonzero(np.diff(np.r_[0, quiet, 0]))
    white = view.both(0, view.n_samples)[1].T
    high = view.highpassed(0, view.n_samples)
    stretches = [slice(a, a + 512) for a, b in edges.reshape(-1, 2) if b - a >= 512][:300]
    power = {
        name: np.mean([sps.periodogram(signal[s], FS, "hann", axis=0)[1].mean(axis=1) for s in stretches], axis=0)
        for name, signal in (("white", white), ("high", high))
    }
    band = slice(20, 250)  # 0.8 to 9.8 kHz: above the filter's edge
    smooth = np.convolve(power["white"][band] * FS / 2, np.ones(10) / 10, "valid")
    assert len(stretches) > 100
    assert smooth.min() > 0.8
    assert smooth.max() < 1.25
    assert power["high"][band].max() > 5 * power["high"][band].min()


def test_white_independent_noise_is_left_alone(rng):
    recording = recording_from_array(7.0 * rng.standard_normal((100_000, 2)), FS)
    preprocessor = preprocessed(recording, highpass_hz=10.0).preprocessor
    np.testing.assert_allclose(preprocessor.noise_level, 7.0, rtol=0.02)
    np.testing.assert_allclose(preprocessor.whitening_matrix, np.eye(2) / 7.0, atol=0.005)


def test_a_recording_without_quiet_is_refused(rng):
    traces = rng.standard_normal((20_000, 1))
    traces[::40] += 200 * rng.standard_normal((500, 1))
    with pytest.raises(InputError, match=r"quiet samples .* or raise preprocess\.quiet_threshold"):
        preprocessed(recording_from_array(traces, FS), quiet_threshold=1.0, quiet_margin_ms=2.0)
    with pytest.raises(InputError, match=r"quiet samples .* Give a longer recording\.$"):
        preprocessed(recording_from_array(rng.standard_normal((400, 1)), FS), quiet_threshold=100.0)


# ---- survey


def surveyed(traces: np.ndarray, chunk_size: int = 3000):
    return survey(recording_from_array(traces, FS), chunk_size, Observer())


@pytest.fixture
def traces(rng):
    return rng.integers(-200, 200, (10_000, 4)).astype(np.int16)


def test_good_channels_are_all_used(traces):
    result = surveyed(traces)
    assert result.usable.all()
    assert result.problems == ()


@pytest.mark.parametrize("chunk_size", [777, 10_000])
def test_flat_and_saturated_channels_are_left_out_and_named(traces, chunk_size):
    traces[:, 1] = 42
    # saturated in pieces, in each for a while
    traces[:, 3] = np.clip(20.0 * np.sin(np.arange(10_000) / 50) + traces[:, 3] / 100, -15, 15)
    result = surveyed(traces, chunk_size)
    assert result.usable.tolist() == [True, False, True, False]
    flat, saturated = result.problems
    assert "channel 1 is flat" in flat
    assert "42" in flat
    assert "channel 3 is saturated" in saturated


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_that_is_no_number_is_named(traces, value):
    traces = traces.astype(np.float32)
    traces[7123, 2] = value
    with pytest.raises(InputError, match=r"sample 7123 of channel 2 is -?(nan|inf)"):
        surveyed(traces)


def test_nothing_usable_is_an_error(traces):
    traces[:] = 3
    with pytest.raises(InputError, match="no usable channel is left"):
        surveyed(traces)


def test_the_checksum_is_of_the_samples_and_of_nothing_else(traces):
    checksums = {surveyed(traces, size).checksum for size in (999, 3000, 10_000)}
    assert len(checksums) == 1
    traces[5000, 2] += 1
    assert surveyed(traces).checksum not in checksums


def test_a_channel_that_is_a_sum_of_others_is_not_amplified_into_spikes(simulation, caplog):
    traces = simulation.traces[:400_000].astype(np.float64)
    traces[:, 3] = traces[:, :3].sum(axis=1)
    with caplog.at_level(logging.WARNING):
        view = preprocessed(recording_from_array(traces, FS))
    assert "3 of 4" in caplog.text
    covariance = np.cov(view.both(0, 400_000)[1][:, ::7])
    values = np.linalg.eigvalsh(covariance)
    assert values[0] < 1e-3
    assert values[1] > 0.5


def test_a_number_too_large_for_a_voltage_is_named():
    traces = np.random.default_rng(0).standard_normal((1000, 2))
    traces[700, 1] = 1e302
    with pytest.raises(InputError, match=r"sample 700 of channel 1 is 1e\+302"):
        survey(recording_from_array(traces, FS), 300, Observer())


# ---- memory


def endless(seconds: int) -> Recording:
    """Noise on two channels at 10 kHz, made second by second as it is read."""

    def read(start: int, stop: int) -> np.ndarray:
        made = [
            np.random.default_rng(second).integers(-500, 500, (10_000, 2))
            for second in range(start // 10_000, stop // 10_000 + 1)
        ]
        return np.concatenate(made)[start % 10_000 :][: stop - start].astype(np.int16)

    return replace(recording_from_array(np.zeros((10_000, 2)), 10_000.0), read_raw=read, n_samples=10_000 * seconds)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(monkeypatch):
    """Survey, artefacts, noise, and every whitened stretch."""
    monkeypatch.setattr(stretches, "USUAL_S", 10.0)
    config = PreprocessConfig(noise_sample_s=10.0)

    def stages(seconds: int) -> None:
        recording = endless(seconds)
        survey(recording, 20_000, Observer())
        gaps = artefacts.find_artefacts(recording, config, Observer()).gaps
        view = PreprocessedRecording(recording, fit(recording, config, np.random.default_rng(0), Observer(), gaps), gaps)
        for start in range(0, view.n_samples, 20_000):
            assert view.both(start, start + 20_000)[1].std() == pytest.approx(1, abs=0.3)

    def peak(seconds: int) -> int:
        tracemalloc.start()
        stages(seconds)
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    stages(2)  # compiles
    assert peak(200) < 1.2 * peak(20)
