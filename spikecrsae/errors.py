"""Every error a user can meet, each with the exit code of the command line.

A message names the value, the rule it breaks and the remedy, in one sentence or two.
"""

from __future__ import annotations

import errno


class SpikeCRsAEError(Exception):
    """Root of all errors raised on purpose."""

    exit_code = 1


class UsageError(SpikeCRsAEError):
    """An argument or a configuration value is wrong."""

    exit_code = 2


class InputError(SpikeCRsAEError):
    """The recording, the truth or a result folder cannot be used."""

    exit_code = 3


class ReadError(InputError):
    """The recording could be opened, and can no longer be read: it has vanished or changed, or its disk fails."""


class OutOfMemoryError(SpikeCRsAEError):
    """The work does not fit into memory."""

    exit_code = 4


class OutputError(SpikeCRsAEError):
    """The result cannot be written where it was asked for."""

    exit_code = 6


#: Exit code of a run that finished and found no unit (a valid, empty result).
EXIT_NO_UNITS = 5
#: Exit code of a batch in which a recording failed, and of a rerun that gave other spikes.
EXIT_BATCH_FAILED = 7
EXIT_DIFFERENT = 8
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


def add_remedy(error: BaseException, remedy: str) -> None:
    """A sentence that is said after the error, wherever it comes out; of several the first."""
    error.__dict__.setdefault("remedy", remedy)


def remedy_of(error: BaseException) -> str:
    """What `add_remedy` has added, empty where nothing was."""
    return str(error.__dict__.get("remedy", ""))


def described(error: BaseException) -> tuple[str, int]:
    """What ended a command, in one line, and its exit code; whatever is no SpikeCRsAEError is told apart by what it is."""
    if isinstance(error, SpikeCRsAEError):
        line, code = str(error), error.exit_code
    elif _is_out_of_memory(error):
        remedy = "close other programs, give --memory-limit, or use --device cpu"
        line, code = f"out of memory ({error or 'no details'}); {remedy}.", OutOfMemoryError.exit_code
    elif isinstance(error, OSError) and error.errno in _UNWRITABLE:
        line, code = f"cannot write {error.filename or 'the result'} ({error.strerror}).", OutputError.exit_code
    else:
        where = next(iter(getattr(error, "__notes__", ())), "run again with --verbose for the traceback")
        line, code = f"internal error, {type(error).__name__}: {error}; {where}.", SpikeCRsAEError.exit_code
    return " ".join(f"{line} {remedy_of(error)}".split()), code


def _is_out_of_memory(error: BaseException) -> bool:
    """MemoryError, or torch's own on a GPU (a class) or on the CPU (a message), without importing torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
