"""Signal of several tasks is read in one pass over the recording."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from spikecrsae.data.recording import BLOCK, Recording, recording_from_array
from spikecrsae.pipeline import one_pass
from spikecrsae.pipeline.one_pass import WithSignal, holding

N_SAMPLES = BLOCK + 1000


@dataclass(frozen=True)
class Task:
    channels: tuple[int, ...]
    signal: np.ndarray | None = None


TASKS = [Task((0, 2)), Task((1, 2, 3)), Task((3,))]


@pytest.fixture
def traces() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 1000, (N_SAMPLES, 4)).astype(np.int16)


@pytest.fixture
def counted(traces) -> tuple[Recording, list[int]]:
    """The recording, and the samples read so far, one number for each time."""
    recording, read = recording_from_array(traces, 20000.0), []

    def read_raw(start: int, stop: int) -> np.ndarray:
        read.append(stop - start)
        return traces[start:stop]

    return replace(recording, read_raw=read_raw), read


def test_what_is_held_is_what_is_stored(counted, traces):
    recording, read = counted
    for task, given in zip(TASKS, WithSignal(TASKS, recording), strict=True):
        assert given.channels == task.channels
        part = holding(recording.select(task.channels), given.signal)
        np.testing.assert_array_equal(part.raw(5, N_SAMPLES), traces[5:, list(task.channels)])
        np.testing.assert_array_equal(part.traces(0, 10), recording.select(task.channels).traces(0, 10))
    assert sum(read) - 10 * len(TASKS) <= N_SAMPLES + 1, "the recording is read once"


def test_no_more_is_held_than_a_limit(counted, monkeypatch):
    """Two tasks fit, then one by itself; one that needs more than the limit reads for itself."""
    recording, read = counted
    monkeypatch.setattr(one_pass, "MOST_BYTES", 5 * 2 * N_SAMPLES)
    signals = [task.signal for task in WithSignal(TASKS, recording)]
    assert [signal.shape[1] for signal in signals] == [2, 3, 1]
    assert 2 * N_SAMPLES <= sum(read) <= 2 * N_SAMPLES + 2
    monkeypatch.setattr(one_pass, "MOST_BYTES", 2 * 2 * N_SAMPLES)
    signals = [task.signal for task in WithSignal(TASKS, recording)]
    assert [signal is None for signal in signals] == [False, True, False]
