"""Which units are asked whether they are two."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from helpers.known_spikes import N_TIMES, PEAK, REFRACTORY, fired, first_slab, slab, template

from spikecrsae.curate.candidates import Candidates, CurationSettings
from spikecrsae.curate.cleaned_waveforms import recentred_waveforms
from spikecrsae.curate.splits import split_units
from spikecrsae.detect.detection import SpikeSubspace
from spikecrsae.detect.windows import TemplateWindow


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
    split_units(state, [np.zeros((0, 2 * N_TIMES, 2), np.float32)], np.zeros(1, bool))
    assert state.model is model


@pytest.mark.parametrize("is_satellite", [False, True])
def test_a_unit_of_two_shapes_is_split_unless_it_is_a_satellite(is_satellite):
    shapes = [template(12, (1.0, 0.5, 0.1, 0.0)), template(12, (0.4, 1.0, 0.5, 0.1))]
    signal, _ = fired(slab(shapes, spread=0.05), (120, 120), 900, 3)
    settings = CurationSettings(4.5, 10, REFRACTORY, 400, fixed_number=False, seed=0)
    subspace = SpikeSubspace.learn(signal, 4.5, 20, 10)
    between = first_slab([sum(shapes) / 2])
    state = Candidates(signal, np.zeros(0, np.int64), subspace, TemplateWindow(N_TIMES, PEAK), settings, between)
    state.focus()
    state.update(n_rounds=1)
    assert split_units(state, recentred_waveforms(state), np.array([is_satellite])) is not is_satellite
    assert state.model.n_units == (1 if is_satellite else 2)
