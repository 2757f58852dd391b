"""Jobs as tasks of a Dask cluster that is already there. dask.distributed is imported only here."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from spikecrsae.batch.result import Event, Result, attempt
from spikecrsae.errors import InputError, SpikeCRsAEError, UsageError, described
from spikecrsae.job import Job

_CONNECT_S = 15
#: One job at a time in a process, however many threads its worker has: each uses all cores of its own accord.
_one_at_a_time = threading.Lock()


def run_on_cluster(jobs: Sequence[Job], address: str) -> Iterator[Event]:
    """Run jobs on the cluster whose scheduler is at `address` (tcp://host:port); yields what happens.

    A job whose worker dies begins again on another one, as often as the scheduler allows (3 times unless configured). Recordings
    and results must have the same paths everywhere. When the caller stops, jobs that have not begun are withdrawn; those at
    work end by themselves. Raises UsageError where dask.distributed is not installed or no scheduler answers.
    """
    return _events(_connect(address), jobs)


def _events(client, jobs: Sequence[Job]) -> Iterator[Event]:
    from distributed import as_completed

    try:
        futures = {
            client.submit(_attempt, _with_full_paths(job), version("spikecrsae"), pure=False): index
            for index, job in enumerate(jobs)
        }
        try:
            for future in as_completed(futures, loop=client.loop):
                index = futures[future]
                yield Event(index, result=replace(_result(future, jobs[index]), **_paths(jobs[index])))
        finally:
            client.cancel(list(futures))
    finally:
        client.close()


def _connect(address: str):
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


def _paths(job: Job) -> dict[str, Path]:
    return {"recording": job.recording, "folder": job.folder}


def _with_full_paths(job: Job) -> Job:
    """A job that means the same files in any working folder."""
    reader = {name: value.absolute() if isinstance(value, Path) else value for name, value in job.reader.items()}
    return replace(
        job, recordings=tuple(path.absolute() for path in job.recordings), folder=job.folder.absolute(), reader=reader
    )


def _attempt(job: Job, program: str) -> Result:
    """The task. What a worker that died has left in the folder is replaced, as the plan has decided."""
    if program != version("spikecrsae"):
        error = InputError(
            f"the worker has spikecrsae {version('spikecrsae')}, the batch {program}; install the same on both."
        )
        return Result.of(job, state="failed", exit_code=error.exit_code, error=str(error))
    with _one_at_a_time:
        return attempt(job)


def _result(future, job: Job) -> Result:
    """The result of a task; what Dask itself reports (workers that died again and again, a lost scheduler) is a failure."""
    if future.status == "finished":
        return future.result()
    error = future.exception() if future.status == "error" else RuntimeError(f"the task was {future.status}")
    line = " ".join(str(error).split()) or described(error)[0]
    return Result.of(job, state="failed", exit_code=SpikeCRsAEError.exit_code, error=f"the cluster gave it up: {line}")
