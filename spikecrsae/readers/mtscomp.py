"""Raw samples that the International Brain Laboratory's mtscomp has packed, format 1.0: .cbin, and .ch beside it."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spikecrsae.data.recording import Recording
from spikecrsae.errors import InputError
from spikecrsae.readers.assemble import Found, assemble
from spikecrsae.readers.read_options import ReadOptions, numeric_dtype
from spikecrsae.readers.streams import Read
from spikecrsae.system.text import read_text

#: The places of the chunks of a day have a few MB.
_MOST_MB = 16


@dataclass(frozen=True)
class Packed:
    """What a .cbin holds; rate in Hz."""

    n_samples: int
    n_channels: int
    dtype: np.dtype
    rate: float
    read: Read


def read_mtscomp(path: Path, options: ReadOptions) -> Recording:
    """A Recording over a .cbin without other metadata than its .ch: all channels, in stored numbers unless --gain is given."""
    options.refuse_others(path, "a file of mtscomp", ())
    content = unpacked(path)
    found = Found(
        path=path,
        format="mtscomp",
        read=content.read,
        n_samples=content.n_samples,
        n_channels=content.n_channels,
        dtype=content.dtype,
        unit="ADC",
        sampling_frequency=content.rate,
        companions=[path.with_suffix(".ch")],
    )
    return assemble(found, options)


def unpacked(path: Path) -> Packed:
    """The content of a .cbin: chunks of a second, each deflated after differences in time and, where told, across channels.

    Raises InputError where the .ch is missing, or tells of other bytes than there are.
    """
    index = path.with_suffix(".ch")
    try:
        facts = json.loads(read_text(index, _MOST_MB))
        bounds, places, n_channels = np.array(facts["chunk_bounds"]), facts["chunk_offsets"], int(facts["n_channels"])
        dtype, rate = numeric_dtype(facts["dtype"]), float(facts["sample_rate"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: {index.name}, the list of its chunks, cannot be read ({error!r}). Copy both files again."
        ) from error
    size = path.stat().st_size
    if len(places) != len(bounds) or places[-1] != size:
        raise InputError(
            f"{path} has {size} bytes, and {index.name} says {places[-1]}; it is cut off. Copy both files again."
        )

    def chunk(number: int) -> np.ndarray:
        shape = (int(bounds[number + 1] - bounds[number]), n_channels)
        with path.open("rb") as file:
            file.seek(places[number])
            content = file.read(places[number + 1] - places[number])
        numbers = zlib.decompressobj().decompress(content, shape[0] * n_channels * dtype.itemsize)
        rows = np.frombuffer(numbers, dtype).reshape(shape, order=facts.get("chunk_order", "F"))
        if facts.get("do_spatial_diff"):
            rows = np.cumsum(rows, axis=1, dtype=dtype)
        return np.cumsum(rows, axis=0, dtype=dtype) if facts.get("do_time_diff", True) else rows

    def read(start: int, stop: int) -> np.ndarray:
        first, last = np.searchsorted(bounds, [start, stop - 1], "right") - 1
        rows = np.concatenate([chunk(number) for number in range(first, last + 1)])
        return rows[start - bounds[first] : stop - bounds[first]]

    return Packed(int(bounds[-1]), n_channels, dtype, rate, read)
