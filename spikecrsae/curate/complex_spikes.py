"""Find the complex spikes among a unit's spikes: those with spikelets after them, and a pause."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import special
from scipy.ndimage import maximum_filter1d

from spikecrsae.crsae.complex_spikes import LARGEST_SPIKELET, ComplexSpikes, may_be_spikelets, tails_of, tell_apart
from spikecrsae.crsae.em import E_STEP
from spikecrsae.crsae.model import CRsAE
from spikecrsae.csc.operator import gram
from spikecrsae.curate.bursts import SAME_SHAPE
from spikecrsae.curate.candidates import at_most
from spikecrsae.curate.evidence import parameter_cost
from spikecrsae.curate.removals import CERTAIN
from spikecrsae.curate.satellites import SATELLITE_FRACTION
from spikecrsae.data.pieces import Pieces
from spikecrsae.data.spikes import Spikes
from spikecrsae.detect.bimodality import robust_deviation
from spikecrsae.detect.clustering import SMALLEST_CLUSTER
from spikecrsae.detect.windows import TemplateWindow
from spikecrsae.units import ms_to_samples

#: Spikelets are sought up to so long after a spike, and simple spikes pause for about PAUSE_MS; what they do so long
#: BEFORE_MS before a complex spike is what is usual.
TAIL_MS, PAUSE_MS, BEFORE_MS = 12.0, 15.0, 60.0
#: Levels of the tests for two kinds of spikes and for a pause, which both have to hold.
KIND_LEVEL, PAUSE_LEVEL = 0.05, 1e-2
#: Tails that are looked at, at most.
MOST_TAILS = 10_000
#: A spikelet stands out of the noise by so many standard deviations.
SPIKELET = 3.0
#: Rounds in which spikes are told apart and their tails averaged anew, and rounds of EM of the whole model after these.
ROUNDS, LAST_ROUNDS = 6, 2


@dataclass(frozen=True)
class Found:
    """A model in which complex spikes are units of their own, new ones at its end, with its spikes; how they are told apart;
    and the decisions, with units as they are in the model."""

    model: CRsAE
    spikes: Spikes
    complexes: tuple[ComplexSpikes, ...] = ()
    decisions: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Searched:
    """Where complex spikes are sought: signal (n_channels, n_samples), whitened, of these pieces of the recording, with the
    levels (n_samples,) of its noise. tail, pause, before: durations in samples, of the tail from the end of a template on,
    and see `pause_of`."""

    signal: np.ndarray
    pieces: Pieces
    level: np.ndarray | None
    tail: int
    pause: int
    before: int
    seed: int

    @classmethod
    def of(
        cls,
        signal: np.ndarray,
        pieces: Pieces,
        level: np.ndarray | None,
        window: TemplateWindow,
        sampling_frequency: float,
        seed: int,
    ) -> Searched:
        tail, pause, before = (ms_to_samples(ms, sampling_frequency) for ms in (TAIL_MS, PAUSE_MS, BEFORE_MS))
        return cls(signal, pieces, level, max(1, window.before + tail - window.n_times), pause, before, seed)


def find_complex_spikes(where: Searched, found: Found) -> Found:
    """Tell simple and complex spikes apart, in every unit that has both and in every pair of units of like shape.

    A spike's tail is what follows its template, with all spikes taken away that are too large for spikelets. EM divides the
    tails into two kinds, beginning with those in which the unit's template stands out of the noise. One kind is that of
    complex spikes if a typical one is certain against the other, if the odds of all spikes have a valley between the two,
    and if the simple spikes pause after the complex ones.
    """
    counts = np.bincount(found.spikes.unit, minlength=found.model.n_units)
    for unit in np.argsort(-counts, kind="stable").tolist():
        if all(unit not in (told.simple, told.complex) for told in found.complexes):
            found = _told_apart(where, found, unit)
    return found


def _told_apart(where: Searched, found: Found, unit: int) -> Found:
    """With the simple and the complex spikes of one unit, and of another one like it, as two units."""
    refused = []
    for other, model, spikes in _with_partners(found.model, found.spikes, unit):
        small = may_be_spikelets(model, spikes, unit)
        heads = at_most(np.flatnonzero(np.isin(spikes.unit, (unit, other)) & ~small), MOST_TAILS, where.seed)
        tails = tails_of(where.signal, model, spikes, heads, small, where.tail)
        is_new = other == found.model.n_units
        guess = _with_spikelets(tails, model.templates[unit]) if is_new else spikes.unit[heads] == other
        kinds = ComplexSpikes(unit, other, np.zeros((2, len(where.signal), where.tail)), 0.0)
        told, why, p = _two_kinds(kinds, tails, guess, where.seed)
        if told is not None:
            complexes = (*found.complexes, told)
            model, spikes = _trained(where, model, spikes, complexes)
            simple, complex_ = (np.sort(spikes.sample[spikes.unit == one]) for one in (unit, other))
            ratio, p = pause_of(simple, complex_, where.pause, where.before)
            if p < PAUSE_LEVEL:
                row = {"decision": "complex spikes", "units": [unit, other], "statistic": p, "level": PAUSE_LEVEL}
                row |= {"why": "spikelets, and a pause after them", "n": len(complex_), "pause_ratio": ratio}
                return Found(model, spikes, complexes, (*found.decisions, row))
            why = "no pause of the simple spikes"
        refused.append((p, why))
    p, why = min(refused)
    row = {"decision": "no complex spikes", "units": [unit], "statistic": p, "level": PAUSE_LEVEL, "why": why}
    return replace(found, decisions=(*found.decisions, row))


def _with_partners(model: CRsAE, spikes: Spikes, unit: int) -> Iterator[tuple[int, CRsAE, Spikes]]:
    """Units that may hold the complex spikes of a unit, each with the model and its spikes: units of like shape with fewer
    spikes, at least as large, moved so that their templates lie as the unit's does; then a new one with its template."""
    counts, n_times = np.bincount(spikes.unit, minlength=model.n_units), model.n_times
    correlation = gram(model.templates[[unit]], model.templates)[0]
    norm = np.sqrt(np.maximum(model.energy, 1e-12))
    cosine = correlation.max(axis=1) / (norm[unit] * norm)
    for other in np.flatnonzero((cosine >= SAME_SHAPE) & (counts < counts[unit]) & (norm >= LARGEST_SPIKELET * norm[unit])):
        lag = int(correlation[other].argmax()) - (n_times - 1)
        templates, by = model.templates.copy(), np.zeros(model.n_units, np.int64)
        templates[other], by[other] = np.roll(templates[other], -lag, axis=1), lag
        yield int(other), replace(model, templates=templates), spikes.moved(by, int(spikes.sample.max(initial=0)))
    yield model.n_units, model.extended(model.templates[[unit]]), spikes


def _two_kinds(
    told: ComplexSpikes, tails: np.ndarray, is_complex: np.ndarray, seed: int
) -> tuple[ComplexSpikes | None, str, float]:
    """How two kinds of tails (n, n_tail, n_channels) are told apart, None where there are no two; why, and the probability
    of that valley between them. is_complex (bool, n): a first guess.

    EM, in which the means of each half of the tails tell those of the other half apart, so that noise alone shows no second
    kind.
    """
    half = np.random.default_rng(seed).permutation(len(tails)) % 2
    for _ in range(ROUNDS):
        parts = [[tails[(half == k) & kind] for kind in (~is_complex, is_complex)] for k in (0, 1)]
        if min(len(part) for pair in parts for part in pair) < SMALLEST_CLUSTER // 2:
            return None, "no spikes with spikelets after them", 1.0
        halves = [_with_means(told, *pair) for pair in parts]
        scores = np.where(half == 0, halves[1].scores(tails), halves[0].scores(tails))
        is_complex = scores > 0
    differences = [(one.tails[1] - one.tails[0]).astype(np.float64) for one in halves]
    energy, n = float(np.vdot(*differences)), int(is_complex.sum())
    certain = 0.5 * energy + halves[0].log_odds > np.log(CERTAIN / (1 - CERTAIN))
    if min(n, len(tails) - n) < SMALLEST_CLUSTER or not certain or 0.5 * n * energy < parameter_cost(differences[0], n):
        return None, "no spikes with spikelets after them", 1.0
    p = _one_mode(scores, is_complex)
    if p >= KIND_LEVEL:
        return None, "no valley between spikes with and without spikelets", p
    return _with_means(told, tails[~is_complex], tails[is_complex]), "", p


def _one_mode(scores: np.ndarray, is_complex: np.ndarray) -> float:
    """Probability (binomial) that as few of the scores (n,) lie about 0, where either kind is as probable, and as many about
    the median of the complex spikes', if one mode holds all. Both windows are as wide as either kind."""
    width = np.sqrt(0.5 * sum(robust_deviation(scores[kind]) ** 2 for kind in (is_complex, ~is_complex)))
    between, beyond = (int((np.abs(scores - at) < width / 2).sum()) for at in (0.0, np.median(scores[is_complex])))
    return float(special.bdtr(between, between + beyond, 0.5))


def _with_spikelets(tails: np.ndarray, template: np.ndarray) -> np.ndarray:
    """Tails (n, n_tail, n_channels) in which the template (n_channels, n_times) stands out of the noise twice (bool, n), or
    once where there are few of these."""
    n_times = template.shape[1]
    filter_ = (template / np.linalg.norm(template)).astype(np.float32)
    if tails.shape[1] < n_times:
        return np.zeros(len(tails), bool)
    matched = np.tensordot(np.lib.stride_tricks.sliding_window_view(tails, n_times, axis=1), filter_, axes=2)
    peaks = (matched == maximum_filter1d(matched, n_times // 2, axis=1)) & (matched > SPIKELET)
    counts = peaks.sum(axis=1)
    twice: np.ndarray = counts >= 2
    return twice if twice.sum() >= 2 * SMALLEST_CLUSTER else counts >= 1


def _with_means(told: ComplexSpikes, simple: np.ndarray, complex_: np.ndarray) -> ComplexSpikes:
    """With the means and the odds of tails of both kinds (n, n_tail, n_channels)."""
    tails = np.stack([simple.mean(axis=0).T, complex_.mean(axis=0).T]).astype(np.float32)
    return replace(told, tails=tails, log_odds=float(np.log(len(complex_) / len(simple))))


def _trained(where: Searched, model: CRsAE, spikes: Spikes, complexes: tuple[ComplexSpikes, ...]) -> tuple[CRsAE, Spikes]:
    """EM of the model with the two kinds of spikes told apart."""
    for _ in range(LAST_ROUNDS):
        spikes, rest = tell_apart(complexes, model, where.signal, spikes, where.level, E_STEP)
        model = model.maximise(rest, spikes, where.pieces.positions(spikes.sample, spikes.unit, model.n_units))
        spikes = model.encode(where.signal, E_STEP, where.level)
    return model, tell_apart(complexes, model, where.signal, spikes, where.level, E_STEP)[0]


def spikelets_only(before: Spikes, found: Found) -> np.ndarray:
    """Units (bool, n_units) most of whose spikes `before` complex ones were found were spikelets of these."""
    n_units = found.model.n_units
    then, now = (np.bincount(spikes.unit, minlength=n_units) for spikes in (before, found.spikes))
    lost = now < (1 - SATELLITE_FRACTION) * then
    lost[[told.simple for told in found.complexes]] = False
    return np.asarray(lost)


def pause_of(simple: np.ndarray, complex_: np.ndarray, pause: int, before: int) -> tuple[float, float]:
    """How much rarer simple spikes (samples, ascending) are in the `pause` samples after complex ones than in the `before`
    samples before them, as a ratio of rates, and its probability where they are not (binomial)."""
    n_after = int((np.searchsorted(simple, complex_ + pause, "right") - np.searchsorted(simple, complex_, "right")).sum())
    n_before = int((np.searchsorted(simple, complex_) - np.searchsorted(simple, complex_ - before)).sum())
    if not n_before:
        return np.nan, 1.0
    p = special.bdtr(n_after, n_after + n_before, pause / (pause + before))
    return n_after / pause / (n_before / before), float(p)
