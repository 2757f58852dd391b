"""Raw recordings of Axona's dacqUSB: .bin with the facts in .set.

Not through neo 0.14, which reads channels from the first one on whichever tetrodes were recorded, names them in one row, and wants
facts about tetrode files that older .set files lack. Packets after the DacqUSB file formats document, as in neo.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from spikecrsae.errors import InputError
from spikecrsae.readers.hdf5 import WHY_NO_SNIPPETS
from spikecrsae.readers.streams import Stream, StreamReader, StreamSegment

#: A packet: header, three samples of 64 channels, trailer, in 16-bit words.
_PACKET, _HEADER, _SAMPLES, _CHANNELS = 216, 16, 3, 64
_WORD = np.dtype("<i2")
_FACTS = ("rawRate", "ADC_fullscale_mv")


def read_axona(path: Path) -> StreamReader:
    """The channels of the tetrodes that were recorded, in uV, each tetrode a group.

    Raises InputError where there is no .bin, it is cut off, or the .set lacks rate, range or gain.
    """
    binary = path.with_suffix(".bin")
    if path.suffix[1:].isdigit() or not binary.is_file():
        raise InputError(f"{path} holds only detected waveforms of tetrodes: {WHY_NO_SNIPPETS}: the .bin beside its .set.")
    text = path.with_suffix(".set").read_text("cp1252", "replace")
    facts = {name: value.strip() for name, _, value in (line.partition(" ") for line in text.splitlines())}
    tetrodes = [k for k in range(1, _CHANNELS // 4 + 1) if facts.get(f"collectMask_{k}", "0") == "1"]
    channels = [4 * (tetrode - 1) + wire for tetrode in tetrodes for wire in range(4)]
    if missing := [name for name in (*_FACTS, *(f"gain_ch_{c}" for c in channels)) if name not in facts]:
        raise InputError(f"{path.with_suffix('.set')} does not say {', '.join(missing)}; copy it again.")
    packets, rest = divmod(binary.stat().st_size, _PACKET * _WORD.itemsize)
    if rest or not channels:
        raise InputError(
            f"{binary} has {binary.stat().st_size} bytes for {len(tetrodes)} tetrodes, and must have whole packets of "
            f"{_PACKET * _WORD.itemsize} bytes and at least one tetrode; it is cut off, or its .set belongs to another recording. Copy both again."
        )
    gains = [float(facts[f"gain_ch_{channel}"]) for channel in channels]
    places = [_place(channel) for channel in channels]

    def read(start: int, stop: int) -> np.ndarray:
        first, last = start // _SAMPLES, -(-stop // _SAMPLES)
        words = np.fromfile(binary, _WORD, (last - first) * _PACKET, offset=first * _PACKET * _WORD.itemsize).reshape(
            -1, _PACKET
        )
        samples = words[:, _HEADER : _HEADER + _SAMPLES * _CHANNELS].reshape(-1, _CHANNELS)
        return samples[start - first * _SAMPLES : stop - first * _SAMPLES, places]

    stream = Stream(
        name="raw",
        rate=float(facts["rawRate"]),
        dtype=_WORD,
        names=[f"{tetrode}{wire}" for tetrode in tetrodes for wire in "abcd"],
        units=["uV"] * len(channels),
        gains=[1e3 * float(facts["ADC_fullscale_mv"]) / (gain * 2**15) for gain in gains],
        offsets=[0.0] * len(channels),
        segments=[StreamSegment(0.0, packets * _SAMPLES, read)],
        groups=[str(tetrode) for tetrode in tetrodes for _ in range(4)],
        neural=True,
    )
    return StreamReader([stream])


def _place(channel: int) -> int:
    """Where a channel stands in a sample: eights of channels alternate between its two halves, the second one first."""
    eight, within = divmod(channel, 8)
    return 32 * (eight % 2 == 0) + 8 * (eight // 2) + within
