"""What a sorting shows of itself: the table of its units, each with a small picture, or one JSON document."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikecrsae.cli import console
from spikecrsae.errors import EXIT_NO_UNITS
from spikecrsae.system.text import counted

if TYPE_CHECKING:
    import numpy as np

    from spikecrsae.data.sorting import SortingData
    from spikecrsae.pipeline.sort import Outcome

#: Columns of the unit table that are shown, with their headings; units.csv has them all.
_SHOWN = {
    "label": "label",
    "group": "group",
    "n_spikes": "spikes",
    "firing_rate": "rate Hz",
    "peak_channel": "channel",
    "amplitude": "peak {unit}",
    "snr": "SNR",
    "isi_violations": "ISI viol. %",
    "hybrid_recall": "hybrid recall",
    "hybrid_precision": "hybrid precision",
    "hybrid_injected": "injected",
}
#: Widths of a unit's picture, the widest that the terminal has room for is taken.
_PICTURE_WIDTHS = (16, 12, 8)
#: Columns that a terminal without room for all goes without, the first of them first; `show --unit` has them.
_SPARE = ("hybrid_injected", "peak_channel", "amplitude", "isi_violations")


def result_folder(recordings: tuple[Path, ...], output: Path | None) -> Path:
    """Return where the result of files that are one recording goes: `output`, else beside the first."""
    from spikecrsae.results.folder import default_result_path

    return output or default_result_path(*recordings)


def show_outcome(
    outcome: Outcome,
    folder: Path,
    as_json: bool,
    narrator: console.Narrator,
    remedy: str = "A lower --detection-threshold or another --highpass-hz may help.",
    **facts: Any,
) -> int:
    """Print the unit table, or the JSON document (with further facts of the caller); returns the exit code. remedy: what to
    do where no unit was found."""
    from spikecrsae.results.folder import REPORT

    sorting = outcome.sorting
    if as_json:
        console.print_json(_document(outcome, folder) | facts)
    elif sorting.n_units:
        print_units(sorting)
    for warning in outcome.warnings:
        narrator.say(f"Warning: {warning}")
    if sorting.n_units:
        narrator.say(
            f"{counted(len(sorting.spikes), 'spike')} of {counted(sorting.n_units, 'unit')} in {sorting.sorted_s:.1f} s; the result is in "
            f"{folder}"
        )
        narrator.say(f"open {shlex.quote(str(folder / REPORT))}")
        return 0
    console.say(
        f"No unit was found in {sorting.sorted_s:.1f} s of {counted(sorting.n_channels, 'channel')}; the result in {folder} is valid and "
        f"empty. {remedy}",
        err=True,
    )
    return EXIT_NO_UNITS


def print_units(sorting: SortingData) -> None:
    """The table of units, as many columns as there is room for, with a picture of each template on its peak channel."""
    from spikecrsae.cli import sketch

    names = [name for name in _SHOWN if name in sorting.units]
    headings, rows = _unit_rows(sorting, names)
    for spare in _SPARE:
        if spare in names and not console.fits(headings, rows):
            names.remove(spare)
            headings, rows = _unit_rows(sorting, names)
    for width in _PICTURE_WIDTHS if sorting.templates.size else ():
        pictures = [sketch.sparkline(wave, width, sketch.can_show()) for wave in _on_peak_channels(sorting)]
        drawn = [[*row, picture] for row, picture in zip(rows, pictures, strict=True)]
        if console.fits([*headings, "template"], drawn):
            return console.print_table([*headings, "template"], drawn)
    console.print_table(headings, rows)


def _unit_rows(sorting: SortingData, names: list[str]) -> tuple[list[str], list[list[Any]]]:
    """The headings of these columns, and a row for each unit."""
    headings = ["unit", *(_SHOWN[name].format(unit=sorting.amplitude_unit) for name in names)]
    rows = [[unit, *(_cell(sorting, name, row) for name in names)] for row, unit in enumerate(sorting.unit_ids)]
    return headings, rows


def _cell(sorting: SortingData, name: str, row: int) -> Any:
    """A unit's value; for its channel the recording's name of that, which a choice of channels does not change."""
    value, ids = sorting.units[name][row], sorting.channels.get("ids")
    return ids[value] if name == "peak_channel" and ids is not None and len(ids) == sorting.n_channels else value


def _on_peak_channels(sorting: SortingData) -> list[np.ndarray]:
    """The template of each unit on its peak channel, (n_times,)."""
    return [template[channel] for template, channel in zip(sorting.templates, sorting.peaks.channel, strict=True)]


def _document(outcome: Outcome, folder: Path) -> dict[str, Any]:
    return {
        "result": folder,
        **sorting_document(outcome.sorting),
        "device": outcome.device,
        "stage_seconds": outcome.stage_seconds,
        "warnings": outcome.warnings,
    }


def sorting_document(sorting: SortingData) -> dict[str, Any]:
    """What is to be said of a sorting as JSON: its size, what was left out, and every unit with all its columns."""
    return {
        "n_units": sorting.n_units,
        "n_spikes": len(sorting.spikes),
        "duration_s": sorting.duration_s,
        "amplitude_unit": sorting.amplitude_unit,
        "excluded_s": sorting.timeline.intervals_s(sorting.excluded).tolist(),
        "units": [unit_document(sorting, row) for row in range(sorting.n_units)],
    }


def unit_document(sorting: SortingData, row: int) -> dict[str, Any]:
    """One unit, by its row of the unit table."""
    columns = {name: values[row] for name, values in sorting.units.items() if name != "unit"}
    return {"unit": sorting.unit_ids[row], **columns}
