"""Many recordings, each a job of its own: which there are, where their results go, and what became of each."""

from __future__ import annotations

import contextlib
import csv
import glob
import io
import json
import logging
import os
import time
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spikecrsae.data.sorting import SortingData
from spikecrsae.errors import InputError, OutputError, described
from spikecrsae.exports.export import FORMATS
from spikecrsae.progress import Observer
from spikecrsae.results.folder import MANIFEST, ResultFolder, read_run, read_sorting
from spikecrsae.run.job import Job, run_job
from spikecrsae.run.resume import differences_to_result
from spikecrsae.system.files import write_atomic, writing
from spikecrsae.system.json_values import to_json
from spikecrsae.system.processes import OnStage, Workers
from spikecrsae.system.safe_hdf5 import folders_below
from spikecrsae.system.text import cell_text, read_text

SUMMARY_JSON, SUMMARY_CSV = "batch.json", "batch.csv"
SUMMARY_FORMAT = "spikecrsae batch"
#: Names in the folder of a batch that no recording's result can have.
_TAKEN = (".", "..", SUMMARY_CSV, SUMMARY_JSON)
_MAX_SUMMARY_MB = 256
_COLUMNS = ("recording", "folder", "state", "n_units", "n_spikes", "duration_s", "seconds", "exit_code", "error")
#: Keeps warnings of a worker off its standard error; run.log has them.
logging.getLogger("spikecrsae").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Result:
    """What became of one recording.

    state: sorted; kept, an earlier result with the same settings; failed, for the reason in `error`, with the exit code that
    `sort` would have; stopped, when the batch ended before it. seconds: of computing, also of a result that was kept.
    """

    recording: Path
    folder: Path
    state: str = "stopped"
    n_units: int | None = None
    n_spikes: int | None = None
    duration_s: float | None = None
    seconds: float | None = None
    exit_code: int | None = None
    error: str = ""
    warnings: tuple[str, ...] = ()

    @classmethod
    def done(cls, job: Job, sorting: SortingData, **values: Any) -> Result:
        """Return the result of a job that has ended well."""
        numbers: dict[str, Any] = {
            "n_units": sorting.n_units,
            "n_spikes": len(sorting.spikes),
            "duration_s": sorting.duration_s,
        }
        return cls(job.recording, job.folder, exit_code=0, **numbers, **values)

    @classmethod
    def failed(cls, job: Job, error: Exception, seconds: float | None = None) -> Result:
        """Return the result of a job that an error has ended."""
        line, code = described(error)
        return cls(job.recording, job.folder, state="failed", seconds=seconds, exit_code=code, error=line)

    @classmethod
    def kept(cls, job: Job) -> Result:
        """Return that of an earlier run, from its folder."""
        run = read_run(job.folder)
        facts = {"seconds": run["seconds"], "warnings": tuple(run["warnings"])}
        return cls.done(job, read_sorting(job.folder), state="kept", **facts)


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
                    f"{word} finds no recording; correct the pattern, and quote it so that it comes here whole."
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


def result_names(recordings: Sequence[Path]) -> list[str]:
    """Name a folder for each recording: its own name without its ending; where several share that, with the ending, or with
    as many of the folders above it as tell them apart."""
    full = [Path(os.path.abspath(path)) for path in recordings]
    # the stem of "...h5" is "..", and names of the summary are taken
    stems = [path.name if path.is_dir() or path.stem in _TAKEN else path.stem for path in full]
    depth = max((len(path.parts) for path in full), default=0)
    ways = [[path.name for path in full]]
    ways += [["_".join((*p.parts[1:-1][-n:], stem)) for p, stem in zip(full, stems, strict=True)] for n in range(1, depth)]
    names = stems
    for way in ways:
        shared = {name for name, count in Counter(names).items() if count > 1}
        names = [other if name in shared else name for name, other in zip(names, way, strict=True)]
    again = [names[:k].count(name) for k, name in enumerate(names)]
    return [f"{name}-{count + 1}" if count else name for name, count in zip(names, again, strict=True)]


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


# ---- the summary


def make_folder(out: Path) -> None:
    """Make the folder for all results where it is not there yet. Raises OutputError where that is impossible, and where the
    summary's names are taken by files of other origin."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    stored = out / SUMMARY_JSON
    try:
        ours = stored.is_file() and json.loads(read_text(stored, _MAX_SUMMARY_MB)).get("format") == SUMMARY_FORMAT
    except (InputError, OSError, ValueError, AttributeError, RecursionError):
        ours = False
    taken = [name for name in (SUMMARY_JSON, SUMMARY_CSV) if os.path.lexists(out / name)]
    if taken and not ours:
        raise OutputError(f"{out} holds {', '.join(taken)} of other origin, and nothing is overwritten; choose another -o.")


def write_summary(out: Path, results: Iterable[Result], facts: dict[str, Any]) -> None:
    """Write batch.json, with `facts` about the batch, and batch.csv with one row per recording, into the folder `out`."""
    rows = [to_json(asdict(result)) for result in results]
    document = {"format": SUMMARY_FORMAT, "format_version": 1, **to_json(facts), "recordings": rows}
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: cell_text(v) if isinstance(v, str) else v for name, v in row.items()} for row in rows)
    # the one that says whose both are comes first: a batch that ends between them can continue
    write_atomic(out / SUMMARY_JSON, [(json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()])
    write_atomic(out / SUMMARY_CSV, [table.getvalue().encode()])
