"""The spike table and the unit table as plain text, the same bytes for the same sorting."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import numpy as np

from spikecrsae.data.sorting import Sorting
from spikecrsae.system.text import cell_text

_ROWS_AT_ONCE = 100_000


def spikes_csv(sorting: Sorting) -> Iterator[bytes]:
    """spikes.csv in pieces: unit,sample,time_s,amplitude, sorted by sample; where there are several files also file (row of
    `files`, from 0) and file_time_s.

    time_s = sample / sampling_frequency + start_time_s, to the nanosecond; amplitude in the sorting's amplitude_unit.
    """
    yield b"unit,sample,time_s,amplitude" + b",file,file_time_s" * bool(sorting.files) + b"\n"
    for start in range(0, len(sorting.spikes), _ROWS_AT_ONCE):
        part = sorting.spikes[start : start + _ROWS_AT_ONCE]
        times = part["sample"] / sorting.sampling_frequency + sorting.start_time_s
        columns = (part["unit"].tolist(), part["sample"].tolist(), times.tolist(), part["amplitude"].tolist())
        rows = (f"{u},{s},{t:.9f},{a:.7g}" for u, s, t, a in zip(*columns, strict=True))
        if sorting.files:
            places = zip(*(column.tolist() for column in sorting.in_files(part["sample"])), strict=True)
            rows = (f"{row},{file},{t:.9f}" for row, (file, t) in zip(rows, places, strict=True))
        yield "".join(row + "\n" for row in rows).encode()


def units_csv(sorting: Sorting) -> bytes:
    """units.csv: the unit's id and every column of the unit table; a value that is not a number is an empty cell.

    A column named amplitude, or whose name ends in _amplitude, carries the amplitude unit in its header (amplitude_uV).
    """
    columns = {name: values for name, values in sorting.units.items() if name != "unit"}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["unit", *(_header(name, sorting.amplitude_unit) for name in columns)])
    for row, unit in enumerate(sorting.unit_ids):
        writer.writerow([int(unit), *(cell(values[row]) for values in columns.values())])
    return text.getvalue().encode()


def _header(name: str, amplitude_unit: str) -> str:
    return cell_text(f"{name}_{amplitude_unit}" if name == "amplitude" or name.endswith("_amplitude") else name)


def cell(value) -> str:
    """A value as text; a number that is not known is empty, and text is made harmless (texts.cell_text)."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{value:.7g}"
    if isinstance(value, (int, np.integer)):
        return str(value)
    return cell_text(value)
