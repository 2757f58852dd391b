"""What a reader of neo has found as a Recording: the stream that is wanted, its segments one after the other."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from spikecrsae.data.recording import Recording, joined
from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers.assemble import Found, assemble, with_gaps_told
from spikecrsae.readers.neo_files import named_signals
from spikecrsae.readers.neo_stamps import with_stretches
from spikecrsae.readers.neo_streams import choose_signals
from spikecrsae.readers.read_options import ReadOptions
from spikecrsae.readers.streams import StreamReader
from spikecrsae.system.text import counted

#: Number of a stream, channels of it that are read, counted within it (None for all in order), and their places in the recording.
_Source = tuple[int, list[int] | None, np.ndarray]


@dataclass(frozen=True)
class _Piece:
    """Signal without a gap: n_samples from sample `first` of a segment on; number: as --segment counts."""

    number: int
    block: int
    segment: int
    first: int
    n_samples: int
    start_time_s: float


def recording_over(reader: Any, format: str, path: Path, options: ReadOptions) -> Recording:
    """A Recording over one stream of a neo.rawio reader whose header is parsed: one segment of it, or all as parts.

    Raises UsageError where several streams leave a choice, or the stream or segment does not exist; InputError where there is
    no continuous signal.
    """
    if format == "Plexon":
        _number_plexon_samples(reader)
    named = named_signals(reader, format, path)
    rows, note = choose_signals(reader, format, path, named, options)
    sources = _sources(reader, rows)
    stream = sources[0][0]
    rate = reader.get_signal_sampling_rate(stream)
    pieces = [
        piece
        for piece in _pieces(reader, stream, format, rate)
        if named.segments is None or (piece.block, piece.segment) in named.segments
    ]
    wanted = options.segment
    if wanted is not None and wanted not in [piece.number for piece in pieces]:
        raise UsageError(f"{path} has no segment {wanted}: {_listing(pieces, rate)}; choose one with --segment.")
    pieces = [piece for piece in pieces if (piece.n_samples if wanted is None else piece.number == wanted)]
    if not pieces:
        raise InputError(f"{path} holds no sample; give a file with samples.")
    whole = options if len(pieces) == 1 else replace(options, start_s=None, stop_s=None)
    recordings = [assemble(_find(reader, format, path, rows, sources, piece), whole) for piece in pieces]
    if len(pieces) == 1:
        return with_gaps_told(replace(recordings[0], notes=(*recordings[0].notes, *note)))
    recording = with_gaps_told(joined(recordings, [f"{path}, segment {piece.number}" for piece in pieces], one_clock=True))
    if again := sum(not part.same_clock for part in recording.parts[1:]):
        note += (
            f"the clock starts anew {counted(again, 'time')}: time_s counts on, and file_time_s is the file's own time",
        )
    note += (f"{len(pieces)} segments are read one after the other, {_listing(pieces, rate)}; --segment chooses one",)
    return replace(recording, notes=(*recording.notes, *note)).between(options.start_s, options.stop_s)


def close_reader(reader: Any) -> None:
    """Close the files that a reader leaves to the garbage collector, as Blackrock's does."""
    for file in getattr(reader, "_nsx_fids", {}).values():
        file.close()
    if isinstance(reader, StreamReader):
        reader.close()


def _sources(reader: Any, rows: np.ndarray) -> list[_Source]:
    """The streams that rows of the header belong to."""
    ids = reader.header["signal_channels"]["stream_id"]
    found = []
    for number, stream in enumerate(reader.header["signal_streams"]):
        all_rows = np.flatnonzero(ids == stream["id"]).tolist()
        places = np.flatnonzero(ids[rows] == stream["id"])
        if len(places):
            inside = [all_rows.index(row) for row in rows[places]]
            found.append((number, None if inside == list(range(len(all_rows))) else inside, places))
    return found


def _find(reader: Any, format: str, path: Path, rows: np.ndarray, sources: list[_Source], piece: _Piece) -> Found:
    channels = reader.header["signal_channels"][rows]
    inside = sources[0][1]
    own = reader.stream_of_name[str(channels["stream_id"][0])].part(inside) if isinstance(reader, StreamReader) else None

    def read(start: int, stop: int) -> np.ndarray:
        place = {"block_index": piece.block, "seg_index": piece.segment}
        place |= {"i_start": piece.first + start, "i_stop": piece.first + stop}
        chunks = [
            reader.get_analogsignal_chunk(**place, stream_index=n, **({} if inside is None else {"channel_indexes": inside}))
            for n, inside, _ in sources
        ]
        if len(chunks) == 1:
            return chunks[0]
        whole = np.empty((stop - start, len(rows)), chunks[0].dtype)
        for chunk, (_, _, places) in zip(chunks, sources, strict=True):
            whole[:, places] = chunk
        return whole

    found = Found(
        path=path,
        format=format if own else f"neo {format}",
        read=read,
        n_samples=piece.n_samples,
        n_channels=len(channels),
        dtype=np.dtype(str(channels["dtype"][0])),
        # Plexon's gains are millivolts by its specification, which neo does not say
        unit=[str(unit) or ("mV" if format == "Plexon" else "") for unit in channels["units"]],
        sampling_frequency=_rate(reader, format, channels),
        gain=channels["gain"].astype(np.float64),
        offset=channels["offset"].astype(np.float64),
        channel_ids=_names(channels, format),
        positions=own.positions if own else None,
        groups=own.groups if own else _neuroscope_groups(reader, len(channels)) if format == "NeuroScope" else None,
        start_time_s=piece.start_time_s,
        notes=own.notes if own else (),
        companions=[] if path.is_dir() else [file for file in path.parent.iterdir() if file.stem == path.stem],
        close=functools.partial(close_reader, reader),
    )
    return found if own else with_stretches(found, reader, piece.block, piece.segment, rows)


def _rate(reader: Any, format: str, channels: np.ndarray) -> float | None:
    """Sampling frequency in Hz, None where the file does not say. NeuroScope's field potentials have a rate of their own, in place
    of which neo gives that of the .dat file."""
    if format == "NeuroScope" and reader.data_file_path.suffix.lower() in (".eeg", ".lfp"):
        told = ElementTree.parse(reader.xml_file_path).getroot().findtext("fieldPotentials/lfpSamplingRate")
        return float(told) if told else None
    return float(channels["sampling_rate"][0])


def _neuroscope_groups(reader: Any, n_channels: int) -> list[str] | None:
    """Spike group of each channel, counted from 1 as NeuroScope does, "" for none; None where the session names no spike
    groups."""
    names = [""] * n_channels
    session = ElementTree.parse(reader.xml_file_path).getroot()
    for number, group in enumerate(session.findall("spikeDetection/channelGroups/group"), start=1):
        for channel in group.findall("channels/channel"):
            if (text := (channel.text or "").strip()).isdigit() and int(text) < n_channels:
                names[int(text)] = str(number)
    return names if any(names) else None


def _names(channels: np.ndarray, format: str) -> list[str]:
    """The names that stand in the file, or their ids where two are the same; NeuroScope knows channels by number only."""
    names, ids = [str(name).strip() for name in channels["name"]], [str(i) for i in channels["id"]]
    if format != "NeuroScope" and all(names) and len(set(names)) == len(names):
        return names
    return ids if len(set(ids)) == len(ids) else [f"{name or 'channel'}#{k}" for k, name in enumerate(names)]


def _pieces(reader: Any, stream: int, format: str, rate: float) -> list[_Piece]:
    """All segments of all blocks, numbered through them; of Plexon, which neo reads as one segment, the stretches between
    pauses."""
    places = [(b, s) for b in range(reader.block_count()) for s in range(reader.segment_count(b))]
    if format == "Plexon":
        return _plexon_pieces(reader, stream, rate)
    return [
        _Piece(number, b, s, 0, int(reader.get_signal_size(b, s, stream)), float(reader.get_signal_t_start(b, s, stream)))
        for number, (b, s) in enumerate(places)
    ]


def _number_plexon_samples(reader: Any) -> None:
    """Each data block's first sample, anew: neo 0.14 adds the block's own length to the sample before it, not the length of
    the one before, and so reads the wrong samples wherever blocks differ in length, such as before a pause and at the
    end."""
    for blocks in reader._data_blocks[5].values():
        blocks["cumsum"] = np.cumsum(blocks["size"] // 2) - blocks["size"] // 2


def _plexon_pieces(reader: Any, stream: int, rate: float) -> list[_Piece]:
    """What was recorded without a pause, by the time stamps of the first channel's data blocks. All but the very last sample:
    where that is asked for, neo 0.14 gives zeros for the whole last block."""
    stream_id = reader.header["signal_streams"][stream]["id"]
    channels = reader.header["signal_channels"]
    channel = int(channels["id"][channels["stream_id"] == stream_id][0])
    blocks = reader._data_blocks[5][channel]
    times = blocks["timestamp"] / reader._global_ssampling_rate
    ends = times + blocks["size"] // 2 / rate
    begins = np.concatenate([[0], np.flatnonzero(np.abs(times[1:] - ends[:-1]) > 1.5 / rate) + 1])
    firsts = [*blocks["cumsum"][begins].tolist(), int(reader.get_signal_size(0, 0, stream)) - 1]
    return [
        _Piece(number, 0, 0, first, following - first, float(times[begin]))
        for number, (first, following, begin) in enumerate(zip(firsts, firsts[1:], begins, strict=False))
    ]


def _listing(pieces: list[_Piece], rate: float) -> str:
    shown = ", ".join(
        f"{piece.number} ({piece.n_samples / rate:.3f} s from {piece.start_time_s:.3f} s)" for piece in pieces[:20]
    )
    return shown + (f" and {len(pieces) - 20} more" if len(pieces) > 20 else "")
