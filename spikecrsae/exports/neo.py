"""A neo Block of SpikeTrains, in the file that neo's NeoMatlabIO reads and writes (pickles are not trusted)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from spikecrsae.data.sorting import SortingData

if TYPE_CHECKING:
    import neo


def neo_file(sorting: SortingData) -> bytes:
    """The bytes of a .mat file with the Block of neo_block."""
    from neo import NeoMatlabIO

    file = io.BytesIO()
    NeoMatlabIO(file).write_block(neo_block(sorting))
    return file.getvalue()


def neo_block(sorting: SortingData) -> neo.Block:
    """One Block with one Segment and a SpikeTrain per unit, in seconds on the file's own clock.

    Each train is annotated with its unit and every column of units.csv, and has the sampling rate: (time - t_start) * rate,
    rounded, is the sample.
    """
    import neo
    import quantities as pq

    fs, start = sorting.sampling_frequency, sorting.start_time_s
    block = neo.Block(name="spikecrsae", amplitude_unit=sorting.amplitude_unit)
    segment = neo.Segment(name="recording", index=0)
    for row, unit in enumerate(sorting.unit_ids):
        train = neo.SpikeTrain(
            sorting.times_s(sorting.spike_samples(unit)) * pq.s,
            t_start=start * pq.s,
            t_stop=(start + sorting.duration_s) * pq.s,
            sampling_rate=fs * pq.Hz,
            name=f"unit {unit}",
            unit=int(unit),
        )
        train.annotations.update({name: np.asarray(values)[row].item() for name, values in sorting.units.items()})
        segment.spiketrains.append(train)
    block.segments.append(segment)
    return block
