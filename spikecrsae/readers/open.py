"""open_recording: which reader a path belongs to; open_session: several files as one recording."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py

from spikecrsae.data.recording import Recording, joined
from spikecrsae.errors import InputError, SpikeCRsAEError, UsageError
from spikecrsae.readers.array_files import read_mda, read_npy
from spikecrsae.readers.assemble import one_line
from spikecrsae.readers.binary import SUFFIXES as _RAW_SUFFIXES
from spikecrsae.readers.binary import read_binary
from spikecrsae.readers.hdf5 import read_hdf5
from spikecrsae.readers.matlab import is_matlab_hdf5, read_matlab, read_matlab_hdf5
from spikecrsae.readers.maxwell import is_maxwell, read_maxwell
from spikecrsae.readers.mcs_hdf5 import is_mcs, read_mcs
from spikecrsae.readers.mearec import is_mearec, read_mearec
from spikecrsae.readers.mtscomp import read_mtscomp
from spikecrsae.readers.neo import neo_candidates, read_neo
from spikecrsae.readers.nwb import is_nwb, read_nwb
from spikecrsae.readers.read_options import ReadOptions, side_file, with_side_file
from spikecrsae.readers.spikeinterface_folder import is_spikeinterface, read_spikeinterface
from spikecrsae.system.files import refuse_unreadable
from spikecrsae.system.safe_hdf5 import open_hdf5, read_guarded

log = logging.getLogger(__name__)

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
        raise UsageError(f"{path}: {', '.join(values)}: one of these is no option of a recording ({error}).") from error
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
            f"{path} cannot be read ({type(error).__name__}: {one_line(error)}); it is damaged, cut off, or not what its content says."
        ) from error


def _read(path: Path, options: ReadOptions) -> Recording:
    """By the reader that the path belongs to."""
    if path.is_dir():
        return _read_folder(path, options)
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty.")
    if h5py.is_hdf5(path):
        return read_guarded(path, lambda: _read_hdf5_family(path, options))
    suffix = path.suffix.lower()
    if suffix in _HDF5_SUFFIXES:
        raise InputError(f"{path} ends in {suffix} but its content is not HDF5; it is damaged or has the wrong ending.")
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
    """Files of one session, in the order given, as one recording of several parts; one file is opened as by open_recording.

    start_s and stop_s then count from the first file's start through all of them. Raises InputError, besides what
    open_recording raises, where the files differ in channels, sampling frequency or scale, UsageError where one is named
    twice.
    """
    if len(paths) == 1:
        return open_recording(paths[0], options, **values)
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise UsageError(f"the same file stands twice among {', '.join(map(str, paths))}; name each file of a session once.")
    options = replace(options or ReadOptions(), **values)
    opened: list[Recording] = []
    try:
        for path in paths:
            opened.append(open_recording(path, replace(options, start_s=None, stop_s=None)))
            if opened[-1].time_range is not None:
                raise UsageError(
                    f"{side_file(Path(path))} gives start_s or stop_s; for files of one session use --exclude-s."
                )
        return joined(opened, [str(path) for path in paths]).between(options.start_s, options.stop_s)
    except BaseException:
        for recording in opened:
            recording.close()
        raise


def _read_folder(path: Path, options: ReadOptions) -> Recording:
    if path.resolve() == path.resolve().parent:  # readers would search the whole disk
        raise InputError(f"{path} is the root of the file system, not a recording; give a file or folder in it.")
    if (path / "sorting.h5").exists():
        raise InputError(f"{path} is a result folder, not a recording; give the recording that was sorted.")
    if is_spikeinterface(path):
        return read_spikeinterface(path, options)
    if (path / "raw.mda").is_file():
        return read_mda(path, options)
    return read_neo(path, options)


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
