"""A run that is repeated from its run.json gives the same spikes; configurations are written and read without loss."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields

import h5py
import numpy as np
import pytest
from helpers.command_line import spikecrsae
from helpers.recordings import cut_recording
from hypothesis import given, settings
from hypothesis import strategies as st

from spikecrsae.config import Config, load_config
from spikecrsae.results.model_file import load_checkpoint, save_checkpoint


@pytest.mark.slow
def test_a_rerun_of_raw_binary_needs_nothing_but_the_record(tmp_path):
    """Options of the command line and of the side file, a relative path, settings and seed all stand in run.json."""
    with h5py.File(cut_recording(tmp_path / "cut.h5", 20, 26)) as file:
        traces = file["traces"][:]
    (tmp_path / "day").mkdir()
    recording = tmp_path / "day" / "raw.dat"
    recording.write_bytes(traces.tobytes())
    side = tmp_path / "day" / "raw.dat.toml"
    side.write_text("sampling_frequency = 20000.0\nn_channels = 4\ndtype = 'int16'\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        words = ("--gain", 0.195, "--channels", "0,2-3", "--seed", 7, "--units", 3, "--exclude-s", "1-1.5", "-o", "first")
        result = spikecrsae("sort", "day/raw.dat", *words, "--quiet")
    assert result.exit_code == 0, result.stderr
    side.unlink()
    result = spikecrsae("rerun", tmp_path / "first")
    assert result.exit_code == 0, result.stderr
    again = tmp_path / "first.rerun"
    assert "spikes.csv is identical" in result.stderr and "Warning" not in result.stderr
    for name in ("spikes.csv", "units.csv"):
        assert (again / name).read_bytes() == (tmp_path / "first" / name).read_bytes()
    records = [json.loads((folder / "run.json").read_text()) for folder in (tmp_path / "first", again)]
    for name in ("config", "options", "recording", "spikes_sha256"):
        assert records[0][name] == records[1][name], name
    assert records[0]["recording"]["read_options"] == {
        "sampling_frequency": 20000.0, "n_channels": 4, "dtype": "int16", "channels": [0, 2, 3], "gain": 0.195,
    }  # fmt: skip


@pytest.mark.slow
def test_a_rerun_of_a_session_with_groups_and_a_time_range(tmp_path, monkeypatch):
    monkeypatch.setenv("SPIKECRSAE_CORES", "1")  # the groups of the rerun are sorted in this process
    files = [cut_recording(tmp_path / f"part{k}.h5", 10 * k, 10 * k + 4) for k in range(2)]
    words = ("--groups", "0-1,2-3", "--start-s", 1, "--stop-s", 7, "--jobs", 1, "-o", tmp_path / "first")
    result = spikecrsae("sort", *files, *words, "--quiet")
    assert result.exit_code == 0, result.stderr
    result = spikecrsae("rerun", tmp_path / "first")
    assert result.exit_code == 0, result.stderr
    assert "spikes.csv is identical" in result.stderr
    with h5py.File(files[1], "r+") as file:
        file["traces"][100, 3] += 1
    result = spikecrsae("rerun", tmp_path / "first", "-o", tmp_path / "again")
    assert result.exit_code == 3 and "checksum" in result.stderr


@pytest.fixture
def copied(short_sort, tmp_path):
    """A copy of the short recording and its result that may be changed; the record points to the copy."""
    recording, folder = tmp_path / "copy.h5", tmp_path / "copy.sorted"
    shutil.copy(short_sort.recording, recording)
    shutil.copytree(short_sort.folder, folder)
    change(folder, lambda record: record["recording"].update(paths=[str(recording)]))
    return recording, folder


def change(folder, how) -> None:
    record = json.loads((folder / "run.json").read_text())
    how(record)
    (folder / "run.json").write_text(json.dumps(record))


def test_a_recording_with_other_samples_is_refused_before_it_is_sorted(copied, tmp_path):
    recording, folder = copied
    with h5py.File(recording, "r+") as file:
        file["traces"][1000, 0] += 1
    result = spikecrsae("rerun", folder, "-o", tmp_path / "again")
    assert result.exit_code == 3
    assert "checksum" in result.stderr.splitlines()[-1]
    assert result.stderr.startswith("  compare ") and "check " not in result.stderr
    assert not (tmp_path / "again").exists()


def test_a_recording_with_another_gain_is_refused(copied, tmp_path):
    recording, folder = copied
    with h5py.File(recording, "r+") as file:
        holder = file["traces"] if "gain" in file["traces"].attrs else file
        holder.attrs["gain"] = np.asarray(holder.attrs["gain"]) * 2
    result = spikecrsae("rerun", folder, "-o", tmp_path / "again")
    assert result.exit_code == 3
    assert "gain" in result.stderr and result.stderr.count("\n") == 1


def test_a_recording_that_has_moved_is_found_and_what_differs_is_said(copied, tmp_path):
    """Other versions are a warning; other spikes than the record's end with 8."""
    recording, folder = copied
    moved = recording.rename(tmp_path / "elsewhere.h5")
    assert spikecrsae("rerun", folder, "-o", tmp_path / "again").exit_code == 3
    change(folder, lambda record: record.update(spikecrsae="0.0.1", spikes_sha256="other"))
    change(folder, lambda record: record["libraries"].update(numpy="1.0"))
    result = spikecrsae("rerun", folder, "--recording", moved, "-o", tmp_path / "again")
    assert (tmp_path / "again" / "spikes.csv").read_bytes() == (folder / "spikes.csv").read_bytes()
    assert result.exit_code == 8
    assert "spikecrsae was 0.0.1" in result.stderr and "numpy was 1.0" in result.stderr
    assert "spikes.csv differs" in result.stderr


@pytest.mark.parametrize("text", ["", "{}", '{"task": "sort", "recording": {"path": "x.h5"}}', "[1]"])
def test_a_record_that_says_too_little_is_3(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    result = spikecrsae("rerun", tmp_path / "run.json")
    assert result.exit_code == 3
    assert result.stderr.count("\n") == 1


def test_a_file_that_is_no_text_is_named_plainly(tmp_path):
    (tmp_path / "run.json").write_bytes(b"\x89HDF\xff")
    result = spikecrsae("rerun", tmp_path / "run.json")
    assert result.exit_code == 3
    assert (
        result.stderr
        == f"Error: {tmp_path / 'run.json'} is not a text file in UTF-8; save it as one. Give the run.json of a result.\n"
    )


def of_recording(**changed):
    return lambda record: record["recording"].update(changed)


def without(name):
    return lambda record: record["recording"].pop(name)


#: What is done to a run.json, and the entry that the message names.
EDITED = [
    *((lambda record, value=value: record["options"].update(exports=value), "options.exports") for value in (5, "x", [1], ["x"])),
    *((of_recording(paths=value), "recording.paths") for value in ([], 5, [7], [""])),
    *((of_recording(read_options=value), "recording.read_options") for value in (5, "x", [], {"colour": 1}, {"channels": 3})),
    *((without(name), f"recording.{name} is missing") for name in ("n_samples", "time_range", "groups", "checksum", "gain")),
    (of_recording(groups={"a": []}), "recording.a"),
    (of_recording(sampling_frequency=0), "recording.sampling_frequency"),
    (lambda record: record.update(libraries=5), "libraries"),
    (lambda record: record.update(options=5), "options"),
    (lambda record: record.update(recording=[1]), "recording"),
    (lambda record: record.update(config={"train": {"kappa": "much"}}), "train.kappa"),
    (lambda record: record.pop("config"), "config is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("how", "named"), EDITED, ids=[f"{k}-{named}" for k, (_, named) in enumerate(EDITED)])
def test_an_entry_of_an_edited_record_is_named(short_sort, tmp_path, how, named):
    shutil.copy(short_sort.folder / "run.json", tmp_path)
    change(tmp_path, how)
    result = spikecrsae("rerun", tmp_path)
    assert result.exit_code == 3, result.stderr
    assert result.stderr.count("\n") == 1 and "run.json is not a complete run.json" in result.stderr
    assert named in result.stderr and "sort the recording anew" in result.stderr


def test_resume_over_a_result_whose_record_lacks_something_is_6(copied):
    """The record that counts there is the one in sorting.h5."""
    recording, folder = copied
    with h5py.File(folder / "sorting.h5", "r+") as file:
        record = json.loads(file["provenance"][()])
        del record["recording"]["groups"], file["provenance"]
        file["provenance"] = json.dumps(record)
    result = spikecrsae("sort", recording, "-o", folder, "--resume", "--quiet")
    assert result.exit_code == 6, result.stderr
    assert "recording.groups is missing" in result.stderr and "--overwrite" in result.stderr


def test_a_run_of_apply_is_repeated_with_the_same_model(copied, tmp_path):
    recording, model = copied
    assert spikecrsae("apply", model, recording, "-o", tmp_path / "first", "--exclude-s", "1-2", "--quiet").exit_code == 0
    result = spikecrsae("rerun", tmp_path / "first")
    assert result.exit_code == 0, result.stderr
    first, again = ((tmp_path / name / "spikes.csv").read_bytes() for name in ("first", "first.rerun"))
    assert again == first != (model / "spikes.csv").read_bytes()
    saved = load_checkpoint(model / "model.safetensors")
    saved["crsae"]["sigma"] *= 1.5
    save_checkpoint(saved, model / "model.safetensors")
    result = spikecrsae("rerun", tmp_path / "first", "-o", tmp_path / "again")
    assert result.exit_code == 3 and "model.safetensors has the SHA-256" in result.stderr
    change(tmp_path / "first", lambda record: record.pop("model"))
    result = spikecrsae("rerun", tmp_path / "first", "-o", tmp_path / "again")
    assert result.exit_code == 3 and "model is missing" in result.stderr


def test_other_tasks_cannot_be_repeated(copied):
    folder = copied[1]
    change(folder, lambda record: record.update(task="dance"))
    result = spikecrsae("rerun", folder)
    assert result.exit_code == 3 and "dance" in result.stderr


# ---- the configuration as TOML


def value_of(field):
    """A strategy for the values that a configuration field takes."""
    rule = field.metadata
    kind = rule["kind"] or type(field.default)
    if rule["choices"]:
        values = st.sampled_from(rule["choices"])
    elif kind is bool:
        values = st.booleans()
    elif kind is int:
        values = st.integers(int(rule["low"]), int(rule["high"] or 10**9))
    elif kind is float:
        values = st.floats(rule["low"], rule["high"] or 1e4)  # the smallest bound of those without their own
    else:
        texts = {"blank_ms": ["-0.5,6", "1,2.5"], "triggers": ["", "/data/triggers.csv"]}
        values = st.sampled_from(texts.get(field.name, ["", "1-2", "1.5-2,4-5"]))
    return st.none() | values if field.default is None else values


def stages() -> list:
    return [(stage.name, fields(getattr(Config(), stage.name))) for stage in fields(Config)]


ANY_CONFIG = st.fixed_dictionaries(
    {name: st.fixed_dictionaries({field.name: value_of(field) for field in options}) for name, options in stages()}
)


@settings(max_examples=60, deadline=None)
@given(ANY_CONFIG)
def test_a_configuration_is_read_back_as_it_was_written(tmp_path_factory, values):
    config = Config().with_values(values)
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_text(config.to_toml())
    assert load_config(file) == config
    other = Config().with_values({"initialise": {"units": 9}, "preprocess": {"lowpass_hz": 3000.0}})
    assert load_config(file, other) == config, "every option stands in the file, also one that the program finds"
    assert Config().with_values(json.loads(json.dumps(config.to_dict()))) == config


def test_dump_config_names_every_option_and_is_read_back(tmp_path):
    dumped = spikecrsae("sort", "--units", 4, "--dump-config").stdout
    for name, options in stages():
        assert f"[{name}]" in dumped
        assert all(f"\n{field.name} = " in dumped for field in options)
    assert 'lowpass_hz = "auto"' in dumped
    file = tmp_path / "sort.toml"
    file.write_text(dumped)
    assert load_config(file) == Config().with_values({"initialise": {"units": 4}})
    assert spikecrsae("sort", "--config", file, "--dump-config").stdout == dumped
