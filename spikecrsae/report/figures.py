"""The pictures of a result, as PNG. Each function draws one Figure, writes it to `path` and returns it.

path is a file name or a binary file object. Figures stand alone (no pyplot), so that no state survives a call. A unit has the
same colour in all of them; the palette (after Okabe and Ito) can be told apart with any colour vision.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from spikecrsae.data.sorting import Sorting
from spikecrsae.score import Tradeoff
from spikecrsae.system.text import counted, visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A2E0E", "#4B2E83")
INK, GREY, PALE = "#222222", "#8A8A8A", "#DDDDDD"
_LONGEST_NAME = 16
_DPI = 130


def png_files(sorting: Sorting) -> dict[str, bytes]:
    """The pictures of a result folder, by file name: templates, the sorting's example of its signal, and the training. They
    look the same whatever matplotlib was told elsewhere."""
    import matplotlib

    start, traces = sorting.example_start, sorting.example
    reconstruction = sorting.reconstruction(start, start + len(traces))
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        return {
            "templates.png": _png(plot_templates, sorting),
            "traces.png": _png(plot_traces, traces, start, sorting, reconstruction=reconstruction),
            "training.png": _png(plot_training, sorting.model),
        }


def _png(draw: Callable[..., Figure], *what: Any, **more: Any) -> bytes:
    file = io.BytesIO()
    draw(*what, path=file, **more)
    return file.getvalue()


def unit_colors(unit_ids: Sequence[int]) -> dict[int, str]:
    """The colour of each unit in every figure of a sorting, by its place in unit_ids; colours repeat after eight units."""
    return {int(unit): PALETTE[k % len(PALETTE)] for k, unit in enumerate(unit_ids)}


def plot_templates(sorting: Sorting, path: str | Path | BinaryIO) -> Figure:
    """One panel per unit: the template on every channel with a band of one standard deviation, amplitude against ms.

    Channels stand below each other at the same scale, with a scale bar in the amplitude unit; time 0 is the largest deflection.
    """
    if sorting.n_units == 0:
        return _save(_message("No units were found."), path)
    n_rows = -(-sorting.n_units // 5)
    n_columns = -(-sorting.n_units // n_rows)
    figure = _figure(max(3.1 * n_columns, 4.6), n_rows * (1.9 + 0.42 * sorting.n_channels))
    panels = figure.subplots(n_rows, n_columns, squeeze=False)
    for index, axes in enumerate(panels.flat):
        if index < sorting.n_units:
            _draw_template(axes, sorting, index)
            if index + n_columns >= sorting.n_units:
                axes.set_xlabel("time (ms)")
        else:
            axes.set_axis_off()
    return _save(figure, path)


def _draw_template(axes: Axes, sorting: Sorting, index: int) -> None:
    unit = int(sorting.unit_ids[index])
    color = unit_colors(sorting.unit_ids)[unit]
    template = sorting.templates[index]
    spread = sorting.templates_std[index] if len(sorting.templates_std) else np.zeros_like(template)
    times = (np.arange(template.shape[1]) - sorting.peak_index[index]) / sorting.sampling_frequency * 1000.0
    size = np.ptp(template) or 1.0
    levels = _stack((template - spread).min(axis=1), (template + spread).max(axis=1), least=0.12 * size)
    axes.axvline(0.0, color=PALE, lw=0.8, zorder=0)
    for level, wave, width in zip(levels, template, spread, strict=True):
        axes.fill_between(times, level + wave - width, level + wave + width, color=color, alpha=0.22, lw=0)
        axes.plot(times, level + wave, color=color, lw=1.5)
    axes.set_yticks(levels, _channel_labels(sorting))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlim(times[0], times[-1] + 0.04 * np.ptp(times))
    _scale_bar(axes, _round_length(0.4 * size), sorting.amplitude_unit)
    count = len(sorting.spike_samples(unit))
    axes.set_title(f"unit {unit}", color=color, loc="left", fontweight="bold", fontsize=11)
    axes.set_title(
        f"{counted(count, 'spike', ',')}, {count / sorting.duration_s:.2g} Hz", loc="right", fontsize=8, color=INK
    )


def plot_traces(
    traces: np.ndarray,
    start_sample: int,
    sorting: Sorting,
    path: str | Path | BinaryIO,
    reconstruction: np.ndarray | None = None,
) -> Figure:
    """A stretch of signal with its spikes, above it one row of marks per unit.

    traces (n, n_channels): high-passed, in the sorting's amplitude unit, from start_sample of the recording on;
    reconstruction: what the model makes of it, the same shape. The signal is coloured where a unit's template lies.
    """
    n_samples, n_channels = traces.shape
    spikes = sorting.spikes
    spikes = spikes[(spikes["sample"] >= start_sample) & (spikes["sample"] < start_sample + n_samples)]
    units = [int(u) for u in sorting.unit_ids if np.any(spikes["unit"] == u)]
    raster_height = 0.35 + 0.2 * max(len(units), 1)
    figure = _figure(10.0, raster_height + 1.1 + 0.95 * n_channels)
    heights = [raster_height, 0.7 + 0.95 * n_channels]
    raster, signal = figure.subplots(2, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    times = sorting.start_time_s + (start_sample + np.arange(n_samples)) / sorting.sampling_frequency
    _draw_raster(raster, sorting, spikes, units)

    spans = np.ptp(traces, axis=0)
    # Equal steps, narrower than the largest excursion: such are rare and short, and may reach into the next channel.
    levels = -0.8 * (spans.max() or 1.0) * np.arange(n_channels)
    for level, wave in zip(levels, traces.T, strict=True):
        signal.plot(times, level + wave, color=GREY, lw=0.6)
    _colour_spikes(signal, sorting, spikes, times, traces + levels, start_sample)
    if reconstruction is not None:
        # Between the spikes it is zero and would only strike out the noise.
        visible = np.where(np.abs(reconstruction) > 0.01 * spans.max(), reconstruction, np.nan)
        lines = signal.plot(times, visible + levels, color=INK, lw=0.9, zorder=4)
        lines[0].set_label("reconstruction")
        raster.legend(handles=lines[:1], loc="lower right", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize=8)
    signal.set_yticks(levels, _channel_labels(sorting))
    signal.tick_params(axis="y", length=0)
    signal.spines["left"].set_visible(False)
    signal.margins(y=0.02)
    signal.set_xlabel("time (s)")
    signal.set_xlim(times[0], times[-1] + 0.02 * (times[-1] - times[0]))
    signal.ticklabel_format(axis="x", useOffset=False)
    _scale_bar(signal, _round_length(0.25 * spans.max()), sorting.amplitude_unit)
    return _save(figure, path)


def _draw_raster(axes: Axes, sorting: Sorting, spikes: np.ndarray, units: list[int]) -> None:
    colors = unit_colors(sorting.unit_ids)
    for row, unit in enumerate(units):
        samples = spikes["sample"][spikes["unit"] == unit]
        moments = sorting.start_time_s + samples / sorting.sampling_frequency
        axes.vlines(moments, row - 0.4, row + 0.4, color=colors[unit], lw=1.6)
    axes.set_yticks(range(len(units)), [f"unit {unit}" for unit in units])
    for label, unit in zip(axes.get_yticklabels(), units, strict=True):
        label.set_color(colors[unit])
    axes.set_ylim(len(units) - 0.4, -0.6)
    axes.tick_params(axis="both", length=0, labelbottom=False)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_title(
        f"{counted(len(spikes), 'spike', ',')} of {counted(len(units), 'unit')}", loc="left", fontsize=9, color=INK
    )


def _colour_spikes(axes: Axes, sorting, spikes, times: np.ndarray, lifted: np.ndarray, start_sample: int) -> None:
    """Draw the signal in the unit's colour wherever its template lies; one line per unit and channel."""
    n_times = sorting.templates.shape[2]
    for (unit, color), peak in zip(unit_colors(sorting.unit_ids).items(), sorting.peak_index, strict=True):
        begin = spikes["sample"][spikes["unit"] == unit] - peak - start_sample
        inside = (begin[:, None] + np.arange(n_times)).ravel()
        covered = np.zeros(len(times), bool)
        covered[inside[(inside >= 0) & (inside < len(times))]] = True
        if covered.any():
            axes.plot(times, np.where(covered[:, None], lifted, np.nan), color=color, lw=1.8, zorder=3)


def plot_tradeoff(
    tradeoff: Tradeoff,
    path: str | Path | BinaryIO,
    operating_point: tuple[float, float] | None = None,
    title: str = "",
) -> Figure:
    """Misses against false alarms in per cent while the amplitude threshold rises, as Fig. 10 of the paper.

    operating_point: (miss, false_alarm) of the sorting as it stands, as fractions; marked and written out. The axis of
    misses then ends at three times its value, or at 10 %, because the corner is what matters.
    """
    figure = _figure(5.2, 4.4)
    axes = figure.subplots()
    axes.plot(100 * tradeoff.false_alarm, 100 * tradeoff.miss, color=PALETTE[0], lw=1.8, marker=".", ms=4)
    axes.set_xlabel("false alarms (% of the unit's spikes)")
    axes.set_ylabel("misses (% of the true spikes)")
    axes.grid(color=PALE, lw=0.6)
    points = np.column_stack([tradeoff.false_alarm, tradeoff.miss])
    if operating_point is not None:
        miss, false_alarm = operating_point
        points = np.vstack([points, [false_alarm, miss]])
        label = f"this sorting: {100 * miss:.1f} % missed, {100 * false_alarm:.1f} % false"
        axes.plot(100 * false_alarm, 100 * miss, "o", color=PALETTE[1], ms=9, mec="white", mew=1.2, label=label, zorder=5)
        axes.legend(loc="upper right", frameon=False, fontsize=9)
    # An empty curve still has axes; zero lies a little inside so that a curve along an axis is seen whole.
    largest = points.max(axis=0) * 100 if len(points) else np.zeros(2)
    right, top = np.clip(largest * 1.15, 5.0, 102.0)
    if operating_point is not None:
        top = min(max(300 * operating_point[0], 10.0), 102.0)
    axes.set_xlim(-0.02 * right, right)
    axes.set_ylim(-0.02 * top, top)
    axes.set_title(title, loc="left", fontweight="bold", fontsize=11)
    return _save(figure, path)


def plot_training(model: Mapping[str, np.ndarray], path: str | Path | BinaryIO, unit_ids: Sequence[int] = ()) -> Figure:
    """Objective, lambda and sigma per epoch, from objective_history, lambda_history and sigma_history of Sorting.model.

    A history is (n_epochs,), or (n_epochs, n_units) with one line per unit, in the units' colours where unit_ids names as many;
    one that was not recorded says so.
    """
    figure = _figure(10.0, 3.2)
    names = (("objective_history", "objective"), ("lambda_history", "lambda"), ("sigma_history", "sigma (noise level)"))
    for axes, (name, label) in zip(figure.subplots(1, 3), names, strict=True):
        axes.set_title(label, loc="left", fontweight="bold", fontsize=11)
        axes.set_xlabel("epoch")
        history = np.asarray(model.get(name, ()), dtype=float)
        if history.size == 0:
            axes.text(0.5, 0.5, "not recorded", ha="center", va="center", color=GREY, transform=axes.transAxes)
            axes.set_xticks([])
            axes.set_yticks([])
            continue
        epochs = np.arange(1, len(history) + 1)
        lines = history.reshape(len(history), -1).T
        colors = list(unit_colors(unit_ids).values()) if 1 < len(lines) == len(unit_ids) else [INK] * len(lines)
        for values, color in zip(lines, colors, strict=True):
            axes.plot(epochs, values, color=color, lw=1.5, marker="o", ms=3)
        axes.set_xlim(0.5, len(history) + 0.5)
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axes.grid(axis="y", color=PALE, lw=0.6)
    return _save(figure, path)


def _stack(lowest: np.ndarray, highest: np.ndarray, least: float) -> np.ndarray:
    """Levels that put curves with these extremes below each other without touching, neighbours at least `least` apart."""
    steps = np.maximum(highest[1:] - lowest[:-1], least) + 0.25 * least
    return -np.concatenate([[0.0], np.cumsum(steps)])


def _round_length(length: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not above `length`."""
    if not (np.isfinite(length) and length > 0):
        return 1.0
    power = 10.0 ** np.floor(np.log10(length))
    return float(max(step for step in (1, 2, 5) if step * power <= length * (1 + 1e-9)) * power)


def _scale_bar(axes: Axes, length: float, unit: str) -> None:
    """A vertical bar of `length` at the right edge, in place of an axis whose zero would differ per channel."""
    bottom, top = axes.get_ylim()
    place = axes.get_yaxis_transform()
    axes.plot(
        [1.0, 1.0], [bottom, bottom + length], color=INK, lw=2.0, transform=place, clip_on=False, solid_capstyle="butt"
    )
    text = f"{length:g} {unit.replace('uV', 'µV')}"
    axes.text(1.015, bottom + length / 2, text, transform=place, va="center", ha="left", fontsize=7, color=INK)
    axes.set_ylim(bottom, top)


def _channel_labels(sorting: Sorting) -> list[str]:
    ids = sorting.channels.get("ids")
    names = ids if ids is not None and len(ids) == sorting.n_channels else range(sorting.n_channels)
    texts = (visible(name) for name in names)
    return [f"ch {text}" if text.isdigit() else text[:_LONGEST_NAME] for text in texts]


def _message(text: str) -> Figure:
    figure = _figure(5.0, 1.6)
    figure.text(0.5, 0.5, text, ha="center", va="center", fontsize=12, color=GREY)
    return figure


def _figure(width: float, height: float) -> Figure:
    """An empty figure (inches) whose new axes are plain: no frame above and right, small type."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.08)
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: str | Path | BinaryIO) -> Figure:
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        # a dollar in the name of a channel begins no formula
        text.set_parse_math(False)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8, color=GREY)
        for text in (axes.xaxis.label, axes.yaxis.label):
            text.set_size(9)
        for spine in axes.spines.values():
            spine.set_color(GREY)
    # No software version inside, so that the same data give the same bytes.
    figure.savefig(path, format="png", metadata={"Software": None})
    return figure
