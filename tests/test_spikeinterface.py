"""run_sorter("spikecrsae", ...) of SpikeInterface gives what the command line gives."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pytest

si = pytest.importorskip("spikeinterface")
import spikeinterface.sorters as ss  # noqa: E402
from probeinterface import ProbeGroup, generate_tetrode  # noqa: E402
from spikeinterface.core import NumpyRecording  # noqa: E402

from spikecrsae.config import Config  # noqa: E402
from spikecrsae.data.recording import recording_from_array  # noqa: E402
from spikecrsae.pipeline import groups  # noqa: E402
from spikecrsae.pipeline.sort import sort_group  # noqa: E402
from spikecrsae.results.folder import read_sorting  # noqa: E402
from spikecrsae.score import compare  # noqa: E402
from spikecrsae.simulate import preset_config, simulate  # noqa: E402
from spikecrsae.spikeinterface import SpikeCRsAESorter, _reopened, recording_from_spikeinterface  # noqa: E402

# SpikeInterface warns that a saved array has no origin, and leaves the closing of files to the garbage collector
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The extractor is not serializable:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*FileIO.*:pytest.PytestUnraisableExceptionWarning"),
]
SAMPLE = Path(__file__).parents[1] / "sample_data" / "tetrode.h5"
QUICK = {"epochs": 2, "device": "cpu"}
CONFIG = Config().with_values({"train": {"epochs": 2}, "runtime": {"device": "cpu"}})
FS = 20000.0


def saved(traces: list[np.ndarray], folder: Path, gain: float | None = None, probe: ProbeGroup | None = None):
    """Arrays (n_samples, n_channels), one per segment, as a recording that SpikeInterface can open again."""
    recording = NumpyRecording(traces, FS)
    if gain is not None:
        recording.set_channel_gains(gain)
        recording.set_channel_offsets(0.0)
    if probe is not None:
        recording.set_probegroup(probe)
    return recording.save(folder=folder, verbose=False, progress_bar=False)


def trains(sorting, segment: int = 0) -> dict[int, np.ndarray]:
    return {int(unit): sorting.get_unit_spike_train(unit, segment_index=segment) for unit in sorting.unit_ids}


@pytest.fixture(scope="module")
def tetrodes() -> list[np.ndarray]:
    made = [preset_config("tetrode", n_units=2, n_bursting=0, duration_s=5.0, seed=seed, snr_low=10.0) for seed in (3, 4)]
    return [simulate(config).traces for config in made]


def test_it_is_among_the_sorters():
    assert "spikecrsae" in ss.available_sorters() and "spikecrsae" in ss.installed_sorters()
    parameters = ss.get_default_sorter_params("spikecrsae")
    config = Config()
    for stage in fields(config):
        for setting in fields(getattr(config, stage.name)):
            assert parameters[setting.name] == setting.default
    assert set(parameters) == set(ss.get_sorter_params_description("spikecrsae"))
    assert set(parameters) - {"by_group", "jobs"} == {
        f.name for s in fields(config) for f in fields(getattr(config, s.name))
    }


def test_the_sample_is_sorted_as_on_the_command_line(short_sort, tmp_path):
    with h5py.File(short_sort.recording) as file:
        recording = saved([file["traces"][:]], tmp_path / "saved", gain=file["traces"].attrs["gain"])
    sorting = ss.run_sorter("spikecrsae", recording, folder=tmp_path / "si")
    expected = read_sorting(short_sort.folder)
    assert sorting.get_num_units() == expected.n_units >= 3
    for unit, train in trains(sorting).items():
        np.testing.assert_array_equal(train, expected.spike_samples(unit))
    np.testing.assert_allclose(sorting.get_property("snr"), expected.units["snr"])
    np.testing.assert_array_equal(sorting.get_property("label"), expected.units["label"])
    np.testing.assert_array_equal(read_sorting(tmp_path / "si" / "sorter_output").spikes, expected.spikes)
    again = ss.read_sorter_folder(tmp_path / "si")
    np.testing.assert_array_equal(again.to_spike_vector(), sorting.to_spike_vector())
    assert sorting.get_sampling_frequency() == FS


def test_two_tetrodes_with_a_probe_are_two_groups(tetrodes, tmp_path):
    probes = ProbeGroup()
    for number in range(2):
        probe = generate_tetrode()
        probe.move([100.0 * number, 0.0])
        probe.set_device_channel_indices(np.arange(4) + 4 * number)
        probes.add_probe(probe)
    recording = saved([np.concatenate(tetrodes, axis=1)], tmp_path / "saved", gain=1.0, probe=probes)
    sorting = ss.run_sorter("spikecrsae", recording, folder=tmp_path / "si", jobs=1, **QUICK)
    alone = [sort_group(recording_from_array(traces, FS), CONFIG).sorting for traces in tetrodes]
    expected = [single.spike_samples(unit) for single in alone for unit in single.unit_ids]
    assert len(expected) == sorting.get_num_units()
    for train, mine in zip(expected, trains(sorting).values(), strict=True):
        np.testing.assert_array_equal(train, mine)
    assert sorting.get_property("group").tolist() == [0] * alone[0].n_units + [1] * alone[1].n_units
    channels = read_sorting(tmp_path / "si" / "sorter_output").channels
    np.testing.assert_allclose(channels["positions"], recording.get_channel_locations())
    assert len(_reopened(tmp_path / "si", True).groups) == 2 and not _reopened(tmp_path / "si", False).groups


def test_segments_share_their_units(tetrodes, tmp_path):
    traces, cut = tetrodes[0], 50_000
    recording = saved([traces[:cut], traces[cut:]], tmp_path / "saved")
    sorting = ss.run_sorter("spikecrsae", recording, folder=tmp_path / "si", **QUICK)
    whole = sort_group(recording_from_array(traces, FS, amplitude_unit="ADC"), CONFIG).sorting
    assert sorting.get_num_segments() == 2
    found = {str(u): np.concatenate([trains(sorting, 0)[u], trains(sorting, 1)[u] + cut]) for u in sorting.unit_ids}
    # all but what lies at the seam
    assert min(row.accuracy for row in compare(whole.trains(), found, FS).rows) > 0.97


def test_a_recording_keeps_its_stored_numbers(tmp_path):
    stored = np.random.default_rng(0).integers(-500, 500, (1000, 3)).astype("int16")
    recording = NumpyRecording([stored], FS, channel_ids=["a", "b", "c"])
    ours = recording_from_spikeinterface(recording)
    assert (ours.amplitude_unit, ours.dtype, ours.channel_ids, ours.groups) == ("ADC", "int16", ("a", "b", "c"), {})
    np.testing.assert_array_equal(ours.raw(10, 20), stored[10:20])
    recording.set_channel_gains([0.5, 1.0, 2.0])
    recording.set_channel_offsets(3.0)
    recording.set_property("group", [1, 7, 1])
    ours = recording_from_spikeinterface(recording)
    np.testing.assert_allclose(ours.traces(10, 20), recording.get_traces(start_frame=10, end_frame=20, return_in_uV=True))
    assert ours.groups == {"1": (0, 2), "7": (1,)}


def test_errors_are_those_of_the_program(tetrodes, tmp_path):
    recording = saved([tetrodes[0][:4000]], tmp_path / "saved")
    with pytest.raises(Exception, match=r"initialise\.units"):
        ss.run_sorter("spikecrsae", recording, folder=tmp_path / "si", units=0)
    flat = saved([np.zeros((4000, 2), "int16")], tmp_path / "flat")
    with pytest.raises(Exception, match="no usable channel"):
        ss.run_sorter("spikecrsae", flat, folder=tmp_path / "no")


def test_the_model_of_a_run_can_be_applied(tetrodes, tmp_path):
    recording = saved([tetrodes[0]], tmp_path / "saved", gain=1.0)
    sorting = ss.run_sorter("spikecrsae", recording, folder=tmp_path / "si", **QUICK)
    again = groups.apply(
        tmp_path / "si" / "sorter_output" / "model.safetensors", recording_from_spikeinterface(recording), CONFIG
    )
    assert {u: len(t) for u, t in trains(sorting).items()} == {int(u): len(t) for u, t in again.sorting.trains().items()}
    assert SpikeCRsAESorter.get_sorter_version()
