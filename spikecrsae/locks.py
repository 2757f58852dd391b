"""One run at a time in a result folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spikecrsae.errors import OutputError
from spikecrsae.files import fcntl, locked, writing


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
        yield  # without a place for a lock there is none for a result either, which check_folder says
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
