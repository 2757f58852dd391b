"""open_recording: which reader a path belongs to; open_session: several files as one recording."""

from __future__ import annotations

import contextlib
import itertools
import logging
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import h5py

from spikecrsae.data.recording import Recording, joined
from spikecrsae.errors import InputError, SpikeCRsAEError, UsageError
from spikecrsae.readers.array_files import read_mda, read_npy
from spikecrsae.readers.assemble import arranged, one_line
from spikecrsae.readers.binary import SUFFIXES as _RAW_SUFFIXES
from spikecrsae.readers.binary import read_binary
from spikecrsae.readers.channel_files import are_channels, as_channels
from spikecrsae.readers.hdf5 import read_hdf5
from spikecrsae.readers.matlab import is_matlab_hdf5, read_matlab, read_matlab_hdf5
from spikecrsae.readers.maxwell import is_maxwell, read_maxwell
from spikecrsae.readers.mcs_hdf5 import is_mcs, read_mcs
from spikecrsae.readers.mearec import is_mearec, read_mearec
from spikecrsae.readers.mtscomp import read_mtscomp
from spikecrsae.readers.neo import neo_candidates, read_neo, shared_readers
from spikecrsae.readers.neural import NotNeuralError, natural_key
from spikecrsae.readers.nwb import is_nwb, read_nwb
from spikecrsae.readers.read_options import ReadOptions, side_file, with_side_file
from spikecrsae.readers.spikeinterface_folder import is_spikeinterface, read_spikeinterface
from spikecrsae.system.files import refuse_unreadable
from spikecrsae.system.safe_hdf5 import open_hdf5, read_guarded

log = logging.getLogger(__name__)

#: The name of a file that Intan's program has begun at a date and time, or a number.
_NUMBERED = re.compile(r"(.*?)[-_ ]?(\d{6}_\d{6}|\d+)")
#: Files of one session in a folder follow one another within this time.
_LONGEST_PAUSE_S = 600.0
#: Files of one moment differ in length by less than this part.
_SAME_LENGTH = 0.01
#: Readers by ending, where no companion of the file says otherwise.
_OWN = {".mat": read_matlab, ".npy": read_npy, ".mda": read_mda, ".cbin": read_mtscomp}
_HDF5_SUFFIXES = (".h5", ".hdf5", ".nwb", ".brw", ".nix")


def open_recording(path: str | Path, options: ReadOptions | None = None, **values: Any) -> Recording:
    """Open a recording of any format; nothing but its header is read.

    `values` are fields of ReadOptions and go before `options`, which go before the side file `<recording>.toml`, which
    goes before the file itself. HDF5 is told apart by content, raw binary by its options or ending, the rest is neo's.

    Raises InputError where the path is missing or cannot be used, UsageError where an option is wrong, unknown or needed.
    """
    path = Path(path)
    try:
        options = replace(options or ReadOptions(), **values)
    except TypeError as error:
        raise UsageError(
            f"{path}: {', '.join(values)}: one of these is not a reading option ({error}); correct its name."
        ) from error
    refuse_unreadable(path)
    options = with_side_file(path, options)
    try:
        return _read(path, options)
    except SpikeCRsAEError:
        raise
    # the libraries below raise anything on files that are damaged
    except Exception as error:
        log.debug("%s cannot be read", path, exc_info=True)
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {one_line(error)}); it is damaged or cut off; use another copy."
        ) from error


def _read(path: Path, options: ReadOptions) -> Recording:
    """By the reader that the path belongs to."""
    if path.is_dir():
        return _read_folder(path, options)
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty; copy it again, or give another file.")
    if h5py.is_hdf5(path):
        return read_guarded(path, lambda: _read_hdf5_family(path, options))
    suffix = path.suffix.lower()
    if suffix in _HDF5_SUFFIXES:
        raise InputError(
            f"{path} ends in {suffix} but its content is not HDF5: damaged, or another format. Give the file its own ending, or copy it again."
        )
    if options.n_channels is not None or options.dtype is not None:
        return read_binary(path, options)
    if is_spikeinterface(path):
        return read_spikeinterface(path, options)
    if suffix in _RAW_SUFFIXES and not neo_candidates(path):
        return read_binary(path, options)
    if suffix in _OWN and not neo_candidates(path):
        return _OWN[suffix](path, options)
    return read_neo(path, options)


def open_session(paths: Sequence[str | Path], options: ReadOptions | None = None, **values: Any) -> Recording:
    """Several files as one recording: channels of it where they hold one channel each of the same moment (channel_files), else the files
    of one session, in the order given, as its parts. One file is opened as by open_recording.

    start_s and stop_s of a session count from the first file's start through all of them. Raises InputError, besides what
    open_recording raises, where the files differ in what must agree, UsageError where one is named twice.
    """
    if len(paths) == 1:
        return open_recording(paths[0], options, **values)
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise UsageError(f"the same file stands twice among {', '.join(map(str, paths))}; name each file of a session once.")
    options = replace(options or ReadOptions(), **values)
    if options.files != "session" and (recording := _channel_files([Path(path) for path in paths], options)):
        return recording
    with contextlib.ExitStack() as stack:
        opened: list[Recording] = []
        for path in paths:
            opened.append(open_recording(path, replace(options, start_s=None, stop_s=None)))
            stack.callback(opened[-1].close)
            if opened[-1].time_range is not None:
                raise UsageError(
                    f"{side_file(Path(path))} gives start_s or stop_s, which files of one session cannot have; use --exclude-s."
                )
        recording = joined(opened, [str(path) for path in paths])
        notes = _notes_of_order(paths, opened) if options.files is None else ()
        recording = replace(recording, notes=(*recording.notes, *notes)).between(options.start_s, options.stop_s)
        stack.pop_all()
    return recording


def _notes_of_order(paths: Sequence[str | Path], opened: Sequence[Recording]) -> tuple[str, ...]:
    """What is told of files that were taken for one after the other: clocks that go back, and files that may be of one moment."""
    notes, alike = [], False
    for before, then, name in zip(opened, opened[1:], paths[1:], strict=False):
        later_s = then.start_time_s - before.start_time_s
        if later_s < 0 < then.start_time_s:
            notes.append(
                f"{name} starts at {then.start_time_s:.10g} s on its clock and the file before it at {before.start_time_s:.10g} s; files of a session "
                "are taken in the order given, so give them in the order of time"
            )
        is_long_as = abs(then.n_samples - before.n_samples) <= _SAME_LENGTH * before.n_samples
        alike |= abs(later_s) < 1 / before.sampling_frequency and is_long_as
    if alike:
        channels = "make them channels with --files channels, or " if opened[0].n_channels == 1 else ""
        notes.append(
            "files with the same start time and length are read one after the other; if they are of one moment, as of several probes, "
            f"{channels}sort them one by one"
        )
    return tuple(notes)


def _channel_files(paths: Sequence[Path], options: ReadOptions) -> Recording | None:
    """The files as channels of one recording; None where they are none, which the first with several channels shows."""
    is_told = options.files == "channels"
    plain = replace(options, channels=None, probe=None, groups=None, start_s=None, stop_s=None)
    opened: dict[Path, Recording] = {}
    left_out: list[Path] = []
    with shared_readers(), contextlib.ExitStack() as stack:
        for path in paths:
            try:
                opened[path] = open_recording(path, plain)
            except NotNeuralError:
                left_out.append(path)
                continue
            stack.callback(opened[path].close)
            if not are_channels(list(opened.values()), is_told):
                return None
        if not opened:
            return None
        recording = arranged(as_channels(list(opened.values()), list(opened), left_out), options)
        stack.pop_all()
    return recording


def _read_folder(path: Path, options: ReadOptions) -> Recording:
    if path.resolve() == path.resolve().parent:  # readers would search the whole disk
        raise InputError(f"{path} is the root of the file system, not a recording; give a file or folder in it.")
    if (path / "sorting.h5").exists():
        raise InputError(f"{path} is a result folder, not a recording; give the recording that was sorted.")
    if is_spikeinterface(path):
        return read_spikeinterface(path, options)
    if (path / "raw.mda").is_file():
        return read_mda(path, options)
    if files := _files_of_a_session(path):
        recording = open_session(files, options, files="session")
        _refuse_long_pauses(path, files, recording)
        note = f"{len(files)} files of the folder are one session, in the order of their names"
        return replace(recording, source=path, notes=(*recording.notes, note))
    return read_neo(path, options)


def _files_of_a_session(folder: Path) -> list[Path]:
    """The files of one recording for which an Intan controller begins a new one every minute, in time order; empty where the folder holds
    none, one, or those of several recordings, which have other names before the date and time or the number at the end."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in (".rhd", ".rhs") and file.stem != "info"]
    names = {(found and found[1], file.suffix) for file in files for found in [_NUMBERED.fullmatch(file.stem)]}
    is_one = len(files) > 1 and len(names) == 1 and next(iter(names))[0] is not None
    return sorted(files, key=lambda file: natural_key(file.name)) if is_one else []


def _refuse_long_pauses(folder: Path, files: Sequence[Path], recording: Recording) -> None:
    """Raise InputError where a file begins, by its name, long after the one before it has ended."""
    lengths = {part.name: part.n_samples / recording.sampling_frequency for part in recording.parts}
    for file, following in itertools.pairwise(files):
        with contextlib.suppress(ValueError, TypeError):  # names without a date and time
            first, then = (datetime.strptime(_NUMBERED.fullmatch(f.stem)[2], "%y%m%d_%H%M%S") for f in (file, following))  # type: ignore[index]
            pause_s = (then - first).total_seconds() - lengths.get(str(file), 0.0)
            if pause_s > _LONGEST_PAUSE_S:
                recording.close()
                raise InputError(
                    f"{folder}: {following.name} begins {pause_s:.0f} s after {file.name} has ended; files of a folder are one session only if they are "
                    f"at most {_LONGEST_PAUSE_S:g} s apart. Give the files that belong together one by one."
                )


def _read_hdf5_family(path: Path, options: ReadOptions) -> Recording:
    """MEArec, NWB, Multi Channel Systems, the vendors' HDF5 that neo knows, or generic, by content."""
    with open_hdf5(path) as file:
        if "format_version" in file.attrs and "spikes" in file:
            raise InputError(f"{path} is a sorting, not a recording; give the recording that was sorted.")
        if is_nwb(file):
            reader = read_nwb
        elif is_mearec(file):
            reader = read_mearec
        elif is_mcs(file):
            reader = read_mcs
        elif is_matlab_hdf5(file, path):
            reader = read_matlab_hdf5
        elif is_maxwell(file):
            reader = read_maxwell
        elif path.suffix.lower() in (".brw", ".nix"):
            reader = read_neo
        else:
            reader = read_hdf5
    return reader(path, options)
