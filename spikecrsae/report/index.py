"""index.html of a batch: a row per recording with a link to its report, labels and quality; what failed comes first."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from spikecrsae.report.page import page
from spikecrsae.report.svg import escape
from spikecrsae.report.tables import Markup, Part, badge, table
from spikecrsae.system.text import counted

#: What a recording links to, the first that is there, in the folder of its result or of a run that was stopped.
_FILES = ("{}/report.html", "{}/units.csv", "{}.unfinished/run.log")
_LABELS = {"n_single": "single", "n_multi": "multi", "n_noise": "noise"}


def index_html(out: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    """The page for the batch in the folder `out`. rows: those of batch.json; links lead to the files that are there now."""
    names = short_names([row["recording"] for row in rows])
    linked = [(row, _link(out, row, name)) for row, name in zip(rows, names, strict=True)]
    failed = [pair for pair in linked if pair[0]["state"] in ("failed", "stopped")]
    done = [pair for pair in linked if pair not in failed]
    n_units = sum(row.get("n_units") or 0 for row, _ in done)
    said = [counted(len(rows), "recording"), f"{len(done)} sorted", counted(n_units, "unit", ",")]
    said += [f"{len(failed)} failed or stopped"] * bool(failed)
    warnings = [[link, str(warning)] for row, link in done for warning in row.get("warnings") or ()]
    sections = {
        "Failures": _failures(failed),
        "Recordings": _recordings(done),
        "Warnings": table(["recording", "warning"], warnings, "Warnings", "batch", order=True) if warnings else "",
    }
    return page(out.absolute().name, escape(" · ".join(said)), sections)


def short_names(recordings: Sequence[str | Path]) -> list[str]:
    """Return the paths without the folders that all of them share."""
    full = [os.path.abspath(path) for path in recordings]
    try:
        shared = os.path.commonpath([os.path.dirname(path) for path in full])
    except ValueError:  # none, or several drives
        return full
    return [os.path.relpath(path, shared) for path in full]


def _failures(failed: Sequence[tuple[Mapping[str, Any], Markup]]) -> str:
    rows = [[link, row["state"], row.get("error") or "The batch was stopped before it."] for row, link in failed]
    return table(["recording", "state", "reason"], rows, "Failures", "batch", order=True) if rows else ""


def _recordings(done: Sequence[tuple[Mapping[str, Any], Markup]]) -> str:
    if not done:
        return '<p class="none">No recording was sorted.</p>'
    headings = ["recording", "units", "spikes", "length (s)", "SNR", "false alarms (%)", "misses (%)"]
    rows = [
        [link, _labels(row), row.get("n_spikes"), row.get("duration_s"), row.get("snr"),
         _part(row.get("false_alarm")), _part(row.get("miss"))]
        for row, link in done
    ]  # fmt: skip
    note = "<p>SNR and the estimated false alarms and misses are medians over the units labelled single or multi.</p>"
    return note + table(headings, rows, "Recordings", "batch", order=True)


def _part(value: float | None) -> Part:
    return Part(math.nan if value is None else value)


def _labels(row: Mapping[str, Any]) -> Markup:
    """A badge for each label that units have."""
    badges = [badge(label, f"{row[name]} {label}") for name, label in _LABELS.items() if row.get(name)]
    return Markup(" ".join(badges) or str(row.get("n_units") or 0))


def _link(out: Path, row: Mapping[str, Any], name: str) -> Markup:
    """The recording's name, with a link to its report, or to what else is there."""
    folder = Path(str(row["folder"])).name
    found = next((place for place in (file.format(folder) for file in _FILES) if (out / place).is_file()), "")
    return Markup(f'<a href="{quote(found)}">{escape(name)}</a>' if found else escape(name))
