"""Read the signal of several tasks in one pass over the recording, so that a file of many groups is not read for each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar, overload

import numpy as np

from spikecrsae.data.recording import BLOCK, Recording

#: Bytes of signal that are held for the tasks that follow.
MOST_BYTES = 2**28
Task = TypeVar("Task", bound=Any)


class WithSignal(Sequence[Task]):
    """Tasks (dataclasses with `channels`, positions in the recording), each with `signal`: the stored samples (n_samples,
    n_channels).

    Signal is read when a task is asked for, for as many tasks from there on as MOST_BYTES hold, and given out once. A task that
    needs more stays without. The recording has no time range.
    """

    def __init__(self, tasks: Sequence[Task], recording: Recording) -> None:
        self._tasks, self._recording = tasks, recording
        self._held: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    @overload
    def __getitem__(self, number: int) -> Task: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Task]: ...
    def __getitem__(self, number: int | slice) -> Task | Sequence[Task]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        task = self._tasks[number]
        if number not in self._held:
            self._held = dict(self._read(number))
        return replace(task, signal=self._held.pop(number, None))

    def _read(self, first: int) -> Iterator[tuple[int, np.ndarray]]:
        recording = self._recording
        n_samples, row = recording.n_samples, recording.raw(0, 1)
        sizes = [n_samples * len(task.channels) * row.itemsize for task in self._tasks[first:]]
        n_tasks = int(np.searchsorted(np.cumsum(sizes), MOST_BYTES, "right"))
        parts = [list(task.channels) for task in self._tasks[first : first + n_tasks]]
        signals = [np.empty((n_samples, len(part)), row.dtype) for part in parts]
        for start in range(0, n_samples, BLOCK) if parts else ():
            stored = recording.raw(start, start + BLOCK)
            for part, signal in zip(parts, signals, strict=True):
                signal[start : start + len(stored)] = stored[:, part]
        return zip(range(first, first + n_tasks), signals, strict=True)


def holding(recording: Recording, signal: np.ndarray) -> Recording:
    """The recording with its stored samples (n_samples, n_channels) in memory."""
    return replace(recording, read_raw=lambda start, stop: signal[start:stop], channels=tuple(range(signal.shape[1])))
