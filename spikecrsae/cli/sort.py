"""spikecrsae sort: the main job."""

from __future__ import annotations

from pathlib import Path

import click

from spikecrsae.cli import console
from spikecrsae.cli.options import (
    EXPORT_FORMATS,
    SORT_FIELDS,
    Command,
    config_options,
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
@click.argument("recording", type=click.Path(path_type=Path), required=False, metavar="RECORDING")
@output_option
@overwrite_option
@option("--save-components", is_flag=True, help="Also write every unit's own signal to components.h5 (large).")
@option("--estimate-errors", is_flag=True, help="Self-test: inject copies of every unit, sort again; doubles the time.")
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
    recording: Path | None,
    output: Path | None,
    overwrite: bool,
    save_components: bool,
    estimate_errors: bool,
    formats: tuple[str, ...],
    config: Config,
    dump_config: bool,
    reader: dict,
    as_json: bool,
    narrator: console.Narrator,
) -> int:
    """Find the spikes and templates of the neurons in RECORDING.

    The result is a folder beside the recording, <file name>.sorted, or the one given by -o.
    """
    if dump_config:
        click.echo(config.to_toml(), nl=False)
        return 0
    if recording is None:
        raise click.UsageError("Missing argument 'RECORDING'.", click.get_current_context())

    from spikecrsae import hybrid, pipeline
    from spikecrsae.cli.export import check_exports, export_result
    from spikecrsae.cli.result import run_into_folder, show_outcome
    from spikecrsae.readers import open_recording
    from spikecrsae.results import default_result_path

    def run(components_path: Path | None) -> pipeline.Outcome:
        outcome = pipeline.sort(opened, config, narrator, components_path)
        return hybrid.self_test(opened, outcome, narrator) if estimate_errors else outcome

    opened = open_recording(recording, **reader)
    folder = output or default_result_path(recording)
    try:
        check_exports(folder, formats, overwrite)
        for note in opened.notes:
            narrator.say(f"Note: {note}")
        outcome = run_into_folder(run, opened, folder, overwrite, config, narrator, components=save_components)
    finally:
        opened.close()
    export_result(folder, formats, lambda: open_recording(recording, **reader), overwrite, narrator)
    return show_outcome(outcome, folder, as_json, narrator)
