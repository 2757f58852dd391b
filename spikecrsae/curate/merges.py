"""Which of the units on their way through curation are one neuron's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from spikecrsae.csc.operator import gram
from spikecrsae.csc.subsample import shift_in_time
from spikecrsae.curate.bursts import BURST_LEVEL, SAME_SHAPE, burst_p_value
from spikecrsae.curate.candidates import Candidates
from spikecrsae.curate.coincidences import INDEPENDENT_LEVEL, LEAST_DISTANCE, Lags, dependence_p_value, independence_p_value
from spikecrsae.curate.evidence import parameter_cost
from spikecrsae.detect.bimodality import MODE_LEVEL, allowed_variance, are_two, larger_of, nuisance_directions, without
from spikecrsae.detect.clustering import SMALLEST_CLUSTER

#: Pairs of templates with a cosine above this at the best lag are asked whether they are one.
SIMILAR = 0.7


def merge_pairs(state: Candidates, cleaned: list[np.ndarray]) -> bool:
    """Merge the pairs whose cleaned waveforms, at the best shift, show one mode, and those of which one holds the later
    spikes of the other's bursts; whether there was such a pair."""
    gone: set[int] = set()
    for similarity, a, b, shift in _similar_pairs(state.model.templates):
        if a in gone or b in gone or min(len(cleaned[a]), len(cleaned[b])) < SMALLEST_CLUSTER:
            continue
        if _fire_independently(state, a, b):
            continue
        first, second = _aligned(cleaned[a], cleaned[b], shift, state.window.n_times)
        pooled, amplitudes = _pooled(first, second)
        nuisance = nuisance_directions(pooled)[1:]
        flat = [without(part.reshape(len(part), -1), nuisance) for part in (first, second)]
        times = [state.times(state.spikes.sample[state.looked_at(unit)]) for unit in (a, b)]
        sooner, later = _at_equal_time(flat, times)
        allowed = allowed_variance(pooled)
        two, p, variance = are_two(sooner, later, state.settings.seed, allowed, larger_of(sooner, later))
        smaller, larger = sorted((a, b), key=lambda u: len(state.of(u)))
        if not two:
            # one mode is not enough, few spikes show no valley: beyond what one neuron varies the signal decides
            wide = variance > allowed
            gain = _gain_of_merging(state, a, b, pooled, amplitudes) if wide else 0.0
            if wide and gain <= 0:
                continue
            statistic, level, why = (gain, 0.0, "better together") if wide else (p, MODE_LEVEL, "one mode")
        else:
            evidence = _evidence_for_one(state, a, b, similarity)
            if evidence is None:
                continue
            statistic, level, why = evidence
            if why == "bursts":
                smaller, larger = sorted((a, b), key=lambda u: state.model.energy[u])
        state.decide("merge", [larger, smaller], statistic, level, why=why, similarity=similarity)
        gone.add(smaller)
        state.parts.setdefault(state.ids[larger], []).extend(state.model.templates[[smaller, larger]])
    if gone:
        state.keep(np.array([u for u in range(state.model.n_units) if u not in gone]))
    return bool(gone)


def _fire_independently(state: Candidates, a: int, b: int) -> bool:
    """Whether the times of two units' spikes show that they are two neurons, see coincidences."""
    templates = state.model.templates[[a, b]]
    correlation = gram(templates)
    energy = correlation[[0, 1], [0, 1], state.window.n_times - 1]
    if energy.sum() - 2 * correlation[0, 1].max() < LEAST_DISTANCE**2:
        return False
    trains = [np.sort(state.times(state.starts(unit))) for unit in (a, b)]
    lags = Lags.of(state.settings.burst, state.settings.refractory)
    return independence_p_value(trains[0], trains[1], lags) < INDEPENDENT_LEVEL


def _at_equal_time(parts: list[np.ndarray], times: list[np.ndarray]) -> list[np.ndarray]:
    """Two sets of windows (n, n_features) as if all had been recorded at one time, where that brings them closer: the linear
    trend within the sets is taken off (analysis of covariance). A neuron that drifts, known as two units in turn, becomes
    one."""
    if min(map(len, parts)) < 2 * SMALLEST_CLUSTER:
        return parts
    clock = [t.astype(np.float64) - np.concatenate(times).mean() for t in times]
    within = [t - t.mean() for t in clock]
    trend = sum(t @ (x - x.mean(axis=0)) for t, x in zip(within, parts, strict=True)) / sum(t @ t for t in within)
    moved = [x - t[:, None] * trend for x, t in zip(parts, clock, strict=True)]
    apart, closer = (np.linalg.norm(x[1].mean(axis=0) - x[0].mean(axis=0)) for x in (parts, moved))
    return moved if closer < apart else parts


def _pooled(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The common template (n_channels, n_times) of two sets of windows, the second moved by the part of a sample that fits
    best, and the amplitudes of all windows relative to it."""
    mean, other = first.mean(axis=0).T.astype(np.float64), second.mean(axis=0).T.astype(np.float64)
    shift = max(np.linspace(-0.5, 0.5, 9), key=lambda by: np.vdot(mean, shift_in_time(other, by)))
    pooled = (len(first) * mean + len(second) * shift_in_time(other, shift)) / (len(first) + len(second))
    templates = pooled, shift_in_time(pooled, -shift)
    amplitudes = [np.tensordot(w, h.T, axes=2) / (h**2).sum() for w, h in zip((first, second), templates, strict=True)]
    return pooled, np.concatenate(amplitudes)


def _evidence_for_one(state: Candidates, a: int, b: int, similarity: float) -> tuple[float, float, str] | None:
    """What shows that two units of two sizes are one neuron, as (statistic, level, why): the weaker holds the later spikes of the
    other's bursts (see bursts), or both keep one refractory period (see coincidences). None where nothing does."""
    if similarity < SAME_SHAPE:
        return None
    weak, strong = sorted((a, b), key=lambda u: state.model.energy[u])
    leading, following = (np.sort(state.times(state.starts(unit))) for unit in (strong, weak))
    p = burst_p_value(leading, following, state.settings.burst, state.pieces.represented)
    if p < BURST_LEVEL:
        return p, BURST_LEVEL, "bursts"
    lags = Lags.of(state.settings.burst, state.settings.refractory)
    p = dependence_p_value(leading, following, lags)
    return (p, INDEPENDENT_LEVEL, "one refractory period") if p < INDEPENDENT_LEVEL else None


def _gain_of_merging(state: Candidates, a: int, b: int, pooled: np.ndarray, amplitudes: np.ndarray) -> float:
    """Log posterior, less what templates cost, that one unit with the pooled template (n_channels, n_times) in place of a and b
    gains. amplitudes (n,): of both units' spikes relative to it."""
    others = np.delete(np.arange(state.model.n_units), [a, b])
    merged = state.model.select(others).extended(pooled[None])
    unit = np.full(len(amplitudes), merged.n_units - 1)
    n_positions = state.pieces.represented - state.window.n_times + 1
    merged = replace(merged, prior=merged.prior.maximise(unit, amplitudes, merged.energy, n_positions))
    mine = [state.clear_starts(a), state.clear_starts(b)]
    gain = sum(parameter_cost(pooled, len(m)) for m in mine) - parameter_cost(pooled, sum(map(len, mine)))
    # each around spikes of its own: among those of both a few of the smaller would speak for all
    for excerpt in (state.around(a, state.rest), state.around(b, state.rest)):
        gain += excerpt.log_posterior(merged) - excerpt.log_posterior(state.model)
    return gain


def _similar_pairs(templates: np.ndarray) -> list[tuple[float, int, int, int]]:
    """(similarity, a, b, shift) of pairs of templates with a cosine above SIMILAR at the best lag, the closest first."""
    correlations = gram(templates)
    centre = (correlations.shape[2] - 1) // 2
    norms = np.sqrt(correlations[np.arange(len(templates)), np.arange(len(templates)), centre])
    reach = centre // 2
    pairs = []
    for a in range(len(templates)):
        for b in range(a + 1, len(templates)):
            lags = correlations[a, b, centre - reach : centre + reach + 1]
            best = int(lags.argmax())
            similarity = lags[best] / (norms[a] * norms[b])
            if similarity > SIMILAR:
                pairs.append((float(similarity), a, b, best - reach))
    return sorted(pairs, reverse=True)


def _aligned(first: np.ndarray, second: np.ndarray, shift: int, n_times: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of n_times samples that cover the same part of the waveform, which lies `shift` samples later in the second
    template; both sets of padded windows give half of the way."""
    start = n_times // 2 - shift // 2
    return first[:, start : start + n_times], second[:, start + shift : start + shift + n_times]
