"""Readers: open_recording() for recordings of every format, read_truth() for known spikes."""

from spikecrsae.readers.array import read_array
from spikecrsae.readers.geometry import Probe, read_probe
from spikecrsae.readers.neural import NotNeuralError
from spikecrsae.readers.open import open_recording, open_session
from spikecrsae.readers.read_options import ReadOptions, parse_channels
from spikecrsae.readers.truth import neuron_and_unit, phy_rate, read_truth

__all__ = [
    "NotNeuralError",
    "Probe",
    "ReadOptions",
    "neuron_and_unit",
    "open_recording",
    "open_session",
    "parse_channels",
    "phy_rate",
    "read_array",
    "read_probe",
    "read_truth",
]
