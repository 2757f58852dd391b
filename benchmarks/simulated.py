"""Fresh recordings of spikecrsae.simulate by their seed alone: 1, 2 or 4 channels, 1 to 8 neurons, weak and strong ones."""

from __future__ import annotations

import numpy as np
from trials import Simulated

from spikecrsae.simulate import SimulationConfig


def fresh(seed: int) -> Simulated:
    """The recording of a seed: 60 s at 20 kHz, SNR from 3.5 to 16, with or without bursts, synchrony and drift."""
    rng = np.random.default_rng([20, seed])
    n_channels = int(rng.choice([1, 2, 4, 4]))
    n_units = int(rng.integers(1, 4) if n_channels == 1 else rng.integers(2, 9))
    low = float(rng.uniform(3.5, 7))
    config = SimulationConfig(
        n_channels=n_channels,
        n_units=n_units,
        snr_low=low,
        snr_high=low + float(rng.uniform(2, 9)),
        duration_s=60.0,
        seed=seed,
        noise=str(rng.choice(["neural", "white"])),
        amplitude_jitter=float(rng.uniform(0.02, 0.12)),
        n_bursting=int(rng.integers(0, 2)),
        synchrony=float(rng.uniform(0, 0.1)),
        drift=float(rng.choice([0, 0, 0.2])),
    )
    return Simulated(f"simulated {seed}", config)
