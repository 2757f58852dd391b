"""Divide a probe into neighbourhoods, each of which is sorted on its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from spikecrsae.data.recording import Recording

#: Up to this number, channels are one neighbourhood, wherever they lie.
FEW_CHANNELS = 24
#: The time to sort channels together grows with this power of their number.
COST_POWER = 2
#: Electrodes farther from each other than this, in um, record no neuron in common.
REACH_UM = 150.0
#: A neighbourhood holds all channels within this distance, in um, of its core.
MARGIN_UM = 50.0
#: Electrodes are in different rows if they are farther apart than this along the probe, in um.
_SAME_ROW_UM = 1e-3


@dataclass(frozen=True)
class Neighbourhood:
    """Channels that are sorted together, by position in the recording, ascending: a core, and the margin around it, in which
    neurons at the core are still recorded. name: its number among those of a group. first_unit: number of its first unit;
    None unless its units are known from a model."""

    name: str
    channels: tuple[int, ...]
    core: tuple[int, ...] = ()
    first_unit: int | None = None


def divide(recording: Recording) -> list[Neighbourhood]:
    """Divide the channels of a recording into neighbourhoods, in order of their place; each channel is in one core.

    Up to FEW_CHANNELS are one neighbourhood, and so are channels whose positions are not known. Of more channels, parts
    that lie farther apart than REACH_UM are divided first. A part is halved across its longest side as long as its
    neighbourhoods then take less time together (COST_POWER). The margin is MARGIN_UM wide, or wider where electrodes lie
    farther apart.
    """
    positions = recording.channel_positions
    if positions is None or len(positions) <= FEW_CHANNELS or not np.isfinite(positions).all():
        return [undivided(recording)]
    distance = cdist(positions, positions)
    _, part_of = connected_components(distance <= REACH_UM)
    found: list[Neighbourhood] = []
    for number in range(part_of.max() + 1):
        part = np.flatnonzero(part_of == number)
        between = distance[np.ix_(part, part)] + np.diag(np.full(len(part), np.inf))
        # 1 %: distances are rounded
        margin = max(MARGIN_UM, 1.01 * between.min(axis=1).max()) if len(part) > 1 else 0.0
        near = (distance <= margin) & (part_of == number)
        for core in _halved(part, positions, near):
            channels = np.flatnonzero(near[core].any(axis=0))
            found.append(Neighbourhood(str(len(found)), tuple(channels.tolist()), tuple(core.tolist())))
    return found


def undivided(recording: Recording) -> Neighbourhood:
    """Return all channels as one neighbourhood."""
    whole = tuple(range(recording.n_channels))
    return Neighbourhood("0", whole, whole)


def in_words(recording: Recording, channels: Sequence[int]) -> str:
    """Name channels, by ascending position in the recording, such as "0 to 15, 18"."""
    runs = np.split(channels, np.flatnonzero(np.diff(channels) > 1) + 1)
    ids = [[recording.channel_ids[channel] for channel in run] for run in runs]
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else run[0] for run in ids)


def _halved(core: np.ndarray, positions: np.ndarray, near: np.ndarray) -> list[np.ndarray]:
    """The cores that become of one, in order along its longest side; electrodes of one row stay together. near (n_channels,
    n_channels): which channels are in the neighbourhood of which."""
    along = positions[core, np.ptp(positions[core], axis=0).argmax()]
    ordered, along = core[np.argsort(along, kind="stable")], np.sort(along)
    rows = np.flatnonzero(np.diff(along) > _SAME_ROW_UM) + 1
    if not len(rows):
        return [core]
    middle = rows[np.abs(rows - len(core) / 2).argmin()]
    halves = [np.sort(half) for half in (ordered[:middle], ordered[middle:])]
    whole, *parts = (np.count_nonzero(near[one].any(axis=0)) for one in (core, *halves))
    if whole <= FEW_CHANNELS or sum(n**COST_POWER for n in parts) >= whole**COST_POWER:
        return [core]
    return [smaller for half in halves for smaller in _halved(half, positions, near)]
