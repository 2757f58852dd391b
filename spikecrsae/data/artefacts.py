"""Artefacts of a recording: what was found or given, and the shape of pulses that are taken out of its traces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from spikecrsae.data.timeline import Timeline

#: Kinds of artefacts; the number of a kind in a table is its place here.
KINDS = ("given", "pulse", "movement", "click", "stuck")
#: Two intervals within this time of each other are equal: neurons do not keep time so well.
EQUAL_MS = 0.05
#: One artefact. start, stop: samples [start, stop) that it disturbs; sample: of its largest deflection, -1 where there is none;
#: group: pulses of one shape have one number, -1 elsewhere; channel: position of the loudest channel, -1 for all; amplitude: its
#: deflection there in the recording's unit, NaN where there is none.
ARTEFACT_DTYPE = np.dtype(
    [
        ("start", np.int64),
        ("stop", np.int64),
        ("sample", np.int64),
        ("kind", np.int8),
        ("group", np.int32),
        ("channel", np.int32),
        ("amplitude", np.float32),
    ]
)


@dataclass(frozen=True)
class Pulses:
    """Pulses of one shape, subtracted from traces.

    template, slope (n_times, n_channels) float32: the mean pulse in the recording's unit, from `before` samples before the pulse's
    sample on, and its derivative per sample. Pulse i is gain[i] * template + shift[i] * slope about samples[i] (ascending). The
    windows of two pulses do not overlap.
    """

    template: np.ndarray
    slope: np.ndarray
    before: int
    samples: np.ndarray
    gain: np.ndarray
    shift: np.ndarray

    def subtract(self, traces: np.ndarray, start: int) -> None:
        """Subtract the pulses from traces (n_samples, n_channels), in place, which begin at sample `start`."""
        n_times = len(self.template)
        first, last = np.searchsorted(self.samples - self.before, [start - n_times + 1, start + len(traces)])
        if last <= first:
            return
        here = slice(first, last)
        places = (self.samples[here] - self.before - start)[:, None] + np.arange(n_times)
        shapes = self.gain[here, None, None] * self.template + self.shift[here, None, None] * self.slope
        known = (places >= 0) & (places < len(traces))
        traces[places[known]] -= shapes[known]

    def select(self, channels: list[int]) -> Pulses:
        """The pulses on some of the channels."""
        return replace(self, template=self.template[:, channels], slope=self.slope[:, channels])

    def later(self, by: int) -> Pulses:
        """The same pulses, samples counted from `by` samples earlier."""
        return replace(self, samples=self.samples + by)


def pulse_samples(table: np.ndarray) -> np.ndarray:
    """The samples (n,) of the pulses in a table, found or given, ascending."""
    is_pulse = (table["kind"] == KINDS.index("pulse")) | (table["kind"] == KINDS.index("given"))
    return np.sort(table["sample"][is_pulse & (table["sample"] >= 0)])


def period_of(samples: np.ndarray, sampling_frequency: float) -> float | None:
    """The period in s that most intervals between successive samples (n,) keep within EQUAL_MS; None where they keep none."""
    intervals = np.diff(np.sort(samples))
    if len(intervals) < 4:
        return None
    near = np.abs(intervals - np.median(intervals)) <= max(1, EQUAL_MS * sampling_frequency / 1000)
    return float(intervals[near].mean() / sampling_frequency) if near.mean() > 0.5 else None


def summary(table: np.ndarray, timeline: Timeline) -> list[dict[str, Any]]:
    """One entry for all artefacts of a kind in a table, for each shape of pulses one: kind, group, number n, first_s on the recording's
    clock, seconds they disturb in all, and for pulses their period_s, None where they keep none."""
    found, sampling_frequency = [], timeline.sampling_frequency
    for kind, group in np.unique(table[["kind", "group"]]).tolist():
        rows = table[(table["kind"] == kind) & (table["group"] == group)]
        entry: dict[str, Any] = {"kind": KINDS[kind], "group": group if group >= 0 else None, "n": len(rows)}
        entry["first_s"] = float(timeline.seconds(rows["start"].min()))
        entry["seconds"] = float((rows["stop"] - rows["start"]).sum() / sampling_frequency)
        if KINDS[kind] == "pulse":
            entry["period_s"] = period_of(rows["sample"], sampling_frequency)
        found.append(entry)
    return found
