"""The noise level of a first glance against that of a sort, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from helpers.recordings import SAMPLE
from scipy import signal

from spikecrsae.config import PreprocessConfig
from spikecrsae.data.recording import recording_from_array
from spikecrsae.errors import InputError
from spikecrsae.preprocess import glance
from spikecrsae.preprocess.whitening import fit
from spikecrsae.progress import Observer
from spikecrsae.readers import open_recording


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_level_is_that_of_a_sort():
    recording = open_recording(SAMPLE)
    try:
        first = replace(recording, n_samples=int(5 * recording.sampling_frequency))
        sorted_level = fit(first, PreprocessConfig(), np.random.default_rng(0), Observer()).noise_level
        np.testing.assert_allclose(glance.noise_level(first, PreprocessConfig()), sorted_level, rtol=0.01)
    finally:
        recording.close()


def test_filter_is_scipys_zero_phase_butterworth(rng):
    traces = np.cumsum(rng.normal(size=(6000, 2)), axis=0)
    sos = signal.butter(3, 400, "highpass", fs=10_000, output="sos")
    ours = glance._highpassed(recording_from_array(traces, 10_000), PreprocessConfig())
    np.testing.assert_allclose(ours, signal.sosfiltfilt(sos, traces, axis=0, padlen=200), atol=1e-3 * ours.std())


@pytest.mark.parametrize(
    ("fs", "value", "message"),
    [
        (10_000, np.nan, "sample 70 of channel 1 is nan"),
        (700, 1.0, "half the sampling frequency"),
        (10_000, None, "no noise"),
    ],
)
def test_what_it_refuses(rng, fs, value, message):
    traces = rng.normal(size=(1000, 2)).astype(np.float32)
    traces[70 if value is not None else slice(None), 1] = value or 0
    with pytest.raises(InputError, match=message):
        glance.noise_level(recording_from_array(traces, fs), PreprocessConfig())


def test_info_loads_no_scientific_library():
    told = "import sys; from spikecrsae.cli.main import cli; cli(sys.argv[1:], standalone_mode=False); "
    told += "print([m for m in ('scipy', 'numba', 'torch', 'sklearn', 'neo') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", told, "info", str(SAMPLE)], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]", "info starts in a second only without them"
