"""Spikes of a membrane potential: truth that an intracellular channel holds."""

from __future__ import annotations

import h5py
import numpy as np
import pytest

from spikecrsae.data.recording import recording_from_array
from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers import read_truth
from spikecrsae.readers.intracellular import detect_spikes

FS = 10_000.0

# Intracellular channels


def membrane(spikes: np.ndarray, heights: np.ndarray, n_samples: int, seed: int = 0, fs: float = FS) -> np.ndarray:
    """Membrane potential in mV: -65 with slow drift, synaptic noise, and action potentials peaking at `spikes`."""
    rng = np.random.default_rng(seed)
    t = np.arange(n_samples) / fs
    trace = -65 + 8 * np.sin(2 * np.pi * 0.3 * t) + 2 * t / t[-1] + 0.2 * rng.standard_normal(n_samples)
    synaptic = np.convolve(rng.standard_normal(n_samples), np.exp(-np.arange(200) / (0.01 * fs)), "same")
    trace += synaptic
    lag = np.arange(-int(0.002 * fs), int(0.02 * fs))
    seconds = lag / fs
    shape = np.where(seconds < 0, np.exp(seconds / 1.5e-4), np.exp(-seconds / 6e-4))
    shape -= 0.08 * np.where(seconds > 0, (1 - np.exp(-seconds / 1e-3)) * np.exp(-seconds / 5e-3), 0)
    for spike, height in zip(spikes, heights, strict=True):
        keep = (spike + lag >= 0) & (spike + lag < n_samples)
        trace[(spike + lag)[keep]] += height * shape[keep]
    return trace


def cell(seed: int, n_samples: int = 250_000) -> tuple[np.ndarray, np.ndarray]:
    """(spikes, heights): irregular with bursts whose later spikes are smaller, down to 55 %."""
    rng = np.random.default_rng(seed)
    first = np.cumsum(rng.integers(800, 9000, 200))
    first = first[first < n_samples - 500]
    spikes, heights = [], []
    for spike in first:
        for k in range(rng.integers(1, 4)):
            spikes.append(spike + 50 * k)
            heights.append(80 * (1 - 0.2 * k) * rng.uniform(0.93, 1.05))
    return np.array(spikes), np.array(heights)


def near(found: np.ndarray, spikes: np.ndarray, samples: int = 1) -> bool:
    return len(found) == len(spikes) and bool(np.all(np.abs(found - spikes) <= samples))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sign", [1, -1])
def test_action_potentials_on_a_drifting_baseline(seed, sign):
    spikes, heights = cell(seed)
    trace = sign * membrane(spikes, heights, 250_000, seed)
    assert near(detect_spikes(recording_from_array(trace[:, None], FS)), spikes)


def test_the_scale_of_the_channel_does_not_matter():
    spikes, heights = cell(1)
    trace = membrane(spikes, heights, 250_000, 1)
    counts = np.round(trace * 50 + 30_000).astype(np.uint16)
    np.testing.assert_array_equal(
        detect_spikes(recording_from_array(counts[:, None], FS)),
        detect_spikes(recording_from_array(trace[:, None] * 1e3, FS)),
    )


def test_few_spikes_and_a_few_artefacts():
    """A stimulus artefact ten times as high as a spike does not hide the spikes; it is found like one."""
    spikes = np.arange(10_000, 200_000, 18_000)
    trace = membrane(spikes, np.full(len(spikes), 70.0), 250_000)
    trace[[30_001, 120_001]] += 700
    assert near(detect_spikes(recording_from_array(trace[:, None], FS)), np.sort([*spikes, 30_001, 120_001]))


def test_a_spike_at_the_border_of_two_chunks_counts_once():
    spikes = np.array([50_000, 99_999, 100_000 + 60, 150_000, 200_000])
    trace = membrane(spikes, np.full(5, 80.0), 250_000)
    assert near(detect_spikes(recording_from_array(trace[:, None], FS)), spikes)


def test_noise_alone_has_no_spikes():
    trace = membrane(np.zeros(0, int), np.zeros(0), 100_000)
    for signal in (trace, np.zeros(100_000)):
        with pytest.raises(InputError, match="--truth-channel"):
            detect_spikes(recording_from_array(signal[:, None], FS))


def test_a_given_threshold_decides():
    spikes = np.array([10_000, 20_000, 30_000, 40_000])
    recording = recording_from_array(membrane(spikes, np.array([80.0, 30.0, 80.0, 30.0]), 60_000)[:, None], FS)
    assert near(detect_spikes(recording, 50.0), spikes[[0, 2]])
    assert near(detect_spikes(recording, 15.0), spikes)
    with pytest.raises(InputError, match="threshold"):
        detect_spikes(recording, 1000.0)
    with pytest.raises(InputError, match="threshold -30"):
        detect_spikes(recording, -30.0)


def test_truth_from_a_channel_of_a_recording(tmp_path):
    """At another rate than the scored recording's: samples are converted."""
    spikes, heights = cell(3, 100_000)
    traces = np.random.default_rng(0).standard_normal((100_000, 3)) * 5
    traces[:, 2] = membrane(spikes, heights, 100_000)
    path = tmp_path / "patch.h5"
    with h5py.File(path, "w") as file:
        file["traces"] = traces
        file.attrs["fs"] = FS
    trains = read_truth(path, 2 * FS, truth_channel=2)
    assert near(trains["intracellular"], 2 * spikes, 2)
    with pytest.raises(InputError, match="channel 0"):
        read_truth(path, FS, truth_channel=0)
    with pytest.raises(UsageError, match="channels 0 to 2"):
        read_truth(path, FS, truth_channel=5)
