"""Filters of traces (n_samples, n_channels), block by block on all cores: zero-phase sections, and the whitening of noise."""

from __future__ import annotations

import numpy as np

from spikecrsae.config import OCTAVE, PreprocessConfig
from spikecrsae.errors import InputError
from spikecrsae.system.compiled import compiled
from spikecrsae.system.threads import in_threads

#: Samples that one thread filters at once; what it works on stays in its core's cache.
SAMPLES_PER_TASK = 2**15
#: Samples of one channel whitened at once, for the innermost cache.
TILE = 2048


def zero_phase(traces: np.ndarray, sos: np.ndarray, margin: int) -> np.ndarray:
    """Second-order sections (n, 6) forwards and backwards over traces (n_samples, n_channels), float32, computed in float64.

    What scipy's sosfiltfilt gives: beyond both ends the signal goes on as its own point reflection, for `margin` samples, the
    time in which the filter's transients die away. Blocks begin and end as far outside of what they give.
    """
    pad = min(margin, len(traces) - 1)
    before, after = 2 * traces[:1] - traces[pad:0:-1], 2 * traces[-1:] - traces[-2 : -pad - 2 : -1]
    extended = np.concatenate([before, traces, after])
    steady = _steady_state(sos)
    result = np.empty(traces.shape, np.float32)

    def filter_block(part: slice) -> None:
        work = extended[part.start : part.stop + 2 * pad].astype(np.float64)
        _cascade(work, sos, np.multiply.outer(steady, work[0]), 1)
        _cascade(work, sos, np.multiply.outer(steady, work[-1]), -1)
        result[part] = work[pad : pad + part.stop - part.start]

    in_threads(filter_block, len(traces), max(SAMPLES_PER_TASK, 4 * margin))
    return result


def _steady_state(sos: np.ndarray) -> np.ndarray:
    """State (n_sections, 2) of `_cascade` after an endless signal of ones."""
    state, level = np.empty((len(sos), 2)), 1.0
    for section, (b0, b1, b2, _, a1, a2) in zip(state, sos, strict=True):
        before, level = level, level * (b0 + b1 + b2) / (1 + a1 + a2)
        section[1] = b2 * before - a2 * level
        section[0] = b1 * before - a1 * level + section[1]
    return state


@compiled
def _cascade(values: np.ndarray, sos: np.ndarray, state: np.ndarray, step: int) -> None:
    """Filter values (n_samples, n_channels) in place, from the first to the last (step 1) or back (step -1). state (n_sections,
    2, n_channels): of the sections in transposed direct form II."""
    n_samples, n_channels = values.shape
    i = 0 if step > 0 else n_samples - 1
    for _ in range(n_samples):
        for s in range(len(sos)):
            b0, b1, b2, a1, a2 = sos[s, 0], sos[s, 1], sos[s, 2], sos[s, 4], sos[s, 5]
            for c in range(n_channels):
                x = values[i, c]
                y = b0 * x + state[s, 0, c]
                state[s, 0, c] = b1 * x - a1 * y + state[s, 1, c]
                state[s, 1, c] = b2 * x - a2 * y
                values[i, c] = y
        i += step


def whiten(traces: np.ndarray, taps: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Causal filters taps (n_channels, n_taps) of the channels of traces (n_samples, n_channels), zero before their start,
    mixed by matrix (n_out, n_channels): signal (n_out, n_samples), float32."""
    result = np.empty((len(matrix), len(traces)), np.float32)
    # four taps at a time, as _whiten takes them
    taps = np.pad(taps, ((0, 0), (0, -taps.shape[1] % 4))).astype(np.float32)
    matrix, reach = matrix.astype(np.float32), taps.shape[1] - 1

    def whiten_block(part: slice) -> None:
        first = max(0, part.start - reach)
        signal = np.zeros((traces.shape[1], part.stop - part.start + reach), np.float32)
        signal[:, reach - (part.start - first) :] = traces[first : part.stop].T
        _whiten(signal, taps, matrix, result, part.start, part.stop)

    in_threads(whiten_block, len(traces), SAMPLES_PER_TASK)
    return result


@compiled
def _whiten(signal: np.ndarray, taps: np.ndarray, matrix: np.ndarray, result: np.ndarray, first: int, end: int) -> None:
    """Samples first to end of `whiten`'s result (n_out, n_samples), from signal (n_channels, n_taps - 1 + end - first)."""
    n_channels, n_taps = taps.shape
    predicted = np.empty((n_channels, TILE), np.float32)
    for start in range(first, end, TILE):
        n = min(TILE, end - start)
        for channel in range(n_channels):
            sums = predicted[channel]
            sums[:] = 0
            for k in range(n_taps - 4, -1, -4):
                h0, h1, h2, h3 = taps[channel, k], taps[channel, k + 1], taps[channel, k + 2], taps[channel, k + 3]
                x = signal[channel, start - first + n_taps - 4 - k :]
                for i in range(n):
                    sums[i] += h3 * x[i] + h2 * x[i + 1] + h1 * x[i + 2] + h0 * x[i + 3]
        for out in range(len(matrix)):
            mixed = result[out, start : start + n]
            mixed[:] = 0
            for channel in range(n_channels):
                weight, sums = matrix[out, channel], predicted[channel]
                for i in range(n):
                    mixed[i] += weight * sums[i]


def design_filter(config: PreprocessConfig, fs: float) -> tuple[np.ndarray, int]:
    """Design the Butterworth filter that every signal goes through first.

    Returns its sections (n, 6), and the samples after which its transients are below 1e-8. Raises InputError where its edges do not
    fit the sampling frequency fs in Hz.
    """
    from scipy.signal import butter  # half a second to load

    bounds = edges(config, fs)
    if len(bounds) == 1:
        sos = butter(config.filter_order, bounds[0], "highpass", fs=fs, output="sos")
    else:
        sos = butter(config.filter_order, bounds, "bandpass", fs=fs, output="sos")
    return sos, settling_samples(sos)


def edges(config: PreprocessConfig, fs: float) -> tuple[float, ...]:
    """The filter's lower edge in Hz, and its upper one where it has one. Raises InputError where they do not fit fs."""
    nyquist = fs / 2
    if config.highpass_hz >= nyquist:
        raise InputError(
            f"the filter's lower edge, {config.highpass_hz:g} Hz, must be below the Nyquist frequency, {nyquist:g} Hz at a sampling "
            f"frequency of {fs:g} Hz; give a lower --highpass-hz, or the true --sampling-frequency."
        )
    if config.lowpass_hz is None:
        return (config.highpass_hz,)
    upper = min(config.lowpass_hz, 0.9 * nyquist)
    if upper < OCTAVE * config.highpass_hz:
        raise InputError(
            f"the filter's upper edge, {upper:g} Hz at a Nyquist frequency of {nyquist:g} Hz, must be at least {OCTAVE:g} "
            "times its "
            f"lower edge, {config.highpass_hz:g} Hz; give a lower --highpass-hz, or leave --lowpass-hz out."
        )
    return config.highpass_hz, upper


def settling_samples(sos: np.ndarray, left: float = 1e-8) -> int:
    """Samples after which the slowest pole of sections sos (n, 6) has decayed to `left`. Raises ValueError where it never does."""
    slowest = np.abs(np.concatenate([np.roots(section[3:]) for section in sos])).max()
    if slowest >= 1:
        raise ValueError(f"a filter with a pole at {slowest:g} does not settle")
    return int(np.ceil(np.log(left) / np.log(max(slowest, np.finfo(float).tiny))))
