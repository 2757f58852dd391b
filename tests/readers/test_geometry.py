"""Where the contacts are: probe files and positions in a recording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers import recording_files as files

from spikecrsae.errors import InputError
from spikecrsae.readers import open_recording, read_probe


def probe_file(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_probeinterface_json(tmp_path):
    probeinterface = pytest.importorskip("probeinterface")
    probe = probeinterface.generate_tetrode()
    probe.set_device_channel_indices([3, 2, 1, 0])
    path = tmp_path / "tetrode.json"
    probeinterface.write_probeinterface(str(path), probe)
    recording = open_recording(files.hdf5_millivolts(tmp_path).path, probe=path, channels="1-3")
    np.testing.assert_allclose(recording.channel_positions, probe.contact_positions[[2, 1, 0]])
    recording.close()


def test_prb_with_groups_and_ranges(tmp_path):
    text = "total_nb_channels = 8\nchannel_groups = {\n 0: {'channels': list(range(4)), 'geometry': {i: (0, 10) for i in []}},\n}\n"
    with pytest.raises(InputError, match="literal"):
        read_probe(probe_file(tmp_path / "comprehension.prb", text))
    text = (
        "channel_groups = {0: {'channels': list(range(0, 2)), 'geometry': {0: (0, 0), 1: (0, 20)}},"
        " 1: {'channels': [2, 3], 'geometry': [(50, 0), (50, 20)]}}"
    )
    probe = read_probe(probe_file(tmp_path / "good.prb", text))
    assert probe.groups == {"0": (0, 1), "1": (2, 3)}
    assert probe.positions == {0: (0, 0), 1: (0, 20), 2: (50, 0), 3: (50, 20)}


def test_prb_is_never_executed(tmp_path):
    mark = tmp_path / "executed"
    text = f"channel_groups = {{0: {{'channels': [open({str(mark)!r}, 'w')]}}}}"
    with pytest.raises(InputError, match="nothing is run"):
        read_probe(probe_file(tmp_path / "evil.prb", text))
    assert not mark.exists()


def test_prb_without_geometry_gives_groups(tmp_path):
    probe = probe_file(tmp_path / "bare.prb", "channel_groups = {1: {'channels': [0, 1, 2, 3]}}")
    assert read_probe(probe).groups == {"1": (0, 1, 2, 3)}
    recording = open_recording(files.hdf5_millivolts(tmp_path).path, probe=probe)
    assert recording.channel_positions is None
    assert any("no contact positions" in note for note in recording.notes)
    recording.close()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        "x = 1",
        "channel_groups = 3",
        "channel_groups = {0: {'channels': [0, 0]}}",
        "channel_groups = {0: {'channels': [0], 'geometry': {0: (0, 1e999)}}}",
        '{"probes": [{"contact_positions": [[0, 0], [0, 1]], "device_channel_indices": [0]}]}',
        '{"probes": [{"contact_positions": [[0, 0], [0, 1]], "device_channel_indices": [0, 0]}]}',
    ],
)
def test_bad_probe_files(tmp_path, text):
    path = probe_file(tmp_path / "bad.prb", text)
    with pytest.raises(InputError, match=r"bad\.prb"):
        read_probe(path)


def test_a_probe_that_misses_a_channel(tmp_path):
    probe = probe_file(
        tmp_path / "two.prb", "channel_groups = {0: {'channels': [0, 1], 'geometry': {0: (0, 0), 1: (0, 9)}}}"
    )
    path = files.hdf5_millivolts(tmp_path).path
    with pytest.raises(InputError, match=r"channels \[2, 3\]"):
        open_recording(path, probe=probe)
    open_recording(path, probe=probe, channels="0,1").close()


@pytest.mark.parametrize(
    ("stored", "flat"),
    [
        ([[0, 1, 2], [0, 3, 4]], [[1, 2], [3, 4]]),
        ([[5, 1, 2], [5, 1, 4]], [[0, 2], [0, 4]]),
        ([[0, 0], [0, 5]], [[0, 0], [0, 5]]),
        ([[1, 1], [1, 1]], None),
        ([[0, np.nan], [1, 1]], None),
    ],
)
def test_positions_are_flattened(tmp_path, stored, flat):
    path = files.hdf5(tmp_path / "flat.h5", traces=np.zeros((1000, 2)), channel_positions=np.array(stored, float))
    recording = open_recording(path, sampling_frequency=files.FS)
    if flat is None:
        assert recording.channel_positions is None
        assert any("positions" in note for note in recording.notes)
    else:
        np.testing.assert_array_equal(recording.channel_positions, flat)
    recording.close()
