"""Compute the probability that a spike was fired by the unit it is assigned to: docs/model.md, "Probability of a spike"."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from scipy import special

from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import learned_spread
from spikecrsae.csc.operator import gram
from spikecrsae.curate.bursts import REFRACTORY_MS
from spikecrsae.data.spikes import Spikes
from spikecrsae.units import ms_to_samples

#: Gain over a rival, in nats, for spikes that have none.
NO_RIVAL = 50.0
#: Spikes on each side of a spike that are looked at for crowding.
_NEIGHBOURS = 11
#: Contaminations that are considered; those that a few neurons can cause, and those of a unit of many neurons.
CONTAMINATION = (np.arange(60) + 0.5) / 60
_MIXED, _MANY = CONTAMINATION < 0.6, CONTAMINATION > 0.1
#: Part of foreign spikes in a unit that looks like one neuron. It is set, not learned: no recording shows that there are
#: none.
LEAST_FOREIGN = 1e-3
#: Largest probability of a spike in a unit that is labelled artefact or noise: such a label may be wrong this often.
NOT_A_NEURON = 0.2


@dataclass(frozen=True)
class Weights:
    """Parameters of the model of errors: logits or factors of logits, the same for every recording."""

    crowd: float
    crowd_near: float
    crowd_size: float
    crowd_misfit: float
    crowd_gap: float
    crowd_gain: float
    mixed: float
    mixed_snr: float
    mixed_spread: float
    mixed_distance: float
    mixed_decay: float
    many: float
    many_snr: float
    many_share: float
    clean: float
    foreign_misfit: float
    foreign_amplitude: float
    foreign_violation: float


#: Learned by benchmarks/learn_probability.py from simulated recordings.
LEARNED = Weights(
    crowd=-0.85, crowd_near=0.6, crowd_size=1.03, crowd_misfit=0.94, crowd_gap=-6.49,
    crowd_gain=-1.76, mixed=-2.53, mixed_snr=2.4, mixed_spread=5.96, mixed_distance=-1.37, mixed_decay=2.51, many=-11.47,
    many_snr=32.33, many_share=3.94, clean=-5.73, foreign_misfit=0.51, foreign_amplitude=0.75, foreign_violation=1.43,
)  # fmt: skip


@dataclass(frozen=True)
class SpikeFacts:
    """What tells true spikes from false ones, each (n_spikes,).

    unit: of the spike. gain: log posterior odds against no spike; over_rival: against the best other unit (NO_RIVAL
    without one).
    near: spikes of any unit within a template's length; gap: distance to the nearest one of another unit in template lengths, 1 if
    none is so near; size: log of the largest template norm among those of other units, over the unit's own. misfit,
    amplitude: deviations from the unit's usual ones, in robust standard deviations. violates: within the refractory period
    of another spike of the unit.
    """

    unit: np.ndarray
    gain: np.ndarray
    over_rival: np.ndarray
    near: np.ndarray
    gap: np.ndarray
    size: np.ndarray
    misfit: np.ndarray
    amplitude: np.ndarray
    violates: np.ndarray

    def select(self, mask: np.ndarray) -> SpikeFacts:
        return SpikeFacts(*(getattr(self, f.name)[mask] for f in fields(self)))


@dataclass(frozen=True)
class UnitFacts:
    """What tells units of one neuron from others, each (n_units,).

    n_spikes; snr: norm of the template in units of noise; spread: of the amplitudes without noise; distance: to the nearest
    other template, in units of noise; pairs: of spikes within the refractory period; by_chance: how many independent
    spikes have.
    """

    n_spikes: np.ndarray
    snr: np.ndarray
    spread: np.ndarray
    distance: np.ndarray
    pairs: np.ndarray
    by_chance: np.ndarray


@dataclass(frozen=True)
class Judgement:
    """probability (n_spikes,) that a spike is its unit's. isolated (n_spikes,): the same if unknown neurons fired none.
    contamination (n_units, 62): posterior of the part of foreign spikes, over the values `shares`."""

    probability: np.ndarray
    isolated: np.ndarray
    contamination: np.ndarray
    shares: np.ndarray


def spike_facts(
    spikes: Spikes, misfit: np.ndarray, usual: np.ndarray, model: CRsAE, sampling_frequency: float
) -> SpikeFacts:
    """Return the facts of spikes sorted by sample. misfit (n,): see CRsAE.misfit. usual (bool, n): spikes that are not
    outliers; they show a unit's usual misfits and amplitudes."""
    rivalled = (spikes.rival >= 0) & (spikes.rival_gain > 0)
    near, gap, size = _crowding(spikes, model)
    root, amplitude = np.cbrt(misfit), spikes.relative
    wide, apart = np.zeros(len(spikes)), np.zeros(len(spikes))
    violates = np.zeros(len(spikes), bool)
    refractory = ms_to_samples(REFRACTORY_MS, sampling_frequency)
    for unit in np.unique(spikes.unit):
        mine = np.flatnonzero(spikes.unit == unit)
        known = mine[usual[mine]] if usual[mine].any() else mine
        middle, high = np.percentile(root[known], [50, 84])
        wide[mine] = (root[mine] - middle) / max(high - middle, model.misfit_of_noise[unit], 1e-6)
        low, middle, high = np.percentile(amplitude[known], [16, 50, 84])
        scale = max(high - middle, middle - low, 1 / np.sqrt(max(model.energy[unit], 1e-9)))
        apart[mine] = (amplitude[mine] - middle) / scale
        close = np.diff(spikes.sample[mine]) <= refractory
        violates[mine] = np.r_[False, close] | np.r_[close, False]
    return SpikeFacts(
        unit=spikes.unit,
        gain=np.maximum(spikes.gain, 0),
        over_rival=np.where(rivalled, spikes.gain - spikes.rival_gain, NO_RIVAL),
        near=np.minimum(near, 6),
        gap=gap,
        size=size,
        misfit=np.clip(wide, 0, 6),
        amplitude=np.minimum(np.abs(apart), 6),
        violates=violates,
    )


def _crowding(spikes: Spikes, model: CRsAE) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """near, gap and size of SpikeFacts."""
    n, norm = len(spikes), np.sqrt(model.energy)
    near, gap, largest = np.zeros(n), np.ones(n), np.zeros(n)
    for step in range(1, min(_NEIGHBOURS, n - 1) + 1):
        apart = spikes.sample[step:] - spikes.sample[:-step]
        close = apart <= model.n_times
        if not close.any():
            break
        other = close & (spikes.unit[step:] != spikes.unit[:-step])
        for here, there in ((slice(0, n - step), slice(step, n)), (slice(step, n), slice(0, n - step))):
            near[here] += close
            gap[here] = np.minimum(gap[here], np.where(other, apart / model.n_times, 1.0))
            largest[here] = np.maximum(largest[here], np.where(other, norm[spikes.unit[there]], 0.0))
    size = np.where(gap < 1, np.log(np.maximum(largest, 1) / np.maximum(norm[spikes.unit], 1e-6)), 0.0)
    return near, gap, size


def unit_facts(spikes: Spikes, model: CRsAE, n_samples: int, sampling_frequency: float) -> UnitFacts:
    """Return the facts of all units of the model, from their spikes sorted by sample. n_samples: length of the sorted
    signal."""
    n_units, refractory = model.n_units, ms_to_samples(REFRACTORY_MS, sampling_frequency)
    counts, pairs = np.bincount(spikes.unit, minlength=n_units), np.zeros(n_units)
    spread = model.prior.parameters().get("spread")
    found = np.zeros(n_units) if spread is None else spread
    amplitude = model.unshrunk(spikes) if spread is None else spikes.amplitude
    for unit in np.flatnonzero(counts):
        mine = spikes.unit == unit
        samples = spikes.sample[mine]
        pairs[unit] = (np.searchsorted(samples, samples + refractory, "right") - np.arange(1, len(samples) + 1)).sum()
        if spread is None:
            found[unit] = learned_spread(amplitude[mine], model.energy[unit])
    open_time = np.maximum(n_samples - 2 * counts * model.refractory, 1)
    by_chance = counts**2 * max(refractory - model.refractory, 0) / open_time
    # no unit, or one alone, has no neighbour
    products = gram(model.templates).max(axis=2, initial=0) / model.sigma**2 + np.diag(np.full(n_units, -np.inf))
    nearest = (model.energy[:, None] + model.energy - 2 * products).min(axis=1, initial=np.inf)
    return UnitFacts(counts, np.sqrt(model.energy), found, np.sqrt(np.maximum(nearest, 0)), pairs, by_chance)


def judge(spikes: SpikeFacts, units: UnitFacts, weights: Weights = LEARNED) -> Judgement:
    """Compute the probabilities from the independent reasons for which a spike can be false: noise, another unit,
    overlapping spikes that were separated wrongly, and spikes of neurons that are no unit."""
    w, logistic = weights, special.expit
    crowd = w.crowd + w.crowd_near * spikes.near + w.crowd_size * spikes.size + w.crowd_misfit * spikes.misfit
    crowd += w.crowd_gap * spikes.gap
    crowd += w.crowd_gain * np.log1p(np.clip(np.minimum(spikes.over_rival, spikes.gain), 0, None))
    reasons = (
        logistic(-spikes.gain),
        np.where(spikes.over_rival < NO_RIVAL, rival_chance(spikes.over_rival), 0.0),
        np.where(spikes.gap < 1, logistic(crowd), 0.0),
    )
    isolated = np.prod([1 - reason for reason in reasons], axis=0)
    contamination, shares = contaminations(units, w)
    foreign = np.clip(contamination @ shares, 1e-7, 1 - 1e-7)
    suspicion = (
        w.foreign_misfit * spikes.misfit + w.foreign_amplitude * spikes.amplitude + w.foreign_violation * spikes.violates
    )
    # a likelihood ratio is 1 in the mean over the unit's own spikes
    n_units = len(units.n_spikes)
    usual = np.bincount(spikes.unit, np.exp(suspicion), n_units) / np.maximum(np.bincount(spikes.unit, minlength=n_units), 1)
    odds = special.logit(foreign)[spikes.unit] + suspicion - np.log(np.maximum(usual, 1e-9))[spikes.unit]
    return Judgement(isolated * logistic(-odds), isolated, contamination, shares)


def rival_chance(over_rival: np.ndarray) -> np.ndarray:
    """Return the probability (n,) that the rival fired the spike, from the spike's gain over the rival."""
    return np.asarray(special.expit(-over_rival))


def contaminations(units: UnitFacts, weights: Weights = LEARNED) -> tuple[np.ndarray, np.ndarray]:
    """Return the posterior (n_units, n_shares) of the part of foreign spikes in each unit, and the parts (n_shares,).

    A unit has the spikes of one neuron, or also those of a few others (parts below 0.6, smaller ones more probable), or
    those of many small neurons, none of which is the unit's. Its template, spread and neighbours say which is likely;
    pairs of spikes within the refractory period are Poisson with the mean (2 C - C^2) times that of independent spikes
    (Llobet et al. 2022).
    """
    w, strength = weights, np.log(np.maximum(units.snr, 1e-3) / 8)

    def log_likelihood(part: np.ndarray) -> np.ndarray:
        mean = (2 * part - part**2) * units.by_chance[:, None] + 1e-9
        return np.asarray(units.pairs[:, None] * np.log(mean) - mean)

    def log_prior(values: np.ndarray) -> np.ndarray:
        return values - special.logsumexp(values)

    clean = np.exp(w.clean)
    mixed = w.mixed - w.mixed_snr * strength
    mixed += w.mixed_spread * np.log(np.maximum(units.spread, 0.05) / 0.1)
    mixed += w.mixed_distance * np.log(np.clip(units.distance, 1, 30) / 8)
    each = log_likelihood(CONTAMINATION)
    few = mixed[:, None] + each + log_prior(np.where(_MIXED, -np.exp(w.mixed_decay) * CONTAMINATION, -np.inf))
    many = (mixed + w.many - w.many_snr * strength)[:, None] + each + log_prior(np.where(_MANY, 0.0, -np.inf))
    joint = np.concatenate([log_likelihood(np.array([clean])), few, special.logsumexp(many, axis=1)[:, None]], axis=1)
    posterior = np.exp(joint - special.logsumexp(joint, axis=1)[:, None])
    return posterior, np.r_[LEAST_FOREIGN, CONTAMINATION, special.expit(w.many_share)]
