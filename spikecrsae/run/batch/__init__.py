"""Many recordings, each sorted on its own: in processes of this machine, or on a Dask cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from spikecrsae.run.batch.plan import find_recordings, plan_jobs, result_names
from spikecrsae.run.batch.result import Event, Result
from spikecrsae.run.job import Job

__all__ = ["Event", "Result", "find_recordings", "plan_jobs", "result_names", "run_jobs"]


def run_jobs(jobs: Sequence[Job], n_processes: int = 1, scheduler: str | None = None) -> Iterator[Event]:
    """Run jobs, n_processes at once, or on the Dask cluster of a scheduler; yields what happens until all have ended."""
    if scheduler is not None:
        from spikecrsae.run.batch.cluster import run_on_cluster

        return run_on_cluster(jobs, scheduler)
    from spikecrsae.run.batch.processes import run_in_processes

    return run_in_processes(jobs, n_processes)
