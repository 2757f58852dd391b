"""The separated signal of every unit, h_c * x_c, written in pieces."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from spikecrsae.data.sorting import SortingData
from spikecrsae.progress import Observer
from spikecrsae.system.files import partial_name, writing


@dataclass(frozen=True)
class ComponentWriter:
    """Writes `components` (n_units, n_samples, n_channels), float32 in amplitude_unit, to an HDF5 file.

    The components of all units and what is left of the high-passed recording add up to the recording.
    """

    sorting: SortingData
    piece: int = 200_000

    def write(self, path: Path, observer: Observer) -> None:
        """Raises OutputError where the file cannot be written; nothing half-written stays under its name."""
        s = self.sorting
        observer.start("components", s.n_samples)
        partial = partial_name(path)
        with writing(path):
            try:
                partial.unlink(missing_ok=True)
                with h5py.File(partial, "x") as file:
                    chunks = (1, min(self.piece, s.n_samples), s.n_channels)
                    data = file.create_dataset(
                        "components", (s.n_units, s.n_samples, s.n_channels), np.float32,
                        chunks=chunks if s.n_units else None, compression="gzip" if s.n_units else None, shuffle=bool(s.n_units),
                    )  # fmt: skip
                    data.attrs.update(sampling_frequency=s.sampling_frequency, units=s.amplitude_unit)
                    for start in range(0, s.n_samples, self.piece):
                        stop = min(start + self.piece, s.n_samples)
                        for row, unit in enumerate(s.unit_ids):
                            data[row, start:stop] = s.reconstruction(start, stop, [unit])
                        observer.advance(stop - start)
                os.replace(partial, path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
        observer.finish()
