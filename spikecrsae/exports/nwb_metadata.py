"""What an NWB file says of its session besides the spikes: from a YAML file, from the recording, or not known."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spikecrsae.errors import InputError, UsageError
from spikecrsae.system.files import refuse_unreadable
from spikecrsae.system.text import read_text, unknown_name

_MOST_MB = 1
_TEXTS = (
    "session_description", "session_id", "experiment_description", "institution", "lab", "protocol", "pharmacology", "surgery",
    "virus", "slices", "data_collection", "stimulus_notes",
)  # fmt: skip
_LISTS = ("experimenter", "keywords", "related_publications")
#: What may stand in the file, under NWB's own names: of the session, the subject, the device, and electrodes.
SESSION = ("session_start_time", *_TEXTS, *_LISTS)
SUBJECT = (
    "subject_id", "species", "sex", "age", "age__reference", "date_of_birth", "description", "genotype", "strain", "weight",
)  # fmt: skip
DEVICE = ("name", "description", "manufacturer")
ELECTRODE_TEXTS, ELECTRODE_NUMBERS = ("location", "filtering", "reference"), ("x", "y", "z", "imp")
_DATES = ("session_start_time", "date_of_birth")
#: The sections of metadata files for NeuroConv.
_SECTIONS = {"NWBFile": None, "Subject": "subject", "Device": "device", "Electrodes": "electrodes"}


@dataclass(frozen=True)
class SessionMetadata:
    """Values by NWB's names. session, subject, device: arguments of NWBFile, Subject and Device. electrodes: columns of all
    channels; of_channel: columns of some, by the channel's name."""

    session: dict[str, Any] = field(default_factory=dict)
    subject: dict[str, Any] = field(default_factory=dict)
    device: dict[str, Any] = field(default_factory=dict)
    electrodes: dict[str, Any] = field(default_factory=dict)
    of_channel: dict[str, dict[str, Any]] = field(default_factory=dict)

    def over(self, other: SessionMetadata) -> SessionMetadata:
        """These values, and those of `other` where there are none."""
        names = set(self.of_channel) | set(other.of_channel)
        # a value for all channels that is given goes before another source's value for one
        rest = {
            name: {k: v for k, v in values.items() if k not in self.electrodes} for name, values in other.of_channel.items()
        }
        return SessionMetadata(
            other.session | self.session,
            other.subject | self.subject,
            other.device | self.device,
            other.electrodes | self.electrodes,
            {name: rest.get(name, {}) | self.of_channel.get(name, {}) for name in names},
        )


def read_metadata(path: str | Path) -> SessionMetadata:
    """The metadata in a YAML file; docs/formats.md lists what it may hold.

    Raises UsageError for a name or a value that it may not hold, or where no YAML parser is installed (one comes with the extra
    nwb), InputError where the file cannot be read.
    """
    path = Path(path)
    try:
        from ruamel.yaml import YAML, YAMLError
    except ImportError as error:
        raise UsageError(
            "a YAML file needs packages that come with pynwb; install them with pip install 'spikecrsae[nwb]'."
        ) from error
    refuse_unreadable(path, "the metadata")
    try:
        values = YAML(typ="safe", pure=True).load(read_text(path, _MOST_MB))
    except (YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as YAML: {' '.join(str(error).split())[:300]}. Correct it.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold names with values; write lines such as institution: University of Lund.")
    try:
        return _metadata(values)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def _metadata(values: dict[Any, Any]) -> SessionMetadata:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        target = _SECTIONS.get(str(name), str(name))
        flat |= _mapping("NWBFile", value) if target is None else {target: value}
    electrodes = flat.pop("electrodes", None) or {}
    subject, device = (_mapping(name, flat.pop(name, None) or {}) for name in ("subject", "device"))
    _refuse_unknown("", flat, (*SESSION, "subject", "device", "electrodes"))
    _refuse_unknown("in subject: ", subject, SUBJECT)
    _refuse_unknown("in device: ", device, DEVICE)
    common, of_channel = {}, {}
    if isinstance(electrodes, list):
        for entry in electrodes:
            entry = _mapping("an electrode", entry)
            if "channel" not in entry:
                raise UsageError("each entry of electrodes needs the name of its channel, such as channel: CSC1.")
            channel = str(entry.pop("channel"))
            of_channel[channel] = _electrode(entry)
    else:
        common = _electrode(_mapping("electrodes", electrodes))
    session, subject = ({name: _value(name, value) for name, value in given.items()} for given in (flat, subject))
    return SessionMetadata(session, subject, {k: _text(k, v) for k, v in device.items()}, common, of_channel)


def _refuse_unknown(where: str, given: dict[str, Any], known: tuple[str, ...]) -> None:
    for name in given:
        if name not in known:
            raise UsageError(where + unknown_name(name, known, f"there are {', '.join(known)}"))


def _mapping(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} = {value!r} must be names with values.")
    return {str(key): inner for key, inner in value.items()}


def _value(name: str, value: Any) -> Any:
    if name in _DATES:
        return _time(name, value)
    if name in _LISTS:
        return [_text(name, one) for one in (value if isinstance(value, list) else [value])]
    return _text(name, value)


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).strip():
        raise UsageError(f"{name} = {value!r} must be a text.")
    return str(value)


def _time(name: str, value: Any) -> datetime.datetime:
    """A date with a time, in the time zone of this computer where it has none."""
    try:
        found = datetime.datetime.fromisoformat(value.strip()) if isinstance(value, str) else value
        if isinstance(found, datetime.date) and not isinstance(found, datetime.datetime):
            found = datetime.datetime.combine(found, datetime.time())
        return found if found.tzinfo else found.astimezone()
    except (ValueError, AttributeError, OverflowError) as error:
        raise UsageError(f"{name} = {value!r} must be a date and time, such as 2024-03-05T09:30:00+01:00.") from error


def _electrode(values: dict[str, Any]) -> dict[str, Any]:
    _refuse_unknown("in electrodes: ", values, (*ELECTRODE_TEXTS, *ELECTRODE_NUMBERS))
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name in ELECTRODE_TEXTS:
            found[name] = _text(name, value)
        elif isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UsageError(f"{name} = {value!r} of electrodes must be a number.")
        else:
            found[name] = float(value)
    return found
