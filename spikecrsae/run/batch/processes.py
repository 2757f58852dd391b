"""Jobs in processes of this machine: one that dies takes only its own recording with it."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait

from spikecrsae.errors import SpikeCRsAEError
from spikecrsae.progress import Observer
from spikecrsae.run.batch.result import Event, Result, attempt
from spikecrsae.run.job import Job
from spikecrsae.system.processes import end_with_parent
from spikecrsae.system.threads import limited, n_cores

#: Time that a process has for tidying up; the next run puts right what one leaves that takes longer.
_GRACE_S = 1.5
_REPORT_EVERY_S = 0.5


class _Stopped(BaseException):
    """The batch asks a process to stop; an exception, so that the job tidies up."""


def run_in_processes(jobs: Sequence[Job], n_processes: int) -> Iterator[Event]:
    """Run jobs, n_processes at once, each with its share of the cores; yields what happens.

    When the caller stops (closes the generator, or is interrupted in it), running jobs tidy up.
    """
    waiting = deque(enumerate(jobs))
    n_processes = max(1, min(n_processes, len(jobs)))
    share = max(1, n_cores() // n_processes)
    workers: list[_Worker] = []
    try:
        while waiting or any(worker.index is not None for worker in workers):
            workers[:] = [worker for worker in workers if worker.index is not None or worker.process.is_alive()]
            for worker in workers:
                if worker.index is None and waiting:
                    worker.give(*waiting.popleft())
                    yield Event(worker.index)
            while waiting and len(workers) < n_processes:
                workers.append(_Worker(share))
                workers[-1].give(*waiting.popleft())
                yield Event(workers[-1].index)
            busy = {worker.connection: worker for worker in workers if worker.index is not None}
            for connection in wait(busy):
                yield busy[connection].read()
    finally:
        _stop(workers)


class _Worker:
    """A process that runs the jobs it is given, one after the other; `index` is that of the one it is at."""

    def __init__(self, cores: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs,))
        with _surroundings(cores):
            self.process.start()
        theirs.close()
        self.index: int | None = None

    def give(self, index: int, job: Job) -> None:
        self.index, self.job = index, job
        with contextlib.suppress(BrokenPipeError):  # it has died; reading tells
            self.connection.send(job)

    def read(self) -> Event:
        """What the process says next; its death is the result of the job."""
        index = self.index
        try:
            said = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            said = Result.of(self.job, state="failed", exit_code=SpikeCRsAEError.exit_code, error=self._death())
        if isinstance(said, Result):
            self.index = None
            return Event(index, result=said)
        return Event(index, stage=said)

    def _death(self) -> str:
        code = self.process.exitcode or 0
        if code < 0:
            name = signal.Signals(-code).name
            return f"its process was ended by {name}; SIGKILL usually means that memory ran out: fewer --jobs need less."
        return f"its process ended with code {code}."


@contextlib.contextmanager
def _surroundings(cores: int) -> Iterator[None]:
    """What a process inherits: its share of the cores, and no interest in Ctrl-C, which is the batch's to answer."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if in_main_thread else None
    try:
        with limited(cores):
            yield
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)


def _stop(workers: list[_Worker]) -> None:
    """End all processes: idle ones at once, busy ones after they have tidied up, late ones by force."""
    for worker in workers:
        if worker.index is not None:
            worker.process.terminate()
        worker.connection.close()
    deadline = time.monotonic() + _GRACE_S
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
            worker.process.join()


def _serve(connection: Connection) -> None:
    """The process: a job in, its stages and its result out, until the other end closes."""
    end_with_parent()
    sys.unraisablehook = _end_if_dropped
    signal.signal(signal.SIGTERM, _raise_stopped)
    try:
        while True:
            connection.send(attempt(connection.recv(), _Reporter(connection)))
    except (EOFError, BrokenPipeError, ConnectionError):
        return
    except _Stopped:
        sys.exit(128 + signal.SIGTERM)


def _raise_stopped(signum, frame) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the terminal's and the batch's may both come; tidying up takes one
    raise _Stopped


def _end_if_dropped(dropped) -> None:
    """Python drops an exception that meets it in a destructor or a callback: then end without tidying up, as late ones do."""
    if issubclass(dropped.exc_type, _Stopped):
        os._exit(128 + signal.SIGTERM)
    sys.__unraisablehook__(dropped)


class _Reporter(Observer):
    """Says through a connection at what stage a job is, and how far."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def start(self, stage: str, total: int | None = None) -> None:
        self._stage, self._total, self._done, self._said = stage, total, 0, time.monotonic()
        self._connection.send(stage)

    def advance(self, n: int = 1) -> None:
        self._done += n
        if self._total and time.monotonic() - self._said > _REPORT_EVERY_S:
            self._said = time.monotonic()
            self._connection.send(f"{self._stage} {100 * self._done // self._total} %")
