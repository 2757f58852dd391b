"""What looks wrong about a recording that can be sorted all the same: a number type, a scale, a rate or a length mistaken.

Every function gives remarks, empty where nothing is odd. The limits are those of extracellular recordings from single wires
and tetrodes in general, wide enough that a remark means a mistake in the file's facts rather than an unusual preparation.
"""

from __future__ import annotations

import numpy as np

from spikecrsae.data.loudness import Loudness, noise_of
from spikecrsae.data.recording import Recording
from spikecrsae.data.sorting import SortingData
from spikecrsae.system.text import counted
from spikecrsae.units import s_to_samples

#: Noise of an electrode and its amplifier in uV, and the largest deflection of a spike outside a cell.
NOISE_UV, LARGEST_SPIKE_UV = (1.0, 500.0), 5000.0
#: Noise in stored numbers where no gain is known: below, spikes hide between two of them, or these are volts; above, no
#: converter has so many bits.
NOISE_COUNTS = (0.3, 65_536.0)
#: Noise so many times the usual one, for so large a part of the recording, is said.
LOUD, LOUD_PART = 1.5, 0.01
#: Hz at which spikes are recorded, and below which they last too few samples; and the length below which a neuron at an ordinary
#: rate fires too few to be known.
RATES_HZ, LOW_RATE_HZ, SHORT_S = (5000.0, 100_000.0), 10_000.0, 5.0
#: A unit is silent at an end of the recording where so large a part of it holds no spike though so many were to be expected, and
#: its longest silence elsewhere is so many times shorter.
SILENT_PART, SILENT_SPIKES, SILENT_RATIO = 0.1, 30.0, 3.0
#: Part of a template's energy that is common to all channels, above which amplitudes agree within some 10 %.
SAME_ON_ALL = 0.99
#: Part of the steps from sample to sample that may exceed so much of the number type's range; pulses reach from one side to the other.
WRAPPED, WRAPPED_RANGE = 1e-3, 0.75
#: Mean squared difference of a sample from a later one over that from the next, at least, within so many samples.
NEARER, FARTHEST = 0.8, 16
#: So many of the first samples that reach STARTLING times as far as all others that are looked at begin with something else.
FIRST, STARTLING = 512, 3.0
#: Stretches of a second that are looked at.
STRETCHES = 8


def of_facts(recording: Recording) -> tuple[str, ...]:
    """Remarks on the sampling frequency and the length of what is to be sorted."""
    fs, remarks = recording.sampling_frequency, []
    if not RATES_HZ[0] <= fs <= RATES_HZ[1]:
        remarks.append(
            f"a sampling frequency of {fs:g} Hz is unusual for spikes ({RATES_HZ[0]:g} to {RATES_HZ[1]:g} Hz); check it, and give the "
            "true one with --sampling-frequency"
        )
    elif fs < LOW_RATE_HZ:
        remarks.append(
            f"a sampling frequency of {fs:g} Hz is low for spikes (below {LOW_RATE_HZ:g} Hz): one lasts a few samples, so a neuron may be found "
            "as several units, or with another as one; record faster, or look at similar units in the report"
        )
    if recording.duration_s < SHORT_S:
        remarks.append(
            f"{recording.duration_s:.3g} s of signal is too short to learn templates and noise from (below {SHORT_S:g} s): a neuron fires a few "
            "times in it; give a longer recording, or take the result for a first look"
        )
    return tuple(remarks)


def of_result(used: Recording, sorting: SortingData) -> tuple[str, ...]:
    """Remarks that need the numbers: on those of the channels that were used, their noise, and the templates found in them."""
    noise = np.asarray(sorting.channels["noise_level"])
    return (
        of_numbers(used)
        + of_noise(used, noise[~np.asarray(sorting.channels["masked"])])
        + of_spikes(used, sorting.templates)
    )


def of_units(sorting: SortingData) -> tuple[str, ...]:
    """Remarks on units, by their numbers."""
    return of_reference(sorting) + of_sameness(sorting) + of_presence(sorting)


def of_loudness(recording: Recording, loudness: Loudness) -> tuple[str, ...]:
    """A remark where noise is LOUD times the usual one for more than LOUD_PART of the recording."""
    fs, lengths = recording.sampling_frequency, np.diff(np.r_[loudness.starts, recording.n_samples])
    sigma = noise_of(loudness.levels)
    loud = sigma > LOUD
    seconds = lengths[loud].sum() / fs
    if seconds <= LOUD_PART * recording.duration_s:
        return ()
    usual, most = np.average(sigma[loud], weights=lengths[loud]), sigma.max()
    first = recording.timeline.seconds(loudness.starts[loud][0])
    return (
        f"noise is louder than usual for {seconds:.3g} s of {recording.duration_s:.3g} s ({usual:.2g} times on average, up to {most:.2g} times; "
        f"first at {first:.3f} s): small spikes are missed there, so rates seem to fall; templates are learned "
        "from the rest",
    )


def of_reference(sorting: SortingData) -> tuple[str, ...]:
    """A remark where units come from the reference, see decode.reference."""
    match = np.asarray(sorting.units.get("reference_match", np.zeros(sorting.n_units)))
    theirs = np.flatnonzero((np.asarray(sorting.units["label"]) == "artefact") & (match > 0))
    if not len(theirs):
        return ()
    several = len(theirs) > 1
    names = ", ".join(str(sorting.unit_ids[unit]) for unit in theirs)
    return (
        f"unit{'s' * several} {names} {'are' if several else 'is'} the same on every channel, as most of the noise is ({match[theirs].min():.2%} of "
        f"the waveform's energy): the reference picks {'them' if several else 'it'} up. Labelled artefact; --common-reference median "
        "takes away what all channels share",
    )


def of_sameness(sorting: SortingData) -> tuple[str, ...]:
    """A remark where units are nearly the same on all of several channels, and not labelled artefact for another reason."""
    used = sorting.templates[:, ~np.asarray(sorting.channels["masked"])]
    together, alone = (used.sum(axis=1) ** 2).sum(axis=1), used.shape[1] * (used**2).sum(axis=(1, 2))
    is_same = (
        (used.shape[1] > 2) & (together > SAME_ON_ALL * alone) & ~np.isin(sorting.units["label"], ("artefact", "noise"))
    )
    if not is_same.any():
        return ()
    names = ", ".join(str(unit) for unit in sorting.unit_ids[is_same])
    return (
        f"unit {names}: the same on all channels (at least {SAME_ON_ALL:.0%} of the waveform's energy); this may be a neuron midway between them, "
        "or stimulation that has neither period nor edge; if its times are known, --triggers FILE blanks them",
    )


def of_presence(sorting: SortingData) -> tuple[str, ...]:
    """A remark on units that begin long after the recording's start, or end long before its end."""
    labels, gaps = np.asarray(sorting.units["label"]), sorting.excluded

    def kept(samples: np.ndarray) -> np.ndarray:
        """On a clock that stands still where the recording is left out."""
        before = np.minimum(np.maximum(np.asarray(samples)[:, None] - gaps[:, 0], 0), np.diff(gaps, axis=1)[:, 0])
        return np.asarray(samples) - before.sum(axis=1)

    whole = float(kept(np.array([sorting.n_samples]))[0])
    begins: list[str] = []
    ends: list[str] = []
    for unit, label in zip(sorting.unit_ids, labels, strict=True):
        samples = sorting.spike_samples(unit)
        if label in ("noise", "artefact") or len(samples) < 2:
            continue
        times = kept(samples[[0, -1]])
        rate, longest = len(samples) / max(times[1] - times[0], 1.0), max(float(np.diff(kept(samples)).max()), 1.0)
        for silence, at, found in ((times[0], samples[0], begins), (whole - times[1], samples[-1], ends)):
            if silence > max(SILENT_PART * whole, SILENT_SPIKES / rate, SILENT_RATIO * longest):
                found.append(f"{unit} ({sorting.times_s(at):.4g} s)")
    said = [f"first fires late: unit {', '.join(begins)}"] * bool(begins) + [f"falls silent: unit {', '.join(ends)}"] * bool(
        ends
    )
    if not said:
        return ()
    return (
        f"a neuron appears or vanishes, or the electrode lost it; {'; '.join(said)}. Rates over the whole recording are not theirs",
    )


def of_steps(recording: Recording, steps: np.ndarray, sizes: np.ndarray) -> tuple[str, ...]:
    """A remark for each of the steps (n_steps,), samples at which templates change, by their `sizes` (n_steps, n_units)."""
    remarks = []
    for step, size in zip(steps, sizes, strict=True):
        time, moved = recording.timeline.seconds(step), size[size > 0]
        remarks.append(
            f"the waveforms of {len(moved)} of {counted(len(size), 'unit')} change at once at {time:.2f} s, by {moved.mean() if len(moved) else 0:.0%} on average: "
            "an electrode moved, or another session begins; units are followed across it"
        )
    return tuple(remarks)


def of_numbers(recording: Recording) -> tuple[str, ...]:
    """Remarks on the stored numbers of a few seconds: integers that wrap around, samples that are not beside their
    neighbours."""
    length = min(s_to_samples(1.0, recording.sampling_frequency), recording.n_samples)
    starts = np.unique(np.linspace(0, recording.n_samples - length, STRETCHES).astype(np.int64))
    blocks = [np.asarray(recording.raw(int(start), int(start) + length)) for start in starts]
    return _wrapped(blocks, recording) + _not_beside(blocks) + _startling(blocks)


def _wrapped(blocks: list[np.ndarray], recording: Recording) -> tuple[str, ...]:
    if blocks[0].dtype.kind not in "iu" or len(blocks[0]) < 2:
        return ()
    most = WRAPPED_RANGE * 2.0 ** (8 * blocks[0].dtype.itemsize)
    part = np.mean([np.mean(np.abs(np.diff(block.astype(np.float64), axis=0)) > most) for block in blocks], axis=0)
    if part <= WRAPPED:
        return ()
    return (
        f"{part:.1%} of the steps from one sample to the next cross half of the range of {recording.dtype}: signed numbers read as "
        "unsigned (or the reverse), the wrong byte order, or another number type; check --dtype",
    )


def _not_beside(blocks: list[np.ndarray]) -> tuple[str, ...]:
    """Electrodes and amplifiers pass no more of the high frequencies than of the low ones: no later sample is nearer than
    the next."""
    values = [block.astype(np.float64) for block in blocks if len(block) > 4 * FARTHEST]
    lags = range(1, FARTHEST + 1)
    squares = np.array([sum(((block[lag:] - block[:-lag]) ** 2).mean(axis=0) for block in values) for lag in lags])
    moving = squares[0] > 0 if values else np.zeros(1, bool)
    if not moving.any():
        return ()
    apart = np.median(squares[:, moving] / squares[0, moving], axis=1)
    nearest = int(apart.argmin()) + 1
    if apart[nearest - 1] >= NEARER:
        return ()
    return (
        f"samples are nearer to those {nearest} later than to the next ones ({apart[nearest - 1]:.0%} of the squared difference): channels "
        "seem to be read as samples; check --n-channels, --dtype or --axis",
    )


def _startling(blocks: list[np.ndarray]) -> tuple[str, ...]:
    """A header in front of raw samples, or a click as the amplifier is switched on: the filters ring, and clusters go astray."""
    first, rest = (
        blocks[0][:FIRST].astype(np.float64),
        [block[FIRST:].astype(np.float64) for block in blocks[:1]] + blocks[1:],
    )
    if len(first) < FIRST or not len(rest[0]):
        return ()
    middle = np.median(rest[0], axis=0)
    usual = np.max([np.abs(block - middle).max(axis=0) for block in rest], axis=0)
    beyond = (np.abs(first - middle) > STARTLING * usual).any(axis=1)
    if not beyond.any() or not usual.any():
        return ()
    last = int(np.flatnonzero(beyond)[-1]) + 1
    return (
        f"the first {counted(last, 'sample')} reach {np.abs(first - middle).max() / usual.max():.3g} times as far as what follows: a header in "
        "front of the samples, or a click; leave it out with --start-s",
    )


def of_noise(recording: Recording, noise_level: np.ndarray) -> tuple[str, ...]:
    """Remarks on the noise level (n_channels,) of the high-passed signal, in the recording's unit."""
    low, high = NOISE_UV if recording.amplitude_unit == "uV" else NOISE_COUNTS
    odd = ~((noise_level >= low) & (noise_level <= high))
    if not odd.any():
        return ()
    names = ", ".join(name for name, is_odd in zip(recording.channel_ids, odd, strict=True) if is_odd)
    level = ", ".join(f"{value:.3g}" for value in np.unique(noise_level[odd])[:4])
    where = f"the noise of channel {names} is {level} {recording.amplitude_unit}"
    if recording.amplitude_unit == "uV":
        return (
            f"{where}, outside {low:g} to {high:g} uV; the scale seems wrong, check --gain (uV per stored number) and --dtype",
        )
    if np.all(noise_level[odd] < low) and np.dtype(recording.dtype).kind == "f":
        return (f"{where}, too small for the numbers of a converter; these may be volts: give --gain, 1e6 for volts",)
    return (
        f"{where}, where a converter's is {low:g} to {high:g}; check --dtype, and whether these are a converter's numbers",
    )


def of_spikes(recording: Recording, templates: np.ndarray) -> tuple[str, ...]:
    """Remarks on the size of the templates (n_units, n_channels, n_times), in the recording's unit."""
    largest = float(np.abs(templates).max(initial=0.0))
    if recording.amplitude_unit != "uV" or largest <= LARGEST_SPIKE_UV:
        return ()
    return (
        f"the largest template reaches {largest / 1000:.3g} mV, more than spikes outside a cell do ({LARGEST_SPIKE_UV / 1000:g} mV); "
        "check --gain (uV per stored number), and whether these are spikes",
    )
