"""The two trade-off curves: a threshold on each spike's amplitude, or on the unit's component as in the paper (Sec. VII-B)."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from helpers.command_line import spikecrsae
from helpers.sortings import FS, make_sorting, write_result

from spikecrsae.cli.score import score
from spikecrsae.data.sorting import SPIKE_DTYPE, SortingData
from spikecrsae.errors import InputError, UsageError
from spikecrsae.score import CURVES, best_match_curves, compare, component_spikes
from spikecrsae.simulate import preset_config, simulate


def with_spikes(samples, amplitudes, unit=0, **changes) -> SortingData:
    """Unit `unit` of a sorting of three, whose troughs are about 5 samples wide, with these spikes only."""
    spikes = np.zeros(len(samples), SPIKE_DTYPE)
    spikes["sample"], spikes["amplitude"], spikes["unit"] = samples, amplitudes, unit
    return make_sorting(**{"spikes": spikes} | changes)


def test_spikes_apart_are_those_of_the_sorting():
    sorting = make_sorting()
    for unit in sorting.unit_ids:
        mine = sorting.spikes[sorting.spikes["unit"] == unit]
        samples, heights = component_spikes(sorting, unit)
        np.testing.assert_array_equal(samples, mine["sample"])
        np.testing.assert_allclose(heights, mine["amplitude"], rtol=1e-6)


def test_both_curves_of_spikes_apart_agree_to_the_spike():
    sorting = make_sorting()
    known = {"n": np.sort(np.r_[sorting.spike_samples(1)[::2], 350])}
    comparison = compare(known, sorting.trains(), FS)
    amplitude, component = (best_match_curves(comparison, known, sorting, kind)["n"] for kind in CURVES)
    np.testing.assert_array_equal(component.misses, amplitude.misses)
    np.testing.assert_array_equal(component.false_alarms, amplitude.false_alarms)
    np.testing.assert_allclose(component.threshold, amplitude.threshold, rtol=1e-6)
    assert (amplitude.kind, component.kind) == CURVES
    assert (amplitude.misses[0], amplitude.false_alarms[0]) == (1, 15)


def test_two_codes_of_one_spike_are_one_spike_of_their_sum():
    """l1 codes put a spike between two samples on both of them."""
    samples, heights = component_spikes(with_spikes([1000, 1001, 2000], [60.0, 40.0, 90.0]), 0)
    assert samples.tolist() == [1000, 2000]
    slope = np.exp(-0.5 * (1 / 2) ** 2)  # of the trough, one sample away
    assert heights[0] == pytest.approx(60 + 40 * slope, rel=0.01) and heights[1] == pytest.approx(90)


def test_the_later_spike_of_a_burst_stands_on_the_tail_of_the_first():
    # the rebound, 0.3 of the trough, is 9 samples later
    samples, heights = component_spikes(with_spikes([1000, 1009, 2000, 2009], [100.0, 80.0, 100.0, 20.0]), 0)
    assert abs(samples[:2] - [1000, 1009]).max() <= 1
    assert heights[1] == pytest.approx(80 - 30, rel=0.05)
    assert samples[2:].tolist() == [2000], "a spike that the rebound cancels passes no threshold"


def test_a_code_of_the_opposite_sign_is_no_spike():
    samples, heights = component_spikes(with_spikes([1000, 2000], [90.0, -80.0]), 0)
    np.testing.assert_array_equal(samples, [1000])
    np.testing.assert_allclose(heights, [90.0], rtol=1e-6)


def test_the_component_is_that_of_the_peak_channel_in_units_of_noise():
    made = make_sorting(n_channels=2)
    level = made.channels | {
        "noise_level": np.array([50.0, 1.0])
    }  # half the size on channel 1, and it stands out of less noise
    sorting = replace(made, channels=level)
    mine = sorting.spikes["unit"] == 0
    sorting.spikes["amplitude"][mine] /= 2
    assert sorting.peaks.channel[0] == 1
    np.testing.assert_allclose(component_spikes(sorting, 0)[1], sorting.spikes["amplitude"][mine], rtol=1e-6)


def test_the_component_of_each_channel_is_the_one_that_is_written():
    """Against the whole separated signal, on a simulated bursting neuron whose spikes overlap."""
    sorting = simulate(preset_config("tetrode", n_units=1, n_bursting=1, duration_s=5.0, seed=1)).truth
    channel, index = sorting.peaks.channel[0], sorting.peaks.index[0]
    whole = sorting.reconstruction(0, sorting.n_samples, [0])[:, channel] * np.sign(sorting.templates[0, channel, index])
    samples, heights = component_spikes(sorting, 0)
    np.testing.assert_allclose(heights, whole[samples], rtol=1e-4)
    assert np.all(whole[samples] >= np.maximum(whole[samples - 1], whole[samples + 1]))
    assert 0.9 * len(sorting.spikes) < len(samples) <= len(sorting.spikes)


def test_errors():
    sorting = make_sorting()
    known = sorting.trains()
    comparison = compare(known, known, FS)
    with pytest.raises(UsageError, match="componant does not exist; did you mean component"):
        best_match_curves(comparison, known, sorting, "componant")
    bare = replace(sorting, templates=sorting.templates[:0], peak_index=sorting.peak_index[:0])
    with pytest.raises(InputError, match="no template of unit 0"):
        component_spikes(bare, 0)
    assert best_match_curves(comparison, known, bare).keys() == known.keys(), "amplitudes need no template"


def test_the_command_line_writes_either_curve(tmp_path):
    sorting = with_spikes([1000, 1001, 2000, 3000], [60.0, 40.0, 90.0, 80.0])
    folder = write_result(tmp_path / "result", sorting, {"spikecrsae": "test"})
    (tmp_path / "truth.csv").write_text("sample\n1000\n2000\n")
    points = {}
    for kind in CURVES:
        result = spikecrsae("score", folder, "--truth", tmp_path / "truth.csv", "--curve", kind)
        assert result.exit_code == 0, result.stderr
        rows = list(csv.DictReader((folder / "tradeoff.csv").read_text().splitlines()))
        assert {row["curve"] for row in rows} == {kind}
        points[kind] = [(float(row["miss"]), float(row["false_alarm"])) for row in rows]
    # the spike in two parts is one in the component, and the largest
    assert points["amplitude"][0] == (0.0, 0.5) and points["component"][0] == pytest.approx((0.0, 1 / 3), abs=1e-6)
    assert points["component"][1] == (0.0, 0.0) and (0.0, 0.0) not in points["amplitude"]
    refused = spikecrsae("score", folder, "--truth", tmp_path / "truth.csv", "--curve", "area")
    assert refused.exit_code == 2 and "'area' is not one of 'amplitude', 'component'" in refused.stderr


def test_the_words_of_the_option_are_those_of_the_library():
    (option,) = (one for one in score.params if one.name == "curve")
    assert tuple(option.type.choices) == CURVES
