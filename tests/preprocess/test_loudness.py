"""The noise over time: exactly 1 where it is steady, however many spikes there are, and found where it changes."""

from __future__ import annotations

import numpy as np
import pytest

from spikecrsae.data.loudness import HIGHEST, STEP, Loudness, expected_at, noise_of
from spikecrsae.preprocess import sanity
from spikecrsae.preprocess.loudness import BIN, Loudnesses, levels_of, window_sizes
from spikecrsae.readers import ReadOptions, read_array


def spike(fs: float) -> np.ndarray:
    """A trough of some 0.3 ms and a hump, peak 1."""
    ms = np.arange(-0.5, 1.5, 1e3 / fs)
    return -np.exp(-((ms / 0.2) ** 2)) + 0.4 * np.exp(-(((ms - 0.5) / 0.4) ** 2))


def whitened(fs: float, seconds: float, n_channels: int, rate: float, seed: int, bursts: bool = False) -> np.ndarray:
    """White noise with spikes of 10 to 40 noise levels; bursts: all of them in one second of four."""
    rng = np.random.default_rng(seed)
    signal = rng.standard_normal((n_channels, int(fs * seconds))).astype(np.float32)
    shape = spike(fs)
    starts = rng.integers(0, signal.shape[1] - len(shape), int(rate * seconds))
    if bursts:
        starts = starts[(starts / fs) % 4 < 1]
    for start in starts:
        gains = rng.uniform(10, 40) * rng.uniform(0.2, 1, n_channels)
        signal[:, start : start + len(shape)] += np.outer(gains, shape).astype(np.float32)
    return signal


def loudness_of(signal: np.ndarray, fs: float, block: int = 50_000) -> Loudness:
    gathered = Loudnesses(fs)
    for start in range(0, signal.shape[1], block):
        gathered.add(signal[:, start : start + block])
    return gathered.loudness()


@pytest.mark.parametrize("fs", [10_000.0, 24_414.0, 30_000.0])
@pytest.mark.parametrize("rate", [0.0, 20.0, 150.0])
@pytest.mark.parametrize(("n_channels", "bursts"), [(1, False), (1, True), (4, False), (4, True)])
def test_steady_noise_with_spikes_has_exactly_one_level(fs, rate, n_channels, bursts):
    signal = whitened(fs, 20.0, n_channels, rate * (2 if bursts else 1), seed=int(rate), bursts=bursts)
    assert loudness_of(signal, fs).is_steady


@pytest.mark.parametrize("n_channels", [1, 4])
def test_a_loud_half_is_found_to_a_few_windows(n_channels):
    fs, jump = 20_000.0, 200_000
    signal = whitened(fs, 20.0, n_channels, 0, seed=1)
    signal[:, jump:] *= 3
    signal += whitened(fs, 20.0, n_channels, 60.0, seed=2) - whitened(fs, 20.0, n_channels, 0, seed=2)
    loudness = loudness_of(signal, fs)
    sigma = noise_of(loudness.at(0, signal.shape[1]))
    assert np.all(sigma[: jump - 200] == 1) and np.all(np.abs(sigma[jump + 200 :] / 3 - 1) < 0.1)
    intervals = loudness.intervals(0, signal.shape[1])
    assert len(intervals) == 1 and intervals[0, 1] == signal.shape[1] and abs(intervals[0, 0] - jump) < 200


def test_a_slow_rise_is_followed():
    fs = 20_000.0
    signal = whitened(fs, 30.0, 2, 30.0, seed=3)
    true = np.linspace(1, 3, signal.shape[1])
    sigma = noise_of(loudness_of(signal * true, fs).at(0, signal.shape[1]))
    # what is usual is the noise of the quietest fifth
    assert np.median(np.abs(np.log(sigma / true * np.median(true / sigma)))) < 0.05
    assert np.all(np.diff(sigma[:: int(fs)]) >= -STEP * sigma[:: int(fs)][1:] * 1.01)


def test_single_events_are_no_noise():
    """Movement of 4 ms is none, and a stretch of a third of a second is."""
    fs = 20_000.0
    signal = whitened(fs, 20.0, 2, 0, seed=4)
    for start in range(5_000, 390_000, 8_000):
        signal[:, start : start + 80] *= 20
    assert loudness_of(signal, fs).is_steady
    signal[:, 100_000:106_600] *= 4
    assert loudness_of(signal, fs).intervals(3, signal.shape[1])[:, 0] == pytest.approx([100_000], abs=200)


def test_where_there_is_no_signal_the_noise_stays():
    fs = 20_000.0
    signal = whitened(fs, 20.0, 2, 10.0, seed=5)
    signal[:, 100_000:150_000] = 0
    assert loudness_of(signal, fs).is_steady
    assert loudness_of(np.zeros((2, 100_000), np.float32), fs).is_steady
    assert loudness_of(np.zeros((2, 10), np.float32), fs).is_steady


def test_levels_do_not_depend_on_the_blocks():
    fs = 20_000.0
    signal = whitened(fs, 10.0, 3, 30.0, seed=6)
    signal[:, 90_000:] *= 2
    one, other = loudness_of(signal, fs), loudness_of(signal, fs, 33_333)
    np.testing.assert_array_equal(one.at(0, 200_000), other.at(0, 200_000))
    sizes = window_sizes(signal, 40)
    np.testing.assert_allclose(sizes[:, 7], (signal[:, 280:320] ** 2).mean(axis=1), rtol=1e-5)
    assert not levels_of(sizes[:, : BIN - 1], 40, 50).any()


def test_levels_of_any_stretch_are_those_of_the_whole():
    loudness = Loudness(np.array([0, 50, 90, 400]), np.array([0, 5, HIGHEST, 0], np.uint8))
    whole = loudness.at(0, 500)
    assert whole.dtype == np.uint8 and len(whole) == 500
    np.testing.assert_array_equal(np.unique(whole, return_counts=True), [[0, 5, HIGHEST], [150, 40, 310]])
    for start, stop in [(0, 1), (49, 51), (50, 90), (399, 500), (120, 130), (7, 7)]:
        np.testing.assert_array_equal(loudness.at(start, stop), whole[start:stop])
    np.testing.assert_array_equal(loudness.intervals(5, 500), [[90, 400]])
    assert loudness.shares(500) == {0: 0.3, 5: 0.08, HIGHEST: 0.62}
    assert expected_at(0) == 1.0 and Loudness.steady().is_steady


def test_loud_noise_is_said():
    recording = read_array(np.zeros((100_000, 1), np.float32), ReadOptions(sampling_frequency=10_000.0))
    loud = Loudness(np.array([0, 20_000, 40_000]), np.array([0, 19, 0], np.uint8))
    (remark,) = sanity.of_loudness(recording, loud)
    assert "2 s of 10 s" in remark and "3 times" in remark and "first at 2.000 s" in remark
    short = Loudness(np.array([0, 20_000, 20_900]), np.array([0, 19, 0], np.uint8))
    hardly = Loudness(np.array([0, 20_000]), np.array([0, 5], np.uint8))
    assert sanity.of_loudness(recording, short) == sanity.of_loudness(recording, hardly) == ()
