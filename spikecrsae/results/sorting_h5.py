"""sorting.h5: a Sorting as one HDF5 file, and back without loss."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from spikecrsae.data.sorting import LARGEST_UNIT, SPIKE_DTYPE, SortingData
from spikecrsae.errors import InputError
from spikecrsae.system.array_layout import check_array, check_range
from spikecrsae.system.safe_hdf5 import attribute, open_hdf5, read_guarded, whole

FORMAT_VERSION = 1
_ATTRIBUTES = ("sampling_frequency", "n_samples", "n_channels", "amplitude_unit", "start_time_s")
_ARRAYS = ("templates", "templates_whitened", "templates_std", "peak_index")
_TABLES = ("units", "channels", "model")
#: Kind and sizes of the arrays: u units, c channels, t and w samples of a template, n and m anything (see layout.check_array).
_LAYOUT = {
    "unit_ids": ("iu", "u"),
    "templates": ("f", "uct"),
    "templates_std": ("f", "uct"),
    "templates_whitened": ("f", "ucw"),
    "peak_index": ("iu", "u"),
    "excluded": ("iu", "n2"),
    "example": ("f", "mc"),
}
#: These may be empty: not every sorting that is written by this program has templates.
_OPTIONAL = ("templates", "templates_std", "templates_whitened", "peak_index", "example")
#: A float64 holds no larger sample exactly.
_MOST_SAMPLES = 2**53
_TEXT = h5py.string_dtype()
#: units and further keys of a decision as JSON text, because HDF5 tables have no lists.
_CURATION_DTYPE = np.dtype(
    [("decision", _TEXT), ("units", _TEXT), ("statistic", np.float64), ("level", np.float64), ("detail", _TEXT)]
)


def sorting_to_hdf5(sorting: SortingData, provenance: str) -> bytes:
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
        for name, columns in {"files": sorting.files, "noise_over_time": sorting.noise_over_time}.items():
            if columns:
                _write_table(file.create_group(name, track_order=True), columns)
        file["excluded"] = sorting.excluded
        file["example"] = sorting.example
        file["example"].attrs["start_sample"] = sorting.example_start
        file["curation"] = _curation_rows(sorting.curation)
        file["provenance"] = provenance
    return buffer.getvalue()


def _write_table(group: h5py.Group, columns: Mapping[str, np.ndarray]) -> None:
    for name, values in columns.items():
        if "/" in name:
            raise InputError(f"column {name!r} of {group.name} contains '/', which separates levels in HDF5; rename it.")
        values = np.asarray(values)
        group.create_dataset(name, data=values.astype(object) if values.dtype.kind == "U" else values, dtype=_dtype(values))


def _dtype(values: np.ndarray) -> np.dtype:
    return _TEXT if values.dtype.kind in "UO" else values.dtype


def _curation_rows(curation: tuple[dict, ...]) -> np.ndarray:
    rows = np.empty(len(curation), _CURATION_DTYPE)
    for k, row in enumerate(curation):
        rest = {name: value for name, value in row.items() if name not in (_CURATION_DTYPE.names or ())}
        numbers = [np.nan if row.get(name) is None else row[name] for name in ("statistic", "level")]
        units = json.dumps([int(unit) for unit in row.get("units", ())])
        rows[k] = (row.get("decision", ""), units, *numbers, json.dumps(rest, ensure_ascii=False))
    return rows


def sorting_from_hdf5(path: str | Path) -> tuple[SortingData, str]:
    """The sorting in a sorting.h5, and its provenance (run.json as text).

    Raises InputError where the file is no sorting.h5, its format_version is unknown, or it is damaged.
    """
    try:
        return read_guarded(Path(path), lambda: _open_and_read(Path(path)))
    except InputError as error:
        raise InputError(f"{path} cannot be read as a sorting: {error}") from error
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError, OverflowError) as error:
        raise InputError(
            f"{path} cannot be read as a sorting: it is no sorting.h5, or damaged ({error}); sort the recording again."
        ) from error


def _open_and_read(path: Path) -> tuple[SortingData, str]:
    with open_hdf5(path) as file:
        version = attribute(file, "format_version")
        if version is None:
            raise InputError("it is HDF5, but no sorting of spikecrsae (no format_version); give a result folder.")
        if version != FORMAT_VERSION:
            raise InputError(f"it has format_version {version}, this program reads {FORMAT_VERSION}; update spikecrsae.")
        return _read(file), whole(file["provenance"]).decode()


def _read(file: h5py.File) -> SortingData:
    attributes = {name: attribute(file, name) for name in _ATTRIBUTES}
    # results of earlier versions hold no example
    example = (
        {"example": whole(file["example"]), "example_start": int(file["example"].attrs["start_sample"])}
        if "example" in file
        else {}
    )
    tables = [*(file[table] for table in _TABLES), file.get("files", {}), file.get("noise_over_time", {})]
    units, channels, model, files, noise = ({name: _column(values) for name, values in table.items()} for table in tables)
    sorting = SortingData(
        spikes=_spikes(whole(file["spikes"])),
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
        noise_over_time=noise,
        excluded=whole(file["excluded"]),
        curation=tuple(_curation_row(row) for row in whole(file["curation"])),
        **{name: whole(file[name]) for name in _ARRAYS},
        **example,
    )
    _check(sorting)
    return sorting


def _spikes(stored: np.ndarray) -> np.ndarray:
    """The spike table; results of earlier versions hold no probability, which is NaN then. Raises ValueError for another type."""
    names = [name for name in SPIKE_DTYPE.names or () if name != "probability"]
    if stored.ndim != 1 or stored.dtype not in (SPIKE_DTYPE, np.dtype([(name, SPIKE_DTYPE[name]) for name in names])):
        raise ValueError(f"spikes has the type {stored.dtype} and the shape {stored.shape}")
    if stored.dtype == SPIKE_DTYPE:
        return stored
    spikes = np.zeros(len(stored), SPIKE_DTYPE)
    spikes["probability"] = np.nan
    for name in names:
        spikes[name] = stored[name]
    return spikes


def _check(sorting: SortingData) -> None:
    """Raise ValueError, naming it, for an array of another kind or size than it must have, numbers that are not finite, and
    indices of what is not there."""
    numbers = np.array([sorting.sampling_frequency, sorting.start_time_s])
    check_array(numbers, "f", "2", "sampling_frequency or start_time_s", {})
    if sorting.sampling_frequency <= 0:
        raise ValueError(f"sampling_frequency is {sorting.sampling_frequency}, and must be above 0")
    check_range(np.array(sorting.n_samples), 0, _MOST_SAMPLES, "n_samples")
    sizes = {"c": sorting.n_channels}
    for name, (kind, wanted) in _LAYOUT.items():
        values = getattr(sorting, name)
        if np.size(values) or name not in _OPTIONAL:
            check_array(values, kind, wanted, name, sizes)
    if len(np.unique(sorting.unit_ids)) != sorting.n_units:
        raise ValueError("units/unit names a unit twice")
    if len(sorting.templates) != len(sorting.peak_index):
        raise ValueError(f"peak_index has {len(sorting.peak_index)} values for {len(sorting.templates)} templates")
    check_range(sorting.unit_ids, 0, LARGEST_UNIT, "units/unit")
    check_range(sorting.peak_index, 0, sorting.templates.shape[-1] - 1, "peak_index")
    check_range(sorting.excluded, 0, sorting.n_samples, "excluded")
    for name in ("amplitude", "shift"):
        check_array(sorting.spikes[name], "f", "s", f"spikes/{name}", {})
    if "peak_channel" in sorting.units:
        check_array(sorting.units["peak_channel"], "iu", "u", "units/peak_channel", sizes)
        check_range(sorting.units["peak_channel"], 0, sorting.n_channels - 1, "units/peak_channel")
    for table, n in ("units", sorting.n_units), ("channels", sorting.n_channels):
        for name, column in getattr(sorting, table).items():
            if len(column) != n:
                raise ValueError(f"{table}/{name} has {len(column)} values for {n} {table}")


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
