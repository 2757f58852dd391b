"""An NWB 2 file with the Units table, the electrodes and what was left out; written with pynwb."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import h5py
import numpy as np

from spikecrsae.data.sorting import SortingData
from spikecrsae.data.waveforms import centred, channel_groups, peak_channels, used_channels
from spikecrsae.errors import UsageError

if TYPE_CHECKING:
    from hdmf.common import VectorData
    from pynwb import NWBFile
    from pynwb.ecephys import ElectrodeGroup
    from pynwb.misc import Units

#: NWB wants to know when the session began. Where the recording does not say, this stands for "not known".
UNKNOWN_START = datetime(1970, 1, 1, tzinfo=UTC)


def nwb_file(sorting: SortingData, provenance: str, session_start: datetime | None = None) -> bytes:
    """The bytes of the .nwb file; times are in seconds on the recording's own clock. provenance is run.json as text.

    Raises UsageError where pynwb is not installed.
    """
    try:
        from pynwb import NWBHDF5IO, NWBFile
    except ImportError as error:
        raise UsageError("NWB files are written with pynwb; install it with pip install 'spikecrsae[nwb]'.") from error

    known = "" if session_start else "; when the session began is not known, 1970 stands for it"
    file = NWBFile(
        session_description=f"spikes found by spikecrsae{known}",
        identifier=_identifier(sorting, provenance),
        session_start_time=session_start or UNKNOWN_START,
        notes=provenance,
    )
    groups = _add_electrodes(file, sorting)
    for first, end in sorting.excluded / sorting.sampling_frequency + sorting.start_time_s:
        file.add_invalid_time_interval(start_time=float(first), stop_time=float(end))
    file.units = _units(file, sorting, groups)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as target, NWBHDF5IO(file=target, mode="w") as writer:
        writer.write(file)
    return buffer.getvalue()


def _identifier(sorting: SortingData, provenance: str) -> str:
    """The same for the same sorting of the same recording."""
    checksum = json.loads(provenance).get("recording", {}).get("checksum", "")
    return hashlib.blake2b(checksum.encode() + sorting.spikes.tobytes(), digest_size=16).hexdigest()


def _add_electrodes(file: NWBFile, sorting: SortingData) -> list:
    """One electrode per channel; returns the electrode group of each."""
    device = file.create_device(name="recording", description="the device is not known to the sorter")
    number = channel_groups(sorting)
    group_of = {
        group: file.create_electrode_group(
            name=f"group {group}", description="channels sorted together", location="unknown", device=device
        )
        for group in np.unique(number)
    }
    ids = sorting.channels.get("ids", np.arange(sorting.n_channels))
    masked = ~np.isin(np.arange(sorting.n_channels), used_channels(sorting))
    noise = sorting.channels.get("noise_level")
    positions = sorting.channels.get("positions")
    file.add_electrode_column("channel_name", "the recording's name of the channel")
    file.add_electrode_column("left_out", "flat or saturated, and not sorted")
    if noise is not None:
        file.add_electrode_column("noise_level", f"standard deviation of the high-passed noise, {sorting.amplitude_unit}")
    for channel in range(sorting.n_channels):
        known = {} if noise is None else {"noise_level": float(noise[channel])}
        if positions is not None:
            known |= {"rel_x": float(positions[channel, 0]), "rel_y": float(positions[channel, 1])}
        file.add_electrode(
            group=group_of[number[channel]],
            location="unknown",
            channel_name=str(ids[channel]),
            left_out=bool(masked[channel]),
            **known,
        )
    return [group_of[group] for group in number]


def _units(file: NWBFile, sorting: SortingData, groups: list[ElectrodeGroup]) -> Units:
    """The Units table, column by column: pynwb's own way, row by row, cannot write one without units."""
    from hdmf.common import DynamicTableRegion, VectorData
    from pynwb.misc import Units

    fs, n, used, rows = sorting.sampling_frequency, sorting.n_units, used_channels(sorting), sorting.unit_rows
    spikes, counts = sorting.spikes[np.argsort(rows, kind="stable")], np.bincount(rows, minlength=n)
    seconds, seen = spikes["sample"] / fs + sorting.start_time_s, _observed(sorting)
    heights = f"amplitude of each spike, {sorting.amplitude_unit}"
    columns = [
        *_ragged(VectorData(name="spike_times", description="in seconds", data=seconds), counts),
        *_ragged(VectorData(name="spike_amplitudes", description=heights, data=spikes["amplitude"]), counts),
        *_ragged(
            VectorData(name="obs_intervals", description="where spikes were looked for", data=np.tile(seen, (n, 1))),
            np.full(n, len(seen)),
        ),
        *_ragged(
            DynamicTableRegion(
                name="electrodes", description="the sorted channels", data=np.tile(used, n), table=file.electrodes
            ),
            np.full(n, len(used)),
        ),
    ]
    if n:
        owners = [groups[channel] for channel in peak_channels(sorting)]
        columns.append(VectorData(name="electrode_group", description="group of the peak channel", data=owners))
    for name, (description, values) in (_waveform_columns(sorting, used) | _unit_columns(sorting)).items():
        columns.append(VectorData(name=name, description=description, data=values))
    return Units(
        name="units",
        description="units found by spikecrsae",
        id=sorting.unit_ids.astype(np.int64),
        columns=columns,
        electrode_table=file.electrodes,
        waveform_rate=fs,
        waveform_time_before_peak_in_ms=1000 * centred(sorting.templates, sorting.peak_index).shape[2] / 2 / fs,
        resolution=1 / fs,
    )


def _ragged(column: VectorData, counts: np.ndarray) -> list[VectorData]:
    """A column with `counts` (n_units,) entries for each unit, and its index."""
    from hdmf.common import VectorIndex

    return [column, VectorIndex(name=f"{column.name}_index", data=np.cumsum(counts).astype(np.uint64), target=column)]


def _observed(sorting: SortingData) -> np.ndarray:
    """Intervals (n, 2) in seconds in which spikes were looked for: all but what was left out."""
    edges = np.concatenate([[0], sorting.excluded.reshape(-1), [sorting.n_samples]]).reshape(-1, 2)
    return edges[edges[:, 1] > edges[:, 0]] / sorting.sampling_frequency + sorting.start_time_s


def _waveform_columns(sorting: SortingData, used: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
    """Mean waveforms and their spread (n_units, n_times, n_used): in volts, or where no gain is known as columns of our own,
    because NWB's own are in volts."""
    name, unit, factor = ("waveform", "volts", 1e-6) if sorting.amplitude_unit == "uV" else ("template", "ADC counts", 1.0)
    kinds = {"mean": ("mean", sorting.templates), "sd": ("standard deviation", sorting.templates_std)}
    return {
        f"{name}_{short}": (
            f"{long} of the high-passed waveforms, {unit}",
            centred(values, sorting.peak_index)[:, used].transpose(0, 2, 1) * np.float32(factor),
        )
        for short, (long, values) in kinds.items()
        if len(values) == sorting.n_units
    }


def _unit_columns(sorting: SortingData) -> dict[str, tuple[str, np.ndarray]]:
    """The columns of units.csv."""
    texts = {name: values.astype(object) if values.dtype.kind == "U" else values for name, values in sorting.units.items()}
    return {name: (f"{name} of the unit, as in units.csv of spikecrsae", values) for name, values in texts.items()}
