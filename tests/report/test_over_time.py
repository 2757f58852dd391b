"""The picture of what changes over a recording: noise, and which units fire."""

from __future__ import annotations

import re

import numpy as np

from spikecrsae.config import Config
from spikecrsae.data.recording import recording_from_array
from spikecrsae.data.sorting import SPIKE_DTYPE, SortingData
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.report.over_time import N_BINS, over_time_picture
from spikecrsae.results.sorting_h5 import sorting_from_hdf5, sorting_to_hdf5

FS, N_SAMPLES = 20_000.0, 1_200_000


def sorting() -> SortingData:
    """60 s; unit 0 fires all the time, unit 1 in the second half, where the noise is twice as loud."""
    rows = [(s, 0, 50.0, 0.0, 1.0) for s in range(0, N_SAMPLES, 5000)] + [
        (s, 1, 50.0, 0.0, 1.0) for s in range(600_000, N_SAMPLES, 5000)
    ]
    noise = {"first_sample": np.array([0, 600_000]), "group": np.zeros(2, np.int64), "times_usual": np.array([1.0, 2.0])}
    return SortingData(
        np.sort(np.array(rows, SPIKE_DTYPE), order="sample"), np.arange(2, dtype=np.int32), FS, N_SAMPLES, 1, "uV",
        units={"label": np.array(["single"] * 2)}, noise_over_time=noise,
    )  # fmt: skip


def test_a_unit_is_drawn_where_it_fires_and_the_noise_steps_where_it_does(tmp_path):
    file = tmp_path / "sorting.h5"
    file.write_bytes(sorting_to_hdf5(sorting(), "{}"))
    read = sorting_from_hdf5(file)[0]
    assert {name: values.tolist() for name, values in read.noise_over_time.items()} == {
        name: values.tolist() for name, values in sorting().noise_over_time.items()
    }
    drawn = over_time_picture(read).svg
    assert len(re.findall('class="heat"', drawn)) == N_BINS + N_BINS // 2
    assert over_time_picture(SortingData(read.spikes, read.unit_ids, FS, N_SAMPLES, 1, "uV", units=read.units)) is None


def test_noise_at_spikes_is_that_of_the_stretches_in_which_a_unit_fires():
    """The large unit fires from 6 s on: for 4 s in the usual noise and 9.9 s in noise twice as loud."""
    rng = np.random.default_rng(0)
    traces = rng.standard_normal((int(20 * FS), 1)).astype(np.float32) * 10
    traces[int(10 * FS) :] *= 2
    ms = np.arange(-20, 60)[:, None] / FS * 1000
    wave = -np.exp(-((ms / 0.13) ** 2)) + 0.4 * np.exp(-(((ms - 0.45) / 0.28) ** 2))
    for first, last, size in ((0.1, 19.9, 150), (6.0, 19.9, 400)):
        for sample in np.sort(rng.uniform(first * FS, last * FS, round(8 * (last - first)))).astype(int):
            traces[sample - 20 : sample + 60] += size * wave
    units = sort_group(recording_from_array(traces, FS), Config()).sorting.units
    late = int(np.argmax(units["amplitude"]))
    assert abs(units["noise_at_spikes"][late] - (4 + 2 * 9.9) / 13.9) < 0.15 and units["first_spike_s"][late] > 5.9
    assert abs(units["noise_at_spikes"][1 - late] - 1.5) < 0.15 and units["last_spike_s"][1 - late] > 19
