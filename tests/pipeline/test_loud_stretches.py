"""Recordings whose noise is loud for a while keep their neurons, each as one unit, and say so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from spikecrsae.config import Config
from spikecrsae.data.recording import Recording
from spikecrsae.pipeline.learned import Learned
from spikecrsae.pipeline.outcome import Outcome
from spikecrsae.pipeline.sort import apply_to_group, sort_group
from spikecrsae.readers import ReadOptions, read_array
from spikecrsae.score import compare

pytestmark = pytest.mark.slow

FS, SECONDS = 20_000.0, 20
#: Largest deflection in uV on four channels, width, and Hz of three neurons, in 10 uV of noise.
NEURONS = (
    ((140, 84, 42, 28), 1.0, 12.0),
    ((22, 110, 55, 44), 0.8, 10.0),
    ((27, 18, 90, 63), 1.3, 15.0),
)


@dataclass(frozen=True)
class Made:
    recording: Recording
    truth: dict[str, np.ndarray]
    loud: np.ndarray

    def sort(self, **settings) -> Outcome:
        return sort_group(self.recording, Config().with_settings(device="cpu", **settings))

    def scores(self, outcome: Outcome, quiet: bool = False) -> np.ndarray:
        """Accuracy of each neuron; quiet: outside of the loud stretches."""
        trains = [self.truth, {str(k): v for k, v in outcome.sorting.trains().items()}]
        if quiet:
            trains = [{name: t[~self.loud[t]] for name, t in some.items()} for some in trains]
        return np.array([row.accuracy for row in compare(*trains, FS).rows])


def made(level: float, loud: list[tuple[float, float]], seed: int = 0) -> Made:
    """Noise `level` times as loud between the seconds of `loud`."""
    rng = np.random.default_rng(seed)
    n = int(FS * SECONDS)
    mask = np.zeros(n, bool)
    for start, stop in loud:
        mask[int(start * FS) : int(stop * FS)] = True
    traces = 10 * rng.standard_normal((n, 4)) * np.where(mask, level, 1.0)[:, None]
    ms = np.arange(-30, 60) / FS * 1e3
    truth = {}
    for k, (gains, width, rate) in enumerate(NEURONS):
        gaps = 0.003 + rng.exponential(1 / rate - 0.003, int(2 * rate * SECONDS))
        at = (np.cumsum(gaps) * FS).astype(int)
        at = at[(at > 100) & (at < n - 100)]
        for sample in at:
            late = ms - rng.uniform(-0.5, 0.5) / FS * 1e3
            wave = -np.exp(-((late / (0.13 * width)) ** 2)) + 0.4 * np.exp(-(((late - 0.45 * width) / (0.28 * width)) ** 2))
            traces[sample - 30 : sample + 60] += np.outer(wave * rng.normal(1, 0.05), gains)
        truth[f"n{k}"] = at
    recording = read_array(traces.astype(np.float32), ReadOptions(sampling_frequency=FS))
    return Made(recording, truth, mask)


def said(outcome: Outcome) -> list[str]:
    return [warning for warning in outcome.warnings if "louder than usual" in warning]


@pytest.mark.parametrize(("level", "loud", "least"), [(3, [(4, 5.5), (12, 13)], 0.93), (3, [(10, 20)], 0.8)])
@pytest.mark.parametrize("settings", [{}, {"prior": "laplace"}], ids=["spike-slab", "laplace"])
def test_neurons_keep_one_unit_each(level, loud, least, settings):
    here = made(level, loud)
    outcome = here.sort(**settings)
    sorting = outcome.sorting
    assert sorting.n_units == len(NEURONS)
    assert here.scores(outcome).min() > least
    assert here.scores(outcome, quiet=True).min() > 0.98
    assert len(said(outcome)) == 1
    # what is missed in the loud stretches is estimated to some extent; waveforms are those of the clear spikes
    true_miss = 1 - np.array([row.recall for row in compare(here.truth, sorting.trains(), FS).rows])
    assert abs(sorting.units["miss"].mean() - true_miss.mean()) < 0.03 + 0.5 * true_miss.mean()
    assert sorting.units["sd_ratio"].max() < 1.8
    # reported amplitudes are of the neuron, not of the signal divided by its noise
    for unit in sorting.unit_ids:
        mine = sorting.spikes[sorting.spikes["unit"] == unit]
        inside = here.loud[mine["sample"]]
        assert inside.sum() > 5
        assert abs(np.median(mine["amplitude"][inside]) / np.median(mine["amplitude"][~inside]) - 1) < 0.12


def test_steady_noise_is_not_divided_and_nothing_is_said():
    here = made(1, [])
    outcome = here.sort()
    assert not said(outcome) and here.scores(outcome).min() > 0.98


def test_apply_measures_the_noise_of_its_recording():
    learned = made(1, []).sort()
    here = made(3, [(5, 9)], seed=1)
    outcome = apply_to_group(learned.checkpoint, here.recording, Config().with_settings(device="cpu"))
    assert len(said(outcome)) == 1 and here.scores(outcome, quiet=True).min() > 0.97
    n_loud = here.loud[outcome.sorting.spikes["sample"]].sum()
    assert n_loud < 1.05 * sum(here.loud[t].sum() for t in here.truth.values())


def test_what_was_learned_keeps_its_noise(tmp_path):
    """A stopped run goes on with the noise over time that was measured before."""
    from spikecrsae.pipeline import sort as stages
    from spikecrsae.pipeline.learned import LearnedCache

    here = made(3, [(4, 6)])
    cache = LearnedCache(tmp_path, "key")
    config = Config().with_settings(device="cpu")
    first = sort_group(here.recording, config, cache=cache)
    again = sort_group(here.recording, config, cache=cache)
    np.testing.assert_array_equal(first.sorting.spikes, again.sorting.spikes)
    stored: Learned | None = cache.load(first.input_checksum, stages.backend_of("auto", "cpu"))
    assert stored is not None and not stored.loudness.is_steady
    assert np.abs(stored.loudness.intervals(3, here.recording.n_samples) - [[80_000, 120_000]]).max() < 400
