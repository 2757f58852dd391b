"""One neuron's bursts, known as two units: told by their cross-correlogram, and merged by curation."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.known_spikes import N_TIMES, PEAK, REFRACTORY, first_slab, rendered, slab, spikes_at, template

from spikecrsae.config import TrainConfig
from spikecrsae.curate.bursts import BURST_LEVEL, burst_p_value
from spikecrsae.curate.candidates import CurationSettings
from spikecrsae.curate.curate import FirstUnits, curate
from spikecrsae.detect.detection import SpikeSubspace
from spikecrsae.detect.windows import TemplateWindow, windows_at
from spikecrsae.progress import Observer

FS = 20_000
BURST = 400
N_SAMPLES = 60 * FS


def bursts(rng, n: int, n_followers: int) -> tuple[np.ndarray, np.ndarray]:
    """First spikes of n bursts, and the spikes that follow each after 3 to 7 ms."""
    first = np.arange(n) * (N_SAMPLES // n) + rng.integers(0, N_SAMPLES // n // 2, n)
    gaps = rng.integers(3 * FS // 1000, 7 * FS // 1000, (n, n_followers))
    return first, np.sort((first[:, None] + np.cumsum(gaps, axis=1)).ravel())


@pytest.mark.parametrize("n_followers", [1, 2])
def test_spikes_that_follow_others_in_bursts_are_theirs(n_followers):
    first, following = bursts(np.random.default_rng(n_followers), 300, n_followers)
    assert burst_p_value(first, following, BURST, N_SAMPLES) < BURST_LEVEL
    # but those do not follow these
    assert burst_p_value(following, first, BURST, N_SAMPLES) >= BURST_LEVEL


def test_neurons_that_fire_apart_together_or_in_either_order_are_two():
    rng = np.random.default_rng(3)
    first, following = bursts(rng, 300, 1)
    apart = np.sort(rng.choice(N_SAMPLES, 300, replace=False))
    either = np.sort(first + rng.integers(-BURST + 20, BURST - 20, 300))
    # nothing keeps them 1.5 ms apart
    any_distance = np.sort(first + rng.integers(1, BURST, 300))
    for other in (apart, either, any_distance, np.concatenate([following[:150], apart[apart > following[149]]])):
        assert burst_p_value(first, other, BURST, N_SAMPLES) >= BURST_LEVEL
    assert burst_p_value(first, np.zeros(0, np.int64), BURST, N_SAMPLES) == 1.0


@pytest.mark.parametrize("bursting", [True, False])
def test_smaller_and_wider_spikes_are_merged_if_they_come_in_bursts(bursting):
    rng = np.random.default_rng(4)
    large, small = template(24, (1.0, 0.6), 4.0), template(13, (1.0, 0.6), 4.6)
    other = template(15, (0.1, -1.0), 5.0)
    model = slab([large, small, other], spread=0.05)
    first, following = bursts(rng, 300, 1)
    if not bursting:
        following = np.sort(rng.choice(N_SAMPLES // 100, 300, replace=False)) * 100
    third = np.sort(rng.choice(N_SAMPLES // 100, 400, replace=False)) * 100
    trains = [np.clip(train, 100, N_SAMPLES - 200) for train in (first, following, third)]
    unit = np.repeat(np.arange(3), [len(train) for train in trains])
    truth = spikes_at(unit, np.concatenate(trains), rng.normal(1, 0.05, len(unit)))
    signal = rendered(model, truth, N_SAMPLES, rng)
    members = [truth.sample[truth.unit == u] for u in range(3)]
    templates = [windows_at(signal.T, m, N_TIMES).mean(axis=0).T for m in members]
    subspace, window = SpikeSubspace.learn(signal, 4.5, 20, 10), TemplateWindow(N_TIMES, PEAK)
    settings = CurationSettings(4.5, 10, REFRACTORY, BURST, fixed_number=False, seed=0, train=TrainConfig())
    first_units = FirstUnits(np.sort(np.concatenate(members)), first_slab(templates), members, subspace, window)
    result = curate(signal, first_units, settings, Observer())
    merges = [d for d in result.decisions if d["decision"] == "merge"]
    assert [d["why"] for d in merges] == (["bursts"] if bursting else [])
    counts = np.sort(np.bincount(result.spikes.unit, minlength=result.model.n_units))
    assert counts == pytest.approx([400, 600] if bursting else [300, 300, 400], abs=6)
    assert not result.satellites.any()
