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
    """One Block with a SpikeTrain per unit in each of its Segments, one for each file, in seconds on the file's own clock.

    Each train is annotated with its unit, every column of units.csv and spike_probability, an array (n_spikes,), which is an
    annotation because NeoMatlabIO drops array annotations. It has the sampling rate: where no signal is missing,
    (time - t_start) * rate, rounded, is the sample in the file.
    """
    import neo
    import quantities as pq

    block = neo.Block(name="spikecrsae", amplitude_unit=sorting.amplitude_unit)
    for index, (name, _, part) in enumerate(sorting.by_clock() or [("recording", 0, sorting)]):
        segment = neo.Segment(name=name, index=index)
        start, stop = part.timeline.intervals_s([0, part.n_samples])[0]
        for row, unit in enumerate(part.unit_ids):
            train = neo.SpikeTrain(
                part.times_s(part.spike_samples(unit)) * pq.s,
                t_start=start * pq.s,
                t_stop=stop * pq.s,
                sampling_rate=part.sampling_frequency * pq.Hz,
                name=f"unit {unit}",
                unit=int(unit),
            )
            train.annotate(spike_probability=part.spikes["probability"][part.spikes["unit"] == unit].astype(np.float64))
            train.annotations.update({name: np.asarray(values)[row].item() for name, values in part.units.items()})
            segment.spiketrains.append(train)
        block.segments.append(segment)
    return block
