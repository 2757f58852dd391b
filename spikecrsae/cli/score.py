"""spikecrsae score: how far a sorting can be trusted, where the truth is known."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spikecrsae.cli import console
from spikecrsae.cli.options import Command, Name, narrated, option, output_option, reader_options, tolerance_option
from spikecrsae.errors import InputError, UsageError
from spikecrsae.system.text import cell_text

if TYPE_CHECKING:
    from spikecrsae.data.sorting import SortingData
    from spikecrsae.score import Comparison, UnitScore

_CURVE = "tradeoff.csv"


@click.command(cls=Command, short_help="Compare a sorting with known spikes.")
@click.argument("sorting", type=Name())
@option(
    "--truth",
    type=Name(),
    required=True,
    metavar="FILE",
    help="Known spikes: HDF5, MEArec, NWB, .csv, .npy, .mat, a Phy or result folder; or a recording that holds them.",
)
@option(
    "--truth-column",
    metavar="NAME|N",
    help="Column of a table (by name, or number from 0) or variable of a .mat file that holds the times; by default the one whose "
    "name says so.",
)
@option(
    "--truth-unit",
    metavar="s|ms|samples",
    help="Unit of the times of a table, .npy or .mat file; by default the one that the column's name says.",
)
@option("--truth-neuron", metavar="NAME", help="Compare with this neuron of the truth only.")
@option(
    "--truth-channel",
    type=int,
    metavar="N",
    help="Take the spikes on this intracellular channel of --truth, counted from 0.",
)
@option(
    "--truth-threshold", type=float, metavar="X", help="Height of a spike on that channel; found from the data unless given."
)
@tolerance_option
@option("--exhaustive", is_flag=True, help="The truth names every neuron: also count false, redundant and merged units.")
@option(
    "--curve",
    type=click.Choice(["amplitude", "component"]),
    default="amplitude",
    show_default=True,
    help="What the curve puts a threshold on: spike amplitudes, or the unit's separated signal, as in the paper.",
)
@option(
    "--calibration",
    is_flag=True,
    help="Also test whether the probabilities, and the intervals of the rates, are right: calibration.json and .png, beside the curve.",
)
@output_option
@option(
    "--overwrite",
    is_flag=True,
    help="Replace existing curves in the folder of -o; those in the result folder are always replaced.",
)
@reader_options
@narrated
def score(
    sorting: Path,
    truth: Path,
    tolerance_ms: float,
    exhaustive: bool,
    curve: str,
    calibration: bool,
    output: Path | None,
    overwrite: bool,
    reader: dict,
    as_json: bool,
    narrator: console.Narrator,
    **how: Any,
) -> None:
    """Compare SORTING with known spikes: accuracy, misses, false alarms.

    SORTING is a result folder, its sorting.h5, a Phy folder or its params.py, or spike times in any form that --truth takes.
    The trade-off curve of misses against false alarms goes to tradeoff.csv and a picture, into the result folder or the one given by -o.
    """
    from spikecrsae.cli.calibration import calibration_files, measured, show_calibration
    from spikecrsae.score import compare, doubt

    _check_options(reader, **how)
    sorted_ = _Sorted.read(sorting, reader)
    known = _known(truth, sorted_, reader, **how)
    known = _in_range(known, sorted_, narrator)
    labels = [] if sorted_.sorting is None else list(sorted_.sorting.units.get("label", ()))
    for label in ("noise", "artefact"):
        if n := labels.count(label):
            narrator.say(f"{n} of the units are labelled {label}; they are scored as the others are.")
    comparison = compare(known, sorted_.trains, sorted_.sampling_frequency, tolerance_ms, exhaustive)
    doubted = doubt(comparison, known, sorted_.trains, 0.0 if sorted_.sorting is None else sorted_.sorting.start_time_s)
    measures, why_not = measured(known, sorted_.sorting, tolerance_ms, exhaustive) if calibration else (None, "")
    folder = output or (sorting if (sorting / "sorting.h5").is_file() else None)
    curves = _curves(comparison, known, sorted_, curve)
    contents = _curve_files(curves, comparison, sorted_.sorting) if curves and folder else {}
    contents |= calibration_files(measures) if measures and folder else {}
    written = _write(folder, contents, overwrite) if folder and contents else []
    if as_json:
        console.print_json(
            {
                "sorting": sorting,
                "truth": truth,
                **comparison.to_dict(),
                "curve": curve if curves and folder else None,
                "calibration": measures,
                "files": written,
                "warnings": [text for text in (doubted, why_not and f"no calibration: {why_not}") if text],
            }
        )
    else:
        _show(comparison)
        if measures:
            show_calibration(measures)
    if doubted:
        narrator.say(f"Warning: {doubted}.")
    if why_not:
        narrator.say(f"No calibration: {why_not}")
    for path in written:
        narrator.say(f"wrote {path}")
    if not curves or not folder:
        narrator.say("No trade-off curve: " + _why_no_curve(curves, sorted_, curve))


def _check_options(
    reader: dict,
    truth_channel: int | None,
    truth_threshold: float | None,
    truth_column: str | None,
    truth_unit: str | None,
    **_: Any,
) -> None:
    """UsageError for an option that this call would ignore."""
    if truth_channel is not None:
        if truth_column or truth_unit:
            name = "--truth-column" if truth_column else "--truth-unit"
            raise UsageError(f"{name} is for a table of spike times, --truth-channel for a signal; leave one of them out.")
        return
    idle = [name for name in reader if name != "sampling_frequency"]
    idle += ["truth_threshold"] if truth_threshold is not None else []
    if idle:
        names = ", ".join("--" + name.replace("_", "-") for name in idle)
        raise UsageError(f"{names} has no effect without --truth-channel; leave it out, or give --truth-channel.")


def _known(
    truth: Path,
    sorted_: _Sorted,
    reader: dict,
    truth_channel: int | None,
    truth_threshold: float | None,
    truth_column: str | None,
    truth_unit: str | None,
    truth_neuron: str | None,
) -> dict[str, Any]:
    """Samples of the known spikes by the name of their unit."""
    from spikecrsae.readers import ReadOptions, neuron_and_unit, read_truth

    neuron, time_unit = neuron_and_unit(truth_neuron, truth_unit)
    return read_truth(
        truth,
        sorted_.sampling_frequency,
        truth_channel=truth_channel,
        recording=sorted_.sorting,
        threshold=truth_threshold,
        unit=neuron,
        options=ReadOptions(**reader) if truth_channel is not None else None,
        column=truth_column,
        time_unit=time_unit,
    )


@dataclass(frozen=True)
class _Sorted:
    """Spike trains to be judged; `sorting` is None where they come from another program, without amplitudes."""

    trains: dict[str, Any]
    sampling_frequency: float
    sorting: Any = None
    time_range: tuple[int, int] | None = None

    @classmethod
    def read(cls, path: Path, reader: dict) -> _Sorted:
        """A result of ours, a Phy folder of ours as it is curated now, or spike times in a form that read_truth knows."""
        from spikecrsae.readers import phy_rate, read_truth
        from spikecrsae.run.curated import is_sorting, open_sorting

        if is_sorting(path):
            sorting, run = open_sorting(path)
            return cls(sorting.trains(), sorting.sampling_frequency, sorting, run.get("recording", {}).get("time_range"))
        if not path.exists():
            raise InputError(f"{path} does not exist; give the result folder of a sorting, or a file of spike times.")
        if path.is_dir() and any((path / name).exists() for name in ("manifest.json", "run.log")):
            raise InputError(f"{path} holds no sorting.h5: its run did not finish; see run.log there, and sort again.")
        rate = reader.get("sampling_frequency") or phy_rate(path)
        if rate is None:
            raise UsageError(f"{path} does not tell its sampling frequency; give --sampling-frequency.")
        return cls(read_truth(path, rate), rate)


def _in_range(known: dict[str, Any], sorted_: _Sorted, narrator: console.Narrator) -> dict[str, Any]:
    """The known spikes in the part of the recording that was sorted (--start-s, --stop-s)."""
    if sorted_.time_range is None:
        return known
    first, end = sorted_.time_range
    ((start_s, stop_s),) = sorted_.sorting.timeline.intervals_s([first, end])
    narrator.say(f"Only known spikes from {start_s:.10g} to {stop_s:.10g} s count, the part that was sorted.")
    return {name: samples[(samples >= first) & (samples < end)] for name, samples in known.items()}


def _curves(comparison: Comparison, known: dict, sorted_: _Sorted, kind: str) -> dict[str, Any]:
    """Trade-off curve per truth unit that some unit matches, by the name of the truth unit. None where such a unit has no
    component."""
    from spikecrsae.score import best_match_curves

    if sorted_.sorting is None:
        return {}
    try:
        return best_match_curves(comparison, known, sorted_.sorting, kind)
    except InputError:
        if kind != "component":
            raise
        return {}


def _why_no_curve(curves: dict, sorted_: _Sorted, kind: str) -> str:
    if sorted_.sorting is None:
        return "these spikes have no amplitudes."
    if curves:
        return "give -o, the folder it goes to."
    templates = ", or the one that does has no template; use --curve amplitude" if kind == "component" else ""
    return f"no unit matches the truth{templates}."


def _curve_files(curves: dict, comparison: Comparison, sorting: SortingData) -> dict[str, bytes]:
    """tradeoff.csv with all curves, and a figure of each."""
    from spikecrsae.report.figures import figure_file, tradeoff_figures
    from spikecrsae.report.pictures import tradeoff_pictures

    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["truth", "unit", "threshold", "miss", "false_alarm", "curve"])
    units = {row.truth: row.test for row in comparison.best_rows}
    for name, curve in curves.items():
        points = zip(curve.threshold, curve.miss, curve.false_alarm, strict=True)
        writer.writerows(
            [cell_text(name), units[name], f"{t:.7g}", f"{m:.6f}", f"{f:.6f}", curve.kind] for t, m, f in points
        )
    figures = tradeoff_figures(tradeoff_pictures(curves, comparison, sorting))
    contents = {f"{name}.png": figure_file(drawing, "png", name) for name, drawing in figures.items()}
    return {_CURVE: table.getvalue().encode(), **contents}


def _write(folder: Path, contents: dict[str, bytes], overwrite: bool) -> list[Path]:
    """Write files into a folder, listed in the manifest if the folder is a result."""
    from spikecrsae.results.folder import ResultFolder

    ResultFolder(folder).check_extra(folder, list(contents), overwrite, "give --overwrite, or another folder with -o")
    return ResultFolder(folder).write_extra(folder, contents, overwrite)


def _show(comparison: Comparison) -> None:
    """Tables of the truth units, and the counts that only an exhaustive truth allows."""
    _show_rows(comparison.rows, "")
    if comparison.best_rows != comparison.rows:
        _show_rows(comparison.best_rows, "Best match, where a unit may serve several neurons or agree less than half")
    click.echo(
        f"mean accuracy {comparison.mean('accuracy'):.3f}, {len(comparison.well_detected)} of {len(comparison.rows)} well detected (0.8)"
    )
    for name in ("false_positive_units", "redundant_units", "overmerged_units"):
        units = getattr(comparison, name)
        if units is not None:
            console.say(f"{name.replace('_', ' ')}: {len(units)}{' (' + ', '.join(units) + ')' if units else ''}")


def _show_rows(rows: Iterable[UnitScore], title: str) -> None:
    headings = ["truth", "spikes", "unit", "found", "accuracy", "precision", "recall", "miss %", "false alarm %"]
    table = [
        [r.truth, r.n_truth, r.test, r.tp, *(f"{v:.3f}" for v in (r.accuracy, r.precision, r.recall)),
         *(f"{100 * v:.2f}" for v in (r.miss, r.false_alarm))]
        if r.test is not None
        else [r.truth, r.n_truth, None, 0, *["-"] * 3, "100.00", "-"]
        for r in rows
    ]  # fmt: skip
    if not console.fits(headings, table):  # without miss and false alarm, which are 1 - recall and 1 - precision
        headings, table = headings[:-2], [row[:-2] for row in table]
    console.print_table(headings, table, title)
