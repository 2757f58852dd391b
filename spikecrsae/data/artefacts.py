"""Artefacts of a recording: what was found or given, and the shape of pulses that are taken out of its traces."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

#: Kinds of artefacts; the number of a kind in a table is its place here.
KINDS = ("given", "pulse", "movement", "click", "stuck")
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
