"""spikecrsae show: a sorting in the terminal."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spikecrsae.cli import console
from spikecrsae.cli.options import Command, Name, json_option, option, verbose_option
from spikecrsae.errors import UsageError
from spikecrsae.system.json_values import to_json
from spikecrsae.system.text import counted

if TYPE_CHECKING:
    from spikecrsae.data.sorting import SortingData

#: Units of the quality columns that have one; {unit} is the recording's.
_MEASURED_IN = {
    "firing_rate": "Hz",
    "isi_violations": "% of intervals below 1.5 ms",
    "amplitude": "{unit}",
    "threshold": "{unit}",
    "isi_violations_count": "intervals",
    "rp_violations": "pairs of spikes",
    "whitened_norm": "noise levels",
    "snr": "noise levels",
}
_ISI_MS, _ISI_BINS, _ISI_HEIGHT = 50, 50, 6
_WAVE_WIDTH, _WAVE_HEIGHT = 36, 6


@click.command(cls=Command, short_help="Show a sorting again, or one unit in detail.")
@click.argument("sorting", type=Name())
@option("--unit", type=int, metavar="N", help="Show this unit in detail: columns, template, intervals, decisions.")
@json_option
@verbose_option
@console.narrated
def show(sorting: Path, unit: int | None, as_json: bool, narrator: console.Narrator) -> None:
    """Show SORTING in the terminal: the table of its units, or one unit in detail.

    SORTING is a result folder, its sorting.h5, or a folder curated in Phy or its params.py.
    """
    from spikecrsae.cli.result import print_units, sorting_document
    from spikecrsae.run.curated import open_sorting

    stored = open_sorting(sorting)[0]
    if unit is not None:
        row = _row(stored, unit, sorting)
        console.print_json(_document(stored, row)) if as_json else _show_unit(stored, row)
    elif as_json:
        console.print_json({"result": sorting, **sorting_document(stored)})
    else:
        if stored.n_units:
            print_units(stored)
        click.echo(f"{counted(len(stored.spikes), 'spike')} of {counted(stored.n_units, 'unit')} in {stored.sorted_s:.1f} s")


def _row(sorting: SortingData, unit: int, path: Path) -> int:
    """Place of a unit in the unit table; UsageError where it has none."""
    ids = sorting.unit_ids.tolist()
    if unit not in ids:
        raise UsageError(f"--unit {unit} does not exist; {path} has the units {', '.join(map(str, ids)) or 'none'}.")
    return ids.index(unit)


def _decisions(sorting: SortingData, row: int) -> list[dict[str, Any]]:
    """The curation's decisions in which a unit had a part, under the name that it had there."""
    if "curation_id" not in sorting.units:
        return []
    name = int(sorting.units["curation_id"][row])
    return [decision for decision in sorting.curation if name in decision["units"]]


def _intervals(sorting: SortingData, row: int) -> Any:
    """Counts of a unit's inter-spike intervals in _ISI_BINS bins up to _ISI_MS, (n_bins,), and of all of them."""
    import numpy as np

    intervals = np.diff(sorting.spike_samples(sorting.unit_ids[row])) / sorting.sampling_frequency * 1000
    return np.histogram(intervals, _ISI_BINS, (0, _ISI_MS))[0], len(intervals)


def _document(sorting: SortingData, row: int) -> dict[str, Any]:
    from spikecrsae.cli.result import unit_document

    return {
        **unit_document(sorting, row),
        "amplitude_unit": sorting.amplitude_unit,
        "template": sorting.templates[row],
        "channel_ids": sorting.channels.get("ids", []),
        "isi_histogram": {"bin_ms": _ISI_MS / _ISI_BINS, "counts": _intervals(sorting, row)[0]},
        "curation": _decisions(sorting, row),
    }


def _show_unit(sorting: SortingData, row: int) -> None:
    from spikecrsae.cli import sketch

    fine = sketch.can_show()
    _show_columns(sorting, row)
    if sorting.templates.size:
        _show_template(sorting, row, fine)
    _show_intervals(sorting, row, fine)
    decisions = _decisions(sorting, row)
    if decisions:
        details = [", ".join(f"{k} {v}" for k, v in d.items() if k not in _DECISION) for d in decisions]
        rows = [
            [d["decision"], "+".join(map(str, d["units"])), d["statistic"], d["level"], detail]
            for d, detail in zip(decisions, details, strict=True)
        ]
        name = int(sorting.units["curation_id"][row])
        title = f"Decisions of the curation, where it is unit {name}"
        console.print_table(["decision", "units", "statistic", "level", "detail"], rows, title, left=("decision", "detail"))


_DECISION = ("decision", "units", "statistic", "level")


def _show_columns(sorting: SortingData, row: int) -> None:
    """Every column of the unit table, a line each."""
    click.echo(f"unit {sorting.unit_ids[row]}, {counted(len(sorting.spike_samples(sorting.unit_ids[row])), 'spike')}")
    for name, values in sorting.units.items():
        value = to_json(values[row])
        text = "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
        unit = _MEASURED_IN.get(name, "").format(unit=sorting.amplitude_unit)
        console.say(f"  {name:<22} {text:>10} {unit}".rstrip())


def _show_template(sorting: SortingData, row: int, fine: bool) -> None:
    """The template on every channel, all to the same scale, as many side by side as the terminal has room for."""
    from spikecrsae.cli import sketch

    template = sorting.templates[row]
    low, high = float(template.min()), float(template.max())
    names = sorting.channels.get("ids", range(len(template)))
    before = 1000 * sorting.peak_index[row] / sorting.sampling_frequency
    after = 1000 * template.shape[1] / sorting.sampling_frequency - before
    click.echo()
    console.say(
        f"template from -{before:.2g} to {after:.2g} ms about its peak; {low:.3g} to {high:.3g} {sorting.amplitude_unit} in every box"
    )
    beside = max(1, (console.width() + 2) // (_WAVE_WIDTH + 2))
    for first in range(0, len(template), beside):
        channels = range(first, min(first + beside, len(template)))
        console.say("  ".join(f"channel {names[c]}".ljust(_WAVE_WIDTH) for c in channels).rstrip())
        drawn = [sketch.curve(template[c], _WAVE_WIDTH, _WAVE_HEIGHT, low, high, fine) for c in channels]
        for line in zip(*drawn, strict=True):
            click.echo("  ".join(line).rstrip())


def _show_intervals(sorting: SortingData, row: int, fine: bool) -> None:
    from spikecrsae.cli import sketch

    counts, n = _intervals(sorting, row)
    click.echo(f"\nintervals between successive spikes below {_ISI_MS} ms: {counts.sum()} of {n}")
    for line in sketch.histogram(counts, _ISI_HEIGHT, fine):
        click.echo("|" + line.rstrip())
    axis = "".join(f"{ms:<10}" for ms in range(0, _ISI_MS, 10))
    click.echo("+" + "-" * _ISI_BINS + f"\n {axis}{_ISI_MS} ms; tallest column {counts.max(initial=0)}")
