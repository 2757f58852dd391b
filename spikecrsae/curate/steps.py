"""Units that are one neuron before and after a step: an electrode that slips, or another session, changes all waveforms at once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy import special

from spikecrsae.crsae.model import CRsAE
from spikecrsae.csc.operator import gram
from spikecrsae.curate.merges import SIMILAR
from spikecrsae.data.spikes import Spikes
from spikecrsae.detect.windows import windows_at

#: Part of a neuron's spikes that is taken for the other unit's, which is not there.
LEFT_OVER = 0.2
#: So many spikes on its own side say that a unit was there; so many on both sides, what a step has made of its waveform.
LEAST_SPIKES = 20
#: The two units' rates differ by no more than this factor, beyond chance.
MOST_CHANGE_OF_RATE = 2.0
#: Between the last spike of the one and the first of the other lies no time in which so many were to be expected.
LONGEST_SILENCE = 20.0
#: Switches of two pairs are of one step where they lie no further apart than so many mean intervals of both.
INTERVALS_APART = 3.0
#: Level at which a waveform has changed, and at which rates differ.
CHANGE_LEVEL = 1e-4
#: A waveform is judged by so many spikes on each side of a step, where a change by this part of its norm would show.
LOOKED_AT, LEAST_CHANGE = 200, 0.1
#: Where no other unit bears witness, the waveforms are at least so alike.
ALIKE = 0.9


@dataclass(frozen=True)
class _Pair:
    """Two units that fire in turns, the first one first, and the samples of the recording at which they change places. The waveform
    lies `lag` samples later in the second's template. rate: of both together, spikes per sample."""

    first: int
    second: int
    switches: tuple[int, ...]
    similarity: float
    lag: int
    rate: float


@dataclass(frozen=True)
class Joined:
    """A model and its spikes in which neurons are one unit across steps. steps (n_steps,): samples of the recording, ascending. kept:
    which of the former units (indices) the units are."""

    model: CRsAE
    spikes: Spikes
    steps: np.ndarray
    kept: np.ndarray
    decisions: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Sorted:
    """A model with the spikes of whitened signal (n_channels, n of n_samples); samples (n_spikes,): where each stands in the
    recording of n_samples. neurons (n_units,) bool: the others are no neurons. ids (n_units,): the units' names in decisions."""

    signal: np.ndarray
    model: CRsAE
    spikes: Spikes
    samples: np.ndarray
    n_samples: int
    neurons: np.ndarray
    ids: np.ndarray

    def train(self, unit: int) -> np.ndarray:
        """Samples of a unit's spikes in the recording, ascending."""
        return np.sort(self.samples[self.spikes.unit == unit])

    def clear_spikes(self, unit: int) -> np.ndarray:
        """Indices of a unit's clear spikes, in order of time."""
        mine = np.flatnonzero((self.spikes.unit == unit) & self.spikes.clear)
        return mine[np.argsort(self.samples[mine], kind="stable")]

    @cached_property
    def _rest(self) -> np.ndarray:
        """The residual (n, n_channels)."""
        return self.model.residual(self.signal, self.spikes).T

    def windows(self, which: np.ndarray) -> np.ndarray:
        """Waveforms (n, n_times, n_channels) of spikes (indices), every other spike taken away."""
        own = self.model.shifted[self.model.copy_of(self.spikes)[which]].transpose(0, 2, 1)
        own = own * self.spikes.amplitude[which, None, None]
        return windows_at(self._rest, self.spikes.sample[which], self.model.n_times) + own


def join_across_steps(found: Sorted) -> Joined:
    """Join similar units that fire in turns, one ending where the other begins, at about the same rate, if the other units change
    their waveforms there too.

    Two neurons of which one falls silent as the other begins to fire stay two: nothing happens to the others then.
    """
    pairs = _pairs(found)
    steps = _common(pairs)
    here = {step: [pair for pair in pairs if step in (steps[switch] for switch in pair.switches)] for step in steps.values()}
    witnessed = {step: _is_witnessed(found, step, those) for step, those in here.items()}
    joined = [pair for pair in pairs if all(witnessed[steps[switch]] for switch in pair.switches)]
    known = sorted({steps[switch] for pair in joined for switch in pair.switches})
    decisions = tuple(
        {"decision": "merge", "units": [found.ids[pair.first], found.ids[pair.second]], "statistic": pair.similarity,
         "level": SIMILAR, "why": "one ends where the other begins", "samples": [steps[switch] for switch in pair.switches]}
        for pair in joined
    )  # fmt: skip
    return _joined(found, joined, np.array(known, np.int64), decisions)


def _pairs(found: Sorted) -> list[_Pair]:
    """Pairs that a step may have made of one neuron, the most similar first; every unit follows one and is followed by one."""
    model, correlation = found.model, gram(found.model.templates)
    centre, norms = model.n_times - 1, np.sqrt(model.energy) * model.sigma
    trains = [found.train(unit) for unit in range(model.n_units)]
    pairs = []
    for a, b in itertools.combinations(np.flatnonzero(found.neurons).tolist(), 2):
        if min(len(trains[a]), len(trains[b])) < LEAST_SPIKES:
            continue
        a, b = sorted((a, b), key=lambda unit: trains[unit][0])
        lags = correlation[a, b, centre - centre // 2 : centre + centre // 2 + 1]
        similarity = float(lags.max() / (norms[a] * norms[b]))
        if similarity > SIMILAR and (switches := _switches(trains[a], trains[b])):
            both = np.concatenate([trains[a], trains[b]])
            rate = len(both) / max(np.ptp(both), 1)
            pairs.append(_Pair(a, b, switches, similarity, int(lags.argmax()) - centre // 2, rate))
    chosen: list[_Pair] = []
    for pair in sorted(pairs, key=lambda pair: -pair.similarity):
        if all(pair.first != other.first and pair.second != other.second for other in chosen):
            chosen.append(pair)
    return chosen


def _switches(first: np.ndarray, second: np.ndarray) -> tuple[int, ...]:
    """The samples at which two trains (ascending) change places; empty where they do not fire in turns, or not at one rate.

    Which of the two is there is the most probable course of two states, in each of which a spike is the other's with the probability
    LEFT_OVER, and which changes at the price of LEAST_SPIKES such spikes.
    """
    samples = np.concatenate([first, second])
    order = np.argsort(samples, kind="stable")
    samples, mine = samples[order], np.r_[np.zeros(len(first), np.int64), np.ones(len(second), np.int64)][order]
    state = _course(mine)
    at = np.flatnonzero(np.diff(state)) + 1
    if not len(at):
        return ()
    bounds = np.r_[0, at, len(samples)]
    right = np.add.reduceat(mine == state, bounds[:-1])
    counts = np.diff(bounds)
    edges = np.r_[samples[0], 0.5 * (samples[at - 1] + samples[at]), samples[-1] + 1]
    lengths = np.diff(edges)
    silences = (samples[at] - samples[at - 1]) * np.minimum(counts[1:] / lengths[1:], counts[:-1] / lengths[:-1])
    steady = all(_same_rate(counts[k : k + 2], lengths[k : k + 2]) for k in range(len(at)))
    in_turns = right.min() >= LEAST_SPIKES and (counts - right).sum() < LEFT_OVER * len(samples)
    if not (steady and in_turns and silences.max() < LONGEST_SILENCE):
        return ()
    return tuple(int(edge) + 1 for edge in edges[1:-1])


def _course(mine: np.ndarray) -> np.ndarray:
    """The most probable state (n,) of the two, 0 or 1, for the unit (0 or 1) of each spike in order of time (Viterbi)."""
    wrong = float(np.log((1 - LEFT_OVER) / LEFT_OVER))
    price = LEAST_SPIKES * wrong
    cost = [0.0, 0.0]
    came = np.zeros((len(mine), 2), np.int64)
    for k, unit in enumerate(mine.tolist()):
        best = [min((cost[other] + price * (other != state), other) for other in (state, 1 - state)) for state in (0, 1)]
        came[k] = best[0][1], best[1][1]
        cost = [best[state][0] + wrong * (unit != state) for state in (0, 1)]
    state = np.zeros(len(mine), np.int64)
    state[-1] = int(cost[1] < cost[0])
    for k in range(len(mine) - 1, 0, -1):
        state[k - 1] = came[k, state[k]]
    return state


def _same_rate(counts: np.ndarray, lengths: np.ndarray) -> bool:
    """Whether two counts in stretches of two lengths are of rates no further apart than MOST_CHANGE_OF_RATE, beyond chance."""
    busy = int((counts / lengths).argmax())
    share = MOST_CHANGE_OF_RATE * lengths[busy] / (MOST_CHANGE_OF_RATE * lengths[busy] + lengths[1 - busy])
    return bool(special.bdtrc(counts[busy] - 1, counts.sum(), share) >= CHANGE_LEVEL)


def _common(pairs: list[_Pair]) -> dict[int, int]:
    """The step that each switch is of: switches that are some intervals of their pairs apart are one, that of the busiest pair."""
    steps: dict[int, int] = {}
    known: list[tuple[int, float]] = []
    for pair in sorted(pairs, key=lambda pair: -pair.rate):
        for switch in pair.switches:
            near = [step for step, reach in known if abs(step - switch) <= reach + INTERVALS_APART / pair.rate]
            steps[switch] = min(near, key=lambda step: abs(step - switch), default=switch)
            if not near:
                known.append((switch, INTERVALS_APART / pair.rate))
    return steps


def _is_witnessed(found: Sorted, step: int, pairs: list[_Pair]) -> bool:
    """Whether the units that are there on both sides of a step change their waveforms too; without any, whether there are several
    pairs, or the units of one are alike enough."""
    concerned = {unit for pair in pairs for unit in (pair.first, pair.second)}
    others = [unit for unit in np.flatnonzero(found.neurons).tolist() if unit not in concerned]
    told = [changed for unit in others if (changed := changes_at(found, unit, step)) is not None]
    if told:
        return 2 * sum(told) >= len(told)
    return len(pairs) > 1 or pairs[0].similarity > ALIKE


def changes_at(found: Sorted, unit: int, step: int) -> bool | None:
    """Whether a unit's waveform changes at a step, by its LOOKED_AT spikes next to it on each side; None where these could not
    show a change by LEAST_CHANGE of its norm."""
    model, mine = found.model, found.clear_spikes(unit)
    n_before = int(np.sum(found.samples[mine] < step))
    sides = mine[max(n_before - LOOKED_AT, 0) : n_before], mine[n_before : n_before + LOOKED_AT]
    if min(map(len, sides)) < LEAST_SPIKES:
        return None
    means = [found.windows(side).mean(axis=0) for side in sides]
    weight = len(sides[0]) * len(sides[1]) / (len(sides[0]) + len(sides[1])) / model.sigma**2
    distance, dimension = weight * float(((means[1] - means[0]) ** 2).sum()), means[0].size
    if special.chdtrc(dimension, distance) < CHANGE_LEVEL:
        return True
    shown = weight * (LEAST_CHANGE * model.sigma) ** 2 * float(model.energy[unit])
    return False if shown > special.chdtri(dimension, CHANGE_LEVEL) - dimension else None


def _joined(found: Sorted, pairs: list[_Pair], steps: np.ndarray, decisions: tuple[dict[str, Any], ...]) -> Joined:
    """The units of pairs as one: spikes of the later one in the place and under the name of the first."""
    into, offset = np.arange(found.model.n_units), np.zeros(found.model.n_units, np.int64)
    for pair in sorted(pairs, key=lambda pair: pair.switches[0], reverse=True):
        follow = into == pair.second
        into[follow] = pair.first
        offset[follow] += pair.lag
    kept = np.unique(into)
    row = np.searchsorted(kept, into)
    spikes = found.spikes
    rival = np.where(spikes.rival >= 0, row[spikes.rival], -1)
    spikes = replace(spikes, unit=row[spikes.unit], rival=np.where(rival == row[spikes.unit], -1, rival))
    spikes = replace(spikes, sample=spikes.sample + offset[found.spikes.unit])
    order = np.argsort(spikes.sample, kind="stable")
    inside = (spikes.sample[order] >= 0) & (spikes.sample[order] <= found.signal.shape[1] - found.model.n_times)
    return Joined(found.model.select(kept), spikes.select(order[inside]), steps, kept, decisions)
