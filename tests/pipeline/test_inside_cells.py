"""Signal from inside a cell is refused in a short time, with the reason; large spikes outside one are not."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
from helpers.command_line import spikecrsae

from spikecrsae.config import Config
from spikecrsae.data.recording import recording_from_array
from spikecrsae.errors import InputError
from spikecrsae.pipeline.groups import sort
from spikecrsae.readers.intracellular import refuse_inside_cell

FS = 20_000.0
LAG_MS = np.arange(-60, 160) / 20.0


def spikes(seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Samples of some 17 spikes per second."""
    found = np.cumsum(rng.integers(600, 1800, int(40 * seconds)))
    return found[(found > 100) & (found < seconds * FS - 200)]


def action_potential(width: float = 0.3, after: float = 0.2, delay: float = 1.2) -> np.ndarray:
    """A peak of 1 with an afterhyperpolarisation, (220,)."""
    return np.exp(-0.5 * (LAG_MS / width) ** 2) - after * np.exp(-0.5 * ((LAG_MS - delay) / 0.5) ** 2)


def whole_cell(seconds: float = 10.0, rest_mv: float = -65.0, height_mv: float = 80.0, seed: int = 0) -> np.ndarray:
    """A membrane potential in uV, (n_samples, 1): current steps, synaptic potentials, action potentials."""
    rng = np.random.default_rng(seed)
    n = int(seconds * FS)
    synaptic = np.convolve(rng.standard_normal(n), np.exp(-np.arange(800) / 200), "same") * 0.05
    steps = 5.0 * (np.arange(n) // int(FS / 2) % 4 == 1)
    trace = rest_mv + synaptic + steps + 0.03 * rng.standard_normal(n)
    for spike in spikes(seconds, rng):
        trace[spike - 60 : spike + 160] += height_mv * rng.uniform(0.8, 1.0) * action_potential(rng.uniform(0.25, 0.5))
    return 1000 * trace[:, None]


def large_spikes(seconds: float, height: float, changing: bool, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """One neuron's spikes, so many times the noise, of a shape that changes each time or never: traces (n_samples, 1), samples."""
    rng = np.random.default_rng(seed)
    trace, true = rng.standard_normal((int(seconds * FS), 1)), spikes(seconds, rng)
    for spike in true:
        shape = action_potential(*rng.uniform([0.15, 0.1, 0.4], [0.6, 0.5, 2.0])) if changing else action_potential()
        trace[spike - 60 : spike + 160, 0] += height * shape
    return trace.astype(np.float32), true


def test_a_membrane_potential_is_refused_with_the_reason_and_what_to_do(tmp_path):
    path = tmp_path / "cell.h5"
    with h5py.File(path, "w") as file:
        file["traces"] = whole_cell(5.0) / 1000
        file["traces"].attrs.update(sampling_frequency=FS, units="mV")
    result = spikecrsae("sort", path)
    assert result.exit_code == 3
    for words in ("channel 0 is recorded inside a cell", "rests at -6", "--truth-channel", "--units 1"):
        assert words in result.stderr
    assert not (tmp_path / "cell.h5.sorted").exists()
    assert spikecrsae("sort", path, "--units", 1).exit_code == 0


def test_the_channel_inside_the_cell_is_named():
    traces = np.hstack([5 * np.random.default_rng(1).standard_normal((200_000, 2)), whole_cell()])
    with pytest.raises(InputError, match="channel 2 is recorded inside a cell"):
        refuse_inside_cell(recording_from_array(traces, FS))


@pytest.mark.parametrize(
    ("rest_mv", "height_mv", "unit"),
    [(-65.0, 0.3, "uV"), (0.0, 80.0, "uV"), (-65.0, 0.0, "uV"), (-65.0, 80.0, "ADC")],
    ids=["small spikes on an offset", "large ones without", "no spikes", "no known scale"],
)
def test_what_may_be_outside_a_cell_passes(rest_mv, height_mv, unit):
    refuse_inside_cell(recording_from_array(whole_cell(4.0, rest_mv, height_mv), FS, amplitude_unit=unit))


def test_large_spikes_that_change_their_shape_are_refused_where_no_scale_is_known():
    traces, _ = large_spikes(6.0, 3000, changing=True)
    with pytest.raises(InputError, match=r"change their shape too much .* inside a cell .* --units 1"):
        sort(recording_from_array(traces, FS, amplitude_unit="ADC"), Config().with_settings(find_artefacts=False))


def test_large_spikes_of_one_shape_are_sorted():
    """As beside a cell: their tails, which the template does not hold, are units at first."""
    traces, true = large_spikes(6.0, 100, changing=False)
    sorting = sort(recording_from_array(traces, FS, amplitude_unit="ADC"), Config()).sorting
    assert sorting.n_units == 1
    found = sorting.spikes["sample"]
    assert len(found) == len(true) and np.ptp(found - true) <= 1
