"""Work in processes of its own: started afresh (spawn), watched, and ended with us."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from typing import TypeVar

from spikecrsae.cores import limited, n_cores
from spikecrsae.errors import OutOfMemoryError, SpikeCRsAEError
from spikecrsae.progress import Observer

log = logging.getLogger(__name__)

_CAN_BLOCK = hasattr(signal, "pthread_sigmask")
T = TypeVar("T")
#: What is to be done elsewhere: it can be pickled, and is handed an Observer.
Task = Callable[[Observer], T]


class StageCounter(Observer):
    """Tells that a stage has ended, and nothing else."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def finish(self, summary: str = "") -> None:
        self._tell()


def end_with_parent() -> None:
    """In a process that another one has started: end at once when that one does, also where it is killed. Nobody takes the result
    any more, and the next run shall find the folder free."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        wait([parent.sentinel])
        os._exit(1)

    if parent is not None:
        threading.Thread(target=watch, daemon=True).start()


def in_processes(tasks: Sequence[Task[T]], n_processes: int, stage_ended: Callable[[], None]) -> list[T | Exception]:
    """What each task gives, or the Exception that it raises, in the tasks' order; n_processes work at a time, each on its share
    of the cores. Their logs come here, task by task.

    stage_ended is called whenever a task finishes a stage. A script that calls this must be guarded by
    `if __name__ == "__main__"`. Raises OutOfMemoryError where a process dies: that is nearly always the reason.
    """
    context = multiprocessing.get_context("spawn")
    share = max(1, n_cores() // n_processes)
    waiting = list(enumerate(tasks))[::-1]
    at_work: dict[Connection, tuple[int, multiprocessing.Process]] = {}
    ended: dict[int, tuple[T | Exception, list[logging.LogRecord]]] = {}
    try:
        while waiting or at_work:
            while waiting and len(at_work) < n_processes:
                number, task = waiting.pop()
                here, there = context.Pipe(duplex=False)
                process = context.Process(target=_work, args=(task, there), daemon=True)
                with signals_later(), _surroundings(share):
                    process.start()
                    there.close()
                    at_work[here] = (number, process)
            for pipe in wait(list(at_work)):
                number, process = at_work[pipe]
                message = _received(pipe, process)
                if message is None:
                    stage_ended()
                    continue
                ended[number] = message
                process.join()
                pipe.close()
                del at_work[pipe]
    finally:
        for pipe, (_, process) in at_work.items():
            process.kill()
            process.join()
            pipe.close()
    for number in range(len(tasks)):
        for record in ended[number][1]:
            logger = logging.getLogger(record.name)
            if logger.isEnabledFor(record.levelno):
                logger.handle(record)
    return [ended[number][0] for number in range(len(tasks))]


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
    """The next message of a process: its result and log, or None for a stage that has ended."""
    try:
        return pipe.recv()
    except EOFError:
        process.join()
        raise OutOfMemoryError(
            f"a process ended without a result (exit code {process.exitcode}), as happens when memory runs out; give fewer --jobs, "
            "or lower --chunk-s."
        ) from None


def _work(task: Task, pipe: Connection) -> None:
    """The life of a process: a task, whose result and log go into the pipe."""
    end_with_parent()
    if _CAN_BLOCK:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    with _collected() as records:
        try:
            result = task(StageCounter(lambda: pipe.send(None)))
        except Exception as error:
            if not isinstance(error, SpikeCRsAEError):
                log.debug("a process ended with an error:\n%s", traceback.format_exc())
            result = error
    pipe.send((result, records))


@contextmanager
def _collected() -> Iterator[list[logging.LogRecord]]:
    """The log of the package meanwhile, its records with their text made up so that they can be pickled."""
    records: list[logging.LogRecord] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            record.msg, record.args, record.exc_info = record.getMessage(), None, None
            records.append(record)

    logger, handler = logging.getLogger("spikecrsae"), Collector()
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(handler)
    try:
        yield records
    finally:
        logger.removeHandler(handler)
