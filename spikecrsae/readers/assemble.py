"""From what a reader found in a file, and what the user said, to a Recording."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spikecrsae.data.recording import Recording, Segment
from spikecrsae.errors import InputError, ReadError, UsageError
from spikecrsae.readers.chosen_channels import asked_for, attach_groups, attach_probe, listed
from spikecrsae.readers.geometry import flatten_positions
from spikecrsae.readers.neural import LOWEST_RATE, NotNeuralError, microvolts, neural_channels, why_no_current
from spikecrsae.readers.read_options import ReadOptions
from spikecrsae.readers.stamps import Stretch
from spikecrsae.system.text import counted

#: Beyond these a file is damaged or made up: no amplifier is so fast, and no recording lasts a year.
_MOST_HZ, _MOST_S = 1e6, 366 * 86400.0
#: So many gaps are named one by one.
_MOST_GAPS = 50


@dataclass(frozen=True)
class Found:
    """What one file holds, as its reader found it.

    read(start, stop) gives stored numbers (stop - start, n_channels); stored * gain + offset is in `unit`, which may differ from
    channel to channel.
    positions (n_channels, 2 or 3) in um or None. sampling_frequency is None where the file does not tell. groups names the
    group of each channel, None where the file names none. companions: further files that the samples may come from.
    stretches: where signal goes on without a gap, on one clock; empty where that is everywhere.
    """

    path: Path
    format: str
    read: Callable[[int, int], np.ndarray]
    n_samples: int
    n_channels: int
    dtype: np.dtype
    unit: str | Sequence[str]
    sampling_frequency: float | None
    gain: float | np.ndarray = 1.0
    offset: float | np.ndarray = 0.0
    channel_ids: Sequence[str] | None = None
    positions: np.ndarray | None = None
    groups: Sequence[str] | None = None
    start_time_s: float = 0.0
    notes: tuple[str, ...] = ()
    companions: Sequence[Path] = ()
    stretches: tuple[Stretch, ...] = ()
    close: Callable[[], None] = lambda: None


def assemble(found: Found, options: ReadOptions) -> Recording:
    """The Recording: the user's facts over the file's, uV where a gain is known, geometry and groups attached, and of its channels
    those that are asked for, else those that may carry neurons.

    Raises InputError where the sampling frequency is nowhere, the numbers are not real, or a probe misses a channel;
    NotNeuralError where no channel may carry neurons and none is asked for; UsageError where a gain has the wrong length, a
    channel does not exist, or a time lies outside.
    """
    path, n = found.path, found.n_channels
    if found.dtype.kind not in "iuf":
        raise InputError(f"{path}: traces have dtype {found.dtype}; they must be real numbers (integers or floats).")
    if n > max(found.n_samples, 1):
        raise InputError(
            f"{path}: {found.n_samples} samples on {n} channels; a recording has more samples than channels. Say which axis is time "
            "with --axis, or give the true --n-channels and --dtype, where the format takes these."
        )
    notes = list(found.notes)
    frequency = _sampling_frequency(found, options, notes)
    names = tuple(found.channel_ids or (str(i) for i in range(n)))
    picked = _picked(found, names, options, notes)
    gain, offset, unit = _scaling(found, options, picked, notes)
    if found.dtype.kind == "u":
        notes.append(f"stored as unsigned {found.dtype}: its constant offset is kept; the high-pass filter removes it")
    positions, remark = flatten_positions(found.positions)
    if remark:
        notes.append(remark)
    recording = Recording(
        read_raw=_guarded(found),
        n_samples=int(found.n_samples),
        sampling_frequency=frequency,
        channels=tuple(range(n)),
        channel_ids=names,
        gain=gain,
        offset=offset,
        amplitude_unit=unit,
        source=path,
        format=found.format,
        dtype=str(found.dtype),
        channel_positions=positions,
        channel_groups=None if found.groups is None or len(set(found.groups)) < 2 else tuple(found.groups),
        start_time_s=float(found.stretches[0].start_time_s if found.stretches else found.start_time_s),
        parts=_parts(found),
        notes=tuple(notes),
        close=found.close,
    )
    if picked != list(range(n)):
        recording = recording.select(picked)
    return arranged(recording, replace(options, channels=None))


def arranged(recording: Recording, options: ReadOptions) -> Recording:
    """The recording with the channels, the geometry, the groups and the time range that the user gives."""
    if options.channels is not None:
        picked, note = asked_for(options.channels, recording.channel_ids, recording.source)
        recording = replace(recording.select(picked), notes=(*recording.notes, note))
    if options.probe is not None:
        recording = attach_probe(recording, Path(options.probe))
    return attach_groups(recording, options.groups).between(options.start_s, options.stop_s)


def _parts(found: Found) -> tuple[Segment, ...]:
    """The stretches of a file with gaps."""
    if len(found.stretches) < 2:
        return ()
    return tuple(
        Segment(
            f"{found.path}, from {one.start_time_s:.10g} s", one.first, one.n_samples, one.start_time_s, same_clock=k > 0
        )
        for k, one in enumerate(found.stretches)
    )


def with_gaps_told(recording: Recording) -> Recording:
    """The recording with a note of each gap on its clock: the samples on both sides, and how much time is missing."""
    fs = recording.sampling_frequency
    gaps = [
        (part.start_time_s - before.start_time_s - before.n_samples / fs, part.first)
        for before, part in zip(recording.parts, recording.parts[1:], strict=False)
        if part.same_clock
    ]
    told = [f"{length:.10g} s between samples {first - 1} and {first}" for length, first in gaps if length > 0.5 / fs]
    if not told:
        return recording
    more = f", and {len(told) - _MOST_GAPS} more" if len(told) > _MOST_GAPS else ""
    note = (
        f"signal is missing at {counted(len(told), 'place')}: {', '.join(told[:_MOST_GAPS])}{more}; no spike goes across, and times "
        "are those of the file"
    )
    return replace(recording, notes=(*recording.notes, note))


def _sampling_frequency(found: Found, options: ReadOptions, notes: list[str]) -> float:
    told, stored = options.sampling_frequency, found.sampling_frequency
    frequency = stored if told is None else told
    if frequency is None:
        raise InputError(
            f"{found.path}: the file does not say its sampling frequency; give it in Hz with --sampling-frequency."
        )
    if told is not None and stored is not None and abs(told - stored) > 1e-6 * stored:
        notes.append(f"sampling frequency {told:g} Hz as told, instead of the file's {stored:g} Hz")
    frequency = float(frequency)
    asked = (
        options.stream is not None
        or options.series
        or options.dataset
        or any(isinstance(c, str) for c in options.channels or ())
    )
    if told is None and 0 < frequency < LOWEST_RATE and not asked:
        raise NotNeuralError(
            f"{found.path} holds only field potentials ({found.n_channels} channels at {frequency:g} Hz): below {LOWEST_RATE:g} Hz spikes "
            "cannot be seen. Give the wide-band recording, or --sampling-frequency to read this one all the same.",
            sampling_frequency=frequency,
        )
    if frequency > _MOST_HZ or found.n_samples > _MOST_S * frequency > 0:
        raise InputError(
            f"{found.path}: {found.n_samples} samples at {frequency:g} Hz are no recording, which has at most {_MOST_HZ:g} "
            "Hz and lasts less than a year; give the true --sampling-frequency or, if the file is damaged, another copy."
        )
    return frequency


def _units(found: Found) -> list[str]:
    return [found.unit] * found.n_channels if isinstance(found.unit, str) else list(found.unit)


def _picked(found: Found, names: Sequence[str], options: ReadOptions, notes: list[str]) -> list[int]:
    """Positions of the channels in use: those that are asked for, else those that may carry neurons."""
    if options.channels is not None:
        picked, note = asked_for(options.channels, names, found.path)
        notes.append(note)
        return picked
    picked = neural_channels(names, _units(found))
    if not picked and options.stream is not None:
        return list(range(found.n_channels))
    others = [position for position in range(found.n_channels) if position not in set(picked)]
    if not picked:
        raise NotNeuralError(
            f"{found.path}: no channel has the name and the unit of an electrode: {listed(others, [names[p] for p in others])}; give --channels to "
            f"sort some all the same.{why_no_current(_units(found))}",
            channels=tuple(others),
        )
    if others:
        notes.append(
            f"channels left out, not electrodes by their names or units: {listed(others, [names[p] for p in others])}; --channels takes them"
        )
    return picked


def _scaling(
    found: Found, options: ReadOptions, picked: Sequence[int], notes: list[str]
) -> tuple[np.ndarray, np.ndarray, str]:
    """gain and offset (n_channels,) and the unit that they lead to: uV where every channel in use is a voltage; a gain that the
    user gives is in uV."""
    n, units = found.n_channels, _units(found)
    if options.gain is None:
        factors = [microvolts(unit) for unit in units]
        others = sorted({units[p] for p in picked if p < n and factors[p] is None and units[p] not in ("", "ADC")})
        if others:
            notes.append(f"the unit {', '.join(map(repr, others))} is no voltage; amplitudes are in stored numbers (ADC)")
        if all(factors[p] is not None for p in picked if p < n):
            scale = np.array([1.0 if factor is None else factor for factor in factors])
            gain, offset, unit = found.gain * scale, found.offset * scale, "uV"
        else:
            alone = isinstance(found.unit, str)
            gain, offset, unit = (found.gain, found.offset, "ADC") if alone else (1.0, 0.0, "ADC")
    else:
        gain, offset, unit = np.asarray(options.gain, np.float64), 0.0, "uV"
    if options.offset is not None:
        offset = np.asarray(options.offset, np.float64)
    both = []
    for name, value in (("gain", gain), ("offset", offset)):
        value = np.asarray(value, np.float64)
        if value.shape not in ((), (n,)):
            raise UsageError(f"{found.path}: {name} has {value.size} values; give one, or one for each of {n} channels.")
        both.append(np.broadcast_to(value, (n,)).copy())
    return both[0], both[1], unit


def _guarded(found: Found) -> Callable[[int, int], np.ndarray]:
    """found.read, with whatever the libraries below raise turned into one ReadError, and so for a file that is no longer
    what it was when it was opened: of one that was cut off HDF5 gives zeros, and a mapped one ends the process."""
    whole = _sizes(found)
    look = "see whether it is whole, and its disk or network there, and run again"

    def check(start: int) -> None:
        try:
            cut = [file for file, size in whole.items() if file.stat().st_size < size]
        except OSError as error:
            raise ReadError(f"{error.filename} has vanished while it was read ({error.strerror}); {look}.") from error
        if cut:
            raise ReadError(f"{cut[0]} has become shorter while it was read, near sample {start}; {look}.")

    def read_raw(start: int, stop: int) -> np.ndarray:
        if stop <= start:
            return np.zeros((0, found.n_channels), found.dtype)
        try:
            check(start)
            stored = np.asarray(found.read(start, stop))
            check(start)
        # the libraries below raise anything on what is damaged; that memory is short is the machine's own trouble
        except (MemoryError, ReadError):
            raise
        except Exception as error:
            raise ReadError(
                f"{found.path}: samples {start} to {stop} cannot be read ({one_line(error)}); the file is damaged or closed, or its "
                f"disk fails: {look}."
            ) from error
        if stored.shape != (stop - start, found.n_channels):
            raise ReadError(
                f"{found.path}: samples {start} to {stop} on {found.n_channels} channels were asked for and {stored.shape} came; the file is "
                f"cut off, or its header names other channels than it holds: {look}."
            )
        return stored

    return read_raw


def _sizes(found: Found) -> dict[Path, int]:
    """The size of every file of a recording, without results that were put into its folder."""
    files = [found.path, *found.companions]
    for place, folders, names in os.walk(found.path):
        if "manifest.json" in names:
            folders.clear()
        else:
            files += [Path(place, name) for name in names]
    return {file: file.stat().st_size for file in files if file.is_file()}


def missing_package(path: Path, format: str, package: str) -> InputError:
    """The error for a format that a package which is not installed reads."""
    return InputError(
        f"{path}: {format} is read with the package {package}, which is not installed: pip install {package}, or pip install "
        '"spikecrsae[formats]" for all of them.'
    )


def one_line(error: BaseException) -> str:
    """The message of an error on one line, or its kind where it has no message."""
    return " ".join(str(error).split())[:300] or type(error).__name__
