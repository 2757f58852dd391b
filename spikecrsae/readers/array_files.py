"""Arrays in files of their own: NumPy's .npy and MountainSort's .mda."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from spikecrsae.data.recording import Recording
from spikecrsae.errors import InputError
from spikecrsae.readers.assemble import Found, assemble
from spikecrsae.readers.binary import raw_rows
from spikecrsae.readers.hdf5 import WHY_NO_SNIPPETS, time_axis
from spikecrsae.readers.read_options import ReadOptions
from spikecrsae.system.text import read_text

#: Type of a .mda by its code.
_MDA_TYPES = {-2: "u1", -3: "<f4", -4: "<i2", -5: "<i4", -6: "<u2", -7: "<f8", -8: "<u4"}
_MOST_FACTS_MB = 16


def read_npy(path: Path, options: ReadOptions) -> Recording:
    """A Recording over the array in a .npy file, (n_samples, n_channels) or its transpose; it says neither rate nor scale.

    Raises InputError where the file is damaged, or holds something else.
    """
    options.refuse_others(path, "a NumPy file", ("axis",))
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(
            f"{path} cannot be read as an array of numbers ({error}); the file is damaged, or holds objects."
        ) from error
    if array.size == 0:
        raise InputError(f"{path} holds no sample: its shape is {array.shape}. Give a file with samples.")
    if array.ndim not in (1, 2):
        raise InputError(f"{path} has shape {array.shape}; traces have two axes. If these are waveforms: {WHY_NO_SNIPPETS}.")
    axis, notes = time_axis(array.shape, options.axis, path.name)
    array = array[:, None] if array.ndim == 1 else array if axis == 0 else array.T
    n_samples, n_channels = array.shape
    is_interleaved = array.flags.c_contiguous
    found = Found(
        path=path,
        format="NumPy",
        read=raw_rows(path, array.dtype, n_channels, array.offset)
        if is_interleaved
        else lambda start, stop: array[start:stop],
        n_samples=n_samples,
        n_channels=n_channels,
        dtype=array.dtype,
        unit="ADC",
        sampling_frequency=None,
        notes=notes,
    )
    return assemble(found, options)


def read_mda(path: Path, options: ReadOptions) -> Recording:
    """A Recording over a .mda (n_channels, n_samples), or over the raw.mda of a folder, with the rate in params.json and the
    positions in geom.csv beside it.

    Raises InputError where the header does not fit the file, or it holds no traces.
    """
    options.refuse_others(path, "a .mda file", ())
    file = path / "raw.mda" if path.is_dir() else path
    if file.stem.startswith("firings"):
        raise InputError(f"{path} is a sorting of MountainSort, not a recording; give the raw.mda that was sorted.")
    dtype, shape, offset = _mda_header(file)
    if len(shape) != 2:
        raise InputError(f"{path} has shape {shape}; traces have two axes. If these are waveforms: {WHY_NO_SNIPPETS}.")
    n_channels, n_samples = shape
    if file.stat().st_size != offset + n_channels * n_samples * dtype.itemsize:
        raise InputError(
            f"{path}: its header says {shape} {dtype}, and {file.name} has {file.stat().st_size} bytes; it is cut off. Copy it again."
        )
    rate, positions = _beside(file)
    found = Found(
        path=path,
        format="MountainSort",
        read=raw_rows(file, dtype, n_channels, offset),
        n_samples=n_samples,
        n_channels=n_channels,
        dtype=dtype,
        unit="ADC",
        sampling_frequency=rate,
        positions=positions if positions is not None and len(positions) == n_channels else None,
        companions=[file],
    )
    return assemble(found, options)


def _mda_header(file: Path) -> tuple[np.dtype, tuple[int, ...], int]:
    """(type, shape, bytes of the header): code, bytes of an entry, number of axes (negative: lengths have 64 bits), lengths."""
    code, _, axes = (int(value) for value in np.resize(np.fromfile(file, "<i4", 3), 3))
    if code not in _MDA_TYPES or not 1 <= abs(axes) <= 6:
        raise InputError(
            f"{file}: no .mda of real numbers (type {code}, {axes} axes); it is damaged or another format; use another copy."
        )
    shape = np.fromfile(file, "<i8" if axes < 0 else "<i4", abs(axes), offset=12)
    return np.dtype(_MDA_TYPES[code]), tuple(map(int, shape)), 12 + shape.nbytes


def _beside(file: Path) -> tuple[float | None, np.ndarray | None]:
    """Rate and positions that stand beside a .mda."""
    facts, places = file.with_name("params.json"), file.with_name("geom.csv")
    rate = json.loads(read_text(facts, _MOST_FACTS_MB)).get("samplerate") if facts.is_file() else None
    positions = np.loadtxt(places, delimiter=",", ndmin=2) if places.is_file() else None
    return None if rate is None else float(rate), positions
