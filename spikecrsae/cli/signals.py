"""Ctrl-C and SIGTERM end a command by an exception, so that every `with` and `finally` on the way tidies up."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from spikecrsae.errors import add_remedy, remedy_of


class Interrupted(KeyboardInterrupt):
    """Ctrl-C; a class of its own, because after a bare KeyboardInterrupt in an import Python ends by the signal, not by 130."""


class Terminated(BaseException):
    """SIGTERM."""


_ENDS: dict[int, type[BaseException]] = {signal.SIGINT: Interrupted, signal.SIGTERM: Terminated}
#: Signals that have come during this command.
_arrived: list[int] = []
#: Seconds that a command has to end in order; then it ends as by SIGKILL, of which the next run takes care too.
PATIENCE_S = 1.7
_patience = [PATIENCE_S]


@contextlib.contextmanager
def answered() -> Iterator[None]:
    """Answer the signals while a command runs; those that the caller's shell ignores stay ignored."""
    _arrived.clear()
    _patience[0] = PATIENCE_S
    in_main_thread = threading.current_thread() is threading.main_thread()
    awaited = [number for number in _ENDS if in_main_thread and signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _arrive) for number in awaited}
    unraisable, sys.unraisablehook = sys.unraisablehook, _drop
    try:
        with _watched() if awaited else contextlib.nullcontext():
            yield
    finally:
        sys.unraisablehook = unraisable
        for number, handler in before.items():
            signal.signal(number, handler)


def _drop(dropped: sys.UnraisableHookArgs) -> None:
    """Say nothing of a signal's exception that Python drops; `repeat` raises it again."""
    if not issubclass(dropped.exc_type, tuple(_ENDS.values())):
        sys.__unraisablehook__(dropped)


def _arrive(number: int, frame: FrameType | None) -> None:
    _arrived.append(number)
    raise _ENDS[number]


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    """End the process where a signal does not: Python answers none in a long call into a library, and may drop an exception."""
    came, tell = os.pipe()
    os.set_blocking(tell, False)
    ended = threading.Event()

    def watch() -> None:
        number = next((number for number in iter(lambda: os.read(came, 1), b"") if ord(number) in _ENDS), b"")
        if number and not ended.wait(_patience[0]):
            _end(ord(number))
        os.close(came)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    try:
        yield
    finally:
        ended.set()
        signal.set_wakeup_fd(before)
        os.close(tell)
        watcher.join()


def be_patient(seconds: float) -> None:
    """Let this command have so long to end in order."""
    _patience[0] = seconds


def _end(number: int) -> None:
    """End at once, in a word."""
    told = f"{_ENDS[number].__name__}. What is left over is taken back by the next run, or gone on with by --resume.\n"
    with contextlib.suppress(OSError):
        os.write(2, told.encode())
    os._exit(128 + number)


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
