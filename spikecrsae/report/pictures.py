"""The pictures of a whole sorting: a stretch of signal, pairs of units, the training, misses against false alarms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from spikecrsae.data.sorting import SortingData
from spikecrsae.report.correlograms import correlograms, template_similarity
from spikecrsae.report.svg import Drawing, Panel, Picture, axes, round_length, span_of, with_minus
from spikecrsae.report.unit_pictures import amplitude_unit, channel_names
from spikecrsae.score import Comparison, Tradeoff, UnitScore
from spikecrsae.system.text import counted
from spikecrsae.units import ms_to_samples

#: How many colours page.css has for units; they repeat after that.
N_COLORS = 8
#: Units of the matrices at most: of correlograms, and of similarities.
MOST_CROSSED, MOST_COMPARED = 12, 40
CROSS_MS, CROSS_BIN_MS = 25, 1.0
_TRACES_WIDTH, _NAMES = 1228, 84
#: Units that are named beside their lines at most, and the height of a name.
MOST_NAMED, _NAME_STEP = 12, 13
#: For each parameter of a prior: title, axis, and what it is.
_COURSES = {
    "spread": (
        "Spread",
        "spread",
        "standard deviation of a unit's spike amplitudes relative to its template, without the noise",
    ),
    "penalty": ("Penalty", "penalty (log odds)", "what each spike must make good by its fit; the rarer a unit, the higher"),
    "lambda": ("Lambda", "lambda", "correlation from which a spike is taken, in noise levels; the higher, the fewer spikes"),
}


def color_class(index: int) -> str:
    """The CSS class that gives a unit its colour, by its row in the unit table; the same in every picture."""
    return f"u{index % N_COLORS}"


def traces_picture(sorting: SortingData) -> Picture | None:
    """The sorting's example of signal with its spikes and the reconstruction; None where the sorting holds none."""
    traces, first = sorting.example, sorting.example_start
    if not len(traces):
        return None
    stop, fs = first + len(traces), sorting.sampling_frequency
    spikes = sorting.spikes[(sorting.spikes["sample"] >= first) & (sorting.spikes["sample"] < stop)]
    firing = [row for row, unit in enumerate(sorting.unit_ids) if np.any(spikes["unit"] == unit)]
    times = sorting.times_s(np.arange(first, stop))
    x = times[0], times[-1]
    # steps below the largest excursion: such are rare and short, and may reach into the next channel
    step = 0.75 * (np.ptp(traces, axis=0).max() or 1.0)
    lifted = traces - step * np.arange(traces.shape[1])
    raster_height, height = 17 * max(len(firing), 1), max(54, 90 - 3 * traces.shape[1]) * traces.shape[1] + 30
    drawing = Drawing(_TRACES_WIDTH, raster_height + height + 62)
    width = _TRACES_WIDTH - _NAMES - 70
    _raster(drawing.panel(_NAMES, 8, width, raster_height, x, (len(firing) or 1, 0)), sorting, spikes, firing)
    panel = drawing.panel(_NAMES, raster_height + 16, width, height, x, span_of(lifted, room=0.02))
    for channel, name in enumerate(channel_names(sorting)):
        drawing.text(_NAMES - 8, panel.down(-step * channel) + 3.5, name, "t-right")
        panel.line(times, lifted[:, channel], "trace")
    _colour_spikes(panel, sorting, spikes, times, lifted, firing)
    reconstruction = sorting.reconstruction(first, stop)
    # between the spikes it is zero and would only strike out the noise
    visible = np.where(np.abs(reconstruction) > 0.01 * np.ptp(traces), reconstruction, np.nan) + lifted - traces
    for channel in range(traces.shape[1]):
        panel.line(times, visible[:, channel], "model")
    panel.x_axis("time (s)", 8)
    bar = round_length(0.5 * step)
    panel.scale_bar(bar, f"{bar:g} {amplitude_unit(sorting)}")
    note = (
        f"high-passed signal, the {1000 * len(traces) / fs:.0f} ms in which most units fire: {counted(len(spikes), 'spike', ',')} of "
        f"{counted(len(firing), 'unit')}; in a unit's colour where its template lies; thin line over it: reconstruction "
        "from templates and amplitudes"
    )
    label = f"Traces of {counted(traces.shape[1], 'channel')} with {counted(len(spikes), 'spike')} and their reconstruction"
    return Picture("Signal, spikes and reconstruction", drawing, label, note, wide=True)


def _raster(panel: Panel, sorting: SortingData, spikes: np.ndarray, firing: list[int]) -> None:
    """One row of marks per firing unit."""
    for place, row in enumerate(firing):
        samples = spikes["sample"][spikes["unit"] == sorting.unit_ids[row]]
        with panel.drawing.group(color_class(row)):
            panel.marks(sorting.times_s(samples), place + 0.9, place + 0.15, "mark")
        panel.drawing.text(panel.left - 8, panel.down(place + 0.5) + 3.5, f"unit {sorting.unit_ids[row]}", "t-right")


def _colour_spikes(
    panel: Panel, sorting: SortingData, spikes: np.ndarray, times: np.ndarray, lifted: np.ndarray, firing: list[int]
) -> None:
    """The signal (n_samples, n_channels) again in the unit's colour wherever its template lies."""
    n_times = sorting.templates.shape[2]
    for row in firing:
        mine = spikes["sample"][spikes["unit"] == sorting.unit_ids[row]]
        inside = (mine - sorting.peak_index[row] - sorting.example_start)[:, None] + np.arange(n_times)
        covered = np.zeros(len(times), bool)
        covered[inside[(inside >= 0) & (inside < len(times))]] = True
        with panel.drawing.group(color_class(row)):
            for wave in lifted.T[sorting.templates[row].any(axis=1)]:
                panel.line(times, np.where(covered, wave, np.nan), "line")


def cross_correlogram_picture(sorting: SortingData) -> Picture | None:
    """Correlograms of all pairs of units, at most MOST_CROSSED of them; None where there is no pair."""
    if sorting.n_units < 2:
        return None
    counted = np.array([np.sum(sorting.spikes["unit"] == unit) for unit in sorting.unit_ids])
    rows = np.sort(np.argsort(-counted, kind="stable")[:MOST_CROSSED])
    spikes = sorting.spikes[np.isin(sorting.spikes["unit"], sorting.unit_ids[rows])]
    which = np.zeros(len(spikes), np.int64)
    for place, unit in enumerate(sorting.unit_ids[rows]):
        which[spikes["unit"] == unit] = place
    bin_size = max(1, ms_to_samples(CROSS_BIN_MS, sorting.sampling_frequency))
    n_half = round(CROSS_MS / CROSS_BIN_MS)
    counts = correlograms(spikes["sample"], which, len(rows), bin_size, n_half)
    cell = float(np.clip(700 / len(rows), 74, 144))
    drawing = Drawing(70 + cell * len(rows), 40 + 0.75 * cell * len(rows))
    edges = np.arange(-n_half, n_half + 1) * bin_size / sorting.sampling_frequency * 1000
    for i in range(len(rows)):
        for j in range(i + 1):
            chance = counted[rows[i]] * counted[rows[j]] * bin_size / sorting.n_samples
            top = max(counts[i, j].max(), chance, 1)
            panel = drawing.panel(
                64 + j * cell, 6 + i * 0.75 * cell, cell - 8, 0.75 * cell - 8, (edges[0], edges[-1]), (0, top)
            )
            a, b = sorting.unit_ids[rows[i]], sorting.unit_ids[rows[j]]
            with drawing.group(
                color_class(int(rows[i])) if i == j else "pair", f"unit {a} after unit {b}: {counts[i, j].sum():,} pairs"
            ):
                drawing.rect(panel.left, panel.top, panel.width, panel.height, "cell")
                panel.bars(edges, counts[i, j], "bars")
                panel.upright(0.0, "grid")
                panel.level(chance, "rule")
            if j == 0:
                drawing.text(58, panel.top + panel.height / 2 + 3.5, f"unit {a}", "t-right")
            if i == len(rows) - 1:
                panel.x_axis(at=[-CROSS_MS, 0] if j < i else [-CROSS_MS, 0, CROSS_MS])
                drawing.text(panel.left + panel.width / 2, panel.bottom + 30, f"unit {b}", "t-middle")
    left_out = f"the {len(rows)} of {sorting.n_units} units with the most spikes; " if len(rows) < sorting.n_units else ""
    note = (
        f"{left_out}spikes of the row's unit after those of the column's, lag in ms; each panel from 0 to its own maximum; dashed: "
        "independent units of these rates; on the diagonal, auto-correlograms"
    )
    return Picture("Cross-correlograms", drawing, f"Cross-correlograms of {len(rows)} units", note, wide=True)


def similarity_picture(sorting: SortingData) -> Picture | None:
    """Cosine of every two templates as a matrix, of the first MOST_COMPARED units; None where there is no pair."""
    n = min(len(sorting.templates), MOST_COMPARED)
    if n < 2:
        return None
    similarity = template_similarity(sorting.templates[:n])
    cell, numbers = float(np.clip((340 if n <= 8 else 560) / n, 18, 60)), n <= 16
    drawing = Drawing(70 + n * cell, 34 + n * cell)
    for i in range(n):
        a = sorting.unit_ids[i]
        drawing.text(58, 6 + (i + 0.5) * cell + 3.5, f"unit {a}", "t-right")
        drawing.text(64 + (i + 0.5) * cell, 6 + n * cell + 16, a if n > 8 else f"unit {a}", "t-middle")
        for j in range(n):
            value = float(np.clip(similarity[i, j], 0, 1))
            with drawing.group("pair", f"units {a} and {sorting.unit_ids[j]}: {similarity[i, j]:.3f}"):
                x, y = 64 + j * cell, 6 + i * cell
                drawing.rect(x, y, cell - 2, cell - 2, "cell")
                drawing.rect(x, y, cell - 2, cell - 2, "heat", value)
                if numbers:
                    text = with_minus(f"{similarity[i, j]:.2f}")
                    drawing.text(x + cell / 2 - 1, y + cell / 2 + 3, text, "t-middle label")
    left_out = f"the {n} largest of {sorting.n_units} units; " if n < sorting.n_units else ""
    note = f"{left_out}cosine of two templates over all channels, at the lag where it is largest"
    return Picture("Similarity of templates", drawing, f"Template similarity of {n} units", note, wide=not numbers)


def training_pictures(sorting: SortingData) -> list[Picture]:
    """The course of the prior's parameters, one picture for each, one line per unit; none where no training was recorded."""
    pictures = []
    for name, (title, label, note) in _COURSES.items():
        if f"{name}_history" not in sorting.model_of_units:
            continue
        course = np.asarray(sorting.model[f"{name}_history"], float)
        shown = np.flatnonzero(np.isfinite(course).any(axis=0))
        if len(shown):
            each = f"{note}; one line per unit, from the round on in which the unit came"
            drawing = _course(course, shown, sorting.unit_ids, label)
            pictures.append(Picture(title, drawing, f"{title} of {counted(len(shown), 'unit')} per round of training", each))
    return pictures


def _course(course: np.ndarray, shown: np.ndarray, unit_ids: np.ndarray, label: str) -> Drawing:
    """course (n_rounds, n_units) of the units `shown`, named at the right where they are at most MOST_NAMED."""
    rounds, n_rounds = np.arange(1, len(course) + 1), len(course)
    named = len(shown) <= MOST_NAMED
    # the names stand beyond the last round, each joined to the end of its line
    room = 0.5 + 0.06 * n_rounds
    drawing, panel = axes(380, 220, (0.5, n_rounds + room), span_of(course, room=0.08), (12, 52 if named else 14, 40, 58))
    panel.y_axis(label, away=46)
    last = np.array([np.flatnonzero(np.isfinite(course[:, row]))[-1] for row in shown])
    ends = course[last, shown]
    places = _apart(panel.down(ends), _NAME_STEP, panel.bottom)
    for row, at, end, place in zip(shown, last, ends, places, strict=True):
        with drawing.group(color_class(row), f"unit {unit_ids[row]}: {with_minus(f'{end:.3g}')} at the end"):
            panel.line(rounds, course[:, row], "line")
            panel.points(rounds[at : at + 1], [end], "dots large")
            if named:
                value = panel.y[0] + (panel.bottom - place) / panel.height * (panel.y[1] - panel.y[0])
                panel.line([rounds[at], n_rounds + room], [end, value], "join")
                drawing.text(panel.right + 4, place + 3.5, f"unit {unit_ids[row]}")
    panel.x_axis("round of training", at=rounds[:: -(-n_rounds // 10)])
    return drawing


def _apart(places: np.ndarray, step: float, end: float) -> np.ndarray:
    """The places (n,) moved so far that neighbours are `step` apart and none lies beyond `end`, in the same order."""
    order, found = np.argsort(places, kind="stable"), np.array(places, float)
    for before, after in pairwise(order):
        found[after] = max(found[after], found[before] + step)
    for place, k in enumerate(order[::-1]):
        found[k] = min(found[k], end - place * step)
    return found


def tradeoff_pictures(curves: Mapping[str, Tradeoff], comparison: Comparison, sorting: SortingData) -> dict[str, Picture]:
    """Draw the trade-off curve of each truth unit against its best match in the sorting."""
    rows = {str(unit): row for row, unit in enumerate(sorting.unit_ids)}
    found = {row.truth: row for row in comparison.best_rows}
    return {name: _tradeoff_picture(curve, found[name], rows[str(found[name].test)]) for name, curve in curves.items()}


def _tradeoff_picture(curve: Tradeoff, found: UnitScore, row: int) -> Picture:
    """Draw misses against false alarms while the unit's threshold rises, with the sorting as it stands; as Fig. 10 of the paper.

    found: the best match. row: of the unit in the unit table.
    """
    truth, unit, miss, false_alarm = found.truth, found.test, found.miss, found.false_alarm
    right = float(np.clip(115 * max([*curve.false_alarm, false_alarm]), 5, 102))
    # the corner is what matters
    top = float(np.clip(max(300 * miss, 10.0), 10, 102))
    # zero lies a little inside, so that a curve along an axis is seen whole
    drawing, panel = axes(380, 300, (-0.02 * right, right), (-0.02 * top, top))
    panel.y_axis("misses (% of the true spikes)")
    with drawing.group(color_class(row)):
        kept = 100 * curve.miss <= top
        panel.line(100 * curve.false_alarm, np.where(kept, 100 * curve.miss, np.nan), "line")
        panel.points(100 * curve.false_alarm[kept], 100 * curve.miss[kept], "dots")
    panel.points([100 * false_alarm], [100 * miss], "here")
    panel.x_axis("false alarms (% of the unit's spikes)")
    note = f"large dot: this sorting, {100 * miss:.1f} % missed, {100 * false_alarm:.1f} % false; along the curve the threshold on the {curve.kind} rises"
    return Picture(f"Truth {truth}, unit {unit}", drawing, f"Misses against false alarms, truth {truth}", note)


def calibration_picture(curve: Mapping[str, Sequence[float]], error: float) -> Picture:
    """Draw the part of the spikes that is right against their probability, in bins of equal counts. curve: `probability` and `right`
    of each bin. error: the expected calibration error."""
    probability, right = (100 * np.asarray(curve[name], float) for name in ("probability", "right"))
    # the whole scale, unless all of it is near 100 %
    lowest = float(np.nanmin([probability, right], initial=100))
    span = span_of(probability, right, least=(0, 100) if lowest < 50 else (lowest, 100))
    drawing, panel = axes(380, 300, span, span)
    panel.y_axis("right (% of the spikes)")
    panel.line(span, span, "rule")
    with drawing.group(color_class(0)):
        panel.line(probability, right, "line")
        panel.points(probability, right, "dots large")
    panel.x_axis("mean probability (%)")
    note = (
        f"each dot is a tenth of the spikes; on the diagonal, probabilities are true. Expected calibration error {error:.4f}"
    )
    return Picture("Calibration", drawing, "Part of right spikes against their probability", note)
