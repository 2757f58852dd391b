"""A simulation as a generic HDF5 recording with its truth."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

from spikecrsae.errors import OutputError
from spikecrsae.simulate.generate import Simulation


def write_simulation(simulation: Simulation, path: str | Path, overwrite: bool = False) -> None:
    """Write generic HDF5: `traces` with sampling_frequency, units, gain and offset, `channel_positions`,
    `truth/<unit>/spike_samples`, and `intracellular` where there is one.

    The file appears complete or not at all. Raises OutputError where it exists (unless overwrite) or cannot be written.
    """
    import h5py

    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already; give another name or allow it to be overwritten.")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    compressed = {"compression": "gzip", "compression_opts": 6, "shuffle": True}
    try:
        with h5py.File(temporary, "w") as file:
            traces = file.create_dataset("traces", data=simulation.traces, **compressed)
            traces.attrs.update(
                sampling_frequency=simulation.sampling_frequency, units="uV", gain=simulation.gain, offset=simulation.offset
            )
            file["channel_positions"] = simulation.channel_positions
            file.attrs["simulation"] = json.dumps(asdict(simulation.config))
            for name, train in simulation.truth.trains().items():
                file[f"truth/{name}/spike_samples"] = train
                file[f"truth/{name}"].attrs["snr"] = simulation.truth.units["snr"][int(name)]
            if simulation.intracellular is not None:
                potential = file.create_dataset("intracellular", data=simulation.intracellular, **compressed)
                potential.attrs.update(
                    sampling_frequency=simulation.sampling_frequency,
                    units="mV",
                    unit=str(simulation.config.intracellular_unit),
                )
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{path} cannot be written ({reason}); give a path in a writable folder with space.") from error
    finally:
        temporary.unlink(missing_ok=True)
