"""The filter that every signal goes through first: a Butterworth filter, as second-order sections. scipy.signal, which takes
half a second to load, is loaded by the second process where there is one."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable

import numpy as np

from spikecrsae.beside import begin
from spikecrsae.config import OCTAVE, PreprocessConfig
from spikecrsae.errors import InputError


def design_filter(config: PreprocessConfig, fs: float) -> tuple[np.ndarray, int]:
    """Sections (n, 6) of the Butterworth filter, and the samples after which its transients are below 1e-8. Raises InputError
    where its edges do not fit the sampling frequency fs in Hz."""
    sos = _design(config.filter_order, edges(config, fs), fs)().copy()
    return sos, settling_samples(sos)


def begin_design(config: PreprocessConfig, fs: float) -> None:
    """Let the second process design the filter that `design_filter` will be asked for."""
    # what an earlier run asked for and did not wait for went with its second process
    _design.cache_clear()
    with contextlib.suppress(InputError):  # said where it is asked for
        _design(config.filter_order, edges(config, fs), fs)


@functools.lru_cache
def _design(order: int, edges: tuple[float, ...], fs: float) -> Callable[[], np.ndarray]:
    return functools.cache(begin(_butterworth, order, edges, fs))


def _butterworth(order: int, edges: tuple[float, ...], fs: float) -> np.ndarray:
    from scipy.signal import butter

    if len(edges) == 1:
        return butter(order, edges[0], "highpass", fs=fs, output="sos")
    return butter(order, edges, "bandpass", fs=fs, output="sos")


def edges(config: PreprocessConfig, fs: float) -> tuple[float, ...]:
    """The filter's lower edge in Hz, and its upper one where it has one. Raises InputError where they do not fit fs."""
    nyquist = fs / 2
    if config.highpass_hz >= nyquist:
        raise InputError(
            f"preprocess.highpass_hz = {config.highpass_hz} Hz must be below the Nyquist frequency, {nyquist} Hz at a sampling "
            f"frequency of {fs} Hz; give a lower --highpass-hz, or the true --sampling-frequency."
        )
    if config.lowpass_hz is None:
        return (config.highpass_hz,)
    upper = min(config.lowpass_hz, 0.9 * nyquist)
    if upper < OCTAVE * config.highpass_hz:
        raise InputError(
            f"the filter's upper edge, {upper:g} Hz below the Nyquist frequency of {nyquist:g} Hz, must be at least {OCTAVE:g} times its "
            f"lower edge, {config.highpass_hz:g} Hz; give a lower --highpass-hz, or leave --lowpass-hz out."
        )
    return config.highpass_hz, upper


def settling_samples(sos: np.ndarray, left: float = 1e-8) -> int:
    """Samples after which the slowest pole of sections sos (n, 6) has decayed to `left`. Raises ValueError where it never does."""
    slowest = np.abs(np.concatenate([np.roots(section[3:]) for section in sos])).max()
    if slowest >= 1:
        raise ValueError(f"a filter with a pole at {slowest:g} does not settle")
    return int(np.ceil(np.log(left) / np.log(max(slowest, np.finfo(float).tiny))))
