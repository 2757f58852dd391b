"""An electrode that slips changes all waveforms at once: a neuron stays one unit. Two neurons that take turns stay two."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers.known_spikes import N_TIMES, fired, rendered, slab, spikes_at, template

from spikecrsae.config import Config
from spikecrsae.crsae.drift import DEGREE, fit_drift
from spikecrsae.curate.steps import Sorted, join_across_steps
from spikecrsae.curate.sudden_changes import sudden_changes
from spikecrsae.data.recording import recording_from_array
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.score import compare

FS, SECONDS = 20_000.0, 40


def waveform(width: float) -> np.ndarray:
    """A spike of 4 ms, largest deflection -1."""
    ms = np.arange(-20, 60) / FS * 1000
    return -np.exp(-((ms / (0.13 * width)) ** 2)) + 0.4 * np.exp(-(((ms - 0.45 * width) / (0.28 * width)) ** 2))


def stepping(
    seed: int, at_s: list[float], factor: float, lone_swap: bool = False
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Traces (n_samples, 4) in uV of three neurons whose gains change by `factor` and 8 % per channel at each of `at_s` and back at
    the next; with lone_swap nothing moves, but the third neuron falls silent there and one like it begins."""
    rng = np.random.default_rng(seed)
    traces, truth = 10 * rng.standard_normal((int(FS * SECONDS), 4)), {}
    gains = 100 * np.array([[1.4, 0.8, 0.4, 0.3], [0.2, 1.1, 0.6, 0.4], [0.3, 0.2, 0.9, 0.6]])
    bounds = [0, *at_s, SECONDS]
    for neuron, (rate, width) in enumerate([(8, 1.0), (6, 0.8), (12, 1.25)]):
        samples = np.cumsum(60 + rng.exponential(FS / rate, 2 * rate * SECONDS).astype(np.int64))
        samples = samples[(samples > 20) & (samples < len(traces) - 60)]
        wave, gain, parts = waveform(width), gains[neuron], []
        for k, (first, last) in enumerate(itertools.pairwise(bounds)):
            here = samples[(samples >= first * FS) & (samples < last * FS)]
            for sample in here:
                traces[sample - 20 : sample + 60] += np.outer(wave, gain)
            parts.append(here)
            moved = gain * (factor if k % 2 == 0 else 1 / factor) * (1 + 0.08 * rng.standard_normal(4))
            gain = moved if not lone_swap else gains[2] * [1.0, 2.0, 0.7, 1.2] if neuron == 2 else gain
        if lone_swap and neuron == 2:
            truth |= {"early": parts[0], "late": parts[1]}
        else:
            truth[f"n{neuron}"] = samples
    return traces.astype(np.float32), truth


@pytest.mark.slow
@pytest.mark.parametrize(("at_s", "factor", "seed"), [([20.0], 0.7, 0), ([14.0, 27.0], 0.7, 1)])
def test_a_neuron_is_one_unit_across_steps_of_the_electrode_and_it_is_said(at_s, factor, seed):
    traces, truth = stepping(seed, at_s, factor)
    outcome = sort_group(recording_from_array(traces, FS), Config())
    assert outcome.sorting.n_units == 3
    accuracy = {row.truth: row.accuracy for row in compare(truth, outcome.sorting.trains(), FS).rows}
    assert min(accuracy.values()) >= 0.98, accuracy
    remarks = [text for text in outcome.warnings if "change at once" in text]
    assert len(remarks) == len(at_s)
    for text, time in zip(remarks, at_s, strict=True):
        assert abs(float(text.split(" change at once at ")[1].split(" s")[0]) - time) < 0.5


@pytest.mark.slow
def test_a_neuron_that_falls_silent_as_a_similar_one_begins_is_not_joined_with_it():
    traces, truth = stepping(2, [20.0], 1.0, lone_swap=True)
    outcome = sort_group(recording_from_array(traces, FS), Config())
    assert outcome.sorting.n_units == 4
    assert not any("change at once" in text for text in outcome.warnings)
    accuracy = {row.truth: row.accuracy for row in compare(truth, outcome.sorting.trains(), FS).rows}
    assert min(accuracy[name] for name in ("early", "late")) >= 0.85, accuracy


def halves(gap: int) -> Sorted:
    """One neuron known as two units: the first fires in the first half, the second in the second, `gap` samples later."""
    before, after = template(20.0), 0.7 * template(20.0, (0.8, 0.6))
    model = slab([before, after])
    signal, _ = fired(model, (300, 300), 60, seed=0)
    half = signal.shape[1] // 2
    found = model.encode(signal)
    first = found.sample < half
    spikes = found.select((found.unit == 0) == first)
    samples = spikes.sample + gap * (spikes.sample >= half)
    return Sorted(signal, model, spikes, samples, signal.shape[1] + gap, np.ones(2, bool), np.array([5, 9]))


def test_halves_are_joined_where_one_follows_the_other_and_not_after_a_silence():
    joined = join_across_steps(halves(0))
    assert joined.kept.tolist() == [0] and len(joined.steps) == 1
    (decision,) = joined.decisions
    assert (decision["decision"], decision["units"]) == ("merge", [5, 9])
    apart = join_across_steps(halves(100 * 60 * 2))
    assert apart.kept.tolist() == [0, 1] and not len(apart.steps) and not apart.decisions


def test_a_template_that_steps_is_fitted_on_both_sides():
    """The means of the two halves, each of some 150 spikes, lie within what noise leaves of them."""
    found = halves(0)
    joined = join_across_steps(found)
    n_samples = found.n_samples
    drifting = fit_drift(found.signal, joined.model, joined.spikes, joined.spikes.sample, n_samples, joined.steps)
    assert drifting.changes.shape[0] == DEGREE + 1
    (step,) = drifting.steps
    for side, unit in ((step - 1, 0), (step, 1)):
        wrong = np.linalg.norm(drifting.at(int(side)).templates[0] - found.model.templates[unit])
        assert wrong < 4 * np.sqrt(2 * 2 * N_TIMES / 150)
    assert drifting.step_sizes()[0, 0] > 0.2


def course(kind: str, seed: int) -> Sorted:
    """Two neurons, 600 spikes each, whose amplitudes change by 20 %: at once, or evenly over time."""
    rng = np.random.default_rng(seed)
    model = slab([template(15.0), template(15.0, (0.3, 1.0), width=5.0)])
    n = 1200
    unit, sample = rng.integers(0, 2, n), 20 + np.arange(n) * 60 + rng.integers(0, 20, n)
    late = (sample > sample[700]).astype(float) if kind != "evenly" else np.linspace(0, 1, n)
    change = 0.2 * late
    spikes = spikes_at(unit, sample, rng.normal(1.0 - change, 0.03, n))
    signal = rendered(model, spikes, n * 60 + 2 * N_TIMES, rng)
    found = model.encode(signal)
    return Sorted(signal, model, found, found.sample, signal.shape[1], np.ones(2, bool), np.arange(2))


@pytest.mark.parametrize("seed", range(3))
def test_a_change_at_once_is_told_from_a_slow_one_and_from_that_of_a_known_step(seed):
    sudden = course("at once", seed)
    (step,) = sudden_changes(sudden, np.zeros(0, np.int64))
    assert abs(step - (20 + 700 * 60)) < 30 * 60
    assert sudden_changes(sudden, np.array([step])).tolist() == [step]
    assert not len(sudden_changes(course("evenly", seed), np.zeros(0, np.int64)))
