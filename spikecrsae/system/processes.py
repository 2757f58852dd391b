"""The one process pool, and what a cluster has in common with it: tasks go out, results and stages come back."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import Any, ClassVar, Protocol, TypeVar

from spikecrsae.errors import OutOfMemoryError
from spikecrsae.progress import Observer
from spikecrsae.system.threads import limited, n_cores

_CAN_BLOCK = hasattr(signal, "pthread_sigmask")
_REPORT_EVERY_S = 0.5
T = TypeVar("T")
#: A function of a module, called with what all tasks share, the item of this task, and an Observer. All are pickled.
Work = Callable[[Any, Any, Observer], T]
#: Called with the number of a task, its stage, and whether that stage has ended.
OnStage = Callable[[int, str, bool], None]
#: The number of a task with its result, or with the Exception that it raised.
Results = Generator[tuple[int, T | Exception], None, None]


class StageReporter(Observer):
    """Passes on the stages of a task: tell(stage, has_ended). A running stage is told again with the percentage done."""

    def __init__(self, tell: Callable[[str, bool], None]) -> None:
        self._tell = tell
        self._begin("")

    def start(self, stage: str, total: int | None = None) -> None:
        self._begin(stage, total)
        self._tell(stage, False)

    def _begin(self, stage: str, total: int | None = None) -> None:
        self._stage, self._total, self._done, self._told = stage, total, 0, time.monotonic()

    def advance(self, n: int = 1) -> None:
        self._done += n
        if self._total and time.monotonic() - self._told > _REPORT_EVERY_S:
            self._told = time.monotonic()
            self._tell(f"{self._stage} {100 * self._done // self._total} %", False)

    def finish(self, summary: str = "") -> None:
        self._tell(self._stage, True)


class Workers(Protocol):
    """Where tasks run: in processes of this machine (Processes), or on a cluster (dask.Cluster)."""

    @property
    def is_remote(self) -> bool:
        """Whether tasks run on other machines, where even a single one is better done than here."""
        ...

    def each(self, work: Work[T], common: Any, items: Sequence[Any], on_stage: OnStage | None = None) -> Results[T]:
        """Yield what work(common, item, observer) gives for each item, in the order in which the tasks end. To close the
        generator stops the tasks. An item is asked for when its task begins."""
        ...


@dataclass(frozen=True)
class Processes:
    """At most `n` processes at a time on this machine, each with its share of the cores, reused from task to task.

    A process that dies loses its own task only, whose result is then an OutOfMemoryError: that is nearly always the reason.
    grace_s: time that a busy process has to tidy up when the generator is closed before the end. A script that uses processes
    must be guarded by `if __name__ == "__main__"`.
    """

    n: int
    grace_s: float = 0.0
    is_remote: ClassVar[bool] = False

    def each(self, work: Work[T], common: Any, items: Sequence[Any], on_stage: OnStage | None = None) -> Results[T]:
        """See Workers."""
        waiting = deque(range(len(items)))
        n_processes = max(1, min(self.n, len(items)))
        workers: list[_Worker] = []
        try:
            while waiting or any(worker.is_busy for worker in workers):
                workers[:] = [worker for worker in workers if worker.is_busy or worker.process.is_alive()]
                n_wanted = sum(worker.is_busy for worker in workers) + len(waiting)
                while len(workers) < min(n_processes, n_wanted):
                    workers.append(_Worker(work, common, max(1, n_cores() // n_processes)))
                for worker in workers:
                    if waiting and not worker.is_busy:
                        number = waiting.popleft()
                        worker.give(number, items[number])
                ready = wait([worker.connection for worker in workers if worker.is_busy])
                for worker in workers:
                    if worker.connection not in ready:
                        continue
                    message = worker.read()
                    if not worker.is_busy:
                        yield worker.number, message
                    elif on_stage is not None:
                        on_stage(worker.number, *message)
        finally:
            _stop(workers, self.grace_s)


class _Worker:
    """One process of the pool, seen from its starter; `number` is that of its present or last task."""

    def __init__(self, work: Work, common: Any, cores: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, common, theirs))
        with delayed_signals(), _blocked_signals(), limited(cores):
            self.process.start()
        theirs.close()
        self.is_busy = False

    def give(self, number: int, item: Any) -> None:
        self.number, self.is_busy = number, True
        with suppress(BrokenPipeError):  # it has died, which read() answers
            self.connection.send(item)

    def read(self) -> Any:
        """The next message: stage and whether it has ended, or, when the task has ended, its result."""
        try:
            message, has_ended = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            message, has_ended = _death(self.process.exitcode or 0), True
        self.is_busy = not has_ended
        return message


def _death(code: int) -> OutOfMemoryError:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return OutOfMemoryError(
        f"a process {how} without a result, as happens when memory runs out; give fewer --jobs, or lower --chunk-s."
    )


def _stop(workers: list[_Worker], grace_s: float) -> None:
    """End all processes: idle ones at once, busy ones after they have tidied up, late ones by force."""
    for worker in workers:
        if worker.is_busy:
            worker.process.terminate()
        worker.connection.close()
    deadline = time.monotonic() + grace_s
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Let processes that are started meanwhile inherit blocked signals. Ctrl-C, which a terminal sends to all of them, is
    for their starter to answer; SIGTERM is let through by _serve."""
    if not _CAN_BLOCK:
        yield
        return
    # the first process would start it otherwise, and it would unblock the signals
    resource_tracker.ensure_running()
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


@contextmanager
def delayed_signals() -> Iterator[None]:
    """Answer SIGINT and SIGTERM after the block, which must not be left half done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {int(n): signal.signal(n, lambda number, _: came.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)


class _Terminated(BaseException):
    """SIGTERM in a process of the pool; an exception, so that its task tidies up."""


def _serve(work: Work, common: Any, connection: Connection) -> None:
    """Run in a process of the pool: an item in, its stages and its result out, until the other end closes."""
    _end_with_parent()
    sys.unraisablehook = _end_if_dropped
    observer = StageReporter(lambda stage, has_ended: connection.send(((stage, has_ended), False)))
    try:
        signal.signal(signal.SIGTERM, _raise_terminated)
        if _CAN_BLOCK:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        while True:
            item = connection.recv()
            try:
                result = work(common, item, observer)
            except Exception as error:
                result = error
            connection.send((result, True))
    except (EOFError, ConnectionError):
        return
    except _Terminated:
        sys.exit(128 + signal.SIGTERM)


def _end_with_parent() -> None:
    """End this process at once when its parent ends, also where that is killed: nobody takes the result any more, and the
    next run must find the folder free."""
    parent = multiprocessing.parent_process()

    def watch(sentinel: int) -> None:
        wait([sentinel])
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, args=(parent.sentinel,), daemon=True).start()


def _raise_terminated(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the terminal's and the batch's may both come; one is enough
    raise _Terminated


def _end_if_dropped(dropped: Any) -> None:
    """End without tidying up where Python drops the exception of SIGTERM, as it does in a destructor or a callback."""
    if issubclass(dropped.exc_type, _Terminated):
        os._exit(128 + signal.SIGTERM)
    sys.__unraisablehook__(dropped)
