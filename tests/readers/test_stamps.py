"""Time stamps with jitter are regular; gaps in them are segments, whose times are the file's."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from helpers import recording_files as files

from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers import open_recording
from spikecrsae.readers.stamps import counted_stretches, regular_stretches

FS = files.FS
N = files.N_SAMPLES
REGULAR = 7.0 + np.arange(N) / FS


def nwb(path, stamps: np.ndarray):
    files.write_nwb(path / "stamps.nwb", files.stored(), timestamps=stamps)
    return path / "stamps.nwb"


def told(stamps: np.ndarray):
    return regular_stretches(stamps, "the time stamps")


@pytest.mark.parametrize("fs", [20000.0, 24414.0625, 29999.7, 32000.0])
def test_the_rate_of_regular_stamps_is_told_whatever_their_rounding(fs):
    for digits in (6, 7, 9):
        stamps = np.round(1234.5 + np.arange(N) / fs, digits)
        found = told(stamps)
        assert found.sampling_frequency == pytest.approx(fs, rel=1e-9 if fs in (20000.0, 32000.0) else 1e-8)
        (only,) = found.stretches
        assert (only.first, only.n_samples) == (0, N)
        assert only.start_time_s == pytest.approx(1234.5, abs=0.1 / fs)
        assert found.jitter_s <= 1.1 * 10.0**-digits


def test_jitter_below_half_a_sample_is_no_gap_and_a_missing_sample_within_it_is_one():
    rng = np.random.default_rng(1)
    for size in (0.1, 0.3, 0.49):
        jitter = rng.uniform(-size, size, N) / FS
        (only,) = told(REGULAR + jitter).stretches
        assert only.start_time_s == pytest.approx(7.0, abs=0.02 / FS + 0.1 / FS)
        lost = REGULAR + jitter
        lost[25_000:] += 1 / FS
        first, second = told(lost).stretches
        assert abs(second.first - 25_000) <= (0 if size < 0.3 else 2)
        assert second.start_time_s - first.start_time_s == pytest.approx((second.first + 1) / FS, abs=0.2 / FS)


def test_every_gap_is_found_wherever_it_lies():
    rng = np.random.default_rng(2)
    begins = np.sort(rng.choice(np.arange(1, N), 300, replace=False))
    begins = begins[np.r_[True, np.diff(begins) > 2]]
    lost = rng.integers(1, 500, len(begins))
    numbers = np.arange(N)
    for begin, n in zip(begins, lost, strict=True):
        numbers[begin:] += n
    for found in (counted_stretches(numbers, FS, "numbers"), told(np.round(numbers / FS, 6)).stretches):
        assert [one.first for one in found] == [0, *begins]
        assert sum(one.n_samples for one in found) == N
        np.testing.assert_allclose([one.start_time_s for one in found], numbers[np.r_[0, begins]] / FS, atol=2e-6)


def test_blocks_of_stamps_do_not_matter(monkeypatch):
    stamps = np.round(REGULAR, 6)
    for begin in (1, 101, 16_384, 16_385, 30_000, N - 1):
        stamps[begin:] += 0.25
    whole = told(stamps)
    assert [one.first for one in whole.stretches] == [0, 1, 101, 16_384, 16_385, 30_000, N - 1]
    monkeypatch.setattr("spikecrsae.readers.stamps._BLOCK", 777)
    assert told(stamps).stretches == pytest.approx(whole.stretches)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.__setitem__(500, t[499]), "sample 499 is at .* and sample 500 at .* a duplicate"),
        (
            lambda t: t.__setitem__(slice(800, None), t[800:] - 0.5),
            "sample 799 is at .* and sample 800 at .* which is earlier",
        ),
        (lambda t: t.__setitem__(-1, np.inf), "which is no time"),
        (lambda t: t.__setitem__(slice(0, 3000), 5 + 1.3 * np.arange(3000) / FS), "samples 0 to 2999 take 0.194935 s"),
    ],
)
def test_stamps_that_are_no_clock_are_refused_with_their_samples(change, words):
    stamps = REGULAR.copy()
    change(stamps)
    with pytest.raises(InputError, match=words):
        told(stamps)


def test_stamps_that_leave_nothing_between_gaps_are_refused():
    for step in (2, 33_333):
        with pytest.raises(InputError, match="count something else"):
            counted_stretches(step * np.arange(N), FS, "the numbers")
    with pytest.raises(InputError, match="their clock is not steady"):
        told(7.0 + np.cumsum(np.tile([1, 1, 1, 40.0], N // 4)) / FS)


def test_stamps_too_coarse_for_their_type_are_refused_with_the_reason():
    with pytest.raises(InputError, match="float32, whose steps there are"):
        told((5000 + np.arange(N) / FS).astype(np.float32))


def test_nwb_stamps_in_microseconds_open(tmp_path):
    recording = open_recording(nwb(tmp_path, np.floor(1e6 * (0.4 + np.arange(N) / 32000)) / 1e6))
    assert recording.sampling_frequency == 32000.0
    assert (recording.n_samples, recording.parts) == (N, ())
    assert recording.start_time_s == pytest.approx(0.4, abs=1e-6)
    assert [note for note in recording.notes if "32000 Hz" in note and "us" in note]


def test_nwb_gaps_are_segments_with_the_times_of_the_file(tmp_path):
    stamps = REGULAR.copy()
    stamps[20_000:] += 3.0
    stamps[50_000:] += 0.5
    path = nwb(tmp_path, np.round(stamps, 6))
    recording = open_recording(path)
    assert [(part.first, part.n_samples) for part in recording.parts] == [(0, 20_000), (20_000, 30_000), (50_000, 10_000)]
    assert [part.start_time_s for part in recording.parts] == pytest.approx([7.0, 11.0, 13.0], abs=2e-6)
    (note,) = [note for note in recording.notes if "signal is missing" in note]
    assert "2 places: 3 s between samples 19999 and 20000, 0.5 s between samples 49999 and 50000" in note
    picked = np.array([0, 19_999, 20_000, 49_999, 50_000, N - 1])
    np.testing.assert_allclose(recording.timeline.seconds(picked), stamps[picked], atol=2e-6)
    assert recording.end_time_s == pytest.approx(stamps[-1] + 1 / FS, abs=2e-6)
    raw = files.stored() * 0.1 * np.array([1, 2, 1, 0.5]) + 2.0
    np.testing.assert_allclose(recording.traces(19_990, 20_010), raw[19_990:20_010], rtol=1e-5, atol=1e-9)
    # times on the file's clock, in a pause the edges of what was recorded
    assert open_recording(path, start_s=11.0, stop_s=12.0).time_range == (20_000, 40_000)
    assert open_recording(path, start_s=9.0, stop_s=12.7).time_range == (20_000, 50_000)
    with pytest.raises(UsageError, match=r"from 7 to 13\.5 s"):
        open_recording(path, start_s=8.5, stop_s=9.5)


def test_a_rate_that_is_told_reads_stamps_that_are_no_clock(tmp_path):
    path = nwb(tmp_path, np.round(REGULAR, 3))
    files.refused(InputError, path, "a duplicate", "--sampling-frequency")
    recording = open_recording(path, sampling_frequency=FS)
    assert (recording.sampling_frequency, recording.start_time_s, recording.parts) == (FS, 7.0, ())
    assert [note for note in recording.notes if "not used" in note]


def test_stamps_are_read_in_chunks_of_their_file(tmp_path):
    with h5py.File(tmp_path / "chunks.h5", "w") as file:
        stamps = file.create_dataset("stamps", data=np.round(REGULAR, 6), chunks=(25_000,), compression="gzip")
        assert told(stamps).stretches == told(np.round(REGULAR, 6)).stretches
