"""What no neuron can be is told from neurons by what it is, taken out, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from spikecrsae.config import Config, PreprocessConfig
from spikecrsae.data.artefacts import KINDS, Pulses, period_of, summary
from spikecrsae.data.recording import recording_from_array
from spikecrsae.data.timeline import Timeline
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.preprocess.artefacts import Artefacts, find_artefacts, told
from spikecrsae.preprocess.events import find_events
from spikecrsae.preprocess.preprocessor import PreprocessedRecording
from spikecrsae.preprocess.recognition import equal_intervals
from spikecrsae.preprocess.whitening import fit
from spikecrsae.progress import Observer

FS, SECONDS = 20000.0, 20.0
GAINS = {1: np.array([1.0]), 4: np.array([1.0, 0.6, 0.4, 0.25])}
EQUAL = {1: np.array([1.0]), 4: np.array([1.0, 0.95, 1.05, 0.9])}


def background(n_channels: int, seed: int = 0) -> tuple[np.random.Generator, np.ndarray]:
    """Noise of 10 uV with slow potentials of 100 uV, and a neuron of 120 uV at 8 Hz."""
    rng = np.random.default_rng(seed)
    n = int(SECONDS * FS)
    traces = 10 * rng.standard_normal((n, n_channels)) + 100 * np.sin(2 * np.pi * 7 * np.arange(n) / FS)[:, None]
    neuron(traces, np.sort(rng.uniform(0.1, SECONDS - 0.1, int(8 * SECONDS))), 120 * GAINS[n_channels])
    return rng, traces


def spike(ms: np.ndarray) -> np.ndarray:
    return -np.exp(-((ms / 0.15) ** 2)) + 0.4 * np.exp(-(((ms - 0.5) / 0.3) ** 2))


def edge(ms: np.ndarray) -> np.ndarray:
    return np.where(ms >= 0, np.exp(-ms / 0.4), 0.0)


def biphasic(ms: np.ndarray) -> np.ndarray:
    return np.where(
        (ms >= 0) & (ms < 0.3), 1.0, np.where((ms >= 0.3) & (ms < 0.6), -1.0, np.where(ms >= 0.6, 0.2 * np.exp(0.6 - ms), 0))
    )


def rounded(ms: np.ndarray) -> np.ndarray:
    """No edge, and no longer than a spike."""
    return np.exp(-(((ms - 0.3) / 0.15) ** 2)) - 0.7 * np.exp(-(((ms - 0.7) / 0.2) ** 2))


def neuron(
    traces: np.ndarray, times: np.ndarray, sizes: np.ndarray, scale: np.ndarray | float = 1.0, shape=spike, n_times=330
) -> None:
    """Add a shape at times in s, between samples too, in place, from 30 of its n_times samples before each time on."""
    for time, factor in zip(times, np.broadcast_to(scale, len(times)), strict=True):
        first = int(time * FS) - 30
        ms = (np.arange(first, first + n_times) / FS - time) * 1000
        inside = (first + np.arange(n_times) >= 0) & (first + np.arange(n_times) < len(traces))
        traces[first + np.flatnonzero(inside)] += factor * np.outer(shape(ms), sizes)[inside]


def found_in(traces: np.ndarray, triggers: np.ndarray | None = None) -> Artefacts:
    given = {} if triggers is None else {"triggers": triggers}
    return find_artefacts(recording_from_array(traces.astype(np.float32), FS), PreprocessConfig(), Observer(), **given)


def of_kind(found: Artefacts, kind: str) -> np.ndarray:
    return found.table[found.table["kind"] == KINDS.index(kind)]


def share_found(rows: np.ndarray, times: np.ndarray, within_ms: float = 1.0) -> float:
    """Part of the times that a row lies at."""
    near = np.abs(rows["sample"][:, None] / FS - times).min(axis=0) if len(rows) else np.inf
    return float(np.mean(near < within_ms / 1000))


PERIODIC = np.arange(0.2, SECONDS - 0.2, 0.2503)
IRREGULAR = np.cumsum(np.random.default_rng(5).uniform(0.1, 0.5, 60))
TRAINS = np.concatenate([start + np.arange(10) / 100 for start in np.cumsum(np.random.default_rng(6).uniform(0.9, 1.2, 17))])


@pytest.mark.parametrize("n_channels", [1, 4])
@pytest.mark.parametrize(
    ("shape", "size", "times"),
    [
        (biphasic, 3000, PERIODIC),
        (biphasic, -2000, TRAINS),
        (edge, 250, PERIODIC),
        (edge, 400, IRREGULAR),
        (rounded, 300, PERIODIC),
        (rounded, 3000, IRREGULAR),
    ],
)
def test_pulses_are_found_subtracted_and_blanked_shortly(n_channels, shape, size, times):
    rng, traces = background(n_channels)
    times = times[times < SECONDS - 0.2]
    without = traces.copy()
    neuron(traces, times, size * EQUAL[n_channels], 1 + 0.02 * rng.standard_normal(len(times)), shape)
    found = found_in(traces)
    assert share_found(of_kind(found, "pulse"), times) > 0.93
    assert len(of_kind(found, "pulse")) <= 1.02 * len(times)
    assert np.diff(found.gaps).sum() / FS < 0.0025 * len(times)
    recording = found.without_pulses(recording_from_array(traces.astype(np.float32), FS))
    views = [
        PreprocessedRecording(
            one, fit(one, PreprocessConfig(), np.random.default_rng(0), Observer(), found.gaps), found.gaps
        )
        for one in (recording, recording_from_array(without.astype(np.float32), FS))
    ]
    left, clean = (view.both(0, len(traces))[1] for view in views)
    assert (left - clean).std() < 0.35
    assert np.abs(left).max() < 1.3 * np.abs(clean).max()


def test_laser_on_and_off_are_two_shapes_and_the_period_is_told():
    _, traces = background(4)
    sign = np.where(np.arange(len(PERIODIC)) % 2, -1.0, 1.0)
    neuron(traces, PERIODIC, 250 * EQUAL[4], sign, edge)
    found = found_in(traces)
    told = [
        entry for entry in summary(found.table, Timeline(np.zeros(1, np.int64), np.zeros(1), FS)) if entry["kind"] == "pulse"
    ]
    assert len(told) == 2
    assert all(entry["period_s"] == pytest.approx(2 * 0.2503, abs=1e-4) for entry in told)
    signs = [np.sign(np.median(of_kind(found, "pulse")["amplitude"][of_kind(found, "pulse")["group"] == k])) for k in (0, 1)]
    assert sorted(signs) == [-1, 1]


BURSTS = np.concatenate([start + np.cumsum([0, 0.0031, 0.0029, 0.0032]) for start in np.arange(0.5, 19, 0.37) ** 1.01])

#: Bursts whose intervals of 3 ms vary by 0.06 ms, at irregular times.
EXACT = np.concatenate(
    [start + np.cumsum([0, *jitter]) for start, jitter in zip(
        np.cumsum(np.random.default_rng(7).uniform(0.2, 0.8, 35)),
        0.003 + 6e-5 * np.random.default_rng(8).standard_normal((35, 4)), strict=True,
    )]
)  # fmt: skip


@pytest.mark.parametrize("n_channels", [1, 4])
@pytest.mark.parametrize(
    ("times", "size", "gains"),
    [
        (PERIODIC + 0.003 + 1e-4 * np.random.default_rng(1).standard_normal(len(PERIODIC)), 200, GAINS),
        (PERIODIC + 0.003 + 1e-3 * np.random.default_rng(1).standard_normal(len(PERIODIC)), 200, GAINS),
        (np.cumsum(0.1 * (1 + 0.05 * np.random.default_rng(2).standard_normal(190))), 200, GAINS),
        (IRREGULAR, 500, GAINS),
        (IRREGULAR, 900, EQUAL),
        (IRREGULAR[::8], 400, EQUAL),
        (BURSTS + 2e-4 * np.random.default_rng(3).standard_normal(len(BURSTS)), 300, EQUAL),
        (EXACT, 300, EQUAL),
        (np.cumsum(0.01 * (1 + 0.01 * np.random.default_rng(2).standard_normal(1900))), 150, GAINS),
        (IRREGULAR, 1300, GAINS),
    ],
    ids=[
        "locked, 0.1 ms", "locked, 1 ms", "pacemaker", "500 uV", "900 uV on all", "eight spikes", "bursts", "exact bursts",
        "exact pacemaker", "1.3 mV",
    ],
)  # fmt: skip
def test_a_neuron_is_no_artefact(n_channels, times, size, gains):
    _, traces = background(n_channels)
    neuron(traces, times[times < SECONDS - 0.1], size * gains[n_channels])
    found = found_in(traces)
    assert len(found.table) == 0 and len(found.gaps) == 0 and not found.pulses


def test_a_wrong_scale_makes_no_artefact_of_a_neuron():
    _, traces = background(4)
    neuron(traces, IRREGULAR[IRREGULAR < SECONDS - 0.1], 150 * EQUAL[4])
    assert len(found_in(10 * traces).table) == 0


def test_spikes_of_many_neurons_at_once_are_no_artefact():
    rng, traces = background(4)
    moments = np.sort(rng.uniform(0.5, SECONDS - 0.5, 40))
    for gains in ([0.2, 1, 0.5, 0.4], [0.3, 0.2, 1, 0.7], [0.8, 0.3, 0.2, 1], [0.5, 0.9, 0.6, 0.2]):
        neuron(traces, moments + rng.uniform(0, 0.004, 40), 160 * np.array(gains))
    assert len(found_in(traces).table) == 0


@pytest.mark.parametrize("n_channels", [1, 4])
def test_short_movement_is_left_out_for_as_long_as_it_is_loud(n_channels):
    rng, traces = background(n_channels)
    begins = np.sort(rng.uniform(0.5, SECONDS - 0.5, 15))
    for begin in begins:
        m = int(0.005 * FS)
        shaken = np.convolve(rng.standard_normal(m + 4), np.ones(5) / np.sqrt(5), "valid") * np.hanning(m)
        traces[int(begin * FS) : int(begin * FS) + m] += 700 * shaken[:, None] * rng.uniform(0.8, 1.2, n_channels)
    found = found_in(traces)
    assert share_found(of_kind(found, "movement"), begins + 0.0025, 2.5) > 0.85
    assert np.diff(found.gaps).sum() / FS < 0.012 * len(begins)


def bursts(traces: np.ndarray, begins: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> None:
    """Add 1.5 to 2.5 ms of coloured noise at times in s, in place, each on all channels in nearly the same way."""
    for begin in begins:
        m = int(rng.uniform(0.0015, 0.0025) * FS)
        shaken = np.convolve(rng.standard_normal(m + 4), np.ones(5) / np.sqrt(5), "valid") * np.hanning(m)
        gains = sizes * rng.uniform(0.8, 1.2, len(sizes))
        traces[int(begin * FS) : int(begin * FS) + m] += shaken[:, None] * gains


@pytest.mark.parametrize("sizes", [[700.0], [700.0] * 4, [0.0, 700.0, 0.0, 0.0]], ids=["wire", "all", "one channel"])
@pytest.mark.parametrize("number", [15, 200])
def test_movement_as_short_as_a_spike_does_not_repeat(sizes, number):
    rng, traces = background(len(sizes))
    begins = np.arange(number) * (SECONDS - 1) / number + rng.uniform(0.1, 0.15, number)
    bursts(traces, begins, np.array(sizes), rng)
    found = found_in(traces)
    assert not found.pulses
    assert share_found(of_kind(found, "movement"), begins + 0.001, 1.5) > 0.9
    assert np.diff(found.gaps).sum() / FS < 0.006 * number


def test_clicks_of_any_shape_are_left_out():
    rng, traces = background(4)
    clicks, fades = np.arange(8) * 2.3 + 0.7, []
    for at in clicks:
        fades.append(fade := rng.uniform(0.2, 2.0))
        size = rng.uniform(2000, 6000) * rng.choice([-1, 1])
        neuron(
            traces, np.array([at]), size * EQUAL[4], shape=lambda ms, fade=fade: np.where(ms >= 0, np.exp(-ms / fade), 0.0)
        )
    found = found_in(traces)
    assert share_found(found.table, clicks) == 1.0 and len(found.table) <= 10
    alone = found.table[(found.table["kind"] != KINDS.index("pulse")) & (found.table["sample"] >= 0)]
    which = np.abs(alone["sample"][:, None] / FS - clicks).argmin(axis=1)
    assert len(alone) and np.all(alone["stop"] / FS - clicks[which] > 4e-3 * np.array(fades)[which])
    assert np.diff(found.gaps).sum() / FS < 0.15


def test_the_signs_are_told_with_the_way_out():
    rng, traces = background(4)
    neuron(traces, PERIODIC, 300 * EQUAL[4], shape=rounded)
    recording = recording_from_array(traces.astype(np.float32), FS)
    said = " ".join(told(find_artefacts(recording, PreprocessConfig(), Observer()), recording))
    assert "strict period" in said and "edge" not in said and "size" not in said
    assert "if this is a neuron: --no-find-artefacts" in said
    bursts(traces, np.array([3.0, 3.004, 9.0]), 700 * np.ones(4), rng)
    recording = recording_from_array(traces.astype(np.float32), FS)
    said = told(find_artefacts(recording, PreprocessConfig(), Observer()), recording)
    assert said[1].startswith("2 stretches") and "movement" in said[1]


def test_given_times_are_subtracted_without_being_recognised():
    _, traces = background(4)
    without = traces.copy()
    neuron(traces, IRREGULAR[IRREGULAR < SECONDS], 80 * EQUAL[4], 1.0, rounded)
    triggers = np.round(IRREGULAR[IRREGULAR < SECONDS] * FS).astype(np.int64)
    assert not found_in(traces).pulses
    found = found_in(traces, triggers)
    assert len(found.pulses) == 1
    left = found.without_pulses(recording_from_array(traces.astype(np.float32), FS)).traces(0, len(traces)) - without
    about = triggers[5:-5, None] + np.arange(-20, 60)
    fast = left[about] - left[about].mean(axis=1, keepdims=True)
    assert np.abs(np.mean(fast, axis=0)).max() < 0.15 * 80
    nothing = found_in(without, triggers)
    assert not nothing.pulses and len(nothing.gaps) == 0


def test_intervals_are_equal_to_a_clock_only():
    rng = np.random.default_rng(0)
    strict = np.arange(100) * 2857.3
    assert equal_intervals(np.round(strict).astype(np.int64), FS) > 0.95
    assert equal_intervals(np.sort(np.round(TRAINS * FS).astype(np.int64)), FS) > 0.9
    for jitter_ms in (0.08, 0.3, 3.0):
        jittered = np.sort(np.round(strict + jitter_ms * FS / 1000 * rng.standard_normal(100)).astype(np.int64))
        assert equal_intervals(jittered, FS) < 0.5, jitter_ms
    assert equal_intervals(np.sort(rng.integers(0, 10**6, 5000)), FS) < 0.05
    assert period_of(np.round(strict).astype(np.int64), FS) == pytest.approx(2857.3 / FS, rel=1e-4)
    assert period_of(np.sort(rng.integers(0, 10**6, 50)), FS) is None


def test_pulses_are_subtracted_from_any_stretch():
    rng = np.random.default_rng(0)
    samples = np.array([3, 60, 200, 290])
    template = rng.standard_normal((30, 2)).astype(np.float32)
    pulses = Pulses(
        template, np.gradient(template, axis=0), 10, samples, np.array([1.0, 0.5, 2.0, 1.0]), np.array([0, 0.1, 0, 0])
    )
    whole = np.zeros((300, 2))
    pulses.subtract(whole, 0)
    assert np.allclose(whole[50:80], -(0.5 * template + 0.1 * np.gradient(template, axis=0)))
    assert np.allclose(whole[280:300], -template[:20]) and np.allclose(whole[:23], -template[7:])
    for start in range(0, 300, 7):
        part = np.zeros((20, 2))[: 300 - start]
        pulses.subtract(part, start)
        assert np.allclose(part, whole[start : start + 20])
    recording = recording_from_array(np.ones((300, 2), np.float32), FS, pulses=(pulses,))
    assert np.allclose(recording.select([1]).traces(50, 90)[:, 0], 1 + whole[50:90, 1])


def test_artefacts_come_back_as_they_were():
    _, traces = background(1)
    neuron(traces, PERIODIC, np.array([3000.0]), 1.0, biphasic)
    found = found_in(traces)
    back = Artefacts.of_dict(found.to_dict())
    assert np.array_equal(back.table, found.table, equal_nan=False) or np.array_equal(
        back.table.tobytes(), found.table.tobytes()
    )
    assert np.array_equal(back.gaps, found.gaps)
    assert np.array_equal(back.pulses[0].gain, found.pulses[0].gain)


def test_events_of_a_dead_channel_are_none():
    traces = np.zeros((1000, 2), np.float32)
    traces[:, 0] = np.random.default_rng(0).standard_normal(1000)
    traces[500, 0] = 40
    events = find_events(traces, np.ones(1000, bool), np.ones((50, 2)), slice(0, 1000), 10_000, FS)
    assert events.sample.tolist() == [10_500] and events.channel.tolist() == [0]


# ---- neurons that answer pulses, through sort

QUICK = Config().with_values({"train": {"epochs": 3}, "runtime": {"device": "cpu"}})


def tailed(tau: float) -> Callable[[np.ndarray], np.ndarray]:
    """A pulse with a tail of time constant tau in ms."""
    return lambda ms: biphasic(ms) + np.where(ms >= 0.6, 0.3 * np.exp(-(ms - 0.6) / tau) - 0.2 * np.exp(0.6 - ms), 0)


def part_found(unit: np.ndarray, times: np.ndarray) -> float:
    """Smaller one of the parts of a unit's samples and of the true times that lie within 0.4 ms of each other."""
    apart = np.abs(unit[:, None] - times * FS)
    return float(min((apart.min(axis=0) < 8).mean(), (apart.min(axis=1) < 8).mean())) if len(unit) else 0.0


def answering(
    lag_ms: float, jitter_ms: float, probability: float, shape=biphasic, n_times: int = 330
) -> tuple[np.ndarray, np.ndarray]:
    """Traces with pulses at IRREGULAR times, and the times in s at which a neuron answers them."""
    rng, traces = background(4, seed=3)
    times = IRREGULAR[IRREGULAR < SECONDS - 0.4]
    neuron(traces, times, 3000 * EQUAL[4], 1 + 0.02 * rng.standard_normal(len(times)), shape, n_times)
    answered = times[rng.random(len(times)) < probability]
    answered = answered + (lag_ms + jitter_ms * rng.standard_normal(len(answered))) / 1000
    neuron(traces, answered, 150 * np.array([0.5, 0.4, 1.0, 0.7]))
    return traces, answered


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lag_ms", "jitter_ms", "probability", "shape"),
    [
        (5, 0.5, 0.95, biphasic),
        (5, 0.2, 1.0, biphasic),
        (1.8, 0.2, 0.9, biphasic),
        (4, 0.1, 0.95, biphasic),
        (6, 1.0, 0.6, tailed(3)),
        (6, 0.5, 0.9, tailed(20)),
    ],
)
def test_a_neuron_that_answers_pulses_is_a_unit(lag_ms, jitter_ms, probability, shape):
    traces, answered = answering(lag_ms, jitter_ms, probability, shape, 2000)
    sorting = sort_group(recording_from_array(traces.astype(np.float32), FS), QUICK).sorting
    parts = [
        part_found(sorting.spikes["sample"][sorting.spikes["unit"] == unit], answered) for unit in range(sorting.n_units)
    ]
    assert max(parts) > 0.95
    assert sorting.units["label"][int(np.argmax(parts))] != "artefact"
    assert np.diff(sorting.excluded).sum() / FS < 0.0015 * len(IRREGULAR)


@pytest.mark.slow
def test_nothing_is_blanked_beside_what_is_asked_for(tmp_path):
    traces, answered = answering(5, 0.5, 0.95, tailed(20), 2000)
    times = IRREGULAR[IRREGULAR < SECONDS - 0.4]
    (tmp_path / "t.csv").write_text("time_s\n" + "\n".join(f"{time:.6f}" for time in times))
    config = QUICK.with_values({"preprocess": {"triggers": str(tmp_path / "t.csv"), "blank_ms": "-0.5,3"}})
    sorting = sort_group(recording_from_array(traces.astype(np.float32), FS), config).sorting
    assert np.diff(sorting.excluded).sum() / FS == pytest.approx(0.0035 * len(times), rel=0.02)
    assert (
        max(part_found(sorting.spikes["sample"][sorting.spikes["unit"] == k], answered) for k in range(sorting.n_units))
        > 0.95
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tau", "times"), [(20, PERIODIC[::2]), (10, IRREGULAR), (5, TRAINS[np.arange(len(TRAINS)) % 10 < 5])]
)
def test_a_long_tail_makes_no_unit(tau, times):
    _, traces = background(4)
    neuron(traces, times[times < SECONDS - 0.3], 3000 * EQUAL[4], 1.0, tailed(tau), 2000)
    sorting = sort_group(recording_from_array(traces.astype(np.float32), FS), QUICK).sorting
    assert sorting.n_units == 1
