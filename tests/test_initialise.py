"""First templates: what the clustering library may not do to us."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from spikecrsae.initialise import cluster


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


def test_standard_output_stays_clean():
    code = (
        "import os\n"
        "from spikecrsae.initialise import _standard_output_to_error\n"
        "print('before')\n"
        "with _standard_output_to_error():\n"
        "    os.write(1, b'notice of a library')\n"
        "print('after')\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["before", "after"]
    assert run.stderr == "notice of a library"
