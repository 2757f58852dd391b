"""An NWB 2 file with the Units table, the electrodes and what was left out; written with pynwb."""

from __future__ import annotations

import hashlib
import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from spikecrsae.data.sorting import SortingData
from spikecrsae.data.waveforms import centred, channel_groups, peak_channels, used_channels
from spikecrsae.errors import UsageError
from spikecrsae.exports.nwb_metadata import ELECTRODE_TEXTS, SessionMetadata

if TYPE_CHECKING:
    from hdmf.common import VectorData
    from pynwb import NWBFile
    from pynwb.ecephys import ElectrodeGroup
    from pynwb.misc import Units

#: NWB wants to know when the session began. Where the recording does not say, this stands for "not known".
UNKNOWN_START = datetime(1970, 1, 1, tzinfo=UTC)


def nwb_file(sorting: SortingData, provenance: str, metadata: SessionMetadata | None = None) -> bytes:
    """The bytes of the .nwb file; times are in seconds on the recording's own clock. provenance is run.json as text.

    Raises UsageError where pynwb is not installed, or does not take a value of the metadata.
    """
    try:
        from pynwb import NWBHDF5IO, NWBFile
        from pynwb.file import Subject
    except ImportError as error:
        raise UsageError("NWB files are written with pynwb; install it with pip install 'spikecrsae[nwb]'.") from error

    told = metadata or SessionMetadata()
    known = "" if "session_start_time" in told.session else "; when the session began is not known, 1970 stands for it"
    session = {"session_description": f"spikes found by spikecrsae{known}", "session_start_time": UNKNOWN_START}
    try:
        file = NWBFile(
            identifier=_identifier(sorting, provenance),
            notes=provenance,
            subject=Subject(**told.subject) if told.subject else None,
            **session | told.session,
        )
    except (ValueError, TypeError) as error:
        raise UsageError(f"pynwb does not take the metadata: {error}") from error
    groups = _add_electrodes(file, sorting, told)
    for first, end in sorting.timeline.intervals_s(sorting.excluded):
        file.add_invalid_time_interval(start_time=float(first), stop_time=float(end))
    file.units = _units(file, sorting, groups)
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as target, NWBHDF5IO(file=target, mode="w") as writer:
        writer.write(file)
    return buffer.getvalue()


def _identifier(sorting: SortingData, provenance: str) -> str:
    """The same for the same sorting of the same recording, or of the same file of it."""
    told = json.loads(provenance).get("recording", {})
    words = f"{told.get('checksum', '')}{told.get('file', '')}"
    return hashlib.blake2b(words.encode() + sorting.spikes.tobytes(), digest_size=16).hexdigest()


def _add_electrodes(file: NWBFile, sorting: SortingData, told: SessionMetadata) -> list:
    """One electrode per channel; returns the electrode group of each."""
    device = file.create_device(
        **{"name": "recording", "description": "the device is not known to the sorter"} | told.device
    )
    number, ids = channel_groups(sorting), sorting.channels.get("ids", np.arange(sorting.n_channels))
    facts = [{"location": "unknown"} | told.electrodes | told.of_channel.get(str(name), {}) for name in ids]
    group_of = {}
    for group in np.unique(number):
        places = dict.fromkeys(facts[channel]["location"] for channel in np.flatnonzero(number == group))
        group_of[group] = file.create_electrode_group(
            name=f"group {group}", description="channels sorted together", location=", ".join(places), device=device
        )
    masked = ~np.isin(np.arange(sorting.n_channels), used_channels(sorting))
    noise = sorting.channels.get("noise_level")
    positions = sorting.channels.get("positions")
    file.add_electrode_column("channel_name", "the recording's name of the channel")
    file.add_electrode_column("left_out", "flat or saturated, and not sorted")
    if noise is not None:
        file.add_electrode_column("noise_level", f"standard deviation of the high-passed noise, {sorting.amplitude_unit}")
    # a column of the table has a value for each electrode
    missing = {name: "unknown" if name in ELECTRODE_TEXTS else np.nan for one in facts for name in one}
    for channel in range(sorting.n_channels):
        known: dict[str, Any] = missing | facts[channel]
        if noise is not None:
            known["noise_level"] = float(noise[channel])
        if positions is not None:
            known |= {"rel_x": float(positions[channel, 0]), "rel_y": float(positions[channel, 1])}
        file.add_electrode(
            group=group_of[number[channel]], channel_name=str(ids[channel]), left_out=bool(masked[channel]), **known
        )
    return [group_of[group] for group in number]


def _units(file: NWBFile, sorting: SortingData, groups: list[ElectrodeGroup]) -> Units:
    """The Units table, column by column: pynwb's own way, row by row, cannot write one without units."""
    from hdmf.common import DynamicTableRegion, VectorData
    from pynwb.misc import Units

    fs, n, used, seen = sorting.sampling_frequency, sorting.n_units, used_channels(sorting), sorting.sorted_intervals_s
    counts = np.bincount(sorting.unit_rows, minlength=n)
    columns = [
        column
        for name, (description, values) in _spike_columns(sorting, used).items()
        for column in _ragged(VectorData(name=name, description=description, data=values), counts)
    ]
    columns += [
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


def _spike_columns(sorting: SortingData, used: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
    """What there is of each spike, unit by unit: (description, values (n_spikes, ...)) by the column's name."""
    order = np.argsort(sorting.unit_rows, kind="stable")
    spikes, unit = sorting.spikes[order], sorting.amplitude_unit
    amplitudes = spikes["amplitude"]
    on_channels = amplitudes[:, None] * _on_channels(sorting)[sorting.unit_rows[order]][:, used]
    columns = {
        "spike_times": ("in seconds", sorting.times_s(spikes["sample"])),
        "spike_amplitudes": (f"amplitude of each spike, {unit}", amplitudes),
        "spike_amplitudes_per_channel": (f"amplitude of each spike on each electrode of its unit, {unit}", on_channels),
        "spike_probabilities": ("probability that the unit fired the spike, NaN where not known", spikes["probability"]),
    }
    if sorting.files and np.any(sorting.files["start_time_s"] != sorting.timeline.times_s):
        names = ", ".join(f"{k} is {name}" for k, name in enumerate(sorting.files["name"]))
        file, time_s = sorting.in_files(spikes["sample"])
        columns["spike_files"] = (f"file or segment of each spike: {names}", file)
        columns["spike_file_times"] = ("time of each spike in seconds on the clock of its file", time_s)
    return columns


def _ragged(column: VectorData, counts: np.ndarray) -> list[VectorData]:
    """A column with `counts` (n_units,) entries for each unit, and its index."""
    from hdmf.common import VectorIndex

    return [column, VectorIndex(name=f"{column.name}_index", data=np.cumsum(counts).astype(np.uint64), target=column)]


def _on_channels(sorting: SortingData) -> np.ndarray:
    """Largest deflection of each template on each channel (n_units, n_channels), relative to that which amplitudes are of."""
    if not sorting.templates.size:
        return np.zeros((sorting.n_units, sorting.n_channels), np.float32)
    size = np.abs(sorting.templates).max(axis=2)
    peak = sorting.peaks.size[:, None]
    return np.divide(size, peak, out=np.zeros_like(size), where=peak > 0)


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
    """The columns of units.csv that say something."""
    known = {
        name: values for name, values in sorting.units.items() if values.dtype.kind != "f" or not np.isnan(values).all()
    }
    texts = {name: values.astype(object) if values.dtype.kind == "U" else values for name, values in known.items()}
    return {name: (f"{name} of the unit, as in units.csv of spikecrsae", values) for name, values in texts.items()}
