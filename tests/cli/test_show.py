"""spikecrsae show, and the pictures in text that it draws."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import click
import numpy as np
import pytest
from helpers.command_line import spikecrsae
from helpers.sortings import write_result

from spikecrsae.cli import console, sketch
from spikecrsae.results.folder import read_sorting
from spikecrsae.results.sorting_h5 import sorting_from_hdf5
from spikecrsae.simulate import preset_config, simulate


def show(*arguments):
    return spikecrsae("show", *arguments)


# ---- pictures


def test_a_sparkline_goes_from_the_lowest_to_the_highest_mark():
    assert sketch.sparkline(np.arange(8.0), 8, fine=True) == sketch.BLOCKS
    assert sketch.sparkline(np.arange(4.0), 4, fine=False) == sketch.STEPS


@pytest.mark.parametrize("fine", [True, False])
def test_a_sparkline_shows_a_peak_of_one_sample_wherever_it_is(fine):
    lowest = (sketch.BLOCKS if fine else sketch.STEPS)[0]
    for place in range(100):
        wave = np.zeros(100)
        wave[place] = -5.0
        line = sketch.sparkline(wave, 12, fine)
        assert len(line) == 12
        assert line.count(lowest) == 1


@pytest.mark.parametrize("fine", [True, False])
def test_pictures_of_nothing_and_of_few_values_have_their_size(fine):
    assert len(sketch.sparkline(np.zeros(40), 10, fine)) == 10
    assert len(sketch.sparkline(np.array([1.0, 2.0]), 10, fine)) == 10
    assert [len(line) for line in sketch.curve(np.zeros(40), 20, 3, 0.0, 0.0, fine)] == [20] * 3
    assert sketch.histogram([0, 0], 2, fine) == ["  ", "  "]


def dots(line: str) -> np.ndarray:
    """The dots of a line of braille, (4, 2 len(line))."""
    masks = [[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]]
    return np.array([[ord(c) - 0x2800 & bit > 0 for c in line for bit in row] for row in masks])


def test_a_curve_in_braille_is_the_curve():
    wave = -np.exp(-((np.arange(60) - 30.0) ** 2) / 20)
    lines = sketch.curve(wave, 30, 5, -1.0, 0.0, fine=True)
    picture = np.concatenate([dots(line) for line in lines])
    assert picture.shape == (20, 60)
    # the lowest dot of each column follows the curve to within a dot where it falls, and it is joined without a gap
    lowest = 19 - picture[::-1].argmax(axis=0)
    np.testing.assert_allclose(lowest[:31], np.round(-wave[:31] * 19), atol=2)
    assert picture.any(axis=0).all()
    assert all(np.diff(np.flatnonzero(column)).max(initial=1) == 1 for column in picture.T)


def test_a_histogram_shows_every_count_and_the_tallest_in_full():
    lines = sketch.histogram([0, 1, 800], 3, fine=True)
    assert [line[2] for line in lines] == ["█"] * 3
    assert [line[1] for line in lines] == [" ", " ", "▁"]
    assert {line[0] for line in lines} == {" "}
    assert sketch.histogram([0, 1, 800], 2, fine=False) == ["  :", " .:"]


# ---- the command


def test_show_prints_the_table_that_sort_printed(short_sort):
    table, _, last = show(short_sort.folder).stdout.rstrip("\n").rpartition("\n")
    assert table == short_sort.stdout.rstrip("\n")
    sorting = read_sorting(short_sort.folder)
    assert last == f"{len(sorting.spikes)} spikes of {sorting.n_units} units in 8.0 s"
    for row in range(sorting.n_units):
        peak = int(sorting.units["peak_channel"][row])
        assert sketch.sparkline(sorting.templates[row, peak], 16, fine=True) in table


def test_show_reads_a_sorting_h5_too(short_sort):
    assert show(short_sort.folder / "sorting.h5").stdout == show(short_sort.folder).stdout


def test_show_as_json_has_every_unit_and_column(short_sort):
    document = json.loads(show(short_sort.folder, "--json").stdout)
    sorting = read_sorting(short_sort.folder)
    assert [unit["unit"] for unit in document["units"]] == sorting.unit_ids.tolist()
    assert [unit["n_spikes"] for unit in document["units"]] == sorting.units["n_spikes"].tolist()
    assert set(document["units"][0]) == {"unit", *sorting.units}


def test_a_unit_in_detail(short_sort):
    sorting = read_sorting(short_sort.folder)
    text = show(short_sort.folder, "--unit", 1).stdout
    lines = text.splitlines()
    assert lines[0] == f"unit 1, {sorting.units['n_spikes'][1]} spikes"
    for name in sorting.units:
        assert sum(line.split()[:1] == [name] for line in lines) == 1, name
    (rate,) = [line for line in lines if line.split()[:1] == ["firing_rate"]]
    assert rate.split()[1:] == [f"{sorting.units['firing_rate'][1]:.4g}", "Hz"]
    for channel in sorting.channels["ids"]:
        assert f"channel {channel}" in text


def test_a_unit_as_json_has_template_intervals_and_decisions(short_sort):
    sorting = read_sorting(short_sort.folder)
    document = json.loads(show(short_sort.folder, "--unit", 0, "--json").stdout)
    np.testing.assert_array_equal(np.float32(document["template"]), sorting.templates[0])
    intervals = np.diff(sorting.spike_samples(0)) / sorting.sampling_frequency * 1000
    assert sum(document["isi_histogram"]["counts"]) == np.sum(intervals <= 50)


def test_the_decisions_about_a_unit_are_shown_under_the_name_that_it_had(short_sort, tmp_path):
    sorting = read_sorting(short_sort.folder)
    sorting.units["curation_id"][:2] = 11, 12
    rows = (
        {"decision": "split", "units": [11, 30], "statistic": 5.25, "level": 3.0, "reason": "two modes"},
        {"decision": "remove", "units": [31], "statistic": None, "level": None},
    )
    folder = write_result(tmp_path / "decided", replace(sorting, curation=rows), {})
    text = show(folder, "--unit", 0).stdout
    assert "where it is unit 11" in text
    (line,) = [line for line in text.splitlines() if line.startswith(" split")]
    assert "11+30" in line and "5.25" in line and "reason two modes" in line
    assert "remove" not in text
    assert json.loads(show(folder, "--unit", 0, "--json").stdout)["curation"] == [rows[0]]
    assert "Decisions" not in show(folder, "--unit", 1).stdout


def test_a_unit_that_is_not_there_is_named(short_sort):
    result = show(short_sort.folder, "--unit", 77)
    assert result.exit_code == 2
    assert "--unit 77" in result.stderr and result.stderr.count("\n") == 1


def test_show_of_what_is_no_sorting_is_3(tmp_path):
    assert show(tmp_path).exit_code == 3


def test_a_sorting_without_units_is_shown(tmp_path):
    made = simulate(preset_config("tetrode", n_units=1, n_bursting=0, duration_s=2.0)).truth
    sorting = type(made)(made.spikes[:0], made.unit_ids[:0], 20000.0, made.n_samples, 4, "uV")
    folder = write_result(tmp_path / "none", sorting, {})
    result = show(folder)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "0 spikes of 0 units in 2.0 s\n"


def test_a_sorting_with_a_foreign_unit_table_is_shown(tmp_path):
    made = simulate(preset_config("tetrode", n_units=2, n_bursting=0, duration_s=4.0)).truth
    folder = write_result(tmp_path / "truth", made, {})
    assert sorting_from_hdf5(folder / "sorting.h5")[0].n_units == 2
    assert show(folder).exit_code == 0
    assert show(folder, "--unit", 1).exit_code == 0


@pytest.mark.parametrize("words", [[], ["--unit", "0"]])
def test_where_the_encoding_has_no_blocks_it_is_plain_ascii(short_sort, words):
    run = subprocess.run(
        [sys.executable, "-m", "spikecrsae", "show", str(short_sort.folder), *words],
        capture_output=True, env=_environment(PYTHONIOENCODING="ascii"), check=True,
    )  # fmt: skip
    text = run.stdout.decode("ascii")
    assert "template" in text


def _environment(**values) -> dict[str, str]:
    return {**os.environ, **values}


@pytest.mark.parametrize("width", [20, 60, 80, 100, 200])
def test_a_terminal_of_any_width_gets_every_number(short_sort, monkeypatch, width):
    """On a terminal rich takes the width from COLUMNS; the picture goes first, and nothing is ever cut off."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes the output for a terminal
    monkeypatch.setenv("TERM", "xterm")
    assert console.width() == width
    text = show(short_sort.folder).stdout
    assert "…" not in text
    sorting = read_sorting(short_sort.folder)
    for row in range(sorting.n_units):
        assert f"{sorting.units['n_spikes'][row]}" in text
    assert ("template" in text) == (width >= 80)
    longest = max(len(line) for line in click_unstyle(text).splitlines())
    assert width < 80 or longest <= width
    assert show(short_sort.folder, "--unit", 0).exit_code == 0


def click_unstyle(text: str) -> str:
    return click.unstyle(text)
