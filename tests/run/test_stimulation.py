"""A recording with stimulation from end to end: found, taken out, reported, blanked by given times, and the same when resumed."""

from __future__ import annotations

import contextlib
import csv
import functools
import json
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.command_line import refused, spikecrsae

from spikecrsae.config import Config
from spikecrsae.data.intervals import in_any
from spikecrsae.pipeline import distributed
from spikecrsae.pipeline import sort as pipeline_sort
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.progress import Observer
from spikecrsae.readers import open_recording
from spikecrsae.results.folder import read_sorting
from spikecrsae.score import compare
from spikecrsae.simulate import preset_config, simulate, write_simulation

pytestmark = pytest.mark.slow
TIMES = np.arange(0.15, 9.9, 0.2)


@pytest.fixture(scope="module")
def clean():
    return simulate(
        preset_config("tetrode", n_units=2, n_bursting=0, duration_s=10.0, seed=4, snrs=(14.0, 10.0), rates_hz=(15.0, 20.0))
    )


@pytest.fixture(scope="module")
def stimulated(clean, tmp_path_factory) -> Path:
    """The tetrode with pulses of 2.5 mV five times a second, and a table of their times."""
    path = tmp_path_factory.mktemp("stimulation") / "stimulated.h5"
    write_simulation(clean, path)
    with h5py.File(path, "r+") as file:
        traces = file["traces"][()].astype(np.float64)
        ms = np.arange(200) / clean.sampling_frequency * 1000
        shape = np.where(ms < 0.3, 1.0, np.where(ms < 0.6, -1.0, 0.2 * np.exp(0.6 - ms)))
        for time, size in zip(TIMES, 1 + 0.02 * np.random.default_rng(0).standard_normal(len(TIMES)), strict=True):
            first = round(time * clean.sampling_frequency)
            traces[first : first + 200] += (size * shape)[:, None] * np.array([2500, 2300, 2600, 2400]) / clean.gain
        file["traces"][...] = np.clip(np.round(traces), -32768, 32767)
    path.with_name("triggers.csv").write_text("time_s\n" + "\n".join(map(str, TIMES)))
    return path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def accuracies(clean, folder: Path) -> list[float]:
    sorting = read_sorting(folder)
    found = compare(clean.truth.trains(), sorting.trains(), sorting.sampling_frequency)
    return [row.accuracy for row in found.rows]


@pytest.fixture(scope="module")
def found(stimulated):
    done = spikecrsae("sort", stimulated)
    assert done.exit_code == 0, done.output
    return done, stimulated.with_name("stimulated.h5.sorted")


def test_pulses_are_found_told_and_cost_no_neuron(clean, found):
    done, folder = found
    assert f"{len(TIMES)} pulses, every 200 ms, found and subtracted" in done.stderr
    assert "--triggers FILE --blank-ms -0.5,6" in done.stderr
    assert "known by strict period, edge, size" in done.stderr
    listed = rows(folder / "artefacts.csv")
    assert list(listed[0]) == ["start_s", "stop_s", "kind", "group", "channel", "amplitude_uV"]
    assert len(listed) == len(TIMES) and {row["kind"] for row in listed} == {"pulse"}
    starts = np.array([float(row["start_s"]) for row in listed])
    assert np.all(np.diff(starts) > 0) and np.all(np.abs(starts - TIMES) < 0.003)
    assert np.median([abs(float(row["amplitude_uV"])) for row in listed]) > 1500
    run = json.loads((folder / "run.json").read_text())
    assert run["artefacts"][0]["n"] == len(TIMES)
    assert run["artefacts"][0]["period_s"] == pytest.approx(0.2, abs=1e-4)
    assert "artefacts.csv" in json.loads((folder / "manifest.json").read_text())["files"]
    assert "pulses, every 200 ms" in (folder / "report.html").read_text()
    units = rows(folder / "units.csv")
    assert [row["label"] for row in units] == ["single", "single"]
    assert max(float(row["pulse_locking"]) for row in units) < 0.1
    assert min(accuracies(clean, folder)) > 0.96


def test_pulses_that_stay_are_a_unit_labelled_artefact(stimulated, tmp_path):
    done = spikecrsae(
        "sort", stimulated, "-o", tmp_path / "kept", "--no-find-artefacts", "--stop-s", 3, "--export", "phy", "--quiet"
    )
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "kept" / "artefacts.csv").exists()
    units = rows(tmp_path / "kept" / "units.csv")
    locked = [row for row in units if row["label"] == "artefact"]
    assert locked and float(locked[0]["pulse_locking"]) > 0.5
    groups = (tmp_path / "kept" / "phy" / "cluster_group.tsv").read_text()
    assert f"{locked[0]['unit']}\tnoise" in groups


def test_given_times_are_blanked(clean, stimulated, tmp_path):
    triggers = stimulated.with_name("triggers.csv")
    done = spikecrsae("sort", stimulated, "--triggers", triggers, "--blank-ms", "-0.5,4", "-o", tmp_path / "given")
    assert done.exit_code == 0, done.output
    sorting = read_sorting(tmp_path / "given")
    fs = sorting.sampling_frequency
    pulses = np.round(TIMES * fs).astype(np.int64)
    about = pulses[:, None] + np.round(np.array([-0.5, 4]) * fs / 1000).astype(np.int64)
    assert np.diff(sorting.excluded).sum() == pytest.approx(np.diff(about).sum(), rel=0.1)
    assert not in_any(about, sorting.spikes["sample"]).any()
    assert {row["kind"] for row in rows(tmp_path / "given" / "artefacts.csv")} == {"given"}
    truth = {name: samples[~in_any(about, samples)] for name, samples in clean.truth.trains().items()}
    assert min(row.accuracy for row in compare(truth, sorting.trains(), fs).rows) > 0.95
    run = json.loads((tmp_path / "given" / "run.json").read_text())
    assert list(run["files"]) == [str(triggers)]


def test_a_resumed_run_gives_the_same(stimulated, found, tmp_path, monkeypatch):
    words = ["sort", stimulated, "-o", tmp_path / "resumed", "--quiet"]

    def stopped(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(pipeline_sort, "decode_group", stopped)
        assert spikecrsae(*words).exit_code == 4
        patched.setattr(pipeline_sort, "find_artefacts", stopped)
    with monkeypatch.context() as patched:
        patched.setattr(pipeline_sort, "find_artefacts", stopped)
        assert spikecrsae(*words, "--resume").exit_code == 0
    for name in ("spikes.csv", "units.csv", "artefacts.csv"):
        assert (tmp_path / "resumed" / name).read_bytes() == (found[1] / name).read_bytes()


def test_a_model_is_applied_without_pulses_and_files_of_its_own_recording(clean, stimulated, found, tmp_path):
    write_simulation(clean, tmp_path / "clean.h5")
    gone = tmp_path / "gone.csv"
    gone.write_text("1,1.5\n")
    sort = spikecrsae("sort", tmp_path / "clean.h5", "--exclude-s", gone, "--quiet")
    assert sort.exit_code == 0, sort.output
    gone.unlink()
    done = spikecrsae("apply", tmp_path / "clean.h5.sorted", stimulated, "-o", tmp_path / "applied", "--quiet")
    assert done.exit_code == 0, done.output
    assert len(rows(tmp_path / "applied" / "artefacts.csv")) == len(TIMES)
    assert min(accuracies(clean, tmp_path / "applied")) > 0.95


def test_bad_times_end_with_one_line(stimulated, tmp_path):
    (tmp_path / "late.csv").write_text("3\n99\n")
    refused(
        spikecrsae("sort", stimulated, "--triggers", tmp_path / "late.csv", "-o", tmp_path / "x"), "time_s 99 is outside"
    )
    refused(
        spikecrsae(
            "sort",
            stimulated,
            "--triggers",
            stimulated.with_name("triggers.csv"),
            "--blank-ms",
            "-300,300",
            "-o",
            tmp_path / "x",
        ),
        "leaves nothing",
        code=2,
    )
    for words, rule in (
        (("--blank-ms", "6"), "must be two times in ms"),
        (("--blank-ms", "-1,4"), "has no effect without triggers"),
        (("--triggers", ""), "--triggers is empty"),
    ):
        refused(spikecrsae("sort", stimulated, *words, "-o", tmp_path / "x"), rule, code=2)


def test_times_at_which_nothing_happens_are_told(clean, tmp_path):
    write_simulation(clean, tmp_path / "clean.h5")
    (tmp_path / "times.csv").write_text("\n".join(map(str, TIMES)))
    done = spikecrsae("sort", tmp_path / "clean.h5", "--triggers", tmp_path / "times.csv")
    assert done.exit_code == 0, done.output
    assert f"nothing follows the {len(TIMES)} triggers" in done.stderr


def test_blocks_decoded_elsewhere_are_without_pulses_too(stimulated, monkeypatch):
    monkeypatch.setattr(distributed, "BLOCKS_AT_ONCE", 1)

    class Here:
        """A worker in this process, to which all is pickled."""

        is_remote = True

        def each(self, function, common, parts, on_stage=None):
            for number, part in enumerate(parts):
                function_, common_, part_ = pickle.loads(pickle.dumps((function, common, part)))
                yield number, function_(common_, part_, Observer())

    reopen = functools.partial(open_recording, stimulated)
    with contextlib.closing(reopen()) as recording:
        here = sort_group(recording, Config())
        elsewhere = sort_group(recording, Config(), gather=distributed.Elsewhere(reopen, Here()))
    assert len(here.sorting.artefacts) == len(TIMES)
    assert here.sorting.spikes.tobytes() == elsewhere.sorting.spikes.tobytes()
