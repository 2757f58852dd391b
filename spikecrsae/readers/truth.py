"""Known spikes: from simulations, NWB Units, sortings, tables, or an intracellular channel."""

from __future__ import annotations

import csv
import functools
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from spikecrsae.data.recording import Recording
from spikecrsae.data.sorting import SortingData
from spikecrsae.data.timeline import Timeline
from spikecrsae.errors import InputError, SpikeCRsAEError
from spikecrsae.readers.assemble import one_line
from spikecrsae.readers.hdf5 import stored_rate
from spikecrsae.readers.mearec import is_mearec
from spikecrsae.readers.nwb import is_nwb
from spikecrsae.readers.open import open_recording
from spikecrsae.readers.phy_names import ORIGINAL, check_clusters
from spikecrsae.readers.read_options import ReadOptions
from spikecrsae.system.files import refuse_unreadable
from spikecrsae.system.safe_hdf5 import load_npy, open_hdf5, read_guarded, whole
from spikecrsae.system.text import counted, read_text

logger = logging.getLogger(__name__)

Trains = dict[str, np.ndarray]
#: A table of spikes in text, and Phy's params.py, may be so long.
_MOST_SPIKE_TABLE_MB, _MOST_PARAMS_MB = 2000, 1
#: No recording has so many samples.
_END = 2**62


class _SampleClock:
    """Turns the times of a truth file into samples of the recording that is scored."""

    def __init__(self, path: Path, recording_fs: float | None, timeline: Timeline | None) -> None:
        self.path, self.fs, self.timeline = path, recording_fs, timeline
        self.start_time_s = 0.0 if timeline is None else float(timeline.times_s[0])

    def from_seconds(self, seconds: np.ndarray, since_s: float = 0.0) -> np.ndarray:
        """Nearest sample of each time; since_s is the file's own time of the recording's first sample."""
        seconds = self._in_a_row(np.asarray(seconds, np.float64))
        if self.fs is None:
            raise InputError(f"{self.path}: its times are in seconds; the recording's sampling frequency is needed.")
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
            raise InputError(f"{self.path}: spike samples must be whole numbers; are these seconds (column spike_time_s)?")
        if fs is None or self.fs is None or abs(fs - self.fs) <= 1e-6 * self.fs:
            return _whole(values)
        logger.info("%s counts samples at %g Hz; converted to the recording's %g Hz", self.path, fs, self.fs)
        return self.from_seconds(values / fs)

    def _in_a_row(self, values: np.ndarray) -> np.ndarray:
        if values.ndim != 1:
            raise InputError(f"{self.path}: spikes of the shape {values.shape}; those of a unit must be one list.")
        return values

    def _refuse_beyond(self, samples: np.ndarray, told: np.ndarray, unit: str) -> None:
        """Raise InputError for samples that no int64 holds; told: as they stand in the file, in `unit`."""
        if len(beyond := told[samples >= _END]):
            raise InputError(
                f"{self.path} has a spike at {beyond[0]:g} {unit}, beyond the end of every recording; are these seconds or samples?"
            )


def _whole(samples: np.ndarray) -> np.ndarray:
    """As int64; what lies further before the start than that goes stays before it."""
    return (np.maximum(samples, -_END) if samples.dtype.kind == "f" else samples).astype(np.int64)


def read_truth(
    path: str | Path,
    recording_fs: float | None,
    *,
    truth_channel: int | None = None,
    recording: Recording | SortingData | None = None,
    threshold: float | None = None,
    unit: str | None = None,
    options: ReadOptions | None = None,
) -> Trains:
    """Spike samples (int64, ascending) of each known unit, in samples of the recording at `recording_fs` Hz.

    Reads HDF5 with truth/<name>/spike_samples, MEArec, NWB Units, Phy folders, our result folders, .csv and .npy; with
    `truth_channel`, detects the spikes on that channel of the recording at `path` (opened with `options`), above
    `threshold` where given (see intracellular.detect_spikes). Times in a table count from the recording's first sample.
    `recording` is the scored one, or its sorting: its length is the limit and its start time is taken off NWB times. `unit` keeps one.

    Raises InputError where nothing is read, no spike is there, or a spike is negative or beyond the recording's end.
    """
    path = Path(path)
    refuse_unreadable(path, "the known spikes")
    clock = _SampleClock(path, recording_fs, None if recording is None else recording.timeline)
    try:
        if truth_channel is not None:
            trains = _from_channel(clock, truth_channel, threshold, options)
        else:
            read = functools.partial(_reader_of(path), clock)
            trains = read_guarded(path, read) if any(map(_is_hdf5, (path, path / "sorting.h5", path / ORIGINAL))) else read()
    except SpikeCRsAEError:
        raise
    # the libraries below raise anything on files that are damaged
    except Exception as error:
        raise InputError(f"{path} cannot be read as known spikes ({type(error).__name__}: {one_line(error)}).") from error
    if unit is not None:
        if unit not in trains:
            raise InputError(f"{path} has no unit {unit!r}; it has {', '.join(trains)}.")
        trains = {unit: trains[unit]}
    return _checked(trains, path, None if recording is None else recording.n_samples)


def _checked(trains: Trains, path: Path, n_samples: int | None) -> Trains:
    if not any(len(samples) for samples in trains.values()):
        raise InputError(f"{path} holds no spike; there is nothing to compare with.")
    for name, samples in trains.items():
        samples = np.sort(np.asarray(samples, np.int64))
        if len(samples) and samples[0] < 0:
            raise InputError(f"{path}: unit {name} has a spike at sample {samples[0]}, before the recording starts.")
        if len(samples) and n_samples is not None and samples[-1] >= n_samples:
            raise InputError(
                f"{path}: unit {name} has a spike at sample {samples[-1]}, beyond the recording's {n_samples} samples; "
                "does it belong to this recording, and are these seconds or samples?"
            )
        trains[name] = samples
    return trains


def _is_hdf5(path: Path) -> bool:
    return path.is_file() and h5py.is_hdf5(path)


def _reader_of(path: Path) -> Callable[[_SampleClock], Trains]:
    """The function that reads this truth file or folder, by content and ending."""
    if path.is_dir():
        for name, reader in (("spike_times.npy", _from_phy), ("sorting.h5", _from_result), ("spikes.csv", _from_result)):
            if (path / name).is_file():
                return reader
    elif _is_hdf5(path):
        return _from_hdf5
    elif path.suffix.lower() == ".npy":
        return _from_npy
    elif path.suffix.lower() in (".csv", ".tsv", ".txt"):
        return lambda clock: _from_table(clock, clock.path)
    raise InputError(
        f"{path} holds no known spikes; give HDF5, MEArec, NWB, a Phy or a result folder, .csv, .npy, or a recording with "
        "--truth-channel."
    )


def _by_unit(units: np.ndarray, samples: np.ndarray) -> Trains:
    return {str(u): samples[units == u] for u in np.unique(units)}


def _from_hdf5(clock: _SampleClock) -> Trains:
    with open_hdf5(clock.path) as file:
        if is_nwb(file):
            return _from_nwb(file, clock)
        if is_mearec(file):
            trains = file.get("spiketrains", {})
            names = sorted(trains, key=lambda name: (len(name), name))
            return {name: clock.from_seconds(whole(trains[name]["times"])) for name in names}
        if "spikes" in file and isinstance(file["spikes"], h5py.Dataset) and file["spikes"].dtype.names:
            spikes = whole(file["spikes"])
            return _by_unit(spikes["unit"], clock.from_samples(spikes["sample"], stored_rate(file)))
        truth = file.get("truth")
        groups = truth.items() if isinstance(truth, h5py.Group) else ()
        names = [name for name, group in groups if isinstance(group, h5py.Group) and "spike_samples" in group]
        if not names:
            raise InputError(f"{clock.path} has no truth/<name>/spike_samples; it holds {', '.join(file) or 'nothing'}.")
        rate = stored_rate(*([file["traces"]] if "traces" in file else []), file)
        return {name: clock.from_samples(whole(truth[name]["spike_samples"]), rate) for name in names}


def _from_nwb(file: h5py.File, clock: _SampleClock) -> Trains:
    units = file.get("units")
    if units is None or "spike_times" not in units:
        raise InputError(f"{clock.path} has no Units table with spike_times.")
    samples = clock.from_seconds(whole(units["spike_times"]), since_s=clock.start_time_s)
    # spike_times holds all units one after the other; the index gives the end of each.
    ends = whole(units["spike_times_index"])
    names = [str(name) for name in (whole(units["id"]) if "id" in units else np.arange(len(ends)))]
    if len(set(names)) < len(names):
        twice = next(name for k, name in enumerate(names) if name in names[:k])
        raise InputError(f"{clock.path}: several units of its Units table have the id {twice}; give each one its own.")
    whole_numbers, bounds = ends.dtype.kind in "iu", np.concatenate([[0], ends.astype(np.int64)])
    if not whole_numbers or np.any(np.diff(bounds) < 0) or bounds[-1] != len(samples) or len(names) != len(ends):
        raise InputError(
            f"{clock.path}: spike_times_index does not divide {len(samples)} spikes among {len(names)} units; the file is damaged."
        )
    return {name: samples[first:end] for name, first, end in zip(names, bounds[:-1], bounds[1:], strict=True)}


def _from_phy(clock: _SampleClock) -> Trains:
    folder = clock.path
    labels = next((p for p in (folder / "spike_clusters.npy", folder / "spike_templates.npy") if p.is_file()), None)
    if labels is None:
        raise InputError(f"{folder} has spike_times.npy but no spike_clusters.npy; it is no complete Phy folder.")
    samples, units = (load_npy(p).reshape(-1) for p in (folder / "spike_times.npy", labels))
    if len(samples) != len(units):
        raise InputError(f"{folder}: {len(samples)} spike times and {len(units)} cluster labels; the folder is damaged.")
    if (folder / ORIGINAL).is_file():
        with open_hdf5(folder / ORIGINAL) as file:
            real = load_npy(folder / "spike_templates.npy").reshape(-1) < len(file["units/unit"])
        samples, units = samples[real], units[real]
    check_clusters(units, labels)
    return _by_unit(units, clock.from_samples(samples, _phy_rate(folder / "params.py")))


def _phy_rate(params: Path) -> float | None:
    """sample_rate out of params.py, whose line is looked for and never run."""
    if not params.is_file():
        return None
    found = re.search(r"^sample_rate\s*=\s*([\d.eE+-]+)\s*(?:#.*)?$", read_text(params, _MOST_PARAMS_MB), re.MULTILINE)
    return float(found[1]) if found else None


def _from_result(clock: _SampleClock) -> Trains:
    stored = clock.path / "sorting.h5"
    if not stored.is_file():
        return _from_table(clock, clock.path / "spikes.csv")
    with open_hdf5(stored) as file:
        spikes = whole(file["spikes"])
        return _by_unit(spikes["unit"], clock.from_samples(spikes["sample"], stored_rate(file)))


def _from_npy(clock: _SampleClock) -> Trains:
    values = load_npy(clock.path)
    if values.ndim > 1 and values.size != max(values.shape):
        raise InputError(f"{clock.path} has shape {values.shape}; it must be one list of samples (int) or seconds (float).")
    values = values.reshape(-1)
    if values.dtype.kind not in "iuf":
        raise InputError(f"{clock.path} has dtype {values.dtype}; it must be int (samples) or float (seconds).")
    return {clock.path.stem: clock.from_seconds(values) if values.dtype.kind == "f" else clock.from_samples(values)}


def _from_table(clock: _SampleClock, path: Path) -> Trains:
    """A table with a header: `sample` or `spike_time_s`, and `unit` where there is more than one."""
    lines = read_text(path, _MOST_SPIKE_TABLE_MB).splitlines()
    lines = [line for line in lines if line.strip() and not line.startswith("#")]
    if not lines:
        raise InputError(f"{path} is empty; it needs a header and one row per spike.")
    rows = csv.reader(lines, delimiter=next((d for d in "\t;" if d in lines[0]), ","))
    header = [name.strip() for name in next(rows)]
    column = next((name for name in ("sample", "spike_time_s") if name in header), None)
    if column is None:
        raise InputError(f"{path} has the columns {', '.join(header)}; it needs sample or spike_time_s (and may have unit).")
    table = list(rows)
    if comma := next(
        (cell for row in table for cell in row if re.fullmatch(r"\s*-?\d+,\d+\s*", cell)), None
    ) or _split_number(header, table):
        raise InputError(
            f"{path}: {comma!r} has a decimal comma; write numbers with a point, such as {comma.replace(',', '.')}."
        )
    short = next((i for i, row in enumerate(table) if len(row) != len(header)), None)
    if short is not None:
        raise InputError(
            f"{path}: row {short + 1} has {counted(len(table[short]), 'value')} for {counted(len(header), 'column')}."
        )
    place = header.index(column)
    if column == "sample":
        values = np.array([_number(row[place]) for row in table])
        samples = clock.from_samples(values if len(values) else np.zeros(0, np.int64))
    else:
        samples = clock.from_seconds(np.array([float(row[place]) for row in table]))
    if "unit" not in header:
        return {path.stem: samples}
    return _by_unit(np.array([row[header.index("unit")].strip() for row in table]), samples)


def _number(cell: str) -> int | float:
    """Through int where possible: a float holds no sample index above 2 ** 53."""
    return int(cell) if re.fullmatch(r"\s*-?[0-9]{1,18}\s*", cell) else float(cell)


def _split_number(header: list[str], table: list[list[str]]) -> str:
    """The number that a decimal comma has made two cells of, where every row has a cell too many; else empty."""
    if "spike_time_s" not in header or not table:  # a sample is a whole number
        return ""
    place = header.index("spike_time_s")
    if any(len(row) != len(header) + 1 or not "".join(row[place : place + 2]).strip().isdigit() for row in table):
        return ""
    return ",".join(cell.strip() for cell in table[0][place : place + 2])


def _from_channel(clock: _SampleClock, channel: int, threshold: float | None, options: ReadOptions | None) -> Trains:
    # scipy.signal is loaded only where it is needed.
    from spikecrsae.readers.intracellular import detect_spikes

    options = options or ReadOptions()
    is_position = options.channels is None  # the channel may be one that is not sorted
    recording = open_recording(clock.path, replace(options, channels=[channel]) if is_position else options)
    try:
        samples = detect_spikes(recording if is_position else recording.select([channel]), threshold)
        return {"intracellular": clock.from_samples(samples, recording.sampling_frequency)}
    finally:
        recording.close()
