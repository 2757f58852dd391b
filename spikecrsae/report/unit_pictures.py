"""The pictures of one unit: template, auto-correlogram, intervals, amplitudes over time, threshold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from spikecrsae.curate.bursts import REFRACTORY_MS
from spikecrsae.data.intervals import widened
from spikecrsae.data.sorting import SortingData
from spikecrsae.report.correlograms import correlograms, interval_counts
from spikecrsae.report.svg import Drawing, Panel, Picture, axes, span_of, ticks
from spikecrsae.units import ms_to_samples

#: Size of a unit's pictures, and of that of its template.
WIDTH, HEIGHT, TEMPLATE_HEIGHT = 380, 230, 500
#: Channels of a template that are drawn: those where it is largest.
MOST_CHANNELS = 16
CORRELOGRAM_MS, CORRELOGRAM_BIN_MS = 50, 1.0
INTERVALS_MS, INTERVAL_BIN_MS = 50, 0.5
AMPLITUDE_BINS = 60
#: Spikes that are drawn over time: per unit, and of all units together.
MOST_POINTS, MOST_POINTS_IN_ALL = 2000, 40_000


@dataclass(frozen=True)
class AmplitudeModel:
    """What the decoder expects of a unit's amplitudes; NaN where it is not known.

    size: the template's largest deflection. noise: standard deviation of the amplitude that the template's matched filter
    finds in noise alone, size / ||h||, h whitened. spread: that of the spikes' true amplitudes, s size. threshold: what the
    matched filter must find for a spike to be more probable than noise. shrunk: reported amplitudes are posterior means,
    drawn from what the filter finds towards `size`, as the spike-and-slab prior does.
    """

    size: float
    noise: float
    spread: float
    threshold: float
    shrunk: bool

    @classmethod
    def of(cls, sorting: SortingData, index: int, shrunk: bool) -> AmplitudeModel:
        size = float(sorting.peaks.size[index]) if len(sorting.templates) else np.nan
        norm, spread = value_of(sorting, "whitened_norm", index), np.asarray(sorting.model.get("spread", ()))
        relative = float(spread[index]) if len(spread) == sorting.n_units else np.nan
        noise = size / norm if norm > 0 else np.nan
        known = bool(noise > 0 and relative > 0)
        return cls(size, noise, size * relative, value_of(sorting, "threshold", index), shrunk and known)

    def found(self, reported: np.ndarray) -> np.ndarray:
        """What the matched filter found, from reported amplitudes (exact where spikes do not overlap)."""
        if not self.shrunk:
            return reported.astype(np.float64)
        weight = self.spread**2 / (self.spread**2 + self.noise**2)
        return self.size + (reported - self.size) / weight


def unit_pictures(sorting: SortingData, index: int, run: Mapping) -> list[Picture]:
    """Draw all pictures of the unit in row `index` of the unit table; run: what run.json holds, for the prior."""
    most_points = min(MOST_POINTS, MOST_POINTS_IN_ALL // sorting.n_units)
    shrunk = ((run.get("config") or {}).get("infer") or {}).get("prior") == "spike-slab"
    spikes = sorting.spikes[sorting.spikes["unit"] == sorting.unit_ids[index]]
    model = AmplitudeModel.of(sorting, index, shrunk)
    found = model.found(spikes["amplitude"])
    pictures = [
        auto_correlogram_picture(spikes["sample"], sorting),
        interval_picture(spikes["sample"], sorting),
        amplitude_picture(spikes["sample"], found, sorting, model.threshold, most_points),
    ]
    if len(sorting.templates):
        pictures = [template_picture(sorting, index), *pictures, threshold_picture(found, sorting, model)]
    return pictures


def value_of(sorting: SortingData, name: str, index: int) -> float:
    """A number of the unit table, NaN where it is not known."""
    return float(sorting.units[name][index]) if name in sorting.units else np.nan


def amplitude_unit(sorting: SortingData) -> str:
    return sorting.amplitude_unit.replace("uV", "µV")


def channel_names(sorting: SortingData) -> list[str]:
    ids = sorting.channels.get("ids")
    names = ids if ids is not None and len(ids) == sorting.n_channels else range(sorting.n_channels)
    return [f"ch {name}" if str(name).isdigit() else str(name) for name in names]


def template_picture(sorting: SortingData, index: int) -> Picture:
    """The template on each channel with a band of one standard deviation of the waveforms, all at one scale."""
    template = sorting.templates[index]
    spread = sorting.templates_std[index] if len(sorting.templates_std) else np.zeros_like(template)
    shown = np.sort(np.argsort(-np.abs(template).max(axis=1), kind="stable")[:MOST_CHANNELS])
    n_columns = int(np.ceil(np.sqrt(len(shown))))
    n_rows = -(-len(shown) // n_columns)
    limits = span_of((template - spread)[shown], (template + spread)[shown], least=(0.0, 0.0))
    times = (np.arange(template.shape[1]) - sorting.peak_index[index]) / sorting.sampling_frequency * 1000
    drawing = Drawing(WIDTH, TEMPLATE_HEIGHT)
    width, height = (WIDTH - 64) / n_columns, (TEMPLATE_HEIGHT - 46) / n_rows
    names, peak_channel = channel_names(sorting), int(sorting.peaks.channel[index])
    for place, channel in enumerate(shown):
        row, column = divmod(place, n_columns)
        panel = drawing.panel(56 + column * width, 8 + row * height, width - 10, height - 8, (times[0], times[-1]), limits)
        if column == 0:
            panel.y_axis(f"amplitude ({amplitude_unit(sorting)})" if row == n_rows // 2 else "", 4 if n_rows < 3 else 2)
        panel.level(0.0, "grid")
        panel.upright(0.0, "grid")
        panel.band(times, template[channel] - spread[channel], template[channel] + spread[channel], "band")
        panel.line(times, template[channel], "line")
        drawing.text(
            panel.left + 3, panel.bottom - 5, names[channel], "t-left strong" if channel == peak_channel else "t-left"
        )
        if place + n_columns >= len(shown):
            _time_axis(panel, column, n_columns)
    count = f"{len(shown)} of {len(template)} channels, those where it is largest; " if len(shown) < len(template) else ""
    note = f"{count}band: one standard deviation of the waveforms; 0 ms: largest deflection"
    return Picture("Template", drawing, f"Template of unit {sorting.unit_ids[index]} on {len(shown)} channels", note)


def _time_axis(panel: Panel, column: int, n_columns: int) -> None:
    """Milliseconds under a panel; the label under the middle column only."""
    few = 5 if n_columns < 3 else 2
    panel.x_axis("time (ms)" if column == n_columns // 2 or n_columns == 2 else "", at=ticks(*panel.x, few))


def auto_correlogram_picture(samples: np.ndarray, sorting: SortingData) -> Picture:
    """Rate of a unit's other spikes around each of its spikes."""
    bin_size = max(1, ms_to_samples(CORRELOGRAM_BIN_MS, sorting.sampling_frequency))
    n_half = round(CORRELOGRAM_MS / CORRELOGRAM_BIN_MS)
    counts = correlograms(samples, np.zeros(len(samples), np.int64), 1, bin_size, n_half)[0, 0]
    seconds = bin_size / sorting.sampling_frequency
    rate = counts / (max(len(samples), 1) * seconds)
    edges = np.arange(-n_half, n_half + 1) * seconds * 1000
    drawing, panel = axes(WIDTH, HEIGHT, (edges[0], edges[-1]), span_of(rate, least=(0.0, 1.0)))
    panel.shade(-REFRACTORY_MS, REFRACTORY_MS, "zone")
    panel.y_axis("rate (Hz)")
    panel.bars(edges, rate, "bars")
    panel.level(sorting.rate_hz(len(samples)), "rule")
    panel.x_axis("lag (ms)")
    note = f"{counts.sum() // 2:,} pairs; shaded: {REFRACTORY_MS:g} ms; dashed: the unit's mean rate"
    return Picture("Auto-correlogram", drawing, "Auto-correlogram, rate against lag", note)


def interval_picture(samples: np.ndarray, sorting: SortingData) -> Picture:
    """Histogram of the intervals between successive spikes; those within the refractory period stand out."""
    n_bins = round(INTERVALS_MS / INTERVAL_BIN_MS)
    counts = interval_counts(samples, sorting.sampling_frequency, INTERVAL_BIN_MS, n_bins)
    edges = np.arange(n_bins + 1) * INTERVAL_BIN_MS
    early = edges[:-1] < REFRACTORY_MS
    drawing, panel = axes(WIDTH, HEIGHT, (0, INTERVALS_MS), span_of(counts, least=(0.0, 1.0)))
    panel.shade(0, REFRACTORY_MS, "zone")
    panel.y_axis("intervals")
    panel.bars(edges, np.where(early, 0, counts), "bars")
    panel.bars(edges, np.where(early, counts, 0), "bad")
    panel.upright(REFRACTORY_MS, "rule")
    panel.x_axis("interval between spikes (ms)")
    total, violations = max(len(samples) - 1, 0), int(counts[early].sum())
    part = f" ({100 * violations / total:.2g} %)" if total else ""
    rest = f"; {total - counts.sum():,} last longer than is drawn" if total else ""
    note = f"{violations:,} of {total:,} intervals{part} are shorter than {REFRACTORY_MS:g} ms{rest}"
    return Picture("Intervals between spikes", drawing, "Histogram of the intervals between spikes", note)


def amplitude_picture(samples: np.ndarray, found: np.ndarray, sorting: SortingData, threshold: float, most: int) -> Picture:
    """Amplitude of the spikes (n,), as the matched filter finds it, over the recording, with the threshold and what was left
    out."""
    n, drawn = len(samples), np.arange(len(samples))
    if n > most:
        drawn = np.sort(np.random.default_rng(0).choice(n, most, replace=False))
    limits = span_of(found, [threshold], least=(0.0, 0.0))
    drawing, panel = axes(WIDTH, HEIGHT, tuple(sorting.timeline.intervals_s([0, sorting.n_samples])[0]), limits)
    left_out = sorting.excluded
    if len(left_out) > WIDTH:
        # what is closer together than can be drawn is one
        left_out = widened(left_out, sorting.n_samples // (2 * WIDTH), sorting.n_samples)
    for first, end in sorting.timeline.intervals_s(left_out):
        panel.shade(first, end, "gap")
    panel.y_axis(f"amplitude found ({amplitude_unit(sorting)})")
    panel.points(sorting.times_s(samples[drawn]), found[drawn], "dots")
    if np.isfinite(threshold):
        panel.level(threshold, "rule")
    panel.x_axis("time (s)")
    said = [f"{len(drawn):,} of {n:,} spikes, drawn at random" if len(drawn) < n else f"{n:,} spikes"]
    said += ["dashed: threshold"] * bool(np.isfinite(threshold)) + ["grey: left out"] * bool(len(sorting.excluded))
    return Picture("Amplitude over time", drawing, "Amplitude of each spike against time", "; ".join(said))


def threshold_picture(found: np.ndarray, sorting: SortingData, model: AmplitudeModel) -> Picture:
    """The threshold between two distributions of what the unit's matched filter finds: at its spikes, and in noise alone.

    By the model noise alone gives N(0, noise^2), the unit's spikes N(size, spread^2 + noise^2).
    """
    size, threshold, noise = model.size, model.threshold, model.noise
    counts, edges = np.zeros(1), np.array([0.0, size or 1.0])
    if len(found):
        counts, edges = np.histogram(found, AMPLITUDE_BINS)
    density = counts / max(len(found), 1) / np.diff(edges)
    x = span_of(edges, [threshold, -3.5 * noise, 3.5 * noise], room=0.02)
    grid = np.linspace(*x, 240)
    curves = {"noise": _normal(grid, 0.0, noise), "model": _normal(grid, size, np.hypot(noise, model.spread))}
    known = {name: curve for name, curve in curves.items() if np.isfinite(curve).all()}
    drawing, panel = axes(WIDTH, HEIGHT, x, span_of(density, *known.values(), least=(0.0, 0.0), room=0.12))
    panel.y_axis(f"density (1/{amplitude_unit(sorting)})")
    if "noise" in known:
        panel.band(grid, np.zeros_like(grid), known["noise"], "noise")
    panel.bars(edges, density, "bars pale")
    if "model" in known:
        panel.line(grid, known["model"], "line")
    panel.x_axis(f"amplitude found ({amplitude_unit(sorting)})")
    if np.isfinite(threshold):
        panel.upright(threshold, "rule")
        drawing.text(panel.across(threshold) + 4, panel.top + 9, f"{threshold:.3g}", "t-left")
    said = ["amplitude found: by the unit's matched filter; bars: spikes"] + ["curve: the model of them"] * (
        "model" in known
    )
    said += ["grey: what it finds in noise alone"] * ("noise" in known) + ["dashed: threshold"] * bool(
        np.isfinite(threshold)
    )
    return Picture(
        "Threshold", drawing, "Distributions of spike amplitudes and of noise, with the threshold", "; ".join(said)
    )


def _normal(x: np.ndarray, mean: float, deviation: float) -> np.ndarray:
    return np.exp(-0.5 * ((x - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi))
