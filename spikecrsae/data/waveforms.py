"""What several formats need besides the spikes: templates about the spike, waveforms of every spike, and their features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from spikecrsae.data.recording import Recording
from spikecrsae.data.sorting import SortingData
from spikecrsae.units import ms_to_samples, s_to_samples

#: Waveforms go from so long before a spike to so long after it.
HALF_WINDOW_MS = 1.0
#: Principal components per channel, as Phy and Klusters show them.
N_COMPONENTS = 3
#: Signal held at once, and the number of such stretches that the components are learnt from at most.
_CHUNK_S, _LEARNING_CHUNKS = 10.0, 12


@dataclass(frozen=True)
class Signal:
    """A recording that is there: highpassed(start, stop) gives its high-passed traces (stop - start, n_used) of the channels
    that were sorted, in the sorting's amplitude_unit."""

    recording: Recording
    highpassed: Callable[[int, int], np.ndarray]


def used_channels(sorting: SortingData) -> np.ndarray:
    """Positions of the channels that were sorted; flat and saturated ones are left out."""
    return np.flatnonzero(~np.asarray(sorting.channels.get("masked", np.zeros(sorting.n_channels)), bool))


def channel_groups(sorting: SortingData) -> np.ndarray:
    """Number of every channel's group (n_channels,), from 0 in the order of their names."""
    return np.unique(sorting.channels.get("groups", np.zeros(sorting.n_channels)), return_inverse=True)[1]


def peak_channels(sorting: SortingData) -> np.ndarray:
    """Channel (n_units,) on which each template stands out of the noise most."""
    return sorting.peaks.channel


def channel_positions(sorting: SortingData) -> np.ndarray:
    """Positions (n_channels, 2) in um, all distinct: the recording's, or where it has none, channels 20 um apart in a column
    for each group, the columns 200 um apart."""
    known = sorting.channels.get("positions")
    if known is not None and np.isfinite(known).all() and len(np.unique(known, axis=0)) == len(known):
        return np.asarray(known, np.float64)
    return np.stack([200.0 * channel_groups(sorting), 20.0 * np.arange(sorting.n_channels)], axis=1)


def centred(templates: np.ndarray, peak_index: np.ndarray) -> np.ndarray:
    """Templates (n_units, n_channels, n_times) with zeros around them so that each has its peak_index in the middle, sample
    n // 2 of n."""
    n_times = templates.shape[2]
    half = int(max(peak_index.max(initial=0), (n_times - peak_index).max(initial=1)))
    wide = np.zeros((*templates.shape[:2], 2 * half), np.float32)
    for unit, peak in enumerate(peak_index):
        wide[unit, :, half - peak : half - peak + n_times] = templates[unit]
    return wide


def half_window(sorting: SortingData) -> int:
    """Samples from the first of a waveform to its spike."""
    return max(2, ms_to_samples(HALF_WINDOW_MS, sorting.sampling_frequency))


def waveforms(sorting: SortingData, signal: Signal, chunks: slice = slice(None)) -> Iterator[tuple[slice, np.ndarray]]:
    """High-passed waveforms (n, 2 half_window, n_used) of the spikes, a stretch of recording at a time, each with the rows of
    the spike table that it belongs to. The spike is in the middle; beyond the recording's ends there are zeros."""
    half, size = half_window(sorting), s_to_samples(_CHUNK_S, sorting.sampling_frequency)
    samples, window = sorting.spikes["sample"], np.arange(2 * half)
    for start in np.arange(0, sorting.n_samples, size)[chunks]:
        stop = min(start + size, sorting.n_samples)
        first, last = np.searchsorted(samples, [start, stop])
        if last > first:
            left, right = min(half, start), min(half, sorting.n_samples - stop)
            traces = signal.highpassed(int(start - left), int(stop + right))
            padded = np.pad(traces, ((half - left, half - right), (0, 0)))
            yield slice(first, last), padded[(samples[first:last] - start)[:, None] + window]


def features(sorting: SortingData, signal: Signal) -> np.ndarray:
    """First principal components (n_spikes, N_COMPONENTS, n_used) of every spike's waveform on each channel, float32. All
    channels and units share the components, which are learnt from stretches all over the recording. The mean is not taken off,
    and the components point along it: the first is large and positive for a spike, as Phy needs it to find its depth."""
    n_chunks = -(-sorting.n_samples // s_to_samples(_CHUNK_S, sorting.sampling_frequency))
    n_times = 2 * half_window(sorting)
    products, mean = np.zeros((n_times, n_times)), np.zeros(n_times)
    for _, windows in waveforms(sorting, signal, slice(None, None, -(-n_chunks // _LEARNING_CHUNKS))):
        rows = windows.transpose(0, 2, 1).reshape(-1, n_times).astype(np.float64)
        products, mean = products + rows.T @ rows, mean + rows.sum(axis=0)
    components = np.linalg.eigh(products)[1][:, : -N_COMPONENTS - 1 : -1]
    components = components * np.where(mean @ components < 0, -1, 1)
    found = np.zeros((len(sorting.spikes), N_COMPONENTS, len(used_channels(sorting))), np.float32)
    for spikes, windows in waveforms(sorting, signal):
        found[spikes] = np.einsum("stc,tk->skc", windows, components)
    return found
