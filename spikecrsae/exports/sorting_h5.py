"""sorting.h5: a Sorting as one HDF5 file, and back without loss."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from spikecrsae.errors import InputError
from spikecrsae.sorting import SPIKE_DTYPE, Sorting
from spikecrsae.untrusted import attribute, open_hdf5, whole

FORMAT_VERSION = 1
_ATTRIBUTES = ("sampling_frequency", "n_samples", "n_channels", "amplitude_unit", "start_time_s")
_ARRAYS = ("templates", "templates_whitened", "templates_std", "peak_index")
_TABLES = ("units", "channels", "model")
_TEXT = h5py.string_dtype()
#: units and further keys of a decision as JSON text, because HDF5 tables have no lists.
_CURATION_DTYPE = np.dtype(
    [("decision", _TEXT), ("units", _TEXT), ("statistic", np.float64), ("level", np.float64), ("detail", _TEXT)]
)


def sorting_to_hdf5(sorting: Sorting, provenance: str) -> memoryview:
    """The bytes of sorting.h5; provenance is run.json as text. The same sorting gives the same bytes."""
    # In memory first: a full disk then meets a plain write, not the middle of the HDF5 library.
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", track_order=True) as file:
        file.attrs["format_version"] = FORMAT_VERSION
        for name in _ATTRIBUTES:
            file.attrs[name] = getattr(sorting, name)
        file["spikes"] = sorting.spikes
        for name in _ARRAYS:
            file[name] = getattr(sorting, name)
        tables = {"units": {"unit": sorting.unit_ids, **sorting.units}, "channels": sorting.channels, "model": sorting.model}
        for name, columns in tables.items():
            _write_table(file.create_group(name, track_order=True), columns)
        if sorting.files:
            _write_table(file.create_group("files", track_order=True), sorting.files)
        file["excluded"] = sorting.excluded
        file["example"] = sorting.example
        file["example"].attrs["start_sample"] = sorting.example_start
        file["curation"] = _curation_rows(sorting.curation)
        file["provenance"] = provenance
    return buffer.getbuffer()


def _write_table(group: h5py.Group, columns: Mapping[str, np.ndarray]) -> None:
    for name, values in columns.items():
        if "/" in name:
            raise InputError(f"column {name!r} of {group.name} contains '/', which separates levels in HDF5; rename it.")
        values = np.asarray(values)
        group.create_dataset(name, data=values.astype(object) if values.dtype.kind == "U" else values, dtype=_dtype(values))


def _dtype(values: np.ndarray):
    return _TEXT if values.dtype.kind in "UO" else values.dtype


def _curation_rows(curation: tuple[dict, ...]) -> np.ndarray:
    rows = np.empty(len(curation), _CURATION_DTYPE)
    for k, row in enumerate(curation):
        rest = {name: value for name, value in row.items() if name not in _CURATION_DTYPE.names}
        numbers = [np.nan if row.get(name) is None else row[name] for name in ("statistic", "level")]
        units = json.dumps([int(unit) for unit in row.get("units", ())])
        rows[k] = (row.get("decision", ""), units, *numbers, json.dumps(rest, ensure_ascii=False))
    return rows


def sorting_from_hdf5(path: str | Path) -> tuple[Sorting, str]:
    """The sorting in a sorting.h5, and its provenance (run.json as text).

    Raises InputError where the file is no sorting.h5, its format_version is unknown, or it is damaged.
    """
    try:
        with open_hdf5(Path(path)) as file:
            version = attribute(file, "format_version")
            if version is None:
                raise InputError("it is HDF5, but no sorting of spikecrsae (no format_version); give a result folder.")
            if version != FORMAT_VERSION:
                raise InputError(f"it has format_version {version}, this program reads {FORMAT_VERSION}; update spikecrsae.")
            return _read(file), whole(file["provenance"]).decode()
    except InputError as error:
        raise InputError(f"{path} cannot be read as a sorting: {error}") from error
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError) as error:
        raise InputError(f"{path} cannot be read as a sorting: it is no sorting.h5, or damaged ({error}).") from error


def _read(file: h5py.File) -> Sorting:
    attributes = {name: attribute(file, name) for name in _ATTRIBUTES}
    # results of earlier versions hold no example
    example = (
        {"example": whole(file["example"]), "example_start": int(file["example"].attrs["start_sample"])}
        if "example" in file
        else {}
    )
    tables = [*(file[table] for table in _TABLES), file.get("files", {})]
    units, channels, model, files = ({name: _column(values) for name, values in table.items()} for table in tables)
    return Sorting(
        spikes=whole(file["spikes"]).astype(SPIKE_DTYPE),
        unit_ids=units.pop("unit"),
        sampling_frequency=float(attributes["sampling_frequency"]),
        n_samples=int(attributes["n_samples"]),
        n_channels=int(attributes["n_channels"]),
        amplitude_unit=str(attributes["amplitude_unit"]),
        start_time_s=float(attributes["start_time_s"]),
        units=units,
        channels=channels,
        model=model,
        files=files,
        excluded=whole(file["excluded"]),
        curation=tuple(_curation_row(row) for row in whole(file["curation"])),
        **{name: whole(file[name]) for name in _ARRAYS},
        **example,
    )


def _column(values: h5py.Dataset) -> np.ndarray:
    column = np.asarray(whole(values))
    if h5py.check_string_dtype(values.dtype):
        return np.array([text.decode() for text in column.reshape(-1).tolist()], dtype=str).reshape(column.shape)
    return column


def _curation_row(row: np.void) -> dict:
    """A decision as it was written: unit ids as a list, a statistic or level that was not given as None."""
    number = {name: None if np.isnan(row[name]) else float(row[name]) for name in ("statistic", "level")}
    return {
        "decision": row["decision"].decode(),
        "units": json.loads(row["units"]),
        **number,
        **json.loads(row["detail"]),
    }
