"""spikecrsae apply: learned templates on another recording."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spikecrsae.cli import console
from spikecrsae.cli.options import (
    APPLY_FIELDS,
    Command,
    Name,
    config_options,
    job_options,
    narrated,
    output_option,
    reader_options,
)
from spikecrsae.config import Config
from spikecrsae.errors import UsageError

_EVERYDAY = (
    "--output", "--overwrite", "--resume", "--adapt", "--channels", "--exclude-s", "--start-s", "--stop-s", "--jobs", "--export",
)  # fmt: skip


@click.command(cls=Command, everyday=_EVERYDAY, short_help="Find the spikes of known units in another recording.")
@click.argument("model", type=Name())
@click.argument("recordings", type=Name(), nargs=-1, required=True, metavar="RECORDING...")
@output_option
@job_options("overwrite", "resume", "exports", "metadata", "columns", "jobs", "scheduler")
@config_options(APPLY_FIELDS, file=False)
@reader_options
@narrated
def apply(
    model: Path,
    recordings: tuple[Path, ...],
    output: Path | None,
    choices: dict[str, Any],
    config: Config,
    reader: dict,
    as_json: bool,
    narrator: console.Narrator,
) -> int:
    """Find the spikes of known units in RECORDING.

    MODEL is a model.safetensors, or the result folder that holds it. The recording must have the channels and the sampling
    frequency of the one that was sorted. Several files of one session become one result. Spikes of neurons that MODEL does
    not know are left out, and a warning says how many there are.
    """
    if "groups" in reader:
        raise UsageError("--groups has no effect here: the groups are those of the model; leave it out.")

    narrator.begin(f"looking for the units of {model} in {', '.join(map(str, recordings))}")

    from spikecrsae.cli.result import result_folder, show_outcome
    from spikecrsae.run.job import Job, run_job

    job = Job(recordings, result_folder(recordings, output), config, reader, task="apply", model=model, **choices)
    remedy = f"{job.model_file} has no unit, or none that fires here; sort the recording by itself."
    return show_outcome(run_job(job, narrator), job.folder, as_json, narrator, remedy)
