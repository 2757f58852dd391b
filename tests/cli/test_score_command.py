"""`score` at the prompt: what it prints, what it writes, and what it leaves alone."""

from __future__ import annotations

import csv
import json

import click
import h5py
import pytest
from helpers.command_line import spikecrsae
from helpers.sortings import write_result

from spikecrsae.simulate import preset_config, simulate

# ---- score


@pytest.mark.slow
def test_score_of_the_truth_against_itself_is_1(perfect, recording):
    result = spikecrsae("score", perfect, "--truth", recording, "--exhaustive", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert [row["accuracy"] for row in document["one_to_one"]] == [1.0, 1.0]
    assert document["false_positive_units"] == []


def test_score_writes_the_curve_into_the_folder_and_its_manifest(perfect, recording):
    result = spikecrsae("score", perfect, "--truth", recording, "--truth-unit", "1")
    assert result.exit_code == 0, result.stderr
    assert "1.000" in result.stdout
    assert "tradeoff.csv" in result.stderr and "tradeoff.csv" not in result.stdout
    rows = list(csv.DictReader((perfect / "tradeoff.csv").read_text().splitlines()))
    assert {row["truth"] for row in rows} == {"1"}
    assert (float(rows[0]["miss"]), float(rows[0]["false_alarm"])) == (0.0, 0.0)
    assert [float(row["miss"]) for row in rows] == sorted(float(row["miss"]) for row in rows)
    assert (perfect / "tradeoff.png").read_bytes().startswith(b"\x89PNG")
    assert {"tradeoff.csv", "tradeoff.png"} <= set(json.loads((perfect / "manifest.json").read_text())["files"])


def test_score_judges_the_probabilities(perfect, recording, tmp_path):
    """Those of a simulation's own spikes are 1, and all are right. A list of times has none."""
    result = spikecrsae("score", perfect, "--truth", recording, "--calibration", "--json")
    assert result.exit_code == 0, result.stderr
    measures = json.loads(result.stdout)["calibration"]
    assert measures["n_false"] == 0 and measures["expected_calibration_error"] == measures["brier_score"] == 0
    assert json.loads((perfect / "calibration.json").read_text()) == measures
    assert (perfect / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert "expected calibration error" in spikecrsae("score", perfect, "--truth", recording, "--calibration").stdout
    (tmp_path / "times.csv").write_text("sample\n100\n200\n")
    without = spikecrsae(
        "score", tmp_path / "times.csv", "--truth", recording, "--calibration", "--sampling-frequency", 20000
    )
    assert without.exit_code == 0, without.stderr
    assert "mean accuracy" in without.stdout and "No calibration: the spikes have no probabilities" in without.stderr


def test_score_fits_a_terminal_of_80_columns(perfect, recording, monkeypatch):
    for name, value in {"COLUMNS": "80", "FORCE_COLOR": "1", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    text = click.unstyle(spikecrsae("score", perfect, "--truth", recording).stdout)
    assert max(map(len, text.splitlines())) <= 80
    assert "recall" in text and "false alarm %" in text
    monkeypatch.setenv("COLUMNS", "60")
    assert "false alarm %" not in spikecrsae("score", perfect, "--truth", recording).stdout


def test_score_draws_one_curve_per_truth_unit_elsewhere(perfect, recording, tmp_path):
    folder = tmp_path / "curves"
    assert spikecrsae("score", perfect, "--truth", recording, "-o", folder, "--quiet").stderr == ""
    assert sorted(path.name for path in folder.iterdir()) == ["tradeoff.csv", "tradeoff_0.png", "tradeoff_1.png"]
    assert not (perfect / "tradeoff.csv").exists()


def test_score_leaves_a_foreign_file_alone(perfect, recording):
    (perfect / "tradeoff.csv").write_text("mine")
    refused = spikecrsae("score", perfect, "--truth", recording)
    assert refused.exit_code == 6 and "give --overwrite" in refused.stderr
    assert (perfect / "tradeoff.csv").read_text() == "mine"


def test_score_replaces_curves_elsewhere_where_that_is_asked_for(perfect, recording, tmp_path):
    words = ["score", perfect, "--truth", recording, "-o", tmp_path / "curves"]
    assert [spikecrsae(*words).exit_code for _ in range(2)] == [0, 6]
    again = spikecrsae(*words, "--truth-neuron", "1", "--overwrite")
    assert again.exit_code == 0, again.stderr
    rows = csv.DictReader((tmp_path / "curves" / "tradeoff.csv").read_text().splitlines())
    assert {row["truth"] for row in rows} == {"1"}


def test_score_takes_times_in_the_column_and_unit_that_are_given(perfect, recording, tmp_path):
    spikes = list(csv.DictReader((perfect / "spikes.csv").read_text().splitlines()))
    lines = [f"{int(row['sample']) / 20},{row['unit']}" for row in spikes]  # ms at 20 kHz
    (tmp_path / "mine.csv").write_text("\n".join(["Fired,neuron", *lines]))
    words = ["score", perfect, "--truth", tmp_path / "mine.csv"]
    refused = spikecrsae(*words, "--truth-column", "fired")
    assert refused.exit_code == 3 and "give --truth-unit ms" in refused.stderr
    result = spikecrsae(*words, "--truth-column", "fired", "--truth-unit", "ms", "--json")
    assert result.exit_code == 0, result.stderr
    assert [row["accuracy"] for row in json.loads(result.stdout)["one_to_one"]] == [1.0, 1.0]
    assert spikecrsae("score", perfect, "--truth", recording, "--truth-unit", "ms").exit_code == 2


def test_score_takes_spike_times_of_another_program(perfect, recording):
    spikes = perfect / "spikes.csv"
    assert spikecrsae("score", spikes, "--truth", recording).exit_code == 2
    result = spikecrsae("score", spikes, "--truth", recording, "--sampling-frequency", 20000)
    assert result.exit_code == 0, result.stderr
    assert "No trade-off curve" in result.stderr


def test_score_against_an_intracellular_channel(tmp_path):
    made = simulate(
        preset_config("tetrode", n_units=1, n_bursting=0, duration_s=6.0, intracellular_unit=0, rates_hz=(10.0,))
    )
    cell = tmp_path / "cell.h5"
    with h5py.File(cell, "w") as file:
        traces = file.create_dataset("traces", data=made.intracellular[:, None])
        traces.attrs.update(sampling_frequency=made.sampling_frequency, units="mV")
    folder = write_result(tmp_path / "one", made.truth, {})
    result = spikecrsae("score", folder, "--truth", cell, "--truth-channel", 0, "--json")
    assert result.exit_code == 0, result.stderr
    (row,) = json.loads(result.stdout)["one_to_one"]
    assert row["accuracy"] > 0.95


def test_score_refuses_an_option_without_effect(perfect, recording):
    result = spikecrsae("score", perfect, "--truth", recording, "--n-channels", 4)
    assert result.exit_code == 2
    assert "--n-channels" in result.stderr
