"""Action potentials on an intracellular (or juxtacellular) channel, as truth for the extracellular recording."""

from __future__ import annotations

import numpy as np

from spikecrsae.data.recording import Recording
from spikecrsae.errors import InputError
from spikecrsae.system.robust import deviation_about_zero
from spikecrsae.units import ms_to_samples, s_to_samples

_HIGHPASS_HZ = 100.0
_DEAD_TIME_MS = 1.0
_PEAK_SEARCH_MS = 0.3
_READ_S, _MARGIN_S = 10.0, 0.5
#: A peak that counts at all, in noise levels; spikes must stand out by more.
_CANDIDATE, _STANDS_OUT = 4.0, 10.0
#: The gap between noise and spikes is sought below this fraction of the typical spike.
_SPIKE_SPREAD = 0.75
#: Inside a cell: the potential (uV) between spikes, and the least height of an action potential. Amplifiers for signal outside
#: cells reach some 10 mV.
_RESTING_UV, _ACTION_UV = (-100_000.0, -30_000.0), 20_000.0
#: Stretches of the recording in which the resting potential is looked for, their length, and how many spikes are measured.
_STRETCHES, _STRETCH_S, _MEASURED = 8, 0.5, 100


def refuse_inside_cell(recording: Recording) -> None:
    """Raise InputError where a channel is a membrane potential: its median is that of a cell at rest, and most of its spikes are
    action potentials of 20 mV or more. Needs a recording in uV; others pass. Reads a few stretches, and all of such a channel.

    In so large a spike every change of its shape exceeds the noise: one neuron would be dozens of units, after hours.
    """
    if recording.amplitude_unit != "uV":
        return
    size = min(s_to_samples(_STRETCH_S, recording.sampling_frequency), recording.n_samples)
    starts = np.linspace(0, recording.n_samples - size, _STRETCHES).astype(np.int64)
    rest = np.median(np.concatenate([recording.traces(start, start + size) for start in starts.tolist()]), axis=0)
    for channel in np.flatnonzero((rest > _RESTING_UV[0]) & (rest < _RESTING_UV[1])):
        one = recording.select([int(channel)])
        try:
            spikes = detect_spikes(one)
        except InputError:  # none stands out
            continue
        some = spikes[:: max(1, len(spikes) // _MEASURED)].tolist()
        height = float(np.median([one.traces(spike, spike + 1)[0, 0] for spike in some])) - rest[channel]
        if height >= _ACTION_UV:
            raise InputError(
                f"{recording.source}: channel {one.channel_ids[0]} is recorded inside a cell (it rests at {rest[channel] / 1000:.0f} mV, and its "
                f"{len(spikes)} spikes reach {height / 1000:.0f} mV above); only signal outside cells is sorted. Leave it out with --channels; give "
                "score its spikes as a truth with --truth-channel; or sort it as one neuron with --units 1."
            )


def detect_spikes(recording: Recording, threshold: float | None = None) -> np.ndarray:
    """Sample of each action potential's peak on a recording of one channel, int64, ascending, 1 ms apart or more.

    The signal is high-passed at 100 Hz, which takes away drift and synaptic potentials' slow part. Without `threshold`
    it lies in the widest gap (on a logarithmic scale) between the noise's peaks and the typical spike's height, on the
    side, positive or negative, where peaks are higher. `threshold` is in the recording's unit, in the high-passed
    signal; its sign says which side. Read in chunks; only peaks are kept.

    Raises InputError where no spike stands out; fewer than three are not told from artefacts without a threshold.
    """
    noise, samples, heights = _peaks(recording)
    if threshold is None:
        sign = _polarity(heights)
        level = _level(np.abs(heights[np.sign(heights) == sign]), noise, recording)
    else:
        sign, level = float(np.sign(threshold)) or 1.0, abs(threshold)
    loud = heights * sign >= level
    found = _apart(samples[loud], np.abs(heights[loud]), ms_to_samples(_DEAD_TIME_MS, recording.sampling_frequency))
    if len(found) == 0:
        raise InputError(
            f"{recording.source}: no spike on channel {recording.channels[0]} reaches the threshold {threshold:g}; give a lower --truth-threshold, or another --truth-channel."
        )
    return found


def _peaks(recording: Recording) -> tuple[float, np.ndarray, np.ndarray]:
    """(noise level, sample of every peak, its signed height in the high-passed signal)."""
    from scipy.signal import butter, find_peaks, sosfiltfilt  # half a second to load

    fs = recording.sampling_frequency
    sections = butter(2, _HIGHPASS_HZ, "highpass", fs=fs, output="sos")
    distance = max(1, ms_to_samples(_DEAD_TIME_MS, fs))
    reach = max(1, ms_to_samples(_PEAK_SEARCH_MS, fs))
    levels, samples, heights = [], [], []
    for chunk in recording.chunks(s_to_samples(_READ_S, fs), s_to_samples(_MARGIN_S, fs)):
        signal = chunk.traces[:, 0].astype(np.float64)
        smooth = sosfiltfilt(sections, signal, padlen=min(len(signal) - 1, distance * 20))
        level = float(deviation_about_zero(smooth - np.median(smooth)))
        levels.append(level)
        for sign in (1.0, -1.0):
            # Height above 0 also where the level is 0, as on a clipped or artificial channel.
            peaks, _ = find_peaks(sign * smooth, height=max(_CANDIDATE * level, 1e-12), distance=distance)
            peaks = peaks[(peaks >= chunk.core.start) & (peaks < chunk.core.stop)]
            heights.append(smooth[peaks])
            samples.append(chunk.start - chunk.left + _refine(sign * signal, peaks, reach))
    return float(np.median(levels)), np.concatenate(samples).astype(np.int64), np.concatenate(heights)


def _refine(signal: np.ndarray, peaks: np.ndarray, reach: int) -> np.ndarray:
    """The maximum of the unfiltered signal around each peak; the filter shifts it where the spike is asymmetric."""
    around = np.clip(peaks[:, None] + np.arange(-reach, reach + 1), 0, len(signal) - 1)
    return around[np.arange(len(peaks)), np.argmax(signal[around], axis=1)] if len(peaks) else peaks


def _typical(heights: np.ndarray) -> float:
    """Height of the typical spike: the median of the peaks above half of the third highest (a few may be artefacts)."""
    if len(heights) == 0:
        return 0.0
    reference = np.sort(heights)[-min(3, len(heights))]
    return float(np.median(heights[heights >= reference / 2]))


def _polarity(heights: np.ndarray) -> float:
    return 1.0 if _typical(heights[heights > 0]) >= _typical(-heights[heights < 0]) else -1.0


def _level(heights: np.ndarray, noise: float, recording: Recording) -> float:
    """The threshold: geometric middle of the widest gap between the noise and three quarters of the typical spike."""
    typical = _typical(heights)
    low, high = max(_CANDIDATE * noise, 1e-12), _SPIKE_SPREAD * typical
    if typical < _STANDS_OUT * noise or typical <= 0:
        raise InputError(
            f"{recording.source}: no spike stands out on channel {recording.channels[0]} (highest peaks {typical:.3g}, noise "
            f"{noise:.3g} {recording.amplitude_unit}); name another with --truth-channel or give --truth-threshold."
        )
    inside = np.sort(heights[(heights > low) & (heights < high)])
    above = heights[heights >= high].min()
    edges = np.concatenate([[low], inside, [above]])
    widest = int(np.argmax(np.diff(np.log(edges))))
    return float(np.sqrt(edges[widest] * edges[widest + 1]))


def _apart(samples: np.ndarray, heights: np.ndarray, distance: int) -> np.ndarray:
    """Of samples closer than `distance` the highest stays; peaks on both sides of a chunk's border need this."""
    kept: list[int] = []
    best: list[float] = []
    for i in np.argsort(samples, kind="stable"):
        if kept and samples[i] - kept[-1] < distance:
            if heights[i] > best[-1]:
                kept[-1], best[-1] = int(samples[i]), float(heights[i])
        else:
            kept.append(int(samples[i]))
            best.append(float(heights[i]))
    return np.array(kept, np.int64)
