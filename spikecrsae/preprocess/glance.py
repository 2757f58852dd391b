"""The noise level at a first glance: what `info` shows at once, with numpy alone. A sort measures it anew, where no spike is."""

from __future__ import annotations

import numpy as np

from spikecrsae.config import PreprocessConfig
from spikecrsae.data.recording import Recording, refuse_impossible
from spikecrsae.errors import InputError
from spikecrsae.units import ms_to_samples

#: Beyond both ends the signal goes on for so many periods of the filter's edge, so that its transients die away.
PERIODS = 8
#: Rounds in which the level and the quiet samples are settled, each from the other.
ROUNDS = 3


def noise_level(recording: Recording, config: PreprocessConfig) -> np.ndarray:
    """Noise level per channel (n_channels,) of a whole short recording, in its unit: standard deviation of the high-passed
    samples near which no channel is loud, where loud is judged by the level of the round before.

    The filter is a sort's zero-phase Butterworth high-pass, by its gain at each frequency. Raises InputError where a sample is
    no voltage, the filter's edge does not fit the sampling frequency, or a channel has no noise.
    """
    refuse_impossible(recording, recording.raw(0, recording.n_samples), 0)
    high = _highpassed(recording, config)
    level = np.median(np.abs(high), axis=0) / 0.6745
    margin = ms_to_samples(config.quiet_margin_ms, recording.sampling_frequency)
    for _ in range(ROUNDS):
        if np.any(level <= 0):
            names = ", ".join(np.array(recording.channel_ids)[level <= 0])
            raise InputError(f"channel {names} has no noise at all (its deviation is 0).")
        loud = np.cumsum(np.pad((np.abs(high) > config.quiet_threshold * level).any(axis=1), (margin + 1, margin)))
        quiet = loud[2 * margin + 1 :] == loud[: len(high)]
        if np.count_nonzero(quiet) < 2:
            break
        level = high[quiet].std(axis=0)
    return level


def _highpassed(recording: Recording, config: PreprocessConfig) -> np.ndarray:
    """High-passed traces (n_samples, n_channels), float64, of the whole recording."""
    fs = recording.sampling_frequency
    if config.highpass_hz >= fs / 2:
        raise InputError(
            f"the high-pass edge, {config.highpass_hz:g} Hz, is not below half the sampling frequency, {fs / 2:g} Hz."
        )
    traces = recording.traces(0, recording.n_samples).astype(np.float64)
    pad = min(ms_to_samples(1e3 * PERIODS / config.highpass_hz, fs), len(traces) - 1)
    before, after = 2 * traces[:1] - traces[pad:0:-1], 2 * traces[-1:] - traces[-2 : -pad - 2 : -1]
    extended = np.concatenate([before, traces, after])
    # forwards and backwards is the gain squared; the bilinear transform bends frequencies by a tangent
    power, order = np.tan(np.pi * np.fft.rfftfreq(len(extended))), 2 * config.filter_order
    power **= order
    gain = power / (power + np.tan(np.pi * config.highpass_hz / fs) ** order)
    spectrum = np.fft.rfft(extended, axis=0) * gain[:, None]
    return np.fft.irfft(spectrum, len(extended), axis=0)[pad : pad + len(traces)]
