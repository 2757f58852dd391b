"""Times that a user gives: intervals to leave out, from text and files, and stimuli, from a table or an event channel."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.config import PreprocessConfig
from spikecrsae.data.artefacts import ARTEFACT_DTYPE, KINDS
from spikecrsae.data.intervals import gaps_from_the_start, widened, within
from spikecrsae.data.recording import Recording
from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers.assemble import one_line
from spikecrsae.readers.neo import neo_candidates, open_reader
from spikecrsae.system.files import refuse_unreadable
from spikecrsae.system.text import counted, read_text

logger = logging.getLogger(__name__)

#: A table of times may be so long.
_MOST_MB = 200
#: Columns that are known, by what they count.
_SECONDS, _SAMPLES = "time_s", "sample"


def given_gaps(config: PreprocessConfig, recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """What is left out of a recording's time range before anything of it is seen: gaps (n, 2) in samples of the range, with its seams; and
    the rows of ARTEFACT_DTYPE that say what was given.

    Raises UsageError or InputError where the times cannot be read, lie outside of the recording, or leave nothing.
    """
    gaps = gaps_from_the_start(config.exclude_s, recording)
    rows = np.zeros(int((gaps[:, 0] < gaps[:, 1]).sum()), ARTEFACT_DTYPE)
    rows["start"], rows["stop"] = gaps[gaps[:, 0] < gaps[:, 1]].T
    rows["sample"] = -1
    if config.triggers:
        first, end = recording.time_range or (0, recording.n_samples)
        low, high = config.blank_bounds_ms
        samples = read_triggers(config.triggers, recording)
        around = np.round(np.array([low, high]) * recording.sampling_frequency / 1000).astype(np.int64)
        blanks = samples[:, None] + around
        inside = within(widened(blanks, 0, recording.n_samples), first, end) - first
        gaps = widened(np.concatenate([gaps, inside]), 0, end - first)
        if (gaps[:, 1] - gaps[:, 0]).sum() >= end - first:
            raise UsageError(
                f"--blank-ms {config.blank_ms} about {counted(len(samples), 'trigger')} of {config.triggers} leaves nothing of {recording.source}; "
                "blank less."
            )
        here = (blanks[:, 1] > first) & (blanks[:, 0] < end)
        more = np.zeros(int(here.sum()), ARTEFACT_DTYPE)
        more["start"], more["stop"] = np.clip(blanks[here] - first, 0, end - first).T
        more["sample"] = samples[here] - first
        rows = np.concatenate([rows, more])
    rows["kind"], rows["group"], rows["channel"], rows["amplitude"] = KINDS.index("given"), -1, -1, np.nan
    return gaps, rows[np.argsort(rows["start"], kind="stable")]


def read_triggers(text: str, recording: Recording) -> np.ndarray:
    """Samples (n,) of the recording, ascending, of the stimuli in a table, or, by FILE:NAME, in an event channel of a file that neo reads.

    A table has one column of seconds on the recording's clock, or columns with names, one of them time_s or sample. Raises InputError
    where it is empty or cannot be read, or a time lies outside of the recording.
    """
    path, _, name = text.rpartition(":")
    if Path(text).exists() or not path:
        refuse_unreadable(Path(text), "the triggers")
        numbers, unit = _table(Path(text))
    else:
        refuse_unreadable(Path(path), "the triggers")
        numbers, unit = _events(Path(path), name), _SECONDS
    if not len(numbers):
        raise InputError(f"{text} holds no trigger; give a file with one time in each row, or leave --triggers out.")
    numbers, clock = np.sort(numbers), recording.timeline
    samples = numbers if unit == _SAMPLES else clock.samples(numbers)
    outside = numbers[(samples < -0.5) | (samples > recording.n_samples - 0.5)]
    if len(outside):
        at = outside[0]
        lasts = (0, recording.n_samples - 1) if unit == _SAMPLES else (recording.start_time_s, recording.end_time_s)
        raise InputError(
            f"{text}: the trigger at {unit} {at:.10g} is outside of {recording.source}, which lasts from {lasts[0]:.10g} to {lasts[1]:.10g}; "
            f"{counted(len(outside), 'trigger')} of {len(samples)} are outside. Give times on the recording's clock, as "
            "time_s in spikes.csv." + _another_unit(numbers, unit, recording)
        )
    if unit == _SECONDS and (silent := clock.in_gap(numbers)).any():
        logger.warning("%s: %s in gaps of the recording are left out", text, counted(int(silent.sum()), "trigger"))
        samples = samples[~silent]
    return np.round(samples).astype(np.int64)


def _another_unit(numbers: np.ndarray, unit: str, recording: Recording) -> str:
    """What times in s that reach out of a recording may be in truth, in words for the message; empty where nothing else fits."""
    begin, end = recording.start_time_s, recording.end_time_s
    if unit == _SAMPLES or not len(numbers):
        return ""
    if np.all(numbers == np.round(numbers)) and numbers.min() >= 0 and numbers.max() < recording.n_samples:
        return f" These may be samples, or ms: name the column {_SAMPLES} in a first row, or write seconds."
    if begin <= numbers.min() / 1000 and numbers.max() / 1000 <= end:
        return " These may be ms: write seconds."
    return ""


def _table(path: Path) -> tuple[np.ndarray, str]:
    """The numbers of a table and what they are."""
    lines = read_text(path, _MOST_MB).splitlines()
    rows = [(number, row) for number, row in enumerate(csv.reader(lines), 1) if any(word.strip() for word in row)]
    column, unit = 0, _SECONDS
    if rows and not _is_number(rows[0][1][0]):
        names = [word.strip() for word in rows[0][1]]
        known = [name for name in (_SECONDS, _SAMPLES) if name in names]
        if not known and len(names) > 1:
            raise InputError(f"{path} has the columns {', '.join(names)}; one must be named {_SECONDS} or {_SAMPLES}.")
        column, unit = (names.index(known[0]), known[0]) if known else (0, _SECONDS)
        rows = rows[1:]
    elif rows and len(rows[0][1]) > 1:
        comma = " Decimals need a point, such as 2.5." if all(len(row) == 2 for _, row in rows) else ""
        raise InputError(
            f"{path} has {len(rows[0][1])} columns without names; name one {_SECONDS} or {_SAMPLES} in a first row.{comma}"
        )
    found = np.zeros(len(rows))
    for place, (number, row) in enumerate(rows):
        word = row[column] if column < len(row) else ""
        if not _is_number(word):
            rule = "columns need commas between them" if ";" in word else "every row needs a time in seconds, or a sample"
            raise InputError(f"{path}: {word.strip()!r} in line {number} is not a number; {rule}.")
        found[place] = float(word)
    return found, unit


def _is_number(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False


def _events(path: Path, name: str) -> np.ndarray:
    """Times in s (n,), on the file's own clock, of an event channel that neo finds, by name or number."""
    failures = []
    for kind, arguments in neo_candidates(path):
        try:
            return _event_times(open_reader(kind, arguments), path, name)
        except InputError:
            raise
        # third-party parsers raise anything on files that are not theirs or are damaged
        except Exception as error:
            failures.append(f"{kind.removesuffix('RawIO')}: {one_line(error)}")
    raise InputError(
        f"{path}:{name}: no reader finds event channels in {path} ({'; '.join(failures) or 'none knows it'}); write the times into a CSV file."
    )


def _event_times(reader: Any, path: Path, name: str) -> np.ndarray:
    channels = reader.header["event_channels"]
    names = [str(channel["name"]) for channel in channels]
    number = names.index(name) if name in names else int(name) if name.isdecimal() and int(name) < len(names) else -1
    if number < 0:
        raise InputError(f"{path} has no event channel {name!r}; it has {', '.join(map(repr, names)) or 'none'}.")
    if reader.segment_count(0) > 1:
        raise InputError(
            f"{path} has {reader.segment_count(0)} segments, each with a clock of its own; write the times into a CSV file."
        )
    stamps = reader.get_event_timestamps(block_index=0, seg_index=0, event_channel_index=number)[0]
    return np.asarray(reader.rescale_event_timestamp(stamps, dtype="float64", event_channel_index=number), np.float64)
