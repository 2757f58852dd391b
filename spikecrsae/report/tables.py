"""The tables of report.html as HTML: the units, their quality columns, the curation's decisions, the scores, the channels."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from spikecrsae.data.sorting import LABELS, SortingData
from spikecrsae.decode.quality import ACCEPTED_ERROR
from spikecrsae.report.pictures import color_class
from spikecrsae.report.svg import escape, with_minus
from spikecrsae.report.unit_pictures import amplitude_unit, channel_names
from spikecrsae.score import Comparison

#: What stands in place of a number that is not known.
UNKNOWN = "\N{EN DASH}"
#: Shown in place of a bound on the contamination that says nothing, and why, on hover.
UNSURE = "unsure: too few spikes"
UNSURE_WHY = "Intervals below the refractory period allow a contamination from {low} to {high} %: the unit has too few spikes to tell."
#: An upper bound of the contamination above this says nothing, unless the lower bound is above ACCEPTED_ERROR.
_SAYS_NOTHING = 0.5
#: Rows of the table of decisions at most.
MOST_DECISIONS = 1000
#: Columns of the unit table that stand in the overview, with their headings; the rest stands with each unit.
_OVERVIEW = {
    "n_spikes": "spikes",
    "firing_rate": "rate (Hz)",
    "peak_channel": "channel",
    "amplitude": "amplitude ({unit})",
    "snr": "SNR",
    "isi_violations": "ISI violations (%)",
    "contamination_high": "contaminated at most (%)",
    "false_alarm": "false alarms (%)",
    "miss": "misses (%)",
    "drift": "drift (%)",
    "hybrid_recall": "self-test recall (%)",
    "hybrid_precision": "self-test precision (%)",
}
#: Columns that are parts of 1.
PARTS = (
    "contamination_high", "false_alarm", "false_alarm_low", "false_alarm_high", "miss", "miss_low", "miss_high", "drift",
    "hybrid_recall", "hybrid_precision",
)  # fmt: skip
#: How the quality columns stand together; a column that is in none of these stands under the last heading.
_GROUPS = {
    "Errors, estimated": (
        "false_alarm", "false_alarm_low", "false_alarm_high", "miss", "miss_low", "miss_high", "false_alarm_before",
        "miss_before", "hybrid_recall", "hybrid_precision", "hybrid_injected",
    ),
    "Refractory period": (
        "isi_violations", "isi_violations_count", "isi_violations_ratio", "rp_violations", "rp_contamination", "contamination_low",
        "contamination_high",
    ),
    "Activity": (
        "n_spikes", "firing_rate", "presence_ratio", "first_spike_s", "last_spike_s", "noise_at_spikes", "mains_locking", "pulse_locking", "reference_match"),
    "Amplitude": (
        "amplitude", "snr", "threshold", "amplitude_cv", "amplitude_cutoff", "noise_cutoff", "noise_ratio", "sd_ratio", "drift",
    ),
    "Waveform and isolation": (
        "peak_channel", "whitened_norm", "log_odds", "waveform_fill", "isolation_distance", "l_ratio", "curation_id",
    ),
}  # fmt: skip


def number(value: Any, digits: int = 3) -> str:
    """A number for reading: whole ones in full, others to some significant digits, a dash for what is not known."""
    if isinstance(value, str):
        return value
    value = value.item() if hasattr(value, "item") else value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return UNKNOWN
    if isinstance(value, (bool, int)):
        return with_minus(f"{value:,}") if not isinstance(value, bool) else ("yes" if value else "no")
    if not math.isfinite(value):
        return "∞" if value > 0 else with_minus("-∞")
    if value and not 1e-4 <= abs(value) < 1e6:
        return with_minus(f"{value:.{digits - 1}e}")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    return with_minus(f"{value:,.{decimals}f}")


def trimmed(value: float, digits: int = 4) -> str:
    """A number for reading without zeros at its end."""
    text = number(float(value), digits)
    return text.rstrip("0").rstrip(".") if "." in text and "e" not in text else text


def percent(part: float) -> str:
    """A part of 1 in per cent, to a hundredth."""
    if math.isnan(part):
        return UNKNOWN
    return "< 0.01" if 0 < part < 0.00005 else trimmed(100 * part, 3) if part >= 0.1 else f"{100 * part:.2f}"


def table(headings: Sequence[str], rows: Iterable[Sequence], label: str, classes: str = "", order: bool = False) -> str:
    """A table that scrolls within its frame. Cells are values, texts, or HTML (`Markup`); order: its headings are buttons that
    put its rows in order."""
    button = '<button type="button" class="order">{}</button>' if order else "{}"
    rows = list(rows)
    numeric = [not isinstance(cell, str) for cell in rows[0]] if rows else [False] * len(headings)
    head = "".join(
        f'<th scope="col"{" class=n" * right}>{button.format(escape(heading))}</th>'
        for heading, right in zip(headings, numeric, strict=True)
    )
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>" for row in rows)
    return (
        f'<div class="scroll {classes}" role="region" tabindex="0" aria-label="{escape(label)}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


class Part(float):
    """A part of 1 that is shown in per cent."""

    __slots__ = ()


class Unsure(Part):
    """A bound that says nothing; words stand in its place, and why on hover."""

    why: str


def _contamination(sorting: SortingData, index: int) -> Part:
    """The largest contamination of a unit that refractory violations allow."""
    high = float(sorting.units["contamination_high"][index])
    low = float(sorting.units["contamination_low"][index]) if "contamination_low" in sorting.units else 0.0
    if not high > _SAYS_NOTHING or low > ACCEPTED_ERROR:
        return Part(high)
    unsure = Unsure(high)
    unsure.why = UNSURE_WHY.format(low=percent(low), high=percent(high))
    return unsure


def _cell(value: Any) -> str:
    if isinstance(value, Markup):
        return f"<td>{value}</td>"
    if isinstance(value, str):
        return f"<td>{escape(value)}</td>"
    exact = value.item() if hasattr(value, "item") else value
    known = exact is not None and exact == exact
    if isinstance(value, Unsure):
        return f'<td data-value="{exact}"><abbr title="{escape(value.why)}">{UNSURE}</abbr></td>'
    shown = percent(value) if isinstance(value, Part) else number(value)
    return f'<td class="n" data-value="{escape(exact) if known else ""}">{escape(shown)}</td>'


def unit_name(sorting: SortingData, index: int) -> Markup:
    """A unit as a link to its pictures, with its colour."""
    unit = int(sorting.unit_ids[index])
    return Markup(f'<a href="#unit-{unit}" class="{color_class(index)}"><span class="swatch"></span>{unit}</a>')


def label_of(sorting: SortingData, index: int) -> str:
    return str(sorting.units["label"][index]) if "label" in sorting.units else ""


def badge(label: str, text: str = "") -> Markup:
    """A label in its colour; text: what stands there in its place."""
    known = label if label in LABELS else ""
    return Markup(f'<span class="badge {known}">{escape(text or label)}</span>' if label else "")


def unit_table(sorting: SortingData) -> str:
    """One row per unit: what it is, how much there is of it, and how far it can be trusted."""
    shown = [name for name in _OVERVIEW if name in sorting.units]
    headings = ["unit", "label", *(_OVERVIEW[name].format(unit=amplitude_unit(sorting)) for name in shown)]
    names = channel_names(sorting)
    rows = []
    for index in range(sorting.n_units):
        cells = [Part(sorting.units[name][index]) if name in PARTS else sorting.units[name][index] for name in shown]
        if "peak_channel" in shown:
            cells[shown.index("peak_channel")] = names[int(sorting.units["peak_channel"][index])]
        if "contamination_high" in shown:
            cells[shown.index("contamination_high")] = _contamination(sorting, index)
        rows.append([unit_name(sorting, index), badge(label_of(sorting, index)), *cells])
    return table(headings, rows, "All units", "units", order=True)


def quality_lists(sorting: SortingData, index: int) -> str:
    """Every column of the unit table for one unit, in groups, under the names that units.csv gives them."""
    grouped = {name for names in _GROUPS.values() for name in names} | {"label", "unit"}
    groups = dict(_GROUPS) | {"Further": tuple(name for name in sorting.units if name not in grouped)}
    parts = []
    for heading, names in groups.items():
        rows = "".join(
            f"<div><dt>{escape(name)}</dt><dd>{escape(number(sorting.units[name][index]))}</dd></div>"
            for name in names
            if name in sorting.units
        )
        if rows:
            parts.append(f"<section><h4>{escape(heading)}</h4><dl>{rows}</dl></section>")
    return f'<div class="quality">{"".join(parts)}</div>' if parts else ""


def decision_table(sorting: SortingData) -> str:
    """The decisions about the set of units, in their order; units by curation_id, and what became of them."""
    became = {}
    if "curation_id" in sorting.units:
        # a unit that was merged by hand has no name of its own there
        became = {int(old): index for index, old in enumerate(sorting.units["curation_id"]) if np.isfinite(old)}
    own = ("round", "decision", "units", "statistic", "level", "n", "why", "similarity")
    rows = []
    for row in sorting.curation[:MOST_DECISIONS]:
        units = ", ".join(
            f"{int(old)} → {unit_name(sorting, became[int(old)])}" if int(old) in became else str(int(old))
            for old in row.get("units", ())
        )
        reason = [str(row["why"])] if row.get("why") else []
        reason += [f"similarity {number(row['similarity'])}"] if row.get("similarity") is not None else []
        reason += [f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in row.items() if name not in own]
        rows.append(
            [row.get("round"), str(row.get("decision", "")), Markup(units), row.get("statistic"), row.get("level"), row.get("n"),
             "; ".join(reason)]
        )  # fmt: skip
    headings = ["round", "decision", "units (curation_id)", "statistic", "level", "spikes", "reason"]
    return table(headings, rows, "Decisions of the curation", "tall", order=True)


def score_table(comparison: Comparison) -> str:
    """Every truth unit against its best match."""
    headings = ["truth", "spikes", "unit", "found", "accuracy", "precision", "recall", "miss (%)", "false alarm (%)"]
    rows = [
        [r.truth, r.n_truth, r.test or UNKNOWN, r.tp, r.accuracy, r.precision, r.recall, Part(r.miss),
         Part(r.false_alarm if r.test is not None else math.nan)]
        for r in comparison.best_rows
    ]  # fmt: skip
    return table(headings, rows, "Scores against the truth", order=True)


def channel_table(sorting: SortingData) -> str:
    """The channels: name, position, noise level, whether they were used."""
    names, channels = channel_names(sorting), sorting.channels
    headings: list[str] = ["channel"]
    columns: list[Iterable] = [names]
    if "positions" in channels:
        headings += ["x (µm)", "y (µm)"]
        columns += list(np.asarray(channels["positions"], float).T[:2])
    if "noise_level" in channels:
        headings.append(f"noise level ({amplitude_unit(sorting)})")
        columns.append(channels["noise_level"])
    if "masked" in channels:
        headings.append("used")
        columns.append(["no, flat or saturated" if masked else "yes" for masked in channels["masked"]])
    return table(headings, zip(*columns, strict=True), "Channels")
