"""The command line: what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.command_line import PATIENCE_S, spikecrsae, start_command
from helpers.stopped_runs import start, wait_for_stage

from spikecrsae.config import Config
from spikecrsae.results.folder import ResultFolder, read_sorting

# ---- help, version, usage


def test_help_names_every_command_and_exit_code():
    result = spikecrsae("--help")
    assert result.exit_code == 0
    for word in ("sort", "score", "report", "simulate", "info", "apply", "interrupted", "no unit was found"):
        assert word in result.stdout


@pytest.mark.slow
def test_help_loads_nothing_heavy():
    words = [sys.executable, "-X", "importtime", "-m", "spikecrsae", "--help"]
    loaded = subprocess.run(words, check=True, capture_output=True, text=True).stderr
    assert "click" in loaded
    for library in ("numpy", "scipy", "torch", "numba", "sklearn", "matplotlib", "neo", "h5py", "rich"):
        assert not re.search(rf"\| +{library}$", loaded, re.MULTILINE), library


@pytest.mark.parametrize(
    "arguments",
    [
        ["sort"],
        ["nonsense"],
        ["sort", "x.h5", "--no-such-option"],
        ["sort", "x.h5", "--epochs", "0"],
        ["sort", "x.h5", "--units", "few"],
        ["score", "x.sorted"],
        ["simulate", "x.h5", "--snrs", "a,b"],
        ["simulate", "x.h5", "--preset", "paper", "--noise-uv", "3"],
    ],
)
def test_wrong_usage_is_2_and_leaves_standard_output_empty(arguments):
    result = spikecrsae(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--highpass-hz", "-5"], "-5.0 must be at least 0.1."),
        (["--units", "0"], "0 must be at least 1; give a number, or auto."),
        (["--jobs", "0"], "0 must be at least 1."),
    ],
)
def test_a_number_out_of_bounds_is_refused_as_in_a_configuration_file(words, said):
    result = spikecrsae("sort", "x.h5", *words)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {words[0]}: {said}\n")


# ---- configuration


def test_dump_config_is_the_default_configuration():
    result = spikecrsae("sort", "--dump-config")
    assert result.exit_code == 0
    assert tomllib.loads(result.stdout) == Config().to_dict()


def test_command_line_beats_file_beats_default(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text("[initialise]\nunits = 3\n[train]\nepochs = 7\nkappa = 2.5\n")
    dumped = tomllib.loads(spikecrsae("sort", "--config", file, "--epochs", 9, "--dump-config").stdout)
    assert dumped["initialise"]["units"] == 3
    assert dumped["train"]["epochs"] == 9
    assert dumped["train"]["kappa"] == 2.5
    assert dumped["runtime"]["seed"] == Config().runtime.seed


def test_an_option_set_to_its_default_still_beats_the_file(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text("[initialise]\nunits = 3\n[runtime]\nseed = 5\n")
    dumped = tomllib.loads(spikecrsae("sort", "--config", file, "--units", "auto", "--seed", 0, "--dump-config").stdout)
    assert dumped["initialise"]["units"] == "auto"
    assert dumped["runtime"]["seed"] == 0


def test_an_unknown_value_in_the_file_is_named(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text("[train]\nepoch = 7\n")
    result = spikecrsae("sort", "--config", file, "--dump-config")
    assert result.exit_code == 2
    assert "train.epoch" in result.stderr


# ---- info


@pytest.mark.slow
def test_info_shows_what_the_file_says(recording, simulation):
    facts = json.loads(spikecrsae("info", recording, "--json").stdout)
    assert facts["channels"] == 4
    assert facts["sampling_frequency_hz"] == simulation.sampling_frequency
    assert facts["samples"] == len(simulation.traces)
    assert facts["amplitude_unit"] == "uV"
    assert facts["noise_level"] == pytest.approx([simulation.noise_uv] * 4, rel=0.3)
    text = spikecrsae("info", recording).stdout
    assert "20000 Hz" in text
    assert "8 s, 160000 samples" in text


def test_info_selects_channels(recording):
    assert json.loads(spikecrsae("info", recording, "--channels", "1-2", "--json").stdout)["channel_ids"] == ["1", "2"]


def test_info_reads_raw_binary_with_its_options(tmp_path, simulation):
    file = tmp_path / "two.raw"
    file.write_bytes(simulation.traces.tobytes())
    result = spikecrsae(
        "info", file, "--sampling-frequency", 20000, "--n-channels", 4, "--dtype", "int16", "--gain", 0.195, "--json"
    )
    facts = json.loads(result.stdout)
    assert facts["samples"] == len(simulation.traces)
    assert facts["amplitude_unit"] == "uV"


def test_info_of_a_recording_that_is_not_there_is_3():
    result = spikecrsae("info", "not-there.h5")
    assert result.exit_code == 3
    assert result.stdout == ""
    assert result.stderr.startswith("Error: not-there.h5")
    assert result.stderr.count("\n") == 1


# ---- simulate


def test_simulate_writes_a_recording_with_truth(tmp_path):
    file = tmp_path / "sim.h5"
    words = (
        "--preset",
        "tetrode",
        "--duration-s",
        2,
        "--n-units",
        2,
        "--rates-hz",
        "5,9",
        "--seed",
        4,
        "--intracellular-unit",
        1,
    )
    result = spikecrsae("simulate", file, *words, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    with h5py.File(file) as stored:
        assert stored["traces"].shape == (40000, 4)
        assert stored["intracellular"].shape == (40000,)
        counts = [len(stored[f"truth/{unit}/spike_samples"]) for unit in (0, 1)]
    assert [unit["n_spikes"] for unit in document["units"]] == counts


def test_simulate_wants_a_folder_that_exists_as_sort_does(tmp_path):
    result = spikecrsae("simulate", tmp_path / "new" / "x.h5", "--duration-s", 1)
    assert result.exit_code == 6 and f"{tmp_path / 'new'} does not exist; create that folder" in result.stderr
    assert not list(tmp_path.iterdir()) and result.stderr.count("\n") == 1


def test_simulate_does_not_overwrite_unasked(tmp_path):
    file = tmp_path / "sim.h5"
    file.write_text("mine")
    assert spikecrsae("simulate", file, "--duration-s", 1).exit_code == 6
    assert file.read_text() == "mine"
    assert spikecrsae("simulate", file, "--duration-s", 1, "--overwrite").exit_code == 6
    assert file.read_text() == "mine"


# ---- how a command ends


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "Interrupted"),
        (MemoryError("no room"), 4, "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 4, "out of memory"),
        (ValueError("a\nb"), 1, "internal error, ValueError: a b; run again with --verbose"),
        (OSError(28, "No space left on device", "x"), 6, "No space left"),
    ],
)
def test_errors_end_in_one_line_and_their_code(monkeypatch, recording, error, code, words):
    def fail(*arguments, **values):
        raise error

    monkeypatch.setattr("spikecrsae.readers.open_session", fail)
    result = spikecrsae("info", recording)
    assert result.exit_code == code
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_verbose_shows_the_traceback_of_an_internal_error(monkeypatch, recording):
    def fail(*arguments, **values):
        raise ValueError("broken")

    monkeypatch.setattr("spikecrsae.readers.open_session", fail)
    result = spikecrsae("info", recording, "--verbose")
    assert result.exit_code == 1
    assert "Traceback" in result.stderr


@pytest.mark.slow
def test_a_reader_that_goes_away_is_no_error(recording):
    with start_command("info", recording, "--json") as process:
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


# ---- sort and apply


@pytest.fixture(scope="module")
def sorted_folder(recording, tmp_path_factory) -> Path:
    """A result of sort, made once."""
    folder = tmp_path_factory.mktemp("result") / "two.sorted"
    result = spikecrsae("sort", recording, "-o", folder, "--quiet", "--device", "cpu", "--save-components")
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    assert "spikes" in result.stdout
    return folder


def test_sort_fills_the_folder_and_lists_all_of_it(sorted_folder):
    names = {path.name for path in sorted_folder.iterdir()}
    assert {
        "sorting.h5",
        "spikes.csv",
        "units.csv",
        "model.safetensors",
        "run.json",
        "run.log",
        "components.h5",
        "report.html",
    } <= names
    assert not [name for name in names if name.endswith(".png")]
    manifest = json.loads((sorted_folder / "manifest.json").read_text())
    assert set(manifest["files"]) == names - {"manifest.json"}
    assert all(manifest["files"][name]["size"] == (sorted_folder / name).stat().st_size for name in manifest["files"])


def test_sort_records_what_was_done(sorted_folder):
    run = json.loads((sorted_folder / "run.json").read_text())
    assert Config().with_values(run["config"]).runtime.device == "cpu"
    assert run["seed"] == 0
    assert run["stage_seconds"] and run["recording"]["checksum"] and run["libraries"]["torch"]
    assert (sorted_folder / "run.log").read_text()


def test_sort_finds_the_simulated_units(sorted_folder, recording):
    document = json.loads(spikecrsae("score", sorted_folder, "--truth", recording, "--json").stdout)
    assert [row["accuracy"] > 0.8 for row in document["one_to_one"]] == [True, True]


def test_sort_does_not_overwrite_unasked(sorted_folder, recording):
    before = (sorted_folder / "sorting.h5").read_bytes()
    assert spikecrsae("sort", recording, "-o", sorted_folder).exit_code == 6
    assert (sorted_folder / "sorting.h5").read_bytes() == before


def test_apply_finds_the_same_units_without_training(sorted_folder, recording, tmp_path):
    result = spikecrsae("apply", sorted_folder, recording, "-o", tmp_path / "again", "--json")
    assert result.exit_code == 0, result.stderr
    learned, applied = read_sorting(sorted_folder), read_sorting(tmp_path / "again")
    np.testing.assert_array_equal(applied.unit_ids, learned.unit_ids)
    np.testing.assert_allclose(len(applied.spikes), len(learned.spikes), rtol=0.05)
    assert json.loads(result.stdout)["n_spikes"] == len(applied.spikes)


@pytest.mark.slow
def test_sort_of_noise_ends_with_5_and_an_empty_result(tmp_path):
    file = tmp_path / "noise.h5"
    with h5py.File(file, "w") as stored:
        noise = np.random.default_rng(0).normal(0, 10, (100_000, 1)).astype(np.float32)
        stored.create_dataset("traces", data=noise).attrs.update(sampling_frequency=20000.0, units="uV")
    result = spikecrsae("sort", file, "--json", "--quiet", "--detection-threshold", 8)
    assert result.exit_code == 5, result.stderr
    assert json.loads(result.stdout)["n_units"] == 0
    assert "No unit was found" in result.stderr
    folder = tmp_path / "noise.h5.sorted"
    assert read_sorting(folder).n_units == 0
    assert (folder / "spikes.csv").read_text() == "unit,sample,time_s,amplitude,probability\n"


def test_a_failed_sort_leaves_nothing(tmp_path):
    file = tmp_path / "flat.h5"
    with h5py.File(file, "w") as stored:
        stored.create_dataset("traces", data=np.zeros((50_000, 2), np.int16)).attrs.update(sampling_frequency=20000.0)
    result = spikecrsae("sort", file)
    assert result.exit_code == 3
    assert result.stderr.splitlines()[-1].startswith("Error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["flat.h5"]


def test_an_internal_error_leaves_its_traceback_in_the_log(recording, tmp_path, monkeypatch):
    def fail(*arguments, **values):
        raise ValueError("broken")

    monkeypatch.setattr("spikecrsae.pipeline.groups.sort_group", fail)
    folder = tmp_path / "broken"
    result = spikecrsae("sort", recording, "-o", folder)
    assert result.exit_code == 1
    log = ResultFolder(folder).unfinished / "run.log"
    assert str(log) in result.stderr and result.stderr.count("\n") == 1
    assert "Traceback" not in result.stderr
    assert "ValueError: broken" in log.read_text()
    assert not folder.exists()


@pytest.mark.slow
@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_sort_leaves_nothing(recording, tmp_path, signal_number, code):
    folder, errors = tmp_path / "stopped", tmp_path / "errors"
    process = start("sort", recording, "-o", folder, "--method", "unrolled", "--epochs", 1000, errors=errors)
    wait_for_stage(process, folder, "noise")
    os.kill(process.pid, signal_number)
    process.join(PATIENCE_S)
    assert process.exitcode == code, errors.read_text()
    assert "Traceback" not in errors.read_text()
    assert not folder.exists() and not ResultFolder(folder).unfinished.exists()
