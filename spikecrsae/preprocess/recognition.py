"""Which loud events are no neuron's: groups of one shape that keep time or look as no spike does, and large ones that do not repeat.

Evidence against a neuron is of four kinds. A strict period: neurons never keep time to a twentieth of a millisecond, but for the few
milliseconds within a burst. An edge: a cell's membrane and an amplifier allow no spike to change within one sample of 0.05 ms. Size:
hardly a spike outside of a cell reaches LARGEST_UV. The same on all channels, longer than a spike, or timed exactly within bursts. The
first two prove it alone, size together with one of the others: a neuron may be large, and the scale be wrong.

A neuron repeats its shape. Events that do not are overlaps of spikes, which are as large as two of them, or movement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from spikecrsae.data.artefacts import EQUAL_MS
from spikecrsae.preprocess.events import LOUD, Events

#: Events of a group have a cosine similarity above ALIKE with its mean, and sizes within SPREAD of its first, the loudest one.
ALIKE, SPREAD = 0.85, 3.0
#: So many events make a group. So many groups and single events are looked for, the loudest first, or as many as take so many products.
LEAST_EVENTS, MOST_LEADERS, MOST_PRODUCTS = 5, 400, 2**30
#: Reasons that are proof enough.
PROOFS = ("strict period", "edge", "in step")
#: More than this part of a group is what proves that it is none of a neuron's.
PROOF_PART = 0.5
#: Half of a group's members lie within this part of the squared distance that ALIKE allows: spikes do within a tenth of it, whereas
#: events alike by chance, as noise is, fill it to the rim.
CROWDED = 0.25
#: Intervals to these following events are compared; they are equal within EQUAL_MS, and not by chance. Those below CLOCK_MS are no
#: clock's: what is exact to 0.05 ms there may be a neuron's burst.
NEIGHBOURS, CONCENTRATED, CHANCE, CLOCK_MS = (1, 2, 3, 5, 8, 13), 0.75, 1e-6, 20.0
#: Width at half its height of the shortest spike, so many times its steepest slope makes an edge, of at least this part of its range.
SHORTEST_SPIKE_MS, STEEPER, LEAST_EDGE = 0.15, 1.5, 0.6
#: Larger than spikes: in uV, where that is known, and in units of noise, which a wrong scale does not change.
LARGEST_UV, LARGEST_NOISE = 1000.0, 100.0
#: Events of twice these sizes that are also so many times as large as all spikes are no neuron's.
BEYOND_SPIKES = 8.0
#: Longer than a spike, in a group and as a single event; more phases than two spikes have.
LONG_MS, LONG_SINGLE_MS, MANY_PHASES = 2.5, 1.4, 6
#: Sameness of events that all channels show; a channel alone tells nothing.
SAME = 0.9
#: A single event is no overlap of spikes if it is so many times as large as the largest group's median, and less where it is long and
#: the same on all channels, or has many phases.
LARGER, LARGER_UNLIKE = 2.5, 1.3


@dataclass(frozen=True)
class Group:
    """Events (indices, ascending) of one shape, and why they are no neuron's; empty where they may be one's."""

    members: np.ndarray
    reasons: tuple[str, ...]

    @property
    def is_certain(self) -> bool:
        """Whether one of the reasons alone proves it."""
        return not set(PROOFS).isdisjoint(self.reasons)


def groups_of(events: Events, n_channels: int, fs: float, in_uv: bool) -> tuple[list[Group], np.ndarray]:
    """The groups of events of one shape, and the single events (indices) beside them that are as loud as the groups looked at; those alike by
    chance are single."""
    norms = np.linalg.norm(events.shape, axis=1)
    unit = events.shape / np.maximum(norms, 1e-9)[:, None]
    left = np.argsort(-norms, kind="stable")
    groups: list[Group] = []
    single: list[int] = []
    for _ in range(max(MOST_LEADERS, MOST_PRODUCTS // max(1, events.shape.size))):
        if not len(left):
            break
        leader = unit[left[0]]
        for _ in range(2):
            near = (norms[left] > norms[left[0]] / SPREAD) & (unit[left] @ leader > ALIKE)
            near[0] = True
            mean = unit[left[near]].mean(axis=0)
            leader = mean / np.linalg.norm(mean)
        if near.sum() >= LEAST_EVENTS:
            members = np.sort(left[near])
            group = Group(members, _reasons(events.select(members), n_channels, fs, in_uv))
            if group.is_certain or _is_crowded(unit[members] @ leader, norms[members], unit.shape[1]):
                groups.append(group)
            else:
                single.extend(members)
            left = left[~near]
        else:
            single.append(left[0])
            left = left[1:]
    groups = _in_step(_with_beyond_spikes(groups, events, in_uv), events, fs)
    return groups, np.sort(np.array(single, np.int64))


def _is_crowded(alike: np.ndarray, norms: np.ndarray, n_numbers: int) -> bool:
    """Whether shapes lie near the mean, beside what noise moves them, by their cosine similarities to it and their norms (n,)."""
    by_noise = n_numbers / (n_numbers + norms**2)
    return bool(np.median(1 - alike**2 - by_noise) < CROWDED * (1 - ALIKE**2))


def _in_step(groups: list[Group], events: Events, fs: float) -> list[Group]:
    """The groups, in which those that keep time with proven ones have that as their reason: pulses that a spike or noise has changed."""
    proven = [group.members for group in groups if group.is_certain]
    if not proven:
        return groups

    def keeps_time(group: Group) -> bool:
        members = np.unique(np.concatenate([*proven, group.members]))
        return equal_intervals(events.sample[members], fs, np.isin(members, group.members), 0.0) > PROOF_PART

    return [group if group.reasons or not keeps_time(group) else replace(group, reasons=(PROOFS[2],)) for group in groups]


def extended(groups: list[Group], events: Events, more: Events) -> list[np.ndarray]:
    """Of `more` events, among which are quieter ones, the indices (ascending) of those that are like each of the groups of `events`; none is in
    two. A group that is hardly louder than what counts as loud is seen in part only."""
    norms = np.linalg.norm(more.shape, axis=1)
    leaders = [events.shape[group.members] for group in groups]
    sizes = np.array([np.median(np.linalg.norm(shapes, axis=1)) for shapes in leaders])
    means = np.array([np.mean(shapes / np.linalg.norm(shapes, axis=1, keepdims=True), axis=0) for shapes in leaders])
    alike = (more.shape / np.maximum(norms, 1e-9)[:, None]) @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    alike[(norms[:, None] < sizes / SPREAD) | (norms[:, None] > sizes * SPREAD)] = 0
    best = alike.argmax(axis=1)
    return [np.flatnonzero((best == number) & (alike[:, number] > ALIKE)) for number in range(len(groups))]


def _with_beyond_spikes(groups: list[Group], events: Events, in_uv: bool) -> list[Group]:
    """The groups, in which those that are too large by any measure have that as their reason."""
    sizes = np.array([np.median(events.size[group.members]) for group in groups])
    spikes = max(
        (size for size, group in zip(sizes, groups, strict=True) if not _is_large(events.select(group.members), in_uv)),
        default=np.inf,
    )

    def is_beyond(size: float, group: Group) -> bool:
        return size > BEYOND_SPIKES * spikes and _is_large(events.select(group.members), in_uv, 2)

    return [
        replace(group, reasons=("beyond all spikes",)) if not group.reasons and is_beyond(size, group) else group
        for size, group in zip(sizes, groups, strict=True)
    ]


def _is_large(events: Events, in_uv: bool, times: float = 1) -> bool:
    """Whether events of one shape are larger than spikes outside of a cell are, `times` as large."""
    is_uv = not in_uv or np.median(np.abs(events.value)) > times * LARGEST_UV
    return bool(is_uv and np.median(events.size) > times * LARGEST_NOISE)


def _reasons(events: Events, n_channels: int, fs: float, in_uv: bool) -> tuple[str, ...]:
    """Why events of one shape are no neuron's; empty where they may be one's."""
    period = PROOFS[0] if equal_intervals(events.sample, fs) > PROOF_PART else ""
    edge = PROOFS[1] if np.median(events.jump) > edge_limit(fs) else ""
    beside = _beside(events, n_channels, fs, in_uv)
    proof = [reason for reason in (period, edge) if reason]
    # a neuron near the middle of a tetrode that fires complex spikes is long and the same on all channels
    return (*proof, *beside) if proof or ("size" in beside and len(beside) > 1) else ()


def _beside(events: Events, n_channels: int, fs: float, in_uv: bool) -> list[str]:
    """What is seldom in neurons."""
    found = {
        "size": _is_large(events, in_uv),
        "same on all channels": n_channels > 1 and np.median(events.sameness) > SAME,
        "length": np.median(events.end - events.first) > LONG_MS * fs / 1000,
        "exact intervals": equal_intervals(events.sample, fs, least_ms=0.0) > PROOF_PART,
    }
    return [reason for reason, holds in found.items() if holds]


def edge_limit(fs: float) -> float:
    """The change from one sample to the next, as a part of the range, above which a shape has an edge: the steepest slope of a
    Gaussian spike is 1.43 times its height over its width."""
    return max(LEAST_EDGE, STEEPER * 1.43 / SHORTEST_SPIKE_MS * 1000 / fs)


def equal_intervals(
    samples: np.ndarray, fs: float, of: np.ndarray | slice = slice(None), least_ms: float = CLOCK_MS
) -> float:
    """Part of the samples (n,), ascending, that lie at an interval from another one that occurs too often for chance; of some of them, if
    `of` tells which (bool, n).

    Intervals to the NEIGHBOURS among the following samples count, from least_ms on. One occurs too often if intervals within EQUAL_MS of it are most (CONCENTRATED)
    of those within eight times as much, which jitter of a neuron does not leave, and more than chance gives with a probability of
    CHANCE in all (Poisson).
    """
    n = len(samples)
    if n < LEAST_EVENTS:
        return 0.0
    near = max(1, round(EQUAL_MS * fs / 1000))
    row = np.concatenate([np.arange(n - k) for k in NEIGHBOURS if k < n])
    other = np.concatenate([np.arange(k, n) for k in NEIGHBOURS if k < n])
    lags = samples[other] - samples[row]
    order = np.argsort(lags, kind="stable")
    order = order[lags[order] >= least_ms * fs / 1000]
    lags, row, other = lags[order], row[order], other[order]

    def within(reach: np.ndarray | int) -> np.ndarray:
        return np.searchsorted(lags, lags + reach, "right") - np.searchsorted(lags, lags - reach, "left")

    count, width, around = within(near), 2 * near + 1, within(8 * near)
    reach = np.maximum(lags // 4, 8 * near)
    # what smooth density gives, and at least that of one interval more
    expected = (within(reach) - within(3 * near) + 1) * width / (2 * reach - 6 * near)
    often = (count > CONCENTRATED * around) & (special.gammainc(count, expected) * len(lags) < CHANCE)
    share = np.zeros(n)
    excess = 1 - expected / np.maximum(count, 1)
    np.maximum.at(share, row[often], excess[often])
    np.maximum.at(share, other[often], excess[often])
    return float(share[of].mean())


def movements(events: Events, groups: list[Group], single: np.ndarray, n_channels: int, fs: float) -> np.ndarray:
    """Single events (indices) that are no overlap of spikes, for they are larger than the spikes of all groups explain. A group that
    has fewer events than are single about its size explains none."""
    alone, largest = events.select(single), 2 * LOUD
    for group in groups:
        size = float(np.median(events.size[group.members]))
        if not group.reasons and np.sum(alone.size > size / 2) <= len(group.members):
            largest = max(largest, size)
    long = alone.end - alone.first > LONG_SINGLE_MS * fs / 1000
    same = (n_channels > 1) & (alone.sameness > SAME)
    unlike = (long & same) | (alone.phases > MANY_PHASES)
    moved = alone.size > np.where(unlike, LARGER_UNLIKE, LARGER) * largest
    return single[moved]
