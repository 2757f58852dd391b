"""Read and write files safely: atomic writes, locks, checks of paths."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spikecrsae.errors import InputError, OutputError, SpikeCRsAEError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns an OSError into an OutputError that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            reason = "the disk is full; free space, or choose another place"
        elif error.errno == errno.EFBIG:
            reason = "files may not grow so large here (ulimit -f); raise the limit, or choose another place"
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            reason = f"no permission to write ({error.strerror}); choose another place"
        elif error.errno in (errno.EEXIST, errno.ENOTDIR):
            reason = "a file stands where its folder would be; choose another place"
        else:
            reason = f"{error.strerror or error}; choose another place"
        raise OutputError(f"{path} cannot be written: {reason}.") from error


def partial_name(path: Path) -> Path:
    """The name under which a file is written until it is whole. What a killed run leaves there, the next one writes over."""
    return path.with_name(f".{path.name}.partial")


def is_partial(path: Path) -> bool:
    """Whether a file bears a name of `partial_name`."""
    return path.name.startswith(".") and path.name.endswith(".partial")


def write_atomic(path: str | Path, content: Iterable[bytes]) -> dict:
    """Write pieces of bytes under a temporary name beside `path`, flush to disk, rename; returns size and sha256.

    The file is there whole or not at all. Raises OutputError with the reason (disk full, no permission, being written by
    another run).
    """
    path = Path(path)
    temporary = partial_name(path)
    digest, size = hashlib.sha256(), 0
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = locked(temporary)
        if handle is None:
            raise OutputError(f"{path} is being written by another run; wait until it has ended, or choose another name.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.truncate()
                for piece in content:
                    file.write(piece)
                    digest.update(piece)
                    size += len(piece)
                file.flush()
                os.fsync(file.fileno())
                if fcntl is not None:
                    os.replace(temporary, path)  # while it is locked: nobody else begins to write into it
            if fcntl is None:
                os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    return {"size": size, "sha256": digest.hexdigest()}


def measured(file: Path) -> dict:
    """Size and sha256 of a file."""
    with file.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return {"size": file.stat().st_size, "sha256": digest}


def locked(file: Path) -> int | None:
    """An open, locked file, or None where another process holds the lock, which the system frees when that process ends,
    however it ends. Where the file system knows no locks the file is open and nobody is kept away."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            if fcntl is not None:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError:
            return handle
        # its last holder may have removed or renamed the file between opening and locking
        if fcntl is None or (file.exists() and os.path.samestat(os.fstat(handle), os.stat(file))):
            return handle
        os.close(handle)


@contextmanager
def reserved(path: str | Path) -> Iterator[None]:
    """Keep other runs away from the folder `path` while this one works on it; OutputError where one already does, or where
    it is the root, which has no place beside it.

    The lock is a file beside the folder that the system frees when its holder ends, however it ends. Where the file system
    knows no locks, nothing is kept away.
    """
    path = Path(path)
    path = path.parent.resolve() / path.name
    if fcntl is None or not path.parent.is_dir():
        yield  # without a place for a lock there is none for a result either, which OutputFolder.check says
        return
    if not path.name:
        raise OutputError(f"{path} is the root of the file system, which can be no result; name a folder with -o.")
    file = path.with_name(f".{path.name}.lock")
    with writing(path):
        handle = locked(file)
    if handle is None:
        raise OutputError(
            f"{path} is being written by another run; wait until it has ended, or choose another name with -o."
        )
    try:
        yield
    finally:
        with suppress(OSError):
            file.unlink()
        os.close(handle)


def refuse_unreadable(path: str | Path, what: str = "a recording") -> None:
    """Raise InputError where `path` is no file or folder that can be read: missing, a pipe, a device, a socket, or not
    permitted.

    what: what was expected there, in words for the message.
    """
    path = Path(path)
    try:
        mode = os.stat(path).st_mode
        kind = next((name for test, name in _SPECIAL if test(mode)), None)
        if kind is None and not stat.S_ISDIR(mode):
            path.open("rb").close()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; give the path of {what}.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}); give the path of {what} that you may read.") from error
    if kind is not None:
        raise InputError(f"{path} is {kind}, and only a file can be read; save its content as a file, and give that.")


def refuse_undecodable(path: str | Path, kind: type[SpikeCRsAEError] = InputError) -> None:
    """Raise an error of this kind where a full path has bytes that are no UTF-8: run.json and other files could not name it."""
    try:
        os.path.abspath(path).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        raise kind(f"{shown}: this path holds bytes that are not UTF-8; rename the file or folder.") from None


_SPECIAL = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
