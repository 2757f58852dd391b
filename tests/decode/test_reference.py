"""Spikes of the reference electrode are no neuron's, and a neuron midway between the contacts is one."""

from __future__ import annotations

import numpy as np
import pytest

from spikecrsae.config import Config
from spikecrsae.data.peaks import Peaks
from spikecrsae.data.recording import recording_from_array
from spikecrsae.decode.reference import LARGEST_DIFFERENCE, common_noise, reference_match
from spikecrsae.pipeline.sort import sort_group

FS, SECONDS = 20_000.0, 20


def spikes(traces: np.ndarray, rate: float, gains: list[float], rng: np.random.Generator, width: float = 0.15) -> np.ndarray:
    """Add a neuron's spikes to traces (n_samples, n_channels), in uV; returns their samples."""
    samples = np.cumsum(60 + rng.exponential(FS / rate, int(2 * rate * SECONDS)).astype(np.int64))
    samples = samples[samples < len(traces) - 100]
    time = np.arange(-20, 60) / FS * 1000
    wave = -np.exp(-((time / width) ** 2)) + 0.4 * np.exp(-(((time - 0.5) / (2 * width)) ** 2))
    for sample in samples:
        traces[sample - 20 : sample + 60] += np.outer(wave, gains)
    return samples


def tetrode(reference_uv: float, seed: int, midway: bool) -> tuple[np.ndarray, np.ndarray]:
    """20 s of a tetrode, (n_samples, 4) in uV, and the samples of what is alike on all channels: the spikes of a reference as loud as
    that, or those of a neuron midway between the contacts."""
    rng = np.random.default_rng(seed)
    traces = 10 * rng.standard_normal((int(FS * SECONDS), 4))
    spikes(traces, 12, [120, 60, 40, 30], rng)
    spikes(traces, 8, [20, 30, 50, 110], rng, 0.2)
    if midway:
        alike = spikes(traces, 10, (90 * rng.uniform(0.95, 1.05, 4)).tolist(), rng, 0.18)
    else:
        reference = reference_uv * rng.standard_normal((len(traces), 1))
        alike = spikes(reference, 10, [-4 * reference_uv], rng, 0.18)
        traces -= reference
    return traces.astype(np.float32), alike


def label_of(sorting, samples: np.ndarray) -> str | None:
    """The label of the unit that fires at these samples; None where there is none."""
    for unit, label in zip(sorting.unit_ids, sorting.units["label"], strict=True):
        found = sorting.spike_samples(unit)
        if np.mean(np.abs(found[:, None] - samples).min(axis=1) < 20) > 0.8:
            return label
    return None


@pytest.mark.slow
@pytest.mark.parametrize(("uv", "seed"), [(60, 0), (25, 1)])
def test_spikes_of_the_reference_are_an_artefact_and_it_is_said(uv, seed):
    traces, alike = tetrode(uv, seed, midway=False)
    outcome = sort_group(recording_from_array(traces, FS), Config())
    assert label_of(outcome.sorting, alike) == "artefact"
    assert sorted(outcome.sorting.units["label"]) == ["artefact", "single", "single"]
    assert any("the same on every channel" in text and "--common-reference" in text for text in outcome.warnings)
    referenced = sort_group(recording_from_array(traces, FS), Config().with_settings(common_reference="median"))
    assert label_of(referenced.sorting, alike) is None
    assert "artefact" not in referenced.sorting.units["label"]


@pytest.mark.slow
def test_a_neuron_midway_between_the_contacts_keeps_its_label():
    traces, alike = tetrode(0, 2, midway=True)
    outcome = sort_group(recording_from_array(traces, FS), Config())
    assert label_of(outcome.sorting, alike) == "single"
    said = [text for text in outcome.warnings if "the same on all channels" in text]
    assert len(said) == 1 and "may be a neuron" in said[0]
    names = said[0].removeprefix("unit ").split(":")[0]
    assert np.abs(outcome.sorting.spike_samples(int(names))[:, None] - alike).min(axis=1).mean() < 20


def test_the_common_noise_is_told_from_what_each_channel_has_of_its_own():
    """Against the factor model that the covariance was made of."""
    gains, own = np.array([3.0, 2.0, 1.0, 0.5]), np.array([1.0, 4.0, 1.0, 9.0])
    covariance = np.outer(gains, gains) + np.diag(own)
    values, vectors = np.linalg.eigh(covariance)
    found, part = common_noise((vectors / np.sqrt(values)) @ vectors.T)
    np.testing.assert_allclose(found, gains / np.sqrt(np.diag(covariance)), atol=1e-6)
    np.testing.assert_allclose(part, gains**2 / np.diag(covariance), atol=1e-6)


def test_one_channel_says_nothing_and_noise_of_their_own_speaks_for_the_unit():
    assert np.isnan(reference_match([np.ones((100, 30, 1))], np.ones(1), np.eye(1))).all()
    assert reference_match([np.ones((100, 30, 4))], np.ones(4), np.eye(4)).tolist() == [0.0]


@pytest.mark.parametrize(("n_channels", "difference", "labelled"), [(2, 0.025, False), (2, 0.0, False), (4, 0.025, True)])
def test_a_small_difference_says_little_on_two_channels(n_channels, difference, labelled):
    """Noise hides a difference of 2.5 %. A neuron between two contacts is often as alike; between four it is not."""
    rng = np.random.default_rng(0)
    wave = -6 * np.exp(-0.5 * ((np.arange(40) - 15) / 3.0) ** 2)[:, None]
    tilt = np.resize([1 + difference, 1 - difference], n_channels)
    windows = wave * tilt + rng.standard_normal((300, 40, 1)) + 0.5 * rng.standard_normal((300, 40, n_channels))
    values, vectors = np.linalg.eigh(np.ones((n_channels, n_channels)) + 0.25 * np.eye(n_channels))
    (match,) = reference_match([windows], np.full(n_channels, 1.25**0.5), (vectors / np.sqrt(values)) @ vectors.T)
    assert (match > 1 - LARGEST_DIFFERENCE**2) == labelled


@pytest.mark.slow
@pytest.mark.parametrize("how", ["mean", "median"])
def test_a_common_reference_makes_no_neurons_of_what_it_leaves(how):
    """The median of four channels leaves a little of the noise that they share, far from normal: it must not be whitened."""
    traces, _ = tetrode(60, 3, midway=False)
    sorting = sort_group(recording_from_array(traces, FS), Config().with_settings(common_reference=how)).sorting
    assert sorting.n_units == 2


@pytest.mark.parametrize("gain", [1.0, 10.0])
def test_peaks_follow_the_template_in_units_of_noise(gain):
    """A channel that is only louder, signal and noise alike, or only noise, decides nothing."""
    rng = np.random.default_rng(0)
    templates = rng.standard_normal((5, 4, 40))
    noise_level = np.array([1.0, 2.0, 1.0, 3.0])
    plain = Peaks.of(templates, noise_level)
    scale = np.array([1.0, gain, 1.0, 1.0])
    scaled = Peaks.of(templates * scale[:, None], noise_level * scale)
    assert scaled.channel.tolist() == plain.channel.tolist() and scaled.index.tolist() == plain.index.tolist()
    np.testing.assert_allclose(scaled.size, plain.size * scale[plain.channel])
    masked = Peaks.of(templates, np.array([1.0, np.nan, 1.0, 3.0]))
    assert 1 not in masked.channel
