"""A second process for work whose libraries take seconds to load: it loads them while this one computes, where a thread would
hold up the interpreter. Only a run that has a core to spare has one; all others, and all where it fails, do that work here."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from spikecrsae.system.threads import limits_of, n_cores

log = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")
#: What is wanted of the second process is waited for so long. Then it is taken for stopped.
_MOST_WAIT_S = 120.0


class _Helper:
    """The process, and the thread that writes a question to it, takes the answer, and goes on to the next question: neither
    end ever writes while the other one does."""

    def __init__(self) -> None:
        code = f"import sys; sys.path[:] = {_path()!r}; from spikecrsae import beside; beside.serve()"
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | limits_of(1),
            process_group=0,  # Ctrl-C is for this process, which ends the other
        )
        self._messenger = ThreadPoolExecutor(1, "beside")

    def ask(self, work: Callable[..., T], arguments: tuple) -> Future[tuple[T, list[tuple]]]:
        return self._messenger.submit(self._exchange, pickle.dumps((work, arguments), pickle.HIGHEST_PROTOCOL))

    def _exchange(self, question: bytes) -> Any:
        self._process.stdin.write(question)
        self._process.stdin.flush()
        return pickle.load(self._process.stdout)

    def end(self) -> None:
        if self._process.returncode is None:  # its number is not given to another one before it is waited for
            with contextlib.suppress(OSError):  # it has died, and its copy
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._messenger.shutdown(cancel_futures=True)
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what it did not take
                pipe.close()


def _path() -> list[str]:
    """Where the other process looks for modules: where this package lies, then as this one, but not in the working folder,
    which may hold any."""
    here = os.getcwd()
    return [str(Path(__file__).parents[1])] + [place for place in sys.path if place and os.path.abspath(place) != here]


#: That of this thread's run.
_helper: ContextVar[_Helper | None] = ContextVar("helper", default=None)


#: Whether this process does without; whether it is a second process itself.
_alone, _serves = False, False
#: Where a second process writes its answers.
_answers = -1


def stay_alone() -> None:
    """For a process that makes many runs: it loads the libraries once, where a second process would for each."""
    global _alone
    _alone = True


@contextlib.contextmanager
def helped(*modules: str) -> Iterator[None]:
    """Let a second process do what `begin` gives it, one after the other, meanwhile. It ends with this one, however that
    ends. modules: the libraries that all of it needs; a process that has loaded them, as a notebook may have, needs no second
    one."""
    loaded = modules and all(name in sys.modules for name in modules)
    useful = n_cores() > 1 and sys.executable and not (loaded or _alone)
    try:
        helper = _Helper() if useful else None
    except OSError as error:  # no room for it
        log.debug("no second process: %s", error)
        helper = None
    token = _helper.set(helper)
    try:
        yield
    finally:
        _helper.reset(token)
        if helper is not None:
            helper.end()


def begin(work: Callable[..., T], *arguments: Any) -> Callable[[], T]:
    """Begin work(*arguments) in the second process; returns what gives its result.

    work: a function of a module. Where there is no such process, or anything fails there, the work is done here, when the
    result is wanted: then it raises what it raises.
    """
    helper, asked = _helper.get(), None
    if helper is not None:
        with contextlib.suppress(Exception):  # what cannot be pickled; or the process is no more
            asked = helper.ask(work, arguments)

    def result() -> T:
        if asked is not None:
            try:
                value, warned = asked.result(_MOST_WAIT_S)
            except Exception as error:
                log.debug("%s is done here, the second process failed: %r", work.__name__, error)
                helper.end()
            else:
                for warning in warned:
                    warnings.warn_explicit(*warning)
                return value
        return work(*arguments)

    return result


def load(*modules: str) -> None:
    """Load modules, for `begin` before there is work that needs them."""
    for name in modules:
        with contextlib.suppress(Exception):  # it will fail again where it is needed
            __import__(name)


def serve() -> None:
    """The life of the second process: do what comes, until nothing more can come or something fails. An answer is the result
    with the warnings on the way."""
    global _serves, _answers
    answers = os.fdopen(os.dup(1), "wb")
    _serves, _answers = True, answers.fileno()
    os.dup2(2, 1)  # what a library says does not get among the answers
    with contextlib.suppress(EOFError):
        while True:
            work, arguments = pickle.load(sys.stdin.buffer)
            pickle.dump(_done(work, arguments), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()


def _done(work: Callable[..., T], arguments: tuple) -> tuple[T, list[tuple]]:
    """The result, and the warnings on the way, as warnings.warn_explicit takes them."""
    with warnings.catch_warnings(record=True) as caught:
        value = work(*arguments)
    return value, [(str(warning.message), warning.category, warning.filename, warning.lineno) for warning in caught]


def both(first: Callable[[], T], second: Callable[[], U]) -> tuple[T, U]:
    """What two pieces of work give. The second process, for which the first one waits and which has a single thread, does the
    `second` in a copy of itself meanwhile, its libraries loaded; elsewhere, and where the copy fails, it is done after the
    `first`."""
    asked = _ask_copy(second) if _serves else None
    mine = first()
    if asked is not None:
        with contextlib.suppress(Exception):
            value, warned = asked()
            for warning in warned:
                warnings.warn_explicit(*warning)
            return mine, value
    return mine, second()


def _ask_copy(work: Callable[[], T]) -> Callable[[], tuple[T, list[tuple]]] | None:
    """Begin work() in a copy of this process; returns what gives its answer. None where no copy can be made."""
    try:
        reading, writing = os.pipe()
    except OSError:  # no descriptors left
        return None
    try:
        copy = os.fork()
    except OSError:  # no room for it
        os.close(reading)
        os.close(writing)
        return None
    if copy == 0:
        # what it holds open would hide from others, and from itself, that the second process has died
        for end in (reading, _answers):
            os.close(end)
        with contextlib.suppress(BaseException), os.fdopen(writing, "wb") as answer:
            pickle.dump(_done(work, ()), answer, pickle.HIGHEST_PROTOCOL)
        os._exit(0)
    os.close(writing)

    def answer() -> tuple[T, list[tuple]]:
        with os.fdopen(reading, "rb") as pipe:
            answer = pipe.read()
        os.waitpid(copy, 0)
        return pickle.loads(answer)

    return answer
