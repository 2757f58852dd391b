"""What our encoder finds when it is told what nobody knows: the ceiling of real_life.py.

Told are the times of all true spikes, from which the templates and the prior are fitted; the level of the noise over time; and when
pulses come. A neuron that steps has a template before and one after. What is left is what noise and collisions hide.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from spikecrsae.config import Config
from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import SpikeSlab
from spikecrsae.data.intervals import NONE, widened
from spikecrsae.data.loudness import STEP, Loudness
from spikecrsae.data.spikes import Spikes
from spikecrsae.detect.windows import windows_at
from spikecrsae.preprocess.preprocessor import PreprocessedRecording
from spikecrsae.preprocess.whitening import fit
from spikecrsae.progress import Observer
from spikecrsae.readers import open_recording
from spikecrsae.units import ms_to_samples

#: Length of a template, and its part before the spike; a complex spike lasts longer.
TEMPLATE_MS, COMPLEX_MS, BEFORE_MS = 2.0, 16.0, 0.9
#: A pulse is blanked for as long as its mean is above the noise, at most so long.
LONGEST_PULSE_MS = 12.0
#: Rounds of the M-step with the true spikes: amplitudes are told, so few are needed.
ROUNDS = 2


def trains(path: Path, case: str, level: float) -> dict[str, np.ndarray]:
    """Spike samples by neuron, as the oracle finds them."""
    with h5py.File(path) as file:
        truth = {name: np.sort(file["truth"][name]["spike_samples"][()]) for name in file["truth"]}
        loud = file["loud"][()] if "loud" in file else NONE
        pulses = file["pulses"][()] if "pulses" in file else np.zeros(0, np.int64)
    recording = open_recording(path)
    config, rng = Config().preprocess, np.random.default_rng(0)
    gaps, changing = NONE, case.startswith("loud_")
    if len(pulses):
        gaps = widened(np.stack([pulses - 2, pulses + _pulse_length(recording, pulses)], axis=1), 0, recording.n_samples)
    elif len(loud) and not changing:
        gaps = loud
    preprocessor = fit(recording, config, rng, Observer(), gaps, loud if changing else NONE)
    loudness = _loudness(loud, level) if changing else Loudness.steady()
    view = PreprocessedRecording(recording, preprocessor, gaps, loudness)
    signal = np.ascontiguousarray(view.both(0, recording.n_samples)[1])
    bounds = [0, recording.n_samples // 2, recording.n_samples] if case == "step" else [0, recording.n_samples]
    found: dict[str, list[np.ndarray]] = {name: [] for name in truth}
    for first, last in itertools.pairwise(bounds):
        here = {name: train[(train >= first) & (train < last)] - first for name, train in truth.items()}
        part = np.ascontiguousarray(signal[:, first:last])
        for name, train in _decoded(part, here, view, first, case).items():
            found[name].append(train + first)
    return {name: np.sort(np.concatenate(parts)) for name, parts in found.items()}


def _decoded(
    signal: np.ndarray, truth: dict[str, np.ndarray], view: PreprocessedRecording, first: int, case: str
) -> dict[str, np.ndarray]:
    """Of a stretch of whitened signal (n_channels, n_samples) from a sample of the recording on."""
    fs = view.sampling_frequency
    n_times = ms_to_samples(COMPLEX_MS if case == "complex_spikes" else TEMPLATE_MS, fs)
    before, n_samples = ms_to_samples(BEFORE_MS, fs), signal.shape[1]
    level = view.level(first, first + n_samples)
    names, starts = list(truth), []
    for train in truth.values():
        begin = train - before
        starts.append(begin[(begin >= 0) & (begin <= n_samples - n_times)])
    templates = []
    for begin in starts:
        clear = begin if level is None else begin[level[begin] == 0]
        templates.append(windows_at(signal.T, clear if len(clear) else begin, n_times).mean(axis=0).T)
    model = CRsAE(
        np.stack(templates), SpikeSlab.first(len(names)), 1.0, ms_to_samples(Config().initialise.refractory_ms, fs)
    )
    for _ in range(ROUNDS):
        model = model.maximise(signal, _spikes(starts, level, n_times))
    spikes = model.encode(signal, level=level)
    return {name: spikes.sample[spikes.unit == unit] + before for unit, name in enumerate(names)}


def _spikes(starts: list[np.ndarray], level: np.ndarray | None, n_times: int) -> Spikes:
    """The true spikes at the size of their templates."""
    sample = np.concatenate(starts)
    unit = np.repeat(np.arange(len(starts)), [len(s) for s in starts])
    order = np.argsort(sample, kind="stable")
    sample, unit = sample[order], unit[order]
    noise = np.zeros(len(sample)) if level is None else level[sample + n_times // 2].astype(np.float64)
    expected = 1 / (1 + STEP) ** noise
    nothing = np.zeros(len(sample))
    spikes = Spikes(unit, sample, expected, nothing, nothing, np.full(len(sample), -1), nothing)
    return replace(spikes, expected=expected)


def _loudness(loud: np.ndarray, level: float) -> Loudness:
    """Noise `level` times as loud in these intervals (n, 2)."""
    height = round(np.log(level) / np.log1p(STEP))
    starts = np.r_[0, loud.ravel()]
    levels = np.r_[0, np.tile([height, 0], len(loud))].astype(np.uint8)
    return Loudness(starts, levels) if starts[1] > 0 else Loudness(starts[1:], levels[1:])


def _pulse_length(recording, pulses: np.ndarray) -> int:
    """Samples for which the mean pulse is above the noise on any channel."""
    traces = recording.traces(0, recording.n_samples)
    longest = ms_to_samples(LONGEST_PULSE_MS, recording.sampling_frequency)
    inside = pulses[pulses < len(traces) - 2 * longest]
    # pulses of both signs may take turns
    windows = traces[inside[:, None] + np.arange(2 * longest)]
    size = np.median(np.abs(windows), axis=0)
    usual = 1.5 * np.median(size[longest:], axis=0)
    above = np.flatnonzero((size[:longest] > usual).any(axis=1))
    return int(above[-1]) + 1 if len(above) else 1
