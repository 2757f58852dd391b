"""A simulation as a generic HDF5 recording with its truth."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

from spikecrsae.errors import OutputError
from spikecrsae.files import write_atomic
from spikecrsae.simulate.generate import Simulation


def write_simulation(simulation: Simulation, path: str | Path, overwrite: bool = False) -> None:
    """Write generic HDF5: `traces` with sampling_frequency, units, gain and offset, `channel_positions`,
    `truth/<unit>/spike_samples`, and `intracellular` where there is one; the configuration as JSON.

    The file appears whole or not at all, and the same simulation gives the same bytes. Raises OutputError where it
    exists (unless overwrite) or cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists and is not overwritten; give --overwrite, or another name.")
    write_atomic(path, [_to_hdf5(simulation)])


def _to_hdf5(simulation: Simulation) -> memoryview:
    """The bytes of the file."""
    import h5py

    compressed = {"compression": "gzip", "compression_opts": 6, "shuffle": True}
    rate = simulation.sampling_frequency
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["simulation"] = json.dumps(asdict(simulation.config))
        traces = file.create_dataset("traces", data=simulation.traces, **compressed)
        traces.attrs.update(sampling_frequency=rate, units="uV", gain=simulation.gain, offset=simulation.offset)
        file["channel_positions"] = simulation.channel_positions
        for unit, train, snr in zip(
            simulation.truth.unit_ids, simulation.truth.trains().values(), simulation.truth.units["snr"], strict=True
        ):
            file[f"truth/{unit}/spike_samples"] = train
            file[f"truth/{unit}"].attrs["snr"] = snr
        if simulation.intracellular is not None:
            potential = file.create_dataset("intracellular", data=simulation.intracellular, **compressed)
            # The name of the unit in truth/, not one of measurement.
            potential.attrs.update(sampling_frequency=rate, units="mV", neuron=str(simulation.config.intracellular_unit))
    return buffer.getbuffer()
