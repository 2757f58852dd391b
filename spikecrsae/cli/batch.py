"""spikecrsae batch: many recordings."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from spikecrsae.cli import console, signals
from spikecrsae.cli.options import (
    SORT_FIELDS,
    Command,
    Name,
    config_options,
    json_option,
    option,
    quiet_option,
    reader_options,
    scheduler_option,
    sort_options,
    verbose_option,
)
from spikecrsae.config import Config
from spikecrsae.errors import EXIT_BATCH_FAILED, add_remedy
from spikecrsae.system.text import counted

#: Seconds that a batch has, when it is asked to stop, for its processes and its summary.
STOP_S = 15.0


@click.command(cls=Command, short_help="Sort many recordings.")
@click.argument("recordings", nargs=-1, required=True, metavar="RECORDING...")
@option("-o", "--output", type=Name(), metavar="FOLDER", required=True, help="Where the results go, a folder each.")
@option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, metavar="N", help="Recordings sorted at once.")
@scheduler_option
@option("--resume", is_flag=True, help="Keep finished results that were made alike, go on with the rest.")
@option("--overwrite", is_flag=True, help="Replace existing results, and of their folders only what their manifest lists.")
@sort_options
@config_options(SORT_FIELDS)
@reader_options
@json_option
@quiet_option
@verbose_option
@console.narrated
def batch(
    recordings: tuple[str, ...],
    output: Path,
    jobs: int,
    scheduler: str | None,
    resume: bool,
    overwrite: bool,
    choices: dict[str, bool],
    config: Config,
    reader: dict,
    as_json: bool,
    narrator: console.Narrator,
) -> int:
    """Sort many recordings, each into a folder of its own in the one given by -o.

    RECORDING is a file or a quoted pattern such as 'data/*.nwb'. One that fails does not stop the others. batch.csv and
    batch.json in the folder say what became of each.
    """
    from spikecrsae.run.batch import Result, find_recordings, plan_jobs, result_names, run_jobs
    from spikecrsae.run.batch.result import make_folder, write_summary
    from spikecrsae.run.job import Job
    from spikecrsae.run.resume import how_to_go_on
    from spikecrsae.system.files import reserved

    found = find_recordings(recordings)
    wanted = [
        Job((path,), output / name, config, reader, overwrite=overwrite, **choices)
        for path, name in zip(found, result_names(found), strict=True)
    ]
    make_folder(output)
    signals.be_patient(STOP_S)
    with reserved(output / "batch"):
        todo, kept = plan_jobs(wanted, resume=resume)
        results = {job.folder: Result.of(job) for job in wanted} | {job.folder: Result.kept(job) for job in kept}
        if kept:
            narrator.say(f"{len(kept)} of {len(wanted)} recordings are sorted already")
        events = run_jobs(todo, jobs, scheduler)
        try:
            for result in _watched(events, todo, narrator):
                results[result.folder] = result
        except (KeyboardInterrupt, signals.Terminated) as error:
            add_remedy(error, how_to_go_on([word for word in sys.argv if word != "--resume"], "what is finished stays"))
            raise
        finally:
            write_summary(output, results.values(), {"jobs": jobs, "scheduler": scheduler, "config": config.to_dict()})
            _show(list(results.values()), output, as_json)
    n_failed = sum(result.state == "failed" for result in results.values())
    narrator.say(f"{len(results) - n_failed} of {len(results)} recordings are sorted; {output / 'batch.csv'} lists them")
    return EXIT_BATCH_FAILED if n_failed else 0


def _watched(events: Iterator, todo: list, narrator: console.Narrator) -> Iterator:
    """The results as they come, with a line for each and, on a terminal, what is at work."""
    at_work: dict[int, str] = {}
    n_done = 0
    # closed here, so that an interruption stops the jobs before anything else is done
    with contextlib.closing(events), contextlib.closing(console.Board(narrator)) as board:
        for event in events:
            name = todo[event.index].folder.name
            if event.result is None:
                at_work[event.index] = f"{name}: {event.stage}" if event.stage else name
            else:
                n_done += 1
                at_work.pop(event.index, None)
                narrator.say(f"  [{n_done}/{len(todo)}] {name:<20} {_outcome(event.result)}")
                yield event.result
            board.show(list(at_work.values()))


def _outcome(result) -> str:
    if result.state == "failed":
        return f"failed: {result.error}"
    return f"{counted(result.n_units, 'unit')}, {counted(result.n_spikes, 'spike')}, {result.seconds:.1f} s"


def _show(results: list, output: Path, as_json: bool) -> None:
    from dataclasses import asdict

    if as_json:
        console.print_json({"output": output, "recordings": [asdict(result) for result in results]})
        return
    rows = [
        [r.folder.name, r.state, r.n_units, r.n_spikes, r.duration_s, r.seconds, r.error or "; ".join(r.warnings)]
        for r in results
    ]
    headings = ["recording", "state", "units", "spikes", "length s", "seconds", "remark"]
    console.print_table(headings, rows, left=("recording", "state", "remark"))
