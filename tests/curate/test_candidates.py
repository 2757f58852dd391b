"""What curation looks at, what lies beyond a template, and units that a drifting neuron is known as."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from helpers.known_spikes import (
    N_TIMES,
    PEAK,
    REFRACTORY,
    TWO_SWEEPS,
    fired,
    first_slab,
    rendered,
    slab,
    spikes_at,
    template,
)

from spikecrsae.config import TrainConfig
from spikecrsae.curate.candidates import Candidates, CurationSettings
from spikecrsae.curate.curate import FirstUnits, curate
from spikecrsae.detect.detection import SpikeSubspace
from spikecrsae.detect.windows import TemplateWindow, windows_at
from spikecrsae.progress import Observer

WINDOW = TemplateWindow(N_TIMES, PEAK)
LEVEL, DEAD_TIME, BURST = 4.5, 10, 400
SETTINGS = CurationSettings(LEVEL, DEAD_TIME, REFRACTORY, BURST, fixed_number=False, seed=0, train=TrainConfig())
FIRST = template(20, (1.0, 0.4, 0.1, 0.0))
SECOND = template(15, (0.0, 0.1, 1.0, 0.5), width=5.0)


def candidates(signal: np.ndarray, templates, events=()) -> Candidates:
    subspace = SpikeSubspace.learn(signal, LEVEL, 20, DEAD_TIME)
    return Candidates(signal, np.array(events, np.int64), subspace, WINDOW, SETTINGS, first_slab(templates))


def curated(signal: np.ndarray, members: list[np.ndarray]):
    """Curation from the mean windows at the given first samples."""
    subspace = SpikeSubspace.learn(signal, LEVEL, 20, DEAD_TIME)
    templates = [windows_at(signal.T, starts, N_TIMES).mean(axis=0).T for starts in members]
    first = FirstUnits(np.sort(np.concatenate(members)), first_slab(templates), members, subspace, WINDOW)
    return curate(signal, first, SETTINGS, Observer())


def test_the_stretches_looked_at_are_few_and_hold_every_spike():
    signal, truth = fired(slab([FIRST, SECOND], spread=0.05), (40, 30), 1500, 1)
    state = candidates(signal, [FIRST, SECOND])
    state.focus()
    assert state.signal.shape[1] < 0.3 * signal.shape[1]
    whole = state.in_whole(np.arange(state.signal.shape[1]))
    assert (np.diff(whole) > 0).all()
    np.testing.assert_array_equal(state.signal, signal[:, whole])
    for start in truth.sample:
        assert np.isin(np.arange(start, start + N_TIMES), whole).all()


def test_on_the_stretches_the_spikes_and_rates_are_those_of_the_whole():
    signal, truth = fired(slab([FIRST, SECOND], spread=0.05), (80, 60), 900, 2)
    state = candidates(signal, [FIRST, SECOND])
    state.focus()
    state.update(n_rounds=2)
    everywhere = state.model.encode(signal, TWO_SWEEPS)
    np.testing.assert_array_equal(state.in_whole(state.spikes.sample), everywhere.sample)
    np.testing.assert_array_equal(state.spikes.unit, everywhere.unit)
    np.testing.assert_allclose(state.spikes.amplitude, everywhere.amplitude, atol=1e-3)
    counts = np.bincount(truth.unit)
    np.testing.assert_allclose(state.model.prior.penalty, np.log(signal.shape[1] / counts), atol=0.05)
    rest = state.rest_of_whole(state.model)
    assert abs((rest**2).mean() - 1) < 0.02


def test_spikes_that_are_known_stay_where_they_are_when_the_stretches_change():
    """Other stretches, with an event of no unit and without the weak unit's; an M-step on the spikes that stay gives what one
    on the same spikes of the whole signal gives."""
    signal, _ = fired(slab([FIRST, SECOND], spread=0.05), (80, 60), 900, 2)
    state = candidates(signal, [FIRST, SECOND])
    state.focus()
    state.update(n_rounds=1)
    before, known, n_looked_at = state.in_whole(state.spikes.sample), state.spikes, state.signal.shape[1]
    decoded = state.model
    state.events = np.array([400, 900 * 10 + 500])
    state.focus()
    assert state.signal.shape[1] != n_looked_at
    np.testing.assert_array_equal(state.in_whole(state.spikes.sample), before)
    np.testing.assert_array_equal(state.spikes.amplitude, known.amplitude)
    state.update(n_rounds=1)
    elsewhere = decoded.maximise(signal, replace(known, sample=before))
    np.testing.assert_allclose(state.model.templates, elsewhere.templates, atol=1e-4)


def test_a_unit_whose_spikes_nobody_explains_goes_with_them():
    signal, _ = fired(slab([FIRST, SECOND], spread=0.05), (40, 30), 900, 2)
    state = candidates(signal, [FIRST, 0.1 * FIRST, SECOND])
    state.focus()
    state.update(n_rounds=0)
    state.spikes = replace(state.spikes, unit=np.where(np.arange(len(state.spikes)) == 3, 1, state.spikes.unit))
    before = state.spikes
    state.keep(np.array([0, 2]), others_explain=False)
    stay = before.select(before.unit != 1)
    assert state.ids == [0, 2] and len(stay) == len(before) - 1
    np.testing.assert_array_equal(state.spikes.sample, stay.sample)
    np.testing.assert_array_equal(state.spikes.unit, stay.unit // 2)
    state.keep(np.array([0, 1]))
    assert len(state.spikes) == len(before), "decoded again, others explain what it had"


def test_an_event_is_looked_at_even_where_no_template_is():
    signal, _ = fired(slab([FIRST], spread=0.05), (30,), 1500, 3)
    quiet = 20 + 1500 * 10 + 900
    state = candidates(signal, [FIRST], events=[quiet])
    state.focus()
    assert np.isin(np.arange(quiet, quiet + N_TIMES), state.in_whole(np.arange(state.signal.shape[1]))).all()


def test_a_test_that_was_passed_is_asked_again_only_when_something_has_changed():
    signal, _ = fired(slab([FIRST, SECOND], spread=0.05), (40, 30), 300, 4)
    state = candidates(signal, [FIRST, SECOND])
    state.focus()
    state.update(n_rounds=1)
    assert not state.has_passed("remove", 0)
    state.passes("remove", 0)
    assert state.has_passed("remove", 0)
    assert not state.has_passed("remove", 1)
    assert not state.has_passed("split", 0)
    assert state.has_passed("remove", 0, np.array([True, True]))
    state.add([SECOND])
    assert not state.has_passed("remove", 0, np.array([True, True, True]))
    assert state.has_passed("remove", 0, np.array([True, True, False])), "the new unit does not reach it"
    assert state.has_passed("remove", 0)
    state.spikes = state.spikes.select(np.arange(len(state.spikes)) < 0.7 * len(state.spikes))
    assert not state.has_passed("remove", 0)


def test_the_tail_of_a_strong_spike_gets_a_template_that_is_no_neuron():
    """A slow tail of norm 9 follows 1.2 template lengths after a spike of norm 30; a second neuron fires by itself."""
    rng = np.random.default_rng(5)
    strong, tail = 1.5 * FIRST, template(9, (0.8, 0.6, 0.2, 0.1), width=7.0)
    n = 150
    first = 20 + 500 * np.arange(n) + rng.integers(0, 40, n)
    second = first + rng.integers(150, 400, n)
    truth = spikes_at(np.repeat([0, 1, 2], n), np.r_[first, second, first + N_TIMES + 8], np.r_[np.ones(2 * n), np.ones(n)])
    signal = rendered(slab([strong, SECOND, tail]), truth, 500 * n + 200, rng)
    result = curated(signal, [first, second])
    births = [d for d in result.decisions if d["decision"] == "add"]
    assert [d["why"] for d in births] == ["beyond another's template"]
    assert births[0]["statistic"] > births[0]["level"]
    assert result.ids[result.satellites].tolist() == births[0]["units"]
    assert (~result.satellites).sum() == 2


def test_a_neuron_that_drifts_and_is_known_as_two_in_turn_becomes_one():
    """Its shape turns steadily from one template to another, of cosine 0.85. Two neurons of the first and the last shape
    that fire in turn stay two: neither moves."""
    rng = np.random.default_rng(6)
    last = template(20, (0.55, 0.8, 0.1, 0.0))
    n, length = 300, 300 * 400 + 200
    start = 20 + 400 * np.arange(n) + rng.integers(0, 100, n)
    age = start / length
    size = rng.normal(1.0, 0.04, n)

    def signal_of(first_part: np.ndarray) -> np.ndarray:
        units = np.repeat([0, 1], n)
        spikes = spikes_at(units, np.r_[start, start], np.r_[size * first_part, size * (1 - first_part)])
        return rendered(slab([FIRST, last]), spikes.select(np.abs(spikes.amplitude) > 1e-6), length, rng)

    halves = [start[: n // 2], start[n // 2 :]]
    drifting = curated(signal_of(1 - age), halves)
    assert [d["decision"] for d in drifting.decisions if d["decision"] == "merge"] == ["merge"]
    assert drifting.model.n_units == 1
    assert len(drifting.spikes) >= 0.99 * n
    in_turn = curated(signal_of((age < 0.5).astype(float)), halves)
    assert in_turn.model.n_units == 2
    assert [d for d in in_turn.decisions if d["decision"] == "merge"] == []


def test_neurons_that_fire_together_are_both_found_though_their_first_windows_lie_apart():
    """The second template peaks 12 samples later in its window; half of its spikes coincide with the first neuron's."""
    rng = np.random.default_rng(7)
    late = np.roll(SECOND, 12, axis=1)
    late[:, :12] = 0
    n = 160
    first = 40 + 400 * np.arange(n) + rng.integers(0, 40, n)
    second = np.where(np.arange(n) % 2 == 0, first - 12 + rng.integers(-3, 4, n), first + rng.integers(120, 300, n))
    size = rng.normal(1.0, 0.05, 2 * n)
    signal = rendered(slab([FIRST, late]), spikes_at(np.repeat([0, 1], n), np.r_[first, second], size), 400 * n + 200, rng)
    result = curated(signal, [first[1::2], second[1::2]])
    assert result.model.n_units == 2
    peaks = [int((h**2).sum(axis=0).argmax()) for h in result.model.templates]
    assert abs(peaks[0] - peaks[1]) <= N_TIMES // 8
    found = np.bincount(result.spikes.unit, minlength=2)
    np.testing.assert_allclose(found, n, atol=3)
