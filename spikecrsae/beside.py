"""A second process for work whose libraries take seconds to load: it loads them while this one computes, where a thread would
hold up the interpreter. Only a run that has a core to spare has one; all others, and all where it fails, do that work here."""

from __future__ import annotations

import contextlib
import os
import pickle
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from spikecrsae.cores import limited, n_cores

T = TypeVar("T")


class _Helper:
    """The process, and what it was asked for and has not answered."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        # from where this package is, and from no folder that happens to be the working one
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); from spikecrsae import beside; beside.serve()"
        with limited(1):
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", code, *modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C is for this process, which ends the other
            )
        self._lock = threading.Lock()
        self._asked: deque[_Answer] = deque()

    def ask(self, work: Callable[..., T], arguments: tuple) -> _Answer:
        answer = _Answer(self)
        with self._lock, contextlib.suppress(OSError, pickle.PicklingError, AttributeError):
            pickle.dump((work, arguments), self._process.stdin, pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
            self._asked.append(answer)
        return answer

    def wait_for(self, answer: _Answer) -> None:
        """Take answers, which come in the order of the questions, up to this one, or until no more come."""
        with self._lock, contextlib.suppress(OSError, EOFError, pickle.UnpicklingError):
            while answer in self._asked:
                self._asked[0].value = (pickle.load(self._process.stdout),)
                self._asked.popleft()

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):  # what it did not take
                pipe.close()


class _Answer:
    def __init__(self, helper: _Helper) -> None:
        self.helper, self.value = helper, ()


_helper: _Helper | None = None


@contextlib.contextmanager
def helped(*modules: str) -> Iterator[None]:
    """Let a second process load these modules, and do what `begin` gives it, meanwhile. It ends with this one, however that
    ends."""
    global _helper
    before = _helper
    try:
        _helper = _Helper(modules) if n_cores() > 1 and sys.executable else None
    except OSError:  # no room for it
        _helper = None
    try:
        yield
    finally:
        if _helper is not None:
            _helper.end()
        _helper = before


def begin(work: Callable[..., T], *arguments: Any) -> Callable[[], T]:
    """Begin work(*arguments) in the second process; returns what gives its result.

    work: a function of a module. Where there is no such process, or it fails, the work is done here, when the result is
    wanted: then it raises what it raises.
    """
    asked = _helper.ask(work, arguments) if _helper is not None else None

    def result() -> T:
        if asked is not None:
            asked.helper.wait_for(asked)
        return asked.value[0] if asked is not None and asked.value else work(*arguments)

    return result


def serve() -> None:
    """The life of the second process: load the modules named on its command line, then do what comes, until nothing more can
    come or something fails."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library says does not get among the answers
    for name in sys.argv[1:]:
        with contextlib.suppress(ImportError):
            __import__(name)
    with contextlib.suppress(EOFError):
        while True:
            work, arguments = pickle.load(sys.stdin.buffer)
            pickle.dump(work(*arguments), answers, pickle.HIGHEST_PROTOCOL)
            answers.flush()
