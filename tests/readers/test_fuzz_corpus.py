"""What the fuzzer has found, replayed without it; and the parsers of words against random ones."""

from __future__ import annotations

import struct
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.fuzz_targets import clean, look, targets
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from spikecrsae.config import Config
from spikecrsae.data.intervals import parse_intervals
from spikecrsae.data.recording import recording_from_array
from spikecrsae.errors import SpikeCRsAEError, UsageError
from spikecrsae.readers import ReadOptions, parse_channels
from spikecrsae.readers.read_options import parse_groups
from spikecrsae.system import safe_hdf5

CORPUS = Path(__file__).parents[1] / "fuzz_corpus"
TARGETS = targets()
#: Processor time. A read of a few kilobytes that takes more has run away.
LIMIT_S = 5.0
#: Examples of every property, drawn alike each time.
steady = settings(
    max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_findings_end_well(name, tmp_path, monkeypatch):
    """Each kept input, each sound one, and each of these cut anywhere, is read or refused, without much work."""
    monkeypatch.setattr(safe_hdf5, "MOST_CPU_S", 1)
    target = TARGETS[name]
    target.prepare(clean(tmp_path / "work"))
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))]
    cuts = [seed[: len(seed) * part // 7] for seed in target.seeds for part in range(1, 7)]
    for data in (*kept, *target.seeds, *cuts):
        began = time.process_time()
        target.run(data, tmp_path / "work")
        assert time.process_time() - began < LIMIT_S


def test_the_seeds_are_sound(tmp_path):
    """A fuzzer that begins with what is refused at once sees nothing."""
    for name in ("hdf5", "mearec", "nwb", "brainvision", "intan", "blackrock", "plexon"):
        folder = clean(tmp_path / name)
        look(TARGETS[name].prepare(folder))


def test_the_kept_inputs_are_small():
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) < 300_000
    assert {path.name for path in CORPUS.iterdir()} <= set(TARGETS)


WORDS = st.text(alphabet="0123456789,-+ .eE:;x", max_size=24) | st.text(max_size=12)


@steady
@given(WORDS)
@example("0-99999")
@example("0-0,00")
def test_channel_lists_are_read_or_refused(text):
    for parse in (parse_channels, parse_groups):
        try:
            found = parse(text)
        except UsageError as error:
            assert repr(text) in str(error)
            continue
        channels = list(found) if parse is parse_channels else [c for group in found.values() for c in group]
        assert (
            channels and len(set(channels)) == len(channels) and all(c >= 0 if isinstance(c, int) else c for c in channels)
        )


@steady
@given(st.lists(st.integers(0, 999), min_size=1, max_size=8, unique=True))
def test_a_list_of_channels_is_itself(channels):
    assert parse_channels(",".join(map(str, channels))) == tuple(channels)
    assert parse_groups(",".join(map(str, channels))) == {str(i): (channel,) for i, channel in enumerate(channels)}


@steady
@given(WORDS | st.builds("{}-{}".format, st.floats(-5, 15), st.floats(-5, 15)))
def test_intervals_lie_in_the_recording_or_are_refused(text):
    recording = recording_from_array(np.zeros((1000, 1)), 100.0, start_time_s=-2.0)
    try:
        found = parse_intervals(text, recording)
    except UsageError:
        return
    assert np.all(found >= 0) and np.all(found <= 1000) and np.all(found[:, 0] <= found[:, 1])
    assert np.all(found[1:, 0] > found[:-1, 1])


ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.floats(), max_size=3)


@steady
@given(st.sampled_from([(s, n) for s, table in Config().to_dict().items() for n in table]), ANYTHING)
def test_a_setting_is_taken_within_its_rule_or_refused(place, value):
    stage, name = place
    try:
        config = Config().with_values({stage: {name: value}})
    except UsageError as error:
        assert name in str(error)
        return
    assert Config().with_values(config.to_dict()) == config


@steady
@given(st.sampled_from([f for f in ReadOptions.__dataclass_fields__ if f not in ("probe", "groups")]), ANYTHING)
def test_an_option_of_a_recording_is_taken_or_refused(name, value):
    try:
        options = ReadOptions(**{name: value})
    except UsageError as error:
        assert name in str(error) or name == "channels"
        return
    assert name in options.given() or value is None


@steady
@given(st.floats(-1e6, 1e6), st.integers(-4, 3000), st.integers(0, 13_000))
def test_time_ranges_are_whole_samples_of_the_recording_or_refused(start_s, low, length):
    recording = recording_from_array(np.zeros((1000, 1)), 97.0, start_time_s=start_s)
    ends = (start_s + low / 97.0, start_s + (low + length) / 97.0)
    try:
        part = recording.between(*ends).in_range()
    except UsageError:
        assert low < 0 or length < 1 or low + length > 1000
        return
    assert (part.n_samples, low + length <= 1000) == (length, True)
    assert part.start_time_s == pytest.approx(ends[0])


@steady
@given(st.integers(0, 2**32 - 1), st.integers(0, 200), st.integers(200, 5000))
def test_an_intan_header_of_random_numbers(tmp_path, word, place, length):
    """Four bytes anywhere in the header are something else: read, or refused in one line; never anything else, never for
    long."""
    path = TARGETS["intan"].prepare(clean(tmp_path / "intan"))
    content = bytearray(path.read_bytes())
    content[place : place + 4] = struct.pack("<I", word)
    path.write_bytes(content[:length])
    began = time.process_time()
    try:
        look(path)
    except SpikeCRsAEError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    assert time.process_time() - began < LIMIT_S
