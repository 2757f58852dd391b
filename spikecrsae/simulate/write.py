"""A simulation as a generic HDF5 recording with its truth."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path

from spikecrsae.errors import OutputError
from spikecrsae.simulate.generate import Simulation
from spikecrsae.system.files import write_atomic

#: Attribute of the file that holds the configuration; by it a simulation is known.
_MARK = "simulation"


def write_simulation(simulation: Simulation, path: str | Path, overwrite: bool = False) -> None:
    """Write generic HDF5: `traces` with sampling_frequency, units, gain and offset, `channel_positions`,
    `truth/<unit>/spike_samples`, and `intracellular` where there is one; the configuration as JSON.

    The file appears whole or not at all, and the same simulation gives the same bytes. Raises OutputError as check_place does,
    and where it cannot be written.
    """
    path = Path(path)
    check_place(path, overwrite)
    write_atomic(path, [_to_hdf5(simulation)])


def check_place(path: Path, overwrite: bool = False) -> None:
    """Raise OutputError where a simulation may not be written to `path`: its folder is missing, or something is there; with
    overwrite, where that is no simulation, as a recording that nobody could make again."""
    if not path.parent.is_dir():
        found = "is not a folder" if path.parent.exists() else "does not exist"
        raise OutputError(f"{path.parent} {found}; create that folder, or give another name.")
    if not path.exists():
        return
    if not overwrite:
        raise OutputError(f"{path} exists and is not overwritten; give --overwrite, or another name.")
    if not _is_simulation(path):
        raise OutputError(f"{path} was not written by simulate and is not overwritten; move it away, or give another name.")


def _is_simulation(path: Path) -> bool:
    import h5py

    if not (path.is_file() and h5py.is_hdf5(path)):
        return False
    try:
        with h5py.File(path) as file:
            return _MARK in file.attrs
    except OSError:
        return False


def _to_hdf5(simulation: Simulation) -> bytes:
    """The bytes of the file."""
    import h5py

    compressed = {"compression": "gzip", "compression_opts": 6, "shuffle": True}
    rate = simulation.sampling_frequency
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs[_MARK] = json.dumps(asdict(simulation.config))
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
    return buffer.getvalue()
