"""The noise level that `info` shows: that of a sort, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.recordings import SAMPLE

from spikecrsae.config import PreprocessConfig
from spikecrsae.data.recording import recording_from_array
from spikecrsae.errors import InputError
from spikecrsae.preprocess.noise import noise_level
from spikecrsae.preprocess.whitening import fit
from spikecrsae.progress import Observer
from spikecrsae.readers import open_recording


def test_level_is_that_of_a_sort():
    recording = open_recording(SAMPLE)
    try:
        first = replace(recording, n_samples=int(5 * recording.sampling_frequency))
        sorted_level = fit(first, PreprocessConfig(), np.random.default_rng(0), Observer()).noise_level
        np.testing.assert_allclose(noise_level(first, PreprocessConfig()), sorted_level, rtol=0.01)
    finally:
        recording.close()


@pytest.mark.parametrize(
    ("fs", "value", "message"),
    [
        (10_000, np.nan, "sample 70 of channel 1 is nan"),
        (700, 1.0, "Nyquist"),
        (10_000, None, "no noise"),
    ],
)
def test_what_it_refuses(fs, value, message):
    traces = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)
    traces[70 if value is not None else slice(None), 1] = value or 0
    with pytest.raises(InputError, match=message):
        noise_level(recording_from_array(traces, fs), PreprocessConfig())
