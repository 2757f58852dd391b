"""Several files that hold one channel each of the same moment, as one recording."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from spikecrsae.data.recording import Recording
from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers.neural import natural_key

_HOW = "--files channels makes them channels of one recording, --files session sorts them one after the other"


def are_channels(recordings: Sequence[Recording], is_told: bool) -> bool:
    """Whether recordings of several files are channels of one recording: each has one stored channel, and all have the same rate, length
    and start. The files of a session follow one another; where none has a start time of its own, they are known by channels of one
    name. is_told: the user says that they are channels, of whatever start.

    Raises UsageError where that is said and impossible, or where files of the same known start differ in length.
    """
    single = all(recording.read_raw(0, 1).shape[1] == 1 for recording in recordings)
    rates, lengths, starts = (
        {getattr(recording, fact) for recording in recordings}
        for fact in ("sampling_frequency", "n_samples", "start_time_s")
    )
    first = recordings[0]
    if is_told and not (single and len(rates) == len(lengths) == 1):
        raise UsageError(
            f"{first.source} and the files with it cannot be channels of one recording: each needs one channel, and all the same rate and length; "
            f"they have {sorted(rates)} Hz and {sorted(lengths)} samples. Leave --files channels out."
        )
    same_start = len(starts) == 1 or max(starts) - min(starts) < 1 / first.sampling_frequency
    if is_told or not single or not same_start or len(rates) > 1:
        return is_told
    names = {recording.channel_ids[0] for recording in recordings}
    if len(lengths) > 1 and (first.start_time_s != 0 or len(names) == len(recordings)):
        shown = ", ".join(f"{recording.source} {recording.n_samples}" for recording in recordings[:20])
        raise UsageError(
            f"{first.source} and the files with it start at the same time, {first.start_time_s:.10g} s, and differ in length (samples: {shown}), "
            "so they are neither channels of one recording nor files of one session. Leave out those of another length."
        )
    same_wire = len(names) == 1 < len(recordings) and not first.channel_ids[0].isdecimal()
    return len(lengths) == 1 and not (same_wire and first.start_time_s == 0)


def as_channels(recordings: Sequence[Recording], paths: Sequence[Path], left_out: Sequence[Path]) -> Recording:
    """The recordings of files of one channel each, as one recording with a channel for each file, in the natural order of their names:
    those in the files, or where these are not distinct the files' own. left_out: files named with them that are no electrodes.

    Raises InputError where the files differ in scale or number type.
    """
    names = [recording.channel_ids[0] for recording in recordings]
    is_unsure = len(set(names)) == 1 < len(names) and recordings[0].start_time_s == 0
    for other in ([path.stem for path in paths], [str(path) for path in paths]):
        if max(Counter(names).values()) > 1:
            names = other
    order = sorted(range(len(names)), key=lambda k: natural_key(names[k]))
    recordings, names = [recordings[k] for k in order], [names[k] for k in order]
    first = recordings[0]
    for what in ("amplitude_unit", "dtype"):
        for name, recording in zip(names, recordings, strict=True):
            if getattr(recording, what) != getattr(first, what):
                raise InputError(
                    f"{name} has {what.replace('_', ' ')} {getattr(recording, what)} and {names[0]} {getattr(first, what)}; channels of one "
                    "recording must agree."
                )

    for name, recording in zip(names, recordings, strict=True):
        if (theirs := _gaps(recording)) != (ours := _gaps(first)):
            raise InputError(
                f"{name} has gaps before samples {theirs or 'none'} and {names[0]} before {ours or 'none'}; channels of one recording must "
                "agree. Leave the odd one out."
            )

    def read(start: int, stop: int) -> np.ndarray:
        return np.concatenate([recording.read_raw(start, stop) for recording in recordings], axis=1)

    def close() -> None:
        for recording in recordings:
            recording.close()

    unsure = ", because they have the same length and neither a start time nor a channel's name" if is_unsure else ""
    notes = [f"{len(names)} files are channels of one recording{unsure}: {', '.join(names)}; {_HOW}"]
    if left_out:
        notes.append(f"files left out, not electrodes by their names or units: {', '.join(map(str, left_out))}")
    return replace(
        first,
        read_raw=read,
        channels=tuple(range(len(names))),
        channel_ids=tuple(names),
        gain=np.concatenate([recording.gain for recording in recordings]),
        offset=np.concatenate([recording.offset for recording in recordings]),
        channel_positions=None,
        channel_groups=None,
        format=f"{first.format}, a file for each channel",
        notes=(*dict.fromkeys(note for recording in recordings for note in recording.notes), *notes),
        close=close,
    )


def _gaps(recording: Recording) -> list[int]:
    """Samples at which signal begins anew."""
    return [part.first for part in recording.parts[1:]]
