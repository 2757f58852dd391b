"""Where readers of neo 0.14 fail or divide what belongs together; each is to be reported there."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from spikecrsae.readers.assemble import microvolts

_STREAM_NAME = 128


class _LowerSuffix(type(Path())):  # type: ignore[misc]
    """A path whose ending reads in small letters."""

    @property
    def suffix(self) -> str:
        return str(super().suffix.lower())


def read_endings_in_capitals() -> None:
    """Let neo's reader of Intan's files take .RHD and .RHS."""
    import neo.rawio.intanrawio as module

    module.Path = _LowerSuffix


def group_spike2(reader: Any) -> None:
    """Make one stream, named after its channels, of all channels of a Spike2 file with one rate, type and length.

    neo makes a stream of each gain and offset, and names none. The reader was opened with try_signal_grouping=False.
    """
    channels = reader.header["signal_channels"]
    keys: dict[tuple, list[int]] = {}
    for index, channel in enumerate(channels):
        own = int(channel["id"])
        lengths = tuple(int(blocks["size"].sum()) for blocks in reader._by_seg_data_blocks[own])
        is_voltage = microvolts(str(channel["units"])) is not None
        key = (float(channel["sampling_rate"]), str(channel["dtype"]), is_voltage, lengths)
        keys.setdefault(key, []).append(index)
    streams = np.zeros(len(keys), reader.header["signal_streams"].dtype)
    for number, members in enumerate(keys.values()):
        channels["stream_id"][members] = str(number)
        names = [str(channels["name"][i]) or str(channels["id"][i]) for i in members]
        streams[number] = (", ".join(names)[:_STREAM_NAME], str(number), "")
    reader.header["signal_streams"] = streams
    reader._sig_dtypes = {str(number): np.dtype(key[1]) for number, key in enumerate(keys)}


def read_rates_as_numbers() -> None:
    """Let neo's reader of Open Ephys' binary format take a `sample_rate` that is a text, as GUI 0.4.5 writes it."""
    import neo.rawio.openephysbinaryrawio as module

    def number(values: dict) -> dict:
        return {key: float(value) if key == "sample_rate" else value for key, value in values.items()}

    module.json = SimpleNamespace(load=lambda file: json.load(file, object_hook=number))
