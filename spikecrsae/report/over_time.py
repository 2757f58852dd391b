"""What changes over a recording: the noise, and which units fire."""

from __future__ import annotations

import numpy as np

from spikecrsae.data.sorting import SortingData
from spikecrsae.report.svg import Drawing, Picture
from spikecrsae.system.text import counted

#: The recording is shown in so many bins.
N_BINS = 120
#: Units that are shown at most, those with the most spikes; and the height of a unit's row.
MOST_UNITS, _ROW = 40, 15
_WIDTH, _NAMES, _NOISE_HEIGHT = 1228, 84, 90


def over_time_picture(sorting: SortingData) -> Picture | None:
    """Noise over time, and below each unit's firing rate relative to its highest; None where nothing is known of the noise."""
    noise = sorting.noise_over_time
    if not noise or not sorting.n_units:
        return None
    shown = np.sort(np.argsort([-len(sorting.spike_samples(unit)) for unit in sorting.unit_ids], kind="stable")[:MOST_UNITS])
    drawing = Drawing(_WIDTH, _NOISE_HEIGHT + _ROW * len(shown) + 66)
    x, width = sorting.timeline.intervals_s([0, sorting.n_samples])[0].tolist(), _WIDTH - _NAMES - 70
    loudest = float(np.max(noise["times_usual"]))
    panel = drawing.panel(_NAMES, 8, width, _NOISE_HEIGHT, x, (0.0, max(1.1 * loudest, 1.5)))
    panel.y_axis("noise (usual = 1)", 3)
    for group in np.unique(noise["group"]):
        mine = noise["group"] == group
        edges = np.append(noise["first_sample"][mine], sorting.n_samples)
        panel.line(sorting.times_s(np.repeat(edges, 2)[1:-1]), np.repeat(noise["times_usual"][mine], 2), "line")
    edges = np.linspace(x[0], x[1], N_BINS + 1)
    rows = drawing.panel(_NAMES, _NOISE_HEIGHT + 16, width, _ROW * len(shown), x, (len(shown), 0))
    for interval in sorting.timeline.intervals_s(sorting.excluded):
        left, right = panel.across(interval)
        drawing.rect(left, 8, max(right - left, 0.5), _NOISE_HEIGHT + 8 + _ROW * len(shown), "cell")
    for place, row in enumerate(shown):
        counts = np.histogram(sorting.times_s(sorting.spike_samples(sorting.unit_ids[row])), edges)[0]
        top = rows.top + place * _ROW
        drawing.text(_NAMES - 8, top + _ROW / 2 + 3.5, f"unit {sorting.unit_ids[row]}", "t-right")
        for k in np.flatnonzero(counts):
            drawing.rect(
                _NAMES + k * width / N_BINS, top + 1, width / N_BINS, _ROW - 2, "heat", float(counts[k] / counts.max())
            )
    rows.x_axis("time (s)", 8)
    left_out = f"the {len(shown)} units with the most spikes; " if len(shown) < sorting.n_units else ""
    note = (
        f"above: noise level, 1 is the usual one; below: {left_out}firing rate of each unit in {N_BINS} bins, the darkest its highest; "
        "grey: left out"
    )
    label = f"Noise over time, and when {counted(len(shown), 'unit')} fire"
    return Picture("Noise and units over time", drawing, label, note, wide=True)
