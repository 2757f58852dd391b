"""Inference: a recording decoded in pieces gives what the whole gives; amplitudes and thresholds are those of the model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from helpers.known_spikes import Whitened
from scipy.stats import norm

from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import PRIORS, Laplace, SpikeSlab
from spikecrsae.data.spikes import Spikes
from spikecrsae.decode.blocks import Decoding
from spikecrsae.progress import Observer

N_TIMES, REFRACTORY = 40, 14
N_SAMPLES = 60_000


def templates() -> np.ndarray:
    """Three units on two channels, (3, 2, 40), norms 20, 16 and 13."""
    time = np.arange(N_TIMES)
    shapes = [-np.exp(-(((time - 18) / w) ** 2)) + 0.5 * np.exp(-(((time - 18 - 2 * w) / w) ** 2)) for w in (2.0, 3.0, 5.0)]
    found = np.stack([np.outer(g, s) for g, s in zip([(1, 0.1), (0.1, 1), (0.8, -0.6)], shapes, strict=True)])
    return found / np.linalg.norm(found, axis=(1, 2), keepdims=True) * np.array([20.0, 16.0, 13.0])[:, None, None]


#: A prior of the three units of each kind.
PRIORS_OF_THREE = {
    "spike-slab": SpikeSlab(np.array([0.1, 0.1, 0.12]), np.array([8.0, 7.5, 7.0])),
    "laplace": Laplace(np.array([5.6, 5.5, 5.4])),
}


def model_of(prior: str, n_shifts: int = 1) -> CRsAE:
    return CRsAE(templates(), PRIORS_OF_THREE[prior], refractory=REFRACTORY, n_shifts=n_shifts)


def models(*priors: str) -> pytest.MarkDecorator:
    """A test of models with each of these priors, with spikes at whole samples and at three places within each."""
    cases = [pytest.param(model_of(p, n), id=f"{p}{'-shifts' if n > 1 else ''}") for p in priors for n in (1, 3)]
    return pytest.mark.parametrize("model", cases)


MODELS, SLABS = models(*PRIORS_OF_THREE), models("spike-slab")


def test_every_prior_is_decoded_here():
    assert PRIORS_OF_THREE.keys() == PRIORS.keys()


@dataclass(frozen=True)
class Simulated:
    view: Whitened
    unit: np.ndarray
    sample: np.ndarray
    amplitude: np.ndarray


def simulated(unit, sample, seed=0, n_samples=N_SAMPLES) -> Simulated:
    """Spikes of these units, templates beginning at these samples, in white noise."""
    rng = np.random.default_rng(seed)
    order = np.lexsort((unit, sample))
    unit, sample = np.asarray(unit)[order], np.asarray(sample)[order]
    amplitude = 1 + 0.08 * rng.standard_normal(len(unit))
    signal = rng.standard_normal((n_samples, 2)).astype(np.float32)
    for u, s, a in zip(unit, sample, amplitude, strict=True):
        signal[s : s + N_TIMES] += a * templates()[u].T
    return Simulated(Whitened(np.ascontiguousarray(signal.T), 7.0), unit, sample, amplitude)


def random_spikes(rate_per_sample: float, seed: int = 1, n_samples: int = N_SAMPLES) -> Simulated:
    """Independent trains of the three units with a refractory period."""
    rng = np.random.default_rng(seed)
    trains = []
    for unit in range(3):
        gaps = 3 * REFRACTORY + rng.exponential(3 / rate_per_sample, int(n_samples * rate_per_sample))
        at = np.cumsum(gaps).astype(np.int64)
        trains += [(unit, s) for s in at[at < n_samples - N_TIMES]]
    return simulated(*np.array(trains).T, n_samples=n_samples)


def in_pieces(view: Whitened, model, block: int) -> Spikes:
    """All spikes of a Decoding in blocks; checks that the pieces follow each other without gap or overlap."""
    position, parts = 0, []
    decoding = Decoding(view, model, N_TIMES, block)
    for chunk in decoding.chunks(range(decoding.n_blocks), 20_000, Observer()):
        assert chunk.start == position
        assert chunk.stop > chunk.start
        assert np.all((chunk.spikes.sample >= 0) & (chunk.spikes.sample < chunk.stop - chunk.start))
        for sample in chunk.spikes.sample:
            assert sample + N_TIMES <= len(chunk.highpassed)
        np.testing.assert_array_equal(chunk.highpassed, 7 * view.signal.T[chunk.start : chunk.start + len(chunk.highpassed)])
        position = chunk.stop
        assert len(chunk.misfit) == len(chunk.spikes)
        parts.append(chunk.spikes.later(chunk.start))
    assert position == view.n_samples
    return Spikes.joined(parts)


def as_set(spikes) -> set[tuple[int, int]]:
    return set(zip(spikes.unit.tolist(), spikes.sample.tolist(), strict=True))


def assert_same(pieces: Spikes, whole: Spikes, tolerance: float = 2e-3) -> None:
    assert len(as_set(pieces)) == len(pieces), "a spike stands twice"
    assert as_set(pieces) == as_set(whole)
    order = np.lexsort((pieces.unit, pieces.sample))
    other = np.lexsort((whole.unit, whole.sample))
    np.testing.assert_allclose(pieces.amplitude[order], whole.amplitude[other], atol=tolerance)


# ---- seams


@MODELS
@pytest.mark.parametrize("block", [1, 4999, 8192, 25_001, 10**6])
def test_pieces_give_what_the_whole_gives(model, block):
    data = random_spikes(0.004)
    whole = model.encode(data.view.signal)
    assert len(whole) > 150
    assert_same(in_pieces(data.view, model, block), whole)


@MODELS
def test_pieces_give_what_the_whole_gives_where_spikes_overlap(model):
    """On average each spike overlaps with more than one other; seams are laid in the rare gaps."""
    data = random_spikes(0.03, seed=2)
    whole = model.encode(data.view.signal)
    assert len(whole) > 1000
    for block in (5000, 12_345, 30_000):
        # whether a spike fits well enough to be left alone can hang on the last bit, and with it a neighbour's share
        assert_same(in_pieces(data.view, model, block), whole, tolerance=0.03)


@MODELS
@pytest.mark.parametrize("offset", [-N_TIMES, -N_TIMES + 1, -20, -1, 0, 1, 20])
def test_a_spike_on_a_seam_is_found_once(model, offset):
    block = 4000
    seams = np.arange(block, N_SAMPLES - N_TIMES, block)
    data = simulated(np.arange(len(seams)) % 3, seams + offset)
    spikes = in_pieces(data.view, model, block)
    assert len(spikes) == len(seams)
    assert np.abs(spikes.sample - data.sample).max() <= 1
    np.testing.assert_array_equal(spikes.unit, data.unit)


@MODELS
def test_a_burst_longer_than_a_chunk_loses_and_doubles_little(model):
    """No gap is left for a seam: overlapping spikes of two units throughout, and chunks of the smallest size."""
    first = np.arange(0, 6000, 36)
    data = simulated(np.arange(len(first)) % 2, first, n_samples=8000)
    whole = as_set(model.encode(data.view.signal))
    pieces = in_pieces(data.view, model, 1)
    assert len(as_set(pieces)) == len(pieces)
    assert len(as_set(pieces) ^ whole) <= 0.03 * len(whole)


def test_a_refractory_period_longer_than_a_template_holds_across_seams():
    long = CRsAE(templates()[:1], SpikeSlab(np.full(1, 0.1), np.full(1, 8.0)), refractory=90, n_shifts=1)
    pairs = np.arange(500, N_SAMPLES - 200, 600)
    data = simulated(np.zeros(2 * len(pairs), int), np.concatenate([pairs, pairs + 60]))
    whole = long.encode(data.view.signal)
    assert len(whole) == len(pairs)
    for block in (1, 7130, 8950):  # the last two end between the spikes of a pair
        assert_same(in_pieces(data.view, long, block), whole)


@MODELS
def test_signal_too_short_or_silent_has_no_spikes(model):
    assert len(model.encode(np.zeros((2, N_TIMES - 1), np.float32))) == 0
    assert len(model.encode(np.zeros((2, 500), np.float32))) == 0
    noise = Whitened(np.random.default_rng(3).standard_normal((20_000, 2)).astype(np.float32).T, 7.0)
    assert len(in_pieces(noise, model, 5000)) <= 1


# ---- spikes and amplitudes


@MODELS
def test_spikes_are_found_and_their_amplitudes_without_the_shrinkage_are_unbiased(model):
    data = random_spikes(0.004)
    found = model.encode(data.view.signal)
    measured = model.shrinkage.unshrunk(found.unit, found.amplitude, model.energy)
    hits = errors = 0
    residuals = []
    for unit in range(3):
        mine = data.unit == unit
        position = found.sample[found.unit == unit]
        amplitude = measured[found.unit == unit]
        near = np.abs(data.sample[mine][:, None] - position[None])
        matched = near.min(axis=1) <= 1
        hits += matched.sum()
        errors += len(position) - matched.sum()
        residuals.append((amplitude[near.argmin(axis=1)] - data.amplitude[mine])[matched] * np.sqrt(model.energy[unit]))
    assert hits / len(data.unit) > 0.97
    assert errors / len(data.unit) < 0.03
    # in units of the noise, whose deviation is 1
    residuals = np.concatenate(residuals)
    assert abs(np.mean(residuals)) < 0.4
    assert np.median(np.abs(residuals)) < 1.0


@MODELS
def test_one_spike_is_one_and_two_spikes_of_a_unit_are_two(model):
    one = simulated([0], [1000], n_samples=3000)
    assert as_set(model.encode(one.view.signal)) == {(0, 1000)}
    for distance in (REFRACTORY + 4, N_TIMES // 2, N_TIMES):
        two = simulated([0, 0], [1000, 1000 + distance], n_samples=3000)
        found = model.encode(two.view.signal)
        assert found.unit.tolist() == [0, 0]
        assert np.abs(found.sample - two.sample).max() <= 1


@MODELS
def test_no_unit_fires_twice_within_its_refractory_period(model):
    data = random_spikes(0.03, seed=2)
    found = model.encode(data.view.signal)
    for unit in range(3):
        assert np.diff(found.sample[found.unit == unit]).min() > REFRACTORY


@MODELS
def test_two_units_at_one_moment_are_both_found(model):
    at = np.arange(300, 50_000, 500)
    data = simulated(np.repeat([0, 1], len(at)), np.concatenate([at, at + 3]))
    found = model.encode(data.view.signal)
    for unit in (0, 1):
        near = np.abs(found.sample[found.unit == unit][None] - at[:, None] - 3 * unit).min(axis=1)
        assert np.mean(near <= 1) > 0.95


@SLABS
def test_a_spike_stays_where_its_log_odds_are_positive(model):
    """The gain is log N(a; 1, s^2 + 1/g) - log N(a; 0, 1/g) - p, for the amplitude a that the noise lets one see."""
    data = random_spikes(0.001)
    found = model.encode(data.view.signal)
    assert found.gain.min() > 0
    energy = model.energy[found.unit]
    spread, penalty, noise = model.prior.spread[found.unit], model.prior.penalty[found.unit], 1 / np.sqrt(energy)
    # the amplitude is the posterior mean; undo the pull towards 1
    precision = 1 / spread**2
    seen = (found.amplitude * (energy + precision) - precision) / energy
    expected = norm.logpdf(seen, 1, np.hypot(spread, noise)) - norm.logpdf(seen, 0, noise) - penalty
    tolerance = 1e-3 if model.n_shifts == 1 else 0.1
    alone = np.r_[True, np.diff(found.sample) > 2 * N_TIMES] & np.r_[np.diff(found.sample) > 2 * N_TIMES, True]
    assert alone.sum() > 20
    np.testing.assert_allclose(found.gain[alone], expected[alone], rtol=tolerance)


def test_a_rarer_unit_needs_a_larger_spike():
    """Spikes of half the unit's amplitude are found while the penalty is small."""
    sample = np.arange(200, 20_000, 200)
    rng = np.random.default_rng(4)
    signal = rng.standard_normal((2, 21_000)).astype(np.float32)
    for s in sample:
        signal[:, s : s + N_TIMES] += 0.5 * templates()[2]
    priors = [SpikeSlab(np.array([0.3]), np.array([penalty])) for penalty in (2.0, 18.0, 40.0)]
    counts = [len(CRsAE(templates()[2:], prior, refractory=REFRACTORY, n_shifts=1).encode(signal)) for prior in priors]
    assert counts[0] > 90
    assert counts[0] > counts[1] > counts[2]
    assert counts[2] < 20
