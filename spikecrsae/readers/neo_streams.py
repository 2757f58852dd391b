"""Which stream of a neo reader, and which of its channels, a recording is made of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers.hdf5 import WHY_NO_SNIPPETS
from spikecrsae.readers.neo_files import Named
from spikecrsae.readers.neural import (
    LOWEST_RATE,
    NotNeuralError,
    is_other_input,
    microvolts,
    natural_key,
    neural_channels,
    why_no_current,
)
from spikecrsae.readers.read_options import ReadOptions
from spikecrsae.readers.streams import StreamReader
from spikecrsae.system.text import counted

#: Streams to prefer where several carry neurons: the wide band beside its own high-passed copy (Plexon's SPKC, AlphaOmega's
#: SPK), the electrodes beside what else an amplifier records.
_PREFERRED = re.compile(r"RH[DS]2000 amplifier channel|WB-Wideband|Raw Analog")
#: Formats with one file or one block per channel: neo lists their channels by name, CSC10 before CSC2.
_BY_NAME = ("Neuralynx", "AlphaOmega", "Med")


@dataclass(frozen=True)
class _Stream:
    """A signal stream and those of its channels that are stored in what was named, as rows of the header's signal_channels."""

    number: int
    name: str
    id: str
    rate: float
    rows: np.ndarray
    is_electrodes: bool

    @property
    def short(self) -> str:
        """CH for Open Ephys' Signals CH."""
        return self.name.replace("Signals ", "")

    @property
    def is_neural(self) -> bool:
        """Whether it is fast enough for spikes too."""
        return self.is_electrodes and self.rate >= LOWEST_RATE

    @property
    def described(self) -> str:
        return f"{self.number} {self.name!r} ({counted(len(self.rows), 'channel')} at {self.rate:g} Hz)"


def choose_signals(
    reader: Any, format: str, path: Path, named: Named, options: ReadOptions
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(rows of the header's signal_channels, in the order of the recording's channels; notes): the channels of the stream that is
    asked for, by its name, id or number or by the names of channels; of the only one; or of the only one with neurons.

    Raises UsageError where several streams leave a choice, or the stream does not exist; InputError where there is no continuous
    signal; NotNeuralError where no stream carries neurons and none is asked for.
    """
    channels = reader.header["signal_channels"]
    streams = _streams(reader, named)
    if not streams:
        if len(reader.header["spike_channels"]):
            raise InputError(f"{path} holds only detected spikes and no continuous recording: {WHY_NO_SNIPPETS}.")
        raise InputError(f"{path} holds no continuous signal; give the file that does.")
    listing = ", ".join(stream.described for stream in streams)
    notes: tuple[str, ...] = ()
    if options.stream is not None:
        chosen = [_asked_for(streams, str(options.stream), path, listing)]
    else:
        chosen = _with_channels(reader, format, path, streams, options)
        chosen = chosen or _neural(reader, format, path, streams, listing, options)
        if len(streams) > len(chosen):
            taken = ", ".join(repr(stream.name) for stream in chosen)
            notes = (f"stream {taken} is read, of {listing}; --stream chooses another",)
    rows = np.concatenate([stream.rows for stream in chosen])
    if format in _BY_NAME:
        rows = np.array(sorted(rows, key=lambda row: natural_key(str(channels["name"][row]))))
    return rows, notes


def _streams(reader: Any, named: Named) -> list[_Stream]:
    """The streams that have a channel in what was named."""
    channels, found = reader.header["signal_channels"], []
    units = channels["units"][named.rows]
    has_voltages = any(microvolts(str(unit)) is not None for unit in units)
    for number, stream in enumerate(reader.header["signal_streams"]):
        rows = named.rows[channels["stream_id"][named.rows] == stream["id"]]
        if not len(rows):
            continue
        name, rate = str(stream["name"]), float(channels["sampling_rate"][rows[0]])
        good = neural_channels(channels["name"][rows].tolist(), channels["units"][rows].tolist(), has_voltages)
        own = reader.stream_of_name[name] if isinstance(reader, StreamReader) else None
        is_electrodes = own.neural if own else bool(_PREFERRED.fullmatch(name)) or not is_other_input(name)
        found.append(_Stream(number, name, str(stream["id"]), rate, rows, bool(good) and is_electrodes))
    return found


def _asked_for(streams: list[_Stream], wanted: str, path: Path, listing: str) -> _Stream:
    for known in ("name", "id", "number", "short"):
        matching = [stream for stream in streams if str(getattr(stream, known)) == wanted]
        if len(matching) == 1:
            return matching[0]
    raise UsageError(f"{path} has no single stream {wanted!r}; there are {listing}.")


def _with_channels(reader: Any, format: str, path: Path, streams: list[_Stream], options: ReadOptions) -> list[_Stream]:
    """The streams of one recording that have all channels that are asked for by name; empty where none is, or none has.

    Raises UsageError where several have them, as two probes, and not one alone is of electrodes.
    """
    wanted = {channel for channel in options.channels or () if isinstance(channel, str)}
    found: dict[object, list[_Stream]] = {}
    for first in streams if wanted else ():
        kind = _kind(reader, format, first)
        alike = [stream for stream in streams if _kind(reader, format, stream) == kind]
        if wanted <= {str(name) for stream in alike for name in reader.header["signal_channels"]["name"][stream.rows]}:
            found[kind] = alike
    choices = list(found.values())
    for is_better in (lambda stream: stream.is_neural, lambda stream: _PREFERRED.fullmatch(stream.name)):
        choices = [alike for alike in choices if any(map(is_better, alike))] or choices
    if len(choices) > 1:
        listing = ", ".join(stream.described for alike in choices for stream in alike)
        raise UsageError(f"{path} has {', '.join(sorted(wanted))} in several streams: {listing}; choose one with --stream.")
    return choices[0] if choices else []


def _neural(
    reader: Any, format: str, path: Path, streams: list[_Stream], listing: str, options: ReadOptions
) -> list[_Stream]:
    """The stream with neurons; several that are one recording; the only one where channels are asked for."""
    neural = [stream for stream in streams if stream.is_neural]
    if not neural and options.channels is not None and len(streams) == 1:
        return streams
    if not neural:
        units = reader.header["signal_channels"]["units"][np.concatenate([stream.rows for stream in streams])].tolist()
        spikes = " and detected spikes" if len(reader.header["spike_channels"]) else ""
        slow = all(stream.rate < LOWEST_RATE for stream in streams)
        shown = [stream for stream in streams if stream.is_electrodes] or streams
        what = f"only field potentials (below {LOWEST_RATE:g} Hz){spikes}" if slow else f"no signal of electrodes{spikes}"
        raise NotNeuralError(
            f"{path} holds {what}: {listing}. Spikes are sorted from the continuous wide-band signal; give the file that has it. To read "
            f"this all the same, give --stream or --channels.{why_no_current(units)}",
            **({"stream": shown[0].number} if len(shown) == 1 else {}),
        )
    preferred = [stream for stream in neural if _PREFERRED.fullmatch(stream.name)]
    for choice in (neural, preferred):
        if len(choice) == 1 or (choice and len({_kind(reader, format, stream) for stream in choice}) == 1):
            return choice
    raise UsageError(f"{path} holds several streams: {listing}; choose one with --stream.")


def _kind(reader: Any, format: str, stream: _Stream) -> object:
    """What streams share that are one recording: Neuralynx channels of one rate and one filter, whatever their input ranges."""
    if format != "Neuralynx":
        return stream.number
    channel = reader.header["signal_channels"][stream.rows[0]]
    facts = reader.file_headers[reader.ncs_filenames[channel["name"], channel["id"]]]
    n_samples = tuple(reader.get_signal_size(0, segment, stream.number) for segment in range(reader.segment_count(0)))
    return stream.rate, n_samples, *(str(facts.get(name)) for name in ("DspLowCutFrequency", "DspHighCutFrequency"))
