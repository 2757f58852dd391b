"""Sorting from end to end: accuracy on known spikes, and what must hold of every result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.command_line import spikecrsae

from spikecrsae.config import Config
from spikecrsae.data.recording import recording_from_array
from spikecrsae.errors import InputError
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.preprocess.preprocessor import PreprocessedRecording, Preprocessor
from spikecrsae.results.folder import read_sorting
from spikecrsae.score import compare
from spikecrsae.simulate import preset_config, simulate, write_simulation

pytestmark = pytest.mark.slow

QUICK = {"train": {"epochs": 5}, "runtime": {"device": "cpu"}}


def config(**values) -> Config:
    return Config().with_values(QUICK).with_values(values)


def tetrode(**values):
    given = {
        "n_units": 3,
        "n_bursting": 0,
        "duration_s": 15.0,
        "seed": 4,
        "snrs": (14.0, 11.0, 9.0),
        "rates_hz": (12.0, 18.0, 15.0),
    }
    return simulate(preset_config("tetrode", **given | values))


def accuracies(simulation, sorting) -> np.ndarray:
    """Accuracy of every true unit, one to one."""
    return np.array(
        [row.accuracy for row in compare(simulation.truth.trains(), sorting.trains(), sorting.sampling_frequency).rows]
    )


@pytest.fixture(scope="module")
def simulation():
    return tetrode()


@pytest.fixture(scope="module")
def outcome(simulation):
    return sort_group(simulation.recording(), config())


@pytest.fixture(scope="module")
def files(simulation, tmp_path_factory) -> Path:
    """A folder with tetrode.h5 and its result `first`, by the command line, with components."""
    folder = tmp_path_factory.mktemp("files")
    write_simulation(simulation, folder / "tetrode.h5")
    result = spikecrsae(
        "sort",
        folder / "tetrode.h5",
        "-o",
        folder / "first",
        "--epochs",
        5,
        "--device",
        "cpu",
        "--quiet",
        "--save-components",
    )
    assert result.exit_code == 0, result.stderr
    return folder


# ---- accuracy


def test_a_tetrode_is_sorted(simulation, outcome):
    assert outcome.sorting.n_units == 3
    assert accuracies(simulation, outcome.sorting).min() > 0.95


def test_a_single_channel_is_sorted():
    simulation = tetrode(n_channels=1, n_units=2, snrs=(14.0, 9.0), rates_hz=(12.0, 15.0))
    sorting = sort_group(simulation.recording(), config()).sorting
    assert sorting.n_units == 2
    assert accuracies(simulation, sorting).min() > 0.9


def test_a_mirror_image_is_sorted_as_well(simulation):
    mirrored = replace(simulation, traces=-simulation.traces)
    sorting = sort_group(mirrored.recording(), config()).sorting
    assert sorting.n_units == 3
    assert accuracies(simulation, sorting).min() > 0.95


@pytest.mark.parametrize(
    ("values", "least"),
    [
        ({"infer": {"prior": "laplace"}}, 0.9),
        ({"train": {"shrinkage": "two-sided"}}, 0.95),
        ({"infer": {"chunk_s": 0.4}}, 0.95),
    ],
    ids=["laplace", "two-sided", "small chunks"],
)
def test_other_settings_sort_as_well(simulation, values, least):
    sorting = sort_group(simulation.recording(), config(**values)).sorting
    assert accuracies(simulation, sorting).min() > least


@pytest.mark.parametrize(
    ("values", "precision"),
    [
        ({"train": {"method": "unrolled"}}, 0.95),
        ({"train": {"method": "unrolled", "shrinkage": "two-sided"}}, 0.95),
        # its codes stand at whole samples: what jitter leaves of large spikes passes for more of them
        ({"train": {"method": "unrolled", "shrinkage": "two-sided", "epochs": 4}, "infer": {"prior": "laplace"}}, 0.5),
        ({"train": {"max_windows": 0}}, 0.95),
    ],
    ids=["unrolled", "unrolled, two-sided", "unrolled laplace, two-sided", "no windows"],
)
def test_other_training_on_a_short_recording(values, precision):
    short = tetrode(duration_s=4.0)
    few = {"epochs": 2, "max_windows": 60, "n_iterations": 10, "batch_size": 4}
    settings = config(initialise={"units": 3}).with_values({"train": few}).with_values(values)
    outcome = sort_group(short.recording(), settings)
    sorting = outcome.sorting
    for row in compare(short.truth.trains(), sorting.trains(), sorting.sampling_frequency).rows:
        assert row.recall > 0.95 and row.precision > precision
    for unit, amplitude in enumerate(sorting.units["amplitude"]):
        # a template is as large as its mean spike
        some = sorting.spikes["amplitude"][sorting.spikes["unit"] == unit]
        assert np.median(some) == pytest.approx(amplitude, rel=0.15)
    assert outcome.checkpoint["crsae"]["sigma"] > 0
    assert np.isfinite(sorting.model["sigma"]).all()
    for name in outcome.checkpoint["crsae"]["prior"]["parameters"]:
        assert (sorting.model[name] > 0).all()
        np.testing.assert_array_less(0, sorting.model[f"{name}_history"][-1])


@pytest.mark.parametrize("n_units", [1, 2, 3])
def test_a_given_number_of_units_is_kept(simulation, n_units):
    assert sort_group(simulation.recording(), config(initialise={"units": n_units})).sorting.n_units == n_units


# ---- what a result says


def test_the_reported_sample_is_the_largest_deflection(outcome):
    sorting = outcome.sorting
    for unit, template in enumerate(sorting.templates):
        assert np.abs(template).max(axis=0).argmax() == sorting.peak_index[unit]
        assert np.abs(template).max(axis=1).argmax() == sorting.units["peak_channel"][unit]
        assert sorting.units["amplitude"][unit] == pytest.approx(np.abs(template).max())


def test_templates_and_amplitudes_are_in_microvolts(simulation, outcome):
    sorting, truth = outcome.sorting, simulation.truth
    comparison = compare(truth.trains(), sorting.trains(), sorting.sampling_frequency)
    assert sorting.amplitude_unit == "uV"
    view = PreprocessedRecording(simulation.recording(), Preprocessor(**outcome.checkpoint["preprocessor"]))
    filtered = view.highpassed(0, view.n_samples)
    for name, found in comparison.one_to_one.items():
        unit = int(found)
        mine = truth.spike_samples(int(name))
        mine = mine[(mine > 100) & (mine < view.n_samples - 100)]
        peak = np.abs(filtered[mine[:, None] + np.arange(-2, 3)].mean(axis=0)).max()
        assert sorting.units["amplitude"][unit] == pytest.approx(peak, rel=0.08)
        spikes = sorting.spikes["amplitude"][sorting.spikes["unit"] == unit]
        assert spikes.mean() == pytest.approx(peak, rel=0.08)


def test_spikes_are_reported_at_their_true_samples(simulation, outcome):
    truth, sorting = simulation.truth, outcome.sorting
    for name, found in compare(truth.trains(), sorting.trains(), sorting.sampling_frequency).one_to_one.items():
        distance = np.abs(truth.spike_samples(int(name))[:, None] - sorting.spike_samples(int(found))[None]).min(axis=1)
        assert np.median(distance) <= 1


def test_a_flat_channel_is_left_out_and_the_others_keep_their_numbers(simulation):
    traces = simulation.traces.copy()
    traces[:, 1] = 7
    outcome = sort_group(replace(simulation, traces=traces).recording(), config())
    sorting = outcome.sorting
    assert sorting.n_channels == 4
    assert not sorting.templates[:, 1].any()
    assert not (sorting.units["peak_channel"] == 1).any()
    assert sorting.channels["masked"].tolist() == [False, True, False, False]
    assert ["flat" in text for text in outcome.warnings] == [True]
    assert accuracies(simulation, sorting).max() > 0.95


# ---- components


def test_components_are_each_units_signal(files):
    sorting = read_sorting(files / "first")
    with h5py.File(files / "first" / "components.h5") as file:
        data = file["components"]
        assert data.shape == (sorting.n_units, sorting.n_samples, sorting.n_channels)
        assert data.attrs["units"] == "uV"
        for row, unit in enumerate(sorting.unit_ids):
            np.testing.assert_allclose(data[row, 1000:9000], sorting.reconstruction(1000, 9000, [unit]), atol=1e-3)


def test_components_explain_the_recording(files, simulation, outcome):
    """The high-passed recording less all components is noise: its level is the one measured where no spike is."""
    with h5py.File(files / "first" / "components.h5") as file:
        together = file["components"][:].sum(axis=0)
    preprocessor = Preprocessor(**outcome.checkpoint["preprocessor"])
    filtered = PreprocessedRecording(simulation.recording(), preprocessor).highpassed(0, len(together))
    np.testing.assert_allclose((filtered - together).std(axis=0), preprocessor.noise_level, rtol=0.06)


# ---- apply


def test_apply_gives_the_spikes_of_the_sorting(files):
    result = spikecrsae(
        "apply", files / "first", files / "tetrode.h5", "-o", files / "applied", "--quiet", "--device", "cpu"
    )
    assert result.exit_code == 0, result.stderr
    assert (files / "applied" / "spikes.csv").read_bytes() == (files / "first" / "spikes.csv").read_bytes()


def test_apply_refuses_other_channels(files):
    result = spikecrsae("apply", files / "first", files / "tetrode.h5", "--channels", "0-2", "-o", files / "wrong")
    assert result.exit_code == 3
    assert "3 channels" in result.stderr
    assert not (files / "wrong").exists()


def test_apply_refuses_what_is_no_model(files):
    result = spikecrsae("apply", files / "first" / "spikes.csv", files / "tetrode.h5", "-o", files / "wrong")
    assert result.exit_code == 3
    assert "not a model" in result.stderr


# ---- little to sort


def test_noise_has_no_unit():
    noise = 10 * np.random.default_rng(1).standard_normal((200_000, 4))
    sorting = sort_group(recording_from_array(noise.astype(np.float32), 20000.0), config()).sorting
    assert sorting.n_units == 0
    assert len(sorting.spikes) == 0


def test_a_recording_shorter_than_a_template_is_refused():
    with pytest.raises(InputError, match="too short"):
        sort_group(recording_from_array(np.random.default_rng(0).standard_normal((50, 1)), 20000.0), config())
