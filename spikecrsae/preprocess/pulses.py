"""Take out pulses of one shape: their template, the gain and place of each, and where what remains must be blanked.

The traces are treated before the high-pass, which then has no edge left that it could ring on. There a pulse is linear: its template
times a gain, and its derivative times a shift below one sample. Slow potentials below it are a polynomial of each window.

A pulse is the same each time. A neuron that answers it is not: its lag varies and it fails at times. What varies more than noise in one
piece with the pulse is blanked. What varies after the first pause is an answer: it is neither blanked nor a part of the template, which
continues below it as the pulse's tail does, a sum of exponentials.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy.interpolate import CubicHermiteSpline
from scipy.ndimage import (
    binary_closing,
    binary_dilation,
    binary_propagation,
    maximum_filter1d,
    minimum_filter1d,
    uniform_filter1d,
)

from spikecrsae.data.artefacts import Pulses
from spikecrsae.data.recording import BLOCK, Recording
from spikecrsae.preprocess.filters import zero_phase
from spikecrsae.preprocess.recognition import edge_limit
from spikecrsae.system.robust import deviation_about_zero
from spikecrsae.units import ms_to_samples

T = TypeVar("T")
#: A template lasts from so long before a pulse to so long after it, or as long as pulses are apart.
BEFORE_MS, AFTER_MS = 3.0, 20.0
#: Signal beside a template in which residuals are compared with noise.
AROUND_MS = 5.0
#: It is learned from so many pulses at most, evenly spread.
MOST_LEARNED = 400
#: Pulses of two groups are the same if they are so similar at a lag up to LAG_MS, in the median of some.
SAME_PULSE, LAG_MS, MOST_COMPARED = 0.9, 1.5, 60
#: A pulse lies at most so many samples from where its peak was found.
FURTHEST = 1.5
#: Degree of the polynomial that stands for slow potentials in a window.
DEGREE = 2
#: A template ends where it is not told from zero by so many standard errors, with so much more before and after it.
TOLD, BESIDE_MS = 4.0, (1.0, 5.0)
#: The slopes of its ends are those of so much, and the noise at its ends fades within so much.
END_MS, FADE_MS = 1.0, 0.5
#: What is told from zero within so much of a pulse is its own, and what follows it without a pause of QUIET_MS.
NEAR_MS, QUIET_MS = 1.0, 0.5
#: Pulses vary more than noise where their residual exceeds it by this factor, and by so many of its sampling errors.
LOUDER, ERRORS = 1.3, 4.7
#: A template that changes by so many noise levels from one sample to the next has an edge, which no shift moves between samples.
EDGE = 5.0
#: Blanks grow from the worst place: in a round only what is louder than this part of the worst is added.
WORST_PART, ROUNDS = 0.3, 10
#: Between blanks closer than this nothing is left; what varies after a longer pause is an answer to the pulse.
APART_MS = 0.3
#: The body of a pulse is larger than this part of its peak. An answer disturbs so much beside what varies.
BODY, ANSWER_MS = 0.5, 0.25
#: Time constants in ms of the tail below answers, and the smallest singular value that counts.
TAIL_MS, LEAST_SINGULAR = tuple(0.25 * 2.0**k for k in range(9)), 1e-3
#: Gains are held within so many deviations of their median: a spike on a pulse is no gain.
GAIN_DEVIATIONS, LEAST_GAIN_DEVIATION = 4.0, 0.01


@dataclass(frozen=True)
class _Fit:
    """Weighted least squares of windows (n, n_times, n_channels) with a template, its slope, and a polynomial per channel.
    weights (n_times,): one over the variance of the residual."""

    template: np.ndarray
    weights: np.ndarray

    def solve(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Gain (n,) and shift (n,) of each window, and the residual without the polynomial (n, n_times, n_channels)."""
        time = np.linspace(-1, 1, len(self.template))
        powers = time[:, None] ** np.arange(DEGREE + 1)
        weighted = powers.T * self.weights
        inverse = np.linalg.solve(weighted @ powers + 1e-12 * np.eye(DEGREE + 1), weighted)

        def apart(signals: np.ndarray) -> np.ndarray:
            return signals - powers @ (inverse @ signals)

        shapes = apart(np.stack([self.template, slope_of(self.template)]).astype(np.float64))
        rest = apart(windows)
        normal = np.einsum("ktc,ltc,t->kl", shapes, shapes, self.weights)
        normal += 1e-9 * np.trace(normal) * np.eye(2)
        right = np.einsum("ktc,ntc,t->kn", shapes, rest, self.weights, optimize=True)
        gain, shift = np.linalg.solve(normal, right)
        shift = np.clip(shift, -FURTHEST * np.abs(gain), FURTHEST * np.abs(gain))
        rest -= gain[:, None, None] * shapes[0] + shift[:, None, None] * shapes[1]
        return gain, shift, rest


def slope_of(template: np.ndarray) -> np.ndarray:
    """Derivative per sample of a template (n_times, n_channels)."""
    return np.gradient(template, axis=0)


def take_out(
    recording: Recording, samples: np.ndarray, sos: np.ndarray, margin: int, blank: tuple[int, int] = (0, 0)
) -> tuple[Pulses | None, np.ndarray]:
    """The pulses of one shape at samples (n,), ascending, of a recording, None where their mean is not told from zero; and the blanks
    (k, 2), in samples from each pulse on.

    sos, margin: of the high-pass, behind which residuals are compared with noise. blank: what is blanked in any case.
    """
    fs = recording.sampling_frequency
    span = ms_to_samples(BEFORE_MS + AFTER_MS, fs)
    if len(samples) > 1:
        span = max(4, min(span, int(np.quantile(np.diff(samples), 0.01)) - 2))
    before = min(ms_to_samples(BEFORE_MS, fs), span // 4)
    samples = samples[np.r_[True, np.diff(samples) >= span]]
    around = ms_to_samples(AROUND_MS, fs)
    whole = (samples - before - around >= 0) & (samples - before + span + around <= recording.n_samples)
    chosen = samples[whole][:: max(1, -(-int(whole.sum()) // MOST_LEARNED))]
    if len(chosen) < 2:
        return None, np.array([[-before, span - before]])
    wide = _windows(recording, chosen - before - around, span + 2 * around)
    noise = _high(wide[:, -around:], sos, margin)
    level = np.maximum(deviation_about_zero(noise.reshape(-1, recording.n_channels), axis=0), 1e-9)
    windows = wide[:, around : around + span]
    reach = min(-ms_to_samples(NEAR_MS, fs), blank[0]), max(ms_to_samples(NEAR_MS, fs), blank[1])
    beside = ms_to_samples(BESIDE_MS[0], fs), ms_to_samples(BESIDE_MS[1], fs)
    # the error of a median
    error, pause = 1.25 * level / np.sqrt(len(chosen)), ms_to_samples(QUIET_MS, fs)
    about = before, error, (sos, margin), reach, pause, beside
    # gains are fitted to what is there only: those of noise make a template of their own
    if _told(_median_pulse(windows, before), *about) is None:
        return None, np.zeros((0, 2), np.int64)
    fit = _fitted(windows, before, level)
    varying = _Varying(before + around, blank, level, (sos, margin), fs)
    gain, shift, _ = fit.solve(windows)
    own, answer = varying.own_and_other(_less(wide, fit.template, gain, shift, around), fit.template, around)
    fit = _without_answers(fit, own[around : around + span], answer[around : around + span], before, fs)
    part = _told(fit.template, *about)
    if part is None:
        return None, np.zeros((0, 2), np.int64)
    before -= part.start
    fit = _Fit(fit.template[part], fit.weights[part])
    gain, shift = _gains(recording, samples, before, fit)
    template = _ended(fit.template, ms_to_samples(END_MS, fs), ms_to_samples(FADE_MS, fs))
    pulses = Pulses(template, slope_of(template).astype(np.float32), before, samples, gain, shift)
    here = np.isin(samples, chosen)
    left = _less(wide, template, gain[here], shift[here], around + part.start)
    own, _ = varying.own_and_other(left, template, around + part.start, answer)
    return pulses, np.flatnonzero(np.diff(own, prepend=False, append=False)).reshape(-1, 2) - varying.place


def _fitted(windows: np.ndarray, before: int, level: np.ndarray) -> _Fit:
    """The median pulse of windows (n, n_times, n_channels), each scaled and shifted to it, and the weights of its times."""
    template, weights = _median_pulse(windows, before), np.ones(windows.shape[1])
    for _ in range(3):
        gain, shift, rest = _Fit(template, weights).solve(windows)
        # the mean square also sees what few pulses do, as an edge that falls between two samples
        weights = 1 / np.maximum(uniform_filter1d(np.mean((rest / level) ** 2, axis=(0, 2)), 3), 1.0)
        straight = windows - shift[:, None, None] * slope_of(template)
        template = _median_pulse(straight / np.where(np.abs(gain) > 1e-3, gain, 1.0)[:, None, None], before)
    return _Fit(template, weights)


def joined(recording: Recording, groups: list[tuple[np.ndarray, T]], single: np.ndarray) -> list[tuple[np.ndarray, T]]:
    """Groups of samples, each with what belongs to it, in which those of the same pulse are one, with those of the `single` samples (n,)
    that are the same too: where a pulse has two peaks of nearly one size, either may have been found.

    The largest groups come first; the others' samples become those of its peak."""
    fs = recording.sampling_frequency
    half, most = ms_to_samples(AROUND_MS, fs), ms_to_samples(LAG_MS, fs)
    heads: list[tuple[np.ndarray, T, np.ndarray]] = []
    ordered: list[tuple[np.ndarray, T | None]] = [*sorted(groups, key=lambda group: -len(group[0]))]
    for samples, value in [*ordered, *((sample[None], None) for sample in single)]:
        inner = samples[(samples >= half) & (samples + half <= recording.n_samples)]
        if not len(inner):
            continue
        mean = _median_pulse(_windows(recording, inner[:: -(-len(inner) // MOST_COMPARED)] - half, 2 * half), half)
        for number, (known, first, template) in enumerate(heads):
            lag, alike = _best_lag(template, mean, most)
            if alike > SAME_PULSE:
                # a pulse of which two events were found is one
                moved = samples + lag
                apart = np.searchsorted(known, moved - most) == np.searchsorted(known, moved + most, "right")
                heads[number] = np.sort(np.concatenate([known, moved[apart]])), first, template
                break
        else:
            if value is not None:
                heads.append((samples, value, mean))
    return [(samples, value) for samples, value, _ in heads]


def _best_lag(first: np.ndarray, second: np.ndarray, most: int) -> tuple[int, float]:
    """By how many samples, at most `most`, the second of two pulses (n_times, n_channels) is later to be like the first, and their
    cosine similarity there."""
    inner = first[most : len(first) - most]
    found = []
    for lag in range(-most, most + 1):
        other = second[most + lag : len(second) - most + lag]
        found.append(np.vdot(inner, other) / max(np.linalg.norm(inner) * np.linalg.norm(other), 1e-9))
    return int(np.argmax(found)) - most, float(np.max(found))


def _windows(recording: Recording, starts: np.ndarray, length: int) -> np.ndarray:
    """Traces (n, length, n_channels) from each of the starts on."""
    return np.stack([recording.traces(int(start), int(start) + length) for start in starts])


def _high(windows: np.ndarray, sos: np.ndarray, margin: int) -> np.ndarray:
    """Windows (n, n_times, n_channels) high-passed, each by itself."""
    n, n_times, n_channels = windows.shape
    side_by_side = np.ascontiguousarray(windows.transpose(1, 0, 2).reshape(n_times, -1))
    return zero_phase(side_by_side, sos, min(margin, n_times - 1)).reshape(n_times, n, n_channels).transpose(1, 0, 2)


def _median_pulse(windows: np.ndarray, before: int) -> np.ndarray:
    """The median of windows (n, n_times, n_channels) from their levels before the pulse on."""
    quiet = max(1, before // 2)
    mean = np.median(windows - windows[:, :quiet].mean(axis=1, keepdims=True), axis=0)
    return mean.astype(np.float32)


def _told(
    template: np.ndarray,
    before: int,
    error: np.ndarray,
    high_pass: tuple[np.ndarray, int],
    reach: tuple[int, int],
    pause: int,
    beside: tuple[int, int],
) -> slice | None:
    """The part of a template that is told from zero; None where none is within `reach` of the pulse.

    error (n_channels,): standard error of its high-passed values. beside: samples more before and after it, in which there are slow
    tails that the high-pass does not show. What comes after a pause is an answer to the pulse, not the pulse.
    """
    sos, margin = high_pass
    padded = np.pad(template, ((margin, margin), (0, 0)))
    told = (np.abs(zero_phase(padded, sos, margin)[margin:-margin]) > TOLD * error).any(axis=1)
    runs = np.flatnonzero(np.diff(binary_closing(np.pad(told, pause), np.ones(pause)), prepend=False, append=False)).reshape(
        -1, 2
    )
    runs -= pause
    near = runs[(runs[:, 0] <= before + reach[1]) & (runs[:, 1] > before + reach[0])]
    if not len(near):
        return None
    first, end = min(near[0, 0], before) - beside[0], max(near[-1, 1], before + 1) + beside[1]
    return slice(int(max(0, first)), int(min(len(template), end)))


def _ended(template: np.ndarray, end: int, fade: int) -> np.ndarray:
    """A template (n_times, n_channels) without the slow part that comes from before its start and lasts beyond its end: no edge is there.

    The slow part is the cubic polynomial with the template's values and slopes at its ends, each from `end` samples. It stays in the
    traces, and the high-pass takes it out together with the tails beside it.
    """
    n = len(template)
    end, fade = min(end, n // 3), max(1, min(fade, n // 4))
    if end < 2:
        return template
    time = np.arange(end) / n
    slopes, values = np.stack([np.polyfit(time, part, 1) for part in (template[:end], template[-end:])], axis=1)
    values[1] += slopes[1] * end / n
    ended = template - CubicHermiteSpline([0, 1], values, slopes)(np.arange(n) / n)
    rise = 0.5 - 0.5 * np.cos(np.pi * np.arange(1, fade + 1) / (fade + 1))[:, None]
    ended[:fade] *= rise
    ended[-fade:] *= rise[::-1]
    return ended.astype(np.float32)


def _without_answers(fit: _Fit, own: np.ndarray, answer: np.ndarray, before: int, fs: float) -> _Fit:
    """A fit whose template continues as a tail where there is an answer (bool, n_times) after the pulse's own times (bool, n_times), and which gives no weight to it."""
    if not answer.any():
        return fit
    times, bad = np.arange(len(answer)), np.flatnonzero(answer)
    first = 1 + max(before, int(np.flatnonzero(own & (times < bad[0])).max(initial=0)))
    good = np.flatnonzero((times >= first) & ~answer)
    basis = np.exp(-(times - first)[:, None] / (np.array(TAIL_MS) * fs / 1000))
    template, weights = fit.template.copy(), fit.weights.copy()
    values = (
        np.linalg.lstsq(basis[good], template[good], rcond=LEAST_SINGULAR)[0] if len(good) else np.zeros((len(TAIL_MS), 1))
    )
    template[bad] = basis[bad] @ values
    weights[bad] = 0
    return _Fit(template, weights)


def _gains(recording: Recording, samples: np.ndarray, before: int, fit: _Fit) -> tuple[np.ndarray, np.ndarray]:
    """Gain and shift (n,) of every pulse, block after block; those at the recording's ends have what is usual."""
    n_times = len(fit.template)
    gain, shift = np.full(len(samples), np.nan), np.zeros(len(samples))
    whole = (samples >= before) & (samples - before + n_times <= recording.n_samples)
    block = (samples - before) // BLOCK
    for number in np.unique(block[whole]):
        here = np.flatnonzero(whole & (block == number))
        start = int(samples[here[0]]) - before
        traces = recording.traces(start, int(samples[here[-1]]) - before + n_times)
        places = (samples[here] - before - start)[:, None] + np.arange(n_times)
        gain[here], shift[here], _ = fit.solve(traces[places])
    known = gain[whole] if whole.any() else np.ones(1)
    middle = float(np.median(known))
    reach = GAIN_DEVIATIONS * max(float(deviation_about_zero(known - middle)), LEAST_GAIN_DEVIATION * abs(middle))
    return np.where(whole, np.clip(gain, middle - reach, middle + reach), middle), shift


def _less(windows: np.ndarray, template: np.ndarray, gain: np.ndarray, shift: np.ndarray, first: int) -> np.ndarray:
    """Windows (n, n_times, n_channels) less a template from their time `first` on, each with its gain (n,) and shift (n,)."""
    left = windows.copy()
    here = slice(first, first + len(template))
    left[:, here] -= gain[:, None, None] * template + shift[:, None, None] * slope_of(template)
    return left


@dataclass(frozen=True)
class _Varying:
    """Where windows vary more than noise of a level (n_channels,) behind a high-pass; the pulse is at their time `place`, and in any case
    [blank) from there on is blanked, which is all where any is given."""

    place: int
    blank: tuple[int, int]
    level: np.ndarray
    high_pass: tuple[np.ndarray, int]
    fs: float

    def own_and_other(
        self, windows: np.ndarray, template: np.ndarray, first: int, known: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Times (bool, n_times) to blank, in one piece with the pulse, of windows (n, n_times, n_channels) without it, and the later times
        at which they vary too, with what lies between and beside them.

        template: what was subtracted, from the time `first` on; known (bool, n_times): later times that are known and not to blank.
        """
        body, bad = self._body(windows.shape[1], template, first)
        given = self.blank[1] > self.blank[0]
        if given:
            bad = np.zeros_like(bad)
            bad[max(1, self.place + self.blank[0]) : self.place + self.blank[1]] = True
        pause = np.ones(1 + ms_to_samples(APART_MS, self.fs))
        limit, steps = LOUDER + ERRORS / np.sqrt(2 * len(windows)), None
        for _ in range(ROUNDS):
            high = _high(_bridged(windows, bad), *self.high_pass)
            deviation = deviation_about_zero(high, axis=0) / self.level
            change = deviation_about_zero(np.diff(high, axis=1, prepend=high[:, :1]), axis=0)
            steps = np.quantile(change, 0.25, axis=0) if steps is None else steps
            loudness = np.sqrt(uniform_filter1d(np.maximum(deviation, change / steps) ** 2, 3, axis=0)).max(axis=1)
            loudness[bad] = 0
            loudness[[0, -1]] = 0
            loud = loudness > limit
            if known is not None:
                loud &= ~known
            near = bad if given else binary_propagation(body | bad, mask=binary_closing(body | bad | loud, pause))
            worst = loudness[near].max(initial=0)
            if worst <= limit:
                break
            bad |= binary_dilation(near & (loudness > max(limit, WORST_PART * worst)))
        other = (loudness > limit) & ~near
        other[: self.place] = False
        beside = ms_to_samples(ANSWER_MS, self.fs)
        other = binary_closing(np.pad(binary_dilation(other, iterations=beside), beside), np.ones(2 * beside))[
            beside:-beside
        ]
        return binary_closing(bad, pause) | bad, other & ~bad

    def _body(self, n_times: int, template: np.ndarray, first: int) -> tuple[np.ndarray, np.ndarray]:
        """The pulse's body and its edges (bool, n_times)."""
        body, edges = np.zeros(n_times, bool), np.zeros(n_times, bool)
        near = ms_to_samples(NEAR_MS, self.fs)
        here = slice(first, first + len(template))
        size = (np.abs(template) / self.level).max(axis=1) * (np.abs(np.arange(n_times)[here] - self.place) <= near)
        body[here] = size > BODY * size.max()
        beside = binary_dilation(body, iterations=ms_to_samples(APART_MS, self.fs))[here]
        jump = np.abs(np.diff(template, axis=0))
        extent = maximum_filter1d(template, near, axis=0) - minimum_filter1d(template, near, axis=0)
        sharp = beside[1:, None] | (jump > edge_limit(self.fs) * extent[1:])
        jumps = ((jump > EDGE * self.level) & sharp).any(axis=1)
        edges[here] = np.r_[jumps, False] | np.r_[False, jumps]
        return body | edges, edges


def _bridged(windows: np.ndarray, bad: np.ndarray) -> np.ndarray:
    """Windows (n, n_times, n_channels) in which the bad times are a line between those beside them."""
    if not bad.any():
        return windows
    good, places = np.flatnonzero(~bad), np.flatnonzero(bad)
    right = np.clip(np.searchsorted(good, places), 1, len(good) - 1)
    low, high = good[right - 1], good[right]
    share = ((places - low) / (high - low))[:, None]
    filled = windows.copy()
    filled[:, bad] = (1 - share) * windows[:, low] + share * windows[:, high]
    return filled
