"""Generic HDF5: one dataset of traces, with its facts as attributes. Also the helpers of the other HDF5 formats."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from spikecrsae.data.recording import Recording
from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers.assemble import Found, assemble, one_line
from spikecrsae.readers.neural import LOWEST_RATE
from spikecrsae.readers.read_options import ReadOptions
from spikecrsae.system.safe_hdf5 import attribute, check_traces, items_of, open_hdf5, whole

_NUMBER = re.compile(r"[-+]?\d+(\.\d*)?([eE][-+]?\d+)?")
RATE_NAMES = ("sampling_frequency", "sampling_rate", "samplingrate", "sample_rate", "fs", "sr")
UNIT_NAMES = ("units", "unit")
_SNIPPET_NAMES = ("waveform", "snippet", "spike")
POSITION_NAMES = ("channel_positions", "channel_locations", "positions")

#: Part of a dataset that must have been written.
MOSTLY = 0.5

WHY_NO_SNIPPETS = (
    "the method needs the continuous signal, with its overlaps and its noise; give the recording that they were cut from"
)


def recording_of_file(path: Path, make: Callable[[h5py.File], Recording]) -> Recording:
    """What `make` makes of a file, which stays open with it and is closed again where that fails.

    Raises InputError where the file is damaged or made up.
    """
    file = open_hdf5(path)
    try:
        return make(file)
    except BaseException as error:
        file.close()
        if isinstance(error, OSError | KeyError | ValueError | TypeError | RuntimeError | AttributeError | IndexError):
            raise InputError(
                f"{path} cannot be read ({type(error).__name__}: {one_line(error)}); it is damaged; use another copy."
            ) from error
        raise


def recording_from(path: Path, options: ReadOptions, find: Callable[[h5py.File, Path, ReadOptions], Found]) -> Recording:
    """The Recording over what `find` finds in a file; see recording_of_file."""
    return recording_of_file(path, lambda file: assemble(find(file, path, options), options))


def slicer(dataset: h5py.Dataset | np.ndarray, axis: int) -> Callable[[int, int], np.ndarray]:
    """read(start, stop) -> (stop - start, n_channels) over a dataset with one or two axes, `axis` being time."""
    if dataset.ndim == 1:
        return lambda start, stop: dataset[start:stop][:, None]
    if axis == 0:
        return lambda start, stop: dataset[start:stop]
    return lambda start, stop: dataset[:, start:stop].T


def time_axis(shape: tuple[int, ...], told: int | None, name: str) -> tuple[int, tuple[str, ...]]:
    """(axis that is time, remark): as told, else the longer one, because no recording has more channels than samples."""
    axis = told if told is not None else int(len(shape) == 2 and shape[1] > shape[0])
    if axis == 0 or told is not None or shape[0] == 1:
        return axis, ()
    return 1, (f"{name} is stored (n_channels, n_samples) {shape}, read transposed; --axis changes that",)


def shape_along(dataset: h5py.Dataset, axis: int) -> tuple[int, int]:
    """(n_samples, n_channels) of a dataset whose time runs along `axis`."""
    if dataset.ndim == 1:
        return dataset.shape[0], 1
    return dataset.shape[axis], dataset.shape[1 - axis]


def unwritten(dataset: h5py.Dataset, path: Path) -> tuple[str, ...]:
    """A remark where parts of a dataset were announced and never written, as when an acquisition ends early: they read as
    one value.

    Raises InputError where more than half is missing, which is no recording and may be of any length, and as check_traces does.
    """
    check_traces(dataset)
    if dataset.chunks is None:
        share = float(dataset.id.get_storage_size() > 0)
    else:
        share = dataset.id.get_num_chunks() / math.prod(
            -(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True)
        )
    if share >= 1:
        return ()
    said = f"of {dataset.name} {dataset.shape} only {share:.3%} was ever written"
    if share < MOSTLY:
        raise InputError(f"{path}: {said}; the rest is empty. Cut the file to what was recorded.")
    return (f"{said}; the rest reads as {dataset.fillvalue} and is missing from the recording",)


def text(value: object) -> str:
    """An HDF5 string, stored as bytes, text or an array of one."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def number(value: object) -> float | None:
    """A number out of an attribute, also one written as text, or a scalar dataset; None where it holds none (absent, words, several)."""
    if isinstance(value, h5py.Dataset):
        # a text in a damaged file may be announced as gigabytes
        if value.size != 1 or value.dtype.kind not in "iuf":
            return None
        value = value[()]
    if isinstance(value, str | bytes):
        written = text(value).strip()
        return float(written) if _NUMBER.fullmatch(written) else None
    value = np.asarray(value)
    return float(value.item()) if value.size == 1 and value.dtype.kind in "iuf" else None


def start_time(value: object, path: Path) -> float:
    """The time of a recording's first sample in s, 0 where the file has none (None). Raises InputError for what is no number."""
    seconds = 0.0 if value is None else number(value)
    if seconds is None:
        raise InputError(f"{path}: its start time, {text(value)[:40]}, is no number of seconds; correct it in the file.")
    return seconds


def stored_rate(*holders: h5py.HLObject) -> float | None:
    """The sampling frequency in Hz among the attributes of the first holder that has one, or its scalar datasets."""
    for holder in holders:
        attributes = {name.lower(): name for name in holder.attrs}
        scalars = {name.lower(): name for name in holder} if isinstance(holder, h5py.Group) else {}
        for name in RATE_NAMES:
            value = attribute(holder, attributes[name]) if name in attributes else None
            if value is None and name in scalars:
                value = holder.get(scalars[name])
                value = value if isinstance(value, h5py.Dataset) and value.size == 1 else None
            if value is not None and (rate := number(value)) is not None:
                return rate
    return None


def read_hdf5(path: Path, options: ReadOptions) -> Recording:
    """A Recording over `traces`, over --dataset, or over the only dataset that can hold traces.

    Raises InputError where there is none, UsageError where there are several and no choice, or time cannot be told from
    channels.
    """
    options.refuse_others(path, "generic HDF5", ("dataset", "axis"))
    return recording_from(path, options, _find)


def _find(file: h5py.File, path: Path, options: ReadOptions) -> Found:
    dataset = _choose(file, path, options.dataset)
    name = dataset.name
    if dataset.ndim > 2:
        raise InputError(
            f"{path}: {name} has shape {dataset.shape}; traces have two axes. If these are waveforms: {WHY_NO_SNIPPETS}."
        )
    axis = options.axis or 0
    if 0 in dataset.shape:
        raise InputError(f"{path}: {name} has shape {dataset.shape}, it is empty; give a file with samples.")
    n_samples, n_channels = shape_along(dataset, axis)
    if n_channels > n_samples and options.axis is None:
        raise UsageError(
            f"{path}: {name} has shape {dataset.shape}, more channels than samples if time comes first; say which axis is "
            "time with --axis 0 or --axis 1."
        )
    gaps = unwritten(dataset, path)
    places = [dataset, dataset.parent, file]
    names = (*UNIT_NAMES, "gain", "offset", "start_time_s")
    found = {name: next((attribute(place, name) for place in places if name in place.attrs), None) for name in names}
    unit = next((text(found[name]) for name in UNIT_NAMES if found[name] is not None), "ADC")
    notes: tuple[str, ...] = (
        () if name == "/traces" or options.dataset else (f"traces read from {name}, the only dataset that can hold them",)
    )
    positions = _positions(dataset, file)
    if positions is not None and len(positions) != n_channels:
        notes += (f"channel positions are not used: {len(positions)} for {n_channels} channels",)
        positions = None
    gain, offset = (factor(found, key, default, path) for key, default in (("gain", 1.0), ("offset", 0.0)))
    return Found(
        path=path,
        format="HDF5",
        read=slicer(dataset, axis),
        n_samples=n_samples,
        n_channels=n_channels,
        dtype=dataset.dtype,
        unit=unit,
        sampling_frequency=stored_rate(*places),
        gain=gain,
        offset=offset,
        positions=positions,
        start_time_s=start_time(found["start_time_s"], path),
        notes=(*notes, *gaps),
        close=file.close,
    )


def factor(attributes: dict, name: str, default: float, path: Path) -> float | np.ndarray:
    """What a file says of gain or offset, a number or one per channel; `default` where it says nothing. A gain in the file is in the
    file's unit per count. Raises InputError for what is no number."""
    if attributes[name] is None:
        return default
    value = np.asarray(attributes[name])
    if value.dtype.kind not in "iuf" or value.ndim > 1:
        raise InputError(f"{path}: attribute {name} = {attributes[name]!r} is no number; give the true one with --{name}.")
    return value.astype(np.float64).reshape(()) if value.size == 1 else value.astype(np.float64)


def _positions(dataset: h5py.Dataset, file: h5py.File) -> np.ndarray | None:
    for place in (dataset.parent, file):
        for name in POSITION_NAMES:
            if isinstance(place.get(name), h5py.Dataset):
                return whole(place[name])
    return None


def _choose(file: h5py.File, path: Path, wanted: str | None) -> h5py.Dataset:
    """The dataset asked for, `traces`, or the only candidate."""
    if wanted is not None:
        chosen = file.get(wanted)
        if not isinstance(chosen, h5py.Dataset):
            raise UsageError(f"{path} has no dataset {wanted}; it has {_listing(_datasets(file))}.")
        if chosen.ndim == 0:
            raise UsageError(f"{path}: {wanted} is a single value, not traces; name another with --dataset.")
        return chosen
    if isinstance(file.get("traces"), h5py.Dataset) and file["traces"].ndim > 0:
        return file["traces"]
    datasets = _datasets(file)
    candidates = [d for d in datasets if _may_be_traces(d)]
    if len(candidates) > 1:  # field potentials beside the recording say that they are slow
        candidates = [d for d in candidates if (stored_rate(d, d.parent) or LOWEST_RATE) >= LOWEST_RATE] or candidates
    if len(candidates) == 1:
        return candidates[0]
    if candidates:
        raise UsageError(f"{path} holds several datasets that may be the traces: {_listing(candidates)}; choose --dataset.")
    snippets = [d for d in datasets if _may_be_snippets(d)]
    if snippets:
        raise InputError(f"{path} holds only detected waveforms ({_listing(snippets)}) and no recording: {WHY_NO_SNIPPETS}.")
    raise InputError(
        f"{path} holds no traces, a dataset (n_samples, n_channels); it has {_listing(datasets)}. Name one with --dataset if it holds them."
    )


def _datasets(file: h5py.File) -> list[h5py.Dataset]:
    return [item for item in items_of(file) if isinstance(item, h5py.Dataset) and item.shape is not None]


def looks_cut_out(name: str) -> bool:
    """Whether a dataset of that name holds waveforms of spikes."""
    return any(word in name.rsplit("/", 1)[-1].lower() for word in _SNIPPET_NAMES)


def _may_be_snippets(dataset: h5py.Dataset) -> bool:
    return dataset.dtype.kind in "iuf" and (dataset.ndim == 3 or (dataset.ndim == 2 and looks_cut_out(dataset.name)))


def _may_be_traces(dataset: h5py.Dataset) -> bool:
    """Numbers along a long axis, with a second axis or a sampling frequency of its own; no spike times, no positions."""
    if dataset.dtype.kind not in "iufc" or dataset.ndim not in (1, 2) or max(dataset.shape) < 100 or min(dataset.shape) == 0:
        return False
    if (
        looks_cut_out(dataset.name)
        or dataset.name.startswith("/truth/")
        or dataset.name.rsplit("/", 1)[-1] in POSITION_NAMES
    ):
        return False
    return dataset.ndim == 2 or stored_rate(dataset) is not None


def _listing(datasets: list[h5py.Dataset]) -> str:
    shown = ", ".join(f"{d.name} {d.shape} {d.dtype}" for d in datasets[:8])
    return (shown + (f" and {len(datasets) - 8} more" if len(datasets) > 8 else "")) or "no dataset at all"
