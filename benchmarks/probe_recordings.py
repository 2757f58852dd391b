"""A dense probe with truth by SpikeInterface's generator, for scale.py: python probe_recordings.py OUT.h5 CHANNELS NEURONS SEED SECONDS.

Up to 32 channels stand in two columns 25 um apart, more in four columns 20 um apart. Neurons are at least 20 um apart and 8 to
45 um in front of the probe. The noise is white, 8 uV; 30 kHz; whole numbers of 0.1 uV. Runs in the environment of the other sorters.
"""

from __future__ import annotations

import sys

import h5py
import numpy as np
from probeinterface import generate_multi_columns_probe
from spikeinterface.core import generate_ground_truth_recording

SAMPLING_FREQUENCY, GAIN_UV, NOISE_UV = 30000.0, 0.1, 8.0
PLACES = {"margin_um": 10.0, "minimum_z": 8.0, "maximum_z": 45.0, "minimum_distance": 20.0}


def write(path: str, n_channels: int, n_neurons: int, seed: int, duration_s: float) -> None:
    columns, pitch = (2, 25) if n_channels <= 32 else (4, 20)
    probe = generate_multi_columns_probe(
        num_columns=columns,
        num_contact_per_column=n_channels // columns,
        xpitch=pitch,
        ypitch=pitch,
        contact_shapes="circle",
    )
    probe.set_device_channel_indices(np.arange(n_channels))
    recording, sorting = generate_ground_truth_recording(
        durations=[duration_s],
        sampling_frequency=SAMPLING_FREQUENCY,
        num_channels=n_channels,
        num_units=n_neurons,
        probe=probe,
        generate_unit_locations_kwargs=PLACES,
        noise_kwargs={"noise_levels": NOISE_UV, "strategy": "on_the_fly"},
        seed=seed,
    )
    stored = np.clip(np.rint(recording.get_traces() / GAIN_UV), -32767, 32767).astype(np.int16)
    with h5py.File(path, "w") as file:
        traces = file.create_dataset("traces", data=stored)
        traces.attrs.update(sampling_frequency=SAMPLING_FREQUENCY, units="uV", gain=GAIN_UV)
        file["channel_positions"] = probe.contact_positions
        for unit in sorting.unit_ids:
            file[f"truth/{unit}/spike_samples"] = sorting.get_unit_spike_train(unit).astype(np.int64)


if __name__ == "__main__":
    write(sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5]))
