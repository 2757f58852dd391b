"""What to simulate: one frozen configuration, with the presets `paper` and `tetrode`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from spikecrsae.config import Checked, option
from spikecrsae.errors import UsageError
from spikecrsae.system.text import unknown_name

#: Mean and standard deviation of the paper's amplitudes, of unit-norm templates (Sec. VII-A).
PAPER_AMPLITUDE = (180.0, 30.0)


@dataclass(frozen=True)
class SimulationConfig(Checked):
    """What to simulate. Checked once; UsageError names the value that breaks a rule."""

    preset: str = option("tetrode", "kind of waveforms and noise level", choices=("tetrode", "paper"))
    n_units: int = option(5, "number of neurons", low=1, high=100)
    n_channels: int = option(4, "number of contacts, 25 um apart in two columns", low=1, high=64)
    sampling_frequency: float = option(20000.0, "samples per second, Hz", low=5000.0, high=100000.0)
    duration_s: float = option(60.0, "length of the recording", low=0.1)
    seed: int = option(0, "seed of every random draw", low=0)
    rates_hz: tuple | None = option(None, "firing rate of each unit; drawn log-uniformly unless given", kind=tuple)
    rate_low_hz: float = option(2.0, "lowest firing rate drawn", low=0.01)
    rate_high_hz: float = option(40.0, "highest firing rate drawn", high=300.0)
    refractory_ms: float = option(2.5, "absolute refractory period", low=0.0, high=4.0)
    n_bursting: int = option(1, "the first so many units fire bursts of 2 to 6 spikes, 4 to 8 ms apart", low=0)
    burst_probability: float = option(0.3, "share of a bursting unit's events that are bursts", low=0.0, high=1.0)
    amplitude_jitter: float = option(0.05, "standard deviation of a spike's amplitude over its mean", low=0.0, high=0.3)
    synchrony: float = option(0.05, "share of spikes set within 0.5 ms of an earlier unit's spike", low=0.0, high=1.0)
    subsample: bool = option(True, "spikes fall between samples; off: exactly on them")
    snrs: tuple | None = option(None, "peak over noise level of each unit; drawn, strongest first, unless given", kind=tuple)
    snr_low: float = option(6.0, "lowest peak over noise level drawn (tetrode)", low=0.1)
    snr_high: float = option(15.0, "highest peak over noise level drawn (tetrode)", low=0.1)
    snr_db: float = option(16.0, "variance of the spikes' signal over that of the noise (paper)", low=-20.0, high=60.0)
    noise_uv: float = option(10.0, "standard deviation of the noise (tetrode)", low=0.1)
    noise: str = option("neural", "neural: coloured; white: equal at all frequencies", choices=("neural", "white"))
    noise_correlation_um: float = option(40.0, "distance at which the noise's correlation falls to 1/e", low=0.0)
    hum_uv: float = option(0.0, "amplitude of 50 Hz hum on all channels", low=0.0)
    drift: float = option(0.0, "relative change of the amplitudes over the recording", low=0.0, high=1.0)
    intracellular_unit: int | None = option(None, "also give this unit's membrane potential", low=0, kind=int)
    gain_uv: float = option(0.195, "uV of one bit", low=0.001)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rates_hz", "snrs"):
            values = getattr(self, name)
            if values is not None and (len(values) != self.n_units or min(values) <= 0):
                raise UsageError(f"{name} = {values} must hold a positive number for each of the {self.n_units} units.")
        for low, high in (("rate_low_hz", "rate_high_hz"), ("snr_low", "snr_high")):
            if getattr(self, low) > getattr(self, high):
                raise UsageError(f"{low} = {getattr(self, low)} must not exceed {high} = {getattr(self, high)}.")
        if self.preset == "paper" and (self.n_units > 4 or self.n_channels != 1):
            raise UsageError(
                f"n_channels = {self.n_channels}, n_units = {self.n_units}: the paper preset has one channel and at most 4 "
                "units; use the "
                "tetrode preset for others."
            )
        if self.n_bursting > self.n_units or (self.intracellular_unit or 0) >= self.n_units:
            raise UsageError(f"n_bursting and intracellular_unit must fit {self.n_units} units, numbered from 0.")


# Sec. VII-A and Table III; the refractory period is the templates' length.
_PAPER = {
    "n_units": 4,
    "n_channels": 1,
    "sampling_frequency": 10000.0,
    "duration_s": 1010.0,
    "rates_hz": (30.0,) * 4,
    "refractory_ms": 1.8,
    "n_bursting": 0,
    "amplitude_jitter": PAPER_AMPLITUDE[1] / PAPER_AMPLITUDE[0],
    "synchrony": 0.0,
    "subsample": False,
    "noise": "white",
}
_PRESETS: dict[str, dict[str, Any]] = {"paper": _PAPER, "tetrode": {}}
_WITHOUT_EFFECT = {
    "paper": {"snrs", "snr_low", "snr_high", "noise_uv"},
    "tetrode": {"snr_db"},
}


def preset_config(name: str, **overrides: Any) -> SimulationConfig:
    """The preset `paper` or `tetrode` with some values replaced; an override that is None is left out.

    Where the number of units changes, each new unit has the paper's rate unless rates are given too. Raises UsageError
    for an unknown preset or value and for one that has no effect in this preset.
    """
    if name not in _PRESETS:
        raise UsageError(f"preset {name!r} does not exist; there are {', '.join(_PRESETS)}.")
    given = {key: value for key, value in overrides.items() if value is not None}
    known = [f.name for f in fields(SimulationConfig)][1:]
    for unknown in sorted(set(given) - set(known)):
        raise UsageError(unknown_name(unknown, known, f"a simulation has {', '.join(known)}"))
    if idle := sorted(_WITHOUT_EFFECT[name] & given.keys()):
        raise UsageError(f"{', '.join(idle)} has no effect in the {name} preset; leave it out.")
    values = {**_PRESETS[name], **given}
    if values.get("rates_hz") and given.get("n_units") and "rates_hz" not in given:
        values["rates_hz"] = values["rates_hz"][:1] * given["n_units"]
    return SimulationConfig(preset=name, **values)
