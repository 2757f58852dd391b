"""What a reader of neo has found as a Recording: the stream that is wanted, its segments one after the other."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from spikecrsae.data.recording import Recording, joined
from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers.assemble import Found, assemble, microvolts
from spikecrsae.readers.hdf5 import WHY_NO_SNIPPETS
from spikecrsae.readers.read_options import ReadOptions, parse_channels
from spikecrsae.readers.streams import StreamReader

#: Names of the stream with the neurons, beside auxiliary inputs, field potentials and synchronisation.
_NEURAL = re.compile(r"RH[DS]2000 amplifier channel|WB-Wideband")


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
    stream, note = _choose_stream(reader, path, options.stream)
    rate = reader.get_signal_sampling_rate(stream)
    pieces = _pieces(reader, stream, format, rate)
    wanted = options.segment
    if wanted is not None and wanted not in [piece.number for piece in pieces]:
        raise UsageError(f"{path} has no segment {wanted}: {_listing(pieces, rate)}; choose one with --segment.")
    pieces = [piece for piece in pieces if (piece.n_samples if wanted is None else piece.number == wanted)]
    if not pieces:
        raise InputError(f"{path} holds no sample.")
    whole = options if len(pieces) == 1 else replace(options, start_s=None, stop_s=None)
    recordings = [assemble(_find(reader, format, path, options, stream, piece), whole) for piece in pieces]
    if len(pieces) == 1:
        return replace(recordings[0], notes=(*recordings[0].notes, *note))
    recording = joined(recordings, [f"{path}, segment {piece.number}" for piece in pieces])
    note += (f"{len(pieces)} segments are read one after the other, {_listing(pieces, rate)}; --segment chooses one",)
    return replace(recording, notes=(*recording.notes, *note)).between(options.start_s, options.stop_s)


def _find(reader: Any, format: str, path: Path, options: ReadOptions, stream: int, piece: _Piece) -> Found:
    stream_id = reader.header["signal_streams"][stream]["id"]
    channels = reader.header["signal_channels"]
    channels = channels[channels["stream_id"] == stream_id]
    own = reader.stream_of_name[str(stream_id)] if isinstance(reader, StreamReader) else None
    # Plexon's gains are millivolts by its specification, which neo does not say
    unit, gain, offset, note = _scale(channels, "mV" if format == "Plexon" else "", options)

    def read(start: int, stop: int) -> np.ndarray:
        first, end = piece.first + start, piece.first + stop
        return reader.get_analogsignal_chunk(
            block_index=piece.block, seg_index=piece.segment, i_start=first, i_stop=end, stream_index=stream
        )

    def close() -> None:
        # Blackrock's reader leaves its files to the garbage collector
        for file in getattr(reader, "_nsx_fids", {}).values():
            file.close()
        getattr(reader, "close", lambda: None)()

    return Found(
        path=path,
        format=format if own else f"neo {format}",
        read=read,
        n_samples=piece.n_samples,
        n_channels=len(channels),
        dtype=np.dtype(str(channels["dtype"][0])),
        unit=unit,
        sampling_frequency=float(channels["sampling_rate"][0]),
        gain=gain,
        offset=offset,
        channel_ids=[str(i) for i in channels["id"]],
        positions=own.positions if own else None,
        groups=own.groups if own else _neuroscope_groups(reader, len(channels)) if format == "NeuroScope" else None,
        start_time_s=piece.start_time_s,
        notes=note,
        companions=[] if path.is_dir() else [file for file in path.parent.iterdir() if file.stem == path.stem],
        close=close,
    )


def _neuroscope_groups(reader: Any, n_channels: int) -> list[str] | None:
    """Spike group of each channel, counted from 1 as NeuroScope does, "" for none; None where the session names no spike
    groups."""
    names = [""] * n_channels
    session = ElementTree.parse(reader.filename).getroot()
    for number, group in enumerate(session.findall("spikeDetection/channelGroups/group"), start=1):
        for channel in group.findall("channels/channel"):
            if (text := (channel.text or "").strip()).isdigit() and int(text) < n_channels:
                names[int(text)] = str(number)
    return names if any(names) else None


def _scale(channels: np.ndarray, unsaid: str, options: ReadOptions) -> tuple[str, np.ndarray, np.ndarray, tuple[str, ...]]:
    """(unit, gain, offset, notes): to uV where every channel in use is a voltage, else the stored numbers as they are; `unsaid`
    is the unit where the file names none."""
    n = len(channels)
    picked = options.channels if options.channels is not None else range(n)
    picked = parse_channels(picked) if isinstance(picked, str) else picked
    factors = [microvolts(str(unit) or unsaid) for unit in channels["units"]]
    others = sorted({str(channels["units"][c]) for c in picked if 0 <= c < n and factors[c] is None})
    if others:
        note = f"the unit {', '.join(map(repr, others))} is no voltage; amplitudes are in stored numbers (ADC)"
        return "ADC", np.ones(n), np.zeros(n), (note,) if others != [""] else ()
    scale = np.array([1.0 if f is None else f for f in factors])
    return "uV", channels["gain"] * scale, channels["offset"] * scale, ()


def _choose_stream(reader: Any, path: Path, wanted: str | int | None) -> tuple[int, tuple[str, ...]]:
    """(index of the signal stream, notes): the stream of that name, id or number; the only one; or the only one with signal of
    electrodes."""
    streams = reader.header["signal_streams"]
    names = [str(s["name"]) for s in streams]
    if len(streams) == 0:
        if len(reader.header["spike_channels"]):
            raise InputError(f"{path} holds only detected spikes and no continuous recording: {WHY_NO_SNIPPETS}.")
        raise InputError(f"{path} holds no continuous signal.")
    if wanted is None:
        told = reader.neural if isinstance(reader, StreamReader) else list(filter(_NEURAL.fullmatch, names))
        neural = [i for i, name in enumerate(names) if name in told]
        if len(names) == 1:
            return 0, ()
        if len(neural) == 1:
            note = f"stream {names[neural[0]]!r} of {_stream_listing(reader)}; --stream chooses another"
            return neural[0], (note,)
        raise UsageError(f"{path} holds several streams: {_stream_listing(reader)}; choose one with --stream.")
    for known in (names, [str(s["id"]) for s in streams], [str(i) for i in range(len(streams))]):
        if known.count(str(wanted)) == 1:
            return known.index(str(wanted)), ()
    raise UsageError(f"{path} has no single stream {wanted!r}; there are {_stream_listing(reader)}.")


def _stream_listing(reader: Any) -> str:
    channels = reader.header["signal_channels"]
    parts = []
    for index, stream in enumerate(reader.header["signal_streams"]):
        members = channels[channels["stream_id"] == stream["id"]]
        rate = f" at {members['sampling_rate'][0]:g} Hz" if len(members) else ""
        parts.append(f"{index} {str(stream['name'])!r} ({len(members)} channels{rate})")
    return ", ".join(parts)


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
