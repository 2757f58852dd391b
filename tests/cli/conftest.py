"""A short recording of two neurons, and the result that is its truth."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.sortings import write_result

from spikecrsae.simulate import preset_config, simulate, write_simulation


@pytest.fixture(scope="package")
def simulation():
    return simulate(preset_config("tetrode", n_units=2, n_bursting=0, duration_s=8.0, seed=3, snr_low=10.0))


@pytest.fixture(scope="package")
def recording(simulation, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recording") / "two.h5"
    write_simulation(simulation, path)
    return path


@pytest.fixture
def perfect(simulation, tmp_path) -> Path:
    """A result folder whose sorting is the truth."""
    return write_result(tmp_path / "perfect", simulation.truth, {"spikecrsae": "test"})
