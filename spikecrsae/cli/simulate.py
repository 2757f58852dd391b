"""spikecrsae simulate: a recording whose spikes are known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from spikecrsae.cli import console
from spikecrsae.cli.options import Command, Name, narrated, option
from spikecrsae.system.text import counted


class NumberList(click.ParamType):
    """Numbers separated by commas."""

    name = "list"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        try:
            return tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is no list of numbers such as 4,7.5,12.", param, ctx)


#: Option, type and meaning; a value that is not given comes from the preset.
_FIELDS = (
    ("n_units", int, "Number of neurons."),
    ("n_channels", int, "Number of contacts, 25 um apart in two columns."),
    ("sampling_frequency", float, "Samples per second, Hz."),
    ("duration_s", float, "Length of the recording in seconds."),
    ("rates_hz", NumberList(), "Firing rate of each unit in Hz, such as 4,7.5."),
    ("snrs", NumberList(), "Peak over noise level of each unit (tetrode)."),
    ("snr_low", float, "Lowest peak over noise level that is drawn (tetrode)."),
    ("snr_high", float, "Highest peak over noise level that is drawn (tetrode)."),
    ("snr_db", float, "Variance of the spikes' signal over that of the noise, dB (paper)."),
    ("noise_uv", float, "Standard deviation of the noise, uV (tetrode)."),
    ("noise", click.Choice(["neural", "white"]), "Coloured as neural noise, or white."),
    ("refractory_ms", float, "Absolute refractory period in ms."),
    ("n_bursting", int, "Number of units that fire bursts."),
    ("synchrony", float, "Share of spikes set within 0.5 ms of another unit's spike."),
    ("drift", float, "Relative change of the amplitudes over the recording."),
    ("intracellular_unit", int, "Also write the membrane potential of this unit, counted from 0."),
    ("seed", int, "Seed of every random draw."),
)


def _field_options(function: Callable) -> Callable:
    for name, kind, meaning in reversed(_FIELDS):
        function = option("--" + name.replace("_", "-"), name, type=kind, help=meaning, section="The simulation")(function)
    return function


@click.command(cls=Command, short_help="Write a recording whose spikes are known.")
@click.argument("out", type=Name())
@option(
    "--preset",
    type=click.Choice(["tetrode", "paper"]),
    default="tetrode",
    show_default=True,
    help="Simulation to start from; the options below change it.",
)
@option("--overwrite", is_flag=True, help="Replace OUT where it is an earlier simulation; any other file is kept.")
@_field_options
@narrated
def simulate(out: Path, preset: str, overwrite: bool, as_json: bool, narrator: console.Narrator, **values: Any) -> None:
    """Write a simulated recording with its true spikes to OUT, an HDF5 file.

    Preset tetrode: four channels, coloured noise, bursts, overlaps. Preset paper: the simulation of the CRsAE paper, one
    channel, four neurons, white noise.
    """
    from spikecrsae.simulate import preset_config, write_simulation
    from spikecrsae.simulate import simulate as generate
    from spikecrsae.simulate.write import check_place

    config = preset_config(preset, **values)
    check_place(out, overwrite)
    narrator.start("simulate")
    simulation = generate(config)
    narrator.finish(f"{config.duration_s:g} s, {counted(config.n_channels, 'channel')}, {counted(config.n_units, 'unit')}")
    narrator.start("write")
    write_simulation(simulation, out, overwrite)
    narrator.finish(str(out))
    truth = simulation.truth
    rows = [
        [name, len(train), truth.units["rate_hz"][k], truth.units["snr"][k]]
        for k, (name, train) in enumerate(truth.trains().items())
    ]
    if as_json:
        names = ("unit", "n_spikes", "rate_hz", "snr")
        units = [dict(zip(names, row, strict=True)) for row in rows]
        console.print_json({"file": out, "config": asdict(config), "noise_uv": simulation.noise_uv, "units": units})
    else:
        console.print_table(["unit", "spikes", "rate Hz", "SNR"], rows)
