"""How far apart templates are (Eq. 29), and which of two sets belong together."""

from __future__ import annotations

import numpy as np
import pytest

from spikecrsae.errors import UsageError
from spikecrsae.simulate import match_templates, perturb_templates, preset_config, simulate, template_error_db
from spikecrsae.simulate.shapes import paper_templates


def test_template_error_has_the_values_of_eq_29():
    a, b = np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])
    assert template_error_db(a, b) == pytest.approx(0.0)
    assert template_error_db(a, 3 * a) == template_error_db(a, -a) == float("-inf")
    # cos = 0.8, sine = 0.6
    assert template_error_db(a, np.array([[0.8, 0.6]])) == pytest.approx(10 * np.log10(0.6))


@pytest.mark.parametrize("error_db", [-3.5, -14.0, -40.0])
def test_perturbation_gives_the_error_asked_for(error_db):
    templates = 7 * np.random.default_rng(2).standard_normal((3, 2, 20))
    perturbed = perturb_templates(templates, error_db, np.random.default_rng(0))
    for true, estimate in zip(templates, perturbed, strict=True):
        assert template_error_db(true, estimate) == pytest.approx(error_db, abs=1e-6)
    np.testing.assert_allclose(np.linalg.norm(perturbed, axis=(1, 2)), np.linalg.norm(templates, axis=(1, 2)))
    with pytest.raises(UsageError, match="impossible"):
        perturb_templates(templates, 1.0, np.random.default_rng(0))


def test_matching_undoes_permutation_and_shift():
    templates = simulate(preset_config("tetrode", duration_s=0.5)).truth.templates.astype(float)
    moved = np.zeros((5, 4, 90))
    order, lags = np.array([3, 0, 4, 1, 2]), np.array([0, 3, 10, 20, 26])
    for i, (unit, lag) in enumerate(zip(order, lags, strict=True)):
        moved[i, :, lag : lag + 64] = perturb_templates(templates[unit : unit + 1], -15.0, np.random.default_rng(i))[0]
    permutation, shifts, errors = match_templates(templates, moved)
    np.testing.assert_array_equal(order[permutation], np.arange(5))
    np.testing.assert_array_equal(shifts, -lags[permutation])
    np.testing.assert_allclose(errors, -15.0, atol=0.05)


def test_matching_with_missing_and_surplus_templates():
    templates = paper_templates()
    permutation, _, errors = match_templates(templates, templates[[2, 0]])
    np.testing.assert_array_equal(permutation, [1, -1, 0, -1])
    assert errors[1] == errors[3] == 0 and max(errors[0], errors[2]) < -60
    permutation, _, _ = match_templates(templates[:2], templates[::-1])
    np.testing.assert_array_equal(permutation, [3, 2])
    with pytest.raises(UsageError, match="same channels"):
        match_templates(templates, np.ones((1, 2, 18)))
