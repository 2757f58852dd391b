"""spikecrsae batch: many recordings."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spikecrsae.cli import console, signals
from spikecrsae.cli.options import (
    SORT_FIELDS,
    Command,
    Name,
    WholeNumber,
    config_options,
    job_options,
    narrated,
    option,
    reader_options,
)
from spikecrsae.config import Config
from spikecrsae.errors import EXIT_BATCH_FAILED, add_remedy
from spikecrsae.system.text import counted

if TYPE_CHECKING:
    from spikecrsae.run.job import Job
    from spikecrsae.run.summary import Result
    from spikecrsae.system.processes import Workers

#: Seconds that a batch has when it is asked to stop, and each of its processes for tidying up; the next run removes what a
#: process leaves that takes longer.
STOP_S, GRACE_S = 15.0, 1.5


_EVERYDAY = (
    "--output", "--jobs", "--overwrite", "--resume", "--config", "--channels", "--groups", "--units", "--estimate-errors", "--export",
)  # fmt: skip


@click.command(cls=Command, everyday=_EVERYDAY, short_help="Sort many recordings.")
@click.argument("recordings", nargs=-1, required=True, metavar="RECORDING...")
@option(
    "-o",
    "--output",
    type=Name(),
    metavar="FOLDER",
    required=True,
    help="Where the results go, each into a folder of its own.",
)
@option("--jobs", type=WholeNumber(min=1), default=1, show_default=True, metavar="N", help="Recordings sorted at once.")
@option("--resume", is_flag=True, help="Keep finished results with the same settings, and sort the rest.")
@job_options("overwrite", "save_components", "estimate_errors", "exports", "metadata", "columns", "scheduler")
@config_options(SORT_FIELDS)
@reader_options
@narrated
def batch(
    recordings: tuple[str, ...],
    output: Path,
    jobs: int,
    resume: bool,
    choices: dict[str, Any],
    config: Config,
    reader: dict,
    as_json: bool,
    narrator: console.Narrator,
) -> int:
    """Sort many recordings, each into a folder of its own in the one given by -o.

    RECORDING is a file or a quoted pattern such as 'data/*.nwb'. One that fails does not stop the others. index.html,
    batch.csv and batch.json in the folder say how each recording ended, also those of earlier batches.
    """
    narrator.begin(f"sorting many recordings into {output}")

    from spikecrsae.run import batch as run
    from spikecrsae.run.job import Job
    from spikecrsae.run.resume import resume_command
    from spikecrsae.run.summary import Result, make_folder, write_summary
    from spikecrsae.system.dask import Cluster
    from spikecrsae.system.files import reserved
    from spikecrsae.system.processes import Processes

    scheduler = choices["scheduler"]
    found = run.find_recordings(recordings)
    wanted = [Job((path,), output / run.result_name(path), config, reader, **choices) for path in found]
    make_folder(output)
    signals.be_patient(STOP_S)
    with reserved(output / "batch"):
        todo, kept = run.plan_jobs(wanted, resume=resume)
        results = {job.folder: Result(job.recording, job.folder) for job in wanted}
        results |= {job.folder: Result.kept(job) for job in kept}
        if kept:
            narrator.say(f"{len(kept)} of {len(wanted)} recordings are sorted already")
        try:
            for result in _watched(todo, Cluster(scheduler) if scheduler else Processes(jobs, GRACE_S), narrator):
                results[result.folder] = result
        except (KeyboardInterrupt, signals.Terminated) as error:
            command = [word for word in sys.argv if word != "--resume"]
            add_remedy(error, resume_command(command, "what is finished stays"))
            raise
        finally:
            facts = {"jobs": jobs, "scheduler": scheduler, "config": config.to_dict()}
            write_summary(output, results.values(), facts)
            _show(list(results.values()), output, as_json)
    n_failed = sum(result.state == "failed" for result in results.values())
    narrator.say(f"{len(results) - n_failed} of {len(results)} recordings are sorted; {output / 'batch.csv'} lists them")
    return EXIT_BATCH_FAILED if n_failed else 0


def _watched(todo: list[Job], workers: Workers, narrator: console.Narrator) -> Iterator[Result]:
    """Yield the results as they come, with a line for each and, on a terminal, the stages that are at work."""
    from spikecrsae.report.index import short_names
    from spikecrsae.run.batch import run_jobs

    names = short_names([job.recording for job in todo])
    stages: dict[int, str] = {}
    ended: set[int] = set()

    def show(index: int, stage: str, has_ended: bool) -> None:
        if index not in ended:
            stages[index] = f"{names[index]}: {stage}"
            board.show(list(stages.values()))

    # the results are closed first, so that an interruption stops the jobs before anything else is done
    with (
        contextlib.closing(console.Board(narrator)) as board,
        contextlib.closing(run_jobs(todo, workers, show)) as results,
    ):
        for index, result in results:
            ended.add(index)
            stages.pop(index, None)
            narrator.say(f"  [{len(ended)}/{len(todo)}] {names[index]:<20} {_outcome(result)}")
            board.show(list(stages.values()))
            yield result


def _outcome(result: Result) -> str:
    if result.state == "failed":
        return f"failed: {result.error}"
    return f"{counted(result.n_units or 0, 'unit')}, {counted(result.n_spikes or 0, 'spike')}, {result.seconds:.1f} s"


def _show(results: list[Result], output: Path, as_json: bool) -> None:
    from dataclasses import asdict

    from spikecrsae.report.index import short_names

    if as_json:
        console.print_json({"output": output, "recordings": [asdict(result) for result in results]})
        return
    names = short_names([r.recording for r in results])
    rows = [
        [name, r.state, r.n_units, r.n_spikes, r.duration_s, r.seconds, r.error or "; ".join(r.warnings)]
        for name, r in zip(names, results, strict=True)
    ]
    headings = ["recording", "state", "units", "spikes", "length s", "seconds", "remark"]
    console.print_table(headings, rows, left=("recording", "state", "remark"))
