"""spikecrsae apply: learned templates on another recording."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from spikecrsae.cli import console
from spikecrsae.cli.options import (
    APPLY_FIELDS,
    Command,
    Name,
    config_options,
    json_option,
    output_option,
    overwrite_option,
    quiet_option,
    reader_options,
    verbose_option,
)
from spikecrsae.config import Config


@click.command(cls=Command, short_help="Find the spikes of known units, without training.")
@click.argument("model", type=Name())
@click.argument("recording", type=Name())
@output_option
@overwrite_option
@config_options(APPLY_FIELDS, file=False)
@reader_options
@json_option
@quiet_option
@verbose_option
@console.narrated
def apply(
    model: Path,
    recording: Path,
    output: Path | None,
    overwrite: bool,
    config: Config,
    reader: dict,
    as_json: bool,
    narrator: console.Narrator,
) -> int:
    """Find the spikes of known units in RECORDING, without training.

    MODEL is a model.pt, or the result folder that holds it. The recording must have the channels and the sampling
    frequency of the one that was sorted.
    """
    from spikecrsae import pipeline
    from spikecrsae.cli.result import show_outcome
    from spikecrsae.job import run_into_folder
    from spikecrsae.readers import open_recording
    from spikecrsae.results import default_result_path

    checkpoint = model / "model.pt" if model.is_dir() else model
    opened = open_recording(recording, **reader)
    folder = output or default_result_path(recording)
    facts = {"task": "apply", "command": sys.argv, "model": checkpoint.absolute()}
    try:
        outcome = run_into_folder(
            lambda _: pipeline.apply(checkpoint, opened, config, narrator),
            opened,
            folder,
            overwrite,
            narrator,
            reader,
            facts,
        )
    finally:
        opened.close()
    return show_outcome(outcome, folder, as_json, narrator)
