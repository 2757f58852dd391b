"""What becomes of the recordings of a batch, one by one and in its summary."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spikecrsae.errors import InputError, OutputError, described
from spikecrsae.progress import Observer
from spikecrsae.results.folder import read_run, read_sorting
from spikecrsae.run.job import Job, run_job
from spikecrsae.system.files import write_atomic, writing
from spikecrsae.system.json_values import to_json
from spikecrsae.system.text import cell_text, read_text

SUMMARY_JSON, SUMMARY_CSV = "batch.json", "batch.csv"
SUMMARY_FORMAT = "spikecrsae batch"
_MOST_MB = 256
_COLUMNS = ("recording", "folder", "state", "n_units", "n_spikes", "duration_s", "seconds", "exit_code", "error")
#: Keeps warnings of a worker off its standard error; run.log has them.
logging.getLogger("spikecrsae").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Result:
    """What became of one recording.

    state: sorted; kept, an earlier result that was made alike; failed, for the reason in `error`, with the exit code that
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
    def of(cls, job: Job, **values: Any) -> Result:
        return cls(job.recording, job.folder, **values)

    @classmethod
    def kept(cls, job: Job) -> Result:
        """That of a finished result, from what it holds."""
        sorting, run = read_sorting(job.folder), read_run(job.folder)
        return replace(
            cls.of(job, state="kept", seconds=run["seconds"], exit_code=0, warnings=tuple(run["warnings"])),
            **_numbers(sorting),
        )


@dataclass(frozen=True)
class Event:
    """Recording `index` of a batch has begun, has come to a `stage`, or has ended with a `result`."""

    index: int
    stage: str = ""
    result: Result | None = None


def _numbers(sorting) -> dict[str, Any]:
    return {"n_units": sorting.n_units, "n_spikes": len(sorting.spikes), "duration_s": sorting.duration_s}


def attempt(job: Job, observer: Observer | None = None) -> Result:
    """Run a job; whatever goes wrong with it becomes its result. Only a request to stop passes through."""
    began = time.perf_counter()
    try:
        outcome = run_job(job, observer)
    except Exception as error:
        line, code = described(error)
        return Result.of(job, state="failed", seconds=time.perf_counter() - began, exit_code=code, error=line)
    seconds = time.perf_counter() - began
    return replace(
        Result.of(job, state="sorted", seconds=seconds, exit_code=0, warnings=outcome.warnings), **_numbers(outcome.sorting)
    )


def make_folder(out: Path) -> None:
    """Make the folder for all results where it is not there yet. Raises OutputError where that is impossible, and where the
    summary's names are taken by files of other origin."""
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    stored = out / SUMMARY_JSON
    try:
        ours = stored.is_file() and json.loads(read_text(stored, _MOST_MB)).get("format") == SUMMARY_FORMAT
    except (InputError, OSError, ValueError, AttributeError, RecursionError):
        ours = False
    taken = [name for name in (SUMMARY_JSON, SUMMARY_CSV) if os.path.lexists(out / name)]
    if taken and not ours:
        raise OutputError(f"{out} holds {', '.join(taken)} of other origin, which is not overwritten; choose another -o.")


def write_summary(out: Path, results: Iterable[Result], facts: dict[str, Any]) -> None:
    """batch.json, with `facts` about the batch, and batch.csv with one row per recording, in the folder `out`."""
    rows = [to_json(asdict(result)) for result in results]
    document = {"format": SUMMARY_FORMAT, "format_version": 1, **to_json(facts), "recordings": rows}
    table = io.StringIO()
    writer = csv.DictWriter(table, _COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: cell_text(v) if isinstance(v, str) else v for name, v in row.items()} for row in rows)
    # the one that says whose both are comes first: a batch that ends between them can go on
    write_atomic(out / SUMMARY_JSON, [(json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()])
    write_atomic(out / SUMMARY_CSV, [table.getvalue().encode()])
