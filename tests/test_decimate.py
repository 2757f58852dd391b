"""The lower rate at which units are found: what it keeps, and that the units are those of the recording's own rate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import welch

from spikecrsae import pipeline
from spikecrsae.config import Config
from spikecrsae.decimate import SPIKE_BAND_HZ, decimated, decimation_factor, interpolated
from spikecrsae.score import compare
from spikecrsae.simulate import preset_config, simulate


@pytest.mark.parametrize("factor", [2, 3])
def test_white_noise_stays_white_and_of_density_one(factor):
    noise = np.random.default_rng(0).standard_normal((2, 300_000)).astype(np.float32)
    lower = decimated(noise, factor)
    assert lower.shape == (2, -(-300_000 // factor)) and lower.dtype == np.float32
    frequency, density = welch(lower, nperseg=64, axis=1)
    inside = (frequency > 0.03) & (frequency < 0.42)
    # one-sided: 2 for white noise of variance 1
    np.testing.assert_allclose(density[:, inside], 2, rtol=0.1)
    np.testing.assert_allclose(density[:, inside].mean(), 2, rtol=0.02)


@pytest.mark.parametrize("factor", [2, 3])
def test_a_spike_in_the_band_keeps_its_energy_its_place_and_its_shape(factor):
    time = np.arange(120 * factor) / factor - 60
    spike = (np.exp(-0.5 * (time / 3) ** 2) * np.cos(time / 3))[None]
    lower = decimated(spike.astype(np.float32), factor)
    assert lower[0].argmax() * factor == spike[0].argmax()
    assert (lower**2).sum() == pytest.approx((spike**2).sum(), rel=0.02)
    np.testing.assert_allclose(interpolated(lower[None], factor)[0], spike, atol=0.01)


def test_the_rate_is_as_low_as_the_band_allows():
    for fs in (5000.0, 10_000.0, 24_000.0, 27_999.0, 28_000.0, 30_000.0, 32_000.0, 48_000.0, 50_000.0):
        factor = decimation_factor(fs)
        assert factor == 1 or fs / factor >= 2 * SPIKE_BAND_HZ
        assert fs / (factor + 1) < 2 * SPIKE_BAND_HZ
    signal = np.zeros((1, 10), np.float32)
    assert decimated(signal, 1) is signal


def test_the_units_and_their_spikes_are_those_of_the_full_rate(monkeypatch):
    preset = preset_config(
        "tetrode", n_units=3, n_bursting=0, duration_s=15.0, sampling_frequency=30_000.0, seed=4, snrs=(14.0, 11.0, 9.0)
    )
    recording = simulate(preset).recording()
    assert decimation_factor(recording.sampling_frequency) == 2
    lower = pipeline.sort(recording, Config()).sorting
    monkeypatch.setattr(pipeline, "decimation_factor", lambda fs: 1)
    full = pipeline.sort(recording, Config()).sorting
    assert lower.n_units == full.n_units == 3
    assert lower.templates.shape == full.templates.shape
    agreement = compare(full.trains(), lower.trains(), full.sampling_frequency).rows
    assert min(row.accuracy for row in agreement) > 0.98
