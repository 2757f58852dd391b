"""Scoring: hand-computed cases, and SpikeInterface's numbers on random bursty trains."""

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spikecrsae.errors import InputError, UsageError
from spikecrsae.score import agreement, compare, label_spikes, match_counts, tradeoff_curve

FS = 10000.0  # 0.4 ms is 4 samples


def train(*samples):
    return np.array(samples, dtype=np.int64)


def one(truth, test, tolerance=4):
    return match_counts({"a": truth}, {"b": test}, tolerance)[0, 0]


def test_tolerance_is_truncated_and_inclusive():
    assert one(train(100, 200), train(104, 205)) == 1
    comparison = compare({"a": train(100)}, {"b": train(112)}, 32000.0)  # 12.8 samples
    assert comparison.tolerance == 12
    assert comparison.counts.tolist() == [[1]]
    assert compare({"a": train(100)}, {"b": train(113)}, 32000.0).counts.tolist() == [[0]]


def test_a_spike_is_matched_once_and_bursts_are_clipped():
    assert one(train(100, 101, 102), train(101)) == 1
    assert one(train(100), train(99, 100, 101)) == 1
    # The third truth spike meets the first test spike again: three matches, clipped to the two test spikes.
    assert one(train(100, 101, 102), train(100, 101)) == 2
    assert one(train(), train(1)) == one(train(1), train()) == one(train(), train()) == 0
    assert one(train(300, 100), train(101, 299)) == 2, "the order of the spikes given does not matter"


def test_agreement_and_metrics_by_hand():
    truth = {"n1": train(100, 200, 300, 400), "n2": train(1000, 2000)}
    test = {"u7": train(101, 202, 304, 700, 800), "u8": train(5000)}
    comparison = compare(truth, test, FS)
    np.testing.assert_array_equal(comparison.counts, [[3, 0], [0, 0]])
    np.testing.assert_allclose(comparison.agreement, [[3 / 6, 0], [0, 0]])
    assert comparison.one_to_one == comparison.best_match == {"n1": "u7"}
    row, lost = comparison.rows
    assert (row.tp, row.fn, row.fp) == (3, 1, 2)
    assert (row.accuracy, row.precision, row.recall) == (0.5, 0.6, 0.75)
    assert (row.miss, row.false_alarm) == (0.25, 0.4)
    assert (lost.test, lost.tp, lost.fn, lost.fp, lost.accuracy, lost.miss) == (None, 0, 2, 0, 0.0, 1.0)
    assert comparison.well_detected == () and comparison.mean("accuracy") == 0.25
    assert comparison.false_positive_units is None, "a partial truth says nothing about other units"
    assert json.loads(json.dumps(comparison.to_dict()))["one_to_one"][0]["false_alarm"] == 0.4
    assert agreement(np.zeros((1, 1), int), np.array([0]), np.array([0])) == 0.0


def test_best_match_below_the_one_to_one_threshold_and_exhaustive_units():
    spikes = np.arange(100, dtype=np.int64) * 100
    truth = {"a": spikes[:50], "b": spikes[50:]}
    test = {"half": spikes[:30], "copy": spikes[30:50], "both": np.r_[spikes[:50], spikes[50:]], "noise": spikes + 50}
    comparison = compare(truth, test, FS, exhaustive=True)
    assert comparison.best_match == {"a": "half", "b": "both"}
    assert comparison.one_to_one == {"a": "half", "b": "both"}
    assert comparison.false_positive_units == ("noise",)
    assert comparison.redundant_units == ("copy",)
    assert comparison.overmerged_units == ("both",)
    weak = compare({"a": spikes}, {"few": spikes[:30]}, FS)
    assert weak.one_to_one == {} and weak.best_match == {"a": "few"}
    assert (weak.rows[0].tp, weak.best_rows[0].tp) == (0, 30)
    assert compare({"a": spikes}, {"b": spikes[:80]}, FS).well_detected == ("a",), "0.8 itself is well detected"


def test_without_units():
    assert compare({}, {}, FS, exhaustive=True).rows == ()
    assert np.isnan(compare({}, {"u": train(1)}, FS).mean("accuracy"))
    empty = compare({"a": train(1)}, {}, FS, exhaustive=True)
    assert empty.one_to_one == empty.best_match == {} and empty.rows[0].miss == 1.0
    assert compare({}, {"u": train(1)}, FS, exhaustive=True).false_positive_units == ("u",)


def test_bad_arguments():
    with pytest.raises(UsageError, match="tolerance"):
        compare({}, {}, FS, tolerance_ms=-1)
    with pytest.raises(UsageError, match="sampling frequency"):
        compare({}, {}, 0.0)


def test_labels_keep_the_order_of_the_spikes():
    labels = label_spikes(train(400, 100, 200), train(900, 201, 101), 4)
    assert labels.truth_found.tolist() == [False, True, True]
    assert labels.test_right.tolist() == [False, True, True]


# Gaps of 0 to 6 samples make bursts around the tolerance of 4 samples, with duplicates; large gaps end them.
gaps = st.lists(st.one_of(st.integers(0, 6), st.integers(7, 40)), max_size=30)
trains = gaps.map(lambda g: np.cumsum(np.array(g, dtype=np.int64)))


@st.composite
def sortings(draw):
    """Two sortings of 1 to 3 units; a test train is often a jittered, thinned copy of a truth train."""
    truth = {f"t{k}": draw(trains) for k in range(draw(st.integers(1, 3)))}
    test = {}
    for k in range(draw(st.integers(1, 3))):
        if draw(st.booleans()):
            source = draw(st.sampled_from(sorted(truth)))
            rng = np.random.default_rng(draw(st.integers(0, 2**16)))
            copy = truth[source] + rng.integers(-2, 3, len(truth[source]))
            test[f"s{k}"] = np.sort(copy[rng.random(len(copy)) < 0.8].clip(0))
        else:
            test[f"s{k}"] = draw(trains)
    return truth, test


@pytest.mark.slow
@given(sortings())
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_spikeinterface_gives_the_same_numbers(pair):
    si_core = pytest.importorskip("spikeinterface.core")
    from spikeinterface.comparison import compare_sorter_to_ground_truth

    truth, test = pair
    theirs = {
        mode: compare_sorter_to_ground_truth(
            si_core.NumpySorting.from_unit_dict([truth], FS),
            si_core.NumpySorting.from_unit_dict([test], FS),
            exhaustive_gt=True,
            match_mode=mode,
        )
        for mode in ("hungarian", "best")
    }
    ours = compare(truth, test, FS, exhaustive=True)
    si = theirs["hungarian"]
    np.testing.assert_array_equal(ours.counts, si.match_event_count.loc[list(truth), list(test)].to_numpy())
    np.testing.assert_array_equal(ours.agreement, si.agreement_scores.loc[list(truth), list(test)].to_numpy())
    assert ours.one_to_one == {a: b for a, b in si.hungarian_match_12.items() if b != ""}
    assert ours.best_match == {a: b for a, b in si.best_match_12.items() if b != ""}
    for mode, rows in (("hungarian", ours.rows), ("best", ours.best_rows)):
        performance, raw = theirs[mode].get_performance(), theirs[mode].get_performance(method="raw_count")
        for row in rows:
            assert [row.tp, row.fn, row.fp] == [raw.at[row.truth, c] for c in ("tp", "fn", "fp")]
            for name in ("accuracy", "precision", "recall"):
                assert getattr(row, name) == performance.at[row.truth, name]
    assert {ours.one_to_one[a] for a in ours.well_detected} == set(si.get_well_detected_units())
    assert list(ours.false_positive_units) == si.get_false_positive_units()
    assert list(ours.redundant_units) == si.get_redundant_units()
    assert list(ours.overmerged_units) == si.get_overmerged_units()


@given(trains, trains, st.integers(0, 6))
@settings(max_examples=200, deadline=None)
def test_labels_pair_spikes_one_to_one(truth, test, tolerance):
    labels = label_spikes(truth, test, tolerance)
    found, right = truth[labels.truth_found], test[labels.test_right]
    assert len(found) == len(right) <= one(truth, test, tolerance)
    if np.all(np.diff(truth) > 2 * tolerance) and np.all(np.diff(test) > 2 * tolerance):
        # Without bursts the spikes that have a neighbour within reach are exactly the true positives.
        near = (np.abs(truth[:, None] - test[None, :]) <= tolerance) if len(test) else np.zeros((len(truth), 0), bool)
        np.testing.assert_array_equal(labels.truth_found, near.any(axis=1))
        np.testing.assert_array_equal(labels.test_right, near.any(axis=0))
        assert len(found) == one(truth, test, tolerance)


def test_tradeoff_by_hand():
    truth = train(100, 200, 300, 400)
    test = train(100, 150, 200, 300)
    curve = tradeoff_curve(truth, test, np.array([-80.0, -20.0, -60.0, -40.0]), 4)
    np.testing.assert_array_equal(curve.threshold, [20, 40, 60, 80])
    np.testing.assert_allclose(curve.miss, [0.25, 0.25, 0.5, 0.75])
    np.testing.assert_allclose(curve.false_alarm, [0.25, 0, 0, 0])


def test_tradeoff_starts_at_the_score_and_misses_grow():
    rng = np.random.default_rng(0)
    truth = np.sort(rng.choice(200000, 600, replace=False))
    test = np.sort(np.r_[truth[rng.random(600) < 0.9], rng.choice(200000, 80)])
    curve = tradeoff_curve(truth, test, rng.normal(50, 10, len(test)), 4)
    row = compare({"a": truth}, {"b": test}, FS).best_rows[0]
    assert len(curve.threshold) == 200
    assert (curve.miss[0], curve.false_alarm[0]) == pytest.approx((row.miss, row.false_alarm))
    assert np.all(np.diff(curve.miss) >= 0) and np.all(np.diff(curve.threshold) > 0)


def test_tradeoff_edges():
    assert not len(tradeoff_curve(train(5), train(), np.array([]), 4).threshold)
    with pytest.raises(InputError, match="no spikes"):
        tradeoff_curve(train(), train(5), np.array([1.0]), 4)
    with pytest.raises(InputError, match="amplitudes"):
        tradeoff_curve(train(5), train(5), np.array([]), 4)
