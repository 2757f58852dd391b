"""The channels that the user asks for: which, where they are, and which of them belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from spikecrsae.data.recording import Recording
from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers.geometry import read_probe
from spikecrsae.readers.read_options import parse_groups

#: So many channels are close together wherever they are.
TETRODE = 4
#: What a note says of channels that nothing tells apart; the pipeline says it where no note has.
TOGETHER = "are sorted together, as if all were on one electrode"
#: Channels that a message lists.
_MOST_LISTED = 40


def attach_probe(recording: Recording, path: Path) -> Recording:
    """Positions from a probe file, for the channels in use; device channel numbers are stored columns."""
    probe = read_probe(path)
    if not probe.positions:
        return replace(recording, notes=(*recording.notes, f"{path} holds no contact positions"))
    missing = [c for c in recording.channels if c not in probe.positions]
    if missing:
        raise InputError(
            f"probe {path} has no position for channels {missing} of {recording.source}; it has {sorted(probe.positions)}."
        )
    positions = np.array([probe.positions[c] for c in recording.channels])
    groups = _groups_of_channels(recording, probe.groups) if len(probe.groups) > 1 else None
    return replace(recording, channel_positions=positions, channel_groups=groups or recording.channel_groups)


def attach_groups(recording: Recording, wanted: str | Path | None) -> Recording:
    """The groups that the user wants, in place of those that the file or its probe says, which a note tells."""
    if wanted is None:
        if len(recording.groups) < 2:
            return replace(recording, channel_groups=None, notes=(*recording.notes, *_many_together(recording)))
        note = f"{len(recording.groups)} groups of channels, each sorted on its own; --groups all sorts them together"
        return replace(recording, notes=(*recording.notes, note))
    if str(wanted) == "all":
        return replace(recording, channel_groups=None)
    if _is_file(wanted):
        groups = read_probe(wanted).groups
    else:
        columns = dict(zip(recording.channel_ids, recording.channels, strict=True))
        try:
            groups = {
                name: tuple(columns_of(members, columns, recording.source))
                for name, members in parse_groups(str(wanted)).items()
            }
        except UsageError as error:
            raise UsageError(f"--groups {str(wanted)!r} is no file, and no channel range either: {error}") from error
        members = [channel for group in groups.values() for channel in group]
        if len(set(members)) < len(members):
            raise UsageError(
                f"{recording.source}: groups {wanted} name a channel twice, by its number and its name; a channel belongs to one group."
            )
        unknown = sorted(set(members) - set(recording.channels))
        if unknown:
            raise UsageError(f"groups {wanted} name channels {unknown}, which are not in use; name some of {recording.source}: "
                             f"{', '.join(map(str, recording.channels))}.")  # fmt: skip
    names = _groups_of_channels(recording, groups)
    if not any(names):
        raise InputError(
            f"groups {wanted} hold none of the channels in use; name some of {', '.join(map(str, recording.channels))}."
        )
    return replace(recording, channel_groups=names)


def _is_file(wanted: str | Path) -> bool:
    """Whether groups are given by a file; a list of them may be longer than any file's name."""
    try:
        return Path(wanted).is_file()
    except OSError:
        return False


def _many_together(recording: Recording) -> tuple[str, ...]:
    """A remark where more channels than a tetrode has are one group, and nothing says where they are."""
    n = recording.n_channels
    if n <= TETRODE or recording.channel_positions is not None:
        return ()
    example = ",".join(f"{first}-{first + TETRODE - 1}" for first in range(0, n - TETRODE + 1, TETRODE)[:4])
    return (
        f"{n} channels without groups or positions {TOGETHER}; give --groups, such as "
        f"{example} for tetrodes, or --probe; --groups all, where they belong together",
    )


def _groups_of_channels(recording: Recording, groups: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    """Name of the group of each channel in use, "" where it has none; groups hold stored columns."""
    name_of = {channel: name for name, channels in groups.items() for channel in channels}
    return tuple(name_of.get(channel, "") for channel in recording.channels)


def columns_of(wanted: Sequence[int | str], number_of: dict[str, int], path: Path) -> list[int]:
    """Numbers of channels that are given by number or by name. Raises UsageError for a name that does not exist."""
    if unknown := [str(channel) for channel in wanted if isinstance(channel, str) and channel not in number_of]:
        listing = listed(list(number_of.values()), list(number_of))
        raise UsageError(
            f"{path} has no channel named {', '.join(unknown)}; it has {listing}. Give these names, or numbers."
        )
    return [number_of[channel] if isinstance(channel, str) else int(channel) for channel in wanted]


def asked_for(wanted: Sequence[int | str], names: Sequence[str], path: Path) -> tuple[list[int], str]:
    """(positions of the channels that are asked for, a note that says them with their names)."""
    picked = columns_of(wanted, {name: position for position, name in enumerate(names)}, path)
    return picked, f"channels taken: {listed(picked, [names[p] if p < len(names) else str(p) for p in picked])}"


def listed(numbers: Sequence[int], names: Sequence[str]) -> str:
    """Channels by number, and by name where that says more: '0 CSC1, 1 CSC2'; '0 (named 1)' where a name is a number too."""
    said = [
        str(number) if name == str(number) else f"{number} (named {name})" if name.isdecimal() else f"{number} {name}"
        for number, name in zip(numbers, names, strict=True)
    ]
    return ", ".join(said[:_MOST_LISTED]) + (f" and {len(said) - _MOST_LISTED} more" if len(said) > _MOST_LISTED else "")
