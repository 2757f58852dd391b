"""Quality columns of the unit table, in SpikeInterface's names and numbers where it has them, and the labels of units.

Definitions: refractory violations, Hill et al. 2011 (J. Neurosci. 31:8699) and Llobet et al. 2022 (bioRxiv
2022.02.08.479192); isolation distance and L-ratio, Schmitzer-Torbert et al. 2005 (Neuroscience 131:1). A value that cannot
be had is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import special
from scipy.ndimage import gaussian_filter1d

from spikecrsae.curate.bursts import REFRACTORY_MS
from spikecrsae.data.artefacts import EQUAL_MS
from spikecrsae.data.intervals import NONE, lengths_before
from spikecrsae.data.peaks import Peaks
from spikecrsae.data.timeline import Timeline
from spikecrsae.decode.reference import LARGEST_DIFFERENCE
from spikecrsae.detect.clustering import principal_components
from spikecrsae.preprocess.recognition import equal_intervals
from spikecrsae.units import ms_to_samples, s_to_samples

#: A unit is present in a whole bin of the recording when it fires in it.
PRESENCE_BIN_S = 60.0
#: Bins of an amplitude histogram, their smoothing (in bins), and the spikes per bin that it needs.
CUTOFF_BINS, CUTOFF_SMOOTHING, SPIKES_PER_BIN = 100, 3, 5
#: Parts of the amplitudes that the noise cutoff compares: the smallest with the largest.
LOW_PART, HIGH_PART = 0.1, 0.25
#: After a spike, amplitudes are not compared for so long: a burst changes them.
RECOVERY_MS = 4.0
#: Principal components of the waveforms for isolation distance and L-ratio.
ISOLATION_COMPONENTS = 5
#: Frequencies at which mains act, once or twice per cycle; their phase stays within a tenth of a cycle for MAINS_SEGMENT_S.
MAINS_HZ, MAINS_SEGMENT_S, MAINS_LEVEL = (50.0, 60.0, 100.0, 120.0), 5.0, 1e-3
#: Rhythms so many times slower than mains are looked at before mains are blamed.
SLOWER = tuple(range(2, 13))
#: Probability that the interval of the contamination holds the true value.
CONFIDENCE = 0.95
#: A single unit has at most this part of foreign spikes, and misses at most this part of its own.
ACCEPTED_ERROR = 0.1
#: Lags at which a unit may follow pulses, those at which no neuron does, the level of the test, and how many lags count.
LONGEST_LAG_MS, WITH_PULSE_MS, PULSE_LEVEL, MOST_LAGS = 20.0, 0.6, 1e-4, 10
#: Lags are fixed if this part of those within eight times EQUAL_MS lies within EQUAL_MS: of answers with 0.1 ms of jitter 0.6 does.
SAME_LAG = 0.8
#: More than this part of a unit is what makes it noise: of its phases that mains explain, of a window that its waveform
#: fills.
NOISE_PART = 0.5


@dataclass(frozen=True)
class Evidence:
    """What the quality of units is judged by; one entry per unit in every list and in the first axis of every array.

    samples: spike samples (n_spikes,) int64, ascending; amplitudes (n_spikes,): the template's largest deflection times each
    spike's scale. waveforms (n, n_times, n_channels): high-passed, of some of the spikes, and where they begin,
    waveform_samples (n,) int64, ascending. templates and templates_std (n_units, n_channels, n_window): mean and standard
    deviation of the high-passed waveforms, over a window twice as long as a spike. noise_level (n_channels,): standard
    deviation of the high-passed noise. whitened_norm (n_units,): norm of the template in units of noise. dead_time:
    intervals between spikes of a unit are longer than this many samples, because the decoder allows no others. excluded
    (n, 2): intervals in samples that were not looked at; they count for no rate and no duration. timeline: the recording's clock. pulses (n,): samples of
    the pulses that were found or given, ascending.
    """

    samples: list[np.ndarray]
    amplitudes: list[np.ndarray]
    waveforms: list[np.ndarray]
    waveform_samples: list[np.ndarray]
    templates: np.ndarray
    templates_std: np.ndarray
    noise_level: np.ndarray
    whitened_norm: np.ndarray
    timeline: Timeline
    n_samples: int
    dead_time: int
    excluded: np.ndarray = field(default_factory=lambda: NONE)
    pulses: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def sampling_frequency(self) -> float:
        return self.timeline.sampling_frequency

    @property
    def n_looked_at(self) -> int:
        """Samples outside the excluded intervals."""
        return self.n_samples - int(np.diff(self.excluded).sum())


def unit_columns(evidence: Evidence) -> dict[str, np.ndarray]:
    """All quality columns, (n_units,) each; docs/formats.md says what they mean. The label is not among them."""
    peaks = Peaks.of(evidence.templates, evidence.noise_level)
    counts = np.array([len(s) for s in evidence.samples], np.int64)
    # one row more, without a spike, so that names and types stand where there is no unit
    pairs = [*zip(evidence.samples, evidence.amplitudes, strict=True), (np.zeros(0, np.int64), np.zeros(0))]
    rows = [_spike_measures(samples, amplitudes, evidence) for samples, amplitudes in pairs]
    distance, l_ratio = isolation(evidence.waveforms)
    return {
        "n_spikes": counts,
        **{name: np.array([row[name] for row in rows])[:-1] for name in rows[0]},
        "amplitude": peaks.size,
        "snr": peaks.size / evidence.noise_level[peaks.channel],
        "whitened_norm": evidence.whitened_norm,
        "sd_ratio": _sd_ratios(evidence),
        "isolation_distance": distance,
        "l_ratio": l_ratio,
        "log_odds": evidence.whitened_norm**2 / 2 - np.log(evidence.n_looked_at / np.maximum(counts, 1)),
        "waveform_fill": waveform_fill(evidence.templates, evidence.templates_std, counts),
    }


def _spike_measures(samples: np.ndarray, amplitudes: np.ndarray, evidence: Evidence) -> dict[str, float | int]:
    """What the spike samples and amplitudes of one unit tell."""
    fs, n_samples = evidence.sampling_frequency, evidence.n_looked_at
    return {
        "firing_rate": len(samples) / (n_samples / fs),
        "first_spike_s": float(evidence.timeline.seconds(samples[0])) if len(samples) else np.nan,
        "last_spike_s": float(evidence.timeline.seconds(samples[-1])) if len(samples) else np.nan,
        "presence_ratio": presence_ratio(samples, fs, evidence.n_samples, evidence.excluded),
        **refractory_violations(samples, fs, n_samples, evidence.dead_time),
        "mains_locking": mains_locking(samples, fs),
        "pulse_locking": max(equal_intervals(samples, fs), pulse_locking(samples, evidence.pulses, fs)),
        "amplitude_cv": _ratio(amplitudes.std(), amplitudes.mean()) if len(amplitudes) else np.nan,
        "amplitude_cutoff": amplitude_cutoff(amplitudes),
        **noise_cutoff(amplitudes),
    }


def _sd_ratios(evidence: Evidence) -> np.ndarray:
    """sd_ratio of every unit (n_units,), from its waveforms at the largest deflection of their mean: the scale of a whole
    template varies less than one of its samples."""
    values = np.full(len(evidence.waveforms), np.nan)
    for unit, (samples, windows) in enumerate(zip(evidence.waveform_samples, evidence.waveforms, strict=True)):
        if len(windows):
            peak = Peaks.of(windows.mean(axis=0).T[None], evidence.noise_level)
            time, channel = int(peak.index[0]), int(peak.channel[0])
            values[unit] = sd_ratio(
                samples, windows[:, time, channel], float(evidence.noise_level[channel]), evidence.sampling_frequency
            )
    return values


def _ratio(numerator: float, denominator: float) -> float:
    return float(numerator / denominator) if denominator else np.nan


def presence_ratio(samples: np.ndarray, sampling_frequency: float, n_samples: int, excluded: np.ndarray = NONE) -> float:
    """Part of the recording's whole bins of PRESENCE_BIN_S in which a unit fires; NaN where there is no whole bin. Bins that
    are more than half `excluded` (n, 2) do not count."""
    size = s_to_samples(PRESENCE_BIN_S, sampling_frequency)
    first = np.arange(n_samples // size) * size
    counts = lengths_before(excluded, first + size) - lengths_before(excluded, first) <= size / 2
    fires = np.isin(first, samples // size * size)
    return _ratio(np.sum(fires & counts), np.sum(counts)) if len(samples) else np.nan


def refractory_violations(
    samples: np.ndarray, sampling_frequency: float, n_samples: int, dead_time: int
) -> dict[str, float | int]:
    """Spikes of a unit that follow each other within REFRACTORY_MS, and the contamination that they betray.

    isi_violations: per cent of the intervals; isi_violations_count: their number; isi_violations_ratio: their rate over that
    of independent spikes (Hill et al. 2011). rp_violations: pairs of spikes; rp_contamination: the part of foreign,
    independent spikes that gives so many (Llobet et al. 2022); contamination_low, _high: the same for the ends of the
    interval of the Poisson mean that the pairs speak for (CONFIDENCE). All of them know that the `dead_time` hides the
    shortest intervals; where it hides all, nothing is known.
    """
    refractory = ms_to_samples(REFRACTORY_MS, sampling_frequency)
    # an interval of k samples is seen when dead_time < k, and violates when k is below 1.5 ms (Hill), or is not above
    # (Llobet)
    limit = REFRACTORY_MS * sampling_frequency / 1000
    window, n = limit - (dead_time + 1), len(samples)
    intervals = np.diff(samples)
    count = int(np.sum(intervals < limit))
    pairs = int((np.searchsorted(samples, samples + refractory, "right") - np.arange(1, n + 1)).sum())
    known = n > 1 and window > 0 and refractory > dead_time
    tail = (1 - CONFIDENCE) / 2
    bounds = (special.gammaincinv(pairs, tail) if pairs else 0.0, special.gammainccinv(pairs + 1, tail))

    def contamination(violations: float) -> float:
        seen = violations * (n_samples - 2 * n * dead_time) / (n**2 * (refractory - dead_time))
        return 1 - np.sqrt(max(1 - seen, 0.0))

    return {
        "isi_violations": 100 * count / (n - 1) if n > 1 else np.nan,
        "isi_violations_count": count,
        "isi_violations_ratio": count * n_samples / (2 * n**2 * window) if known else np.nan,
        "rp_violations": pairs,
        "rp_contamination": contamination(pairs) if known else np.nan,
        "contamination_low": contamination(bounds[0]) if known else np.nan,
        "contamination_high": contamination(bounds[1]) if known else np.nan,
    }


def mains_locking(samples: np.ndarray, sampling_frequency: float) -> float:
    """Part of the pairs of a unit's spikes that mains keep in phase: the squared vector strength, without the bias of few
    spikes, at the best of MAINS_HZ; 0 where chance explains it (Rayleigh test, MAINS_LEVEL over all frequencies), or a slower
    rhythm (SLOWER) does that keeps at least half as many in phase: a stimulus at 10 Hz, not the mains.

    The phase is compared within stretches of MAINS_SEGMENT_S, because the frequency of a grid wanders by some 0.02 Hz and
    the phase of a neuron that happens to fire at such a rate wanders faster.
    """
    seconds = samples / sampling_frequency
    segment = np.unique((seconds // MAINS_SEGMENT_S).astype(np.int64), return_inverse=True)[1]
    locked = {frequency: _locking(seconds, segment, frequency) for frequency in MAINS_HZ}
    beyond_chance = [(part, frequency) for frequency, (part, p) in locked.items() if p * len(MAINS_HZ) < MAINS_LEVEL]
    if not beyond_chance:
        return 0.0
    best, frequency = max(beyond_chance)
    slower = max(_locking(seconds, segment, frequency / k)[0] for k in SLOWER if frequency / k not in MAINS_HZ)
    return best if slower < 0.5 * best else 0.0


def pulse_locking(samples: np.ndarray, pulses: np.ndarray, sampling_frequency: float) -> float:
    """Part of a unit's spikes at fixed lags to pulses (samples, ascending), beyond chance: within WITH_PULSE_MS of a pulse, where no
    neuron has answered yet, or at lags from -LONGEST_LAG_MS to LONGEST_LAG_MS that vary by less than EQUAL_MS, as no answer does.
    What is left of a pulse shows at several lags.

    Chance: spikes that know nothing of the pulses. 0 where it explains the number (Poisson, PULSE_LEVEL over all lags).
    """
    if not len(pulses) or not len(samples):
        return 0.0
    longest = ms_to_samples(LONGEST_LAG_MS, sampling_frequency)
    place = np.searchsorted(pulses, samples)
    before, after = pulses[np.maximum(place - 1, 0)], pulses[np.minimum(place, len(pulses) - 1)]
    lags = np.where(np.abs(samples - before) <= np.abs(after - samples), samples - before, samples - after)
    near = max(1, round(EQUAL_MS * sampling_frequency / 1000))
    span = max(int(samples[-1] - samples[0]), int(pulses[-1] - pulses[0]), 1)
    density = len(samples) * len(pulses) / span

    def beyond_chance(n: float, width: int, tries: int) -> float:
        expected = min(density * width, len(samples))
        return n - expected if n > expected and special.gammainc(n, expected) * tries < PULSE_LEVEL else 0.0

    together = ms_to_samples(WITH_PULSE_MS, sampling_frequency)
    part = beyond_chance(np.sum(np.abs(lags) <= together), 2 * together + 1, 1)
    # a histogram of lags; what varies about a lag is taken out with it
    counts = np.bincount(lags[np.abs(lags) <= longest] + longest, minlength=2 * longest + 1)
    sharp_part = 0.0
    for _ in range(MOST_LAGS):
        sharp, around = (np.convolve(counts, np.ones(2 * reach + 1), "same") for reach in (near, 8 * near))
        lag = int(np.argmax(sharp))
        beyond = beyond_chance(sharp[lag], 2 * near + 1, len(counts))
        if not beyond:
            break
        if sharp[lag] > SAME_LAG * around[lag]:
            sharp_part += beyond
        counts[max(0, lag - 8 * near) : lag + 8 * near + 1] = 0
    return float(max(part, sharp_part) / len(samples))


def _locking(seconds: np.ndarray, segment: np.ndarray, frequency: float) -> tuple[float, float]:
    """Part of the pairs within segments (n_spikes,) that a frequency keeps in phase, and the probability of that by chance."""
    counts = np.bincount(segment)
    several = counts > 1
    if not several.any():
        return 0.0, 1.0
    phase = 2 * np.pi * frequency * seconds
    strength = np.bincount(segment, np.cos(phase)) ** 2 + np.bincount(segment, np.sin(phase)) ** 2
    by_chance = special.gammaincc(several.sum(), (strength / np.maximum(counts, 1))[several].sum())
    return float((strength - counts).sum() / (counts * (counts - 1)).sum()), float(by_chance)


def amplitude_cutoff(amplitudes: np.ndarray) -> float:
    """Part of a unit's spikes that is missing below its smallest amplitude, at most 0.5: as many as lie above the amplitude
    at which the upper flank of the histogram has come down to the lower end's height (Hill et al. 2011)."""
    if len(amplitudes) < SPIKES_PER_BIN * CUTOFF_BINS:
        return np.nan
    # smoothed counts are rounded down to whole numbers, as in SpikeInterface
    density = gaussian_filter1d(np.histogram(amplitudes, CUTOFF_BINS)[0], CUTOFF_SMOOTHING, mode="nearest")
    mirror = np.flatnonzero(density >= density[0])[-1]
    missing = density[mirror + 1 :].sum()
    return min(float(missing / (len(amplitudes) + missing)), 0.5)


def noise_cutoff(amplitudes: np.ndarray) -> dict[str, float]:
    """Whether the histogram of amplitudes is cut off below, without a shape assumed (International Brain Laboratory).

    noise_cutoff: mean count of the bins of the smallest tenth of the spikes less that of the largest quarter, over the
    latter's standard deviation. noise_ratio: the former over the fullest bin's count.
    """
    cutoff, ratio = np.nan, np.nan
    if len(amplitudes):
        counts, edges = np.histogram(amplitudes, CUTOFF_BINS)
        low = counts[edges[1:] <= np.quantile(amplitudes, LOW_PART)]
        high = counts[edges[:-1] >= np.quantile(amplitudes, 1 - HIGH_PART)]
        if len(low):
            ratio = _ratio(low.mean(), counts.max())
        if len(low) and len(high) > 1:
            cutoff = _ratio(low.mean() - high.mean(), high.std())
    return {"noise_cutoff": cutoff, "noise_ratio": ratio}


def sd_ratio(samples: np.ndarray, amplitudes: np.ndarray, noise_level: float, sampling_frequency: float) -> float:
    """Standard deviation of a unit's amplitudes over that of the noise on its peak channel; near 1 for one steady neuron.

    It is taken from the differences of successive amplitudes, which drift does not reach; spikes within RECOVERY_MS of one
    before are left out.
    """
    silence, kept, after = ms_to_samples(RECOVERY_MS, sampling_frequency), [], 0
    while after < len(samples):
        kept.append(after)
        after = int(np.searchsorted(samples, samples[after] + silence, "right"))
    return float(np.diff(amplitudes[kept]).std() / np.sqrt(2) / noise_level) if len(kept) > 2 else np.nan


def isolation(waveforms: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Isolation distance and L-ratio of units by their waveforms, (n, n_times, n_channels) each, in the ISOLATION_COMPONENTS
    principal components of all of them together."""
    label = np.repeat(np.arange(len(waveforms)), [len(w) for w in waveforms])
    if len(label) < 2:
        return np.full(len(waveforms), np.nan), np.full(len(waveforms), np.nan)
    features = principal_components(np.concatenate(waveforms), ISOLATION_COMPONENTS, seed=0)
    measures = [mahalanobis_measures(features[label == unit], features[label != unit]) for unit in range(len(waveforms))]
    return tuple(np.array(measures).T)


def mahalanobis_measures(own: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """(isolation distance, L-ratio) of a cluster of features (n, n_features) among the other spikes' (m, n_features).

    Isolation distance: squared Mahalanobis distance from the cluster within which there are as many other spikes as its own,
    or all where there are fewer. L-ratio: how many of the others' distances the cluster itself would exceed were it
    Gaussian, per spike of the cluster. NaN without two other spikes, or where the cluster has too few of its own for a
    covariance.
    """
    n_features = own.shape[1]
    n = min(len(own), len(other))
    if n < 2 or len(own) <= n_features:
        return np.nan, np.nan
    away = other - own.mean(axis=0)
    covariance = np.atleast_2d(np.cov(own, rowvar=False))
    if np.linalg.matrix_rank(covariance, hermitian=True) < n_features:
        return np.nan, np.nan
    squared = np.sort((away * np.linalg.solve(covariance, away.T).T).sum(axis=1))
    return float(squared[n - 1]), float(special.chdtrc(n_features, squared).sum() / len(own))


def waveform_fill(templates: np.ndarray, templates_std: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Part of its window (n_units, n_channels, n_window) that each mean waveform's energy fills: the effective number of
    samples, (sum e)^2 / sum e^2 with e the energy per sample, over n_window.

    A spike fills a small part; a sine fills 2/3. The energy that the mean of `counts` noisy waveforms has by chance is taken
    off.
    """
    chance = templates_std.astype(np.float64) ** 2 / np.maximum(counts, 1)[:, None, None]
    energy = np.maximum((templates.astype(np.float64) ** 2 - chance).sum(axis=1), 0)
    squares = (energy**2).sum(axis=1)
    return np.divide(energy.sum(axis=1) ** 2, energy.shape[1] * squares, out=np.full(len(energy), np.nan), where=squares > 0)


def label_units(columns: dict[str, np.ndarray]) -> np.ndarray:
    """`artefact`, `noise`, `multi`, `unsure` or `single` per unit (n_units,), by its columns; docs/model.md, Labels.

    artefact: the waveform is the same on every channel, as the noise of the reference is (reference_match), or the spikes follow a
    stimulator or a clock (pulse_locking).
    noise: a typical spike is more probably noise than a spike (log_odds < 0), or the waveform lasts as long as its window
    (waveform_fill), or the spikes follow the mains (mains_locking). multi: more than ACCEPTED_ERROR of the spikes are
    foreign, beyond doubt by the refractory period (contamination_low) or as estimated (false_alarm), or more are missing
    (miss). unsure: the interval of false_alarm reaches beyond ACCEPTED_ERROR: too few spikes to tell. single: none of these; what is
    not known, NaN or no column at all, speaks against no unit.
    """
    nothing = np.full(len(columns["n_spikes"]), np.nan)

    def above(names: tuple[str, ...], level: float) -> np.ndarray:
        return np.any([columns.get(name, nothing) > level for name in names], axis=0)

    noise = (columns["log_odds"] < 0) | above(("waveform_fill", "mains_locking"), NOISE_PART)
    multi = above(("contamination_low", "false_alarm", "miss"), ACCEPTED_ERROR)
    artefact = above(("reference_match",), 1 - LARGEST_DIFFERENCE**2) | above(("pulse_locking",), NOISE_PART)
    unsure = above(("false_alarm_high",), ACCEPTED_ERROR)
    return np.select([artefact, noise, multi, unsure], ["artefact", "noise", "multi", "unsure"], "single")
