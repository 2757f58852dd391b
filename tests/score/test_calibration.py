"""Calibration of probabilities and coverage of intervals, against values that are known, and `score --calibration`."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.sortings import make_sorting

import spikecrsae
from spikecrsae.errors import InputError, UsageError
from spikecrsae.score.calibration import (
    brier_score,
    coverage,
    expected_calibration_error,
    interval_coverage,
    judged_spikes,
    least_certain,
    log_loss,
    reliability_curve,
)


def drawn(n=20_000, seed=0):
    """Probabilities from 0 to 1, and whether each is right, as often as it says."""
    rng = np.random.default_rng(seed)
    probability = rng.random(n)
    return probability, rng.random(n) < probability


def test_true_probabilities_have_hardly_an_error_and_wrong_ones_the_error_that_was_made():
    probability, right = drawn()
    assert expected_calibration_error(probability, right) < 0.01
    assert expected_calibration_error(np.sqrt(probability), right) == pytest.approx(2 / 3 - 1 / 2, abs=0.01)


def test_bins_hold_equal_counts_and_the_curve_of_true_probabilities_is_the_diagonal():
    curve = reliability_curve(*drawn(), n_bins=7)
    assert np.ptp(curve.n_spikes) <= 1 and curve.n_spikes.sum() == 20_000
    np.testing.assert_allclose(curve.probability, curve.right, atol=0.03)
    assert np.all(np.diff(curve.probability) > 0)


def test_ties_are_broken_at_random():
    """Half of the spikes of one probability is right: in every bin half, though the right ones come first."""
    right = np.arange(10_000) < 5000
    curve = reliability_curve(np.full(10_000, 0.5), right)
    np.testing.assert_allclose(curve.right, 0.5, atol=0.06)
    assert expected_calibration_error(np.full(10_000, 0.5), right) < 0.03


def test_brier_score_and_log_loss_are_those_of_their_formulas():
    probability, right = np.array([0.9, 0.2, 1.0]), np.array([True, False, True])
    assert brier_score(probability, right) == pytest.approx((0.01 + 0.04 + 0) / 3)
    assert log_loss(probability, right) == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 3, abs=1e-6)
    true, _ = drawn()
    right = drawn()[1]
    assert log_loss(true, right) < log_loss(true**2, right) and brier_score(true, right) < brier_score(true**2, right)


def test_without_a_false_spike_no_part_of_them_is_least_certain():
    sorting = make_sorting(n_units=2, n_spikes=40)
    measures = judged_spikes(sorting.trains(), sorting, exhaustive=True).to_dict()
    assert measures["n_false"] == 0 and np.isnan(measures["false_in_least_certain"])


def test_the_least_certain_are_those_of_the_smallest_probabilities():
    probability = np.random.default_rng(1).permutation(100) / 100
    assert sorted(probability[least_certain(probability)]) == pytest.approx(np.arange(10) / 100)


def test_coverage_counts_the_bounds_as_inside():
    assert coverage([0, 0.1, 0.3], [0.1, 0.2, 0.4], [0.1, 0.3, 0.3]) == pytest.approx(2 / 3)
    assert np.isnan(coverage([], [], []))


@pytest.mark.parametrize("values", [[0.5, 1.2], [0.5, np.nan], [0.5]])
def test_what_is_no_probability_is_refused(values):
    with pytest.raises(InputError, match=r"probabilities"):
        log_loss(np.array(values), np.array([True, False]))


def test_no_bin_and_intervals_of_other_lengths_are_refused():
    with pytest.raises(UsageError, match="n_bins = 0"):
        reliability_curve(*drawn(10), n_bins=0)
    with pytest.raises(InputError, match="2 lower and 1 upper bounds for 1 values"):
        coverage([0, 0], [1], [0.5])


def test_spikes_are_judged_by_the_neuron_that_their_unit_shares_most_with():
    sorting = make_sorting()
    truth = {f"n{unit}": np.delete(sorting.spike_samples(unit), slice(0, unit)) for unit in sorting.unit_ids}
    truth["n0"] = np.sort(np.r_[truth["n0"], [120, 150]])
    judged = judged_spikes(truth, sorting)
    assert judged.neuron == ("n0", "n1", "n2") and judged.n_spikes.tolist() == [30] * 3
    np.testing.assert_allclose(judged.false_alarm, [0, 1 / 30, 2 / 30])
    np.testing.assert_allclose(judged.miss, [2 / 32, 0, 0])
    wrong = {int(s) for unit in (1, 2) for s in sorting.spike_samples(unit)[:unit]}
    samples = sorting.spikes["sample"][~judged.right]
    assert set(samples.tolist()) == wrong and judged.to_dict()["n_false"] == 3


def test_units_of_unknown_neurons_count_only_where_the_truth_names_all():
    sorting = make_sorting()
    truth = {"n0": sorting.spike_samples(0)}
    assert judged_spikes(truth, sorting).units.tolist() == [0]
    everyone = judged_spikes(truth, sorting, exhaustive=True)
    assert everyone.units.tolist() == [0, 1, 2] and np.count_nonzero(~everyone.right) == 60


def test_intervals_are_judged_apart_for_units_with_and_without_errors():
    sorting = make_sorting()
    sorting.units.update(false_alarm_low=np.array([0.0, 0.0, 0.5]), false_alarm_high=np.array([0.01, 0.05, 0.6]))
    truth = {f"n{unit}": np.delete(sorting.spike_samples(unit), slice(0, unit)) for unit in sorting.unit_ids}
    found = interval_coverage(judged_spikes(truth, sorting), sorting)
    assert list(found) == ["false_alarm"]
    assert (found["false_alarm"]["n_units"], found["false_alarm"]["coverage"]) == (2, 0.5)
    assert (found["false_alarm"]["n_without_error"], found["false_alarm"]["coverage_without_error"]) == (1, 1.0)


def test_units_without_an_interval_are_not_judged():
    sorting = make_sorting()
    sorting.units.update(false_alarm_low=np.array([np.nan, 0.0, 0.5]), false_alarm_high=np.array([np.nan, 0.05, 0.6]))
    truth = {f"n{unit}": np.delete(sorting.spike_samples(unit), slice(0, unit)) for unit in sorting.unit_ids}
    found = interval_coverage(judged_spikes(truth, sorting), sorting)["false_alarm"]
    assert (found["n_units"], found["coverage"], found["n_without_error"]) == (2, 0.5, 0)
    assert found["mean_width"] == pytest.approx(0.075)


def test_it_is_a_public_name():
    assert spikecrsae.calibration.expected_calibration_error is expected_calibration_error
    assert "calibration" in spikecrsae.__all__
