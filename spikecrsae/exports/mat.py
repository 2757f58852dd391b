"""A MATLAB file (version 5, which MATLAB since 5.0, Octave and scipy read) with plain arrays."""

from __future__ import annotations

import io
import re

import numpy as np

from spikecrsae.data.sorting import SortingData


def mat_file(sorting: SortingData, provenance: str) -> bytes:
    """The bytes of the .mat file; docs/formats.md lists its variables. Samples and indices count from 0, as everywhere here.

    provenance is run.json as text.
    """
    from scipy.io import savemat

    spikes = sorting.spikes
    variables = {
        "format_version": 1,
        "sampling_frequency": sorting.sampling_frequency,
        "n_samples": float(sorting.n_samples),
        "n_channels": float(sorting.n_channels),
        "start_time_s": sorting.start_time_s,
        "amplitude_unit": sorting.amplitude_unit,
        "sample": spikes["sample"],
        "time_s": sorting.times_s(spikes["sample"]),
        "unit": spikes["unit"],
        "amplitude": spikes["amplitude"],
        "shift": spikes["shift"],
        "probability": spikes["probability"],
        "units": _struct({"unit": sorting.unit_ids, **sorting.units}),
        "channels": _struct(sorting.channels),
        "model": _struct(sorting.model),
        "templates": sorting.templates,
        "templates_std": sorting.templates_std,
        "templates_whitened": sorting.templates_whitened,
        "peak_index": sorting.peak_index,
        "excluded": sorting.excluded,
        "provenance": provenance,
    }
    if sorting.files:
        variables["file"], variables["file_time_s"] = sorting.in_files(spikes["sample"])
        variables["files"] = _struct(sorting.files)
    file = io.BytesIO()
    savemat(file, variables, format="5", long_field_names=True, do_compression=True, oned_as="column")
    return file.getvalue()


def _struct(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns as fields of a struct: text as a cell array, names as MATLAB allows them."""
    names = [re.sub(r"\W", "_", name, flags=re.ASCII) for name in columns]
    values = [np.asarray(column) for column in columns.values()]
    values = [value.astype(object) if value.dtype.kind == "U" else value for value in values]
    return {name if name[0].isalpha() else f"x{name}": value for name, value in zip(names, values, strict=True)}
