"""Where work is done; processes of their own: started afresh (spawn), watched, and ended with us."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, ClassVar, Protocol, TypeVar

from spikecrsae.errors import OutOfMemoryError
from spikecrsae.progress import Observer
from spikecrsae.system.threads import limited, n_cores

_CAN_BLOCK = hasattr(signal, "pthread_sigmask")
T = TypeVar("T")
#: A function of a module that is called with what all pieces of work share, the item of this one, and an Observer. All of it is
#: pickled on the way.
Work = Callable[[Any, Any, Observer], T]


class StageCounter(Observer):
    """Tells that a stage has ended, and nothing else."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def finish(self, summary: str = "") -> None:
        self._tell()


def end_with_parent() -> None:
    """In a process that another one has started: end at once when that one does, also where it is killed. Nobody takes the
    result any more, and the next run shall find the folder free."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()


class Workers(Protocol):
    """Where work is done: in processes of this machine (Processes), or on a cluster (cluster.Cluster)."""

    @property
    def far(self) -> bool:
        """Whether even a single piece of work is better done there than here."""
        ...

    def each(
        self, work: Work[T], common: Any, items: Sequence[Any], stage_ended: Callable[[], None] | None = None
    ) -> Iterator[tuple[int, T | Exception]]:
        """What work(common, item, observer) gives for each item, or the Exception that it raises, with the item's position, as
        they end. work: a function of a module. stage_ended is called whenever a piece of work finishes a stage."""
        ...


@dataclass(frozen=True)
class Processes:
    """`n` processes at a time on this machine, each with its share of the cores, one for each piece of work.

    A script that uses them must be guarded by `if __name__ == "__main__"`.
    """

    n: int
    far: ClassVar[bool] = False

    def each(
        self, work: Work[T], common: Any, items: Sequence[Any], stage_ended: Callable[[], None] | None = None
    ) -> Iterator[tuple[int, T | Exception]]:
        """As Workers says. Raises OutOfMemoryError where a process dies: that is nearly always the reason."""
        context = multiprocessing.get_context("spawn")
        share = max(1, n_cores() // self.n)
        waiting = list(enumerate(items))[::-1]
        at_work: dict[Connection, tuple[int, multiprocessing.Process]] = {}
        try:
            while waiting or at_work:
                while waiting and len(at_work) < self.n:
                    number, item = waiting.pop()
                    here, there = context.Pipe(duplex=False)
                    process = context.Process(target=_serve, args=(work, common, item, there), daemon=True)
                    with signals_later(), _surroundings(share):
                        process.start()
                        there.close()
                        at_work[here] = (number, process)
                for pipe in wait(list(at_work)):
                    number, process = at_work[pipe]
                    message = _received(pipe, process)
                    if message is None:
                        if stage_ended is not None:
                            stage_ended()
                        continue
                    process.join()
                    pipe.close()
                    del at_work[pipe]
                    yield number, message[0]
        finally:
            for pipe, (_, process) in at_work.items():
                process.kill()
                process.join()
                pipe.close()


@contextmanager
def _surroundings(share: int) -> Iterator[None]:
    """What a process inherits: its share of the cores, and no interest in Ctrl-C, which the terminal sends to all: the one who
    started it ends it."""
    if _CAN_BLOCK:
        # started by the first process otherwise, it would let the signals through again
        resource_tracker.ensure_running()
    mask = _CAN_BLOCK and signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        with limited(share):
            yield
    finally:
        if _CAN_BLOCK:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def signals_later() -> Iterator[None]:
    """What would end this process meanwhile is answered afterwards: what is half done here cannot be ended in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {n: signal.signal(n, lambda number, _: came.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


def _received(pipe: Connection, process) -> tuple | None:
    """The next message of a process: its result, in a tuple, or None for a stage that has ended."""
    try:
        return pipe.recv()
    except EOFError:
        process.join()
        raise OutOfMemoryError(
            f"a process ended without a result (exit code {process.exitcode}), as happens when memory runs out; give fewer --jobs, "
            "or lower --chunk-s."
        ) from None


def _serve(work: Work, common: Any, item: Any, pipe: Connection) -> None:
    """The life of a process: a piece of work, whose result goes into the pipe."""
    end_with_parent()
    if _CAN_BLOCK:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        result = work(common, item, StageCounter(lambda: pipe.send(None)))
    except Exception as error:
        result = error
    pipe.send((result,))
