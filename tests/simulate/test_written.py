"""What `simulate` writes: a file that reads back with its truth, the same bytes again, and no file lost."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from spikecrsae.errors import OutputError
from spikecrsae.readers import open_recording, read_truth
from spikecrsae.readers.intracellular import detect_spikes
from spikecrsae.readers.read_options import ReadOptions
from spikecrsae.simulate import (
    SimulationConfig,
    preset_config,
    simulate,
    write_simulation,
)

# --- file -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_file_reads_back_with_its_truth(tetrode, tmp_path):
    path = tmp_path / "recording.h5"
    write_simulation(tetrode, path)
    recording = open_recording(path)
    assert (recording.sampling_frequency, recording.amplitude_unit) == (20000.0, "uV")
    np.testing.assert_array_equal(recording.raw(0, 1000), tetrode.traces[:1000])
    np.testing.assert_allclose(recording.traces(0, 1000), (tetrode.traces * tetrode.gain + tetrode.offset)[:1000], rtol=1e-5)
    np.testing.assert_array_equal(recording.channel_positions, tetrode.channel_positions)
    recording.close()
    trains = read_truth(path, recording_fs=20000.0)
    assert list(trains) == [str(unit) for unit in range(5)]
    for unit, train in enumerate(trains.values()):
        np.testing.assert_array_equal(train, tetrode.truth.spike_samples(unit))
    with h5py.File(path) as file:
        assert SimulationConfig(**json.loads(file.attrs["simulation"])) == tetrode.config
        assert file["traces"].compression == "gzip" and file["traces"].shuffle


@pytest.mark.slow
def test_intracellular_dataset_is_a_truth_channel(tetrode, tmp_path):
    write_simulation(tetrode, tmp_path / "recording.h5")
    channel = open_recording(tmp_path / "recording.h5", ReadOptions(dataset="intracellular"))
    found = detect_spikes(channel)
    channel.close()
    expected = tetrode.truth.spike_samples(0)
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected + 4, atol=2)


def test_the_same_simulation_gives_the_same_bytes(tmp_path):
    simulation = simulate(preset_config("tetrode", duration_s=1.0))
    write_simulation(simulation, tmp_path / "a.h5")
    write_simulation(simulation, tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.h5", "b.h5"]


def test_an_existing_file_is_kept_unless_told(tmp_path):
    simulation = simulate(preset_config("tetrode", duration_s=1.0))
    path = tmp_path / "mine.h5"
    write_simulation(simulation, path)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists"):
        write_simulation(simulation, path)
    assert path.read_bytes() == before
    write_simulation(simulate(preset_config("tetrode", duration_s=1.0, seed=1)), path, overwrite=True)
    assert path.read_bytes() != before


@pytest.mark.parametrize("damaged", [False, True])
def test_only_a_simulation_is_overwritten(tmp_path, damaged):
    simulation, path = simulate(preset_config("tetrode", duration_s=1.0)), tmp_path / "mine.h5"
    with h5py.File(path, "w") as file:
        file["traces"] = np.zeros((100, 2))
    if damaged:
        path.write_bytes(path.read_bytes()[:500])
    before = path.read_bytes()
    with pytest.raises(OutputError, match="not written by simulate"):
        write_simulation(simulation, path, overwrite=True)
    assert path.read_bytes() == before


def test_an_unwritable_place_is_an_output_error(tmp_path):
    simulation = simulate(preset_config("tetrode", duration_s=1.0))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is not a folder"):
        write_simulation(simulation, tmp_path / "file" / "recording.h5")


def test_the_sample_recording_is_what_its_command_makes():
    """Traces up to one bit, because Fourier transforms differ in the last digit between machines."""
    simulation = simulate(preset_config("tetrode", duration_s=60.0, sampling_frequency=20000.0, seed=7))
    sample = Path(__file__).parents[2] / "sample_data" / "tetrode.h5"
    assert sample.stat().st_size < 8e6
    with h5py.File(sample) as file:
        assert np.abs(file["traces"][()].astype(int) - simulation.traces).max() <= 1
        assert len(file["truth"]) == 5
        for unit in range(5):
            np.testing.assert_array_equal(file[f"truth/{unit}/spike_samples"], simulation.truth.spike_samples(unit))
