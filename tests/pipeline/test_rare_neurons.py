"""Neurons that fire rarely, or for a short time, are found in recordings of which only a part is learned from, and one neuron stays one."""

from __future__ import annotations

import numpy as np
import pytest

from spikecrsae.config import Config
from spikecrsae.data.recording import Recording
from spikecrsae.pipeline.outcome import Outcome
from spikecrsae.pipeline.sort import apply_to_group, sort_group
from spikecrsae.readers import ReadOptions, read_array
from spikecrsae.score import compare

pytestmark = pytest.mark.slow

FS, SECONDS = 20_000.0, 40
#: Of 40 s so many are learned from.
LEARNED_S = 12.0


def poisson(rng: np.random.Generator, rate: float, start: float = 0.1, stop: float = SECONDS - 0.1) -> np.ndarray:
    gaps = 0.003 + rng.exponential(1 / rate - 0.003, int(2 * rate * (stop - start)) + 20)
    times = start + np.cumsum(gaps)
    return times[times < stop]


def recording(
    rng: np.random.Generator, *neurons: tuple[np.ndarray, np.ndarray | tuple[float, ...], float, np.ndarray | float]
) -> tuple[Recording, dict[str, np.ndarray]]:
    """Neurons (times in s, largest deflection in uV on each channel, width, sizes) in 10 uV of noise, and the truth."""
    n = int(FS * SECONDS)
    n_channels = len(neurons[0][1])
    traces, truth = 10 * rng.standard_normal((n, n_channels)), {}
    for k, (times, uv, width, sizes) in enumerate(neurons):
        centres = times * FS
        for centre, size in zip(centres, np.broadcast_to(sizes, len(times)), strict=True):
            at = round(centre)
            ms = (np.arange(at - 30, at + 60) - centre) / FS * 1e3
            wave = -np.exp(-((ms / (0.13 * width)) ** 2)) + 0.4 * np.exp(-(((ms - 0.45 * width) / (0.28 * width)) ** 2))
            traces[at - 30 : at + 60] += size * np.outer(wave, uv)
        truth[str(k)] = np.round(centres).astype(np.int64)
    made = read_array(np.round(traces / 0.2).astype(np.int16), ReadOptions(sampling_frequency=FS, gain=0.2))
    return made, truth


def sort(made: Recording, **settings) -> Outcome:
    return sort_group(made, Config().with_settings(**{"device": "cpu", "max_signal_s": LEARNED_S, **settings}))


def accuracies(truth: dict[str, np.ndarray], outcome: Outcome) -> list[float]:
    return [row.accuracy for row in compare(truth, outcome.sorting.trains(), FS).rows]


def with_rare(seed: int, n_rare: int) -> tuple[Recording, dict[str, np.ndarray]]:
    """A frequent neuron, and a larger one of a similar, narrower waveform with n_rare spikes."""
    rng = np.random.default_rng(seed)
    rare = np.sort(rng.uniform(0.1, SECONDS - 0.1, n_rare))
    return recording(rng, (poisson(rng, 8), (65, 39, 20, 13), 1.3, 1.0), (rare, (120, 66, 42, 24), 1.0, 1.0))


@pytest.mark.parametrize("n_rare", [40, 15])
def test_a_rare_neuron_beside_a_similar_frequent_one_is_found(n_rare):
    made, truth = with_rare(1, n_rare)
    outcome = sort(made)
    assert outcome.sorting.n_units == 2 and min(accuracies(truth, outcome)) > 0.9
    assert not [text for text in outcome.warnings if "fit no unit" in text]


def test_a_neuron_that_fires_for_a_short_time_is_found_and_its_rate_is_that_of_the_recording():
    rng = np.random.default_rng(2)
    trains = [poisson(rng, 6), poisson(rng, 18, 21.0, 22.5)]
    made, truth = recording(rng, (trains[0], (110, 60, 30, 20), 1.0, 1.0), (trains[1], (20, 45, 100, 60), 0.9, 1.0))
    outcome = sort(made)
    assert outcome.sorting.n_units == 2 and min(accuracies(truth, outcome)) > 0.9
    n_spikes = np.bincount(outcome.sorting.spikes["unit"])
    np.testing.assert_allclose(outcome.sorting.model["penalty"], np.log(made.n_samples / (n_spikes + 1)), atol=0.4)


def test_two_rare_neurons_of_one_wire_are_two():
    rng = np.random.default_rng(3)
    rare = [np.sort(rng.uniform(0.1, SECONDS - 0.1, n)) for n in (40, 25)]
    made, truth = recording(
        rng, (poisson(rng, 8), (60,), 1.6, 1.0), (rare[0], (150,), 1.0, 1.0), (rare[1], (105,), 0.8, 1.0)
    )
    outcome = sort(made)
    assert outcome.sorting.n_units == 3 and min(accuracies(truth, outcome)) > 0.9


def sizes_of(kind: str, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if kind == "spread":
        return rng.normal(1.0, 0.2, len(times)).clip(0.5)
    if kind == "drift":
        return np.linspace(0.75, 1.3, len(times))
    return np.where(np.diff(times, prepend=-1) < 0.02, 0.75, 1.0)


@pytest.mark.parametrize("kind", ["spread", "drift", "bursts"])
def test_one_neuron_whose_size_varies_stays_one(kind):
    """By a fifth from spike to spike; by half over the recording; in bursts, of which later spikes are smaller."""
    rng = np.random.default_rng(4)
    times = poisson(rng, 8)
    if kind == "bursts":
        times = np.sort(np.concatenate([times, times[::3] + 0.006, times[::6] + 0.012]))
        times = times[np.diff(times, prepend=-1) > 0.004]
    sizes = sizes_of(kind, times, rng)
    made, truth = recording(rng, (times, (120, 70, 40, 25), 1.0, sizes), (poisson(rng, 5), (20, 40, 60, 110), 1.2, 1.0))
    outcome = sort(made)
    assert outcome.sorting.n_units == 2 and min(accuracies(truth, outcome)) > 0.9


def test_what_is_drawn_does_not_depend_on_chunks_or_cores(monkeypatch):
    made, _ = with_rare(5, 20)
    first = sort(made).sorting.spikes
    monkeypatch.setenv("SPIKECRSAE_CORES", "1")
    np.testing.assert_array_equal(first, sort(made, chunk_s=2.0).sorting.spikes)


def test_spikes_of_a_neuron_that_the_model_lacks_are_counted_and_said():
    rng = np.random.default_rng(6)
    known = (110, 60, 30, 20)
    made, _ = recording(rng, (poisson(rng, 6), known, 1.0, 1.0))
    learned = sort(made)
    assert not [text for text in learned.warnings if "fit no unit" in text]
    new = poisson(rng, 1.5, 10.0, 35.0)
    later, truth = recording(rng, (poisson(rng, 6), known, 1.0, 1.0), (new, (20, 45, 100, 60), 0.9, 1.0))
    applied = apply_to_group(learned.checkpoint, later, Config())
    assert accuracies({"0": truth["0"]}, applied)[0] > 0.95
    (said,) = [text for text in applied.warnings if "fit no unit" in text]
    assert abs(int(said.split()[0]) - len(new)) <= 0.1 * len(new)
