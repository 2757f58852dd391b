"""Known spikes: from simulations, NWB Units, sortings, tables, or an intracellular channel."""

from __future__ import annotations

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
from spikecrsae.errors import InputError, SpikeCRsAEError, UsageError
from spikecrsae.readers.assemble import one_line
from spikecrsae.readers.hdf5 import stored_rate
from spikecrsae.readers.matlab_spikes import from_matlab
from spikecrsae.readers.mearec import is_mearec
from spikecrsae.readers.nwb import is_nwb
from spikecrsae.readers.open import open_recording
from spikecrsae.readers.phy_names import ORIGINAL, PARAMS, check_clusters, phy_folder
from spikecrsae.readers.read_options import ReadOptions
from spikecrsae.readers.spike_times import TIME_UNITS, SampleClock, Trains, by_unit, from_npy, from_table
from spikecrsae.system.files import refuse_unreadable
from spikecrsae.system.safe_hdf5 import load_npy, open_hdf5, read_guarded, whole
from spikecrsae.system.text import read_text

logger = logging.getLogger(__name__)

#: Phy's params.py may be so long.
_MOST_PARAMS_MB = 1
_TABLES, _MATLAB = (".csv", ".tsv", ".txt"), ".mat"


def read_truth(
    path: str | Path,
    recording_fs: float | None,
    *,
    truth_channel: int | None = None,
    recording: Recording | SortingData | None = None,
    threshold: float | None = None,
    unit: str | None = None,
    options: ReadOptions | None = None,
    column: str | None = None,
    time_unit: str | None = None,
) -> Trains:
    """Spike samples (int64, ascending) of each known unit, in samples of the recording at `recording_fs` Hz.

    Reads HDF5 with truth/<name>/spike_samples, MEArec, NWB Units, Phy folders, our result folders, .csv, .npy and .mat; with
    `truth_channel`, detects the spikes on that channel of the recording at `path` (opened with `options`), above
    `threshold` where given (see intracellular.detect_spikes). Times in a table count from the recording's first sample.
    `column` of a table, or variable of a .mat file, holds the times (a name in any case, or a number from 0), and they count in `time_unit` (TIME_UNITS); by
    default the names of the columns say both. `recording` is the scored one, or its sorting: its length is the limit and its
    start time is taken off NWB times. `unit` keeps one.

    Raises InputError where nothing is read, no spike is there, or a spike is negative or beyond the recording's end.
    """
    path = phy_folder(path)
    refuse_unreadable(path, "the known spikes")
    clock = SampleClock(path, recording_fs, None if recording is None else recording.timeline)
    try:
        if truth_channel is not None:
            trains = _from_channel(clock, truth_channel, threshold, options)
        else:
            read = functools.partial(_reader_of(path, column, time_unit), clock)
            trains = read_guarded(path, read) if any(map(_is_hdf5, (path, path / "sorting.h5", path / ORIGINAL))) else read()
    except SpikeCRsAEError:
        raise
    # the libraries below raise anything on files that are damaged
    except Exception as error:
        raise InputError(f"{path} cannot be read as known spikes ({type(error).__name__}: {one_line(error)}); "
                         "give a table, .npy, .mat, HDF5, NWB or a Phy folder.") from error  # fmt: skip
    if unit is not None:
        if unit not in trains:
            raise InputError(f"{path} has no unit {unit!r}; it has {', '.join(trains)}.")
        trains = {unit: trains[unit]}
    return _checked(trains, clock, None if recording is None else recording.n_samples)


def neuron_and_unit(neuron: str | None, unit: str | None) -> tuple[str | None, str | None]:
    """The `unit` and the `time_unit` of read_truth, from --truth-neuron and --truth-unit; in version 0.1 the latter named the
    neuron, which it still may."""
    if unit is None or unit in TIME_UNITS:
        return neuron, unit
    if neuron is not None:
        raise UsageError(f"--truth-unit {unit} must be one of {', '.join(TIME_UNITS)}.")
    return unit, None


def _checked(trains: Trains, clock: SampleClock, n_samples: int | None) -> Trains:
    path = clock.path
    if not any(len(samples) for samples in trains.values()):
        raise InputError(f"{path} holds no spike; give a truth with spikes.")
    for name, samples in trains.items():
        samples = np.sort(np.asarray(samples, np.int64))
        if len(samples) and samples[0] < 0:
            raise InputError(
                f"{path}: unit {name} has a spike at sample {samples[0]}, before the recording starts; give the unit of the times with --truth-unit."
            )
        if len(samples) and n_samples is not None and samples[-1] >= n_samples:
            fits = clock.units_that_fit(int(samples[-1]), n_samples)
            remedy = f" In another unit they would fit: give --truth-unit {' or '.join(fits)}." if fits else ""
            raise InputError(
                f"{path}: unit {name} has a spike at sample {samples[-1]}, beyond the recording's {n_samples} samples; "
                f"give the truth of this recording, and check whether these are seconds or samples.{remedy}"
            )
        trains[name] = samples
    return trains


def _is_hdf5(path: Path) -> bool:
    return path.is_file() and h5py.is_hdf5(path)


def _reader_of(path: Path, column: str | None, unit: str | None) -> Callable[[SampleClock], Trains]:
    """The function that reads this truth file or folder, by content and ending. Raises UsageError for a column or a unit that it
    would ignore."""
    ending = path.suffix.lower() if path.is_file() else ""
    named = ending == _MATLAB or (ending in _TABLES and not _is_hdf5(path))
    if (column is not None and not named) or (unit is not None and not named and ending != ".npy"):
        name = "--truth-unit" if column is None else "--truth-column"
        raise UsageError(f"{name} is for tables of spike times, and {path} is not one; leave it out.")
    if path.is_dir():
        for name, reader in (("spike_times.npy", _from_phy), ("sorting.h5", _from_result), ("spikes.csv", _from_result)):
            if (path / name).is_file():
                return reader
    elif ending == _MATLAB:
        return functools.partial(from_matlab, column=column, unit=unit)
    elif _is_hdf5(path):
        return _from_hdf5
    elif ending == ".npy":
        return functools.partial(from_npy, unit=unit)
    elif ending in _TABLES:
        return functools.partial(from_table, column=column, unit=unit)
    raise InputError(
        f"{path} holds no known spikes; give HDF5, MEArec, NWB, a Phy or a result folder, .csv, .npy, .mat, or a recording with "
        "--truth-channel."
    )


def _from_hdf5(clock: SampleClock) -> Trains:
    with open_hdf5(clock.path) as file:
        if is_nwb(file):
            return _from_nwb(file, clock)
        if is_mearec(file):
            trains = file.get("spiketrains", {})
            names = sorted(trains, key=lambda name: (len(name), name))
            return {name: clock.from_seconds(whole(trains[name]["times"])) for name in names}
        if "spikes" in file and isinstance(file["spikes"], h5py.Dataset) and file["spikes"].dtype.names:
            spikes = whole(file["spikes"])
            return by_unit(spikes["unit"], clock.from_samples(spikes["sample"], stored_rate(file)))
        truth = file.get("truth")
        groups = truth.items() if isinstance(truth, h5py.Group) else ()
        names = [name for name, group in groups if isinstance(group, h5py.Group) and "spike_samples" in group]
        if not names:
            raise InputError(
                f"{clock.path} has no truth/<name>/spike_samples; it holds {', '.join(file) or 'nothing'}. Give a file with known spikes."
            )
        rate = stored_rate(*([file["traces"]] if "traces" in file else []), file)
        return {name: clock.from_samples(whole(truth[name]["spike_samples"]), rate) for name in names}


def _from_nwb(file: h5py.File, clock: SampleClock) -> Trains:
    units = file.get("units")
    if units is None or "spike_times" not in units:
        raise InputError(f"{clock.path} has no Units table with spike_times; give a file that has one.")
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
            f"{clock.path}: spike_times_index does not divide {len(samples)} spikes among {len(names)} units; the file is damaged; use another copy."
        )
    return {name: samples[first:end] for name, first, end in zip(names, bounds[:-1], bounds[1:], strict=True)}


def _from_phy(clock: SampleClock) -> Trains:
    folder = clock.path
    labels = next((p for p in (folder / "spike_clusters.npy", folder / "spike_templates.npy") if p.is_file()), None)
    if labels is None:
        raise InputError(f"{folder} has spike_times.npy but no spike_clusters.npy; export the Phy folder again.")
    samples, units = (load_npy(p).reshape(-1) for p in (folder / "spike_times.npy", labels))
    if len(samples) != len(units):
        raise InputError(
            f"{folder}: {len(samples)} spike times and {len(units)} cluster labels; the folder is damaged; use another copy."
        )
    if (folder / ORIGINAL).is_file():
        with open_hdf5(folder / ORIGINAL) as file:
            real = load_npy(folder / "spike_templates.npy").reshape(-1) < len(file["units/unit"])
        samples, units = samples[real], units[real]
    check_clusters(units, labels)
    return by_unit(units, clock.from_samples(samples, phy_rate(folder)))


def phy_rate(folder: Path) -> float | None:
    """sample_rate out of the params.py of a Phy folder, or None; the line is looked for and never run."""
    params = phy_folder(folder) / PARAMS
    if not params.is_file():
        return None
    found = re.search(r"^sample_rate\s*=\s*([\d.eE+-]+)\s*(?:#.*)?$", read_text(params, _MOST_PARAMS_MB), re.MULTILINE)
    return float(found[1]) if found else None


def _from_result(clock: SampleClock) -> Trains:
    stored = clock.path / "sorting.h5"
    if not stored.is_file():
        return from_table(clock, path=clock.path / "spikes.csv")
    with open_hdf5(stored) as file:
        spikes = whole(file["spikes"])
        return by_unit(spikes["unit"], clock.from_samples(spikes["sample"], stored_rate(file)))


def _from_channel(clock: SampleClock, channel: int, threshold: float | None, options: ReadOptions | None) -> Trains:
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
