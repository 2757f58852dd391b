"""spikecrsae apply: learned templates on another recording."""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import click

from spikecrsae.cli import console
from spikecrsae.cli.options import (
    APPLY_FIELDS,
    Command,
    Name,
    config_options,
    jobs_option,
    json_option,
    output_option,
    overwrite_option,
    quiet_option,
    reader_options,
    verbose_option,
)
from spikecrsae.config import Config
from spikecrsae.errors import UsageError


@click.command(cls=Command, short_help="Find the spikes of known units, without training.")
@click.argument("model", type=Name())
@click.argument("recordings", type=Name(), nargs=-1, required=True, metavar="RECORDING...")
@output_option
@overwrite_option
@jobs_option
@config_options(APPLY_FIELDS, file=False)
@reader_options
@json_option
@quiet_option
@verbose_option
@console.narrated
def apply(
    model: Path,
    recordings: tuple[Path, ...],
    output: Path | None,
    overwrite: bool,
    jobs: int | None,
    config: Config,
    reader: dict,
    as_json: bool,
    narrator: console.Narrator,
) -> int:
    """Find the spikes of known units in RECORDING, without training.

    MODEL is a model.safetensors, or the result folder that holds it. The recording must have the channels and the sampling
    frequency of the one that was sorted. Several files of one session become one result.
    """
    if len(recordings) > 1 and output is None:
        raise click.UsageError("Several recordings have one result: name its folder with -o.", click.get_current_context())

    if "groups" in reader:
        raise UsageError("--groups has no effect here: the groups are those of the model; leave it out.")

    from spikecrsae.cli.result import show_outcome
    from spikecrsae.pipeline import groups
    from spikecrsae.readers import open_session
    from spikecrsae.results.folder import MODEL, default_result_path
    from spikecrsae.run.job import run_into_folder
    from spikecrsae.run.record import recording_facts
    from spikecrsae.system.files import reserved

    checkpoint = model / MODEL if model.is_dir() else model
    reopen = functools.partial(open_session, recordings, **reader)
    opened = reopen()
    folder = output or default_result_path(recordings[0])
    facts = {"task": "apply", "command": sys.argv, "model": checkpoint.absolute()}

    def run(_: Path | None):
        return groups.apply(checkpoint, opened, config, narrator, reopen=reopen, jobs=jobs)

    try:
        with reserved(folder):
            recorded = recording_facts(opened, recordings, reader)
            outcome = run_into_folder(run, recorded, folder, overwrite, narrator, facts)
    finally:
        opened.close()
    remedy = f"{checkpoint} has no unit, or none that fires here; sort the recording by itself."
    return show_outcome(outcome, folder, as_json, narrator, remedy)
