"""Recordings that several tests of this folder look at."""

from __future__ import annotations

import pytest

from spikecrsae.simulate import Simulation, preset_config, simulate


@pytest.fixture(scope="session")
def tetrode() -> Simulation:
    return simulate(preset_config("tetrode", duration_s=40.0, seed=3, intracellular_unit=0))
