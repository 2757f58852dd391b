"""spikecrsae compare: two sortings of one recording, neither of them the truth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from spikecrsae.cli import console
from spikecrsae.cli.options import Command, Name, json_option, option, tolerance_option, verbose_option
from spikecrsae.system.text import counted

if TYPE_CHECKING:
    from spikecrsae.score.metrics import Comparison

_SHOWN_FROM = 0.005


@click.command(cls=Command, short_help="Compare two sortings with each other.")
@click.argument("a", type=Name())
@click.argument("b", type=Name())
@tolerance_option
@option(
    "--sampling-frequency",
    type=float,
    metavar="HZ",
    help="Samples per second, where neither A nor B is a result of spikecrsae.",
)
@json_option
@verbose_option
@console.narrated
def compare(
    a: Path,
    b: Path,
    tolerance_ms: float,
    sampling_frequency: float | None,
    as_json: bool,
    narrator: console.Narrator,
) -> None:
    """Compare sorting A with sorting B: which units agree, and which are in one of them only.

    A and B are result folders, their sorting.h5, or spike times in any form that score --truth takes.
    """
    from spikecrsae.score import compare as compare_trains
    from spikecrsae.score.pair import read_pair

    first, second, rate = read_pair(a, b, sampling_frequency)
    comparison = compare_trains(first, second, rate, tolerance_ms, symmetric=True)
    if as_json:
        console.print_json({"a": a, "b": b, **_document(comparison)})
    else:
        _show(comparison)


def _document(comparison: Comparison) -> dict:
    values = comparison.to_dict()
    rows = [
        {"a": row.truth, "b": row.test, "n_a": row.n_truth, "n_b": row.n_test, "matched": row.tp, "agreement": row.accuracy}
        for row in comparison.rows
    ]
    return {
        "sampling_frequency": comparison.sampling_frequency,
        "tolerance_samples": comparison.tolerance,
        "units_a": values["truth_units"],
        "units_b": values["test_units"],
        "match_counts": values["match_counts"],
        "agreement": values["agreement"],
        "matches": rows,
        "only_in_a": _only_in_a(comparison),
        "only_in_b": _only_in_b(comparison),
    }


def _only_in_a(comparison: Comparison) -> list[str]:
    return [name for name in comparison.truth_names if name not in comparison.one_to_one]


def _only_in_b(comparison: Comparison) -> list[str]:
    return [name for name in comparison.test_names if name not in comparison.one_to_one.values()]


def _show(comparison: Comparison) -> None:
    """The agreement of every pair, the matches, and who has none."""
    names, scores = comparison.test_names, comparison.agreement
    # as many columns at a time as the terminal has room for
    size = max(1, (console.width() - 10) // (max(map(len, names), default=0) + 8))
    for first in range(0, len(names), size):
        columns = range(first, min(first + size, len(names)))
        rows = [
            [name, *(f"{scores[i, j]:.2f}" if scores[i, j] >= _SHOWN_FROM else "." for j in columns)]
            for i, name in enumerate(comparison.truth_names)
        ]
        if rows:
            title = "Agreement (A down, B across)"
            console.print_table(["A \\ B", *(names[j] for j in columns)], rows, title if first == 0 else "")
    matches = [
        [r.truth, r.n_truth, r.test, r.n_test, r.tp, f"{r.accuracy:.3f}"] for r in comparison.rows if r.test is not None
    ]
    if matches:
        console.print_table(["unit of A", "spikes", "unit of B", "spikes", "matched", "agreement"], matches, "Matches")
    only_a, only_b = _only_in_a(comparison), _only_in_b(comparison)
    click.echo(f"{counted(len(matches), 'unit')} {'matches' if len(matches) == 1 else 'match'} (agreement of at least 0.5)")
    console.say(f"only in A: {len(only_a)}{' (' + ', '.join(only_a) + ')' if only_a else ''}")
    console.say(f"only in B: {len(only_b)}{' (' + ', '.join(only_b) + ')' if only_b else ''}")
