"""Which units are asked whether they are two."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from helpers.known_spikes import N_TIMES, slab, template

from spikecrsae.curate.splits import split_units


def test_a_unit_without_spikes_is_not_split():
    model = slab([template(12.0)])
    state = SimpleNamespace(
        model=model,
        window=SimpleNamespace(n_times=N_TIMES),
        settings=SimpleNamespace(seed=0),
        ids=[0],
        whole_units=set(),
        has_passed=lambda *test, **how: False,
        passes=lambda *test: None,
    )
    split_units(state, [np.zeros((0, 2 * N_TIMES, 2), np.float32)])
    assert state.model is model
