"""spikecrsae report: the page with the pictures of a result, and the pictures as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from spikecrsae.cli import console
from spikecrsae.cli.options import Command, narrated, option, tolerance_option
from spikecrsae.errors import OutputError, UsageError

if TYPE_CHECKING:
    from spikecrsae.data.sorting import SortingData
    from spikecrsae.report.html import Truth
    from spikecrsae.report.svg import Drawing

_REPORT = "report.html"
_FORMATS = ("png", "svg", "pdf")


@click.command(cls=Command, short_help="Write the page with the pictures of a sorting.")
@click.argument("sorting", type=click.Path(path_type=Path))
@option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Name of the page, ending in .html or .htm; by default report.html in the result folder.",
)
@option("--overwrite", is_flag=True, help="Replace FILE, and figures in DIR, where they exist.")
@option(
    "--figures", type=click.Path(path_type=Path), metavar="DIR", help="Also write the pictures as files, into this folder."
)
@option(
    "--figure-format",
    "kinds",
    type=click.Choice(_FORMATS),
    multiple=True,
    help="Format of the files in DIR, png by default; may be given several times.",
)
@option(
    "--truth",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also show scores and trade-off curves against these known spikes, in any form that score takes.",
)
@tolerance_option
@narrated
def report(
    sorting: Path,
    output: Path | None,
    overwrite: bool,
    figures: Path | None,
    kinds: tuple[str, ...],
    truth: Path | None,
    tolerance_ms: float,
    as_json: bool,
    narrator: console.Narrator,
) -> None:
    """Write the page with the pictures of SORTING, a result folder, its sorting.h5, or a folder curated in Phy.

    The page is one file and needs no network. It shows recording, units, pairs, training and decisions, and with --truth
    the scores and the trade-off curves. --figures also writes the pictures as files.
    """
    if kinds and figures is None:
        raise UsageError(
            "--figure-format says how --figures writes, and --figures is not given; leave it out, or give --figures."
        )
    from spikecrsae.report.html import report_html
    from spikecrsae.results.folder import ResultFolder
    from spikecrsae.run.curated import open_sorting

    found, run = open_sorting(sorting)
    target = _target(sorting, output, overwrite)
    known = _truth(found, truth, tolerance_ms) if truth else None
    folder, drawn = ResultFolder(sorting), {}
    if figures:
        drawings = _drawings(found, run, known)
        names = [f"{name}.{kind}" for name in drawings for kind in kinds or _FORMATS[:1]]
        folder.check_extra(figures, names, overwrite, "give --overwrite, or another folder")
        drawn = _drawn(drawings, names, narrator)
    page = report_html(found, run, known).encode()
    written = folder.write_extra(figures, drawn, overwrite) if figures else []
    _write(target, page)
    if figures:
        narrator.say(f"wrote {len(written)} figures into {figures}")
    if as_json:
        document = {"sorting": sorting, "report": target, "bytes": len(page), "n_units": found.n_units}
        console.print_json(document | {"figures": written} if figures else document)
    else:
        console.say(target)


def _drawings(sorting: SortingData, run: dict, truth: Truth | None) -> dict[str, Drawing]:
    """Every figure of a sorting, by its file name without ending."""
    from spikecrsae.report.figures import result_figures
    from spikecrsae.report.pictures import tradeoff_pictures

    return result_figures(sorting, run, tradeoff_pictures(truth.curves, truth.comparison, sorting) if truth else {})


def _drawn(drawings: dict[str, Drawing], names: list[str], narrator: console.Narrator) -> dict[str, bytes]:
    """The content of these files, name and format by their names."""
    from spikecrsae.report.figures import figure_file

    narrator.start("figures", len(names))
    files = {}
    for file in names:
        name, kind = file.rsplit(".", 1)
        files[file] = figure_file(drawings[name], kind, name)
        narrator.advance()
    narrator.finish()
    return files


def _target(sorting: Path, output: Path | None, overwrite: bool) -> Path:
    """Where the page goes. Raises UsageError where that is not said or no name of a page, OutputError where a file of other origin is there."""
    from spikecrsae.exports.export import place_of_exports
    from spikecrsae.readers.phy_names import is_phy_folder
    from spikecrsae.results.folder import ResultFolder

    if output is None and is_phy_folder(sorting):
        output = place_of_exports(sorting) / _REPORT
    if output is None:
        if not sorting.is_dir():
            raise UsageError(f"{sorting} is not a result folder, where the page would go; say with -o where it goes.")
        target = sorting / _REPORT
        if target.exists() and not ResultFolder(sorting).lists(_REPORT):
            raise OutputError(
                f"{target} does not belong to this result and is not overwritten; choose another place with -o."
            )
        return target
    if output.is_dir():
        raise OutputError(f"{output} is a folder, and the page is a file; give a file name with -o.")
    if output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{output} must end in .html; change the name after -o.")
    if output.exists() and not overwrite:
        raise OutputError(f"{output} exists and is not overwritten; give --overwrite, or another name with -o.")
    return output


def _truth(sorting: SortingData, path: Path, tolerance_ms: float) -> Truth:
    """How the sorting compares with known spikes, for the page."""
    from spikecrsae.readers import read_truth
    from spikecrsae.report.html import Truth
    from spikecrsae.score import best_match_curves, compare

    known = read_truth(path, sorting.sampling_frequency, recording=sorting)
    comparison = compare(known, sorting.trains(), sorting.sampling_frequency, tolerance_ms)
    return Truth(path.name, comparison, best_match_curves(comparison, known, sorting))


def _write(target: Path, page: bytes) -> None:
    from spikecrsae.results.folder import SORTING, ResultFolder
    from spikecrsae.system.files import write_atomic

    write_atomic(target, [page])
    if target.name == _REPORT and target.with_name(SORTING).is_file():
        ResultFolder(target.parent).add([target.name])
