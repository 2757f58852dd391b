"""Readers: open_recording() for recordings of every format, read_truth() for known spikes."""

from spikecrsae.readers.array import read_array
from spikecrsae.readers.geometry import Probe, read_probe
from spikecrsae.readers.open import open_recording, open_session
from spikecrsae.readers.read_options import ReadOptions, parse_channels
from spikecrsae.readers.truth import read_truth

__all__ = [
    "Probe",
    "ReadOptions",
    "open_recording",
    "open_session",
    "parse_channels",
    "read_array",
    "read_probe",
    "read_truth",
]
