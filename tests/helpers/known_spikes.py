"""Whitened signals whose spikes are known, for the tests of what a model says and learns."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import SpikeSlab
from spikecrsae.csc.least_squares import subtract
from spikecrsae.csc.pursuit import Effort
from spikecrsae.data.spikes import Spikes

N_TIMES, PEAK, REFRACTORY = 40, 14, 20
#: Two sweeps of local search; the rivals are told as well.
TWO_SWEEPS = Effort(n_sweeps=2)


@dataclass(frozen=True)
class Whitened:
    """What a Decoding asks of a recording, over a whitened signal (n_channels, n_samples).

    scale: of the signal before whitening, the same on each channel.
    """

    signal: np.ndarray
    scale: float = 1.0

    @property
    def n_samples(self) -> int:
        return self.signal.shape[1]

    def level(self, start: int, stop: int) -> None:
        """The noise is steady."""
        return None

    def both_of(self, places) -> list[tuple[np.ndarray, np.ndarray]]:
        assert all(0 <= start <= stop <= self.n_samples for start, stop in places)
        parts = [self.signal[:, start:stop] for start, stop in places]
        return [(self.scale * part.T, part) for part in parts]


def template(norm: float, gains=(1.0, 0.4), width: float = 4.0) -> np.ndarray:
    """A spike (n_channels, N_TIMES): a trough of `width` samples and a slower hump, as large on each channel as `gains`
    say."""
    time = np.arange(N_TIMES) - PEAK
    shape = -np.exp(-((time / width) ** 2)) + 0.5 * np.exp(-(((time - 2 * width) / (1.5 * width)) ** 2))
    found = np.outer(gains, shape)
    return norm * found / np.linalg.norm(found)


def slab(templates, spread=0.1, penalty=6.0, refractory: int = REFRACTORY, n_shifts: int = 8) -> CRsAE:
    """The model of templates (n_units, n_channels, N_TIMES) with a spike-and-slab prior; spread, penalty: of each unit, or one
    for all."""
    templates = np.stack(list(templates))
    spread, penalty = (np.broadcast_to(np.asarray(v, float), len(templates)).copy() for v in (spread, penalty))
    return CRsAE(templates, SpikeSlab(spread, penalty), refractory=refractory, n_shifts=n_shifts)


def first_slab(templates) -> CRsAE:
    """The model of templates (n_units, n_channels, N_TIMES) with the spike-and-slab prior of before anything is known."""
    templates = np.stack(list(templates))
    return CRsAE(templates, SpikeSlab.first(len(templates)), refractory=REFRACTORY)


def spikes_at(unit, sample, amplitude=None, shift=None) -> Spikes:
    """Spikes in order of time; amplitude 1 and shift 0 unless given. Their gains say nothing."""
    order, n = np.lexsort((unit, sample)), len(sample)
    amplitude = np.ones(n) if amplitude is None else np.asarray(amplitude, float)
    shift = np.zeros(n) if shift is None else np.asarray(shift, float)
    unit, sample, amplitude, shift = (np.asarray(column)[order] for column in (unit, sample, amplitude, shift))
    return Spikes(unit, sample, amplitude, shift, np.ones(n), np.full(n, -1), np.zeros(n))


def fired(model: CRsAE, counts, gap: int, seed: int, spread: float | None = None) -> tuple[np.ndarray, Spikes]:
    """Signal (n_channels, n_samples) and spikes: so many of each unit, in random order, one in every `gap` samples, between
    samples, with the amplitudes of the model's prior (or of one spread), in white noise."""
    rng = np.random.default_rng(seed)
    unit = rng.permutation(np.repeat(np.arange(model.n_units), counts))
    n = len(unit)
    sample = 20 + np.arange(n) * gap + rng.integers(0, gap // 3, n)
    amplitude = rng.normal(1.0, model.prior.spread[unit] if spread is None else spread, n)
    spikes = spikes_at(unit, sample, amplitude, model.shifts()[rng.integers(0, model.n_shifts, n)])
    return rendered(model, spikes, n * gap + 2 * N_TIMES, rng), spikes


def rendered(model: CRsAE, spikes: Spikes, n_samples: int, rng: np.random.Generator | None) -> np.ndarray:
    """The spikes as float32 signal (n_channels, n_samples), in white noise unless rng is None."""
    shape = (model.templates.shape[1], n_samples)
    signal = np.zeros(shape, np.float32) if rng is None else rng.standard_normal(shape).astype(np.float32)
    subtract(signal, model.shifted, model.copy_of(spikes), spikes.sample, -spikes.amplitude)
    return signal


def matched(found: np.ndarray, true: np.ndarray, tolerance: int = 8) -> int:
    """How many of the found samples (ascending) are a true one, one to one."""
    free = list(true)
    n = 0
    for sample in found:
        while free and free[0] < sample - tolerance:
            free.pop(0)
        if free and free[0] <= sample + tolerance:
            free.pop(0)
            n += 1
    return n
