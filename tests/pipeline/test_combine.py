"""The model of several groups of channels as one: values of units one after the other, those of groups one for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from helpers.sortings import make_model, make_sorting

from spikecrsae.pipeline.combine import joint_model


@dataclass(frozen=True)
class Group:
    name: str
    channels: tuple[int, ...] = ()


FIRST, FAILED, SECOND, SILENT = (Group(name) for name in ("first", "failed", "second", "silent"))


def test_values_of_units_follow_each_other_and_groups_keep_their_own():
    """One group was trained for three rounds, another for five, a third could not be sorted."""
    sortings = {
        FIRST: make_sorting(2, model=make_model(2, n_rounds=3, sigma=0.9)),
        SECOND: make_sorting(3, model=make_model(3, n_rounds=5, spread=0.05, sigma=1.1)),
    }
    joint = joint_model([FIRST, FAILED, SECOND], sortings)
    one, other = (sorting.model for sorting in sortings.values())
    np.testing.assert_array_equal(joint["sigma"], [0.9, np.nan, 1.1])
    for name in ("spread", "penalty", "whitened_norm"):
        np.testing.assert_array_equal(joint[name], np.r_[one[name], other[name]])
    for name in ("spread_history", "penalty_history"):
        assert joint[name].shape == (5, 5)
        np.testing.assert_array_equal(joint[name][:3, :2], one[name])
        assert np.isnan(joint[name][3:, :2]).all()
        np.testing.assert_array_equal(joint[name][:, 2:], other[name])
    assert joint.keys() == one.keys()


def test_names_are_not_fixed():
    """Any parameter of a prior is one of units, and of groups without units or without a history nothing is known."""
    laplace = {
        "sigma": np.array(1.0),
        "lambda": np.array([4.0, 5.0]),
        "lambda_history": np.array([[3.0, np.nan], [4.0, 5.0]]),
    }
    sortings = {
        FIRST: make_sorting(2, model=laplace),
        SECOND: make_sorting(1, model={"sigma": np.array(1.0), "lambda": np.array([6.0])}),
        SILENT: make_sorting(0, 0, model={"sigma": np.array(2.0), "lambda": np.zeros(0)}),
    }
    joint = joint_model([FIRST, SECOND, SILENT], sortings)
    np.testing.assert_array_equal(joint["lambda"], [4, 5, 6])
    np.testing.assert_array_equal(joint["lambda_history"], [[3, np.nan, np.nan], [4, 5, np.nan]])
    np.testing.assert_array_equal(joint["sigma"], [1, 1, 2])


def test_without_any_unit_the_noise_is_known():
    joint = joint_model([SILENT], {SILENT: make_sorting(0, 0, model={"sigma": np.array(1.0), "spread": np.zeros(0)})})
    assert joint["sigma"].tolist() == [1] and joint["spread"].shape == (0,)
