"""Share work over the cores that a run may use."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

from spikecrsae.errors import UsageError

T = TypeVar("T")

#: Of each thread: whether in_threads has started it.
_thread = threading.local()
#: Environment variable that limits the threads of a run; a batch gives each of its processes its share by it.
CORES_VARIABLE = "SPIKECRSAE_CORES"


def n_cores() -> int:
    """Cores that this process may use: those that the system grants it, as a cluster's scheduler does, and no more than
    SPIKECRSAE_CORES says. Results do not depend on it. Raises UsageError where that is no number above 0."""
    granted = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = os.environ.get(CORES_VARIABLE)
    if not limit:
        return granted
    if not limit.isdecimal() or int(limit) < 1:
        raise UsageError(f"{CORES_VARIABLE} = {limit!r} must be a whole number above 0; correct it, or unset it.")
    return min(granted, int(limit))


def limits_of(cores: int) -> dict[str, str]:
    """What the surroundings say to a process that shall keep to so many cores, with the threads of its libraries too."""
    libraries = "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"
    return dict.fromkeys((CORES_VARIABLE, *libraries), str(cores))


@contextmanager
def limited(cores: int) -> Iterator[None]:
    """Processes started meanwhile keep to so many cores; not for several threads at a time."""
    limits = limits_of(cores)
    before = {name: os.environ.get(name) for name in limits}
    os.environ.update(limits)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def in_threads(work: Callable[[slice], T], n: int, at_once: int = 16) -> list[T]:
    """What `work` gives for slices of range(n) of `at_once` each, in order, on all cores; inside such work, on the one it
    has. Where it fails, what has begun ends before the error is raised."""
    slices = [slice(first, min(first + at_once, n)) for first in range(0, n, at_once)]
    if len(slices) < 2 or getattr(_thread, "is_ours", False):
        return [work(part) for part in slices]
    pool, futures = _pool(n_cores()), []
    try:
        for part in slices:
            futures.append(pool.submit(work, part))
        return [future.result() for future in futures]
    except BaseException:
        wait([future for future in futures if not future.cancel()])
        raise


@functools.cache
def _pool(n_threads: int) -> ThreadPoolExecutor:
    """Threads that stay: to start and end them takes longer than much of their work."""
    return ThreadPoolExecutor(n_threads, "in_threads", initializer=lambda: setattr(_thread, "is_ours", True))


if hasattr(os, "register_at_fork"):  # a forked process has none of them
    os.register_at_fork(after_in_child=_pool.cache_clear)


def in_each(work: Callable[..., T], *lists: Sequence) -> list[T]:
    """What `work` gives for the first of each list, the second of each, and so on, on all cores."""
    items = list(zip(*lists, strict=True))
    return in_threads(lambda part: work(*items[part.start]), len(items), 1)
