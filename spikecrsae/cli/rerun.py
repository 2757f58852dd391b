"""spikecrsae rerun: a run once more, from its run.json."""

from __future__ import annotations

from pathlib import Path

import click

from spikecrsae.cli import console
from spikecrsae.cli.options import Command, Name, narrated, option, output_option, overwrite_option
from spikecrsae.errors import EXIT_DIFFERENT


@click.command(cls=Command, short_help="Repeat a run from its run.json.")
@click.argument("run_json", type=Name(), metavar="RUN.JSON")
@output_option
@overwrite_option
@option(
    "--recording",
    type=Name(),
    multiple=True,
    metavar="FILE",
    help="Where the recording is now, if it has moved; once for each file of a session.",
)
@narrated
def rerun(
    run_json: Path,
    output: Path | None,
    overwrite: bool,
    recording: tuple[Path, ...],
    as_json: bool,
    narrator: console.Narrator,
) -> int:
    """Repeat the run that RUN.JSON records: the same recording, reading options, settings, seed and model.

    RUN.JSON is the run.json of a result, or the result folder. The new result is a folder beside it, <folder>.rerun, or the
    one given by -o. A recording that has changed is refused.
    """
    narrator.begin(f"repeating the run of {run_json}")

    from spikecrsae.cli.result import show_outcome
    from spikecrsae.run.job import run_job
    from spikecrsae.run.record import spikes_digest
    from spikecrsae.run.rerun import Record

    record = Record.read(run_json)
    first = record.path.absolute().parent
    folder = output or first.with_name(first.name + ".rerun")
    job = record.job(folder, recording, overwrite)
    for difference in record.version_differences():
        narrator.say(f"Warning: {difference}; the spikes may differ.")
    record.check_input(job, narrator)
    outcome = run_job(job, narrator)
    identical = spikes_digest(outcome.sorting) == record.values.get("spikes_sha256")
    code = show_outcome(outcome, folder, as_json, narrator, identical_spikes=identical)
    if outcome.device != record.values["device"]:
        narrator.say(f"Warning: the first run was on {record.values['device']}, this one on {outcome.device}.")
    if identical:
        narrator.say("spikes.csv is identical to the first run's.")
        return code
    console.say(f"spikes.csv differs from that of the run in {record.path}.", err=True)
    return EXIT_DIFFERENT
