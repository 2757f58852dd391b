"""MATLAB files with the names that wave_clus, UltraMegaSort and Quiroga's simulations use: `data` with `sr`, `Fs` or
`samplingInterval`; and any other file with one matrix that can be traces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from spikecrsae.data.recording import Recording, joined
from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers.assemble import Found, assemble
from spikecrsae.readers.hdf5 import (
    POSITION_NAMES,
    RATE_NAMES,
    UNIT_NAMES,
    WHY_NO_SNIPPETS,
    factor,
    looks_cut_out,
    number,
    recording_of_file,
    slicer,
    time_axis,
    unwritten,
)
from spikecrsae.readers.read_options import ReadOptions
from spikecrsae.system.safe_hdf5 import attribute, items_of, whole

_TRACES = ("data", "traces")
_RATES = (*RATE_NAMES, "srate", "samplerate")
_INTERVALS = ("samplinginterval", "sampling_interval")
#: Numbers of spikes, not of samples.
_NO_TRACES = ("time", "index", "class", "cluster", "stamp", *POSITION_NAMES)
#: Elements that traces have at least, and a fact at most, along their longer side.
_LEAST, _MOST_FACT = 100, 10_000
#: A file may declare so many times its size: deflate packs a constant to 1/1000.
_EXPANSION, _SMALL_BYTES = 500, 256 * 2**20
_WIDTHS = {"double": 8, "int64": 8, "uint64": 8, "single": 4, "int32": 4, "uint32": 4, "int16": 2, "uint16": 2}

#: Path of a variable, fields of a struct after a slash -> its array, dataset, text, or list of a cell's matrices.
Variables = Mapping[str, Any]


def is_matlab_hdf5(file: h5py.File, path: Path) -> bool:
    """Whether the file is of MATLAB 7.3, which says the class of every variable; a program that writes like it may not."""
    return (path.suffix.lower() == ".mat" and "traces" not in file) or any(
        "MATLAB_class" in file[name].attrs for name in file if file.get(name) is not None
    )


def read_matlab(path: Path, options: ReadOptions) -> Recording:
    """A Recording over the traces in a MATLAB file before version 7.3, which is loaded into memory as a whole.

    A cell of matrices, as UltraMegaSort has trials, is a recording of as many parts. Raises InputError where there are no traces,
    UsageError where several may be.
    """
    variables, size = loaded_variables(path)
    note = f"loaded into memory ({size / 1e6:.3g} MB), as MATLAB files before version 7.3 have to be"
    return _recording(variables, path, options, (note,))


def loaded_variables(path: Path) -> tuple[Variables, float]:
    """The variables of a MATLAB file before version 7.3, and their bytes. Raises InputError where it cannot be read."""
    import scipy.io

    try:
        declared = scipy.io.whosmat(path)
    except (ValueError, OSError, TypeError, NotImplementedError) as error:
        raise InputError(
            f"{path} cannot be read as a MATLAB file ({error}); it is damaged or another format; use another copy."
        ) from error
    size = sum(int(np.prod(shape, dtype=np.float64)) * _WIDTHS.get(kind, 1) for _, shape, kind in declared)
    if size > max(_SMALL_BYTES, _EXPANSION * path.stat().st_size):
        raise InputError(
            f"{path} declares {size / 1e6:.4g} MB and has {path.stat().st_size / 1e6:.3g}; the file is damaged. Save it again."
        )
    loaded = scipy.io.loadmat(path, simplify_cells=True)
    variables = dict(_flat({name: value for name, value in loaded.items() if not name.startswith("__")}))
    arrays = [one for value in variables.values() for one in (value if isinstance(value, list) else [value])]
    size = sum(one.nbytes for one in arrays if isinstance(one, np.ndarray))
    return variables, size


def read_matlab_hdf5(path: Path, options: ReadOptions) -> Recording:
    """The same of a MATLAB 7.3 file, which is HDF5 and is read when asked for."""

    def make(file: h5py.File) -> Recording:
        return replace(_recording(stored_variables(file), path, options, ()), close=file.close)

    return recording_of_file(path, make)


def stored_variables(file: h5py.File) -> Variables:
    """The variables of a MATLAB 7.3 file, its matrices as datasets, transposed."""
    variables: dict[str, Any] = {}
    for item in items_of(file):
        kind = attribute(item, "MATLAB_class", b"")
        if not isinstance(item, h5py.Dataset) or item.name.startswith("/#refs#") or "MATLAB_empty" in item.attrs:
            continue
        name = item.name.lstrip("/")
        if kind == b"char":
            variables[name] = "".join(map(chr, whole(item).ravel())) if item.size <= _MOST_FACT else ""
        elif kind == b"cell":
            variables[name] = [file[reference] for reference in whole(item).ravel()] if item.size <= _MOST_FACT else []
        else:
            variables[name] = item
    return variables


def _flat(values: Mapping[str, Any], prefix: str = "") -> Any:
    """(path, value) of variables and fields of structs; a cell is a list."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        elif isinstance(value, np.ndarray) and value.dtype == object:
            yield prefix + name, list(value.ravel())
        else:
            yield prefix + name, value


def _recording(variables: Variables, path: Path, options: ReadOptions, notes: tuple[str, ...]) -> Recording:
    options.refuse_others(path, "a MATLAB file", ("dataset", "axis"))
    name = _choose(variables, path, options.dataset)
    value = variables[name]
    parts = value if isinstance(value, list) else [value]
    if any(not _is_numbers(part) for part in parts):
        raise InputError(f"{path}: {name} is not a matrix of numbers; name another with --dataset: {listing(variables)}.")
    if any(part.ndim > 2 for part in parts):
        raise InputError(
            f"{path}: {name} has shape {parts[0].shape}; traces have two axes. If these are waveforms: {WHY_NO_SNIPPETS}."
        )
    place = name.rpartition("/")[0]
    rate, remark = stored_rate(variables, place)
    unit = next((v for n in UNIT_NAMES if isinstance(v := _fact(variables, place, (n,)), str)), "ADC")
    gain, offset = (_factor(variables, place, n, default, path) for n, default in (("gain", 1.0), ("offset", 0.0)))
    positions = _fact(variables, place, POSITION_NAMES)
    whole_options = options if len(parts) == 1 else replace(options, start_s=None, stop_s=None)
    recordings, time = [], 0.0
    for part in parts:
        axis, turned = time_axis(part.shape, options.axis, name)
        n_samples, n_channels = (part.shape[0], 1) if part.ndim == 1 else (part.shape[axis], part.shape[1 - axis])
        gaps = unwritten(part, path) if isinstance(part, h5py.Dataset) else ()
        found = Found(
            path=path,
            format="MATLAB",
            read=slicer(part, axis),
            n_samples=n_samples,
            n_channels=n_channels,
            dtype=part.dtype,
            unit=unit,
            sampling_frequency=rate,
            gain=gain if unit != "ADC" else 1.0,
            offset=offset if unit != "ADC" else 0.0,
            positions=_oriented(positions, n_channels),
            start_time_s=time,
            notes=(*notes, *turned, *remark, *gaps),
        )
        recordings.append(assemble(found, whole_options))
        time += n_samples / recordings[-1].sampling_frequency
    if len(parts) == 1:
        return recordings[0]
    return joined(recordings, [f"{name} {k + 1}" for k in range(len(parts))]).between(options.start_s, options.stop_s)


def _factor(variables: Variables, place: str, name: str, default: float, path: Path) -> float | np.ndarray:
    """gain or offset, see hdf5.factor; MATLAB knows no number and no row without two axes."""
    value = _fact(variables, place, (name,))
    if (one := number(value)) is not None:
        value = one
    elif isinstance(value, np.ndarray):
        value = np.squeeze(value)
    return factor({name: value}, name, default, path)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, np.ndarray | h5py.Dataset) and value.dtype.kind in "iufc" and value.ndim > 0


def _longest(value: Any) -> int:
    parts = value if isinstance(value, list) else [value]
    return max((max(part.shape, default=0) for part in parts if _is_numbers(part)), default=0)


def _choose(variables: Variables, path: Path, wanted: str | None) -> str:
    """The variable asked for, the one with a name of traces, or the only matrix that can be traces."""
    if wanted is not None:
        if wanted.strip("/") not in variables:
            raise UsageError(f"{path} has no variable {wanted}; it has {listing(variables)}.")
        return wanted.strip("/")
    long = [name for name, value in variables.items() if _longest(value) >= _LEAST]
    for known in _TRACES:
        if named := [name for name in long if name.rpartition("/")[2].lower() == known]:
            long = named
            break
    else:
        if snippets := [name for name in long if looks_cut_out(name) and getattr(variables[name], "ndim", 1) > 1]:
            raise InputError(
                f"{path} holds only detected waveforms ({', '.join(snippets)}) and no recording: {WHY_NO_SNIPPETS}. If another variable is "
                "the recording, name it with --dataset."
            )
        long = [name for name in long if not any(word in name.lower() for word in _NO_TRACES) and not looks_cut_out(name)]
    if len(long) == 1:
        return long[0]
    if long:
        raise UsageError(
            f"{path} holds several matrices that may be the traces: {', '.join(long)}; choose one with --dataset."
        )
    raise InputError(
        f"{path} holds no traces, a matrix (n_samples, n_channels) such as `data`; it has {listing(variables)}. Name one with --dataset if it holds them."
    )


def listing(variables: Variables) -> str:
    shown = [f"{name} {getattr(value, 'shape', '')}".strip() for name, value in variables.items()]
    return ", ".join(shown[:12]) + (f" and {len(shown) - 12} more" if len(shown) > 12 else "") or "no variable at all"


def _fact(variables: Variables, place: str, names: tuple[str, ...]) -> Any:
    """The fact of one of these names: beside the traces, else in the root, else the only one there is anywhere."""
    known: dict[str, list[tuple[str, Any]]] = {}
    for path, value in variables.items():
        folder, _, name = path.rpartition("/")
        if name.lower() in names:
            known.setdefault(folder, []).append((name, value))
    for folder in (place, "", *(known if len(known) == 1 else ())):
        if folder in known:
            value = known[folder][0][1]
            return whole(value) if isinstance(value, h5py.Dataset) and value.size <= _MOST_FACT else value
    return None


def stored_rate(variables: Variables, place: str) -> tuple[float | None, tuple[str, ...]]:
    """Sampling frequency in Hz, and a remark where it comes from an interval: wave_clus and Quiroga's simulations have it in
    ms. A rate between 1 kHz and 1 MHz has an interval of that size in one unit only."""
    if (rate := number(_fact(variables, place, _RATES))) is not None:
        return rate, ()
    interval = number(_fact(variables, place, _INTERVALS))
    if interval is None or not 1e-6 <= interval <= 1e3:
        return None, ()
    per_second, unit = (1.0, "s") if interval <= 1e-3 else (1e3, "ms") if interval <= 1.0 else (1e6, "us")
    return per_second / interval, (f"{per_second / interval:.10g} Hz, from the sampling interval of {interval:.6g} {unit}",)


def _oriented(positions: Any, n_channels: int) -> np.ndarray | None:
    """Positions (n_channels, 2 or 3), of which version 7.3 has the transpose; None where they are of other channels."""
    points = np.asarray(positions)
    if points.ndim != 2 or points.dtype.kind not in "iuf":
        return None
    points = points if len(points) == n_channels else points.T
    return points if len(points) == n_channels else None
