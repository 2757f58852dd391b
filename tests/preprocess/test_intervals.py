"""Intervals of time that are left out: their arithmetic, their files, and that what lies in them changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.disturbed import FS, hum, noise, preprocessed, recorded

from spikecrsae.data.intervals import bridged, common, in_any, inside, lengths_before, parse_intervals, widened
from spikecrsae.decode.quality import presence_ratio
from spikecrsae.errors import InputError, SpikeCRsAEError, UsageError

# ---- intervals


def test_intervals_are_on_the_recordings_clock():
    recording = recorded(np.zeros((50_000, 1)), start_time_s=-1.5)
    found = parse_intervals(" 2.5-3.5, -1.5--1.0,.5-1e0 ,-0.25-0.75,", recording)
    assert found.tolist() == [[0, 5000], [12_500, 25_000], [40_000, 50_000]]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("3-2", "start must come before"),
        ("2-2", "start must come before"),
        ("1-2,soon-4", "'soon-4' in exclude_s is not an interval"),
        ("12", "'12' in exclude_s is not an interval"),
        ("1-nan", "'1-nan' in exclude_s is not an interval"),
        ("4-6", "lasts from 0 to 5 s"),
        ("1-1e999", "lasts from 0 to 5 s"),
        ("-1-2", "lasts from 0 to 5 s"),
        ("0-3,2.5-5", "leaves nothing"),
    ],
)
def test_bad_intervals_are_refused_in_one_line(text, rule):
    with pytest.raises(UsageError, match=rule) as refused:
        parse_intervals(text, recorded(np.zeros((50_000, 1))))
    assert "\n" not in str(refused.value)


def test_intervals_are_joined_and_looked_up():
    wide = widened(np.array([[50, 60], [5, 10], [70, 80]]), 5, 82)
    assert wide.tolist() == [[0, 15], [45, 82]]
    samples = np.arange(82)
    assert np.array_equal(in_any(wide, samples), inside(wide, 0, 82))
    assert np.array_equal(inside(wide, 10, 50), inside(wide, 0, 82)[10:50])


def test_common_intervals_and_lengths_agree_with_sample_by_sample():
    rng = np.random.default_rng(1)
    first, second = (widened(np.sort(rng.integers(0, 500, (n, 2)), axis=1), 0, 500) for n in (4, 5))
    first, second = (one[one[:, 1] > one[:, 0]] for one in (first, second))
    both = inside(first, 0, 500) & inside(second, 0, 500)
    assert np.array_equal(inside(common(first, second), 0, 500), both)
    assert len(common(first, first[:0])) == 0
    samples = np.arange(501)
    assert np.array_equal(lengths_before(first, samples), np.r_[0, np.cumsum(inside(first, 0, 500))])


def test_a_gap_is_bridged_by_half_a_cosine_wherever_a_stretch_ends():
    traces = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    gaps = np.array([[0, 3], [20, 20], [50, 60], [62, 63], [190, 200]])
    expected = traces.astype(np.float64)
    for first, end in gaps:
        after = traces[end] if end < 200 else traces[first - 1]
        before = traces[first - 1] if first > 0 else after
        share = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, end - first + 1) / (end - first + 1))
        expected[first:end] = before + share[:, None] * (after - before)
    for start, stop in ((0, 200), (1, 55), (55, 62), (62, 195), (195, 200)):
        np.testing.assert_allclose(bridged(recorded(traces), gaps, start, stop), expected[start:stop], atol=1e-5)


def test_intervals_are_read_from_a_file(tmp_path):
    recording, path = recorded(np.zeros((50_000, 1))), tmp_path / "bad times.csv"
    path.write_text("start_s,stop_s\n0.5,1\n3,3.25\n")
    assert parse_intervals(f"4-5, {path}", recording).tolist() == [[5000, 10_000], [30_000, 32_500], [40_000, 50_000]]
    path.write_text("stop,start\n1,0.5\n")
    assert parse_intervals(str(path), recording).tolist() == [[5000, 10_000]]
    for text, rule in (
        ("", "holds no interval"),
        ("1,2\n3\n", "is not an interval"),
        ("3\n1,2\n", "'3' is not an interval"),
        ("2,1\n", "start must come before"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=rule):
            parse_intervals(str(path), recording)
    with pytest.raises(SpikeCRsAEError, match="missing"):
        parse_intervals("missing.csv", recording)


# ---- what is excluded has no influence


@pytest.mark.parametrize("gaps", [[[30_000, 34_000]], [[0, 500], [20_000, 20_001], [78_000, 80_000]]])
def test_what_is_in_a_gap_changes_nothing(gaps):
    gaps = np.array(gaps)
    clean = noise(2, 8.0)
    spoilt = clean.copy()
    spoilt[inside(gaps, 0, len(clean))] += 1e5
    views = [preprocessed(recorded(traces), gaps) for traces in (clean, spoilt)]
    excluded = inside(views[0].excluded, 0, 80_000)
    for first, second in zip(*(view.both(0, 80_000) for view in views), strict=True):
        np.testing.assert_array_equal(first, second)
    high, white = views[0].both(0, 80_000)
    assert not high[excluded].any() and not white[:, excluded].any()
    assert white[:, ~excluded].std() == pytest.approx(1.0, abs=0.03)
    undisturbed = preprocessed(recorded(clean), gaps[:0])
    np.testing.assert_allclose(views[1].preprocessor.noise_level, undisturbed.preprocessor.noise_level, rtol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("chunk_size", [997, 12_345])
def test_chunks_equal_the_whole_with_gaps_and_hum(chunk_size):
    traces = noise(2, 6.0) + hum(60_000, 900, 50)
    view = preprocessed(recorded(traces), np.array([[20_000, 21_500], [40_000, 40_010]]))
    assert view.preprocessor.settling > 0
    whole = view.both(0, 60_000)
    for start in range(0, 60_000, chunk_size):
        stop = min(start + chunk_size, 60_000)
        high, white = view.both(start, stop)
        for part, of_all in ((high, whole[0]), (white.T, whole[1].T)):
            np.testing.assert_allclose(part, of_all[start:stop], rtol=0, atol=1e-4 * np.abs(of_all).max())


def test_presence_counts_the_time_that_was_looked_at():
    fires = np.arange(0, int(60 * FS), 1000)
    half, none = np.array([[int(60 * FS), int(120 * FS)]]), np.zeros((0, 2), np.int64)
    assert presence_ratio(fires, FS, int(120 * FS), none) == 0.5
    assert presence_ratio(fires, FS, int(120 * FS), half) == 1.0
