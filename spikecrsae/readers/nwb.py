"""NWB 2 files: ElectricalSeries read with h5py, conversion factors of any size included."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from spikecrsae.data.recording import Recording
from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers.assemble import Found, with_gaps_told
from spikecrsae.readers.hdf5 import WHY_NO_SNIPPETS, number, recording_from, shape_along, slicer, start_time, text, unwritten
from spikecrsae.readers.neural import LOWEST_RATE
from spikecrsae.readers.read_options import ReadOptions
from spikecrsae.readers.stamps import Stretch, regular_stretches
from spikecrsae.system.safe_hdf5 import attribute, items_of, open_hdf5, read_guarded, whole

#: Jitter of time stamps below this part of a sample is not worth a note.
_ROUNDING = 0.01


def is_nwb(file: h5py.File) -> bool:
    """Whether the content is NWB's."""
    return "nwb_version" in file.attrs


def read_nwb(path: Path, options: ReadOptions) -> Recording:
    """A Recording over the ElectricalSeries, --series where there are several.

    uV = (stored * conversion * channel_conversion + offset) * 1e6. Raises InputError where there is no continuous
    series, its data is not there or its time stamps do not increase, UsageError where there are several and no choice.
    """
    options.refuse_others(path, "NWB", ("series", "axis"))
    return with_gaps_told(recording_from(path, options, _find))


def _find(file: h5py.File, path: Path, options: ReadOptions) -> Found:
    series, remark = _choose(file, path, options.series)
    data = series.get("data")
    if not isinstance(data, h5py.Dataset) or data.ndim not in (1, 2):
        raise InputError(
            f"{path}: {series.name} has no data (n_samples, n_channels) that can be opened; name another series with --series."
        )
    electrodes = whole(series["electrodes"]).astype(int) if "electrodes" in series else None
    notes = remark
    axis = options.axis
    if axis is None:
        # The standard has time first; writers that got it wrong show by the number of electrodes.
        wrong = electrodes is not None and data.ndim == 2 and data.shape[1] != len(electrodes) == data.shape[0]
        axis = int(wrong)
        notes += (f"{series.name} is stored (n_channels, n_samples) {data.shape}, read transposed",) if wrong else ()
    n_samples, n_channels = shape_along(data, axis)
    if n_samples < 1:
        raise InputError(f"{path}: {series.name} holds no sample; name another series with --series.")
    rate, start_time_s, stretches, remarks = _clock(series, n_samples, path, options)
    channel_ids, positions, groups = _electrodes(file, series, electrodes, n_channels)
    conversion = number(attribute(data, "conversion"))
    gain = 1.0 if conversion is None else conversion
    if "channel_conversion" in series:
        gain = gain * whole(series["channel_conversion"]).astype(np.float64)
    return Found(
        path=path,
        format="NWB",
        read=slicer(data, axis),
        n_samples=n_samples,
        n_channels=n_channels,
        dtype=data.dtype,
        unit=text(attribute(data, "unit", "volts")),
        sampling_frequency=rate,
        gain=gain,
        offset=number(attribute(data, "offset")) or 0.0,
        channel_ids=channel_ids,
        positions=positions,
        groups=groups,
        start_time_s=start_time_s,
        stretches=stretches,
        notes=(*notes, *remarks, *unwritten(data, path)),
        close=file.close,
    )


def _choose(file: h5py.File, path: Path, wanted: str | None) -> tuple[h5py.Group, tuple[str, ...]]:
    """The ElectricalSeries of that name (or path), the only one, or the only one that is fast enough for spikes; notes."""
    groups: dict[str, list[h5py.Group]] = {"ElectricalSeries": [], "SpikeEventSeries": []}
    for item in items_of(file):
        kind = text(attribute(item, "neurodata_type", ""))
        if isinstance(item, h5py.Group) and kind in groups:
            groups[kind].append(item)
    found = groups["ElectricalSeries"]
    if not found:
        if groups["SpikeEventSeries"]:
            names = ", ".join(g.name for g in groups["SpikeEventSeries"])
            raise InputError(f"{path} holds only detected waveforms ({names}) and no recording: {WHY_NO_SNIPPETS}.")
        raise InputError(
            f"{path} is an NWB file without an ElectricalSeries, so it holds no recording; give the file that does."
        )
    listing = ", ".join(f"{g.name} {g['data'].shape}" if "data" in g else g.name for g in found)
    if wanted is not None:
        matching = [g for g in found if wanted in (g.name, g.name.lstrip("/"), g.name.rsplit("/", 1)[-1])]
        if len(matching) != 1:
            raise UsageError(f"{path}: {len(matching)} ElectricalSeries are called {wanted!r}; there are {listing}.")
        return matching[0], ()
    fast = [g for g in found if _rate(g) >= LOWEST_RATE] if len(found) > 1 else found
    if len(fast) != 1:
        raise UsageError(f"{path} holds several ElectricalSeries: {listing}; choose one with --series.")
    note = f"{fast[0].name} of {listing}, the only one sampled fast enough for spikes; --series chooses another"
    return fast[0], (note,) if len(found) > 1 else ()


def _rate(series: h5py.Group) -> float:
    """The rate in Hz of a series, 0 where it has none: as stored, or from its first and last time stamp."""
    if "starting_time" in series:
        return number(attribute(series["starting_time"], "rate")) or 0.0
    stamps = series.get("timestamps")
    if not isinstance(stamps, h5py.Dataset) or stamps.ndim != 1 or len(stamps) < 2:
        return 0.0
    lasts = float(stamps[-1]) - float(stamps[0])
    return (len(stamps) - 1) / lasts if lasts > 0 else 0.0


def _clock(
    series: h5py.Group, n_samples: int, path: Path, options: ReadOptions
) -> tuple[float | None, float, tuple[Stretch, ...], tuple[str, ...]]:
    """(rate in Hz or None, time of sample 0 in s, stretches without a gap, notes), from starting_time or from time stamps."""
    if "starting_time" in series:
        start = series["starting_time"]
        return number(attribute(start, "rate")), start_time(start, path), (), ()
    stamps = series.get("timestamps")
    if not isinstance(stamps, h5py.Dataset) or len(stamps) == 0:
        return None, 0.0, (), ()
    if len(stamps) != n_samples:
        raise InputError(
            f"{path}: {series.name} has {len(stamps)} time stamps for {n_samples} samples; the file is damaged; use another copy."
        )
    if n_samples < 2:
        return None, start_time(stamps[0], path), (), ()
    try:
        told = regular_stretches(stamps, f"{path}: the time stamps of {series.name}")
    except InputError as error:
        if options.sampling_frequency is None:
            raise InputError(
                f"{error} Repair them, or give --sampling-frequency: all samples are then one segment without a gap."
            ) from error
        return (
            None,
            start_time(stamps[0], path),
            (),
            (f"{error} They are not used: all samples are one segment without a gap.",),
        )
    rate, notes = told.sampling_frequency, []
    if told.jitter_s > _ROUNDING / rate:
        notes.append(
            f"its time stamps have a rate of {rate:.10g} Hz, and steps that differ by up to {1e6 * told.jitter_s:.3g} us"
        )
    if told.drift_s > 1 / rate:
        notes.append(
            f"its clock does not run evenly: times differ from the time stamps by up to {1e3 * told.drift_s:.3g} ms"
        )
    return rate, told.stretches[0].start_time_s, told.stretches, tuple(notes)


def _electrodes(
    file: h5py.File, series: h5py.Group, rows: np.ndarray | None, n_channels: int
) -> tuple[list[str] | None, np.ndarray | None, list[str] | None]:
    """Channel names, else ids, positions (n_channels, 2 or 3) and groups out of the electrodes table, None where it has none."""
    if rows is None or len(rows) != n_channels:
        return None, None, None
    reference = attribute(series["electrodes"], "table")
    table = file[reference] if reference is not None else file.get("general/extracellular_ephys/electrodes")
    if table is None:
        return None, None, None
    ids = whole(table["id"]) if "id" in table else np.arange(rows.max() + 1)
    if rows.min() < 0 or rows.max() >= len(ids):
        raise InputError(
            f"{file.filename}: {series.name} refers to electrodes that the electrodes table lacks; use another copy."
        )
    channel_ids = [str(i) for i in ids[rows]]
    written = [text(name).strip() for name in whole(table["channel_name"])[rows]] if "channel_name" in table else []
    if all(written) and len(set(written)) == n_channels:
        channel_ids = written
    groups = [text(name) for name in whole(table["group_name"])[rows]] if "group_name" in table else None
    for names in (("rel_x", "rel_y"), ("x", "y", "z")):
        columns = [whole(table[name]).astype(np.float64)[rows] for name in names if name in table]
        # A column without any value is one that the lab did not fill in.
        columns = [column for column in columns if not np.all(np.isnan(column))]
        if len(columns) >= 2:
            return channel_ids, np.stack(columns, axis=1), groups
    return channel_ids, None, groups


def electrode_facts(path: Path, series_name: str | None, columns: Sequence[str]) -> list[dict[str, object]]:
    """What the electrodes table says in `columns` of each stored channel of a series; empty where it refers to no electrodes."""

    def read() -> list[dict[str, object]]:
        with open_hdf5(path) as file:
            series, _ = _choose(file, path, series_name)
            if "electrodes" not in series:
                return []
            rows = whole(series["electrodes"]).astype(int)
            reference = attribute(series["electrodes"], "table")
            table = file[reference] if reference is not None else file.get("general/extracellular_ephys/electrodes")
            found = {name: whole(table[name])[rows] for name in columns if table is not None and name in table}
            texts = {name: h5py.check_string_dtype(table[name].dtype) is not None for name in found}
            return [
                {name: text(values[k]) if texts[name] else float(values[k]) for name, values in found.items()}
                for k in range(len(rows))
            ]

    return read_guarded(path, read)
