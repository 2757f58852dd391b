"""What the files of a recording say of their session: when it began, and in NWB also the subject and the laboratory."""

from __future__ import annotations

import datetime
import logging
import math
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import h5py

from spikecrsae.data.recording import Recording
from spikecrsae.exports.nwb_metadata import (
    ELECTRODE_NUMBERS,
    ELECTRODE_TEXTS,
    SESSION,
    SUBJECT,
    SessionMetadata,
)
from spikecrsae.readers.nwb import electrode_facts
from spikecrsae.system.safe_hdf5 import open_hdf5, read_guarded, whole
from spikecrsae.system.text import read_text

logger = logging.getLogger(__name__)

#: A header in text is shorter.
_HEADER = 16_384
_MOST_MB = 20
#: Where Blackrock's NSx files hold year, month, day of the week, day, hour, minute, second and ms, in UTC.
_NSX_TIME = 294


def source_metadata(recording: Recording, series: str | None = None) -> SessionMetadata:
    """The metadata that the recording's own files hold; series: of an NWB file, where it has several. What is damaged or not
    there is left out."""
    try:
        if recording.format == "NWB":
            return _of_nwb(recording, series)
        find = _STARTS.get(recording.format.removeprefix("neo ").split(",")[0])
        start = find(Path(recording.source)) if find else None
    # what stands in other programs' headers may be anything
    except (OSError, ValueError, KeyError, IndexError, TypeError, ElementTree.ParseError, struct.error) as error:
        logger.debug("no metadata in %s", recording.source, exc_info=error)
        return SessionMetadata()
    if start is None:
        return SessionMetadata()
    return SessionMetadata({"session_start_time": start if start.tzinfo else start.astimezone()})


def _of_nwb(recording: Recording, series: str | None) -> SessionMetadata:
    path = Path(recording.source)
    session, subject = read_guarded(path, lambda: _texts_of_nwb(path))
    facts = electrode_facts(path, series, (*ELECTRODE_TEXTS, *ELECTRODE_NUMBERS))
    of_channel = {
        name: {key: value for key, value in facts[channel].items() if _is_known(value)}
        for name, channel in zip(recording.channel_ids, recording.channels, strict=True)
        if channel < len(facts)
    }
    return SessionMetadata(session, subject, of_channel=of_channel)


def _texts_of_nwb(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    with open_hdf5(path) as file:
        session: dict[str, Any] = {name: _stored(file, f"general/{name}") for name in SESSION}
        session |= {name: _stored(file, name) for name in ("session_start_time", "session_description")}
        subject: dict[str, Any] = {name: _stored(file, f"general/subject/{name}") for name in SUBJECT}
    for values, name in ((session, "session_start_time"), (subject, "date_of_birth")):
        values[name] = datetime.datetime.fromisoformat(values[name]) if values[name] else ""
    return {name: value for name, value in session.items() if value}, {
        name: value for name, value in subject.items() if value
    }


def _stored(file: h5py.File, name: str) -> str | list[str]:
    stored = file.get(name)
    if not isinstance(stored, h5py.Dataset) or h5py.check_string_dtype(stored.dtype) is None:
        return ""
    value = whole(stored)
    return [one.decode() for one in value] if stored.ndim == 1 else value.decode() if stored.ndim == 0 else ""


def _is_known(value: object) -> bool:
    return value not in ("", "unknown") and not (isinstance(value, float) and math.isnan(value))


def _header(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_HEADER).decode("latin-1")


def _first(place: Path, pattern: str) -> Path | None:
    """The file itself, or the first of that name in the folder."""
    return place if place.is_file() else min(place.rglob(pattern), default=None)


def _by_formats(text: str, *formats: str) -> datetime.datetime | None:
    for one in formats:
        try:
            return datetime.datetime.strptime(text.strip(), one)
        except ValueError:
            continue
    return None


def _of_spikeglx(place: Path) -> datetime.datetime | None:
    path = _first(place.with_suffix(".meta") if place.is_file() else place, "*.meta")
    found = path and re.search(r"^fileCreateTime=(.+)$", read_text(path, _MOST_MB), re.MULTILINE)
    return datetime.datetime.fromisoformat(found[1].strip()) if found else None


def _of_open_ephys(place: Path) -> datetime.datetime | None:
    """By settings.xml of the record node, which stands above the experiment."""
    above = [folder / "settings.xml" for folder in (place, *list(place.parents)[:6])]
    path = next((file for file in above if file.is_file()), None) or (
        place.is_dir() and min(place.rglob("settings.xml"), default=None)
    )
    date = ElementTree.fromstring(read_text(path, _MOST_MB)).findtext("INFO/DATE") if path else None
    return _by_formats(date or "", "%d %b %Y %H:%M:%S", "%d %b %Y %I:%M:%S%p")


def _of_old_open_ephys(place: Path) -> datetime.datetime | None:
    path = _first(place, "*.continuous")
    found = path and re.search(r"date_created\s*=\s*'([^']+)'", _header(path))
    return _by_formats(found[1], "%d-%b-%Y %H%M%S") if found else None


def _of_neuralynx(place: Path) -> datetime.datetime | None:
    path = _first(place, "*.ncs")
    header = _header(path) if path else ""
    if found := re.search(r"-TimeCreated\s+(\d+/\d+/\d+ \d+:\d+:\d+)", header):
        return _by_formats(found[1], "%Y/%m/%d %H:%M:%S")
    found = re.search(r"Time Opened.*?(\d+/\d+/\d+)\s+\(h:m:s\.ms\)\s*(\d+:\d+:\d+)", header)
    return _by_formats(f"{found[1]} {found[2]}", "%m/%d/%Y %H:%M:%S") if found else None


def _of_intan(place: Path) -> datetime.datetime | None:
    """By the name that Intan's programs give to files and folders."""
    found = re.search(r"_(\d{6}_\d{6})$", place.stem if place.is_file() else place.name)
    return _by_formats(found[1], "%y%m%d_%H%M%S") if found else None


def _of_blackrock(place: Path) -> datetime.datetime | None:
    with place.open("rb") as file:
        content = file.read(_NSX_TIME + 16)
    if content[:8] not in (b"NEURALCD", b"BRSMPGRP"):
        return None
    year, month, _, day, hour, minute, second, ms = struct.unpack_from("<8H", content, _NSX_TIME)
    return datetime.datetime(year, month, day, hour, minute, second, 1000 * ms, tzinfo=datetime.UTC)


_STARTS: dict[str, Callable[[Path], datetime.datetime | None]] = {
    "SpikeGLX": _of_spikeglx,
    "OpenEphysBinary": _of_open_ephys,
    "OpenEphys": _of_old_open_ephys,
    "Neuralynx": _of_neuralynx,
    "Intan": _of_intan,
    "Blackrock": _of_blackrock,
}
