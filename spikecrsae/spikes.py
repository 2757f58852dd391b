"""From decoded chunks to a Sorting: unwhitened templates, reported samples, amplitudes and quality columns."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from spikecrsae.csc.pursuit import Spikes, SpikeSlab
from spikecrsae.infer import DecodedChunk
from spikecrsae.initialise import windows_at
from spikecrsae.sorting import SPIKE_DTYPE, Sorting

#: Intervals shorter than this are counted as violations of the refractory period.
ISI_THRESHOLD_MS = 1.5
#: A unit is present in a bin of the recording when it fires in it; the presence ratio counts such bins.
PRESENCE_BIN_S = 10.0


@dataclass
class Collector:
    """Gathers decoded chunks: all spikes, and per unit the sums that give the mean high-passed waveform and its spread.

    The whitened template holds a spike's sharp part; the high-passed waveform lasts longer, so it is gathered from
    `margin` = n_times // 2 samples before the whitened template to as many after it.
    """

    n_units: int
    n_channels: int
    n_times: int
    chunks: list[Spikes] = field(default_factory=list)
    total: np.ndarray = field(init=False)
    squares: np.ndarray = field(init=False)
    counts: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        shape = (self.n_units, self.n_times + 2 * self.margin, self.n_channels)
        self.total, self.squares = np.zeros(shape), np.zeros(shape)
        self.counts = np.zeros(self.n_units, np.int64)

    @property
    def margin(self) -> int:
        return self.n_times // 2

    def add(self, chunk: DecodedChunk) -> None:
        """Take in the spikes of a chunk and the waveforms at them."""
        s = chunk.spikes
        self.chunks.append(Spikes(s.unit, s.sample + chunk.start, s.amplitude, s.shift, s.gain))
        padded = np.pad(chunk.highpassed, ((self.margin, self.margin), (0, 0)))
        for unit in np.unique(s.unit):
            starts = s.sample[s.unit == unit]
            whole = (starts >= self.margin) & (starts + self.n_times + self.margin <= len(chunk.highpassed))
            # windows cut by the chunk's edge count only as long as there is no whole one
            starts = starts[whole] if whole.any() or self.counts[unit] else starts
            windows = windows_at(padded, starts, self.n_times + 2 * self.margin).astype(np.float64)
            self.total[unit] += windows.sum(axis=0)
            self.squares[unit] += (windows**2).sum(axis=0)
            self.counts[unit] += len(windows)

    def spikes(self) -> Spikes:
        """All spikes, samples counted from the start of the recording."""
        if not self.chunks:
            return Spikes.none()
        return Spikes(
            *(np.concatenate([getattr(c, f) for c in self.chunks]) for f in ("unit", "sample", "amplitude", "shift", "gain"))
        )

    def templates(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean high-passed waveforms and standard deviations, each (n_units, n_channels, n_times + 2 margin), in the recording's unit."""
        n = np.maximum(self.counts, 1)[:, None, None]
        mean = self.total / n
        spread = np.sqrt(np.maximum(self.squares / n - mean**2, 0))
        return mean.transpose(0, 2, 1).astype(np.float32), spread.transpose(0, 2, 1).astype(np.float32)


def build_sorting(
    collector: Collector,
    model: SpikeSlab,
    reported: np.ndarray,
    *,
    sampling_frequency: float,
    n_samples: int,
    usable: np.ndarray,
    channels: dict[str, np.ndarray],
    noise_level: np.ndarray,
    amplitude_unit: str,
    start_time_s: float,
    learned: dict[str, np.ndarray],
    curation: tuple[dict, ...],
) -> Sorting:
    """The Sorting of the decoded spikes, the largest amplitude first; units without a spike, and those that are not
    `reported` (bool, n_units), are left out.

    usable (n_all_channels,) bool: channels that were sorted; templates are zero on the others. noise_level (n_channels,): of
    the sorted channels, in the recording's unit.
    """
    spikes = collector.spikes()
    mean, spread = collector.templates()
    peak_time = np.array([np.abs(t).max(axis=0).argmax() for t in mean], np.int64)
    peak = np.array([np.abs(t).max() for t in mean])
    fired = np.bincount(spikes.unit, minlength=model.n_units)
    order = [u for u in np.argsort(-peak, kind="stable") if fired[u] > 0 and reported[u]]
    rank = np.full(model.n_units, -1, np.int64)
    rank[order] = np.arange(len(order))
    spikes = spikes.select(rank[spikes.unit] >= 0)
    table = np.zeros(len(spikes), SPIKE_DTYPE)
    first = spikes.sample - collector.margin
    table["sample"] = np.clip(first + peak_time[spikes.unit], 0, n_samples - 1) if len(spikes) else 0
    table["unit"] = rank[spikes.unit]
    table["amplitude"] = spikes.amplitude * peak[spikes.unit] if len(spikes) else 0
    table["shift"] = spikes.shift
    table = table[np.lexsort((table["unit"], table["sample"]))]

    def on_all_channels(values: np.ndarray) -> np.ndarray:
        full = np.zeros((len(order), len(usable), values.shape[2]), np.float32)
        full[:, usable] = values[order]
        return full

    peak_channel = np.array([np.flatnonzero(usable)[np.abs(mean[u]).max(axis=1).argmax()] for u in order], np.int64)
    snr = np.array([np.abs(mean[u]).max() / noise_level[np.abs(mean[u]).max(axis=1).argmax()] for u in order])
    prior = {
        "spread": model.spread[order],
        "penalty": model.penalty[order],
        "whitened_norm": np.sqrt(model.energy)[order],
    }
    return Sorting(
        spikes=table,
        unit_ids=np.arange(len(order), dtype=np.int32),
        sampling_frequency=sampling_frequency,
        n_samples=n_samples,
        n_channels=len(usable),
        amplitude_unit=amplitude_unit,
        units=unit_columns(table, len(order), sampling_frequency, n_samples)
        | {"peak_channel": peak_channel, "amplitude": peak[order], "snr": snr, "whitened_norm": prior["whitened_norm"]},
        templates=on_all_channels(mean),
        templates_whitened=on_all_channels(model.templates),
        templates_std=on_all_channels(spread),
        peak_index=peak_time[order],
        channels=channels,
        model=learned | prior,
        curation=curation,
        start_time_s=start_time_s,
    )


def unit_columns(table: np.ndarray, n_units: int, sampling_frequency: float, n_samples: int) -> dict[str, np.ndarray]:
    """Quality columns from the spike table: n_spikes, firing_rate (Hz), isi_violations (per cent of the intervals shorter than
    1.5 ms), presence_ratio (part of the 10 s bins with a spike), amplitude_cv (standard deviation over mean)."""
    duration = n_samples / sampling_frequency
    n_bins = max(1, int(duration // PRESENCE_BIN_S))
    columns = {name: np.zeros(n_units) for name in ("firing_rate", "isi_violations", "presence_ratio", "amplitude_cv")}
    counts = np.zeros(n_units, np.int64)
    for unit in range(n_units):
        mine = table[table["unit"] == unit]
        counts[unit] = len(mine)
        intervals = np.diff(mine["sample"])
        columns["firing_rate"][unit] = len(mine) / duration
        columns["isi_violations"][unit] = (
            100 * np.mean(intervals < ISI_THRESHOLD_MS * sampling_frequency / 1000) if len(intervals) else 0
        )
        bins = np.minimum(mine["sample"] * n_bins // n_samples, n_bins - 1)
        columns["presence_ratio"][unit] = len(np.unique(bins)) / n_bins
        columns["amplitude_cv"][unit] = mine["amplitude"].std() / mine["amplitude"].mean() if len(mine) else 0
    return {"n_spikes": counts} | columns
