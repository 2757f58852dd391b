"""Files from elsewhere are not trusted: nothing in them is run, leads out of them, or takes more memory than their size is
worth.

HDF5 files are walked once when they are opened; what points to other files is refused there, before anything follows it. Sizes
that a file declares are compared with the bytes that it holds. A child process reads first, because libhdf5 crashes on some
damaged files and never returns from others, and Python can catch neither.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import math
import os
import re
import select
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from spikecrsae.errors import InputError

#: A table or array that is read whole may be so large in any case, and otherwise so many times as large as what is stored of it.
_SMALL, _EXPANSION = 64 * 2**20, 50
#: The same of traces, which are read piece by piece: deflate packs a constant to 1/1000.
_SMALL_TRACES, _EXPANSION_OF_TRACES = 256 * 2**20, 500
#: A compressed chunk is unpacked whole, whatever part of it is wanted.
_MOST_CHUNK = 512 * 2**20
_MOST_ATTRIBUTE = 2**20
_MOST_DEPTH = 100
#: Texts of a table are read so many at a time: one text may stand in the file once and be named by every row.
_TEXTS_AT_ONCE = 64
_MB = 2**20
#: Processor time that the child may take to read a file: at 0.25 ms for each group or dataset, 240,000 of them.
MOST_CPU_S = 60
#: The child may wait for a lock that another thread held at the fork. After this time the file is read without its answer.
MOST_WAIT_S = 600
_PR_SET_PDEATHSIG = 1
_ENDS = (signal.SIGINT, signal.SIGTERM)
_Read = TypeVar("_Read")
_in_child = False


def read_guarded(path: Path, read: Callable[[], _Read]) -> _Read:
    """Return read(), which opens the HDF5 file at `path`, after a child process has done the same and come to an end.

    No child is made within a child, in another thread than the first, or elsewhere than on Linux.
    Raises InputError where the child crashed, or took more than MOST_CPU_S.
    """
    if not _in_child and sys.platform == "linux" and threading.current_thread() is threading.main_thread():
        _check_in_child(path, read)
    return read()


def _check_in_child(path: Path, read: Callable[[], object]) -> None:
    """Raise InputError where `read` does not return or raise in a child process."""
    # Python drops the exception of a signal that comes while it forks
    arrived: list[int] = []
    handlers = {number: handler for number in _ENDS if (handler := signal.getsignal(number)) is not None}
    for number in handlers:
        signal.signal(number, lambda number, frame: arrived.append(number))
    answer, told = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a fork with threads: the child uses none of them
        child = _fork()
    if child == 0:
        _read_in_child(read, told)
    os.close(told)
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])
        if child and select.select([answer], [], [], MOST_WAIT_S)[0] and not os.read(answer, 1):
            raise InputError(
                f"{path}: the HDF5 library crashes on it or does not finish reading it; the file is damaged, copy it again from "
                "where it was recorded."
            )
    finally:
        os.close(answer)
        if child:
            with contextlib.suppress(OSError):  # where the parent's parent ignores children, the system has waited for it
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


def _fork() -> int | None:
    """The child's process id, 0 in the child, None where there is no room for another process."""
    try:
        return os.fork()
    except OSError:
        return None


def _read_in_child(read: Callable[[], object], told: int) -> None:
    """Read in silence, write one byte to `told`, and end this process."""
    import resource

    global _in_child
    try:
        _in_child = True
        logging.disable()  # the log file of the run is open here too
        faulthandler.disable()
        for number in _ENDS:
            signal.signal(number, signal.SIG_DFL)
        # the child holds the locks of the run, which shall not outlive a run that is killed
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with contextlib.suppress(ValueError):  # where the limit is lower already
            resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S))
        silence = os.open(os.devnull, os.O_RDWR)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        with contextlib.suppress(BaseException):
            read()
        os.write(told, b".")
    finally:
        os._exit(0)


def open_hdf5(path: Path) -> h5py.File:
    """The file, open for reading, after a walk through all of it.

    Raises InputError where it is no HDF5 file or cut off, where something in it lies in another file (an external link,
    external raw data, a virtual dataset), or its groups are nested too deep.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file; give the path of a file.")
    try:
        # A chunk that is larger than the cache would be decompressed again for every slice of it.
        file = h5py.File(path, "r", rdcc_nbytes=64 * _MB)
    except OSError as error:
        raise InputError(_why_not_opened(path, error)) from error
    try:
        for item in items_of(file):
            if isinstance(item, h5py.Dataset):
                _refuse_elsewhere(item, path)
    except BaseException:
        file.close()
        raise
    return file


def items_of(file: h5py.File) -> Iterator[h5py.Group | h5py.Dataset]:
    """Every group and dataset of a file once, in the order of their paths, without following a link to another place.

    Raises InputError for a link that leaves the file, groups that are nested too deep, and what cannot be opened.
    """
    seen = set()
    waiting = [("/", 0)]
    path = file.filename
    while waiting:
        name, depth = waiting.pop()
        try:
            item = file[name]
            address = h5py.h5o.get_info(item.id).addr
        except (KeyError, OSError, RuntimeError, ValueError) as error:
            raise InputError(
                f"{path}: {name!r} cannot be opened ({_line(error)}); the file is damaged; use another copy."
            ) from error
        if address in seen:
            continue
        seen.add(address)
        if name != "/" and isinstance(item, h5py.Group | h5py.Dataset):
            yield item
        if isinstance(item, h5py.Group):
            if depth == _MOST_DEPTH:
                raise InputError(
                    f"{path}: its groups are nested more than {_MOST_DEPTH} deep; it is no recording; give another file."
                )
            inner = [f"{name.rstrip('/')}/{member}" for member in sorted(item) if _is_inside(item, member, path)]
            waiting += [(member, depth + 1) for member in reversed(inner)]


def _is_inside(group: h5py.Group, name: str, path: str) -> bool:
    """Whether a member is linked directly, and not by a path within the file. Raises InputError where it lies in another
    file."""
    try:
        link = group.get(name, getlink=True)
    except (TypeError, OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{path}: the link {name!r} in {group.name} is of no known kind ({_line(error)}); remove it."
        ) from error
    if isinstance(link, h5py.ExternalLink):
        raise InputError(
            f"{path}: {name!r} in {group.name} is a link to another file, {link.filename!r}, which is not followed; give that "
            "file, or a copy that holds everything (h5copy, or NWB's export)."
        )
    return isinstance(link, h5py.HardLink)


def _refuse_elsewhere(dataset: h5py.Dataset, path: Path) -> None:
    if dataset.external or dataset.is_virtual:
        kind = "a virtual dataset, a view of other datasets" if dataset.is_virtual else "kept in another file"
        raise InputError(
            f"{path}: {dataset.name} is {kind}, which is not followed; store its numbers in the file (h5repack)."
        )


def whole(dataset: h5py.Dataset) -> Any:
    """All of a dataset, an array or a scalar. Raises InputError where it declares far more than the file holds."""
    _check_size(dataset, _SMALL, _EXPANSION)
    if dataset.dtype.hasobject and dataset.shape:
        return _texts(dataset)
    return dataset[()]


def check_traces(dataset: h5py.Dataset) -> None:
    """Raise InputError where a dataset of traces declares far more than the file holds, or has too large chunks."""
    _check_size(dataset, _SMALL_TRACES, _EXPANSION_OF_TRACES)


def _check_size(dataset: h5py.Dataset, small: int, expansion: int) -> None:
    path, item = dataset.file.filename, dataset.dtype.itemsize
    if dataset.shape is None:
        raise InputError(f"{path}: {dataset.name} holds nothing; the file is damaged; use another copy.")
    size, held = math.prod(dataset.shape) * item, min(dataset.id.get_storage_size(), os.path.getsize(path))
    if size > max(small, expansion * held):
        raise InputError(
            f"{path}: {dataset.name} declares {dataset.shape} {dataset.dtype}, {size / _MB:.4g} MB, and only "
            f"{held / _MB:.3g} MB of it "
            "are stored; the file is damaged, or was never filled; use another copy."
        )
    chunk = math.prod(dataset.chunks) * item if dataset.chunks else 0
    if chunk > _MOST_CHUNK:
        raise InputError(
            f"{path}: {dataset.name} is stored in chunks of {chunk / _MB:.4g} MB, {_MOST_CHUNK // _MB} are the most; "
            "store it in smaller ones (h5repack -l CHUNK=...)."
        )


def _texts(dataset: h5py.Dataset) -> np.ndarray:
    """A table with texts of any length, which together cannot be longer than the file."""
    most, pieces = os.path.getsize(dataset.file.filename), []
    for start in range(0, dataset.shape[0], _TEXTS_AT_ONCE):
        pieces.append(dataset[start : start + _TEXTS_AT_ONCE])
        rows = (row if isinstance(row, tuple) else (row,) for row in pieces[-1].reshape(-1).tolist())
        most -= sum(len(value) for row in rows for value in row if isinstance(value, bytes | str))
        if most < 0:
            raise InputError(
                f"{dataset.file.filename}: the texts of {dataset.name} are longer than the file; use another copy."
            )
    return np.concatenate(pieces) if pieces else dataset[()]


def attribute(holder: h5py.HLObject, name: str, default: Any = None) -> Any:
    """An attribute of a group or dataset, `default` where there is none. Raises InputError where it is too large for a fact."""
    if name not in holder.attrs:
        return default
    size = holder.attrs.get_id(name).get_storage_size()
    if size > _MOST_ATTRIBUTE:
        raise InputError(
            f"{holder.file.filename}: attribute {name!r} of {holder.name} has {size / _MB:.3g} MB; an attribute may have 1 "
            "MB. Store it as a dataset."
        )
    return holder.attrs[name]


def load_npy(path: Path) -> np.ndarray:
    """The array in a .npy file of numbers; Python objects in it are never loaded.

    Raises InputError where it is none, or declares more than the file holds.
    """
    try:
        # looks at the header, and compares the declared size with the file's
        if np.lib.format.open_memmap(path, mode="r").dtype.hasobject:
            raise ValueError("it holds Python objects")
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError, TypeError, MemoryError) as error:
        raise InputError(
            f"{path} cannot be read as an array of numbers ({_line(error)}); the file is damaged; use another copy."
        ) from error


def folders_below(folder: str | Path, depth: int | None = None) -> Iterator[str]:
    """A folder and those below it, to `depth` levels, without hidden ones, each real one once: links to folders are followed
    and go round no circle."""
    seen, waiting = set(), [(str(folder), 0)]
    while waiting:
        here, level = waiting.pop(0)
        real = os.path.realpath(here)
        if real in seen:
            continue
        seen.add(real)
        yield here
        if depth is None or level < depth:
            try:
                inner = sorted(entry.name for entry in os.scandir(here) if entry.is_dir() and entry.name[0] != ".")
            except OSError:
                continue
            waiting += [(os.path.join(here, name), level + 1) for name in inner]


def _why_not_opened(path: Path, error: OSError) -> str:
    """Say why HDF5 could not open a file, with the sizes where it was cut off."""
    if found := re.search(r"truncated file: eof = (\d+), .*stored_eof = (\d+)", str(error)):
        is_, was = (f"{int(size) / 1e6:.1f}" for size in found.groups())
        sizes = f"{is_} of {was} MB" if is_ != was else "{} of {} bytes".format(*found.groups())
        return f"{path}: the file is cut off: {sizes}; copy or write it again."
    if error.errno:
        return f"{path} cannot be read ({os.strerror(error.errno)})."
    return f"{path} is not a readable HDF5 file: damaged, or another format."


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
