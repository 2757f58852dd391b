"""spikecrsae sort: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spikecrsae.cli import console
from spikecrsae.cli.options import (
    SORT_FIELDS,
    Command,
    Name,
    config_options,
    jobs_option,
    json_option,
    option,
    output_option,
    overwrite_option,
    quiet_option,
    reader_options,
    scheduler_option,
    sort_options,
    verbose_option,
)
from spikecrsae.config import Config


@click.command(cls=Command, short_help="Find the units and spikes of a recording: the main job.")
@click.argument("recordings", type=Name(), nargs=-1, metavar="RECORDING...")
@output_option
@overwrite_option
@option("--resume", is_flag=True, help="Go on where the same run was stopped.")
@sort_options
@jobs_option
@scheduler_option
@config_options(SORT_FIELDS)
@option("--dump-config", is_flag=True, help="Print the resulting configuration as TOML and stop.")
@reader_options
@json_option
@quiet_option
@verbose_option
@console.narrated
def sort(
    recordings: tuple[Path, ...],
    output: Path | None,
    overwrite: bool,
    resume: bool,
    choices: dict[str, Any],
    jobs: int | None,
    scheduler: str | None,
    config: Config,
    dump_config: bool,
    reader: dict,
    as_json: bool,
    narrator: console.Narrator,
) -> int:
    """Find the spikes and templates of the neurons in RECORDING.

    The result is a folder beside the recording, <file name>.sorted, or the one given by -o. Several files of one session
    are sorted together, one after the other in the order given. Groups of channels (--groups) are sorted each on its own.
    """
    if dump_config:
        click.echo(config.to_toml(), nl=False)
        return 0
    if not recordings:
        raise click.UsageError("Missing argument 'RECORDING'.", click.get_current_context())
    if len(recordings) > 1 and output is None:
        raise click.UsageError("Several recordings have one result: name its folder with -o.", click.get_current_context())

    from spikecrsae.cli.result import show_outcome
    from spikecrsae.results.folder import default_result_path
    from spikecrsae.run.job import Job, run_job

    folder = output or default_result_path(recordings[0])
    job = Job(
        recordings, folder, config, reader, jobs=jobs, scheduler=scheduler, overwrite=overwrite, resume=resume, **choices
    )
    return show_outcome(run_job(job, narrator), folder, as_json, narrator)
