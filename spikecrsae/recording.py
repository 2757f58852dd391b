"""Recording: lazy access to traces and to the physical facts that belong to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from spikecrsae.errors import InputError, UsageError


@dataclass(frozen=True)
class Chunk:
    """A stretch of traces with margins.

    `traces` (n_samples, n_channels) covers [start - left, stop + right); the margins are shorter at the
    ends of the recording. `core` is the part inside the margins.
    """

    start: int
    stop: int
    left: int
    right: int
    traces: np.ndarray

    @property
    def core(self) -> slice:
        return slice(self.left, self.left + self.stop - self.start)


@dataclass(frozen=True)
class Recording:
    """An extracellular recording that is read when asked for.

    read_raw(start, stop) returns the stored numbers of all stored channels, shape (stop - start, n_stored).
    `channels` are the stored columns in use; gain and offset have one value per channel in use and turn stored
    numbers into `amplitude_unit` ("uV" where the gain is known, else "ADC").
    `channel_positions` is (n_channels, 2) in um or None. `start_time_s` is the file's own time of sample 0.
    """

    read_raw: Callable[[int, int], np.ndarray]
    n_samples: int
    sampling_frequency: float
    channels: tuple[int, ...]
    channel_ids: tuple[str, ...]
    gain: np.ndarray
    offset: np.ndarray
    amplitude_unit: str
    source: Path
    format: str
    dtype: str
    channel_positions: np.ndarray | None = None
    start_time_s: float = 0.0
    notes: tuple[str, ...] = ()
    close: Callable[[], None] = field(default=lambda: None, repr=False)

    def __post_init__(self) -> None:
        if not (np.isfinite(self.sampling_frequency) and self.sampling_frequency > 0):
            raise InputError(
                f"{self.source}: sampling frequency {self.sampling_frequency} Hz is not a positive number; "
                "give the true one with --sampling-frequency."
            )
        if self.n_samples < 1 or not self.channels:
            raise InputError(
                f"{self.source}: {self.n_samples} samples on {len(self.channels)} channels; "
                "a recording needs at least one of each."
            )
        n = len(self.channels)
        if len(self.channel_ids) != n or self.gain.shape != (n,) or self.offset.shape != (n,):
            raise InputError(f"{self.source}: channel ids, gains and offsets must have one value for each of {n} channels.")
        if self.channel_positions is not None and self.channel_positions.shape != (n, 2):
            raise InputError(
                f"{self.source}: channel positions have shape {self.channel_positions.shape}, must be ({n}, 2)."
            )

    @property
    def n_channels(self) -> int:
        return len(self.channels)

    @property
    def duration_s(self) -> float:
        return self.n_samples / self.sampling_frequency

    def raw(self, start: int, stop: int) -> np.ndarray:
        """Stored numbers of the channels in use, (stop - start, n_channels), clipped to the recording; not to be written to."""
        start, stop = max(0, start), min(self.n_samples, stop)
        stored = np.asarray(self.read_raw(start, stop))
        return stored if self.channels == tuple(range(stored.shape[1])) else stored[:, list(self.channels)]

    def traces(self, start: int, stop: int) -> np.ndarray:
        """float32 traces (stop - start, n_channels) in `amplitude_unit`, clipped to the recording."""
        values = self.raw(start, stop).astype(np.float64)
        values *= _one_if_shared(self.gain)
        values += _one_if_shared(self.offset)
        return values.astype(np.float32)

    def chunks(self, chunk_size: int, margin: int = 0) -> Iterator[Chunk]:
        """The whole recording in order, `chunk_size` samples at a time, with `margin` samples around each."""
        for start in range(0, self.n_samples, chunk_size):
            stop = min(start + chunk_size, self.n_samples)
            left, right = min(margin, start), min(margin, self.n_samples - stop)
            yield Chunk(start, stop, left, right, self.traces(start - left, stop + right))

    def select(self, indices: Sequence[int]) -> Recording:
        """The same recording on some of its channels, by position from 0.

        Raises UsageError for an index that does not exist or stands twice.
        """
        picked = [int(i) for i in indices]
        bad = [i for i in picked if not 0 <= i < self.n_channels]
        if bad or not picked or len(set(picked)) != len(picked):
            raise UsageError(
                f"channels {picked} cannot be selected: {self.source} has channels 0 to {self.n_channels - 1}, "
                "each to be named once."
            )
        return replace(
            self,
            channels=tuple(self.channels[i] for i in picked),
            channel_ids=tuple(self.channel_ids[i] for i in picked),
            gain=self.gain[picked],
            offset=self.offset[picked],
            channel_positions=None if self.channel_positions is None else self.channel_positions[picked],
        )


def _one_if_shared(values: np.ndarray) -> np.ndarray:
    """The channels' value where it is the same for all, else their values: numpy is slow along an axis of few numbers."""
    return values[0] if (values == values[0]).all() else values


def recording_from_array(
    traces: np.ndarray, sampling_frequency: float, *, amplitude_unit: str = "uV", name: str = "array", **facts
) -> Recording:
    """A Recording over an array (n_samples, n_channels) in memory; `facts` are further Recording fields.

    Raises InputError for an array that is not two-dimensional.
    """
    traces = np.asarray(traces)
    if traces.ndim != 2:
        raise InputError(f"{name}: traces have shape {traces.shape}, must be (n_samples, n_channels).")
    n = traces.shape[1]
    return Recording(
        read_raw=lambda start, stop: traces[start:stop],
        n_samples=traces.shape[0],
        sampling_frequency=float(sampling_frequency),
        channels=tuple(range(n)),
        channel_ids=tuple(str(i) for i in range(n)),
        gain=np.ones(n),
        offset=np.zeros(n),
        amplitude_unit=amplitude_unit,
        source=Path(name),
        format="array",
        dtype=str(traces.dtype),
        **facts,
    )
