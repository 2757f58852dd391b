"""Recalibration by known spikes: it mends wrong probabilities, leaves true ones, and trusts few spikes little."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from spikecrsae.decode.recalibration import Recalibration
from spikecrsae.score.calibration import expected_calibration_error, log_loss


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True probabilities, most of them near 1, and whether each spike is right."""
    rng = np.random.default_rng(seed)
    probability = expit(rng.normal(5, 2, n))
    return probability, rng.random(n) < probability


def overconfident(probability: np.ndarray) -> np.ndarray:
    """Odds of a false spike that are ten times too small."""
    return expit(logit(probability) + np.log(10))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_overconfident_probabilities_are_mended(seed):
    """The known spikes are others than those that are judged."""
    known, test = drawn(2000, seed), drawn(20_000, seed + 10)
    found = Recalibration.of(overconfident(known[0]), known[1], np.ones(2000))
    before, after = overconfident(test[0]), found.lowered(overconfident(test[0]))
    assert expected_calibration_error(after, test[1]) < 0.4 * expected_calibration_error(before, test[1])
    assert log_loss(after, test[1]) < log_loss(before, test[1])


@pytest.mark.parametrize("n", [10, 200, 2000])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_true_probabilities_hardly_change(n, seed):
    known, test = drawn(n, seed), drawn(20_000, seed + 10)
    after = Recalibration.of(*known, np.ones(n)).lowered(test[0])
    assert np.mean(test[0] - after) < 0.005
    assert np.all(after <= test[0])


def test_few_known_spikes_change_less_than_many():
    probability, right = np.full(5, 0.99), np.array([True, True, True, True, False])
    few = Recalibration.of(probability, right, np.ones(5))
    many = Recalibration.of(np.tile(probability, 100), np.tile(right, 100), np.ones(500))
    lowered = [one.lowered(probability)[0] for one in (few, many)]
    assert 0.95 < lowered[0] < 0.99
    assert lowered[1] == pytest.approx(0.8, abs=0.02)
    assert Recalibration.of(np.zeros(0), np.zeros(0, bool), np.zeros(0)) == Recalibration()


def test_a_spike_of_great_weight_is_still_one_spike():
    """Weights in any unit give the same; one spike that stands for nearly all is worth one."""
    probability, right = np.full(50, 0.9), np.arange(50) % 5 > 0
    one, thousand = (Recalibration.of(probability, right, np.full(50, w)) for w in (1.0, 1000.0))
    assert one == thousand
    heavy = Recalibration.of(probability, right, np.where(np.arange(50) == 0, 1e6, 1e-3))
    assert heavy.lowered(probability)[0] > one.lowered(probability)[0] - 0.1
    assert heavy.shift < 1.5
