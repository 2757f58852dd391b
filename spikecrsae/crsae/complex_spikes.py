"""Complex spikes of Purkinje cells: a spike like a simple one, followed by spikelets that no template of its length
holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from spikecrsae.crsae.model import CRsAE
from spikecrsae.csc.pursuit import FULL, Effort
from spikecrsae.data.spikes import Spikes
from spikecrsae.detect.windows import windows_at

#: Smaller than this part of a simple spike, a spike may be a spikelet of a complex one.
LARGEST_SPIKELET = 0.8


@dataclass(frozen=True)
class ComplexSpikes:
    """How the complex spikes of a neuron are told from its simple ones: by the signal after the template, the tail.

    simple, complex: the two units. tails (2, n_channels, n_tail): mean of the simple and of the complex spikes' tails, from
    the end of the template on. log_odds: of a complex spike against a simple one.
    """

    simple: int
    complex: int
    tails: np.ndarray
    log_odds: float

    @property
    def n_tail(self) -> int:
        return int(self.tails.shape[2])

    def scores(self, tails: np.ndarray, expected: np.ndarray | float = 1.0) -> np.ndarray:
        """Log posterior odds (n,) of complex against simple spikes by their tails (n, n_tail, n_channels). expected (n,):
        see Spikes."""
        means = self.tails.astype(np.float64)
        energy = (means**2).sum(axis=(1, 2))
        correlation = np.tensordot(tails, (means[1] - means[0]).T, axes=2)
        odds = expected * correlation - 0.5 * expected**2 * (energy[1] - energy[0]) + self.log_odds
        return np.asarray(odds)

    def complex_among(self, model: CRsAE, signal: np.ndarray, spikes: Spikes) -> np.ndarray:
        """Indices of the complex spikes, ascending, of a signal (n_channels, n_samples) and its spikes."""
        small = may_be_spikelets(model, spikes, self.simple)
        heads = np.flatnonzero(~small & np.isin(spikes.unit, (self.simple, self.complex)))
        scores = self.scores(tails_of(signal, model, spikes, heads, small, self.n_tail), spikes.expected[heads])
        reach, chosen = model.n_times + self.n_tail, np.zeros(len(heads), bool)
        for at in np.argsort(-scores):
            if scores[at] <= 0:
                break
            # no complex spike begins within another one's tail
            low, high = np.searchsorted(spikes.sample[heads], spikes.sample[heads[at]] + np.array([1 - reach, reach]))
            chosen[at] = not chosen[low:high].any()
        return heads[chosen]


def tell_apart(
    complexes: Sequence[ComplexSpikes],
    model: CRsAE,
    signal: np.ndarray,
    spikes: Spikes,
    level: np.ndarray | None = None,
    effort: Effort = FULL,
) -> tuple[Spikes, np.ndarray]:
    """The spikes of a signal (n_channels, n_samples) with simple and complex ones as units of their own, from spikes in
    which they are not told apart; and the signal without the tails of the complex ones. That signal is encoded anew, so that
    spikelets are no spikes."""
    starts = [np.zeros(0, np.int64)] * len(complexes)
    rest = signal
    for k, told in enumerate(complexes):
        found = told.complex_among(model, signal, spikes)
        if len(found) and rest is signal:
            rest = signal.copy()
        starts[k] = spikes.sample[found]
        for start, expected in zip(starts[k] + model.n_times, spikes.expected[found], strict=True):
            stop = min(start + told.n_tail, rest.shape[1])
            rest[:, start:stop] -= (expected * told.tails[1][:, : stop - start]).astype(rest.dtype)
    if rest is not signal:
        spikes = model.encode(rest, effort, level)
    for told, begun in zip(complexes, starts, strict=True):
        mine = np.flatnonzero(np.isin(spikes.unit, (told.simple, told.complex)))
        is_complex = np.zeros(len(mine), bool)
        if len(begun) and len(mine):
            at = spikes.sample[mine]
            after = np.minimum(np.searchsorted(at, begun), len(at) - 1)
            before = np.maximum(after - 1, 0)
            nearest = np.where(np.abs(at[before] - begun) <= np.abs(at[after] - begun), before, after)
            is_complex[nearest[np.abs(at[nearest] - begun) <= model.n_times // 4]] = True
        spikes = model.as_units(spikes, mine, np.where(is_complex, told.complex, told.simple))
    return spikes, rest


def may_be_spikelets(model: CRsAE, spikes: Spikes, simple: int) -> np.ndarray:
    """Spikes (bool, n) so small that they may be spikelets in a complex spike of this simple one's neuron."""
    norm = np.sqrt(model.energy)
    return np.asarray(model.unshrunk(spikes) * norm[spikes.unit] < LARGEST_SPIKELET * norm[simple])


def tails_of(
    signal: np.ndarray, model: CRsAE, spikes: Spikes, heads: np.ndarray, small: np.ndarray, n_tail: int
) -> np.ndarray:
    """The n_tail samples (n, n_tail, n_channels) after the templates of the spikes `heads` (indices), with all spikes taken
    away that are not `small`; zero beyond the signal's end."""
    rest = np.pad(model.residual(signal, spikes.select(~small)).T, ((0, model.n_times + n_tail), (0, 0)))
    return windows_at(rest, spikes.sample[heads] + model.n_times, n_tail)
