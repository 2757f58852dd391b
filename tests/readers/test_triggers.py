"""Times of stimuli, from tables and event channels, on the recording's clock."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from spikecrsae.config import Config, PreprocessConfig
from spikecrsae.data.artefacts import KINDS
from spikecrsae.data.recording import recording_from_array
from spikecrsae.errors import InputError, SpikeCRsAEError, UsageError
from spikecrsae.readers import triggers
from spikecrsae.readers.triggers import given_gaps, read_triggers

FS = 1000.0


@pytest.fixture
def recording():
    return recording_from_array(np.zeros((10_000, 1), np.float32), FS, start_time_s=2.0)


@pytest.mark.parametrize(
    ("text", "samples"),
    [
        ("2\n2.5\n\n7.25\n", [0, 500, 5250]),
        ("time\n2.5\n", [500]),
        ("code,time_s\na,11.999\nb,2.5\n", [500, 9999]),
        ("sample,code\n17,x\n9999,y\n", [17, 9999]),
    ],
)
def test_tables_of_times(recording, tmp_path, text, samples):
    path = tmp_path / "triggers.csv"
    path.write_text(text)
    assert read_triggers(str(path), recording).tolist() == samples


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "holds no trigger"),
        ("time_s\n", "holds no trigger"),
        ("2.5\nsoon\n", "'soon' in line 2 is not a number"),
        ("2.5\nnan\n", "'nan' in line 2 is not a number"),
        ("1.5\n", r"time_s 1.5 is outside of .*lasts from 2 to 12; 1 trigger of 1"),
        ("sample\n10000\n", "sample 10000 is outside"),
        ("a,b\n1,2\n", "one must be named time_s or sample"),
        ("3,4\n", "2 columns without names.*Decimals need a point"),
        ("2500\n7250\n9999\n", "may be samples, or ms: name the column sample"),
        ("2500.5\n7250\n", "may be ms: write seconds"),
        ("time_s;code\n2.5;1\n", "columns need commas"),
    ],
)
def test_bad_tables_are_refused_in_one_line(recording, tmp_path, text, rule):
    path = tmp_path / "triggers.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=rule) as refused:
        read_triggers(str(path), recording)
    assert "\n" not in str(refused.value)


def test_a_missing_file_is_refused(recording, tmp_path):
    with pytest.raises(SpikeCRsAEError, match=r"nothing\.csv"):
        read_triggers(str(tmp_path / "nothing.csv"), recording)
    with pytest.raises(InputError, match="is a folder"):
        read_triggers(str(tmp_path), recording)


def test_an_event_channel_by_name_and_number(recording, tmp_path, monkeypatch):
    path = tmp_path / "events.nev"
    path.write_bytes(b"x")
    reader = SimpleNamespace(
        header={"event_channels": [{"name": "laser"}, {"name": "lever"}]},
        segment_count=lambda block: 1,
        get_event_timestamps=lambda block_index, seg_index, event_channel_index: (
            np.array([3000, 4000]) + event_channel_index,
            None,
            None,
        ),
        rescale_event_timestamp=lambda stamps, dtype, event_channel_index: stamps.astype(dtype) / 1000,
    )
    monkeypatch.setattr(triggers, "neo_candidates", lambda path: [("SomeRawIO", {})])
    monkeypatch.setattr(triggers, "open_reader", lambda name, arguments: reader)
    assert read_triggers(f"{path}:laser", recording).tolist() == [1000, 2000]
    assert read_triggers(f"{path}:1", recording).tolist() == [1001, 2001]
    with pytest.raises(InputError, match="no event channel 'light'; it has 'laser', 'lever'"):
        read_triggers(f"{path}:light", recording)


def test_what_neo_says_of_events(recording, tmp_path, monkeypatch):
    """neo's own example: two segments, each with its clock."""
    path = tmp_path / "example.fake"
    path.write_bytes(b"")
    known = triggers.neo_candidates
    monkeypatch.setattr(
        triggers, "neo_candidates", lambda p: [("ExampleRawIO", {"filename": str(p)})] if p == path else known(p)
    )
    with pytest.raises(InputError, match="has 2 segments, each with a clock of its own"):
        read_triggers(f"{path}:Some events", recording)
    with pytest.raises(InputError, match="no event channel 'none'"):
        read_triggers(f"{path}:none", recording)
    (tmp_path / "text.csv").write_text("1\n")
    with pytest.raises(InputError, match="none knows it"):
        read_triggers(f"{tmp_path / 'text.csv'}:laser", recording)


def test_what_is_given_is_blanked_and_listed(recording, tmp_path):
    path = tmp_path / "triggers.csv"
    path.write_text("3\n3.004\n9\n")
    config = PreprocessConfig(exclude_s="5-6", triggers=path, blank_ms="-1,6")
    gaps, table = given_gaps(config, recording)
    assert gaps.tolist() == [[999, 1010], [3000, 4000], [6999, 7006]]
    assert (table["kind"] == KINDS.index("given")).all()
    assert table["sample"].tolist() == [1000, 1004, -1, 7000]
    gaps, table = given_gaps(config, recording.between(4.0, 9.002))
    assert gaps.tolist() == [[1000, 2000], [4999, 5002]]
    assert table["sample"].tolist() == [-1, 5000]
    with pytest.raises(UsageError, match="leaves nothing"):
        given_gaps(PreprocessConfig(triggers=str(path), blank_ms="-9000,9000"), recording)


@pytest.mark.parametrize("text", ["", "1", "6,1", "1,1", "a,b", "1,2,3", "nan,2", "-1,20000"])
def test_bad_blanks_are_refused(text):
    with pytest.raises(UsageError, match="must be two times in ms"):
        Config().with_settings(blank_ms=text)
