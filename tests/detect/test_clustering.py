"""First templates: clusters that are there are found, and what the clustering library may not do to us."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from spikecrsae.detect.bimodality import are_two
from spikecrsae.detect.clustering import cluster, divide
from spikecrsae.detect.windows import windows_at


def test_clusters_are_found_without_a_number():
    rng = np.random.default_rng(0)
    features = np.concatenate([rng.standard_normal((200, 3)) + centre for centre in (0, 12, 24)])
    labels = cluster(features, None, seed=0)
    assert len(np.unique(labels)) == 3
    assert [len(np.unique(labels[a : a + 200])) for a in (0, 200, 400)] == [1, 1, 1]


def test_points_that_coincide_do_not_stop_the_clustering():
    """isosplit itself would never end on these, and would fill standard output."""
    rng = np.random.default_rng(0)
    features = np.round(rng.standard_normal((300, 2)))
    features[150:] += 30
    labels = cluster(features, None, seed=0)
    assert len(labels) == 300
    same = (features[:, None] == features[None]).all(axis=2)
    assert np.all((labels[:, None] == labels[None])[same])
    assert not set(labels[:150]) & set(labels[150:])


@pytest.mark.slow
def test_standard_output_stays_clean():
    code = (
        "import os\n"
        "from spikecrsae.detect.clustering import _standard_output_to_error\n"
        "print('before')\n"
        "with _standard_output_to_error():\n"
        "    os.write(1, b'notice of a library')\n"
        "print('after')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["before", "after"]
    assert run.stderr == "notice of a library"


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
