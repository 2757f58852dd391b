"""Probabilities of spikes, and rates of errors with intervals, against spikes that are known."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.known_spikes import N_TIMES, Whitened, fired, matched, slab, template

from spikecrsae.data.spikes import Spikes
from spikecrsae.decode.blocks import Decoding
from spikecrsae.decode.build import DecodedUnits, build_sorting
from spikecrsae.decode.collect import Collector, RecordingFacts, gathered
from spikecrsae.decode.confidence import below_threshold, thresholds
from spikecrsae.decode.probability import (
    NO_RIVAL,
    Judgement,
    SpikeFacts,
    UnitFacts,
    contaminations,
    judge,
    spike_facts,
    unit_facts,
)
from spikecrsae.decode.quality import ACCEPTED_ERROR
from spikecrsae.decode.rates import Rates, after_test, count_quantile, false_alarms, misses
from spikecrsae.progress import Observer

FS = 20000.0


def facts_of(n: int, **changes) -> SpikeFacts:
    """Spikes of one unit that nothing speaks against."""
    zeros = np.zeros(n)
    known = dict(unit=np.zeros(n, np.int64), gain=np.full(n, 100.0), over_rival=np.full(n, NO_RIVAL), near=zeros, gap=np.ones(n), size=zeros,
                 misfit=zeros, amplitude=zeros, violates=np.zeros(n, bool))  # fmt: skip
    return SpikeFacts(**known | changes)


def units_of(**changes) -> UnitFacts:
    """One strong unit of 1,000 spikes without a refractory violation, of which chance would give 20."""
    known = {"n_spikes": 1000, "snr": 15.0, "spread": 0.05, "distance": 15.0, "pairs": 0, "by_chance": 20.0} | changes
    return UnitFacts(*(np.array([known[name]], float) for name in known))


def judged(model, signal, found: Spikes) -> tuple[SpikeFacts, Judgement]:
    told = spike_facts(found, model.misfit(signal, found), np.ones(len(found), bool), model, FS)
    return told, judge(told, unit_facts(found, model, signal.shape[1], FS))


def rates_of(model, signal, found: Spikes) -> tuple[Rates, Rates]:
    told, judgement = judged(model, signal, found)
    below = below_threshold(found, model)
    return false_alarms(found.unit, judgement), misses(told, found.rival, judgement, below, np.zeros(model.n_units))


# ---- probabilities of spikes


def test_a_spike_is_less_probable_the_less_it_gains():
    gain = np.array([0.0, 1.0, 3.0, 100.0])
    probability = judge(facts_of(4, gain=gain), units_of()).probability
    np.testing.assert_allclose(probability[:3], 1 / (1 + np.exp(-gain[:3])), atol=2e-3)
    assert np.all(np.diff(probability) > 0) and probability[3] > 0.998


@pytest.mark.parametrize(
    "worse",
    [
        {"over_rival": np.array([NO_RIVAL, 6.0, 2.0, 0.0])},
        {"gap": np.array([1.0, 0.3, 0.3, 0.05]), "near": np.array([0, 1, 3, 5])},
        {"gap": np.full(4, 0.1), "near": np.full(4, 3), "misfit": np.array([0.0, 1.0, 2.0, 4.0])},
        {"gap": np.full(4, 0.1), "near": np.full(4, 3), "size": np.log([0.3, 1, 2, 4])},
        {"amplitude": np.array([0.0, 2.0, 3.0, 5.0])},
    ],
    ids=["rival", "crowd", "misfit in a crowd", "larger neighbour", "amplitude"],
)
def test_what_speaks_against_a_spike_makes_it_less_probable(worse):
    assert np.all(np.diff(judge(facts_of(4, **worse), units_of()).probability) < 0)


def test_contamination_is_what_the_refractory_period_says():
    """Llobet's contamination of 0.2 gives (2 * 0.2 - 0.04) of the pairs of independent spikes."""
    for part in (0.1, 0.2, 0.4):
        posterior, shares = contaminations(units_of(snr=10.0, by_chance=400.0, pairs=round(400 * (2 * part - part**2))))
        assert (posterior @ shares)[0] == pytest.approx(part, abs=0.03)
        np.testing.assert_allclose(posterior.sum(), 1)


def test_a_weak_unit_full_of_violations_is_of_many_neurons():
    foreign = [float((posterior @ shares)[0]) for posterior, shares in (
        contaminations(units_of(snr=snr, by_chance=1000.0, pairs=pairs)) for snr, pairs in ((4.5, 700), (15.0, 0)))]  # fmt: skip
    assert foreign[0] > 0.9 and foreign[1] < 0.01


def test_a_spike_within_the_refractory_period_of_another_is_suspect():
    violates = np.arange(100) < 10
    probability = judge(facts_of(100, violates=violates), units_of(pairs=5)).probability
    assert probability[violates].max() < probability[~violates].min()


def test_probabilities_of_similar_units_are_true():
    """The mean over the doubtful spikes is the part of them that is right, within three standard errors and 0.03."""
    for templates, counts in ((similar(3.0), (2000, 2000)), (similar(4.0), (2000, 2000))):
        model, signal, truth = recording_of(templates, counts, seed=5)
        found = model.encode(signal)
        probability = judged(model, signal, found)[1].probability
        right = np.zeros(len(found), bool)
        for unit in range(model.n_units):
            mine = np.flatnonzero(found.unit == unit)
            his = truth.sample[truth.unit == unit]
            right[mine] = np.abs(found.sample[mine][:, None] - his).min(axis=1) <= 4
        doubtful = probability < 0.95
        assert doubtful.sum() > 50
        error = np.sqrt((probability * (1 - probability))[doubtful].mean() / doubtful.sum())
        assert abs(probability[doubtful].mean() - right[doubtful].mean()) < 3 * error + 0.03


def test_no_spike_and_no_unit_are_no_error():
    model = slab([template(20), template(20, (0.2, 1.0))])
    told = spike_facts(Spikes.none(), np.zeros(0), np.zeros(0, bool), model, FS)
    judgement = judge(told, unit_facts(Spikes.none(), model, 1000, FS))
    assert len(judgement.probability) == 0
    rates = false_alarms(np.zeros(0, np.int64), judgement)
    assert np.isnan(rates.estimate).all() and rates.low.shape == (2,)


# ---- rates and their intervals


def similar(distance: float, norm: float = 15.0) -> list[np.ndarray]:
    """Two templates of one norm, `distance` standard deviations of the noise apart."""
    first, other = template(norm), template(norm, (0.5, 1.0))
    other = other - np.vdot(first, other) / np.vdot(first, first) * first
    other *= norm / np.linalg.norm(other)
    angle = 2 * np.arcsin(0.5 * distance / norm)
    return [first, np.cos(angle) * first + np.sin(angle) * other]


def recording_of(templates, counts, seed: int):
    """The model of the templates, a signal in which they fire, and its spikes."""
    gap = 100
    model = slab(templates, penalty=np.log(gap * sum(counts) / np.array(counts)))
    return model, *fired(model, counts, gap, seed)


def estimated_and_true(templates, counts, seed: int) -> tuple[tuple[Rates, Rates], np.ndarray]:
    """False alarms and misses of every unit, as estimated and as counted (2, n_units)."""
    model, signal, truth = recording_of(templates, counts, seed)
    found = model.encode(signal)
    counted = []
    for unit in range(model.n_units):
        mine, his = found.sample[found.unit == unit], truth.sample[truth.unit == unit]
        hits = matched(mine, his)
        counted.append((1 - hits / max(len(mine), 1), 1 - hits / len(his)))
    return rates_of(model, signal, found), np.transpose(counted)


@pytest.mark.parametrize(
    ("templates", "counts"),
    [
        (similar(2.0), (2000, 2000)),
        (similar(3.0), (2000, 2000)),
        (similar(4.0), (2000, 2000)),
        (similar(2.5), (4800, 1200)),
    ],
    ids=["2 apart", "3 apart", "4 apart", "unequal rates"],
)
def test_errors_of_similar_units_are_the_true_ones(templates, counts):
    """Within 0.01 and a tenth of the rate; the deviation by chance of a rate of 0.15 of 1200 spikes is 0.01."""
    rates, true = estimated_and_true(templates, counts, seed=5)
    assert true.max() > 0.02, "there is something to estimate"
    for rate, known in zip(rates, true, strict=True):
        np.testing.assert_array_less(np.abs(rate.estimate - known), 0.01 + 0.1 * known)
        assert np.all((rate.low <= known) & (known <= rate.high))


@pytest.mark.parametrize("norm", [4.5, 5.0, 6.0])
def test_estimated_errors_of_a_weak_unit_err_on_the_side_of_caution(norm):
    """Misses within half, or 0.01. Neighbouring samples are not independent, so noise has fewer chances than the prior gives
    it: false alarms are fewer than estimated, by less than 0.04."""
    (false_alarm, miss), true = estimated_and_true([template(norm)], (3000,), seed=5)
    assert true[1, 0] > 0.01
    assert miss.estimate[0] == pytest.approx(true[1, 0], rel=0.5, abs=0.01)
    assert true[0, 0] <= false_alarm.estimate[0] < true[0, 0] + 0.04
    for rate, known in zip((false_alarm, miss), true[:, 0], strict=True):
        assert rate.low[0] <= known <= rate.high[0]


def test_a_strong_lone_unit_has_hardly_an_error():
    rates, true = estimated_and_true([template(25.0)], (500,), seed=7)
    for rate in rates:
        assert rate.estimate[0] < 2e-3 and rate.low[0] == 0 and rate.high[0] <= 5 / 500 + 0.005
    assert true.max() == 0


@pytest.mark.parametrize("norm", [5.0, 7.0, 10.0])
@pytest.mark.parametrize("spread", [0.2, 0.3])
def test_misses_below_the_threshold_follow_the_amplitudes_found_whatever_spread_the_prior_has(norm, spread):
    """The prior's spread is 0.1; amplitudes that vary more fall below the threshold more often."""
    model = slab([template(norm)], spread=0.1, penalty=np.log(100))
    signal, truth = fired(model, (3000,), 100, seed=5, spread=spread)
    found = model.encode(signal)
    missed = 1 - matched(found.sample, truth.sample) / len(truth)
    assert below_threshold(found, model)[0] == pytest.approx(missed, rel=0.2, abs=0.005)


def test_the_rarer_of_two_similar_units_has_the_larger_errors():
    rates, true = estimated_and_true(similar(2.5), (4800, 1200), seed=6)
    for pair in (*(rate.estimate for rate in rates), *true):
        assert pair[1] > 2 * pair[0]


def test_more_spikes_make_the_interval_narrower():
    widths = []
    for n in (100, 1000):
        judgement = judge(facts_of(n), units_of(n_spikes=n, by_chance=20 * (n / 1000) ** 2, snr=8.0))
        rates = false_alarms(np.zeros(n, np.int64), judgement)
        widths.append(rates.high[0] - rates.low[0])
    assert widths[0] > 2 * widths[1]


@pytest.mark.parametrize("n", [8, 13, 48, 300])
def test_an_interval_holds_its_estimate_for_any_number_of_spikes(n):
    judgement = judge(facts_of(n), units_of(n_spikes=n, by_chance=20 * (n / 1000) ** 2, snr=8.0))
    rates = false_alarms(np.zeros(n, np.int64), judgement)
    assert 0 <= rates.low[0] <= rates.estimate[0] <= rates.high[0] <= 1
    # of one foreign spike in n / 3, none would show in 5 of 100 such units
    assert rates.high[0] >= 0.99 * (1 - 0.05 ** (1 / n)) > 2.4 / n


def test_a_test_moves_the_misses_towards_what_it_found():
    """Half of 200 copies missed outweighs the estimate; a unit without copies keeps its own."""
    before = Rates(np.array([0.02, 0.02, 0.02]), np.array([0.0, 0.0, 0.0]), np.array([0.1, 0.1, 0.1]))
    after = after_test(before, np.array([200, 200, 0]), np.array([100, 199, 0]))
    assert after.estimate[0] == pytest.approx(0.45, abs=0.05) and after.low[0] > 0.35
    assert after.estimate[1] < 0.02 and after.high[1] - after.low[1] < 0.03
    assert (after.low[2], after.estimate[2], after.high[2]) == (0.0, 0.02, 0.1)


def test_the_quantile_of_one_poisson_distribution_is_scipys():
    from scipy.stats import poisson

    for mean in (0.1, 3.0, 200.0):
        for level in (0.05, 0.5, 0.95):
            assert count_quantile(np.array([mean]), np.ones(1), level, 1000) == poisson.ppf(level, mean)


# ---- from the estimate to the label


def test_units_that_cannot_be_told_apart_are_multi():
    """Two similar units and a strong one that stands alone, from the signal to the table of units."""
    gains = [np.r_[h, np.zeros_like(h)] for h in similar(2.0)]
    n_samples = 3 * 800 * 100 + 2 * N_TIMES
    model = slab([*gains, template(25.0, (0.0, 0.0, 1.0, 0.5))], penalty=np.log(n_samples / 800))
    signal, _ = fired(model, (800, 800, 800), 100, seed=8)
    collector = Collector(3, 4, N_TIMES)
    for chunk in gathered(Decoding(Whitened(signal), model, N_TIMES), 50_000, 0, Observer()):
        collector.add(chunk)
    facts = RecordingFacts(20000.0, signal.shape[1], "uV", 0.0, {"masked": np.zeros(4, bool)}, np.ones(4), np.eye(4))
    history = {"spread": np.array([[np.nan, 0.1, 0.1], [0.3, 0.2, 0.1]]), "penalty": np.stack([model.prior.penalty] * 2)}
    sorting = build_sorting(collector, DecodedUnits(model, np.ones(3, bool), history), facts)
    units = sorting.units
    alone = int(units["peak_channel"].tolist().index(2))
    errors = np.maximum(units["false_alarm"], units["miss"])
    assert errors[alone] < 0.01
    for kind in ("false_alarm", "miss"):
        assert np.all((units[f"{kind}_low"] <= units[kind]) & (units[kind] <= units[f"{kind}_high"]))
    assert np.delete(errors, alone).min() > ACCEPTED_ERROR
    assert units["label"][alone] == "single"
    assert np.delete(units["label"], alone).tolist() == ["multi", "multi"]
    # the threshold of the table is that of the model, in the unit of the amplitudes
    in_table = units["threshold"] / units["amplitude"]
    np.testing.assert_allclose(np.sort(in_table), np.sort(thresholds(model)), rtol=1e-6)
    # the table begins with the largest unit, and so do all arrays of the model
    order = [int(np.abs(model.templates - found).sum(axis=(1, 2)).argmin()) for found in sorting.templates_whitened]
    assert sorted(order) == [0, 1, 2] != order
    assert sorting.model["sigma"] == 1
    for name, values in model.prior.parameters().items():
        np.testing.assert_array_equal(sorting.model[name], values[order])
        np.testing.assert_array_equal(sorting.model[f"{name}_history"], history[name][:, order])
    np.testing.assert_allclose(sorting.model["whitened_norm"], np.sqrt(model.energy)[order])
    assert sorting.model_of_units == sorting.model.keys() - {"sigma"}
