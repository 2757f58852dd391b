"""spikecrsae export: a sorting in the formats of other programs."""

from __future__ import annotations

from pathlib import Path

import click

from spikecrsae.cli import console
from spikecrsae.cli.options import EXPORT_FORMATS, Command, columns_option, metadata_option, narrated, option, reader_options
from spikecrsae.system.text import counted


@click.command(cls=Command, short_help="Write a sorting in the format of another program.")
@click.argument("sorting", type=click.Path(path_type=Path))
@option(
    "--to", "kind", type=click.Choice(EXPORT_FORMATS), default="phy", show_default=True, help="The format to be written."
)
@option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="OUT",
    help="File or folder to be written; by default in the result.",
)
@option(
    "--recording",
    "recordings",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="The recording that was sorted, if it has moved; once for each file of a session.",
)
@option(
    "--per-file",
    is_flag=True,
    help="One export for each file of a session, on the file's own clock, in the folder OUT (<format>_per_file by default).",
)
@metadata_option
@columns_option
@option("--overwrite", is_flag=True, help="Replace what is there, unless it was changed after it was written.")
@reader_options
@narrated
def export(
    sorting: Path,
    kind: str,
    output: Path | None,
    recordings: tuple[Path, ...],
    per_file: bool,
    metadata: Path | None,
    columns: str | None,
    overwrite: bool,
    reader: dict,
    as_json: bool,
    narrator: console.Narrator,
) -> None:
    """Write SORTING in the format of another program.

    SORTING is a result folder, its sorting.h5, or a Phy folder written by this command or its
    params.py, as it is curated now.
    """
    from spikecrsae.exports.export import check_place, default_place, export_per_file, find_recording, told_of_export
    from spikecrsae.exports.export import export as write_one
    from spikecrsae.readers import open_session
    from spikecrsae.run.curated import open_sorting

    told = told_of_export((kind,), metadata, columns)
    found, run = open_sorting(sorting)
    place = output or default_place(sorting, kind, per_file)
    if not per_file:
        check_place(place, kind, overwrite)
    write = export_per_file if per_file else write_one
    opened = open_session(recordings, **reader) if recordings else find_recording(sorting, found, run, kind, reader)
    narrator.start("export")
    try:
        write(found, run, kind, place, opened, overwrite, *told)
    finally:
        if opened is not None:
            opened.close()
    narrator.finish(f"{counted(len(found.spikes), 'spike')} of {counted(found.n_units, 'unit')}")
    if as_json:
        console.print_json(
            {"sorting": sorting, "format": kind, "path": place, "n_units": found.n_units, "n_spikes": len(found.spikes)}
        )
    else:
        console.say(place)
