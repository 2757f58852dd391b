"""What a user may say about a recording: options, channel lists and the side file beside a recording."""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.data.recording import LARGEST_SAMPLE, LATEST_S
from spikecrsae.errors import InputError, UsageError
from spikecrsae.system.text import MOST_TOML_MB, read_text

#: A channel by its position from 0, or by its name.
Channel = int | str


def parse_channels(text: str) -> tuple[Channel, ...]:
    """Channels of a text such as '0,2-5' or 'CSC1,CSC3', in the order given: numbers and ranges are positions, whatever has a
    letter is a name. Raises UsageError for anything else."""
    picked: list[Channel] = []
    for part in str(text).split(","):
        found = re.fullmatch(r"\s*(\d{1,5})(?:\s*-\s*(\d{1,5}))?\s*", part)
        if not found and re.search(r"[^\W\d_]", part):
            picked.append(part.strip())
            continue
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (0, -1)
        if last < first:
            raise UsageError(
                f"channels {text!r} cannot be read at {part!r}; write positions and ranges such as 0,2-5, or names such as CSC1,CSC3."
            )
        picked.extend(range(first, last + 1))
    if len(set(picked)) != len(picked):
        raise UsageError(f"channels {text!r} name a channel twice; name each once.")
    return tuple(picked)


def parse_groups(text: str) -> dict[str, tuple[Channel, ...]]:
    """Channels, as parse_channels gives them, of the groups that '0-3,4-7' or 'CSC1+CSC2,CSC3+CSC4' names, by '0', '1', ...; +
    joins channels to one group.

    Raises UsageError for anything else.
    """
    try:
        found = [parse_channels(group.replace("+", ",")) for group in str(text).split(",")]
    except UsageError as error:
        raise UsageError(
            f"groups {text!r} cannot be read as channels; write one range for each group, such as 0-3,4-7, join channels with +, such as "
            "0-1+4 or CSC1+CSC2, or give a probe file, or all."
        ) from error
    named = [channel for group in found for channel in group]
    if len(set(named)) != len(named):
        raise UsageError(f"groups {text!r} name a channel twice; a channel belongs to one group.")
    return {str(number): group for number, group in enumerate(found)}


def numeric_dtype(name: Any) -> np.dtype:
    """The real-valued numpy type of that name; UsageError names the types in common use."""
    try:
        dtype = np.dtype(name)
    # numpy parses some names as Python
    except (TypeError, ValueError, SyntaxError):
        dtype = np.dtype(object)
    if dtype.kind not in "iuf":
        raise UsageError(f"dtype {name!s} is no real number type; give one such as int16, uint16, '>i2' or float32.")
    return dtype


def _check_positive(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.number)) or not 0 < value < math.inf:
        raise UsageError(f"{name} = {value!r} must be a number above 0.")


def _check_time(name: str, value: Any) -> None:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if value is not None and not (number and abs(value) < LATEST_S):
        raise UsageError(f"{name} = {value!r} must be a number of seconds, of a magnitude below {LATEST_S:g}.")


def _check_factor(name: str, value: object) -> None:
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.array(np.nan)
    least = 1 / LARGEST_SAMPLE if name == "gain" else 0.0
    size = np.abs(numbers)
    if numbers.ndim > 1 or not np.all((size >= least) & (size <= LARGEST_SAMPLE)):
        raise UsageError(
            f"{name} = {value!r} must be a number, or one per channel, of a magnitude from {least:g} to {LARGEST_SAMPLE:g}."
        )


def _check_channels(value: object) -> None:
    positions = list(value) if isinstance(value, Sequence | np.ndarray) else [None]
    known = all(
        isinstance(c, str) or (isinstance(c, int | np.integer) and not isinstance(c, bool) and c >= 0) for c in positions
    )
    if not positions or not known or len(set(positions)) != len(positions):
        raise UsageError(
            f"channels = {value!r} must be positions from 0 or names, each once, such as [0, 2, 3], ['CSC1', 'CSC3'] or '0,2-3'."
        )


#: Options that are names or numbers, with what is to be written for them.
_OPTION_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "dataset": ((str,), "the path of a dataset in the file"),
    "series": ((str,), "the name of an ElectricalSeries"),
    "stream": ((str, int), "a stream's name or number"),
    "segment": ((int, np.integer), "a whole number"),
    "files": ((str,), "'channels' or 'session'"),
    "probe": ((str, Path), "the name of a probe file"),
    "groups": ((str, Path), "a text such as '0-3,4-7', the name of a probe file, or 'all'"),
}


def _check_kind(name: str, value: object) -> None:
    kinds, wanted = _OPTION_KINDS[name]
    wrong = (
        not isinstance(value, kinds) or isinstance(value, bool) or (name == "files" and value not in ("channels", "session"))
    )
    if value is not None and wrong:
        raise UsageError(f"{name} = {value!r} must be {wanted}.")


@dataclass(frozen=True)
class ReadOptions:
    """Facts and choices that a file may lack; None leaves them to the file. None of them is ever guessed.

    sampling_frequency: Hz. n_channels, dtype: layout of raw binary. dataset: path of the traces in an HDF5 file; axis:
    which axis of it is time. series: name of an NWB ElectricalSeries. stream, segment: one of several that neo found.
    channels: positions from 0 or names, as a sequence or as text like '0,2-5' or 'CSC1,CSC3'. probe: geometry file (probeinterface JSON or .prb).
    groups: channels that are sorted on their own, as text like '0-3,4-7', a probe file that names groups, or 'all'.
    files: what several files are, 'channels' of one recording or a 'session', one after the other.
    start_s, stop_s: what is to be sorted, in seconds on the recording's own clock.
    gain (uV per stored number) and offset (uV): one number or one per stored channel; they replace the file's own.

    Raises UsageError for a value of the wrong kind.
    """

    sampling_frequency: float | None = None
    n_channels: int | None = None
    dtype: str | None = None
    dataset: str | None = None
    axis: int | None = None
    series: str | None = None
    stream: str | int | None = None
    segment: int | None = None
    channels: str | Sequence[Channel] | None = None
    probe: str | Path | None = None
    groups: str | Path | None = None
    files: str | None = None
    start_s: float | None = None
    stop_s: float | None = None
    gain: float | Sequence[float] | None = None
    offset: float | Sequence[float] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.channels, str):
            object.__setattr__(self, "channels", parse_channels(self.channels))
        elif self.channels is not None:
            _check_channels(self.channels)
        for name in _OPTION_KINDS:
            _check_kind(name, getattr(self, name))
        if self.sampling_frequency is not None:
            _check_positive("sampling_frequency", self.sampling_frequency)
        if self.n_channels is not None:
            _check_positive("n_channels", self.n_channels)
            if self.n_channels != int(self.n_channels):
                raise UsageError(f"n_channels = {self.n_channels} must be a whole number.")
        if self.dtype is not None:
            numeric_dtype(self.dtype)
        if self.axis not in (None, 0, 1):
            raise UsageError(f"axis = {self.axis!r} must be 0 or 1, the axis of the dataset that is time.")
        for name in ("start_s", "stop_s"):
            _check_time(name, getattr(self, name))
        for name in ("gain", "offset"):
            if getattr(self, name) is not None:
                _check_factor(name, getattr(self, name))

    def given(self) -> dict[str, Any]:
        """The options that have a value."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    def refuse_others(self, path: Path, format: str, uses: Sequence[str] = ()) -> None:
        """Raise UsageError where an option is given that this format would silently ignore."""
        everywhere = ("sampling_frequency", "channels", "probe", "groups", "files", "start_s", "stop_s", "gain", "offset")
        for name in self.given():
            if name not in everywhere and name not in uses:
                raise UsageError(f"{path}: --{name.replace('_', '-')} has no meaning for {format}; leave it out.")


def side_file(path: Path) -> Path:
    """Where the facts of a recording may stand in writing: `<recording>.toml` beside it."""
    if path.name in ("", ".."):  # such as the current folder
        path = Path(os.path.abspath(path))
    return path.parent / f"{path.name}.toml"


def with_side_file(path: Path, options: ReadOptions) -> ReadOptions:
    """`options`, completed from the side file of the recording where there is one.

    Raises UsageError where the side file is no TOML or names something that is no option.
    """
    source = side_file(path)
    if not source.is_file():
        return options
    try:
        values = tomllib.loads(read_text(source, MOST_TOML_MB))
    except (OSError, InputError, ValueError, RecursionError) as error:
        raise UsageError(f"side file {source} cannot be read as TOML: {error}. Correct it, or rename it.") from error
    known = [f.name for f in fields(ReadOptions)]
    if unknown := sorted(set(values) - set(known)):
        raise UsageError(f"side file {source} names {', '.join(unknown)}; it may hold {', '.join(known)}.")
    for name in ("probe", "groups"):
        if isinstance(values.get(name), str) and (name == "probe" or (source.parent / values[name]).is_file()):
            values[name] = source.parent / values[name]
    try:
        return replace(ReadOptions(**values), **options.given())
    except UsageError as error:
        raise UsageError(f"side file {source}: {error}") from error
