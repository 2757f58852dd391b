"""The spike table and the unit table as plain text, the same bytes for the same sorting."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import numpy as np

from spikecrsae.data.artefacts import KINDS
from spikecrsae.data.sorting import SortingData
from spikecrsae.system.text import cell_text

_ROWS_AT_ONCE = 100_000


def spikes_csv(sorting: SortingData) -> Iterator[bytes]:
    """spikes.csv in pieces: unit,sample,time_s,amplitude,probability, sorted by sample; where there are several files file (row of
    `files`, from 0) and file_time_s come before probability.

    time_s = sample / sampling_frequency + start_time_s, to the nanosecond; amplitude in the sorting's amplitude_unit. A
    probability that is not known is an empty cell.
    """
    yield b"unit,sample,time_s,amplitude" + b",file,file_time_s" * bool(sorting.files) + b",probability\n"
    for start in range(0, len(sorting.spikes), _ROWS_AT_ONCE):
        part = sorting.spikes[start : start + _ROWS_AT_ONCE]
        times = sorting.times_s(part["sample"])
        columns = (part["unit"].tolist(), part["sample"].tolist(), times.tolist(), part["amplitude"].tolist())
        rows = (f"{u},{s},{t:.9f},{a:.7g}" for u, s, t, a in zip(*columns, strict=True))
        if sorting.files:
            places = zip(*(column.tolist() for column in sorting.in_files(part["sample"])), strict=True)
            rows = (f"{row},{file},{t:.9f}" for row, (file, t) in zip(rows, places, strict=True))
        known = ("" if np.isnan(p) else f"{p:.6g}" for p in part["probability"].tolist())
        yield "".join(f"{row},{p}\n" for row, p in zip(rows, known, strict=True)).encode()


def units_csv(sorting: SortingData) -> bytes:
    """units.csv: the unit's id and every column of the unit table; a value that is not a number is an empty cell.

    A column named amplitude, or whose name ends in _amplitude, carries the amplitude unit in its header (amplitude_uV).
    """
    columns = unit_columns(sorting)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([cell_text(name) for name in columns])
    for row in zip(*columns.values(), strict=True):
        writer.writerow(map(cell, row))
    return text.getvalue().encode()


def artefacts_csv(sorting: SortingData) -> bytes:
    """artefacts.csv: start_s,stop_s,kind,group,channel,amplitude, by start; times on the recording's clock, to the nanosecond. A cell is empty
    where an artefact has no such value."""
    unit, table = sorting.amplitude_unit, sorting.artefacts
    times = zip(sorting.times_s(table["start"]).tolist(), sorting.times_s(table["stop"]).tolist(), strict=True)
    known = zip(*(table[name].tolist() for name in ("kind", "group", "channel", "amplitude")), strict=True)
    rows = [
        f"{start:.9f},{stop:.9f},{KINDS[kind]},{group if group >= 0 else ''},{channel if channel >= 0 else ''},{cell(amplitude)}\n"
        for (start, stop), (kind, group, channel, amplitude) in zip(times, known, strict=True)
    ]
    return (f"start_s,stop_s,kind,group,channel,amplitude_{unit}\n" + "".join(rows)).encode()


def unit_columns(sorting: SortingData) -> dict[str, np.ndarray]:
    """The columns of units.csv by their headings, each (n_units,)."""
    columns = {_heading(name, sorting.amplitude_unit): v for name, v in sorting.units.items() if name != "unit"}
    return {"unit": sorting.unit_ids, **columns}


def _heading(name: str, amplitude_unit: str) -> str:
    return f"{name}_{amplitude_unit}" if name == "amplitude" or name.endswith("_amplitude") else name


def spike_columns(sorting: SortingData) -> dict[str, np.ndarray]:
    """The columns of spikes.csv by their headings, each (n_spikes,)."""
    spikes = sorting.spikes
    columns = {name: spikes[name] for name in ("unit", "sample")} | {"time_s": sorting.times_s(spikes["sample"])}
    columns["amplitude"] = spikes["amplitude"]
    if sorting.files:
        columns["file"], columns["file_time_s"] = sorting.in_files(spikes["sample"])
    columns["probability"] = spikes["probability"]
    return columns


def cell(value: object) -> str:
    """A value as text; a number that is not known is empty, and text is made harmless (texts.cell_text)."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{value:.7g}"
    if isinstance(value, (int, np.integer)):
        return str(value)
    return cell_text(value)
