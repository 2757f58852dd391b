"""Which signals of a neo reader come from the file or folder that the user has named, and which from its neighbours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

#: A file, the segment (block, segment) that it belongs to or None for all, and the channels that it holds, by their rows in
#: the reader's header.
Holding = tuple[Path, tuple[int, int] | None, np.ndarray]


@dataclass(frozen=True)
class Named:
    """What lies in the named file or folder: rows of the header's signal_channels, and segments (block, segment) or None for
    all."""

    rows: np.ndarray
    segments: frozenset[tuple[int, int]] | None = None


def named_signals(reader: Any, format: str, path: Path) -> Named:
    """The signals of a reader, whose header is parsed, that are stored in `path`: all of a folder, or of a header that stands
    for the whole recording; of a data file its own, without those of the neighbours that the reader has found too."""
    if format == "Blackrock" and path.suffix.lower() == ".nev":  # the continuous signal is in the .ns1 to .ns6 beside it
        return Named(np.zeros(0, np.int64))
    everything = Named(np.arange(len(reader.header["signal_channels"])))
    here = path.resolve()
    holdings = list(_HOLDINGS.get(format, lambda _: ())(reader))
    inside = [(segment, rows) for file, segment, rows in holdings if _is_named(file.resolve(), here, format)]
    if not inside or len(inside) == len(holdings):
        return everything
    segments = {segment for segment, _ in inside if segment is not None}
    rows = np.unique(np.concatenate([rows for _, rows in inside]))
    return Named(rows, frozenset(segments) or None)


def _is_named(file: Path, here: Path, format: str) -> bool:
    """Whether a data file is the named one, lies below it, or is the one that a named companion describes."""
    if here in (file, *file.parents):
        return True
    return format == "OpenEphysBinary" and here.is_file() and file.parent == here.parent


def _of_stream(reader: Any, field: str, value: str) -> np.ndarray:
    """Rows of the channels in the streams whose `field` (name, id or buffer_id) has this value."""
    streams, channels = reader.header["signal_streams"], reader.header["signal_channels"]
    return np.flatnonzero(np.isin(channels["stream_id"], streams["id"][streams[field] == value]))


def _open_ephys_binary(reader: Any) -> Iterator[Holding]:
    for block, segments in reader._sig_streams.items():
        for segment, streams in segments.items():
            for number, found in streams.items():
                yield Path(found["raw_filename"]), (block, segment), _of_stream(reader, "buffer_id", str(number))


def _intan(reader: Any) -> Iterator[Holding]:
    """Of the formats with several files: one for each stream, or one for each channel."""
    if reader.file_format == "header-attached":
        return
    for stream, data in reader._raw_data.items():
        rows = _of_stream(reader, "name", stream)
        if isinstance(data, list):
            yield from ((Path(file.filename), None, rows[k : k + 1]) for k, file in enumerate(data))
        else:
            yield Path(data.filename), None, rows


def _tdt(reader: Any) -> Iterator[Holding]:
    for segment, channels in reader._sigs_data_buf.items():
        for row, data in channels.items():
            yield Path(data.filename), (0, segment), np.array([row])


_HOLDINGS: dict[str, Callable[[Any], Iterator[Holding]]] = {
    "OpenEphysBinary": _open_ephys_binary,
    "Intan": _intan,
    "Tdt": _tdt,
}
