"""A sorting with hum in it, of which several tests ask what its columns say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.trains import quick

from spikecrsae.pipeline.sort import sort_group
from spikecrsae.simulate import preset_config, simulate


@pytest.fixture(scope="package")
def simulation():
    """Three neurons, and a short artefact on all channels in every period of 50 Hz mains."""
    base = simulate(
        preset_config(
            "tetrode", n_units=3, n_bursting=0, duration_s=15.0, seed=4, snrs=(14.0, 11.0, 9.0), rates_hz=(35.0, 18.0, 15.0)
        )
    )
    traces = base.traces.astype(np.float64)
    rng = np.random.default_rng(1)
    hum = np.arange(0.011, 14.9, 1 / 50.0) * base.sampling_frequency
    hum = np.rint(hum + 4 * rng.standard_normal(len(hum))).astype(np.int64)
    time = np.arange(-20, 21)
    pulse = 130 * np.sin(0.5 * time) * np.exp(-0.5 * (time / 5.0) ** 2) / base.gain
    for sample in hum:
        traces[sample + time] += pulse[:, None] * np.array([1.0, 0.9, 0.95, 1.0])
    return replace(base, traces=np.rint(traces).astype(np.int16)), hum


@pytest.fixture(scope="package")
def outcome(simulation):
    return sort_group(simulation[0].recording(), quick())
