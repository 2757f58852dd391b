"""spikecrsae sort: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spikecrsae.cli import console, signals
from spikecrsae.cli.options import (
    SORT_FIELDS,
    Command,
    Name,
    config_options,
    job_options,
    narrated,
    option,
    output_option,
    reader_options,
)
from spikecrsae.config import Config
from spikecrsae.errors import remedy_of

#: What --help shows of some sixty options.
_EVERYDAY = (
    "--output", "--overwrite", "--resume", "--channels", "--groups", "--exclude-s", "--units", "--detection-threshold",
    "--estimate-errors", "--export",
)  # fmt: skip


@click.command(cls=Command, everyday=_EVERYDAY, short_help="Find the units and spikes of a recording: the main job.")
@click.argument("recordings", type=Name(), nargs=-1, metavar="RECORDING...")
@output_option
@job_options(
    "overwrite", "resume", "save_components", "estimate_errors", "exports", "metadata", "columns", "jobs", "scheduler"
)
@config_options(SORT_FIELDS)
@option("--dump-config", is_flag=True, help="Print every setting with its meaning, as TOML, and stop; needs no recording.")
@reader_options
@narrated
def sort(
    recordings: tuple[Path, ...],
    output: Path | None,
    choices: dict[str, Any],
    config: Config,
    dump_config: bool,
    reader: dict,
    as_json: bool,
    narrator: console.Narrator,
) -> int:
    """Find the spikes and templates of the neurons in RECORDING.

    The result is a folder beside the recording, <file name>.sorted, or the one given by -o. Several files are one recording:
    channels that were recorded at the same time, or a session, one after the other in the order given. Groups of channels
    (--groups) are sorted each on its own.

    \b
    Examples:
    spikecrsae sort recording.h5
    spikecrsae sort eight.nwb --groups 0-3,4-7 --export phy -o monday
    spikecrsae sort a.dat --sampling-frequency 30000 --n-channels 4 --dtype int16
    """
    if dump_config:
        click.echo(config.to_toml(), nl=False)
        return 0
    if not recordings:
        raise click.UsageError("RECORDING is missing; give a file: spikecrsae sort RECORDING.", click.get_current_context())
    narrator.begin(f"sorting {', '.join(map(str, recordings))}")

    from spikecrsae.cli.result import result_folder, show_outcome
    from spikecrsae.run.job import Job, run_job

    job = Job(recordings, result_folder(recordings, output), config, reader, **choices)
    try:
        outcome = run_job(job, narrator)
    except (KeyboardInterrupt, signals.Terminated) as error:
        if not remedy_of(error):
            console.say("Nothing was learned yet, so nothing is kept.", err=True)
        raise
    return show_outcome(outcome, job.folder, as_json, narrator)
