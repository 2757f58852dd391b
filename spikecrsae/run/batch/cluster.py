"""Jobs as tasks of a Dask cluster that is already there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

from spikecrsae.errors import described
from spikecrsae.progress import Observer
from spikecrsae.run.batch.result import Event, Result, attempt
from spikecrsae.run.job import Job
from spikecrsae.system.dask import Cluster


def run_on_cluster(jobs: Sequence[Job], address: str) -> Iterator[Event]:
    """Run jobs on the cluster whose scheduler is at `address` (tcp://host:port), each with its groups and blocks spread over
    it; yields what happens. Raises UsageError as Cluster does."""
    there = [replace(job.with_full_paths(), scheduler=address) for job in jobs]
    with contextlib.closing(Cluster(address).each(_attempt, None, there)) as results:
        for index, result in results:
            if isinstance(result, Exception):
                line, code = described(result)
                result = Result.of(jobs[index], state="failed", exit_code=code, error=line)
            yield Event(index, result=replace(result, recording=jobs[index].recording, folder=jobs[index].folder))


def _attempt(common: None, job: Job, observer: Observer) -> Result:
    """The task. What a worker that died has left in the folder is replaced, as the plan has decided."""
    return attempt(job)
