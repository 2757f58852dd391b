"""Noise with what is no neuron in it: movement, hum, gaps."""

from __future__ import annotations

import numpy as np
from scipy import signal as sps

from spikecrsae.config import PreprocessConfig
from spikecrsae.data.recording import Recording, recording_from_array
from spikecrsae.preprocess.artefacts import find_artefacts
from spikecrsae.preprocess.preprocessor import PreprocessedRecording
from spikecrsae.preprocess.whitening import fit
from spikecrsae.progress import Observer

FS = 10000.0


def noise(n_channels: int, seconds: float, seed: int = 0) -> np.ndarray:
    """Coloured noise, 0.6 correlated between the channels, 10 uV."""
    rng = np.random.default_rng(seed)
    pole = 0.9 * np.exp(2j * np.pi * 700 / FS)
    sources = rng.standard_normal((int(seconds * FS), n_channels + 1))
    coloured = sps.lfilter([1.0], np.poly([pole, pole.conj()]).real, sources, axis=0)
    coloured *= 10 / coloured.std(axis=0)
    return np.sqrt(0.4) * coloured[:, :-1] + np.sqrt(0.6) * coloured[:, -1:]


def rubbing(n: int, start_s: float, stop_s: float, size: float, seed: int = 1) -> np.ndarray:
    """Noise (n, 1) of standard deviation `size` between two times, 0 elsewhere."""
    trace = np.zeros((n, 1))
    part = slice(int(start_s * FS), int(stop_s * FS))
    trace[part, 0] = size * np.random.default_rng(seed).standard_normal(part.stop - part.start)
    return trace


def hum(n: int, highest_hz: float, size: float) -> np.ndarray:
    """Mains of 50 Hz (n, 1): every harmonic up to highest_hz, amplitude `size` over its order."""
    time = np.arange(n)[:, None] / FS
    return size * sum(np.sin(2 * np.pi * 50 * k * time + k**2) / k for k in range(1, int(highest_hz / 50) + 1))


def recorded(traces: np.ndarray, fs: float = FS, **facts) -> Recording:
    return recording_from_array(traces.astype(np.float32), fs, **facts)


def found_in(recording: Recording, gaps: np.ndarray | None = None) -> np.ndarray:
    given = {} if gaps is None else {"gaps": gaps}
    return find_artefacts(recording, PreprocessConfig(), Observer(), **given).gaps


def preprocessed(recording: Recording, gaps: np.ndarray) -> PreprocessedRecording:
    learnt = fit(recording, PreprocessConfig(), np.random.default_rng(0), Observer(), gaps)
    return PreprocessedRecording(recording, learnt, gaps)
