"""SortingData: the one result type, with a spike table, a unit table and the templates they refer to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from spikecrsae.data.artefacts import ARTEFACT_DTYPE
from spikecrsae.data.intervals import widened, within
from spikecrsae.data.peaks import Peaks
from spikecrsae.data.recording import Recording
from spikecrsae.data.timeline import Timeline
from spikecrsae.errors import InputError

#: One row per spike. sample: of the template's largest deflection in units of noise; amplitude: there, in the recording's unit;
#: shift: sub-sample offset in samples, sample + shift is the refined time. probability: that its unit fired it, NaN if not known.
SPIKE_DTYPE = np.dtype(
    [("sample", np.int64), ("unit", np.int32), ("amplitude", np.float32), ("shift", np.float32), ("probability", np.float32)]
)
#: Labels that a unit can have, see decode.quality.label_units.
LABELS = ("single", "multi", "noise", "artefact", "unsure", "unsorted")
#: Numbers of units are int32, and Phy's placeholders are numbered after the last one.
LARGEST_UNIT = 2**31 - 2


def files_table(recording: Recording) -> dict[str, np.ndarray]:
    """Return the table `files` for a sorting of this recording: its parts; empty where it has none."""
    parts = recording.parts
    if not parts:
        return {}
    return {
        "name": np.array([part.name for part in parts], dtype=str),
        "first_sample": np.array([part.first for part in parts], np.int64),
        "n_samples": np.array([part.n_samples for part in parts], np.int64),
        "start_time_s": np.array([part.start_time_s for part in parts], np.float64),
        "time_s": recording.timeline.times_s,
        "same_clock": np.array([part.same_clock for part in parts]),
    }


def timeline_of(files: dict[str, np.ndarray], start_time_s: float, sampling_frequency: float) -> Timeline:
    """Return the clock of a recording that has these parts and starts at start_time_s."""
    firsts = files.get("first_sample", np.zeros(1, np.int64))
    # results of earlier versions do not hold these times
    return Timeline(firsts, files.get("time_s", firsts / sampling_frequency + start_time_s), sampling_frequency)


@dataclass(frozen=True)
class SortingData:
    """Spikes and units of one recording.

    spikes: SPIKE_DTYPE, sorted by sample. unit_ids (n_units,) int32. units: one array (n_units,) per column of units.csv.
    templates (n_units, n_channels, n_times): high-passed, unwhitened, in amplitude_unit, at full scale;
    templates_whitened: the same units as inference uses them; templates_std: spread of the waveforms around them.
    peak_index: sample within a template of its largest deflection in units of noise, per unit.
    model: sigma, one value for each group of channels; per unit the prior's parameters (n_units,), and whitened_norm
    (n_units,). `<name>_history` (n_rounds, n_units): a parameter after each round of training, NaN before a unit was added.
    curation: rows (decision, units, statistic, level).
    excluded (n, 2): intervals [first, end) in samples that were left out; there is no spike in them.
    artefacts (n,) of ARTEFACT_DTYPE: those found and those given, in order of time, with channels by their position in the
    recording; not in sorting.h5.
    files: name, first_sample, n_samples, start_time_s (on its own clock), time_s (on the recording's) and same_clock (as in Segment) of each
    file or segment, empty where the recording has one part only.
    noise_over_time: `times_usual`, the noise relative to the usual one, from `first_sample` on in the channel group with
    number `group`; empty where not known.
    example (n, n_channels): an interval of the high-passed traces, in amplitude_unit, from sample example_start on; may be
    empty.
    """

    spikes: np.ndarray
    unit_ids: np.ndarray
    sampling_frequency: float
    n_samples: int
    n_channels: int
    amplitude_unit: str
    units: dict[str, np.ndarray] = field(default_factory=dict)
    templates: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    templates_whitened: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    templates_std: np.ndarray = field(default_factory=lambda: np.zeros((0, 0, 0), np.float32))
    peak_index: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    channels: dict[str, np.ndarray] = field(default_factory=dict)
    model: dict[str, np.ndarray] = field(default_factory=dict)
    curation: tuple[dict[str, Any], ...] = ()
    start_time_s: float = 0.0
    excluded: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    artefacts: np.ndarray = field(default_factory=lambda: np.zeros(0, ARTEFACT_DTYPE))
    files: dict[str, np.ndarray] = field(default_factory=dict)
    noise_over_time: dict[str, np.ndarray] = field(default_factory=dict)
    example: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.float32))
    example_start: int = 0

    def __post_init__(self) -> None:
        if self.spikes.dtype != SPIKE_DTYPE:
            raise InputError(f"spikes have dtype {self.spikes.dtype}; it must be {SPIKE_DTYPE}.")
        samples = self.spikes["sample"]
        if len(samples):
            if len(late := np.flatnonzero(np.diff(samples) < 0)):
                first, second = samples[late[0] : late[0] + 2]
                raise InputError(
                    f"a spike at sample {first} stands before one at {second}; spikes must be sorted by sample: sort them first."
                )
            if samples[0] < 0 or samples[-1] >= self.n_samples:
                raise InputError(
                    f"spike samples {samples[0]} to {samples[-1]} must lie in the recording, 0 to {self.n_samples - 1}."
                )
            unknown = np.setdiff1d(self.spikes["unit"], self.unit_ids)
            if len(unknown):
                raise InputError(
                    f"spikes belong to units {unknown.tolist()}, which the unit table lacks; it must have every unit."
                )
        for name, column in self.units.items():
            if len(column) != len(self.unit_ids):
                raise InputError(
                    f"unit column {name!r} has {len(column)} values for {len(self.unit_ids)} units; it needs one for each."
                )

    @property
    def n_units(self) -> int:
        return len(self.unit_ids)

    @property
    def model_of_units(self) -> set[str]:
        """The names in `model` of arrays with one value per unit, or in a history one column per unit."""
        return {
            name
            for name, values in self.model.items()
            if name != "sigma"
            and np.ndim(values) == (2 if name.endswith("_history") else 1)
            and np.shape(values)[-1] == self.n_units
        }

    @property
    def peaks(self) -> Peaks:
        """Where each template exceeds the noise most."""
        return Peaks.of(self.templates, self.channels.get("noise_level"))

    @property
    def duration_s(self) -> float:
        return self.n_samples / self.sampling_frequency

    @property
    def sorted_s(self) -> float:
        """Seconds of the recording that were sorted, without those left out."""
        return self.duration_s - float(np.diff(self.excluded).sum()) / self.sampling_frequency

    def rate_hz(self, n_spikes: npt.ArrayLike) -> Any:
        """Return the rate of so many spikes (a number, or an array of them) over the time that was sorted."""
        return n_spikes / np.maximum(self.sorted_s, 1 / self.sampling_frequency)

    @property
    def sorted_intervals_s(self) -> np.ndarray:
        """Intervals (n, 2) in s, on the recording's clock, that were sorted."""
        edges = np.concatenate([[0], self.excluded.reshape(-1), [self.n_samples]]).reshape(-1, 2)
        return self.timeline.intervals_s(edges[edges[:, 1] > edges[:, 0]])

    @property
    def unit_rows(self) -> np.ndarray:
        """Row of the unit table (n_spikes,) that each spike belongs to."""
        order = np.argsort(self.unit_ids)
        return order[np.searchsorted(self.unit_ids, self.spikes["unit"], sorter=order)]

    def spike_samples(self, unit_id: int) -> np.ndarray:
        """Samples (int64) of one unit's spikes, ascending."""
        return np.asarray(self.spikes["sample"][self.spikes["unit"] == unit_id])

    def times_s(self, samples: np.ndarray) -> np.ndarray:
        """Times of samples in seconds on the recording's own clock."""
        return self.timeline.seconds(samples)

    @property
    def timeline(self) -> Timeline:
        """The recording's clock."""
        return timeline_of(self.files, self.start_time_s, self.sampling_frequency)

    def placed(self, recording: Recording) -> SortingData:
        """Return this sorting of a recording's time range as one of the whole recording, with the table of its parts.
        Samples then count from the recording's first; what lies outside the range counts as left out."""
        files = files_table(recording)
        if recording.time_range is None:
            return replace(self, files=files)
        first, end = recording.time_range
        spikes = self.spikes.copy()
        spikes["sample"] += first
        artefacts = self.artefacts.copy()
        for name in ("start", "stop", "sample"):
            artefacts[name] += np.where(artefacts[name] >= 0, first, 0)
        outside = [(a, b) for a, b in ((0, first), (end, recording.n_samples)) if a < b]
        excluded = widened([*outside, *(self.excluded + first)], 0, recording.n_samples)
        facts: dict[str, Any] = {"n_samples": recording.n_samples, "start_time_s": recording.start_time_s}
        return replace(
            self,
            spikes=spikes,
            excluded=excluded,
            artefacts=artefacts,
            files=files,
            noise_over_time=self.noise_over_time | {"first_sample": self.noise_over_time["first_sample"] + first}
            if self.noise_over_time
            else {},
            example_start=self.example_start + first,
            **facts,
        )

    def in_files(self, samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return, for samples of the recording, the row of `files` that each is in, and its time in s on that file's own
        clock."""
        firsts = self.files["first_sample"]
        row = np.searchsorted(firsts, samples, "right") - 1
        return row, (samples - firsts[row]) / self.sampling_frequency + self.files["start_time_s"][row]

    def by_clock(self) -> list[tuple[str, int, SortingData]]:
        """Split the sorting into one for each clock: name, first sample, and sorting of each run of `files` that share a
        clock.

        Samples count from the first of the run. Each has all units, with their number of spikes, rate, first and last
        spike there; other columns are those of the whole recording. Empty where the recording has one part only.
        """
        if not self.files:
            return []
        edges = [*self.files["first_sample"].tolist(), self.n_samples]
        goes_on = self.files.get("same_clock", np.zeros(len(edges) - 1, bool))
        begins = np.flatnonzero(~goes_on | (np.arange(len(goes_on)) == 0)).tolist()
        return [
            (str(self.files["name"][row]), edges[row], self._between(edges[row], edges[last], slice(row, last)))
            for row, last in zip(begins, [*begins[1:], len(goes_on)], strict=True)
        ]

    def _between(self, first: int, end: int, rows: slice) -> SortingData:
        """What lies from sample `first` to `end`, which are the parts in these rows of `files`, on their clock."""
        low, high = np.searchsorted(self.spikes["sample"], [first, end])
        spikes = self.spikes[low:high].copy()
        spikes["sample"] -= first
        files = {name: values[rows] for name, values in self.files.items()}
        files |= {"first_sample": files["first_sample"] - first, "time_s": files["start_time_s"]}
        part = replace(
            self,
            spikes=spikes,
            n_samples=end - first,
            start_time_s=float(files["start_time_s"][0]),
            files=files if len(files["name"]) > 1 else {},
            excluded=within(self.excluded, first, end) - first,
            artefacts=self.artefacts[:0],
            noise_over_time={},
            example=self.example[:0],
            example_start=0,
        )
        trains = [part.times_s(part.spike_samples(unit)) for unit in self.unit_ids]
        counts = np.array([len(train) for train in trains], np.int64)
        own = {
            "n_spikes": counts,
            "firing_rate": part.rate_hz(counts),
            "first_spike_s": np.array([train[0] if len(train) else np.nan for train in trains]),
            "last_spike_s": np.array([train[-1] if len(train) else np.nan for train in trains]),
        }
        return replace(part, units=self.units | {name: values for name, values in own.items() if name in self.units})

    def reconstruction(self, start: int, stop: int, unit_ids: Collection[int] | None = None) -> np.ndarray:
        """Return the high-passed traces that the spikes of all (or some) units explain, sum h_c * x_c, (stop - start,
        n_channels)."""
        n_times = self.templates.shape[2]
        signal = np.zeros((stop - start + 2 * n_times, self.n_channels), np.float32)
        chosen = self.unit_ids if unit_ids is None else unit_ids
        low, high = np.searchsorted(self.spikes["sample"], [start - n_times, stop + n_times])
        row, size = {int(u): i for i, u in enumerate(self.unit_ids)}, self.peaks.size
        for spike in self.spikes[low:high]:
            if spike["unit"] not in chosen:
                continue
            unit = row[int(spike["unit"])]
            first = int(spike["sample"]) - int(self.peak_index[unit]) - start + n_times
            template = self.templates[unit].T
            scale = spike["amplitude"] / size[unit]
            a, b = max(0, first), min(len(signal), first + n_times)
            if b > a:
                signal[a:b] += scale * template[a - first : b - first]
        return signal[n_times : n_times + stop - start]

    def trains(self) -> dict[str, np.ndarray]:
        """Return the spike samples of each unit, by the unit's number as text."""
        return {str(u): self.spike_samples(u) for u in self.unit_ids}
