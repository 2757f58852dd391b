"""Spikes of a whole recording, chunk by chunk, with seams laid where no spike bears on what follows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from spikecrsae.csc.convolution import correlate, gram
from spikecrsae.csc.coordinate import coordinate_descent
from spikecrsae.csc.least_squares import fit_amplitudes
from spikecrsae.csc.pursuit import SINC_REACH, Spikes, SpikeSlab
from spikecrsae.preprocess import PreprocessedRecording
from spikecrsae.progress import Observer


class Model(Protocol):
    """What has a decoder for every place of a recording: SpikeSlab, Laplace below, or drift.DriftingSlab."""

    @property
    def reach(self) -> int:
        """Samples over which one spike bears on the next: template length or refractory period."""
        ...

    def at(self, sample: int) -> Decoder: ...


class Decoder(Protocol):
    """What turns whitened signal (n_channels, n_samples) into Spikes."""

    def decode(self, signal: np.ndarray) -> Spikes: ...

    def misfit(self, signal: np.ndarray, spikes: Spikes) -> np.ndarray:
        """What each spike leaves in the signal, see SpikeSlab.misfit."""
        ...


@dataclass(frozen=True)
class Laplace:
    """The paper's encoder as a decoder: l1 codes (Eq. 19), support clusters, unpenalised amplitudes, per-unit threshold.

    prior: templates at full scale with spread and penalty, which decide the threshold; lam, sigma: as trained.
    """

    prior: SpikeSlab
    lam: float
    sigma: float
    one_sided: bool = True

    @property
    def reach(self) -> int:
        return self.prior.reach

    def decode(self, signal: np.ndarray) -> Spikes:
        """The spikes of signal (n_channels, n_samples); samples are first samples of the templates.

        A spike is a cluster of neighbouring non-zeros of one atom, at most `refractory` samples from its largest; it stands at
        the largest. Amplitudes are re-estimated jointly by least squares on the support. A spike stays where its posterior
        log odds against noise are positive, with the unit's own amplitude spread and rate.
        """
        templates = self.prior.templates
        if not len(templates) or signal.shape[1] < templates.shape[2]:
            return Spikes.none()
        scale = np.sqrt(self.prior.energy)
        atoms = (templates / scale[:, None, None]).astype(np.float32)
        correlation = correlate(signal[None].astype(np.float32), atoms)
        overlaps = gram(atoms)
        codes = coordinate_descent(correlation, overlaps, self.lam * self.sigma**2, self.one_sided, 1e-3)[0]
        unit, sample = _support_clusters(np.abs(codes), self.prior.refractory)
        if not len(sample):
            return Spikes.none()
        while True:
            amplitude = fit_amplitudes(correlation[0, unit, sample], overlaps, unit, sample) / scale[unit]
            gains = self._log_odds(amplitude, unit)
            keep = gains > 0
            if keep.all():
                none = np.zeros(len(sample))
                return Spikes(unit, sample, amplitude, none, gains, np.full(len(sample), -1), none)
            unit, sample = unit[keep], sample[keep]
            if not len(sample):
                return Spikes.none()

    def at(self, sample: int) -> Laplace:
        """The decoder at a sample of the recording: the same everywhere."""
        return self

    def misfit(self, signal: np.ndarray, spikes: Spikes) -> np.ndarray:
        """What each spike leaves in the signal, see SpikeSlab.misfit."""
        return self.prior.misfit(signal, spikes)

    def _log_odds(self, amplitude: np.ndarray, unit: np.ndarray) -> np.ndarray:
        """log N(a; 1, s^2 + 1/g) - log N(a; 0, 1/g) - p: a spike of the unit against noise with that amplitude."""
        noise = 1 / self.prior.energy[unit]
        spread = self.prior.spread[unit] ** 2 + noise
        odds = (
            0.5 * (amplitude**2 / noise - (amplitude - 1) ** 2 / spread - np.log(spread / noise)) - self.prior.penalty[unit]
        )
        return np.where(amplitude > 0, odds, -np.inf)


def _support_clusters(size: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """(unit, sample) of the non-zeros of size (n_units, n_positions) that are the largest of their unit within `reach`
    samples each way, taken from the largest down; sorted by sample."""
    units, samples = [], []
    for unit, row in enumerate(size):
        at = np.flatnonzero(row)
        free = np.ones(len(at), bool)
        for i in np.argsort(-row[at], kind="stable"):
            if free[i]:
                units.append(unit)
                samples.append(at[i])
                low, high = np.searchsorted(at, [at[i] - reach, at[i] + reach + 1])
                free[low:high] = False
    order = np.lexsort((units, samples))
    return np.array(units, np.int64)[order], np.array(samples, np.int64)[order]


@dataclass(frozen=True)
class DecodedChunk:
    """Spikes whose templates begin in [start, stop) of the recording, with samples counted from `start`, their misfit (n_spikes,),
    and the high-passed traces (n_samples, n_channels) that hold their templates whole, from `start` on."""

    start: int
    stop: int
    spikes: Spikes
    misfit: np.ndarray
    highpassed: np.ndarray


def decode_recording(
    view: PreprocessedRecording, model: Model, n_times: int, chunk_size: int, observer: Observer
) -> Iterator[DecodedChunk]:
    """Decode a recording in order; chunks of about chunk_size samples, at least 16 times the model's reach.

    n_times: length of a template. A seam is laid where no spike bears on what follows, so both sides are independent and
    together they are what the whole would give. Where spikes leave no such place for a whole chunk it is laid anyway.
    """
    margin = 8 * max(n_times, model.reach)
    chunk_size = max(chunk_size, 2 * margin)
    start = 0
    while start < view.n_samples:
        stop = min(start + chunk_size + margin, view.n_samples)
        highpassed, whitened = view.both(start, stop)
        signal = np.ascontiguousarray(whitened.T)
        decoder = model.at((start + stop) // 2)
        spikes = decoder.decode(signal)
        misfit = decoder.misfit(signal, spikes)
        last = stop == view.n_samples
        seam = stop - start if last else _seam(spikes.sample, model.reach, chunk_size)
        here = spikes.sample < seam
        yield DecodedChunk(start, start + seam, spikes.select(here), misfit[here], highpassed)
        observer.advance(seam)
        start += seam


def _seam(samples: np.ndarray, reach: int, chunk_size: int) -> int:
    """The last position up to chunk_size, in its second half, over which no spike reaches, with room for interpolation before the
    next spike; chunk_size where there is none."""
    later = samples[samples >= chunk_size]
    following = min(int(later[0]) if len(later) else chunk_size + SINC_REACH, chunk_size + SINC_REACH)
    for begin in samples[samples < chunk_size][::-1]:
        if begin + reach <= following:
            break
        following = int(begin)
    seam = min(chunk_size, following - SINC_REACH)
    return seam if seam > chunk_size // 2 else chunk_size
