"""Ctrl-C and SIGTERM end a command by an exception, so that every `with` and `finally` on the way tidies up."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from spikecrsae.errors import add_remedy, remedy_of


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; a class of its own, because after a bare KeyboardInterrupt in an import Python ends by the signal, not by 130."""


class Terminated(BaseException):
    """SIGTERM."""


_ENDS = {signal.SIGINT: Interrupted, signal.SIGTERM: Terminated}
#: Signals that have come during this command.
_arrived: list[int] = []


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """Answer the signals while a command runs; those that the caller's shell ignores stay ignored."""
    _arrived.clear()
    in_main_thread = threading.current_thread() is threading.main_thread()
    awaited = [number for number in _ENDS if in_main_thread and signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _arrive) for number in awaited}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _arrive(number: int, frame) -> None:
    _arrived.append(number)
    raise _ENDS[number]


def repeat() -> None:
    """Raise again for a signal that has come: Python drops an exception that meets it in a destructor or a callback."""
    if _arrived:
        raise _ENDS[_arrived[0]]


def asked_to_end(error: BaseException) -> BaseException:
    """The signal behind an error, where one came: an import that is broken off may end in any other error."""
    if not _arrived:
        return error
    signalled = _ENDS[_arrived[0]]()
    add_remedy(signalled, remedy_of(error))
    return signalled
