"""Curation: which templates are neurons, and what the prior learns from their spikes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
from helpers.known_spikes import N_TIMES, PEAK, REFRACTORY, fired, first_slab, matched, rendered, slab, spikes_at, template

from spikecrsae.config import TrainConfig
from spikecrsae.crsae.em import expectation_maximisation
from spikecrsae.crsae.model import CRsAE
from spikecrsae.crsae.priors import SpikeSlab
from spikecrsae.csc.least_squares import subtract
from spikecrsae.curate.candidates import CurationSettings
from spikecrsae.curate.curate import MAX_ROUNDS, Curated, FirstUnits, curate
from spikecrsae.curate.removals import CERTAIN
from spikecrsae.curate.satellites import find_satellites
from spikecrsae.data.spikes import Spikes
from spikecrsae.detect.clustering import SMALLEST_CLUSTER
from spikecrsae.detect.detection import SpikeSubspace
from spikecrsae.detect.windows import TemplateWindow, windows_at
from spikecrsae.progress import Observer


def trains(*samples) -> Spikes:
    unit = np.concatenate([np.full(len(s), u) for u, s in enumerate(samples)])
    sample = np.concatenate(samples)
    order = np.argsort(sample, kind="stable")
    ones = np.ones(len(sample))
    return Spikes(unit[order], sample[order], ones, 0 * ones, ones, np.full(len(ones), -1), 0 * ones)


def model(norms, n_times: int = 40) -> CRsAE:
    templates = np.random.default_rng(0).standard_normal((len(norms), 2, n_times))
    templates *= (np.array(norms) / np.sqrt((templates**2).sum(axis=(1, 2))))[:, None, None]
    return slab(templates, 0.1, 8.0, refractory=20)


def test_a_unit_that_rides_on_a_stronger_one_is_a_satellite_and_an_independent_one_is_not():
    rng = np.random.default_rng(1)
    strong, other = np.sort(rng.choice(1_000_000, (2, 800), replace=False))
    # beside the strong spike, or in its tail beyond the template
    for lag in (15, 90):
        found, locked = find_satellites(model([30, 6, 8]), trains(strong, strong[::2] + lag, other), 1_000_000)
        assert found.tolist() == [False, True, False]
        assert locked[1] > 0.95
        assert abs(locked[2]) < 0.1


def test_em_learns_the_rate_and_spread_of_a_unit():
    rng = np.random.default_rng(4)
    start = model([25.0])
    n_samples, n_spikes = 400_000, 1000
    sample = np.sort(rng.choice(n_samples // 100 - 1, n_spikes, replace=False)) * 100
    amplitude = rng.normal(1.0, 0.12, n_spikes)
    signal = rng.standard_normal((2, n_samples)).astype(np.float32)
    subtract(signal, start.templates.astype(np.float32), np.zeros(n_spikes, np.int64), sample, -amplitude)
    learned, spikes = expectation_maximisation(signal, start, n_rounds=4)
    assert abs(len(spikes) - n_spikes) <= 2
    assert learned.prior.spread[0] == pytest.approx(0.12, rel=0.15)
    assert learned.prior.penalty[0] == pytest.approx(np.log(n_samples / n_spikes), abs=0.05)
    error = learned.templates[0] - start.templates[0]
    assert np.sqrt((error**2).sum()) < 3 * np.sqrt(error.size / n_spikes) + 0.02 * 25


# ---- decisions, through curate itself

WINDOW = TemplateWindow(N_TIMES, PEAK)
LEVEL, DEAD_TIME, BURST = 4.5, 10, 400
#: Three neurons on four channels, and one that resembles the first (cosine 0.83).
FIRST = template(20, (1.0, 0.4, 0.1, 0.0))
SECOND = template(15, (0.0, 0.1, 1.0, 0.5), width=5.0)
THIRD = template(12, (0.1, 0.8, 0.0, -0.6), width=3.0)
SIMILAR = template(20, (0.55, 0.8, 0.1, 0.0))


@dataclass(frozen=True)
class Scene:
    """What was there, and what curation makes of it."""

    truth: Spikes
    result: Curated

    def decisions(self, kind: str) -> list[dict]:
        return [d for d in self.result.decisions if d["decision"] == kind]

    def accuracy(self) -> np.ndarray:
        """Of every true neuron (n,): spikes found over all spikes, its own and its unit's."""
        found = self.result.spikes
        rows = []
        for neuron in np.unique(self.truth.unit):
            true, best = self.truth.sample[self.truth.unit == neuron], 0.0
            for unit in range(self.result.model.n_units):
                mine = found.sample[found.unit == unit]
                hits = matched(mine, true, tolerance=12)
                best = max(best, hits / (len(mine) + len(true) - hits))
            rows.append(best)
        return np.array(rows)


def curated(signal, truth, templates, members, fixed_number=False) -> Scene:
    subspace = SpikeSubspace.learn(signal, LEVEL, 20, DEAD_TIME)
    events = subspace.detect(signal, LEVEL, DEAD_TIME) - WINDOW.before
    events = events[(events >= 0) & (events <= signal.shape[1] - N_TIMES)]
    settings = CurationSettings(LEVEL, DEAD_TIME, REFRACTORY, BURST, fixed_number, 0, TrainConfig(max_windows=0))
    first = FirstUnits(events, first_slab(templates), members, subspace, WINDOW)
    return Scene(truth, curate(signal, first, settings, Observer()))


def mean_at(signal: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return windows_at(signal.T, starts, N_TIMES).mean(axis=0).T


def recording(templates, counts, seed: int):
    """Signal, spikes, and the first samples of every neuron's."""
    signal, truth = fired(slab(templates, spread=0.05), counts, 60, seed)
    return signal, truth, [truth.sample[truth.unit == unit] for unit in range(len(templates))]


@cache
def right(seed: int, fixed_number: bool = False) -> Scene:
    signal, truth, members = recording([FIRST, SECOND, THIRD], (200, 140, 100), seed)
    return curated(signal, truth, [FIRST, SECOND, THIRD], members, fixed_number)


@cache
def one_missing() -> Scene:
    signal, truth, members = recording([FIRST, SECOND, THIRD], (200, 140, 100), 1)
    return curated(signal, truth, [FIRST, SECOND], members[:2])


@cache
def two_missing() -> Scene:
    signal, truth, members = recording([FIRST, SECOND, THIRD], (200, 140, 100), 9)
    return curated(signal, truth, [FIRST], members[:1])


@cache
def long_tail() -> Scene:
    """The first neuron's waveform goes on where its template ends."""
    signal, truth, members = recording([FIRST, SECOND], (200, 140), 10)
    tail = 10 * np.outer((0.8, 0.5, 0.3, 0.1), np.hanning(N_TIMES)) / np.sqrt(0.99 * 14.6)
    for start in members[0][:-1]:
        signal[:, start + N_TIMES : start + 2 * N_TIMES] += tail
    return curated(signal, truth, [FIRST, SECOND], members)


@cache
def noise() -> Scene:
    """The last cluster holds eight places at random."""
    signal, truth, members = recording([FIRST, SECOND, THIRD], (200, 140, 100), 2)
    starts = np.sort(np.random.default_rng(2).choice(signal.shape[1] - 100, 8, replace=False))
    return curated(signal, truth, [FIRST, SECOND, THIRD, mean_at(signal, starts)], [*members, starts])


@cache
def misfit() -> Scene:
    """The first template lacks a part of its waveform, and the last unit is that part, of norm 5: until EM has put it right, it
    pays for itself."""
    signal, truth, members = recording([FIRST, SECOND], (250, 100), 3)
    part = template(1.0, (-0.4, 1.0, 0.0, 0.0), width=6.0)
    part -= np.vdot(part, FIRST) / np.vdot(FIRST, FIRST) * FIRST
    part *= 5 / np.linalg.norm(part)
    return curated(signal, truth, [FIRST - part, SECOND, part], [*members, members[0]])


@cache
def five_spikes() -> Scene:
    """The last cluster: five spikes and three places at random."""
    signal, truth, members = recording([FIRST, SECOND, THIRD], (200, 140, 5), 4)
    starts = np.sort(np.r_[members[2], np.random.default_rng(4).choice(signal.shape[1] - 100, 3, replace=False)])
    return curated(signal, truth, [FIRST, SECOND, mean_at(signal, starts)], [*members[:2], starts])


@cache
def collisions() -> Scene:
    """The last cluster is where the two neurons fire together, up to two samples apart."""
    rng, n, n_together = np.random.default_rng(5), 200, 25
    first = 20 + 240 * np.arange(n) + rng.integers(0, 40, n)
    second = first + np.where(np.arange(n) < n_together, rng.integers(-2, 3, n), rng.integers(50, 190, n))
    model = slab([FIRST, SECOND])
    truth = spikes_at(np.repeat([0, 1], n), np.r_[first, second], rng.normal(1.0, 0.05, 2 * n))
    signal = rendered(model, truth, 240 * n + 200, rng)
    together = mean_at(signal, first[:n_together])
    members = [first[n_together:], second[n_together:], first[:n_together]]
    return curated(signal, truth, [FIRST, SECOND, together], members)


@cache
def halves_by_size() -> Scene:
    """One neuron whose spikes shrink in bursts, its large and its small spikes as two units."""
    signal, truth, members = unsteady(0.88 ** np.random.default_rng(6).integers(0, 5, 260), seed=6)
    large = truth.amplitude[truth.unit == 0] > np.median(truth.amplitude[truth.unit == 0])
    clusters = [members[0][large], members[0][~large], members[1]]
    return curated(signal, truth, [mean_at(signal, c) for c in clusters], clusters)


def unsteady(size: np.ndarray, seed: int):
    """As recording, with 260 spikes of the first neuron, of these sizes, and 100 of the second."""
    rng, model = np.random.default_rng(seed), slab([FIRST, SECOND])
    unit = rng.permutation(np.repeat([0, 1], (260, 100)))
    sample = 20 + 60 * np.arange(360) + rng.integers(0, 20, 360)
    amplitude = rng.normal(1.0, 0.05, 360)
    amplitude[unit == 0] *= size
    truth = spikes_at(unit, sample, amplitude, model.shifts()[rng.integers(0, model.n_shifts, 360)])
    return rendered(model, truth, 360 * 60 + 100, rng), truth, [sample[unit == u] for u in (0, 1)]


@cache
def halves_at_random() -> Scene:
    signal, truth, members = recording([FIRST, SECOND, THIRD], (200, 140, 100), 7)
    half = np.random.default_rng(7).random(200) < 0.5
    clusters = [members[0][half], members[0][~half], *members[1:]]
    return curated(signal, truth, [mean_at(signal, c) for c in clusters], clusters)


@cache
def two_as_one() -> Scene:
    signal, truth, members = recording([FIRST, SIMILAR, SECOND], (200, 140, 100), 8)
    both = np.sort(np.r_[members[0], members[1]])
    return curated(signal, truth, [mean_at(signal, both), SECOND], [both, members[2]])


SCENES = [
    one_missing,
    two_missing,
    long_tail,
    noise,
    misfit,
    five_spikes,
    collisions,
    halves_by_size,
    halves_at_random,
    two_as_one,
]


@pytest.mark.parametrize("seed", range(3))
def test_a_right_set_of_units_stays_as_it_is(seed):
    scene = right(seed)
    assert scene.result.decisions == ()
    assert scene.result.ids.tolist() == [0, 1, 2]
    assert not scene.result.satellites.any()
    assert scene.accuracy().min() > 0.99
    assert scene.result.rounds == 2, "a second look finds nothing either"


def test_a_neuron_without_a_template_is_born():
    scene = one_missing()
    assert [d["decision"] for d in scene.result.decisions] == ["add"]
    assert scene.result.ids.tolist() == [0, 1, 2]
    assert scene.result.decisions[0]["units"] == [2]
    assert scene.accuracy().min() > 0.99
    # its window may begin some samples earlier or later
    overlaps = [np.vdot(np.roll(scene.result.model.templates[2], by, axis=1), THIRD) / 144 for by in range(-8, 9)]
    assert max(overlaps) == pytest.approx(1, abs=0.05)


def test_two_neurons_without_a_template_are_born_under_names_of_their_own():
    scene = two_missing()
    assert [(d["decision"], d["units"]) for d in scene.result.decisions] == [("add", [1]), ("add", [2])]
    assert scene.accuracy().min() > 0.99


def test_the_tail_of_a_strong_spike_gets_a_template_and_is_no_neuron():
    scene = long_tail()
    (birth,), (satellite,) = scene.decisions("add"), scene.decisions("satellite")
    assert birth["why"] == "beyond another's template"
    assert birth["units"] == satellite["units"] == [scene.result.ids[2]]
    assert satellite["statistic"] > satellite["level"]
    assert scene.result.satellites.tolist() == [False, False, True]
    assert scene.accuracy().min() > 0.98


def test_a_template_of_noise_dies():
    scene = noise()
    (death,) = scene.result.decisions
    assert (death["decision"], death["units"], death["n"]) == ("remove", [3], 8)
    # the norm of a mean of eight windows is by chance sqrt(160 / 8); no spike anywhere pays for the prior
    assert death["statistic"] < 30 < death["level"]
    assert scene.accuracy().min() > 0.99


def test_a_unit_that_em_shrinks_to_noise_dies_as_noise():
    scene = misfit()
    (death,) = scene.result.decisions
    assert (death["decision"], death["units"], death["why"]) == ("remove", [2], "noise")
    assert death["round"] >= 1, "at first it pays for its parameters"
    assert death["level"] == pytest.approx(np.log(CERTAIN / (1 - CERTAIN)))
    assert scene.accuracy().min() > 0.99
    assert np.linalg.norm(scene.result.model.templates[0] - FIRST) < 2.5, "the missing part has come back"


def test_a_unit_with_fewer_spikes_than_a_cluster_needs_dies():
    scene = five_spikes()
    (death,) = scene.decisions("remove")
    assert (death["units"], death["why"]) == ([2], "too few spikes")
    assert death["n"] == 5 < SMALLEST_CLUSTER


def test_a_cluster_of_collisions_is_explained_by_the_units_that_collide():
    scene = collisions()
    (death,) = scene.result.decisions
    assert (death["decision"], death["units"], death["why"]) == ("remove", [2], "explained by others")
    assert death["round"] == 0, "before anything is learned from it"
    assert death["n"] == 25
    assert scene.accuracy().min() > 0.98


def test_the_large_and_the_small_spikes_of_one_neuron_are_merged():
    scene = halves_by_size()
    (merge,) = scene.result.decisions
    assert merge["decision"] == "merge"
    assert sorted(merge["units"]) == [0, 1]
    assert merge["why"] == "better together"
    assert merge["statistic"] > merge["level"] == 0
    assert merge["similarity"] > 0.99, "the cosine of templates that differ in gain alone"
    assert scene.result.ids.tolist() == [merge["units"][0], 2], "the one with more spikes keeps its name"
    assert scene.accuracy().min() > 0.98


def test_one_of_two_units_of_one_neuron_is_not_needed():
    scene = halves_at_random()
    (death,) = scene.result.decisions
    assert death["why"] == "explained by others"
    assert death["units"][0] in (0, 1)
    assert scene.accuracy().min() > 0.99


def test_two_neurons_with_one_template_are_split():
    scene = two_as_one()
    (split,) = scene.result.decisions
    assert (split["decision"], split["units"]) == ("split", [0])
    assert split["n"] == pytest.approx(140, abs=5), "the larger part stays the unit"
    assert split["statistic"] > 10 * split["level"]
    assert scene.result.ids.tolist() == [0, 1, 2]
    assert scene.accuracy().min() > 0.97
    for wanted in (FIRST, SIMILAR):
        assert np.linalg.norm(scene.result.model.templates - wanted, axis=(1, 2)).min() < 2.5


def test_a_given_number_of_units_is_kept_without_a_decision():
    scene = right(0, fixed_number=True)
    assert scene.result.decisions == ()
    assert (scene.result.model.n_units, scene.result.rounds) == (3, 1)
    assert not scene.result.satellites.any()
    # EM has been at work
    assert scene.accuracy().min() > 0.99
    assert not np.array_equal(scene.result.model.prior.penalty, SpikeSlab.first(3).penalty)


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.__name__)
def test_every_decision_says_why_and_an_id_names_one_unit(scene):
    found = scene().result
    assert len(found.decisions) > 0
    born: set[int] = set()
    gone: set[int] = set()
    for d in found.decisions:
        assert np.isfinite(d["statistic"])
        assert np.isfinite(d["level"])
        assert 0 <= d["round"] <= found.rounds <= MAX_ROUNDS
        named = set(d["units"])
        assert len(named) == len(d["units"]) == (2 if d["decision"] == "merge" else 1)
        assert not named & gone, "of a unit that is gone nothing is decided"
        if d["decision"] == "add":
            assert not named & born
            born |= named
            assert d["statistic"] > d["level"]
        if d["decision"] == "split":
            assert d["statistic"] > d["level"]
        if d["decision"] == "remove":
            assert d["why"] in {"noise", "explained by others", "too few spikes"}
            assert d["why"] == "too few spikes" or d["statistic"] < d["level"]
            gone |= named
        if d["decision"] == "merge":
            gone.add(d["units"][1])
    assert len(set(found.ids.tolist())) == found.model.n_units == len(found.satellites)
    assert not gone & set(found.ids.tolist())
    assert [d["round"] for d in found.decisions] == sorted(d["round"] for d in found.decisions)
    assert found.spikes.unit.max() < found.model.n_units
