"""Spike times to simulate: refractory Poisson processes, bursts, amplitudes, and spikes that coincide between units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from spikecrsae.errors import UsageError
from spikecrsae.simulate.settings import SimulationConfig

#: Number of spikes in a burst, first and last possible.
BURST_SIZE = (2, 6)
#: Interval between the spikes of a burst.
BURST_INTERVAL_MS = (4.0, 8.0)
#: Amplitude of a spike in a burst over that of the spike before it.
BURST_ATTENUATION = 0.88
#: Largest distance of spikes that are made to coincide.
SYNCHRONY_MS = 0.5


@dataclass(frozen=True)
class Train:
    """One unit's spikes: times_s (n_spikes,) ascending; amplitudes (n_spikes,) relative to the unit's template.

    in_burst (n_spikes,): the spike belongs to a burst.
    """

    times_s: np.ndarray
    amplitudes: np.ndarray
    in_burst: np.ndarray


def draw_trains(config: SimulationConfig, rates_hz: np.ndarray, rng: np.random.Generator) -> list[Train]:
    """The spikes of every unit at its firing rate, never closer than the refractory period.

    Raises UsageError for a rate that leaves no time for the refractory period and the bursts.
    """
    trains: list[Train] = []
    for unit, rate in enumerate(rates_hz):
        train = _renewal(config, unit, float(rate), rng)
        if trains and config.synchrony > 0:
            train = _synchronise(train, trains, config, rng)
        amplitudes = train.amplitudes * np.maximum(rng.normal(1.0, config.amplitude_jitter, len(train.times_s)), 0.1)
        sign = rng.choice([-1.0, 1.0])
        amplitudes *= 1 + sign * config.drift * (train.times_s / config.duration_s - 0.5)
        trains.append(Train(train.times_s, amplitudes, train.in_burst))
    return trains


def _renewal(config: SimulationConfig, unit: int, rate_hz: float, rng: np.random.Generator) -> Train:
    """Events, single spikes or bursts, each followed by the refractory period and an exponential pause.

    The pause is as long as the rate needs, so rate and refractory period both hold exactly.
    """
    probability = config.burst_probability if unit < config.n_bursting else 0.0
    mean_size = 1 + probability * (np.mean(BURST_SIZE) - 1)
    refractory = config.refractory_ms / 1000
    occupied = refractory + (mean_size - 1) * np.mean(BURST_INTERVAL_MS) / 1000
    pause = mean_size / rate_hz - occupied
    if pause <= 0:
        raise UsageError(
            f"unit {unit} cannot fire at {rate_hz:.1f} Hz: with its refractory period and bursts at most "
            f"{mean_size / occupied:.1f} Hz are possible; lower the rate, the bursts or the refractory period."
        )
    expected = config.duration_s * rate_hz / mean_size
    n_events = int(expected + 8 * np.sqrt(expected) + 10)
    size = np.where(rng.random(n_events) < probability, rng.integers(BURST_SIZE[0], BURST_SIZE[1] + 1, n_events), 1)
    place = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    interval = np.where(
        place == 0,
        refractory + rng.exponential(pause, len(place)),
        rng.uniform(*BURST_INTERVAL_MS, len(place)) / 1000,
    )
    times = np.cumsum(interval)
    inside = times < config.duration_s
    return Train(times[inside], BURST_ATTENUATION ** place[inside], np.repeat(size > 1, size)[inside])


def _synchronise(train: Train, earlier: list[Train], config: SimulationConfig, rng: np.random.Generator) -> Train:
    """Move a share of the single spikes to within SYNCHRONY_MS of spikes of the earlier units, which stay.

    A spike whose new place would break the refractory period goes back to its old one.
    """
    targets = rng.permutation(np.concatenate([other.times_s for other in earlier]))
    single = rng.permutation(np.flatnonzero(~train.in_burst))
    chosen = single[: min(round(config.synchrony * len(train.times_s)), len(targets))]
    moved = train.times_s.copy()
    moved[chosen] = targets[: len(chosen)] + rng.uniform(-SYNCHRONY_MS, SYNCHRONY_MS, len(chosen)) / 1000
    is_moved = np.zeros(len(moved), bool)
    is_moved[chosen] = True
    while True:
        order = np.argsort(moved)
        close = np.flatnonzero(np.diff(moved[order]) < config.refractory_ms / 1000)
        back = np.unique(np.concatenate([order[close], order[close + 1]]))
        back = back[is_moved[back]]
        if not len(back):
            break
        moved[back], is_moved[back] = train.times_s[back], False
    return Train(moved[order], train.amplitudes[order], train.in_burst[order])
