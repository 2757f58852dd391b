"""Waveforms of every unit with all other spikes taken away."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spikecrsae.curate.candidates import Candidates
from spikecrsae.detect.clustering import SMALLEST_CLUSTER
from spikecrsae.detect.windows import windows_at
from spikecrsae.system.threads import in_threads


def _cleaned_waveforms(state: Candidates) -> list[np.ndarray]:
    """Per unit, windows (n, n_times + 2 pad, n_channels) around its spikes, pad = n_times // 2, with every other spike taken
    away; they begin `pad` samples before the template."""
    model, spikes = state.model, state.spikes
    n_times = state.window.n_times
    pad = n_times // 2
    rest = np.pad(state.rest.T, ((pad, pad), (0, 0)))
    copies, rows = model.shifted, model.copy_of(spikes)

    def of_unit(part: slice) -> np.ndarray:
        mine = state.looked_at(part.start)
        windows = windows_at(rest, spikes.sample[mine], n_times + 2 * pad)
        own = copies[rows[mine]].transpose(0, 2, 1) * spikes.amplitude[mine, None, None]
        windows[:, pad : pad + n_times] += own.astype(np.float32)
        # as large as in signal that is not divided by its noise
        windows /= spikes.expected[mine, None, None].astype(np.float32)
        return windows

    return in_threads(of_unit, model.n_units, 1)


def recentred_waveforms(state: Candidates) -> list[np.ndarray]:
    """The cleaned waveforms, once the windows of new units are aligned with those of the others: spikes that collide are
    sought by the distance of their windows. Where in these the waveforms peak is settled once, so that they keep most of
    their energy."""
    n_times = state.window.n_times
    pad = n_times // 2
    cleaned = _cleaned_waveforms(state)
    units = [u for u, w in enumerate(cleaned) if state.ids[u] not in state.aligned and len(w) >= SMALLEST_CLUSTER]
    if not units:
        return cleaned
    state.aligned |= {state.ids[unit] for unit in units}
    means = np.stack([cleaned[unit].mean(axis=0) for unit in units])
    power = (means**2).sum(axis=2)
    taper = np.hanning(state.subspace.shapes.shape[1] + 2)
    peaks = np.array([np.convolve(one, taper, "same").argmax() for one in power])
    # energy of the windows by their beginning; that of all spikes together decides
    energy = np.stack([np.convolve(one, np.ones(n_times), "valid") for one in power])
    begins = np.clip(peaks[:, None] - np.arange(n_times), 0, 2 * pad)
    if state.before is None:
        counts = np.array([len(state.of(unit)) for unit in units])
        state.before = int((counts @ np.take_along_axis(energy, begins, axis=1)).argmax())
    templates, moved = state.model.templates.astype(np.float64).copy(), np.zeros(state.model.n_units, np.int64)
    for unit, mean, begin in zip(units, means, begins[:, state.before], strict=True):
        if abs(begin - pad) > n_times // 8:
            templates[unit], moved[unit] = mean[begin : begin + n_times].T, begin - pad
    if not moved.any():
        return cleaned
    # the spikes are the same, and are not looked for again before the templates are fitted
    spikes = state.spikes.moved(moved, state.signal.shape[1] - n_times)
    state.update(1, replace(state.model, templates=templates), spikes)
    return _cleaned_waveforms(state)
