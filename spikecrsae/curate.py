"""Which templates there are: EM of the spike-and-slab model, and births, splits, merges and deaths by statistical tests.

One round decodes the training signal, updates templates and priors, then asks of every unit whether it pays for its
parameters (death), is two (split) or the same as another (merge), and of the residual whether it holds spikes of no unit
(birth). Rounds end when nothing changes. Every decision is kept with its statistic.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np

from spikecrsae.csc.convolution import gram
from spikecrsae.csc.least_squares import fit_templates
from spikecrsae.csc.pursuit import Spikes, SpikeSlab, shift_in_time
from spikecrsae.initialise import (
    SpikeSubspace,
    TemplateWindow,
    cluster,
    principal_components,
    templates_from_labels,
    windows_at,
)
from spikecrsae.sparse_code import SparseCode

log = logging.getLogger(__name__)

#: Bounds of the learned amplitude spread: below, a spike would have to fit its template better than any real one does;
#: above, the prior would no longer tell a spike from noise.
SPREAD_BOUNDS = (0.03, 0.3)
#: Amplitude spread and log-odds penalty before anything is known.
FIRST_SPREAD, FIRST_PENALTY = 0.15, 8.0
#: A cluster with fewer spikes than this has no mean worth a test.
SMALLEST_CLUSTER = 10
MAX_ROUNDS = 12


@dataclass(frozen=True)
class Curated:
    """The stable set of units with its prior, the spikes of the training signal, and the decisions that led there."""

    model: SpikeSlab
    spikes: Spikes
    decisions: tuple[dict, ...]
    rounds: int


def curate(
    signal: np.ndarray,
    templates: np.ndarray,
    subspace: SpikeSubspace,
    window: TemplateWindow,
    *,
    threshold: float,
    dead_time: int,
    refractory: int,
    n_components: int,
    fixed_number: bool,
    seed: int,
    observer,
) -> Curated:
    """Alternate EM and decisions on signal (n_channels, n_samples), whitened, from first templates
    (n_units, n_channels, n_times), until the set is stable. fixed_number: only EM, no decision."""
    stage = _Stage(signal, subspace, window, threshold, dead_time, n_components, seed)
    model = first_model(templates, refractory)
    decisions: list[dict] = []
    for round_number in range(1, MAX_ROUNDS + 1):
        model, spikes = expectation_maximisation(signal, model, n_rounds=3)
        observer.advance(1)
        if fixed_number:
            break
        before = len(decisions)
        model, spikes = _deaths(stage, model, spikes, decisions)
        model, spikes = _centred(stage, model, spikes)
        cleaned = _cleaned_waveforms(stage, model, spikes)
        merged = _merges(stage, model, spikes, cleaned, decisions)
        if merged is not None:
            model = merged
        else:
            model = _births(stage, _splits(stage, model, spikes, cleaned, decisions), model, spikes, decisions)
        for decision in decisions[before:]:
            decision["round"] = round_number
            log.info("round %d: %s", round_number, decision)
        if len(decisions) == before or round_number == MAX_ROUNDS:
            break
    if not fixed_number:
        model, spikes = expectation_maximisation(signal, model, n_rounds=2)
        model, spikes = _deaths(stage, model, spikes, decisions)
    return Curated(model, spikes, tuple(decisions), round_number)


def first_model(templates: np.ndarray, refractory: int) -> SpikeSlab:
    """Templates with the prior that is assumed before anything is known."""
    n_units = len(templates)
    return SpikeSlab(np.asarray(templates), np.full(n_units, FIRST_SPREAD), np.full(n_units, FIRST_PENALTY), refractory)


def expectation_maximisation(signal: np.ndarray, model: SpikeSlab, n_rounds: int) -> tuple[SpikeSlab, Spikes]:
    """Decode, then update templates (joint least squares), spreads and penalties; ends with a decoding of the last model."""
    for _ in range(n_rounds):
        model = maximise(signal, model, model.decode(signal))
    return model, model.decode(signal)


def maximise(signal: np.ndarray, model: SpikeSlab, spikes: Spikes) -> SpikeSlab:
    """The M-step for decoded spikes. Units without a spike keep what they have.

    Templates: joint least squares with the decoded amplitudes, rescaled so that the mean amplitude is 1. Spread: standard
    deviation of the amplitudes less what noise adds (1 / ||h||^2). Penalty: minus the log of the rate per sample.
    """
    if not len(spikes) or not model.n_units:
        return model
    n_positions = signal.shape[1] - model.templates.shape[2] + 1
    counts = np.bincount(spikes.unit, minlength=model.n_units)
    code = SparseCode.build(spikes.unit, spikes.sample, spikes.amplitude, model.n_units, n_positions)
    fitted = fit_templates(signal, code, model.templates.shape[2])
    templates, spread, penalty = model.templates.astype(np.float64), model.spread.copy(), model.penalty.copy()
    for unit in np.flatnonzero(counts):
        amplitudes = spikes.amplitude[spikes.unit == unit]
        if counts[unit] >= 2:
            templates[unit] = fitted[unit] * amplitudes.mean()
        energy, precision = model.energy[unit], 1 / model.spread[unit] ** 2
        unshrunk = amplitudes + (amplitudes - 1) * precision / max(energy, 1e-9)
        noise_free = unshrunk.var() / amplitudes.mean() ** 2 - 1 / max(energy, 1e-9)
        spread[unit] = np.clip(np.sqrt(max(noise_free, 0.0)), *SPREAD_BOUNDS)
        penalty[unit] = np.log(n_positions / (counts[unit] + 1.0))
    return replace(model, templates=templates, spread=spread, penalty=penalty)


@dataclass(frozen=True)
class _Stage:
    signal: np.ndarray
    subspace: SpikeSubspace
    window: TemplateWindow
    threshold: float
    dead_time: int
    n_components: int
    seed: int


def _parameter_cost(template: np.ndarray, n_spikes: int) -> float:
    """What a template costs in log posterior by the Bayesian information criterion: half a log count per parameter."""
    return 0.5 * template.size * np.log(max(n_spikes, 2))


def _deaths(stage: _Stage, model: SpikeSlab, spikes: Spikes, decisions: list[dict]) -> tuple[SpikeSlab, Spikes]:
    """Remove units whose spikes gain less log posterior than their template costs."""
    gains = np.bincount(spikes.unit, weights=spikes.gain, minlength=model.n_units)
    counts = np.bincount(spikes.unit, minlength=model.n_units)
    costs = np.array([_parameter_cost(h, n) for h, n in zip(model.templates, counts, strict=True)])
    dead = (gains < costs) | (counts < SMALLEST_CLUSTER // 2)
    if not dead.any():
        return model, spikes
    for unit in np.flatnonzero(dead):
        decisions.append(
            {"decision": "death", "units": [int(unit)], "statistic": float(gains[unit]), "level": float(costs[unit])}
        )
    model = _keep(model, ~dead)
    return model, model.decode(stage.signal)


def _keep(model: SpikeSlab, mask) -> SpikeSlab:
    return replace(model, templates=model.templates[mask], spread=model.spread[mask], penalty=model.penalty[mask])


def _add(model: SpikeSlab, templates: np.ndarray) -> SpikeSlab:
    more = first_model(templates, model.refractory)
    return replace(
        model,
        templates=np.concatenate([model.templates, more.templates]),
        spread=np.concatenate([model.spread, more.spread]),
        penalty=np.concatenate([model.penalty, more.penalty]),
    )


def _cleaned_waveforms(stage: _Stage, model: SpikeSlab, spikes: Spikes) -> list[np.ndarray]:
    """Per unit, windows (n, n_times + 2 pad, n_channels) around its spikes, pad = n_times // 2, with every other spike taken
    away; they begin `pad` samples before the template."""
    n_times = stage.window.n_times
    pad = n_times // 2
    rest = np.pad(model.residual(stage.signal, spikes).T, ((pad, pad), (0, 0)))
    copies = np.stack([shift_in_time(model.templates, by) for by in model.shifts()], axis=1)
    cleaned = []
    for unit in range(model.n_units):
        mine = _at_most(np.flatnonzero(spikes.unit == unit), 2000, stage.seed)
        step = np.rint(spikes.shift[mine] * model.n_shifts + (model.n_shifts - 1) / 2).astype(int)
        windows = windows_at(rest, spikes.sample[mine], n_times + 2 * pad)
        own = copies[unit, step].transpose(0, 2, 1) * spikes.amplitude[mine, None, None]
        windows[:, pad : pad + n_times] += own.astype(np.float32)
        cleaned.append(windows)
    return cleaned


def _centred(stage: _Stage, model: SpikeSlab, spikes: Spikes) -> tuple[SpikeSlab, Spikes]:
    """Recentre the templates, and decode and update again if one has moved."""
    moved = _recentre(model, _cleaned_waveforms(stage, model, spikes))
    if np.array_equal(moved.templates, model.templates):
        return model, spikes
    return expectation_maximisation(stage.signal, moved, n_rounds=1)


def _recentre(model: SpikeSlab, cleaned: list[np.ndarray]) -> SpikeSlab:
    """Move every template's window to where its unit's mean waveform has the most energy, if that is 2 % more."""
    n_times = model.templates.shape[2]
    pad = n_times // 2
    templates = model.templates.astype(np.float64).copy()
    for unit, windows in enumerate(cleaned):
        if len(windows) < SMALLEST_CLUSTER:
            continue
        mean = windows.mean(axis=0)
        energy = np.convolve((mean**2).sum(axis=1), np.ones(n_times), "valid")
        best = int(energy.argmax())
        if energy[best] > 1.02 * energy[pad]:
            templates[unit] = mean[best : best + n_times].T
    return replace(model, templates=templates)


def _at_most(indices: np.ndarray, n: int, seed: int) -> np.ndarray:
    if len(indices) <= n:
        return indices
    return np.sort(np.random.default_rng(seed).choice(indices, n, replace=False))


def _nuisance(template: np.ndarray) -> np.ndarray:
    """Orthonormal directions (n, n_times * n_channels) in which spikes of one neuron vary without being another's: the first
    and second time derivative of its template (n_channels, n_times), jitter below one sample, and the template (gain)."""
    slope = np.gradient(template, axis=1)
    directions = np.stack([d.T.ravel() for d in (template, slope, np.gradient(slope, axis=1))])
    return np.linalg.qr(directions.T)[0].T


def _without(flat: np.ndarray, directions: np.ndarray) -> np.ndarray:
    return flat - (flat @ directions.T) @ directions


def _are_two(first: np.ndarray, second: np.ndarray, seed: int) -> tuple[bool, float]:
    """Whether two sets of windows (n, n_features) are two clusters: they have two modes along the difference of their
    means, and each set is at home in its own. Each half is projected on the difference of the other half's means, so that
    noise alone shows no gap.

    Returns the answer and the distance of the means along the line, in standard deviations.
    """
    scores = [np.zeros(len(first)), np.zeros(len(second))]
    order = [np.random.default_rng(seed).permutation(len(x)) % 2 for x in (first, second)]
    for half in (0, 1):
        other = [x[o != half].mean(axis=0) for x, o in zip((first, second), order, strict=True)]
        line = other[1] - other[0]
        length = np.linalg.norm(line)
        if length == 0:
            return False, 0.0
        for score, x, o in zip(scores, (first, second), order, strict=True):
            score[o == half] = (x[o == half] - 0.5 * (other[0] + other[1])) @ line / length
    spread = np.sqrt(0.5 * (scores[0].var() + scores[1].var()))
    distance = (scores[1].mean() - scores[0].mean()) / max(spread, 1e-9)
    if distance < 1.0:
        return False, float(distance)
    n = 4 * min(len(first), len(second))
    thinned = [score[:: max(1, len(score) // n)] for score in scores]
    from isosplit6 import isosplit6

    modes = isosplit6(np.concatenate(thinned)[:, None].astype(np.float64))
    home = [np.bincount(m).argmax() for m in (modes[: len(thinned[0])], modes[len(thinned[0]) :])]
    return bool(home[0] != home[1]), float(distance)


def _merges(
    stage: _Stage, model: SpikeSlab, spikes: Spikes, cleaned: list[np.ndarray], decisions: list[dict]
) -> SpikeSlab | None:
    """Merge the pairs whose cleaned waveforms, at the best shift, show one mode; None where there is no such pair."""
    pairs = _similar_pairs(model.templates)
    gone = set()
    for similarity, a, b, shift in pairs:
        if a in gone or b in gone or min(len(cleaned[a]), len(cleaned[b])) < SMALLEST_CLUSTER:
            continue
        first, second = _aligned(cleaned[a], cleaned[b], shift, stage.window.n_times)
        pooled = (len(first) * first.mean(axis=0) + len(second) * second.mean(axis=0)) / (len(first) + len(second))
        nuisance = _nuisance(pooled.T)[1:]
        two, distance = _are_two(
            _without(first.reshape(len(first), -1), nuisance),
            _without(second.reshape(len(second), -1), nuisance),
            stage.seed,
        )
        if two:
            continue
        gone.add(b if np.sum(spikes.unit == a) >= np.sum(spikes.unit == b) else a)
        decisions.append({"decision": "merge", "units": [int(a), int(b)], "statistic": distance, "level": float(similarity)})
    if not gone:
        return None
    return _keep(model, [u for u in range(model.n_units) if u not in gone])


def _similar_pairs(templates: np.ndarray) -> list[tuple[float, int, int, int]]:
    """(similarity, a, b, shift) of pairs whose distance is less than the smaller template's norm, the closest first."""
    correlations = gram(templates)
    centre = (correlations.shape[2] - 1) // 2
    norms = np.sqrt(correlations[np.arange(len(templates)), np.arange(len(templates)), centre])
    reach = centre // 2
    pairs = []
    for a in range(len(templates)):
        for b in range(a + 1, len(templates)):
            lags = correlations[a, b, centre - reach : centre + reach + 1]
            best = int(lags.argmax())
            similarity = lags[best] / (norms[a] * norms[b])
            if similarity > 0.7:
                pairs.append((float(similarity), a, b, best - reach))
    return sorted(pairs, reverse=True)


def _aligned(first: np.ndarray, second: np.ndarray, shift: int, n_times: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of n_times samples that cover the same part of the waveform, which lies `shift` samples later in the second
    template; both sets of padded windows give half of the way."""
    start = n_times // 2 - shift // 2
    return first[:, start : start + n_times], second[:, start + shift : start + shift + n_times]


def _splits(stage: _Stage, model: SpikeSlab, spikes: Spikes, cleaned: list[np.ndarray], decisions: list[dict]) -> SpikeSlab:
    """Split the units whose cleaned waveforms, without nuisance directions, fall into clusters that are two."""
    templates = []
    n_times = stage.window.n_times
    for unit, padded in enumerate(cleaned):
        windows = padded[:, n_times // 2 : n_times // 2 + n_times]
        parts = [windows]
        if len(windows) >= 4 * SMALLEST_CLUSTER:
            flat = _without(windows.reshape(len(windows), -1), _nuisance(model.templates[unit]))
            labels = cluster(
                principal_components(flat[:, :, None], min(6, stage.n_components), stage.seed), None, stage.seed
            )
            sets = [np.flatnonzero(labels == c) for c in np.unique(labels)]
            sets = [s for s in sets if len(s) >= SMALLEST_CLUSTER]
            if len(sets) > 1:
                sets.sort(key=len, reverse=True)
                main, rest = sets[0], sets[1:]
                apart = [(s, *_are_two(flat[main], flat[s], stage.seed)) for s in rest]
                parts = [windows[main]]
                for s, two, distance in apart:
                    if two and len(s) * (windows[s].mean(0) - windows[main].mean(0)).ravel() @ (
                        windows[s].mean(0) - windows[main].mean(0)
                    ).ravel() > 2 * _parameter_cost(model.templates[unit], len(s)):
                        parts.append(windows[s])
                        decisions.append(
                            {"decision": "split", "units": [unit], "statistic": distance, "level": float(len(s))}
                        )
        templates.append(parts)
    if all(len(parts) == 1 for parts in templates):
        return model
    changed = replace(model, templates=np.stack([
        parts[0].mean(axis=0).T if len(parts) > 1 else model.templates[u] for u, parts in enumerate(templates)
    ]))  # fmt: skip
    extra = [p.mean(axis=0).T for parts in templates for p in parts[1:]]
    return _add(changed, np.stack(extra))


def _births(stage: _Stage, grown: SpikeSlab, model: SpikeSlab, spikes: Spikes, decisions: list[dict]) -> SpikeSlab:
    """Add templates for clusters of events that the residual still holds."""
    rest = model.residual(stage.signal, spikes).T
    events = stage.subspace.detect(rest, stage.threshold, stage.dead_time)
    starts = events - stage.window.before
    starts = starts[(starts >= 0) & (starts <= len(rest) - stage.window.n_times)]
    # what is left beside a found spike is that spike's misfit, not another neuron's
    if len(spikes):
        nearest = np.searchsorted(spikes.sample, starts)
        after = np.abs(spikes.sample[np.minimum(nearest, len(spikes) - 1)] - starts)
        before = np.abs(spikes.sample[np.maximum(nearest - 1, 0)] - starts)
        starts = starts[np.minimum(after, before) > stage.window.n_times // 2]
    if len(starts) < SMALLEST_CLUSTER:
        return grown
    windows = windows_at(rest, _at_most(starts, 20000, stage.seed), stage.window.n_times)
    labels = cluster(principal_components(windows, stage.n_components, stage.seed), None, stage.seed)
    born = []
    for template, n in zip(
        templates_from_labels(windows, labels, SMALLEST_CLUSTER),
        [np.sum(labels == c) for c in np.unique(labels) if np.sum(labels == c) >= SMALLEST_CLUSTER],
        strict=True,
    ):
        trial = _add(_keep(model, np.zeros(model.n_units, bool)), template[None])
        trial, found = expectation_maximisation(rest.T.copy(), trial, n_rounds=3)
        gain, cost = float(found.gain.sum()), _parameter_cost(template, len(found))
        if gain > cost and len(found) >= SMALLEST_CLUSTER:
            born.append(trial.templates[0])
            decisions.append({"decision": "birth", "units": [int(n)], "statistic": gain, "level": cost})
            rest = trial.residual(np.ascontiguousarray(rest.T), found).T
    return _add(grown, np.stack(born)) if born else grown
