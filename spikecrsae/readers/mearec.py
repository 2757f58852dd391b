"""MEArec simulations, read with h5py alone."""

from __future__ import annotations

from pathlib import Path

import h5py

from spikecrsae.data.recording import Recording
from spikecrsae.errors import InputError
from spikecrsae.readers.assemble import Found
from spikecrsae.readers.hdf5 import number, recording_from, shape_along, slicer, text, unwritten
from spikecrsae.readers.read_options import ReadOptions
from spikecrsae.system.safe_hdf5 import attribute, whole


def is_mearec(file: h5py.File) -> bool:
    """Whether the content is MEArec's; versions before 1.5 do not write their number."""
    return "mearec_version" in file.attrs or ("recordings" in file and "spiketrains" in file)


def read_mearec(path: Path, options: ReadOptions) -> Recording:
    """A Recording over `recordings`, in uV.

    Old versions store (n_channels, n_samples): the shape decides and a note says so.

    Raises InputError where the file holds no recordings (MEArec also writes template files).
    """
    options.refuse_others(path, "MEArec", ("axis",))
    return recording_from(path, options, _find)


def _find(file: h5py.File, path: Path, options: ReadOptions) -> Found:
    dataset = file.get("recordings")
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 2:
        raise InputError(
            f"{path} is a MEArec file without recordings (n_samples, n_channels); it has {sorted(file)}. Give a file that MEArec made with recordings."
        )
    positions = whole(file["channel_positions"]) if "channel_positions" in file else None
    axis, notes = _time_axis(dataset, None if positions is None else len(positions), options.axis, file)
    n_samples, n_channels = shape_along(dataset, axis)
    if positions is not None and len(positions) != n_channels:
        raise InputError(
            f"{path}: recordings {dataset.shape} and {len(positions)} channel positions do not fit; the file is damaged; use another copy."
        )
    gain = number(file["info/recordings/gain"]) if "info/recordings/gain" in file else None
    return Found(
        path=path,
        format="MEArec",
        read=slicer(dataset, axis),
        n_samples=n_samples,
        n_channels=n_channels,
        dtype=dataset.dtype,
        unit="uV",
        sampling_frequency=number(file["info/recordings/fs"]) if "info/recordings/fs" in file else None,
        gain=1.0 if gain is None else gain,
        positions=positions,
        notes=(*notes, *unwritten(dataset, path)),
        close=file.close,
    )


def _time_axis(
    dataset: h5py.Dataset, n_channels: int | None, told: int | None, file: h5py.File
) -> tuple[int, tuple[str, ...]]:
    """Which axis of recordings is time: as told, else the one that is not as long as there are contacts."""
    if told is not None:
        return told, ()
    first_is_time = dataset.shape[1] == n_channels if n_channels is not None else dataset.shape[0] >= dataset.shape[1]
    if first_is_time:
        return 0, ()
    version = text(attribute(file, "mearec_version", "without a number"))
    return 1, (
        f"recordings of MEArec version {version} are stored (n_channels, n_samples) {dataset.shape}, read transposed",
    )
