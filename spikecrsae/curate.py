"""Which templates there are: EM of the spike-and-slab model, and births, splits, merges and deaths by statistical tests.

One round decodes the training signal, updates templates and priors, then asks of every unit whether it pays for its
parameters (death), is two (split) or the same as another (merge), and of the residual whether it holds spikes of no unit
(birth). Rounds end when nothing changes. Every decision is kept with its statistic.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import poisson

from spikecrsae.csc.convolution import BlockSpectra, gram
from spikecrsae.csc.least_squares import fit_templates
from spikecrsae.csc.pursuit import Spikes, SpikeSlab
from spikecrsae.initialise import (
    MODE_LEVEL,
    SMALLEST_CLUSTER,
    SpikeSubspace,
    TemplateWindow,
    allowed_variance,
    are_two,
    divide,
    nuisance_directions,
    templates_from_labels,
    windows_at,
    without,
)
from spikecrsae.sparse_code import SparseCode

log = logging.getLogger(__name__)

#: Bounds of the learned amplitude spread: below, a spike would have to fit its template better than any real one does;
#: above, the prior would no longer tell a spike from noise.
SPREAD_BOUNDS = (0.03, 0.2)
#: A unit of which more spikes than this part ride on those of stronger units, beyond chance, is no neuron.
SATELLITE_FRACTION = 0.75
#: Lags looked at, in template lengths: a strong spike's head and tail are still seen there.
SATELLITE_REACH = 3
#: Amplitude spread and log-odds penalty before anything is known, and the number of spikes that the first is worth against
#: what a unit's own spikes say (a conjugate prior of its variance).
FIRST_SPREAD, FIRST_PENALTY, SPREAD_COUNT = 0.1, 8.0, 20
MAX_ROUNDS = 10


@dataclass(frozen=True)
class Curated:
    """The stable set of units with its prior, the spikes of the training signal, and the decisions that led there.

    satellites (n_units,) bool: templates that serve the decoder but are no neuron, see `find_satellites`.
    """

    model: SpikeSlab
    spikes: Spikes
    decisions: tuple[dict, ...]
    rounds: int
    satellites: np.ndarray


def curate(
    signal: np.ndarray,
    templates: np.ndarray,
    subspace: SpikeSubspace,
    window: TemplateWindow,
    *,
    threshold: float,
    dead_time: int,
    refractory: int,
    fixed_number: bool,
    seed: int,
    observer,
) -> Curated:
    """Alternate EM and decisions on signal (n_channels, n_samples), whitened, from first templates
    (n_units, n_channels, n_times), until the set is stable. fixed_number: only EM, no decision."""
    stage = _Stage(signal, subspace, window, threshold, dead_time, seed)
    model = first_model(templates, refractory)
    decisions: list[dict] = []
    quiet_rounds, may_be_born = 0, True
    for round_number in range(1, MAX_ROUNDS + 1):
        model, spikes = expectation_maximisation(signal, model, n_rounds=2)
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
            grown = _splits(stage, model, spikes, cleaned, decisions)
            # once a unit has died, what the residual offers has been tried
            may_be_born = may_be_born and not any(d["decision"] == "death" for d in decisions)
            model = _births(stage, grown, model, spikes, decisions) if may_be_born else grown
        for decision in decisions[before:]:
            decision["round"] = round_number
            log.info("round %d: %s", round_number, decision)
        # EM moves on between rounds, so a set is called stable when a second look finds nothing either
        quiet_rounds = quiet_rounds + 1 if len(decisions) == before else 0
        if quiet_rounds == 2:
            break
    if not fixed_number:
        model, spikes = expectation_maximisation(signal, model, n_rounds=2)
        model, spikes = _deaths(stage, model, spikes, decisions)
    satellites = (
        np.zeros(model.n_units, bool) if fixed_number else find_satellites(model, spikes, signal.shape[1], decisions)
    )
    return Curated(model, spikes, tuple(decisions), round_number, satellites)


def find_satellites(model: SpikeSlab, spikes: Spikes, n_samples: int, decisions: list[dict]) -> np.ndarray:
    """Units (bool, n_units) whose spikes mostly come at fixed lags from those of stronger units: they stand for what the
    stronger template misfits, or for its head or tail beyond the window.

    A cross-correlogram with each stronger unit (energy above) over SATELLITE_REACH template lengths shows the lags at which
    there are more spikes than chance gives (Poisson, Bonferroni); a satellite has more than SATELLITE_FRACTION of its spikes
    there, chance taken off.
    """
    found = np.zeros(model.n_units, bool)
    n_times = model.templates.shape[2] if model.n_units else 1
    edges = np.arange(-SATELLITE_REACH * n_times, SATELLITE_REACH * n_times + 1, max(1, n_times // 8))
    for unit in range(model.n_units):
        mine = spikes.sample[spikes.unit == unit]
        hosts = np.flatnonzero(model.energy > model.energy[unit])
        locked = np.zeros(len(mine), bool)
        chance = 0.0
        for host in hosts:
            theirs = spikes.sample[spikes.unit == host]
            pairs, lags = _lags(mine, theirs, int(edges[-1]))
            counts = np.histogram(lags, edges)[0]
            expected = len(mine) * len(theirs) * (edges[1] - edges[0]) / n_samples
            above = poisson.sf(counts - 1, expected) < MODE_LEVEL / (len(counts) * len(hosts))
            locked[pairs[above[np.clip(np.searchsorted(edges, lags, "right") - 1, 0, len(counts) - 1)]]] = True
            chance += above.sum() * expected / max(len(mine), 1)
        excess = (float(locked.mean()) - chance) / max(1 - chance, 0.1) if len(mine) else 0.0
        if excess > SATELLITE_FRACTION:
            found[unit] = True
            decisions.append({"decision": "satellite", "units": [unit], "statistic": excess, "level": SATELLITE_FRACTION})
    return found


def _lags(mine: np.ndarray, theirs: np.ndarray, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """For every pair of spikes less than `reach` samples apart: the index in `mine`, and by how much it comes later."""
    low, high = np.searchsorted(theirs, mine - reach), np.searchsorted(theirs, mine + reach)
    index = np.repeat(np.arange(len(mine)), high - low)
    partner = np.arange(len(index)) - np.repeat(np.cumsum(high - low) - (high - low), high - low) + np.repeat(low, high - low)
    return index, mine[index] - theirs[partner]


def first_model(templates: np.ndarray, refractory: int) -> SpikeSlab:
    """Templates with the prior that is assumed before anything is known."""
    n_units = len(templates)
    return SpikeSlab(np.asarray(templates), np.full(n_units, FIRST_SPREAD), np.full(n_units, FIRST_PENALTY), refractory)


def expectation_maximisation(signal: np.ndarray, model: SpikeSlab, n_rounds: int) -> tuple[SpikeSlab, Spikes]:
    """Decode, then update templates (joint least squares), spreads and penalties; ends with a decoding of the last model."""
    spectra = BlockSpectra.of(signal, model.templates.shape[2])
    for _ in range(n_rounds):
        model = maximise(signal, model, model.decode(spectra, n_sweeps=0))
    return model, model.decode(spectra)


def maximise(signal: np.ndarray, model: SpikeSlab, spikes: Spikes) -> SpikeSlab:
    """The M-step for decoded spikes. Units without a spike keep what they have.

    Templates: joint least squares with the decoded amplitudes, rescaled so that the mean amplitude is 1. Spread: that
    of the amplitudes (from the median to 84 %) less what noise adds (1 / ||h||^2). Penalty: minus the log of the rate per sample.
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
        # from the upper half: small spikes of other neurons must not widen the prior that lets more of them in
        deviation = np.subtract(*np.percentile(unshrunk, [84, 50])) / amplitudes.mean()
        noise_free = deviation**2 - 1 / max(energy, 1e-9)
        variance = (counts[unit] * max(noise_free, 0.0) + SPREAD_COUNT * FIRST_SPREAD**2) / (counts[unit] + SPREAD_COUNT)
        spread[unit] = np.clip(np.sqrt(variance), *SPREAD_BOUNDS)
        penalty[unit] = np.log(n_positions / (counts[unit] + 1.0))
    return replace(model, templates=templates, spread=spread, penalty=penalty)


@dataclass(frozen=True)
class _Stage:
    signal: np.ndarray
    subspace: SpikeSubspace
    window: TemplateWindow
    threshold: float
    dead_time: int
    seed: int


def _parameter_cost(template: np.ndarray, n_spikes: int) -> float:
    """What a template costs in log posterior by the Bayesian information criterion: half a log count per parameter."""
    return 0.5 * template.size * np.log(max(n_spikes, 2))


def _deaths(stage: _Stage, model: SpikeSlab, spikes: Spikes, decisions: list[dict]) -> tuple[SpikeSlab, Spikes]:
    """Remove units whose spikes gain less log posterior than their template costs."""
    gains = np.bincount(spikes.unit, weights=spikes.gain, minlength=model.n_units)
    counts = np.bincount(spikes.unit, minlength=model.n_units)
    costs = np.array([_parameter_cost(h, n) for h, n in zip(model.templates, counts, strict=True)])
    dead = (gains < costs) | (counts < SMALLEST_CLUSTER)
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
    copies, rows = model.shifted(), model.copy_of(spikes)
    cleaned = []
    for unit in range(model.n_units):
        mine = _at_most(np.flatnonzero(spikes.unit == unit), 2000, stage.seed)
        windows = windows_at(rest, spikes.sample[mine], n_times + 2 * pad)
        own = copies[rows[mine]].transpose(0, 2, 1) * spikes.amplitude[mine, None, None]
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
        nuisance = nuisance_directions(pooled.T)
        flat = [part.reshape(len(part), -1) for part in (first, second)]
        two, distance, _ = are_two(*(without(x, nuisance[1:]) for x in flat), stage.seed)
        if two:
            continue
        # one mode; where it is too wide for one neuron the whole signal decides which model is the more probable
        variance = are_two(*(without(x, nuisance) for x in flat), stage.seed)[2]
        if variance > allowed_variance(pooled) and not _is_better_merged(stage, model, spikes, a, b, pooled.T):
            continue
        gone.add(b if np.sum(spikes.unit == a) >= np.sum(spikes.unit == b) else a)
        decisions.append({"decision": "merge", "units": [int(a), int(b)], "statistic": distance, "level": float(similarity)})
    if not gone:
        return None
    return _keep(model, [u for u in range(model.n_units) if u not in gone])


def _is_better_merged(stage: _Stage, model: SpikeSlab, spikes: Spikes, a: int, b: int, pooled: np.ndarray) -> bool:
    """Whether one unit with the pooled template (n_channels, n_times) in place of a and b has the higher log posterior, less
    what templates cost."""
    counts = np.bincount(spikes.unit, minlength=model.n_units)
    apart = spikes.gain.sum() - _parameter_cost(pooled, counts[a]) - _parameter_cost(pooled, counts[b])
    others = _keep(model, [u for u in range(model.n_units) if u not in (a, b)])
    _, found = expectation_maximisation(stage.signal, _add(others, pooled[None]), n_rounds=1)
    return bool(found.gain.sum() - _parameter_cost(pooled, counts[a] + counts[b]) > apart)


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
    """Split the units whose cleaned waveforms, without nuisance directions, divide into clusters that each pay for a template
    of their own. The largest part stays the unit."""
    n_times = stage.window.n_times
    templates, extra = model.templates.astype(np.float64).copy(), []
    for unit, padded in enumerate(cleaned):
        windows = padded[:, n_times // 2 : n_times // 2 + n_times]
        flat = without(windows.reshape(len(windows), -1), nuisance_directions(model.templates[unit])[1:])
        labels = divide(
            flat.reshape(windows.shape), SMALLEST_CLUSTER, stage.seed, allowed=allowed_variance(model.templates[unit])
        )
        sets = sorted((np.flatnonzero(labels == c) for c in np.unique(labels)), key=len, reverse=True)
        means = [windows[s].mean(axis=0).T for s in sets]
        for members, mean in zip(sets[1:], means[1:], strict=True):
            gain = 0.5 * len(members) * float(((mean - means[0]) ** 2).sum())
            cost = _parameter_cost(mean, len(members))
            if gain > cost and len(members) >= SMALLEST_CLUSTER:
                templates[unit] = means[0]
                extra.append(mean)
                decisions.append({"decision": "split", "units": [unit], "statistic": gain, "level": cost, "n": len(members)})
    grown = replace(model, templates=templates)
    return _add(grown, np.stack(extra)) if extra else grown


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
    labels = divide(windows, SMALLEST_CLUSTER, stage.seed)
    born = []
    nobody = _keep(model, np.zeros(model.n_units, bool))
    for template in templates_from_labels(windows, labels, SMALLEST_CLUSTER):
        trial = _add(nobody, template[None])
        found = trial.decode(np.ascontiguousarray(rest.T))
        gain, cost = float(found.gain.sum()), _parameter_cost(template, len(found))
        if gain > cost and len(found) >= SMALLEST_CLUSTER:
            born.append(template)
            decisions.append({"decision": "birth", "units": [], "statistic": gain, "level": cost, "n": len(found)})
            rest = trial.residual(np.ascontiguousarray(rest.T), found).T
    return _add(grown, np.stack(born)) if born else grown
