"""spikecrsae info: what is in a recording, before it is sorted."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spikecrsae.cli import console
from spikecrsae.cli.options import Command, Name, json_option, reader_options, verbose_option
from spikecrsae.errors import InputError

if TYPE_CHECKING:
    from spikecrsae.data.recording import Recording

_LOOK_S = 5.0
#: So many files or segments are listed.
_MOST_PARTS = 50


@click.command(cls=Command, short_help="Show what a recording holds.")
@click.argument("recordings", type=Name(), nargs=-1, required=True, metavar="RECORDING...")
@reader_options
@json_option
@verbose_option
@console.narrated
def info(recordings: tuple[Path, ...], reader: dict, as_json: bool, narrator: console.Narrator) -> None:
    """Show what a recording holds: channels, rate, length, scale and noise.

    Several files are taken for one recording, as `sort` takes them.
    """
    from spikecrsae.readers import NotNeuralError, open_session

    why = ""
    try:
        opened = open_session(recordings, **reader)
    except NotNeuralError as error:
        if not error.instead:
            raise
        # what is not sorted is shown all the same
        opened, why = open_session(recordings, **(reader | error.instead)), str(error)
    try:
        facts = _facts(opened)
    finally:
        opened.close()
    facts["notes"] += [f"sort refuses this: {why}"] if why else []
    if as_json:
        console.print_json(facts)
        return
    for label, text in _lines(facts):
        console.say_fact(label, text)


def _facts(recording: Recording) -> dict[str, Any]:
    from spikecrsae.preprocess import sanity

    noise, notes = _noise(recording.in_range())
    notes = [*sanity.of_facts(recording.in_range()), *sanity.of_numbers(recording.in_range()), *notes]
    chosen = recording.time_range
    return {
        "file": str(recording.source),
        "format": recording.format,
        "channels": recording.n_channels,
        "channel_ids": list(recording.channel_ids),
        "channel_numbers": list(recording.channels),
        "sampling_frequency_hz": recording.sampling_frequency,
        "samples": recording.n_samples,
        "duration_s": recording.duration_s,
        "start_time_s": recording.start_time_s,
        "stored_type": recording.dtype,
        "amplitude_unit": recording.amplitude_unit,
        "gain": recording.gain.tolist(),
        "offset": recording.offset.tolist(),
        "groups": {name: [recording.channel_ids[c] for c in members] for name, members in recording.groups.items()},
        "time_range_s": None if chosen is None else recording.timeline.intervals_s([chosen])[0].tolist(),
        "parts": [asdict(part) for part in recording.parts],
        "positions_um": None if recording.channel_positions is None else recording.channel_positions.tolist(),
        "noise_level": noise,
        "notes": [*recording.notes, *notes],
    }


def _noise(recording: Recording) -> tuple[list[float] | None, list[str]]:
    """Noise level per channel of the first seconds after the default high-pass, or why there is none; what is odd about it."""
    from dataclasses import replace

    from spikecrsae.config import PreprocessConfig
    from spikecrsae.preprocess import sanity
    from spikecrsae.preprocess.noise import noise_level
    from spikecrsae.units import s_to_samples

    first = replace(recording, n_samples=min(recording.n_samples, s_to_samples(_LOOK_S, recording.sampling_frequency)))
    try:
        level = noise_level(first, PreprocessConfig())
        return level.tolist(), list(sanity.of_noise(first, level))
    except InputError as error:
        return None, [f"noise level unknown: {error}"]


def _lines(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """The facts as a person reads them, label and text."""
    unit, noise, positions = facts["amplitude_unit"], facts["noise_level"], facts["positions_um"]
    # Adding 0.0 turns -0.0 into 0.
    places = [f"({round(x, 3) + 0.0:g}, {round(y, 3) + 0.0:g})" for x, y in positions or ()]
    lines = [
        ("file", facts["file"]),
        ("format", facts["format"]),
        ("channels", f"{facts['channels']} ({', '.join(facts['channel_ids'])})"),
        ("sampling frequency", f"{facts['sampling_frequency_hz']:.10g} Hz"),
        ("duration", f"{facts['duration_s']:.10g} s, {facts['samples']} samples"),
        ("start time", f"{facts['start_time_s']:.10g} s"),
        ("stored as", facts["stored_type"]),
        ("amplitudes in", unit if unit != "ADC" else "ADC counts, no gain is known"),
        ("gain", f"{_list(facts['gain'])} {unit} per stored number"),
        ("offset", f"{_list(facts['offset'])} {unit}"),
        ("positions um", " ".join(places) or "not known"),
        ("noise level", f"{_list(noise)} {unit} (first {_LOOK_S:g} s, high-passed)" if noise else "not known"),
    ]
    lines += [(f"group {name}", ", ".join(members)) for name, members in facts["groups"].items()]
    if facts["time_range_s"]:
        lines.append(("sorted from, to", "{:.10g} s, {:.10g} s".format(*facts["time_range_s"])))
    for number, part in enumerate(facts["parts"][:_MOST_PARTS]):
        length = part["n_samples"] / facts["sampling_frequency_hz"]
        lines.append((f"file {number}", f"{part['name']}: {length:.10g} s from {part['start_time_s']:.10g} s"))
    if (more := len(facts["parts"]) - _MOST_PARTS) > 0:
        lines.append(("more", f"{more} further files or segments; --json lists all of them"))
    return lines + [("note", note) for note in facts["notes"]]


def _list(values: list[float]) -> str:
    """Numbers with three digits, one where all are the same."""
    distinct = values[:1] if len(set(values)) == 1 else values
    return ", ".join(f"{value:.3g}" for value in distinct)
