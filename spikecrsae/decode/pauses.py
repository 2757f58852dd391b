"""The pause of simple spikes after complex ones, as columns of the unit table."""

from __future__ import annotations

import numpy as np

from spikecrsae.crsae.complex_spikes import ComplexSpikes
from spikecrsae.curate.complex_spikes import BEFORE_MS, PAUSE_MS, pause_of
from spikecrsae.units import ms_to_samples


def pause_columns(
    complexes: tuple[ComplexSpikes, ...] | None,
    order: np.ndarray,
    numbers: np.ndarray,
    table: np.ndarray,
    sampling_frequency: float,
) -> dict[str, np.ndarray]:
    """The columns that link units of complex spikes with their simple ones, NaN for all others, of the units in `order` with
    these numbers. table: the spikes, by their place in `order`."""
    if complexes is None:
        return {}
    columns = {name: np.full(len(order), np.nan) for name in ("complex_of", "pause_ratio", "pause_p")}
    row = {int(unit): place for place, unit in enumerate(order)}
    pause, before = (ms_to_samples(ms, sampling_frequency) for ms in (PAUSE_MS, BEFORE_MS))
    for told in complexes:
        if told.simple in row and told.complex in row:
            simple, complex_ = row[told.simple], row[told.complex]
            first, second = (table["sample"][table["unit"] == one] for one in (simple, complex_))
            columns["complex_of"][complex_] = numbers[simple]
            columns["pause_ratio"][complex_], columns["pause_p"][complex_] = pause_of(first, second, pause, before)
    return columns
