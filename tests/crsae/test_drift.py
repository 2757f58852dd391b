"""Templates that follow drift: what is planted is found, what is steady stays, and spikes are found at both ends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.known_spikes import N_TIMES, Whitened, fired, matched, slab, spikes_at, template

from spikecrsae.config import Config
from spikecrsae.crsae.drift import DEGREE, SPIKES_PER_TERM, Drifting, fit_drift
from spikecrsae.crsae.model import CRsAE
from spikecrsae.csc.least_squares import subtract
from spikecrsae.data.spikes import Spikes
from spikecrsae.decode.blocks import Decoding
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.progress import Observer
from spikecrsae.score import compare
from spikecrsae.simulate import preset_config, simulate

BASE, OTHER = template(20.0), template(20.0, (0.3, 1.0), width=5.0)

#: Templates as functions of x, -1 at the first sample and 1 at the last.
MOVES = {
    "gain, linear": lambda x: BASE * (1 + 0.3 * x),
    "shape, linear": lambda x: BASE + 0.25 * x * (OTHER - BASE),
    "gain, there and back": lambda x: BASE * (1 + 0.25 * (1.5 * x**2 - 0.5)),
    "gain and shape": lambda x: BASE * (1 - 0.2 * x) + 0.3 * (1.5 * x**2 - 0.5) * OTHER,
}


def moving(move, n: int, seed: int, gap: int = 90, spread: float = 0.05) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signal (2, n_samples) of n spikes whose template is move(x), their first samples, and the mean template."""
    rng = np.random.default_rng(seed)
    n_samples = n * gap + 2 * N_TIMES
    sample = 20 + np.arange(n) * gap + rng.integers(0, gap // 3, n)
    templates = np.stack([move(x) for x in 2 * sample / (n_samples - 1) - 1])
    signal = rng.standard_normal((2, n_samples)).astype(np.float32)
    subtract(signal, templates.astype(np.float32), np.arange(n), sample, -rng.normal(1.0, spread, n))
    return signal, sample, templates.mean(axis=0)


def learnt(signal: np.ndarray, model: CRsAE) -> Drifting:
    found = model.encode(signal)
    return fit_drift(signal, model, found, found.sample, signal.shape[1])


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("n", [120, 1000])
def test_planted_drift_is_found(name, n):
    """A kept mode has a waveform of 80 numbers and comes with a constant one; their noise has the norm sqrt(2 * 80 / n) at a
    typical moment, and by the polynomials a few times that at the ends. The template itself moves by 4.5 and more."""
    move = MOVES[name]
    signal, _, mean = moving(move, n, seed=1)
    drifting = learnt(signal, slab([mean]))
    places = np.linspace(-1, 1, 21)
    samples = np.rint((places + 1) / 2 * (signal.shape[1] - 1)).astype(int)
    errors = [np.linalg.norm(drifting.at(s).templates[0] - move(x)) for s, x in zip(samples, places, strict=True)]
    noise = np.sqrt(2 * BASE.size / n)
    assert np.sqrt(np.mean(np.square(errors))) < 2 * noise
    assert max(errors) < 4 * noise
    assert max(np.linalg.norm(mean - move(x)) for x in (-1, 1)) > 4
    assert drifting.model.prior.spread[0] == pytest.approx(0.065, abs=0.025), "gain that drifts is no spread of amplitudes"


@pytest.mark.parametrize("name", MOVES)
def test_the_extent_is_the_distance_of_the_ends(name):
    move = MOVES[name]
    signal, _, mean = moving(move, 1000, seed=2)
    expected = np.linalg.norm(move(1.0) - move(-1.0)) / np.linalg.norm(mean)
    assert learnt(signal, slab([mean])).extent()[0] == pytest.approx(expected, abs=0.06)


def test_the_model_at_a_sample_is_a_sum_of_legendre_polynomials():
    rng = np.random.default_rng(3)
    changes = rng.standard_normal((DEGREE, 1, 2, N_TIMES))
    drifting = Drifting(slab([BASE]), changes, n_samples=1001)
    # P_k(-1) = (-1)^k, P_k(1) = 1, P_k(0) = 0, -1/2, 0, 3/8
    for sample, terms in ((0, (-1, 1, -1, 1)), (1000, (1, 1, 1, 1)), (500, (0, -0.5, 0, 0.375))):
        expected = BASE + sum(term * change[0] for term, change in zip(terms, changes, strict=True))
        np.testing.assert_allclose(drifting.at(sample).templates[0], expected, atol=1e-12)
    moved = 2 * (changes[0, 0] + changes[2, 0])
    assert drifting.extent()[0] == pytest.approx(np.linalg.norm(moved) / 20)
    assert drifting.reach == drifting.model.reach == drifting.at(0).reach


@pytest.mark.parametrize(("norm", "spread"), [(12.0, 0.1), (15.0, 0.05), (20.0, 0.05)])
def test_steady_units_do_not_drift(norm, spread):
    """Of forty, one at most: jitter and gain add a little to the noise that the bound is made for."""
    n_moved = 0
    for seed in range(20):
        model = slab([template(norm), template(norm, (0.2, 1.0), width=5.0)], spread=spread)
        drifting = learnt(fired(model, (300, 200), 60, seed)[0], model)
        steady = ~drifting.changes.any(axis=(0, 2, 3))
        n_moved += np.sum(~steady)
        assert not drifting.extent()[steady].any()
        np.testing.assert_array_equal(drifting.model.templates[steady], model.templates[steady])
        np.testing.assert_array_equal(drifting.model.prior.spread[steady], model.prior.spread[steady])
        assert not steady.all() or drifting.at(0) is drifting.model
    assert n_moved <= 1


def test_what_gain_and_jitter_of_a_strong_unit_feign_is_small():
    """Spikes of a strong unit vary by more than noise; what of that looks like drift moves the template little."""
    model = slab([template(40.0, (1.0, 0.4, 0.2, 0.1))], spread=0.1)
    extents = [learnt(fired(model, (300,), 90, seed)[0], model).extent()[0] for seed in range(10)]
    assert np.max(extents) < 0.2
    assert np.mean(extents) < 0.1


def test_only_the_unit_that_drifts_moves():
    """Two units whose spikes overlap now and then; every other spike is taken away before a unit's are looked at."""
    steady = template(16.0, (0.1, 1.0), width=3.0)
    signal, sample, mean = moving(MOVES["gain, linear"], 400, seed=4)
    rng = np.random.default_rng(5)
    others = np.sort(rng.choice(signal.shape[1] // 60 - 1, 300, replace=False)) * 60 + rng.integers(0, 30, 300)
    subtract(signal, steady[None].astype(np.float32), np.zeros(300, np.int64), others, -np.ones(300))
    assert np.sum(np.abs(others[:, None] - sample).min(axis=1) < N_TIMES // 2) > 50
    model = slab([mean, steady])
    drifting = learnt(signal, model)
    assert drifting.extent()[0] == pytest.approx(0.6, abs=0.1)
    assert not drifting.changes[:, 1].any()
    np.testing.assert_array_equal(drifting.model.templates[1], steady)


def test_time_is_that_of_the_recording_and_not_of_the_signal_learnt_from():
    """The signal is the first and the last sixth of a recording; between them the template is interpolated."""
    move, n_samples = MOVES["gain, linear"], 400 * 90 + 2 * N_TIMES
    signal, _, mean = moving(move, 400, seed=6)
    sixth = n_samples // 6
    parts = np.ascontiguousarray(np.concatenate([signal[:, :sixth], signal[:, -sixth:]], axis=1))
    model = slab([mean])
    found = model.encode(parts)
    samples = np.where(found.sample < sixth, found.sample, found.sample + n_samples - 2 * sixth)
    drifting = fit_drift(parts, model, found, samples, n_samples)
    for x in (-1.0, -0.8, 0.8, 1.0):
        at = drifting.at(int((x + 1) / 2 * (n_samples - 1))).templates[0]
        assert np.linalg.norm(at - move(x)) < 3.0
        assert np.vdot(at, BASE) / 400 == pytest.approx(1 + 0.3 * x, abs=0.05)


def test_few_spikes_keep_their_template_and_some_give_a_line():
    move = MOVES["gain, linear"]
    for n in (0, 1, 2 * SPIKES_PER_TERM - 1):
        signal, sample, _ = moving(move, 2 * SPIKES_PER_TERM - 1, seed=7)
        model = slab([BASE])
        found = spikes_at(np.zeros(n, np.int64), sample[:n])
        drifting = fit_drift(signal, model, found, found.sample, signal.shape[1])
        assert not drifting.changes.any()
        np.testing.assert_array_equal(drifting.model.templates, model.templates)
    signal, _, mean = moving(move, 2 * SPIKES_PER_TERM, seed=7)
    drifting = learnt(signal, slab([mean]))
    assert drifting.changes[0].any()
    assert not drifting.changes[1:].any()


# ---- spikes


def test_with_templates_that_move_a_fading_unit_is_found_to_its_end():
    """From 1.6 to 0.4 of the mean size: one template for all loses spikes at the weak end."""

    def move(x):
        return template(12.0) * (1 - 0.6 * x)

    signal, sample, mean = moving(move, 600, seed=8)
    model = slab([mean], penalty=6.5)
    part = signal.shape[1] // 6
    found_at, sizes = {}, {}
    for name, decoder in (("still", model), ("moving", learnt(signal, model))):
        decoding = Decoding(Whitened(signal), decoder, N_TIMES, 2000)
        chunks = decoding.chunks(range(decoding.n_blocks), 2000, Observer())
        spikes = Spikes.joined([chunk.spikes.later(chunk.start) for chunk in chunks])
        for end, low in (("first", 0), ("last", 5 * part)):
            mine, true = spikes.select((spikes.sample >= low) & (spikes.sample < low + part)), sample // part == low // part
            found_at[name, end] = matched(mine.sample, sample[true]) / true.sum()
            sizes[name, end] = mine.amplitude.mean()
        assert len(spikes) < 1.01 * len(sample)
    assert found_at["moving", "first"] == 1
    assert found_at["moving", "last"] > 0.9 > 0.8 > found_at["still", "last"]
    for end in ("first", "last"):
        assert sizes["moving", end] == pytest.approx(1, abs=0.05)
        assert abs(sizes["still", end] - 1) > 0.15


@pytest.mark.slow
def test_a_recording_with_drift_is_sorted_to_both_ends_and_the_table_says_how_far_it_drifts():
    """Each unit's amplitude changes by 0.8 of its mean from the first sample to the last, and stays in a second recording."""
    config = Config().with_values({"train": {"epochs": 1}, "runtime": {"device": "cpu"}, "infer": {"chunk_s": 1.0}})
    cells = preset_config(
        "tetrode", n_units=2, n_bursting=0, duration_s=15.0, seed=5, snrs=(14.0, 11.0), rates_hz=(25.0, 20.0)
    )
    for drift in (0.0, 0.8):
        simulation = simulate(replace(cells, drift=drift))
        sorting = sort_group(simulation.recording(), config).sorting
        assert sorting.n_units == 2
        np.testing.assert_allclose(sorting.units["drift"], drift, atol=0.08)
        third = sorting.n_samples // 3
        for low in (0, 2 * third):
            trains = [
                {name: s[(s >= low) & (s < low + third)] for name, s in x.trains().items()}
                for x in (simulation.truth, sorting)
            ]
            rows = compare(*trains, sorting.sampling_frequency).rows
            assert min(row.accuracy for row in rows) > 0.95
