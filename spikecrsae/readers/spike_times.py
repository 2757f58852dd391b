"""Times of known spikes in tables and arrays, and the clock that turns them into samples."""

from __future__ import annotations

import csv
import logging
import re
from pathlib import Path

import numpy as np

from spikecrsae.data.timeline import Timeline
from spikecrsae.errors import InputError, UsageError
from spikecrsae.system.safe_hdf5 import load_npy
from spikecrsae.system.text import counted, is_number, read_text

logger = logging.getLogger(__name__)

Trains = dict[str, np.ndarray]
#: In what times may count.
TIME_UNITS = ("s", "ms", "samples")
#: A table of spikes in text may be so long.
_MOST_SPIKE_TABLE_MB = 2000
#: No recording has so many samples.
_END = 2**62
#: Words of which the name of a column of spike times consists: those that say the unit, those that say that it is a time, and
#: others.
_UNIT_WORDS = {
    "samples": ("sample", "samples", "frame", "frames"),
    "ms": ("ms", "msec", "millisecond", "milliseconds"),
    "s": ("s", "sec", "secs", "second", "seconds"),
}
_TIME_WORDS = ("t", "spt", "time", "times", "timestamp", "timestamps", "spiketime", "spiketimes")
_OTHER_WORDS = ("in", "index", "peak", "spike", "spikes")
#: Columns that say which neuron a spike belongs to.
NEURONS = ("unit", "unit_id", "neuron", "neuron_id", "cluster", "cluster_id", "cell", "cell_id")


class SampleClock:
    """Turns the times of a truth file into samples of the recording that is scored."""

    def __init__(self, path: Path, recording_fs: float | None, timeline: Timeline | None) -> None:
        self.path, self.fs, self.timeline = path, recording_fs, timeline
        self.start_time_s = 0.0 if timeline is None else float(timeline.times_s[0])
        #: The unit in which a table or an array was read.
        self.unit: str | None = None

    def from_unit(self, values: np.ndarray, unit: str, fs: float | None = None) -> np.ndarray:
        """Samples of values in one of TIME_UNITS; fs: the rate at which samples count, if it is another one."""
        self.unit = unit
        return (
            self.from_samples(values, fs) if unit == "samples" else self.from_seconds(values / (1000 if unit == "ms" else 1))
        )

    def units_that_fit(self, last: int, n_samples: int) -> list[str]:
        """The other units in which the last spike, read as sample `last`, lies before sample n_samples."""
        if self.unit is None or self.fs is None:
            return []
        per_unit = {"ms": self.fs / 1000, "samples": 1.0, "s": self.fs}
        value = last / per_unit[self.unit]
        fits = [unit for unit, factor in per_unit.items() if unit != self.unit and value * factor < n_samples]
        return fits if abs(value - round(value)) < 1e-6 else [unit for unit in fits if unit != "samples"]

    def from_seconds(self, seconds: np.ndarray, since_s: float = 0.0) -> np.ndarray:
        """Nearest sample of each time; since_s is the file's own time of the recording's first sample."""
        seconds = self._in_a_row(np.asarray(seconds, np.float64))
        if self.fs is None:
            raise InputError(
                f"{self.path}: its times are in seconds and need the recording's sampling frequency; give --sampling-frequency."
            )
        if not np.all(np.isfinite(seconds)):
            bad = counted(int(np.count_nonzero(~np.isfinite(seconds))), "spike time")
            raise InputError(f"{self.path} has {bad} without a finite value; correct the file.")
        with np.errstate(over="ignore"):
            seen = (seconds - since_s) * self.fs
            if self.timeline is not None:
                seen = self.timeline.samples(seconds - since_s + self.start_time_s)
            samples = np.round(seen)
        self._refuse_beyond(samples, seconds, "s")
        return _whole(samples)

    def from_samples(self, samples: np.ndarray, fs: float | None = None) -> np.ndarray:
        """Samples as int64, converted where they count at another rate fs than the recording's."""
        values = self._in_a_row(np.asarray(samples))
        if values.dtype.kind == "f":
            values = values.astype(np.float64)
        if values.dtype.kind in "iuf":
            self._refuse_beyond(values, values, "samples")
        if values.dtype.kind not in "iuf" or not np.all(np.isfinite(values)) or np.any(values != np.round(values)):
            raise InputError(
                f"{self.path}: spike samples must be whole numbers; if these are seconds, give --truth-unit s or call the "
                "column spike_time_s."
            )
        if fs is None or self.fs is None or abs(fs - self.fs) <= 1e-6 * self.fs:
            return _whole(values)
        logger.info("%s counts samples at %g Hz; converted to the recording's %g Hz", self.path, fs, self.fs)
        return _whole(np.round(values / fs * self.fs))

    def _in_a_row(self, values: np.ndarray) -> np.ndarray:
        if values.ndim != 1:
            raise InputError(f"{self.path}: the spikes of a unit have shape {values.shape}; they must be one list.")
        return values

    def _refuse_beyond(self, samples: np.ndarray, told: np.ndarray, unit: str) -> None:
        """Raise InputError for samples that no int64 holds; told: as they stand in the file, in `unit`."""
        if len(beyond := told[samples >= _END]):
            raise InputError(
                f"{self.path} has a spike at {beyond[0]:g} {unit}, beyond the end of every recording; give the unit of the times with --truth-unit."
            )


def _whole(samples: np.ndarray) -> np.ndarray:
    """As int64; what lies further before the start than that goes stays before it."""
    return (np.maximum(samples, -_END) if samples.dtype.kind == "f" else samples).astype(np.int64)


def by_unit(units: np.ndarray, samples: np.ndarray) -> Trains:
    """The samples (n,) of each unit, by its name; units (n,)."""
    return {str(u): samples[units == u] for u in np.unique(units)}


def from_npy(clock: SampleClock, unit: str | None = None) -> Trains:
    """One list of times in an .npy file: whole numbers are samples and others seconds, unless `unit` says otherwise."""
    values = load_npy(clock.path)
    if values.ndim > 1 and values.size != max(values.shape):
        raise InputError(f"{clock.path} has shape {values.shape}; it must be one list of samples (int) or seconds (float).")
    values = values.reshape(-1)
    if values.dtype.kind not in "iuf":
        raise InputError(f"{clock.path} has dtype {values.dtype}; it must be int (samples) or float (seconds).")
    return {clock.path.stem: clock.from_unit(values, unit or ("s" if values.dtype.kind == "f" else "samples"))}


def from_table(clock: SampleClock, column: str | None = None, unit: str | None = None, path: Path | None = None) -> Trains:
    """A table with times in one column, and the names of the neurons in another where there are several.

    Names of columns count in any case. Without a header, or without a unit in the column's name, times with decimals are
    seconds. Whole numbers are samples in a list without a header; else `unit` must say in what they count. path: of the table,
    where it is not that of the clock.
    """
    path = path or clock.path
    header, table = _rows(path)
    place = _place(path, header, table, column)
    _refuse_commas(path, header, table, place)
    short = next((i for i, row in enumerate(table) if len(row) != len(header or table[0])), None)
    if short is not None:
        raise InputError(
            f"{path}: row {short + 1} has {counted(len(table[short]), 'value')} for {counted(len(header or table[0]), 'column')}; "
            "give every row one value for each column."
        )
    values = np.array([_number(row[place]) for row in table]) if table else np.zeros(0, np.int64)
    samples = clock.from_unit(values, unit or _unit_of_column(path, header, place, values))
    neurons = next((k for k, name in enumerate(header) if key(name) in NEURONS and k != place), None)
    if not header and len(table[0]) == 2:
        neurons = 1 - place
    return {path.stem: samples} if neurons is None else by_unit(np.array([row[neurons].strip() for row in table]), samples)


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header, empty where there is none, and rows of a table whose cells are parted by tab, semicolon, comma or space."""
    lines = [line for line in read_text(path, _MOST_SPIKE_TABLE_MB).splitlines() if line.strip()]
    lines = [line for line in lines if not line.startswith(("#", "%"))]
    if not lines:
        raise InputError(f"{path} is empty; it needs one row per spike.")
    parted = next((d for d in "\t;," if d in lines[0]), None)
    if parted is None and len(lines[-1].split()) > 1:
        rows = [line.split() for line in lines]
    else:
        rows = list(csv.reader(lines, delimiter=parted or ","))
    first = [cell.strip() for cell in rows[0]]
    return ([], rows) if all(map(is_number, first)) else (first, rows[1:])


def _place(path: Path, header: list[str], table: list[list[str]], column: str | None) -> int:
    """The column that holds the times: the one that was named, else the one whose name says so."""
    if not header:
        n = len(table[0])
        if column is None and n > 1:
            raise InputError(
                f"{path} has {n} columns and no header; give --truth-column, the number of the column of times, from 0."
            )
        if column is not None and not (column.isdecimal() and int(column) < n):
            raise UsageError(
                f"--truth-column {column}: {path} has no header; give the number of a column, from 0 to {n - 1}."
            )
        return int(column or 0)
    listed = f"{path} has the columns {', '.join(header)}"
    if column is not None:
        named = [k for k, name in enumerate(header) if name.lower() == column.strip().lower()]
        if not named and not (column.isdecimal() and int(column) < len(header)):
            raise UsageError(f"--truth-column {column} does not exist; {listed}.")
        return named[0] if named else int(column)
    units = [unit_of_name(name) for name in header]
    found = next((units.index(unit) for unit in (*("samples", "s", "ms"), "") if unit in units), None)
    if found is None:
        raise InputError(f"{listed}; it needs one named sample or spike_time_s, or give --truth-column.")
    return found


def key(name: str) -> str:
    """The words of a column's name in small letters, such as spike_time_s for `SpikeTime (s)`."""
    return "_".join(re.findall("[a-z]+", re.sub("(?<=[a-z])(?=[A-Z])", " ", name).lower()))


def unit_of_name(name: str) -> str | None:
    """The unit of a column of spike times, by its name; empty where it says none, None where it holds something else."""
    words = key(name).split("_")
    known = {word for group in _UNIT_WORDS.values() for word in group} | set(_TIME_WORDS)
    if not known.intersection(words) or not known.union(_OTHER_WORDS).issuperset(words):
        return None
    return next((unit for unit, group in _UNIT_WORDS.items() if set(group).intersection(words)), "")


def unit_of_values(path: Path, told: str, values: np.ndarray, known: bool = False) -> str:
    """The unit of times (n,) whose name says none, as `told` says: seconds where they have decimals, else samples. A warning
    says the latter unless it is known."""
    if not np.array_equal(values, np.round(values)):
        return "s"
    if not known:
        logger.warning("%s %s; its whole numbers are read as samples; --truth-unit changes that", path, told)
    return "samples"


def _unit_of_column(path: Path, header: list[str], place: int, values: np.ndarray) -> str:
    """The unit of times (n,) in a column: what its name says, else that of the values. Raises InputError for whole numbers in
    a column of times, which may be anything."""
    if header and (said := unit_of_name(header[place])):
        return said
    if not header or not np.array_equal(values, np.round(values)):
        return unit_of_values(path, "has no header", values)
    raise InputError(
        f"{path} has the columns {', '.join(header)}; whole numbers in {header[place]} may be samples or milliseconds: give "
        "--truth-unit, or call the column sample, time_ms or spike_time_s."
    )


def _number(cell: str) -> int | float:
    """Through int where possible: a float holds no sample index above 2 ** 53."""
    return int(cell) if re.fullmatch(r"\s*-?[0-9]{1,18}\s*", cell) else float(cell)


def _refuse_commas(path: Path, header: list[str], table: list[list[str]], place: int) -> None:
    """Raise InputError where numbers have a decimal comma: in a cell, or where it has made two cells of every time."""
    comma = next((cell for row in table for cell in row if re.fullmatch(r"\s*-?\d+,\d+\s*", cell)), "")
    parted = header and unit_of_name(header[place]) != "samples" and all(len(row) == len(header) + 1 for row in table)
    if table and parted and all("".join(row[place : place + 2]).strip().isdigit() for row in table):
        comma = ",".join(cell.strip() for cell in table[0][place : place + 2])
    if comma:
        raise InputError(
            f"{path}: {comma!r} has a decimal comma; write numbers with a point, such as {comma.replace(',', '.')}."
        )
