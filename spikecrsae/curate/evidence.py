"""Compare two models on excerpts of the signal by their log posterior."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spikecrsae.crsae.em import E_STEP
from spikecrsae.crsae.model import CRsAE, View
from spikecrsae.crsae.support import supported
from spikecrsae.data.spikes import Spikes
from spikecrsae.system.threads import in_threads

#: Spikes of a unit that a comparison of two models looks at, at most.
COMPARED_SPIKES = 100
#: A template's norm, in units of noise, that spikes outside cells hardly reach (tetrodes: some 65). Where there are such, what a spike
#: tells exceeds every cost by far, so fewer are looked at, in inverse proportion: each is described by dozens of others.
LARGE, LEAST_COMPARED = 100.0, 20


def parameter_cost(template: np.ndarray, n_spikes: int) -> float:
    """What a template (n_channels, n_times) costs in log posterior by the Bayesian information criterion: half a log count for
    every parameter on its support. n_spikes: that it is the mean of."""
    n_parameters = int(supported(template, np.array(n_spikes)).sum()) * template.shape[1]
    return 0.5 * n_parameters * float(np.log(max(n_spikes, 2)))


@dataclass(frozen=True)
class Excerpt:
    """The signal around some spikes, with what reaches in from spikes beyond its ends taken away.

    signal (n_channels, n_samples); share: the part of the asked-for spikes that it holds; known: all spikes in it. level
    (n_samples,): of the noise, None where it is steady, see data.loudness.
    """

    signal: np.ndarray
    share: float
    known: Spikes
    level: np.ndarray | None = None

    @classmethod
    def around(
        cls,
        rest: np.ndarray,
        model: CRsAE,
        spikes: Spikes,
        starts: np.ndarray,
        seed: int,
        level: np.ndarray | None = None,
        most: int = COMPARED_SPIKES,
    ) -> Excerpt:
        """rest (n_channels, n_samples): the residual of all spikes. starts: first samples of the spikes to look at; of more
        than `most`, or fewer where there are LARGE ones, some drawn at random. level (n_samples,): of the noise."""
        n_starts = len(starts)
        if (largest := float(np.sqrt(model.energy.max(initial=0.0)))) > LARGE:
            most = max(min(LEAST_COMPARED, most), int(most * LARGE / largest))
        if n_starts > most:
            starts = np.sort(np.random.default_rng(seed).choice(starts, most, replace=False))
        n_times = model.templates.shape[2]
        begins, ends = np.maximum(starts - 2 * n_times, 0), np.minimum(starts + 3 * n_times, rest.shape[1])
        new = np.r_[True, begins[1:] > np.maximum.accumulate(ends)[:-1]]
        first, last = begins[new], np.maximum.reduceat(ends, np.flatnonzero(new))
        # between the pieces, silence in which no spike of one piece reaches the next
        offsets = np.r_[0, np.cumsum(last - first + n_times)]
        signal = np.zeros((len(rest), offsets[-1]), np.float32)
        parts = []
        levels = None if level is None else np.zeros(signal.shape[1], np.uint8)
        for start, stop, offset in zip(first, last, offsets[:-1], strict=True):
            signal[:, offset : offset + stop - start] = rest[:, start:stop]
            if level is not None and levels is not None:
                levels[offset : offset + stop - start] = level[start:stop]
            low, high = np.searchsorted(spikes.sample, [start, stop - n_times + 1])
            parts.append(spikes.select(slice(low, high)).later(offset - start))
        known = Spikes.joined(parts)
        signal += model.decode(known, signal.shape[1])
        return cls(signal, len(starts) / max(n_starts, 1), known, levels)

    def loss_without(self, model: CRsAE, unit: int, near: np.ndarray) -> float:
        """What the known spikes' log posterior loses where the other units of those near (bool, n_units) have to do without this one,
        scaled likewise."""
        known = model.log_posterior(self.signal, self.known) / self.share
        part, others = model if near.all() else model.select(near), np.flatnonzero(near) != unit
        return known - self._log_posterior(part.select(others), part.view(self.signal).select(others))

    def log_posteriors(self, model: CRsAE, subsets: Sequence[np.ndarray]) -> list[float]:
        """Of the spikes that each subset of the model's units (indices or mask) finds here, scaled to all the spikes that the
        excerpt stands for."""
        view = model.view(self.signal)
        return in_threads(
            lambda k: self._log_posterior(model.select(subsets[k.start]), view.select(subsets[k.start])), len(subsets), 1
        )

    def log_posterior(self, model: CRsAE) -> float:
        """Of the spikes that the model finds here, scaled likewise."""
        return self._log_posterior(model, model.view(self.signal))

    def _log_posterior(self, model: CRsAE, view: View) -> float:
        return model.log_posterior(self.signal, model.encode(view, E_STEP, self.level)) / self.share
