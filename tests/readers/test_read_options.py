"""What a user may say about a recording, on the command line or in its side file."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import recording_files as files

from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers import ReadOptions, open_recording, parse_channels


@pytest.mark.parametrize(
    ("text", "channels"),
    [
        ("0", (0,)),
        ("0,2-5", (0, 2, 3, 4, 5)),
        (" 3 , 1 - 2 ", (3, 1, 2)),
        ("CSC1, CSC12", ("CSC1", "CSC12")),
        ("A-000,2-3,RAW 01", ("A-000", 2, 3, "RAW 01")),
    ],
)
def test_channel_lists(text, channels):
    assert parse_channels(text) == channels


@pytest.mark.parametrize("text", ["", "1,", "5-2", "-1", "1-2-3", "0,0", "1.5", "0-3,2", "a,a", "CSC1,"])
def test_bad_channel_lists(text):
    with pytest.raises(UsageError, match="channels"):
        parse_channels(text)


@pytest.mark.parametrize(
    "values",
    [
        {"sampling_frequency": 0},
        {"sampling_frequency": float("nan")},
        {"sampling_frequency": "fast"},
        {"n_channels": -1},
        {"n_channels": 1.5},
        {"dtype": "complex64"},
        {"dtype": "int17"},
        {"dtype": "i2-"},
        {"dtype": ",i2-"},
        {"axis": 2},
        {"gain": 0},
        {"gain": "x"},
        {"offset": float("inf")},
        {"channels": 3},
        {"channels": []},
        {"channels": ["x", "x"]},
        {"channels": [0.5, 1]},
        {"channels": [0, 0]},
        {"channels": [-1]},
        {"channels": [True]},
        {"groups": 5},
        {"groups": [[0, 1], [2, 3]]},
        {"probe": 5},
        {"dataset": 5},
        {"series": []},
        {"stream": 1.5},
        {"segment": "first"},
    ],
)
def test_bad_options(values):
    with pytest.raises(UsageError, match=next(iter(values))):
        ReadOptions(**values)


def test_an_option_that_does_not_exist(tmp_path):
    written = files.mearec(tmp_path)
    with pytest.raises(UsageError, match="colour"):
        open_recording(written.path, colour="red")


def test_an_option_that_the_format_would_ignore(tmp_path):
    assert "MEArec" in files.refused(UsageError, files.mearec(tmp_path).path, "--series", series="Raw")
    files.refused(UsageError, files.nwb(tmp_path).path, "--dataset", dataset="traces")


def test_told_facts_go_before_the_file(tmp_path):
    written = files.hdf5_millivolts(tmp_path)
    recording = open_recording(written.path, ReadOptions(sampling_frequency=10_000), gain=2.0)
    np.testing.assert_allclose(recording.traces(0, 5), 2.0 * files.stored()[:5])
    assert recording.sampling_frequency == 10_000
    assert any("20000" in note and "10000" in note for note in recording.notes)
    recording.close()


def test_side_file_errors(tmp_path):
    written = files.raw_little(tmp_path)
    side = tmp_path / "little.dat.toml"
    for text, word in (
        ("n_chan = 4", "n_chan"),
        ("= 4", "TOML"),
        ("axis = 7", "axis"),
        ("channels = 3", "channels = 3"),
        ("channels = ['x', 'x']", "channels"),
        ("groups = [[0, 1], [2, 3]]", "groups .* '0-3,4-7'"),
        ("probe = 5", "probe"),
    ):
        side.write_text(text)
        with pytest.raises(UsageError, match=word) as caught:
            open_recording(written.path)
        assert str(side) in str(caught.value)


def test_an_array_that_is_called_raw_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((1000, 4), np.int16))
    with pytest.raises(InputError, match=r"x\.npy is a \.npy array by its first bytes"):
        open_recording(tmp_path / "x.npy", n_channels=4, dtype="int16", sampling_frequency=20_000.0)


def test_a_long_list_of_groups_is_no_name_of_a_file(tmp_path):
    np.zeros((1000, 256), np.int16).tofile(tmp_path / "x.dat")
    groups = ",".join(f"{first}-{first + 3}" for first in range(0, 256, 4))
    assert len(groups) > 255
    opened = open_recording(tmp_path / "x.dat", n_channels=256, dtype="int16", sampling_frequency=20_000.0, groups=groups)
    assert len(opened.groups) == 64
