"""How many cores a run may keep busy."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from spikecrsae.errors import UsageError

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
