"""Large events that no unit explains: neurons that were not found, or that are new since a model was learned."""

from __future__ import annotations

import numpy as np

from spikecrsae.crsae.model import CRsAE
from spikecrsae.data.recording import Recording
from spikecrsae.data.spikes import Spikes
from spikecrsae.detect.detection import SpikeSubspace
from spikecrsae.system.text import counted

#: An event is large where noise reaches its energy as rarely as a Gaussian exceeds so many standard deviations.
LARGE = 8.0
#: So few large events, or such a part of the number of spikes, are what collisions leave of any recording.
FEW, FEW_OF_SPIKES = 10, 2e-3
#: Length of the bins among which that with most events is named.
BIN_S = 60.0


def subspace_of(model: CRsAE) -> SpikeSubspace:
    """The span of the model's own waveforms, all channels, each counting alike."""
    rows = model.templates.reshape(-1, model.n_times)
    size = np.linalg.norm(rows, axis=1)
    rows = rows[size > 0.1 * size.max(initial=1e-9)]
    if len(rows) < 3:
        return SpikeSubspace.general(model.n_times, backend=model.backend)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return SpikeSubspace(np.linalg.svd(rows, full_matrices=False)[2][:3], model.backend)


def large_events(residual: np.ndarray, model: CRsAE) -> np.ndarray:
    """Where (int64, first samples of windows as long as a template) the residual (n_channels, n_samples) of a decoding holds large
    events."""
    middle = model.n_times // 2
    return subspace_of(model).detect(residual, LARGE, middle) - middle


def unexplained(events: np.ndarray, kept: Spikes, outliers: Spikes, model: CRsAE) -> np.ndarray:
    """Samples (int64, ascending) of the events that fit no unit: large ones of the residual (`large_events`, all of a recording) and the
    large among the outliers (decode.confidence), at least half a template from every spike that was kept.

    What a kept spike leaves beside it is its misfit. Events closer than half a template count as one.
    """
    reach = model.n_times // 2
    large = outliers.relative * np.sqrt(model.energy[outliers.unit]) > LARGE
    places = np.sort(np.concatenate([events, outliers.sample[large]]))
    if len(kept):
        samples = np.sort(kept.sample)
        later = np.searchsorted(samples, places)
        distance = np.minimum(
            np.abs(samples[np.minimum(later, len(samples) - 1)] - places), np.abs(samples[np.maximum(later - 1, 0)] - places)
        )
        places = places[distance > reach]
    return places[np.r_[True, np.diff(places) > reach]] if len(places) else places


def remark(samples: np.ndarray, n_spikes: int, recording: Recording) -> tuple[str, ...]:
    """A line about the events at `samples` (ascending) of a recording with so many spikes: how many, how many per minute, and the minute
    with most; none where they are few."""
    if len(samples) < max(FEW, FEW_OF_SPIKES * n_spikes):
        return ()
    minutes = recording.duration_s / 60
    bins = np.bincount((samples / recording.sampling_frequency / BIN_S).astype(np.int64))
    most = int(bins.argmax())
    edges = np.round(np.array([most, most + 1]) * BIN_S * recording.sampling_frequency)
    ((begin, end),) = recording.timeline.intervals_s(np.minimum(edges, recording.n_samples))
    where = f"; most from {begin:.0f} to {end:.0f} s, {bins[most]}" if minutes > 1 else ""
    return (
        f"{counted(len(samples), 'large event')} fit no unit ({len(samples) / minutes:.3g} per minute{where}): a neuron that was not found, "
        "or collisions",
    )
