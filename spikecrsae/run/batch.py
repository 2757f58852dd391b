"""Many recordings, each a job of its own: which there are, where their results go, and how they are run."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import logging
import os
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from spikecrsae.errors import InputError, OutputError
from spikecrsae.exports.export import FORMATS
from spikecrsae.progress import Observer
from spikecrsae.results.folder import MANIFEST, ResultFolder
from spikecrsae.run.job import Job, run_job
from spikecrsae.run.resume import differences_to_result
from spikecrsae.run.summary import Result
from spikecrsae.system.processes import OnStage, Workers
from spikecrsae.system.safe_hdf5 import folders_below

#: Characters of a recording's name that its result's folder bears at most.
_MOST_OF_NAME = 60
#: Keeps warnings of a worker off its standard error; run.log has them.
logging.getLogger("spikecrsae").addHandler(logging.NullHandler())


# ---- which recordings, and where their results go


def find_recordings(words: Sequence[str]) -> list[Path]:
    """Return the recordings that file names and patterns (`data/*.nwb`, `**` for folders at any depth) name, each once.

    A word that exists is taken as it is; what a pattern finds is sorted, without side files (.toml) and results.
    Raises InputError for a pattern that finds nothing; a missing file stays, and fails by itself.
    """
    found: dict[str, Path] = {}
    for word in words:
        matches = [word]
        if not os.path.exists(word) and glob.has_magic(word):
            matches = [path for path in sorted(set(_matching(word))) if _may_be_recording(path)]
            if not matches:
                raise InputError(
                    f"{word} finds no recording; correct the pattern, and put it in quotes, so that the shell does not "
                    "expand it."
                )
        for match in matches:
            found.setdefault(os.path.realpath(match), Path(match))
    return list(found.values())


def _matching(pattern: str) -> Iterator[str]:
    """Yield what a pattern finds. `**` is every folder below, each once: links in a circle would make no end of it."""
    before, stars, after = pattern.partition("**")
    is_whole_part = (not before or before.endswith("/")) and (not after or after.startswith("/"))
    if not stars or not is_whole_part:
        yield from glob.glob(pattern)
        return
    for place in glob.glob(before) if before else ["."]:
        for folder in folders_below(place):
            yield from _matching(os.path.join(glob.escape(folder), after.lstrip("/") or "*"))


def _may_be_recording(path: str) -> bool:
    """Tell recordings from side files and results, which patterns find as well."""
    return not path.endswith(".toml") and not os.path.exists(os.path.join(path, MANIFEST))


def result_name(recording: Path) -> str:
    """Name the folder of a recording's result: its own name without the ending, and eight digits of its path's checksum. Which
    other recordings there are decides nothing, and files of one name in several folders have folders of their own."""
    path = os.path.abspath(recording)
    name = os.path.basename(path) if os.path.isdir(path) else Path(path).stem
    return f"{name[:_MOST_OF_NAME]}-{hashlib.sha256(os.fsencode(path)).hexdigest()[:8]}"


def plan_jobs(jobs: Sequence[Job], *, resume: bool) -> tuple[list[Job], list[Job]]:
    """Return the jobs that are to be done, and those whose result is there already (with resume).

    With resume a finished result stays where the same recording (path, size, time of change) was sorted with the same options
    and settings by the same version, and an unfinished one continues; what a killed run left otherwise is replaced. Raises
    OutputError where a result would have to be overwritten and overwrite is not set in its job; nothing has been done by then.
    """
    todo, kept, in_the_way = [], [], []
    for job in jobs:
        folder = ResultFolder(job.folder)
        if folder.is_finished():
            alike = resume and not differences_to_result(job.folder, job.request)
            if alike and all((job.folder / FORMATS[kind].name).exists() for kind in job.exports):
                kept.append(job)
                continue
            if not job.overwrite and not alike:
                in_the_way.append(job.folder)
        else:
            job = replace(job, overwrite=True)
            folder.check(overwrite=True)
        todo.append(replace(job, resume=resume))
    if in_the_way:
        many = f"{len(in_the_way)} results are" if len(in_the_way) > 1 else "1 result is"
        why = "from another recording, other settings or another version" if resume else "there already"
        remedy = "--overwrite" if resume else "--resume to keep matching results, --overwrite to replace all"
        raise OutputError(f"{many} {why}: {in_the_way[0]}{' ...' * (len(in_the_way) > 1)}; give {remedy}, or another -o.")
    return todo, kept


# ---- running them


def run_jobs(
    jobs: Sequence[Job], workers: Workers, on_stage: OnStage | None = None
) -> Generator[tuple[int, Result], None, None]:
    """Run jobs on workers; yields the position of each with its result, in the order in which they end.

    When the iterator is closed, running jobs are stopped and tidy up. Raises what workers.each raises at its beginning.
    """
    # on a cluster the working folder is another
    tasks = [job.with_full_paths() for job in jobs] if workers.is_remote else jobs
    with contextlib.closing(workers.each(_attempt, None, tasks, on_stage)) as results:
        for index, result in results:
            job = jobs[index]
            result = Result.failed(job, result) if isinstance(result, Exception) else result
            yield index, replace(result, recording=job.recording, folder=job.folder)


def _attempt(common: None, job: Job, observer: Observer) -> Result:
    """Run a job; whatever goes wrong with it becomes its result. Only a request to stop passes through."""
    began = time.perf_counter()
    try:
        outcome = run_job(job, observer)
    except Exception as error:
        return Result.failed(job, error, time.perf_counter() - began)
    seconds = time.perf_counter() - began
    return Result.done(job, outcome.sorting, state="sorted", seconds=seconds, warnings=outcome.warnings)
