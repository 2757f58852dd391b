"""A neuron that appears or vanishes is said, a neuron that fires in bursts or seldom is not taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from spikecrsae.data.recording import recording_from_array
from spikecrsae.data.sorting import SPIKE_DTYPE, SortingData
from spikecrsae.preprocess.sanity import of_facts, of_presence

FS, SECONDS = 20_000.0, 300


def sorting_of(trains: list[np.ndarray], labels: list[str], excluded: np.ndarray | None = None) -> SortingData:
    """A sorting of SECONDS with these trains, in samples."""
    rows = np.concatenate(
        [np.array([(s, unit, 100.0, 0.0, 1.0) for s in train], SPIKE_DTYPE) for unit, train in enumerate(trains)]
    )
    more = {} if excluded is None else {"excluded": excluded}
    return SortingData(
        np.sort(rows, order="sample"), np.arange(len(trains), dtype=np.int32), FS, int(SECONDS * FS), 1, "uV",
        units={"label": np.array(labels)}, **more,
    )  # fmt: skip


def poisson(rate: float, first: float, last: float, seed: int) -> np.ndarray:
    """Samples of a train at `rate` between two times in s."""
    n = np.random.default_rng(seed).poisson(rate * (last - first))
    return np.sort(np.random.default_rng(seed + 1).uniform(first, last, n) * FS).astype(np.int64)


def test_neurons_that_appear_and_vanish_are_said_by_name_and_time():
    trains = [poisson(5, 0, 300, 0), poisson(5, 120, 300, 2), poisson(8, 0, 200, 4)]
    (remark,) = of_presence(sorting_of(trains, ["single"] * 3))
    late, silent = remark.split("; ")[1:]
    assert "first fires late: unit 1 (120" in late and "falls silent: unit 2 (19" in silent
    assert "unit 0" not in remark
    assert not of_presence(sorting_of(trains, ["single", "noise", "artefact"]))


@pytest.mark.parametrize("seed", range(5))
def test_seldom_and_bursting_neurons_and_excluded_stretches_are_no_reason(seed):
    seldom = poisson(0.05, 0, 300, seed)
    bursts = np.sort(np.concatenate([at + poisson(20, 0, 2, seed + k) for k, at in enumerate(poisson(0.03, 0, 290, seed))]))
    assert not of_presence(sorting_of([seldom, bursts, poisson(3, 0, 300, seed)], ["single"] * 3))
    excluded = np.array([[0, int(100 * FS)]])
    assert not of_presence(sorting_of([poisson(5, 100, 300, seed)], ["single"], excluded))
    assert of_presence(sorting_of([poisson(5, 100, 300, seed)], ["single"]))


@pytest.mark.parametrize(("fs", "words"), [(3000.0, "unusual"), (6000.0, "is low for spikes"), (10_000.0, None)])
def test_a_sampling_frequency_too_low_for_spikes_is_said(fs, words):
    remarks = of_facts(recording_from_array(np.zeros((int(10 * fs), 1), np.float32), fs))
    assert [words in text for text in remarks] == ([True] if words else [])
