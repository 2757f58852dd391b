"""Two neurons fire within each other's refractory period as often as chance has it, one neuron does not."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.known_spikes import N_TIMES, PEAK, REFRACTORY, first_slab, matched, rendered, slab, spikes_at, template

from spikecrsae.config import TrainConfig
from spikecrsae.curate.candidates import CurationSettings
from spikecrsae.curate.coincidences import INDEPENDENT_LEVEL, Lags, contaminated, independence_p_value
from spikecrsae.curate.curate import FirstUnits, curate
from spikecrsae.curate.mixtures import smaller_part
from spikecrsae.data.spikes import Spikes
from spikecrsae.detect.detection import SpikeSubspace
from spikecrsae.detect.windows import TemplateWindow, windows_at
from spikecrsae.progress import Observer

#: At 20 kHz: 20 ms, and 60 s.
BURST, N_SAMPLES = 400, 1_200_000
LAGS = Lags.of(BURST, REFRACTORY)


def train(rng: np.random.Generator, n: int, n_samples: int = N_SAMPLES, refractory: int = 50) -> np.ndarray:
    """About n spikes (samples, ascending) that are never closer than the refractory period."""
    gaps = refractory + rng.exponential(n_samples / n - refractory, 2 * n)
    samples = np.cumsum(gaps).astype(np.int64)
    return samples[samples < n_samples - 100]


def halves(rng: np.random.Generator, samples: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    part = rng.random(len(samples)) < share
    return samples[~part], samples[part]


@pytest.mark.parametrize("counts", [(2000, 400), (1500, 1500), (3000, 250)])
def test_two_neurons_are_told_from_one(counts):
    """Over twenty seeds two neurons pass as two in most, one neuron in two parts in none."""
    apart, one = [], []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        apart.append(independence_p_value(train(rng, counts[0]), train(rng, counts[1]), LAGS))
        whole = train(rng, sum(counts))
        one.append(independence_p_value(*halves(rng, whole, counts[1] / sum(counts)), LAGS))
    assert np.mean(np.array(apart) < INDEPENDENT_LEVEL) >= 0.7
    assert min(one) > INDEPENDENT_LEVEL


def test_spikes_of_others_among_its_own_do_not_make_one_neuron_two():
    """A tenth of both parts are spikes of anybody."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        parts = halves(rng, train(rng, 2500), 0.3)
        dirty = [np.sort(np.r_[part, rng.integers(0, N_SAMPLES, len(part) // 10)]) for part in parts]
        assert independence_p_value(dirty[0], dirty[1], LAGS) > INDEPENDENT_LEVEL


def test_few_pairs_say_nothing():
    far = np.arange(10) * 100_000
    assert independence_p_value(far, far[:2] + 25, LAGS) == 1.0
    assert independence_p_value(far, far + 25, LAGS) < INDEPENDENT_LEVEL
    for empty in (np.zeros(0, np.int64), far[:1]):
        assert independence_p_value(far, empty, LAGS) == 1.0
        assert not contaminated(empty, LAGS)


@pytest.mark.parametrize(("burst", "blocked"), [(200, 7), (400, 14), (600, 21), (60, 2), (400, 150), (400, 0)])
def test_lags_are_counted_in_order(burst, blocked):
    """From 3 kHz to 30 kHz, and for refractory periods from none to 7.5 ms: the bands are never empty and never overlap."""
    lags = Lags.of(burst, blocked)
    assert 0 < lags.near < lags.refractory <= lags.flank[0] < lags.flank[1]
    rng = np.random.default_rng(0)
    first, second = (np.sort(rng.integers(0, N_SAMPLES, 3000)) for _ in range(2))
    found, expected = lags.counts(first, second)
    by_hand = np.abs(first[:, None] - second[None, :])
    assert found == ((by_hand >= lags.near) & (by_hand < lags.refractory)).sum()
    share = (lags.refractory - lags.near) / (lags.flank[1] - lags.flank[0])
    assert expected == pytest.approx(((by_hand >= lags.flank[0]) & (by_hand < lags.flank[1])).sum() * share)


def test_only_a_train_that_breaks_its_refractory_period_is_looked_at():
    rng = np.random.default_rng(1)
    first, second = train(rng, 2500), train(rng, 500)
    assert not contaminated(first, LAGS)
    assert contaminated(np.sort(np.r_[first, second]), LAGS)


# ---- mixtures


def test_the_smaller_of_two_normal_distributions_is_found_without_a_valley():
    """A tenth of the points, 3.5 deviations away: the density falls all the way."""
    for seed in range(5):
        rng = np.random.default_rng(seed)
        points = rng.standard_normal((2000, 4))
        points[:200, 0] += 3.5
        small = smaller_part(points, seed)
        assert 120 <= small.sum() <= 280
        assert small[:200].mean() > 0.7 and small[200:].mean() < 0.05


def test_one_normal_distribution_is_not_divided():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        points = rng.standard_normal((800, 4)) * [3.0, 1.0, 1.0, 0.5]
        assert not smaller_part(points, seed).any()


# ---- through curate

SHAPE, RATIO = template(10.0, (1.0,)), 1.4


def curated(signal: np.ndarray, *clusters: np.ndarray):
    """What curation makes of clusters of spikes, given by their first samples."""
    window = TemplateWindow(N_TIMES, PEAK)
    subspace = SpikeSubspace.learn(signal, 4.5, 20, 10)
    settings = CurationSettings(4.5, 10, REFRACTORY, BURST, False, 0, TrainConfig(max_windows=0))
    means = [windows_at(signal.T, starts, N_TIMES).mean(axis=0).T for starts in clusters]
    events = np.sort(np.concatenate(clusters))
    return curate(signal, FirstUnits(events, first_slab(means), list(clusters), subspace, window), settings, Observer())


def recording(samples: np.ndarray, size: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Spikes of one shape and these sizes on a wire: signal and first samples, in order."""
    rng = np.random.default_rng(seed)
    order = np.argsort(samples)
    amplitude = size[order] * rng.normal(1.0, 0.03, len(samples))
    spikes: Spikes = spikes_at(np.zeros(len(samples), np.int64), samples[order], amplitude)
    return rendered(slab([SHAPE]), spikes, 800_000, rng), samples[order]


@pytest.mark.parametrize(("ratio", "n_large", "by_times"), [(RATIO, 350, False), (1.38, 200, True)])
def test_two_neurons_of_one_shape_and_two_sizes_become_two_units(ratio, n_large, by_times):
    """Many spikes four noise levels apart show it by their sizes, fewer and closer ones only by their times."""
    rng = np.random.default_rng(3)
    small, large = train(rng, 2500, 790_000), train(rng, n_large, 790_000)
    signal, starts = recording(np.r_[small, large], np.r_[np.ones(len(small)), np.full(len(large), ratio)], 3)
    result = curated(signal, starts)
    assert result.model.n_units == 2
    (split,) = [d for d in result.decisions if d["decision"] == "split"]
    assert (split.get("why") == "fire independently") == by_times
    assert (split["statistic"] < split["level"]) == by_times
    unit = int(np.argmax(result.model.energy))
    found = np.sort(result.spikes.sample[result.spikes.unit == unit])
    hits = matched(found, large)
    assert hits > 0.75 * len(large) and hits > 0.75 * len(found)


@pytest.mark.parametrize("ratio", [1.3, RATIO, 1.5])
def test_one_neuron_of_two_sizes_stays_one_unit(ratio):
    """Such sizes, of spikes that keep one refractory period."""
    rng = np.random.default_rng(4)
    samples = train(rng, 2800, 790_000)
    size = np.where(rng.random(len(samples)) < 0.12, ratio, 1.0)
    signal, starts = recording(samples, size, 4)
    result = curated(signal, starts)
    assert result.model.n_units == 1
    assert ratio >= RATIO or not [d for d in result.decisions if d["decision"] == "split"]
    assert all(d["why"] == "one refractory period" for d in result.decisions if d["decision"] == "merge")


def test_two_neurons_of_one_shape_are_not_merged():
    rng = np.random.default_rng(5)
    small, large = train(rng, 2500, 790_000), train(rng, 500, 790_000)
    signal, _ = recording(np.r_[small, large], np.r_[np.ones(len(small)), np.full(len(large), RATIO)], 5)
    assert curated(signal, small, large).model.n_units == 2
