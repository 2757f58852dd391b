"""Which channels carry neurons: by their names, units and rate. The others are sorted only where they are asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from spikecrsae.errors import InputError

#: Microvolts in one of the unit. The micro sign has two code points.
_MICROVOLTS = {
    "uv": 1.0, "\u00b5v": 1.0, "\u03bcv": 1.0, "microvolt": 1.0, "microvolts": 1.0, "mv": 1e3, "millivolt": 1e3,
    "millivolts": 1e3, "v": 1e6, "volt": 1e6, "volts": 1e6, "nv": 1e-3,
}  # fmt: skip
#: Names that acquisition systems give to channels and streams other than electrodes: auxiliary and analogue inputs, digital words,
#: synchronisation, accelerometers, supply voltage, temperature, stimulators. The short ones are numbered: AI is Plexon's,
#: AlphaOmega's and National Instruments'; XA, XD, MA and SY are SpikeGLX's. Words that name a brain area as well (ACC, TEMP) are none.
_OTHER_INPUTS = re.compile(
    r"(?<![a-z])(aux|auxiliary|adc|ainp|analog[-_ ]?(in|out|input|output)|accelerometer|stim|stimulation|(ap|lfp)?sync|digital|din|dout|ttl|"
    r"trig|trigger|vdd|supply|temperature|dc amplifier|user defined)(?![a-z])|^(ai|xa|xd|sy) ?\d+$|^ma\d+c\d+$",
    re.IGNORECASE,
)
#: Units of a current, which an electrode outside of cells does not have.
_CURRENT = re.compile(r"[fpnum\u00b5\u03bc]?A|(femto|pico|nano|micro|milli)?amp(ere)?s?", re.IGNORECASE)
#: A spike lasts about a millisecond: below this rate (Hz) a signal holds field potentials and no spikes.
LOWEST_RATE = 5000.0


class NotNeuralError(InputError):
    """What was named holds no channel with neurons, and none was asked for. instead: the options that read it all the same."""

    def __init__(self, message: str, **instead: Any) -> None:
        super().__init__(message)
        self.instead = instead


def microvolts(unit: str) -> float | None:
    """Microvolts in one `unit`, None where that is not a voltage ('ADC', '', 'pA')."""
    return _MICROVOLTS.get(unit.strip().lower())


def is_current(unit: str) -> bool:
    """Whether a unit is one of a current, such as pA."""
    return _CURRENT.fullmatch(unit.strip()) is not None


def why_no_current(units: Sequence[str]) -> str:
    """Why channels of which some are currents are not sorted, and what to do; empty where none is."""
    if not (found := next((unit for unit in units if is_current(unit)), "")):
        return ""
    return (
        f" A current (in {found}) is recorded under voltage clamp, mostly inside a cell; only signal outside cells is sorted. Give score its "
        "spikes as a truth with --truth-channel; or, if it is a cell's spikes from outside, name the channel with --channels."
    )


def is_other_input(name: str) -> bool:
    """Whether a channel's or stream's name says that it is no electrode, such as A-AUX1, ADC1, SY0 or AP_SYNC."""
    return _OTHER_INPUTS.search(name) is not None


def neural_channels(names: Sequence[str], units: Sequence[str], has_voltages: bool | None = None) -> list[int]:
    """Positions of the channels that may carry neurons: no other input by name, no current, and a voltage wherever another
    channel is one, which `has_voltages` says of channels beyond these."""
    voltages = [microvolts(unit) is not None for unit in units]
    needed = any(voltages) if has_voltages is None else has_voltages
    return [
        position
        for position, (name, is_voltage) in enumerate(zip(names, voltages, strict=True))
        if not is_other_input(name) and not is_current(units[position]) and (is_voltage or not needed)
    ]


def natural_key(name: str) -> list[tuple[bool, int, str]]:
    """A key that puts names in the order of the numbers in them: CSC1, CSC2, CSC10."""
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", name)]
