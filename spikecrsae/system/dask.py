"""Work as tasks of a Dask cluster that is already there. dask.distributed is imported only here."""

from __future__ import annotations

import functools
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from spikecrsae.errors import InputError, SpikeCRsAEError, UsageError, described
from spikecrsae.system.logs import task_of_its_own
from spikecrsae.system.processes import OnStage, Results, StageReporter, T, Work

if TYPE_CHECKING:
    pass

_CONNECT_S = 15
#: One task at a time works in a process, however many threads its worker has: each uses all cores of its own accord.
_turn = threading.Lock()
#: How many tasks wait for what this thread does: 0 outside of tasks. What others wait for comes first.
_depth: ContextVar[int] = ContextVar("depth", default=0)


@dataclass(frozen=True)
class Cluster:
    """The cluster whose scheduler is at `address` (tcp://host:port); see processes.Workers.

    Tasks may hand out tasks of their own: while one waits for these, its worker is free for them. A task whose worker dies
    begins again on another one, as often as the scheduler allows (3 times unless configured). Files must have the same paths
    everywhere. When the caller stops, tasks that have not begun are withdrawn; those at work end by themselves.
    """

    address: str

    @property
    def is_remote(self) -> bool:
        """False in a task, which is on a worker already."""
        return not _depth.get()

    def each(self, work: Work[T], common: Any, items: Sequence[Any], on_stage: OnStage | None = None) -> Results[T]:
        """See Workers. What Dask itself reports (workers that died again and again, a lost scheduler) is such an Exception too.
        Raises UsageError where dask.distributed is not installed or no scheduler answers."""
        with self._client() as client:
            from distributed import as_completed

            topic = f"spikecrsae-{uuid.uuid4().hex}" if on_stage else None
            if on_stage is not None:
                client.subscribe_topic(topic, lambda event: on_stage(*event[1]))
            # a task, not scattered data: where the worker that holds it dies, another one gets it again
            shared = client.submit(_same, common, pure=False)
            submit = functools.partial(client.submit, _task, work, shared, pure=False, priority=_depth.get())
            futures = {
                submit(item, version("spikecrsae"), _depth.get() + 1, topic, number): number
                for number, item in enumerate(items)
            }
            try:
                for future in as_completed(list(futures), loop=client.loop):
                    yield futures.pop(future), _result(future)
            finally:
                client.cancel([*futures, shared])
                if topic:
                    client.unsubscribe_topic(topic)

    @contextmanager
    def _client(self) -> Iterator[Any]:
        """A connection to the scheduler; in a task its worker's own, which takes up other tasks meanwhile."""
        if _depth.get():
            from distributed import worker_client

            _turn.release()
            try:
                with worker_client() as client:
                    yield client
            finally:
                _turn.acquire()
            return
        client = _connect(self.address)
        try:
            yield client
        finally:
            client.close()


def _connect(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError("--scheduler needs dask.distributed; install it: pip install 'spikecrsae[dask]'.") from error
    try:
        return Client(address, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, ValueError, TimeoutError) as error:
        raise UsageError(
            f"no Dask scheduler answers at {address} ({error}); give the address that it shows when it starts, tcp://host:port."
        ) from error


def _same(common: Any) -> Any:
    return common


def _task(work: Work[T], common: Any, item: Any, program: str, depth: int, topic: str | None, number: int) -> T | Exception:
    """Run on a worker: one task, whose stages go to the topic."""
    if program != version("spikecrsae"):
        return InputError(
            f"the worker has spikecrsae {version('spikecrsae')}, the caller {program}; install the same on both."
        )
    from distributed import get_worker

    def tell(stage: str, has_ended: bool) -> None:
        if topic:
            get_worker().log_event(topic, [number, stage, has_ended])

    _one_thread_for_matrices()
    token = _depth.set(depth)
    try:
        with _turn, task_of_its_own():
            return work(common, item, StageReporter(tell))
    except Exception as error:
        return error
    finally:
        _depth.reset(token)


@functools.cache
def _one_thread_for_matrices() -> None:
    """For the rest of the process: of two tasks that take turns, the one that ends first would lift the other's limit."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(limits=1, user_api="blas")


def _result(future: Any) -> Any:
    if future.status == "finished":
        return future.result()
    error = future.exception() if future.status == "error" else RuntimeError(f"the task was {future.status}")
    line = " ".join(str(error).split()) or described(error)[0]
    return SpikeCRsAEError(
        f"the cluster could not finish the task (see the log of its workers): {line}. Run it again, or without --scheduler."
    )
