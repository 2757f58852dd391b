"""SpikeGLX: facts from .meta, samples from .bin, or from .cbin (mtscomp).

After the SpikeGLX metadata guide and its SpikeGLX_Datafile_Tools. Not through neo 0.14, which opens no NP1110, no metadata
without a probe's part number or channel map, and counts digital words among the analog channels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikecrsae.errors import InputError
from spikecrsae.readers.binary import raw_rows
from spikecrsae.readers.mtscomp import unpacked
from spikecrsae.readers.streams import Read, Stream, StreamReader, StreamSegment

#: Tables of probes with thousands of channels have a few MB.
_MOST_MB = 16
_INT16 = np.dtype("<i2")
#: Gains that a Neuropixels 1.0 channel can be set to; columns of the imro table hold other things for other probes.
_GAINS_1_0 = {50, 125, 250, 500, 1000, 1500, 2000, 3000}
#: Probes of the first 2.0 types, whose metadata may lack both.
_TYPES_2_0, _GAIN_2_0, _LARGEST_2_0 = ("21", "24"), 80.0, 8192.0
#: Where the numbers of saved channels stand, by kind of channel, for imec probes, the OneBox and NI devices.
_COUNTS = {
    "snsApLfSy": ("AP", "LF", "SY"),
    "snsXaDwSy": ("XA", "DW", "SY"),
    "snsMnMaXaDw": ("MN", "MA", "XA", "DW"),
}
_NAME = re.compile(
    r"(?:_g(?P<gate>\d+))?(?:_t(?P<trigger>\d+|cat))?\.(?P<device>imec\d*|obx\d*|nidq)(?:\.(?P<band>ap|lf|obx))?$"
)


@dataclass(frozen=True)
class _File:
    """One .meta with its samples. order: gate and trigger. counts: saved channels of each kind, in the order of the columns."""

    meta: dict[str, str]
    path: Path
    stream: str
    order: tuple[int, int]
    counts: dict[str, int]
    rate: float
    segment: StreamSegment


def read_spikeglx(place: Path) -> StreamReader:
    """The streams of one .bin, .cbin or .meta, or of all below a folder, whose gates and triggers are segments.

    Raises InputError where metadata lack what the samples cannot be read without, or two files are the same part of a stream.
    """
    metas = sorted(place.rglob("*.meta")) if place.is_dir() else [place.with_suffix(".meta")]
    files: dict[str, dict[tuple[int, int], _File]] = {}
    for path in metas:
        file = _open(path)
        parts = files.setdefault(file.stream, {})
        if file.order in parts:
            raise InputError(
                f"{place}: {parts[file.order].path.name} and {path.name} are the same gate and trigger of {file.stream}; give one of them."
            )
        parts[file.order] = file
    streams = [
        stream for name in sorted(files, key=_rank) for stream in _streams([files[name][o] for o in sorted(files[name])])
    ]
    has_ap = any(stream.name.endswith(".ap") for stream in streams)
    neural = [s for s in streams if s.neural and (s.name.endswith(".ap") or not has_ap)]
    return StreamReader([s if s in neural else Stream(**{**vars(s), "neural": False}) for s in streams])


def _rank(stream: str) -> tuple[int, str]:
    """Action potentials first, then other analog signals, then field potentials."""
    return (stream.endswith(".lf") - stream.endswith(".ap"), stream)


def _meta(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        lines = file.read(min(path.stat().st_size, _MOST_MB * 2**20)).decode("utf-8", "replace").splitlines()
    return {key.lstrip("~"): value.strip() for key, found, value in (line.partition("=") for line in lines) if found}


def _open(path: Path) -> _File:
    meta = _meta(path)
    kinds = next((name for name in _COUNTS if name in meta), None)
    rate = next((float(meta[name]) for name in ("imSampRate", "niSampRate", "obSampRate") if name in meta), None)
    if kinds is None or rate is None or "nSavedChans" not in meta:
        raise InputError(
            f"{path} does not say its channels and rate (nSavedChans, one of {', '.join(_COUNTS)}, and imSampRate, niSampRate or "
            "obSampRate); copy the metadata again, or give the .bin as raw binary with --n-channels, --dtype and --sampling-frequency."
        )
    counts = dict(zip(_COUNTS[kinds], map(int, meta[kinds].split(",")), strict=True))
    n = int(meta["nSavedChans"])
    if sum(counts.values()) != n:
        raise InputError(
            f"{path}: {kinds}={meta[kinds]} does not add up to nSavedChans={n}; the metadata are damaged; use another copy."
        )
    # a file that was renamed keeps its first name in the metadata
    named = _NAME.search(path.stem) or _NAME.search(Path(meta.get("fileName", "").replace("\\", "/")).stem)
    device = named["device"] if named else meta.get("typeThis", "imec")
    band = ("ap" if counts.get("AP") else "lf") if "AP" in counts else ""
    order = tuple(-1 if not named or named[key] in (None, "cat") else int(named[key]) for key in ("gate", "trigger"))
    n_samples, read = _samples(path, n)
    start = float(meta.get("firstSample", 0)) / rate
    stream = f"{device}.{band}" if band else device
    return _File(meta, path, stream, (order[0], order[1]), counts, rate, StreamSegment(start, n_samples, read))


def _samples(meta: Path, n_channels: int) -> tuple[int, Read]:
    raw, packed = meta.with_suffix(".bin"), meta.with_suffix(".cbin")
    if raw.is_file():
        return raw.stat().st_size // (2 * n_channels), raw_rows(raw, _INT16, n_channels)
    content = unpacked(packed)
    if content.n_channels != n_channels or content.dtype != _INT16:
        raise InputError(
            f"{packed} has {content.n_channels} channels of {content.dtype}, and {meta.name} says {n_channels} of int16; they do not belong "
            "together. Copy both again."
        )
    return content.n_samples, content.read


def _streams(files: list[_File]) -> list[Stream]:
    """Analog channels, and where there are any the channels of digital words and synchronisation, of one stream's files."""
    first, n = files[0], sum(files[0].counts.values())
    if any(file.counts != first.counts or file.rate != first.rate for file in files):
        raise InputError(
            f"{first.path.parent}: the files of {first.stream} differ in channels or rate; give one file, or sort them one by one."
        )
    kinds = [kind for kind, count in first.counts.items() for _ in range(count)]
    entries = _table(first.meta.get("snsChanMap", ""))[1:]
    saved = _saved(first)
    names = (
        [entry.split(";")[0] for entry in entries]
        if len(entries) == n
        else [f"{k}{i}" for k, i in zip(kinds, saved, strict=True)]
    )
    gains, unit = _scale(first, kinds, saved)
    digital = np.array([kind in ("SY", "DW") for kind in kinds])
    found = []
    for columns, name in ((np.flatnonzero(~digital), first.stream), (np.flatnonzero(digital), f"{first.stream}-SYNC")):
        if len(columns):
            segments = [
                StreamSegment(f.segment.start_time_s, f.segment.n_samples, _columns(f.segment.read, columns)) for f in files
            ]
            is_analog = not digital[columns[0]]
            found.append(
                Stream(
                    name=name,
                    rate=first.rate,
                    dtype=_INT16,
                    names=[names[c] for c in columns],
                    units=[unit if is_analog else ""] * len(columns),
                    gains=gains[columns] if is_analog else np.ones(len(columns)),
                    offsets=np.zeros(len(columns)),
                    segments=segments,
                    positions=_positions(first, saved, columns) if is_analog else None,
                    neural=is_analog,
                )
            )
    return found


def _columns(read: Read, columns: np.ndarray) -> Read:
    return lambda start, stop: read(start, stop)[:, columns]


def _table(text: str) -> list[str]:
    """Entries of a table, (header)(entry)(entry)..."""
    return re.findall(r"\(([^()]*)\)", text)


def _saved(file: _File) -> list[int]:
    """Of each saved channel its number among the acquired ones of its kind: probes save any subset."""
    kinds = next(name for name in _COUNTS if name in file.meta)
    acquired = list(map(int, file.meta.get(kinds.replace("sns", "acq"), file.meta[kinds]).split(",")))
    ends = np.cumsum(acquired)
    named = file.meta.get("snsSaveChanSubset", "all")
    chosen: list[int] = []
    for part in named.split(",") if re.fullmatch(r"[\d:,]+", named) else []:
        low, _, high = part.partition(":")
        chosen.extend(range(int(low), int(high or low) + 1))
    numbers: list[int] = []
    for kind, (end, has) in enumerate(zip(ends, acquired, strict=True)):
        count = list(file.counts.values())[kind]
        own = [number - (end - has) for number in chosen if end - has <= number < end]
        numbers.extend(int(number) for number in (own if len(own) == count else range(count)))
    return numbers


def _scale(file: _File, kinds: list[str], saved: list[int]) -> tuple[np.ndarray, str]:
    """(gain of each saved channel, unit): volts per stored number are range / largest number / amplifier's gain. Without a
    gain in the metadata the unit is empty."""
    meta = file.meta
    if "AP" in file.counts:
        is_2_0 = meta.get("imDatPrb_type") in _TYPES_2_0
        step = float(meta["imAiRangeMax"]) / float(meta.get("imMaxInt", _LARGEST_2_0 if is_2_0 else 512))
        factors = [_probe_gain(meta, kind, channel, is_2_0) for kind, channel in zip(kinds, saved, strict=True)]
    elif "XA" in file.counts and "SY" in file.counts:
        step, factors = float(meta["obAiRangeMax"]) / float(meta["obMaxInt"]), [1.0] * len(kinds)
    else:
        step = float(meta["niAiRangeMax"]) / float(meta.get("niMaxInt", 32768))
        gains = {"MN": float(meta.get("niMNGain", 1)), "MA": float(meta.get("niMAGain", 1))}
        factors = [gains.get(kind, 1.0) for kind in kinds]
    if any(factor is None for factor in factors):
        return np.ones(len(kinds)), ""
    return 1e6 * step / np.array(factors, np.float64), "uV"


def _probe_gain(meta: dict[str, str], kind: str, channel: int, is_2_0: bool) -> float | None:
    """Gain of a probe's channel: in its row of the imro table, else one for all of the probe."""
    if kind == "SY":
        return 1.0
    header, *rows = [entry.replace(",", " ").split() for entry in _table(meta.get("imroTbl", "")) or [""]]
    column = 3 if kind == "AP" else 4
    if channel < len(rows) and all(len(row) > 4 and float(row[3]) in _GAINS_1_0 for row in rows):
        return float(rows[channel][column])
    if f"imChan0{kind.lower()}Gain" in meta:
        return float(meta[f"imChan0{kind.lower()}Gain"])
    if header[:1] == ["1110"] and len(header) > 4:
        return float(header[-3 if kind == "AP" else -2])
    return _GAIN_2_0 if is_2_0 else None


def _positions(file: _File, saved: list[int], columns: np.ndarray) -> np.ndarray | None:
    """(n_channels, 2) in um by the geometry map, shanks side by side; None where the metadata have none."""
    header, *entries = _table(file.meta.get("snsGeomMap", "")) or [""]
    own = list(range(len(columns))) if len(entries) == len(columns) else [saved[c] for c in columns]
    if len(header.split(",")) < 3 or max(own) >= len(entries):
        return None
    pitch = float(header.split(",")[2])
    places = [[float(number) for number in entries[channel].split(":")] for channel in own]
    return np.array([[shank * pitch + x, z] for shank, x, z, *_ in places])
