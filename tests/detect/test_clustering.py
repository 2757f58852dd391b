"""First templates: clusters that are there are found, and none where there is none."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from spikecrsae.config import InitialiseConfig
from spikecrsae.detect.bimodality import SURE_GAIN, WIDE_GAIN, are_two, two_mode_gain
from spikecrsae.detect.clustering import cluster, divide, first_templates, principal_components, shapes_in_time
from spikecrsae.detect.detection import SpikeSubspace
from spikecrsae.detect.drawing import seldom_first
from spikecrsae.detect.windows import TemplateWindow, windows_at


def test_clusters_are_found_without_a_number():
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.standard_normal((200, 3)) + centre for centre in (0, 12, 24)])
    labels = cluster(features, None, seed=0)
    assert len(np.unique(labels)) == 3
    assert [len(np.unique(labels[a : a + 200])) for a in (0, 200, 400)] == [1, 1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_clusters_of_unequal_sizes_are_found(seed):
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(4), (3000, 400, 80, 20))
    centres = 15 * np.eye(5)[:4]
    labels = cluster(centres[truth] + rng.standard_normal((3500, 5)), None, seed)
    # more clusters than neurons are allowed, but no cluster of two neurons
    owners = [np.bincount(truth[labels == c], minlength=4) for c in np.unique(labels)]
    assert all(owner.max() >= 0.98 * owner.sum() for owner in owners)
    assert {int(owner.argmax()) for owner in owners} == {0, 1, 2, 3}
    assert labels.max() < 6


@pytest.mark.parametrize("seed", range(5))
def test_one_cloud_stays_one_cluster_round_or_elongated(seed):
    rng = np.random.default_rng(seed)
    for n, n_features in ((15, 2), (200, 3), (1000, 10), (5000, 10)):
        cloud = rng.standard_normal((n, n_features))
        assert cluster(cloud, None, seed).max() == 0, (n, n_features)
        assert cluster(cloud * np.r_[10.0, np.ones(n_features - 1)], None, seed).max() == 0, (n, n_features, "elongated")


@pytest.mark.parametrize("seed", range(5))
def test_elongated_clusters_are_parted_along_the_gap_and_nowhere_else(seed):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((2000, 4)) * (12, 1, 1, 1)
    features[1000:, 1] += 8
    labels = cluster(features, None, seed)
    assert labels.max() == 1
    assert max(np.mean(labels[:1000] == c) for c in (0, 1)) > 0.99
    assert max(np.mean(labels[1000:] == c) for c in (0, 1)) > 0.99


def test_clusters_along_a_single_feature_are_found():
    rng = np.random.default_rng(0)
    labels = cluster(np.concatenate([rng.standard_normal((n, 1)) + at for n, at in ((500, 0), (100, 9))]), None, 0)
    assert labels.max() == 1
    assert np.mean(labels[:500] == labels[0]) > 0.99 and np.mean(labels[500:] == labels[-1]) > 0.99


@pytest.mark.parametrize("n", (1, 2, 5, 11, 19))
def test_few_points_are_one_cluster(n):
    assert np.array_equal(cluster(np.random.default_rng(n).standard_normal((n, 3)), None, 0), np.zeros(n))


def test_points_that_coincide_have_one_label():
    rng = np.random.default_rng(0)
    features = np.round(rng.standard_normal((300, 2)))
    features[150:] += 30
    labels = cluster(features, None, seed=0)
    assert len(labels) == 300
    same = (features[:, None] == features[None]).all(axis=2)
    assert np.all((labels[:, None] == labels[None])[same])
    assert not set(labels[:150]) & set(labels[150:])


def test_points_at_one_place_are_one_cluster_and_at_two_places_two():
    features = np.full((200, 3), 4.0)
    assert cluster(features, None, 0).max() == 0
    features[120:] = -2.0
    labels = cluster(features, None, 0)
    assert labels.max() == 1 and np.ptp(labels[:120]) == np.ptp(labels[120:]) == 0


def test_a_seed_gives_the_same_clusters_again():
    rng = np.random.default_rng(0)
    features = rng.standard_normal((3000, 3)) + 4 * rng.integers(0, 2, (3000, 3))
    first = cluster(features, None, 3)
    assert first.max() > 2
    np.testing.assert_array_equal(cluster(features, None, 3), first)


def test_a_given_number_of_clusters_is_found():
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.standard_normal((200, 3)) + centre for centre in (0, 12, 24)])
    labels = cluster(features, 3, seed=0)
    assert [len(np.unique(labels[a : a + 200])) for a in (0, 200, 400)] == [1, 1, 1]
    assert len(np.unique(labels)) == 3


@pytest.mark.slow
def test_clusters_without_a_number_load_no_slow_library():
    code = (
        "import sys, numpy as np\n"
        "from spikecrsae.detect.clustering import cluster\n"
        "cluster(np.random.default_rng(0).standard_normal((500, 3)), None, 0)\n"
        "print(sorted({'sklearn', 'pandas', 'torch'} & set(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_one_cloud_is_one_and_two_clouds_are_two():
    rng = np.random.default_rng(2)
    cloud = rng.standard_normal((600, 60))
    by_chance = cloud[:, 0] > 0
    assert not are_two(cloud[by_chance], cloud[~by_chance], 0)[0]
    moved = cloud[:300] + 0.9 * np.eye(60)[:40].sum(axis=0)
    assert are_two(cloud[300:], moved, 0)[0]


def test_divide_finds_the_clusters_of_whitened_windows():
    rng = np.random.default_rng(3)
    centres = 8 * rng.standard_normal((3, 30, 2)) / np.sqrt(60) * 2
    truth = np.repeat(np.arange(3), (300, 120, 40))
    labels = divide(centres[truth] + rng.standard_normal((460, 30, 2)), 6, 0)
    assert len(np.unique(labels)) == 3
    for unit in range(3):
        assert len(np.unique(labels[truth == unit])) == 1


def test_divide_finds_more_neurons_than_there_are_parcels():
    rng = np.random.default_rng(40)
    sizes = np.exp(rng.uniform(np.log(50), np.log(1000), 40)).astype(int)
    truth = np.repeat(np.arange(40), sizes)
    windows = 6 * rng.standard_normal((40, 10, 1))[truth] + rng.standard_normal((len(truth), 10, 1))
    labels = divide(windows, 6, 0)
    counts = np.zeros((labels.max() + 1, 40), np.int64)
    np.add.at(counts, (labels, truth), 1)
    assert len(counts) == 40
    assert np.all(counts.max(axis=0) >= 0.95 * sizes)


@pytest.mark.parametrize("seed", range(3))
def test_divide_finds_a_few_spikes_among_many(seed):
    rng = np.random.default_rng(seed)
    many, few = rng.standard_normal((2, 30, 2)) * 25 / np.sqrt(60)
    few = many + 8 * few / np.linalg.norm(few)
    gain = 1 + 0.05 * rng.standard_normal((2000, 1, 1))
    truth = np.arange(2000) < 40
    windows = gain * np.where(truth[:, None, None], few, many) + rng.standard_normal((2000, 30, 2))
    labels = divide(windows, 6, 0)
    assert labels.max() == 1
    assert sorted(int(truth[labels == c].sum()) for c in (0, 1)) == [0, 40]
    assert divide(windows[~truth], 6, 0).max() == 0


@pytest.mark.parametrize("n", [40, 300])
def test_principal_components_are_those_of_scikit_learn_for_few_and_many_windows(n):
    from sklearn.decomposition import PCA

    rng = np.random.default_rng(n)
    windows = (rng.standard_normal((n, 12)) * np.linspace(5, 1, 12) @ rng.standard_normal((12, 120))).reshape(n, 30, 4)
    ours, theirs = principal_components(windows, 5, 0), PCA(5, svd_solver="full").fit_transform(windows.reshape(n, -1))
    np.testing.assert_allclose(np.abs(ours), np.abs(theirs), atol=1e-8 * np.abs(theirs).max())


@pytest.mark.parametrize(("n_times", "n_channels"), [(60, 16), (20, 32)])
def test_shapes_in_time_keep_a_rare_neuron_and_leave_out_most_of_the_noise(n_times, n_channels):
    rng = np.random.default_rng(0)
    time = np.arange(n_times) / n_times
    usual, rare = (np.exp(-(((time - 0.4) / width) ** 2)) for width in (0.1, 0.05))
    windows = rng.standard_normal((3000, n_times, n_channels)).astype(np.float32)
    windows[:, :, 2] += 20 * usual.astype(np.float32)
    windows[:15, :, 9] += 20 * rare.astype(np.float32)
    coefficients, shapes = shapes_in_time(windows)
    np.testing.assert_allclose(shapes.T @ shapes, np.eye(shapes.shape[1]), atol=1e-5)
    assert coefficients.shape == (3000, shapes.shape[1], n_channels)
    assert shapes.shape[1] < n_times / 3
    # of the energy of few spikes of another shape, at least nine tenths
    for shape, part in ((usual, 0.99), (rare, 0.9)):
        assert np.sum((shapes.T @ shape) ** 2) > part * np.sum(shape**2)


def test_windows_of_few_numbers_stay_as_they_are():
    windows = np.random.default_rng(0).standard_normal((10, 60, 4)).astype(np.float32)
    same, shapes = shapes_in_time(windows)
    assert same is windows and shapes is None


def test_divide_finds_a_few_spikes_among_many_on_a_wide_probe():
    rng = np.random.default_rng(1)
    shapes = np.zeros((2, 40, 24), np.float32)
    wave = np.exp(-(((np.arange(40) - 15) / 3) ** 2))
    for unit, channel in enumerate((5, 17)):
        shapes[unit, :, channel - 1 : channel + 2] = 8 * wave[:, None]
    truth = np.repeat([0, 1], [600, 20])
    labels = divide(shapes[truth] + rng.standard_normal((620, 40, 24)).astype(np.float32), 6, seed=0)
    assert len(np.unique(labels)) == 2
    assert [len(np.unique(labels[truth == unit])) for unit in (0, 1)] == [1, 1]


def test_windows_are_cut_out_of_either_layout_and_only_within_the_signal():
    rng = np.random.default_rng(5)
    rows = rng.standard_normal((300, 4))
    starts = np.array([7, 0, 280, 7])
    for signal in (rows, np.asfortranarray(rows), rows[:, ::2]):
        windows = windows_at(signal, starts, 20)
        np.testing.assert_array_equal(windows, [signal[start : start + 20] for start in starts])
        windows[:] = 0
        assert signal.any(), "they are copies"
        assert windows_at(signal, np.zeros(0), 20).shape == (0, 20, signal.shape[1])
        for wrong in (-1, 281):
            with pytest.raises(IndexError, match="signal of 300"):
                windows_at(signal, [wrong], 20)


# ---- two modes, with noise that is known


@pytest.mark.parametrize("kind", ["normal", "student", "uniform", "exponential", "gamma"])
@pytest.mark.parametrize("n", [60, 3000])
def test_numbers_of_one_mode_gain_little_by_a_second(kind, n):
    """Wherever they are divided."""
    rng = np.random.default_rng(0)
    draw = {
        "normal": lambda: rng.normal(0, 2, n),
        "student": lambda: rng.standard_t(3, n),
        "uniform": lambda: rng.uniform(0, 12, n),
        "exponential": lambda: rng.exponential(3, n),
        "gamma": lambda: rng.gamma(2, 2, n),
    }[kind]
    for part in (0.5, 0.8, 0.98):
        for _ in range(5):
            numbers = draw() + rng.standard_normal(n)
            cut = np.quantile(numbers, part if n > 60 else min(part, 0.85))
            for rising in (False, True):
                assert two_mode_gain(numbers[numbers <= cut], numbers[numbers > cut], rising) < SURE_GAIN


def test_a_few_larger_spikes_are_another_mode_sooner_than_a_few_smaller_ones():
    """Of 3,000 numbers 60 lie about six noise levels beyond the others, with some between: a neuron's bursts make its spikes smaller
    so, nothing makes them larger so."""
    rng = np.random.default_rng(5)
    gains = {False: [], True: []}
    for _ in range(10):
        few = np.r_[rng.normal(6, 1.4, 50), rng.uniform(2.5, 6, 20)]
        others = rng.standard_normal(2930)
        for rising, gain in gains.items():
            gain.append(two_mode_gain(others, few, rising))
    assert np.median(gains[True]) > SURE_GAIN > np.median(gains[False])


@pytest.mark.parametrize(("n", "apart"), [(12, 9.0), (40, 7.0), (1000, 3.0)])
def test_few_of_another_mode_gain_much(n, apart):
    rng = np.random.default_rng(1)
    for _ in range(5):
        assert two_mode_gain(rng.standard_normal(1500), apart + rng.standard_normal(n)) > SURE_GAIN


# ---- drawing


def test_events_of_a_kind_that_was_seldom_drawn_come_first():
    rng = np.random.default_rng(2)
    drawn = rng.standard_normal((1000, 6))
    common, rare, alone = rng.standard_normal((2000, 6)), 8 + rng.standard_normal((20, 6)), 40 * rng.standard_normal((30, 6))
    order = seldom_first(drawn, np.concatenate([common, rare, alone]), 6, rng)
    kind = np.repeat([0, 1, 2], [2000, 20, 30])[order]
    assert (kind[:20] == 1).all() and (kind[-30:] == 2).all()


def test_more_events_than_are_clustered_leave_no_rare_neuron_out():
    """Of 3,000 events 300 are clustered, 12 of them are of another neuron."""
    rng = np.random.default_rng(3)
    signal = rng.standard_normal((4, 300_000)).astype(np.float32)
    shape = -np.exp(-((np.arange(-10, 11) / 2.5) ** 2))
    at = np.arange(50, 299_900, 100)
    rare = rng.permutation(len(at)) < 12
    for sample, other in zip(at, rare, strict=True):
        signal[:, sample - 10 : sample + 11] += np.outer([0, 0, 2, 12] if other else [9, 5, 0, 0], shape)
    subspace = SpikeSubspace.learn(signal, 4.5, 20, 10)
    config = InitialiseConfig(max_events=300)
    _, templates, members = first_templates(signal, subspace, TemplateWindow(40, 18), config, 10, 0)
    largest = np.abs(templates).max(axis=2).argmax(axis=1)
    (found,) = [m for m, channel in zip(members, largest, strict=True) if channel == 3]
    assert len(found) == 12


@pytest.mark.parametrize("spread", [20.0, 60.0])
def test_a_neuron_of_large_spread_far_beyond_the_noise_is_one_mode(spread):
    """And a few numbers beyond all that it reaches are another's."""
    rng = np.random.default_rng(4)
    numbers = spread * rng.standard_normal(2000) + rng.standard_normal(2000)
    for part in (0.5, 0.9, 0.995):
        cut = np.quantile(numbers, part)
        assert two_mode_gain(numbers[numbers <= cut], numbers[numbers > cut]) < SURE_GAIN
    assert two_mode_gain(rng.standard_normal(2000), spread + rng.standard_normal(12)) > SURE_GAIN


@pytest.mark.parametrize("distance", [30.0, 3000.0, 300_000.0])
def test_two_modes_are_told_from_one_at_any_distance(distance):
    """Where it is thousands of noise levels, as in signal from inside a cell, memory would not hold bins of the noise's size."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 0.1 * distance, 600), rng.normal(distance, 0.1 * distance, 200)
    one = rng.uniform(0, distance, 800)
    assert two_mode_gain(first, second) > SURE_GAIN
    assert two_mode_gain(one[one < distance / 2], one[one >= distance / 2]) < WIDE_GAIN
