"""Everything that neo.rawio reads (Intan, Open Ephys, SpikeGLX, Blackrock, Neuralynx, Plexon, Spike2, ...), lazily."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers.assemble import Found, assemble, microvolts, one_line
from spikecrsae.readers.hdf5 import WHY_NO_SNIPPETS
from spikecrsae.readers.options import ReadOptions, parse_channels
from spikecrsae.recording import Recording, joined

logger = logging.getLogger(__name__)

#: Files by which a folder is known, and the reader it then belongs to.
_FOLDER_MARKS = {
    "structure.oebin": "OpenEphysBinaryRawIO",
    "*.continuous": "OpenEphysRawIO",
    "*.ncs": "NeuralynxRawIO",
    "*.meta": "SpikeGLXRawIO",
    "*.tsq": "TdtRawIO",
    "*.tbk": "TdtRawIO",
    "*.lsx": "AlphaOmegaRawIO",
    "*.mpx": "AlphaOmegaRawIO",
    "*.timd": "MedRawIO",
}
_DEPTH = 5
#: Not asked: the raw reader assumes a rate and a channel count, MEArec has a reader of ours, Maxwell is known by content,
#: Phy is no recording, and Plexon2 fetches a Windows library from the network and runs it.
_LEFT_OUT = ("RawBinarySignalRawIO", "MEArecRawIO", "MaxwellRawIO", "PhyRawIO", "Plexon2RawIO")
#: Endings that say nothing by themselves; a companion file or the content decides.
_AMBIGUOUS = ("", ".bin", ".dat", ".raw", ".xml", ".json", ".txt", ".npy", ".mat", ".tsv", ".h5", ".eeg", ".set")

Candidate = tuple[str, dict[str, Any]]


def read_neo(path: Path, options: ReadOptions) -> Recording:
    """A Recording over one signal stream of what neo finds at `path` (a file or a folder): one segment, or all of them as parts.

    Raises InputError where no reader of neo opens it, or only detected waveforms are in it; UsageError where there are
    several streams and no choice, or the segment does not exist.
    """
    possible = neo_candidates(path)
    if not possible:
        raise InputError(_unknown(path))
    options.refuse_others(path, "a format read by neo", ("stream", "segment"))
    failures = []
    for name, arguments in possible:
        try:
            reader = _open(name, arguments)
        # Third-party parsers raise anything on files that are not theirs or are damaged.
        except Exception as error:
            failures.append(f"{name.removesuffix('RawIO')}: {one_line(error)}")
            continue
        return _all_segments(reader, name.removesuffix("RawIO"), path, options)
    raise InputError(f"{path} cannot be read by neo ({'; '.join(failures)}).")


def _unknown(path: Path) -> str:
    """Why nothing reads `path`, and what to do."""
    if path.is_dir():
        files = [p for p in sorted(path.iterdir()) if p.is_file()]
        inside = [p.name for p in files if p.suffix.lower() in (".h5", ".hdf5", ".nwb") or neo_candidates(p)]
        if inside:
            return (
                f"{path} is a folder that no reader takes as a whole; give one file of it, such as {', '.join(inside[:5])}."
            )
        return f"{path}: no reader knows this folder; give the recording in it, or the folder that its program wrote."
    if path.suffix.lower() == ".pl2":
        return f"{path}: PL2 files need Plexon's own Windows library; convert to .plx or NWB with Plexon's tools."
    return (
        f"{path}: no reader knows this file; there are readers for HDF5, MEArec, NWB, raw binary "
        "(with --sampling-frequency, --n-channels and --dtype) and the formats of neo."
    )


def neo_candidates(path: Path) -> list[Candidate]:
    """Readers of neo that may know `path`, each with its arguments; empty where none does."""
    if path.is_dir():
        return _folder_candidates(path)
    suffix = path.suffix.lower()
    if suffix in _AMBIGUOUS:
        return _companion_candidates(path, suffix)
    import neo.rawio

    found: list[Candidate] = []
    for kind in neo.rawio.rawiolist:
        if kind.__name__ in _LEFT_OUT or suffix[1:] not in [e.lower() for e in kind.extensions]:
            continue
        arguments = {"dirname": str(path.parent)} if kind.rawmode == "one-dir" else {"filename": str(path)}
        if kind.__name__ == "NeuralynxRawIO":
            arguments["include_filenames"] = [path.name]
        if kind.__name__ == "PlexonRawIO":
            arguments["progress_bar"] = False
        if kind.__name__ == "BlackrockRawIO" and suffix[1:3] == "ns":
            arguments["nsx_to_load"] = int(suffix[3:])
        found.append((kind.__name__, arguments))
    return found


def _folder_candidates(folder: Path) -> list[Candidate]:
    for name in ("info.rhd", "info.rhs"):
        if (folder / name).is_file():
            return [("IntanRawIO", {"filename": str(folder / name)})]
    for mark, reader in _FOLDER_MARKS.items():
        if any(next(folder.glob("*/" * depth + mark), None) for depth in range(_DEPTH)):
            return [(reader, {"dirname": str(folder)})]
    return []


def _companion_candidates(path: Path, suffix: str) -> list[Candidate]:
    """Readers for an ending that many formats share, where a second file or the first bytes say which it is."""
    name = str(path)
    if suffix == ".bin" and path.with_suffix(".meta").is_file():
        return [("SpikeGLXRawIO", {"dirname": str(path.parent)})]
    if suffix in (".bin", ".set") and path.with_suffix(".set").is_file():
        return [("AxonaRawIO", {"filename": name})]
    if suffix == ".xml":
        return [("NeuroScopeRawIO", {"filename": name})]
    if suffix in (".dat", ".eeg") and path.with_suffix(".xml").is_file():
        return [("NeuroScopeRawIO", {"filename": str(path.with_suffix(".xml")), "binary_file": name})]
    if suffix == ".eeg" and path.with_suffix(".vhdr").is_file():
        return [("BrainVisionRawIO", {"filename": str(path.with_suffix(".vhdr"))})]
    if suffix == ".eeg" and path.with_name(path.name + ".ent").is_file():
        return [("ElanRawIO", {"filename": name})]
    if suffix == ".json":
        return [("NeuroNexusRawIO", {"filename": name})]
    if suffix == ".raw" and _starts_with(path, b"MCS_DATA_TOOLS"):
        return [("RawMCSRawIO", {"filename": name})]
    for folder in path.parents[:3]:
        if (folder / "structure.oebin").is_file():
            return [("OpenEphysBinaryRawIO", {"dirname": str(folder)})]
    if suffix == ".h5":
        return [("MaxwellRawIO", {"filename": name})]
    return []


def _starts_with(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(mark)) == mark


def _open(name: str, arguments: dict[str, Any]) -> Any:
    """The reader with its header parsed; what neo warns of goes to the log."""
    import neo.rawio

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        reader = getattr(neo.rawio, name)(**arguments)
        reader.parse_header()
    for warning in caught:
        logger.info("neo: %s", warning.message)
    return reader


def _all_segments(reader: Any, format: str, path: Path, options: ReadOptions) -> Recording:
    """The segment that is wanted, or all that hold samples, one after the other."""
    stream = _choose_stream(reader, path, options.stream)
    segments = _choose_segments(reader, stream, path, options.segment)
    if len(segments) == 1:
        return assemble(_find(reader, format, path, options, stream, *segments[0][1:]), options)
    parts = replace(options, start_s=None, stop_s=None)
    recordings = [assemble(_find(reader, format, path, options, stream, *place), parts) for _, *place in segments]
    recording = joined(recordings, [f"{path}, segment {number}" for number, *_ in segments])
    note = (
        f"{len(segments)} segments are read one after the other, {_listing(reader, stream, segments)}; --segment chooses one"
    )
    return replace(recording, notes=(*recording.notes, note)).between(options.start_s, options.stop_s)


def _find(reader: Any, format: str, path: Path, options: ReadOptions, stream: int, block: int, segment: int) -> Found:
    stream_id = reader.header["signal_streams"][stream]["id"]
    channels = reader.header["signal_channels"]
    channels = channels[channels["stream_id"] == stream_id]
    unit, gain, offset, note = _scale(channels, options)

    def read(start: int, stop: int) -> np.ndarray:
        return reader.get_analogsignal_chunk(
            block_index=block, seg_index=segment, i_start=start, i_stop=stop, stream_index=stream
        )

    return Found(
        path=path,
        format=f"neo {format}",
        read=read,
        n_samples=int(reader.get_signal_size(block, segment, stream)),
        n_channels=len(channels),
        dtype=np.dtype(str(channels["dtype"][0])),
        unit=unit,
        sampling_frequency=float(channels["sampling_rate"][0]),
        gain=gain,
        offset=offset,
        channel_ids=[str(i) for i in channels["id"]],
        start_time_s=float(reader.get_signal_t_start(block, segment, stream)),
        notes=note,
    )


def _scale(channels: np.ndarray, options: ReadOptions) -> tuple[str, np.ndarray, np.ndarray, tuple[str, ...]]:
    """(unit, gain, offset, notes): to uV where every channel in use is a voltage, else the stored numbers as they are."""
    n = len(channels)
    picked = options.channels if options.channels is not None else range(n)
    picked = parse_channels(picked) if isinstance(picked, str) else picked
    factors = [microvolts(str(unit)) for unit in channels["units"]]
    others = sorted({str(channels["units"][c]) for c in picked if 0 <= c < n and factors[c] is None})
    if others:
        note = f"the unit {', '.join(map(repr, others))} is no voltage; amplitudes are in stored numbers (ADC)"
        return "ADC", np.ones(n), np.zeros(n), (note,)
    scale = np.array([1.0 if f is None else f for f in factors])
    return "uV", channels["gain"] * scale, channels["offset"] * scale, ()


def _choose_stream(reader: Any, path: Path, wanted: str | int | None) -> int:
    """Index of the signal stream of that name, id or number, or of the only one."""
    streams = reader.header["signal_streams"]
    if len(streams) == 0:
        if len(reader.header["spike_channels"]):
            raise InputError(f"{path} holds only detected spikes and no continuous recording: {WHY_NO_SNIPPETS}.")
        raise InputError(f"{path} holds no continuous signal.")
    if wanted is None:
        if len(streams) > 1:
            raise UsageError(f"{path} holds several streams: {_stream_listing(reader)}; choose one with --stream.")
        return 0
    for known in ([str(s["name"]) for s in streams], [str(s["id"]) for s in streams], [str(i) for i in range(len(streams))]):
        if known.count(str(wanted)) == 1:
            return known.index(str(wanted))
    raise UsageError(f"{path} has no single stream {wanted!r}; there are {_stream_listing(reader)}.")


def _stream_listing(reader: Any) -> str:
    channels = reader.header["signal_channels"]
    parts = []
    for index, stream in enumerate(reader.header["signal_streams"]):
        members = channels[channels["stream_id"] == stream["id"]]
        rate = f" at {members['sampling_rate'][0]:g} Hz" if len(members) else ""
        parts.append(f"{index} {str(stream['name'])!r} ({len(members)} channels{rate})")
    return ", ".join(parts)


def _choose_segments(reader: Any, stream: int, path: Path, wanted: int | None) -> list[tuple[int, int, int]]:
    """(number, block, segment) of the segment of that number, counted through all blocks, or of all that hold samples."""
    places = [(b, s) for b in range(reader.block_count()) for s in range(reader.segment_count(b))]
    segments = [(number, b, s) for number, (b, s) in enumerate(places)]
    if wanted is not None and 0 <= wanted < len(segments):
        return [segments[wanted]]
    if wanted is not None:
        raise UsageError(f"{path} has no segment {wanted}: {_listing(reader, stream, segments)}; choose one with --segment.")
    full = [(number, b, s) for number, b, s in segments if reader.get_signal_size(b, s, stream)]
    if not full:
        raise InputError(f"{path} holds no sample.")
    return full


def _listing(reader: Any, stream: int, segments: list[tuple[int, int, int]]) -> str:
    rate = reader.get_signal_sampling_rate(stream)
    shown = ", ".join(
        f"{number} ({reader.get_signal_size(b, s, stream) / rate:.3f} s from {reader.get_signal_t_start(b, s, stream):.3f} s)"
        for number, b, s in segments[:20]
    )
    return shown + (f" and {len(segments) - 20} more" if len(segments) > 20 else "")
