"""report.html: one page that holds everything it shows, readable without network and without the program.

What is drawn is in `pictures` and `unit_pictures`, the tables are in `tables`, looks and behaviour in `page`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikecrsae.data.sorting import LABELS, SortingData
from spikecrsae.report.over_time import over_time_picture
from spikecrsae.report.page import page
from spikecrsae.report.pictures import (
    color_class,
    cross_correlogram_picture,
    similarity_picture,
    traces_picture,
    tradeoff_pictures,
    training_pictures,
)
from spikecrsae.report.svg import Picture, escape
from spikecrsae.report.tables import (
    MOST_DECISIONS,
    badge,
    channel_table,
    decision_table,
    label_of,
    number,
    percent,
    quality_lists,
    score_table,
    table,
    trimmed,
    unit_table,
)
from spikecrsae.report.unit_pictures import amplitude_unit, channel_names, unit_pictures, value_of
from spikecrsae.score import Comparison, Tradeoff
from spikecrsae.system.text import counted

#: For a parameter, the prior that has it.
_PRIORS = {
    "spread": "Spike-and-slab prior: amplitudes lie near the template's, and each spike has a cost.",
    "lambda": "Laplace prior: lambda is the correlation from which a spike is taken.",
}


@dataclass(frozen=True)
class Truth:
    """Known spikes: where they are from, how the sorting compares with them, and a trade-off curve per truth unit that some
    unit matches."""

    source: str
    comparison: Comparison
    curves: Mapping[str, Tradeoff]


def report_html(sorting: SortingData, run: Mapping, truth: Truth | None = None) -> str:
    """The whole page. run: what run.json holds; whatever of it is missing is left out."""
    recording = run.get("recording") or {}
    name = Path(str(recording.get("path") or "a recording")).name
    sections = {
        "Summary": _summary(sorting, run),
        "Signal": _signal(sorting),
        "Units": _units(sorting, run),
        "Pairs": _pairs(sorting),
        "Training": _training(sorting),
        "Curation": _curation(sorting),
        "Truth": _truth(sorting, truth) if truth else "",
        "Settings": _settings(run),
    }
    return page(name, _subtitle(sorting, run), sections)


def _subtitle(sorting: SortingData, run: Mapping) -> str:
    made = [f"sorted by spikecrsae {run['spikecrsae']}"] if "spikecrsae" in run else []
    made += [str(run["began"]).replace("T", " ").replace("+00:00", " UTC")] if "began" in run else []
    return escape(" · ".join(made))


def _figure(picture: Picture, classes: str = "") -> str:
    """A picture with its title above and its note below; a wide one scrolls within its frame."""
    drawing = picture.svg
    if picture.wide:
        classes += " wide"
        drawing = f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(picture.title)}">{drawing}</div>'
    note = f"<p>{escape(picture.note)}</p>" if picture.note else ""
    return f'<figure class="{classes.strip()}"><figcaption><h4>{escape(picture.title)}</h4></figcaption>{drawing}{note}</figure>'


def _facts(facts: Mapping[str, str]) -> str:
    """Tiles: a number and what it is."""
    tiles = "".join(f"<div><dt>{escape(word)}</dt><dd>{escape(value)}</dd></div>" for word, value in facts.items())
    return f'<dl class="tiles">{tiles}</dl>'


def _summary(sorting: SortingData, run: Mapping) -> str:
    recording = run.get("recording") or {}
    labels = [label_of(sorting, index) for index in range(sorting.n_units)]
    kinds = ", ".join(f"{labels.count(kind)} {kind}" for kind in LABELS if kind in labels)
    left_out = float((sorting.excluded[:, 1] - sorting.excluded[:, 0]).sum()) / sorting.sampling_frequency
    places = "1 place" if len(sorting.excluded) == 1 else f"{len(sorting.excluded)} places"
    facts = {
        f"units: {kinds}" if kinds else "units": f"{sorting.n_units}",
        "spikes": f"{len(sorting.spikes):,}",
        "duration": f"{trimmed(sorting.duration_s)} s",
        "channels": f"{sorting.n_channels}",
        "sampling frequency": f"{trimmed(sorting.sampling_frequency / 1000)} kHz",
        f"left out, in {places}" if left_out else "left out": f"{trimmed(left_out, 3)} s",
    }
    if "seconds" in run:
        facts[f"computing, on {run.get('device', 'cpu')}"] = f"{trimmed(run['seconds'], 3)} s"
    rows = [
        (word, str(recording[key]))
        for word, key in (("file", "path"), ("format", "format"), ("checksum", "checksum"))
        if recording.get(key) is not None
    ]
    said = [*(recording.get("notes") or ()), *(run.get("warnings") or ())]
    notes = "".join(f"<li>{escape(note)}</li>" for note in said)
    listed = "".join(f"<div><dt>{escape(word)}</dt><dd>{escape(value)}</dd></div>" for word, value in rows)
    return (
        _facts(facts)
        + (f'<dl class="lines">{listed}</dl>' if listed else "")
        + (f'<ul class="notes">{notes}</ul>' if notes else "")
        + f"<details><summary>Channels</summary>{channel_table(sorting)}</details>"
        + _left_out(sorting)
    )


def _left_out(sorting: SortingData) -> str:
    """The intervals that were left out, on the recording's own clock."""
    if not len(sorting.excluded):
        return ""
    edges = sorting.timeline.intervals_s(sorting.excluded[:MOST_DECISIONS])
    rows = [[f"{start:.4f}", f"{stop:.4f}", f"{stop - start:.4f}"] for start, stop in edges]
    inner = table(["from (s)", "to (s)", "length (s)"], rows, "Intervals left out", "tall")
    if len(sorting.excluded) > MOST_DECISIONS:
        inner += f"<p>The first {MOST_DECISIONS:,} of {len(sorting.excluded):,}; run.json lists all.</p>"
    return f"<details><summary>Intervals left out</summary>{inner}</details>"


def _signal(sorting: SortingData) -> str:
    pictures = [picture for picture in (traces_picture(sorting), over_time_picture(sorting)) if picture]
    return "".join(map(_figure, pictures)) or '<p class="none">This sorting holds no example of its signal.</p>'


def _units(sorting: SortingData, run: Mapping) -> str:
    if not sorting.n_units:
        return '<p class="none">No unit was found.</p>'
    units = "".join(_unit(sorting, index, run) for index in range(sorting.n_units))
    return unit_table(sorting) + _chooser(sorting) + units


def _chooser(sorting: SortingData) -> str:
    """Buttons that show and hide units; the script brings them to life, without it all units are shown."""
    buttons = "".join(
        f'<button type="button" class="{color_class(index)}" data-unit="{unit}" aria-pressed="true">'
        f'<span class="swatch"></span>{unit}</button>'
        for index, unit in enumerate(sorting.unit_ids)
    )
    labels = [label_of(sorting, index) for index in range(sorting.n_units)]
    sets = ["all", "none", *(kind for kind in LABELS if kind in labels)]
    shortcuts = "".join(f'<button type="button" class="set" data-set="{name}">{name}</button>' for name in sets)
    return (
        '<div id="chooser" role="group" aria-label="Units that are shown" hidden><span>show</span>'
        f'{shortcuts}<span class="gap"></span>{buttons}</div>'
    )


def _unit(sorting: SortingData, index: int, run: Mapping) -> str:
    unit, label = int(sorting.unit_ids[index]), label_of(sorting, index)
    pictures = unit_pictures(sorting, index, run)
    figures = "".join(_figure(picture, "template" if picture.title == "Template" else "") for picture in pictures)
    return (
        f'<article class="unit {color_class(index)}" id="unit-{unit}" data-unit="{unit}" data-label="{escape(label)}" tabindex="-1">'
        f'<div class="head"><h3><span class="swatch"></span>Unit {unit}</h3>{badge(label)}<p>{escape(_headline(sorting, index))}</p></div>'
        f'<div class="figures">{figures}</div>{quality_lists(sorting, index)}</article>'
    )


def _headline(sorting: SortingData, index: int) -> str:
    """The few numbers of a unit that are read first."""
    count = len(sorting.spike_samples(sorting.unit_ids[index]))
    facts = [counted(count, "spike", ","), f"{trimmed(sorting.rate_hz(count), 3)} Hz"]
    if "peak_channel" in sorting.units:
        facts.append(channel_names(sorting)[int(sorting.units["peak_channel"][index])])
    if "amplitude" in sorting.units:
        facts.append(f"{number(value_of(sorting, 'amplitude', index))} {amplitude_unit(sorting)}")
    if "snr" in sorting.units:
        facts.append(f"SNR {number(value_of(sorting, 'snr', index))}")
    for name, word in (("false_alarm", "false alarms"), ("miss", "misses")):
        part, low, high = (value_of(sorting, f"{name}{end}", index) for end in ("", "_low", "_high"))
        if part == part:
            facts.append(f"{word} {percent(part)} % ({percent(low)} to {percent(high)})")
    before = [
        f"{word} {percent(part)} %"
        for name, word in (("false_alarm", "false alarms"), ("miss", "misses"))
        if (part := value_of(sorting, f"{name}_before", index)) == part
    ]
    facts += [f"before the self-test: {', '.join(before)}"] if before else []
    errors = {
        "hybrid_recall": "self-test recall",
        "hybrid_precision": "self-test precision",
    }
    parts = {word: value_of(sorting, name, index) for name, word in errors.items()}
    facts += [f"{word} {percent(part)} %" for word, part in parts.items() if part == part]
    return " · ".join(facts)


def _pairs(sorting: SortingData) -> str:
    pictures = [cross_correlogram_picture(sorting), similarity_picture(sorting)]
    figures = "".join(_figure(picture) for picture in pictures if picture)
    return f'<div class="stack">{figures}</div>' if figures else '<p class="none">There is no pair of units.</p>'


def _training(sorting: SortingData) -> str:
    figures = "".join(map(_figure, training_pictures(sorting)))
    prior = next((words for name, words in _PRIORS.items() if name in sorting.model_of_units), "")
    noise = ", ".join(trimmed(value) for value in np.atleast_1d(sorting.model.get("sigma", ())))  # one for each group
    told = (_facts({"sigma, noise of the whitened signal": noise}) if noise else "") + (f"<p>{prior}</p>" if prior else "")
    course = f'<div class="figures">{figures}</div>' if figures else '<p class="none">No training was recorded.</p>'
    return told + course


def _curation(sorting: SortingData) -> str:
    if not sorting.curation:
        return '<p class="none">No decision was recorded.</p>'
    n = len(sorting.curation)
    rest = f" The first {MOST_DECISIONS:,} are shown, all are in sorting.h5." if n > MOST_DECISIONS else ""
    return f"<p>{n:,} decisions about which units there are; an arrow leads to what became of a unit.{rest}</p>{decision_table(sorting)}"


def _truth(sorting: SortingData, truth: Truth) -> str:
    figures = "".join(map(_figure, tradeoff_pictures(truth.curves, truth.comparison, sorting).values()))
    tolerance = 1000 * truth.comparison.tolerance / truth.comparison.sampling_frequency
    intro = f"Known spikes from {truth.source}; each truth unit with the unit that agrees best; spikes match within {tolerance:.2g} ms."
    none = "" if figures else '<p class="none">No unit matches the truth.</p>'
    return f'<p>{escape(intro)}</p>{score_table(truth.comparison)}{none}<div class="figures">{figures}</div>'


def _settings(run: Mapping) -> str:
    """The configuration, the seconds per stage and the libraries, as they stand in run.json."""
    parts = []
    for title, key in (("Configuration", "config"), ("Seconds per stage", "stage_seconds"), ("Libraries", "libraries")):
        if run.get(key):
            text = json.dumps(run[key], indent=2, ensure_ascii=False, default=str)
            parts.append(f'<details><summary>{title}</summary><pre tabindex="0">{escape(text)}</pre></details>')
    return "".join(parts)
