"""spikecrsae sort: the main job."""

from __future__ import annotations

import functools
from pathlib import Path

import click

from spikecrsae.cli import console
from spikecrsae.cli.options import (
    EXPORT_FORMATS,
    SORT_FIELDS,
    Command,
    config_options,
    jobs_option,
    json_option,
    option,
    output_option,
    overwrite_option,
    quiet_option,
    reader_options,
    verbose_option,
)
from spikecrsae.config import Config


@click.command(cls=Command, short_help="Find the units and spikes of a recording: the main job.")
@click.argument("recordings", type=click.Path(path_type=Path), nargs=-1, metavar="RECORDING...")
@output_option
@overwrite_option
@option("--save-components", is_flag=True, help="Also write every unit's own signal to components.h5 (large).")
@option("--estimate-errors", is_flag=True, help="Self-test: inject copies of every unit, sort again; doubles the time.")
@jobs_option
@option(
    "--export",
    "formats",
    type=click.Choice(EXPORT_FORMATS),
    multiple=True,
    help="Also write this format into the result, as the command export does. May be given several times.",
)
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
    save_components: bool,
    estimate_errors: bool,
    jobs: int | None,
    formats: tuple[str, ...],
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

    from spikecrsae import groups
    from spikecrsae.cli.export import check_exports, export_result
    from spikecrsae.cli.result import run_into_folder, show_outcome
    from spikecrsae.readers import open_session
    from spikecrsae.results import default_result_path

    reopen = functools.partial(open_session, recordings, **reader)
    opened = reopen()
    folder = output or default_result_path(recordings[0])
    work = functools.partial(groups.sort, opened, config, narrator, reopen=reopen, jobs=jobs, self_test=estimate_errors)
    try:
        check_exports(folder, formats, overwrite)
        for note in opened.notes:
            narrator.say(f"Note: {note}")
        outcome = run_into_folder(work, opened, folder, overwrite, config, narrator, components=save_components)
    finally:
        opened.close()
    export_result(folder, formats, reopen, overwrite, narrator)
    return show_outcome(outcome, folder, as_json, narrator)
