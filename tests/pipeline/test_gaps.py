"""A file in which signal is missing: no spike goes across the gap, and every time is the file's."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.command_line import spikecrsae

from spikecrsae.data.intervals import parse_intervals
from spikecrsae.errors import UsageError
from spikecrsae.readers import open_recording, open_session
from spikecrsae.readers.triggers import read_triggers
from spikecrsae.results.folder import read_sorting
from spikecrsae.simulate import preset_config, simulate

pytestmark = pytest.mark.slow

FS = 20000.0
N, CUT, LOST_S, START_S = 160_000, 70_000, 3.0, 10.0


def write_nwb(path: Path, traces: np.ndarray, stamps: np.ndarray, trains: dict[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["nwb_version"] = "2.6.0"
        series = file.create_group("acquisition/Raw")
        series.attrs["neurodata_type"] = "ElectricalSeries"
        series["data"], series["timestamps"] = traces, stamps
        series["data"].attrs.update({"conversion": 1e-6, "unit": "volts"})
        file["units/spike_times"] = np.concatenate([stamps[train] for train in trains.values()])
        file["units/spike_times_index"] = np.cumsum([len(train) for train in trains.values()])
        file["units/id"] = np.arange(len(trains))
    return path


@pytest.fixture(scope="module")
def simulation():
    return simulate(preset_config("tetrode", n_units=2, n_bursting=0, duration_s=N / FS, seed=3, snr_low=10.0))


@pytest.fixture(scope="module")
def stamps() -> np.ndarray:
    times = START_S + np.arange(N) / FS
    times[CUT:] += LOST_S
    return np.floor(1e6 * times) / 1e6


@pytest.fixture(scope="module")
def gapped(simulation, stamps, tmp_path_factory) -> Path:
    """Signal of 3.5 s, nothing for 3 s, signal of 4.5 s; the known spikes in it are in seconds on its clock."""
    return write_nwb(tmp_path_factory.mktemp("gap") / "gap.nwb", simulation.traces, stamps, simulation.truth.trains())


@pytest.fixture(scope="module")
def sorted_gapped(gapped) -> Path:
    folder = gapped.parent / "sorted"
    result = spikecrsae("sort", gapped, "-o", folder, "--epochs", 2, "--device", "cpu", "--quiet")
    assert result.exit_code == 0, result.stderr
    return folder


def test_times_are_the_files_in_every_table(sorted_gapped, stamps):
    sorting = read_sorting(sorted_gapped)
    samples = sorting.spikes["sample"]
    assert (samples < CUT).any() and (samples >= CUT).any()
    rows = list(csv.DictReader((sorted_gapped / "spikes.csv").read_text().splitlines()))
    for name in ("time_s", "file_time_s"):
        np.testing.assert_allclose([float(row[name]) for row in rows], stamps[samples], atol=2e-6)
    for row in csv.DictReader((sorted_gapped / "units.csv").read_text().splitlines()):
        mine = stamps[sorting.spike_samples(int(row["unit"]))]
        assert float(row["first_spike_s"]) == pytest.approx(mine[0], abs=1e-4)
        assert float(row["last_spike_s"]) == pytest.approx(mine[-1], abs=1e-4)
    run = json.loads((sorted_gapped / "run.json").read_text())
    assert run["excluded_s"] == [pytest.approx([13.497, 16.503], abs=1e-5)]
    assert [part["start_time_s"] for part in run["recording"]["files"]] == pytest.approx([10.0, 16.5], abs=2e-6)
    assert "signal is missing at 1 place: 3 s between samples 69999 and 70000" in " ".join(run["recording"]["notes"])


def test_no_spike_goes_across_the_gap(sorted_gapped):
    distance = read_sorting(sorted_gapped).spikes["sample"] - CUT
    assert not np.any((distance >= -60) & (distance < 60))


def test_known_spikes_in_seconds_of_the_file_agree(sorted_gapped, gapped):
    result = spikecrsae("score", sorted_gapped, "--truth", gapped, "--json")
    rows = json.loads(result.stdout)["one_to_one"]
    assert min(row["accuracy"] for row in rows) > 0.95


def test_times_that_are_given_are_the_files(gapped, tmp_path, caplog):
    recording = open_recording(gapped)
    assert parse_intervals("13-17,19-19.5", recording).tolist() == [[60_000, 80_000], [120_000, 130_000]]
    assert parse_intervals("14-16", recording).tolist() == [[CUT, CUT]]  # nothing was recorded
    assert parse_intervals("20.5-21", recording).tolist() == [[150_000, N]]
    with pytest.raises(UsageError, match="from 10 to 21 s"):
        parse_intervals("20-22", recording)
    (tmp_path / "pulses.csv").write_text("time_s\n11\n15\n16.5\n20\n")
    with caplog.at_level(logging.WARNING, "spikecrsae"):
        assert read_triggers(str(tmp_path / "pulses.csv"), recording).tolist() == [20_000, CUT, 140_000]
    assert "1 trigger in gaps" in caplog.text
    recording.close()


def test_a_range_within_a_file_with_a_gap_is_on_its_clock(gapped):
    recording = open_recording(gapped, start_s=12.0, stop_s=18.0)
    assert recording.time_range == (40_000, 100_000)
    part = recording.in_range()
    assert [(p.first, p.n_samples, p.same_clock) for p in part.parts] == [(0, 30_000, False), (30_000, 30_000, True)]
    np.testing.assert_allclose(part.timeline.seconds([0, 29_999, 30_000]), [12.0, 13.49995, 16.5], atol=2e-6)
    recording.close()


def test_a_file_with_a_gap_in_a_session_keeps_its_own_clock(gapped, simulation, tmp_path):
    """The clock of the session counts through its files, and stands still for none of their gaps."""
    other = write_nwb(tmp_path / "other.nwb", simulation.traces[:20_000], np.arange(20_000) / FS, {"0": np.array([5])})
    recording = open_session([gapped, other])
    assert [part.first for part in recording.parts] == [0, CUT, N]
    assert [part.start_time_s for part in recording.parts] == pytest.approx([10.0, 16.5, 0.0], abs=2e-6)
    np.testing.assert_allclose(recording.timeline.times_s, [10.0, 16.5, 21.0], atol=2e-6)
    recording.close()
