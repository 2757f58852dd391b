"""Files that appear whole or not at all, and what a disk says when it cannot take them."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from spikecrsae.errors import OutputError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None


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
