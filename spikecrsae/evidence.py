"""The spike-and-slab model against data: its EM, its log posterior, and excerpts on which two models are compared."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from spikecrsae.csc.least_squares import fit_templates, subtract
from spikecrsae.csc.operator import BlockSpectra
from spikecrsae.csc.pursuit import Spikes, SpikeSlab, View
from spikecrsae.data.sparse_code import SparseCode
from spikecrsae.system.threads import in_threads

#: Bounds of the learned amplitude spread: below, a spike would have to fit its template better than any real one does;
#: above, the prior would no longer tell a spike from noise.
SPREAD_BOUNDS = (0.03, 0.2)
#: Amplitude spread and log-odds penalty before anything is known, and the number of spikes that the first is worth against
#: what a unit's own spikes say (a conjugate prior of its variance).
FIRST_SPREAD, FIRST_PENALTY, SPREAD_COUNT = 0.1, 8.0, 20
#: Spikes of a unit that a comparison of two models looks at, at most.
COMPARED_SPIKES = 100


def first_model(templates: np.ndarray, refractory: int) -> SpikeSlab:
    """Templates with the prior that is assumed before anything is known."""
    n_units = len(templates)
    return SpikeSlab(np.asarray(templates), np.full(n_units, FIRST_SPREAD), np.full(n_units, FIRST_PENALTY), refractory)


def keep(model: SpikeSlab, units) -> SpikeSlab:
    """The model with only these units (indices or mask)."""
    return replace(model, templates=model.templates[units], spread=model.spread[units], penalty=model.penalty[units])


def add(model: SpikeSlab, templates: np.ndarray) -> SpikeSlab:
    """The model with further units at its end."""
    more = first_model(templates, model.refractory)
    return replace(
        model,
        templates=np.concatenate([model.templates, more.templates]),
        spread=np.concatenate([model.spread, more.spread]),
        penalty=np.concatenate([model.penalty, more.penalty]),
    )


def expectation_maximisation(
    signal: np.ndarray | BlockSpectra,
    model: SpikeSlab,
    n_rounds: int,
    n_positions: int | None = None,
    spikes: Spikes | None = None,
) -> tuple[SpikeSlab, Spikes]:
    """Decode, then update templates (joint least squares), spreads and penalties; ends with a decoding of the last model.

    n_positions: among which spikes of a unit are counted for its rate; those of the signal unless given. spikes: what
    decoding with the model gives, or nearly, where that is known.
    """
    spectra = BlockSpectra.of(signal, model.templates.shape[2]) if isinstance(signal, np.ndarray) else signal
    for _ in range(n_rounds):
        found = model.decode(spectra, n_sweeps=2, with_rivals=False) if spikes is None else spikes
        model, spikes = maximise(spectra.signal, model, found, n_positions), None
    return model, model.decode(spectra, n_sweeps=2, with_rivals=False) if spikes is None else spikes


def maximise(signal: np.ndarray, model: SpikeSlab, spikes: Spikes, n_positions: int | None = None) -> SpikeSlab:
    """The M-step for decoded spikes. Units without a spike keep what they have.

    Templates: joint least squares with the decoded amplitudes, those of before counting a little (see fit_templates),
    rescaled so that the mean amplitude is 1. Spread: that of the amplitudes (from the median to 84 %) less what noise adds
    (1 / ||h||^2). Penalty: minus the log of the rate per position.
    """
    if not len(spikes) or not model.n_units:
        return model
    here = signal.shape[1] - model.templates.shape[2] + 1
    counts = np.bincount(spikes.unit, minlength=model.n_units)
    code = SparseCode.build(spikes.unit, spikes.sample, spikes.amplitude, model.n_units, here)
    fitted = fit_templates(signal, code, model.templates.shape[2], before=model.templates)
    templates, spread, penalty = model.templates.astype(np.float64), model.spread.copy(), model.penalty.copy()
    for unit in np.flatnonzero(counts):
        amplitudes = spikes.amplitude[spikes.unit == unit]
        if counts[unit] >= 2:
            templates[unit] = fitted[unit] * amplitudes.mean()
        energy, precision = model.energy[unit], 1 / model.spread[unit] ** 2
        unshrunk = amplitudes + (amplitudes - 1) * precision / max(energy, 1e-9)
        spread[unit] = learned_spread(unshrunk / amplitudes.mean(), energy)
        penalty[unit] = np.log((n_positions or here) / (counts[unit] + 1.0))
    return replace(model, templates=templates, spread=spread, penalty=penalty)


def learned_spread(amplitudes: np.ndarray, energy: float) -> float:
    """Spread of a unit's amplitudes (least squares, about 1) without what noise adds (1 / energy), within SPREAD_BOUNDS.

    From the upper half: small spikes of other neurons must not widen the prior that lets more of them in. A conjugate prior
    counts as much as SPREAD_COUNT spikes.
    """
    n = len(amplitudes)
    deviation = np.subtract(*np.percentile(amplitudes, [84, 50]))
    noise_free = max(deviation**2 - 1 / max(energy, 1e-9), 0.0)
    variance = (n * noise_free + SPREAD_COUNT * FIRST_SPREAD**2) / (n + SPREAD_COUNT)
    return float(np.clip(np.sqrt(variance), *SPREAD_BOUNDS))


def log_posterior(signal: np.ndarray, model: SpikeSlab, spikes: Spikes) -> float:
    """Log posterior odds of spikes against none at all: half the energy they explain, and their prior (see csc.pursuit)."""
    if not len(spikes):
        return 0.0
    rest = model.residual(signal, spikes)
    explained = 0.5 * (np.vdot(signal, signal) - np.vdot(rest, rest))
    variance, energy = model.spread[spikes.unit] ** 2, model.energy[spikes.unit]
    prior = 0.5 * (spikes.amplitude - 1) ** 2 / variance + 0.5 * np.log1p(variance * energy) + model.penalty[spikes.unit]
    return float(explained - prior.sum())


def parameter_cost(template: np.ndarray, n_spikes: int) -> float:
    """What a template costs in log posterior by the Bayesian information criterion: half a log count per parameter."""
    return 0.5 * template.size * np.log(max(n_spikes, 2))


@dataclass(frozen=True)
class Excerpt:
    """The signal around some spikes, with what reaches in from spikes beyond its ends taken away.

    signal (n_channels, n_samples); share: the part of the asked-for spikes that it holds; known: all spikes in it.
    """

    signal: np.ndarray
    share: float
    known: Spikes

    @classmethod
    def around(cls, rest: np.ndarray, model: SpikeSlab, spikes: Spikes, starts: np.ndarray, seed: int) -> Excerpt:
        """rest (n_channels, n_samples): the residual of all spikes. starts: first samples of the spikes to look at; of more
        than COMPARED_SPIKES, some drawn at random."""
        n_starts = len(starts)
        if n_starts > COMPARED_SPIKES:
            starts = np.sort(np.random.default_rng(seed).choice(starts, COMPARED_SPIKES, replace=False))
        n_times = model.templates.shape[2]
        begins, ends = np.maximum(starts - 2 * n_times, 0), np.minimum(starts + 3 * n_times, rest.shape[1])
        new = np.r_[True, begins[1:] > np.maximum.accumulate(ends)[:-1]]
        first, last = begins[new], np.maximum.reduceat(ends, np.flatnonzero(new))
        # between the pieces, silence in which no spike of one piece reaches the next
        offsets = np.r_[0, np.cumsum(last - first + n_times)]
        signal = np.zeros((len(rest), offsets[-1]), np.float32)
        parts = []
        for start, stop, offset in zip(first, last, offsets[:-1], strict=True):
            signal[:, offset : offset + stop - start] = rest[:, start:stop]
            low, high = np.searchsorted(spikes.sample, [start, stop - n_times + 1])
            parts.append(spikes.select(slice(low, high)).later(offset - start))
        known = Spikes.joined(parts)
        subtract(signal, model.shifted, model.copy_of(known), known.sample, -known.amplitude)
        return cls(signal, len(starts) / max(n_starts, 1), known)

    def loss_without(self, model: SpikeSlab, unit: int) -> float:
        """What the known spikes' log posterior loses where all other units have to do without this one, scaled likewise."""
        others = np.arange(model.n_units) != unit
        known = log_posterior(self.signal, model, self.known) / self.share
        return known - self._log_posterior(keep(model, others), model.view(self.signal).of(others))

    def log_posteriors(self, model: SpikeSlab, subsets) -> list[float]:
        """Of the spikes that each subset of the model's units (indices or mask) finds here, scaled to all the spikes that the
        excerpt stands for."""
        view = model.view(self.signal)
        return in_threads(
            lambda k: self._log_posterior(keep(model, subsets[k.start]), view.of(subsets[k.start])), len(subsets), 1
        )

    def log_posterior(self, model: SpikeSlab) -> float:
        """Of the spikes that the model finds here, scaled likewise."""
        return self._log_posterior(model, model.view(self.signal))

    def _log_posterior(self, model: SpikeSlab, view: View) -> float:
        return log_posterior(self.signal, model, model.decode(view, n_sweeps=2, with_rivals=False)) / self.share
