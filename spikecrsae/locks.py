"""One run at a time in a result folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spikecrsae.errors import OutputError
from spikecrsae.results import writing

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None


@contextmanager
def reserved(path: str | Path) -> Iterator[None]:
    """Keep other runs away from the result folder `path` while this one works on it; OutputError where one already does.

    The lock is a file beside the folder that the system frees when its holder ends, however it ends. Where the file system
    knows no locks, nothing is kept away.
    """
    path = Path(path)
    path = path.parent.resolve() / path.name
    if fcntl is None or not path.parent.is_dir():
        yield  # without a place for a lock there is none for a result either, which check_folder says
        return
    file = path.with_name(f".{path.name}.lock")
    with writing(path):
        handle = _locked(file)
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


def _locked(file: Path) -> int | None:
    """An open, locked file, or None where another process holds the lock."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return None
        except OSError:
            return handle
        # its last holder may have removed the file between opening and locking
        if file.exists() and os.path.samestat(os.fstat(handle), os.stat(file)):
            return handle
        os.close(handle)
