"""What a path leads to, before anything waits for it: a pipe without a writer would be read for ever."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from spikecrsae.errors import InputError


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
        raise InputError(f"{path} is {kind}, which has no beginning and no end to go to; save it as a file, and give that.")


_SPECIAL = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
