"""A part of a recording, several files of one session, several segments of one file."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import recording_files as files
from helpers.command_line import spikecrsae
from scipy.signal import butter, sosfiltfilt

from spikecrsae.config import Config
from spikecrsae.data.intervals import gaps_from_the_start, seams
from spikecrsae.data.recording import Segment, joined, recording_from_array
from spikecrsae.errors import InputError, UsageError
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.preprocess.preprocessor import filtered
from spikecrsae.readers import open_recording, open_session
from spikecrsae.results.folder import read_sorting
from spikecrsae.score import compare
from spikecrsae.simulate import preset_config, simulate

pytestmark = pytest.mark.slow

CONFIG = Config().with_values({"train": {"epochs": 2}, "runtime": {"device": "cpu"}})
FS = 20000.0
N = 160_000
CUT = 70_000


@pytest.fixture(scope="module")
def simulation():
    return simulate(preset_config("tetrode", n_units=2, n_bursting=0, duration_s=N / FS, seed=3, snr_low=10.0))


def write(path: Path, traces: np.ndarray, start_time_s: float, **attributes) -> Path:
    with h5py.File(path, "w") as file:
        stored = file.create_dataset("traces", data=traces)
        stored.attrs.update({"sampling_frequency": FS, "units": "uV", "start_time_s": start_time_s, **attributes})
    return path


@pytest.fixture(scope="module")
def session(simulation, tmp_path_factory) -> list[Path]:
    """The recording cut in two, the second file with another offset, as after a break of 100 s."""
    folder = tmp_path_factory.mktemp("session")
    traces = simulation.traces
    return [
        write(folder / "a.h5", traces[:CUT], 10.0),
        write(folder / "b.h5", traces[CUT:] + np.int16(900), 113.5),
    ]


@pytest.fixture(scope="module")
def whole(simulation, tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("whole") / "whole.h5", simulation.traces, 10.0)


@pytest.fixture(scope="module")
def sorted_session(session, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("day") / "day"
    result = spikecrsae("sort", *session, "-o", folder, "--epochs", 2, "--device", "cpu", "--quiet")
    assert result.exit_code == 0, result.stderr
    return folder


# ---- several files


def test_files_of_a_session_are_one_recording(session, simulation):
    recording = open_session(session)
    assert recording.n_samples == N and recording.start_time_s == 10.0
    first, second = recording.parts
    assert (first, second) == (Segment(str(session[0]), 0, CUT, 10.0), Segment(str(session[1]), CUT, N - CUT, 113.5))
    expected = simulation.traces.astype(np.float32)
    expected[CUT:] += 900
    for start, stop in ((0, N), (CUT - 10, CUT + 10), (CUT, CUT + 5), (CUT - 5, CUT), (-5, 5), (N - 5, N + 5), (N, N + 5)):
        np.testing.assert_array_equal(recording.traces(start, stop), expected[max(start, 0) : stop])
    recording.close()
    with pytest.raises(InputError, match="closed"):
        recording.traces(CUT - 1, CUT + 1)


def test_a_session_is_sorted_with_one_set_of_units(sorted_session, simulation):
    sorting = read_sorting(sorted_session)
    comparison = compare(simulation.truth.trains(), sorting.trains(), FS)
    assert sorting.n_units == 2
    assert min(row.accuracy for row in comparison.rows) > 0.95
    assert all(((sorting.spike_samples(unit) < CUT).any(), (sorting.spike_samples(unit) > CUT).any()) for unit in (0, 1))


def test_a_session_has_the_times_of_each_file(sorted_session, session):
    sorting = read_sorting(sorted_session)
    assert sorting.files["name"].tolist() == [str(path) for path in session]
    assert sorting.files["first_sample"].tolist() == [0, CUT]
    assert sorting.files["n_samples"].tolist() == [CUT, N - CUT]
    rows = list(csv.DictReader((sorted_session / "spikes.csv").read_text().splitlines()))
    assert len(rows) == len(sorting.spikes)
    for row in rows:
        sample, file = int(row["sample"]), int(row["file"])
        assert file == (sample >= CUT)
        assert float(row["time_s"]) == pytest.approx(10.0 + sample / FS)
        assert float(row["file_time_s"]) == pytest.approx([10.0 + sample / FS, 113.5 + (sample - CUT) / FS][file])
    recorded = json.loads((sorted_session / "run.json").read_text())["recording"]["files"]
    assert [part["first"] for part in recorded] == [0, CUT]


def test_no_spike_lies_at_a_seam(sorted_session):
    sorting = read_sorting(sorted_session)
    (around,) = sorting.excluded
    assert around.tolist() == [CUT - 60, CUT + 60]  # the whitening filter's 3 ms on both sides
    assert not np.any((sorting.spikes["sample"] >= CUT - 60) & (sorting.spikes["sample"] < CUT + 60))


def test_no_filter_runs_across_a_seam(session):
    """A file is filtered as it would be alone, however it is cut into blocks, though the next begins 900 uV higher."""
    recording = open_session(session)
    sos = butter(3, 400.0, "highpass", fs=FS, output="sos")
    margin = 400
    gaps = gaps_from_the_start("", recording)
    np.testing.assert_array_equal(gaps, seams(recording))
    together = filtered(recording, gaps, 0, N, sos, margin, "none")
    for path, start, stop in ((session[0], 0, CUT), (session[1], CUT, N)):
        one = open_recording(path)
        alone = filtered(one, np.zeros((0, 2), np.int64), 0, one.n_samples, sos, margin, "none")
        np.testing.assert_allclose(together[start:stop], alone, atol=1e-4)
        expected = sosfiltfilt(sos, one.traces(0, one.n_samples).astype(float), axis=0, padlen=margin)
        np.testing.assert_allclose(alone, expected, atol=1e-2)
        one.close()
    for start, stop in ((CUT - 700, CUT - 1), (CUT - 3, CUT + 3), (CUT, CUT + 500), (CUT - 1000, CUT)):
        np.testing.assert_allclose(
            filtered(recording, gaps, start, stop, sos, margin, "none"), together[start:stop], atol=1e-3
        )
    across = filtered(recording, np.zeros((0, 2), np.int64), 0, N, sos, margin, "none")
    assert np.abs(across - together)[CUT - 20 : CUT + 20].max() > 100
    recording.close()


def test_many_short_files_are_sorted(simulation):
    """Parts shorter than the filter's margin and than a chunk; nothing is found where they meet."""
    size = 2000
    pieces = [recording_from_array(simulation.traces[i : i + size] + np.int16(i % 777), FS) for i in range(0, N, size)]
    recording = joined(pieces, [f"piece {i}" for i in range(len(pieces))])
    sorting = sort_group(recording, CONFIG).sorting
    distance = np.abs(sorting.spikes["sample"] - np.round(sorting.spikes["sample"] / size) * size)
    assert distance.min() >= 60
    rows = compare(simulation.truth.trains(), sorting.trains(), FS).rows
    # 6 % of the recording is left out at the seams
    assert min(row.recall for row in rows) > 0.85 and min(row.precision for row in rows) > 0.95


def test_one_file_is_no_session(whole):
    recording = open_session([whole])
    assert recording.parts == ()
    assert recording.n_samples == N
    recording.close()


@pytest.mark.parametrize(
    ("attributes", "channels", "dtype", "word"),
    [
        ({"sampling_frequency": 10_000.0}, 4, "int16", "sampling frequency"),
        ({"units": "ADC"}, 4, "int16", "amplitudes"),
        ({"gain": 2.0}, 4, "int16", "gain"),
        ({}, 3, "int16", "number of channels"),
        ({}, 4, "float32", "number type"),
    ],
)
def test_files_that_do_not_agree(session, tmp_path, attributes, channels, dtype, word):
    other = write(tmp_path / "other.h5", np.zeros((5000, channels), dtype), 0.0, **attributes)
    with pytest.raises(InputError, match=word) as caught:
        open_session([session[0], other])
    assert str(other) in str(caught.value) and str(session[0]) in str(caught.value)


def test_a_file_stands_once_in_a_session(session):
    with pytest.raises(UsageError, match="twice"):
        open_session([session[0], session[0]])


def test_the_result_of_several_files_is_beside_the_first(session, tmp_path):
    copies = [Path(shutil.copy(path, tmp_path)) for path in session]
    result = spikecrsae("sort", *copies, "--quiet", "--device", "cpu", "--epochs", 1)
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / f"{copies[0].name}-{copies[-1].name}.sorted" / "spikes.csv").is_file()


def test_apply_takes_a_session(sorted_session, session, tmp_path):
    result = spikecrsae("apply", sorted_session, *session, "-o", tmp_path / "again", "--quiet", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "again" / "spikes.csv").read_bytes() == (sorted_session / "spikes.csv").read_bytes()


# ---- a part of the recording


def test_a_range_keeps_samples_and_times_of_the_whole(whole, simulation, tmp_path):
    words = ("--start-s", 12.0, "--stop-s", 17.0, "--epochs", 2, "--device", "cpu", "--quiet", "--save-components")
    result = spikecrsae("sort", whole, "-o", tmp_path / "part", *words)
    assert result.exit_code == 0, result.stderr
    sorting = read_sorting(tmp_path / "part")
    samples = sorting.spikes["sample"]
    assert (sorting.n_samples, sorting.start_time_s) == (N, 10.0)
    assert samples.min() >= 40_000 and samples.max() < 140_000
    inside = {name: train[(train >= 40_000) & (train < 140_000)] for name, train in simulation.truth.trains().items()}
    assert min(row.accuracy for row in compare(inside, sorting.trains(), FS).rows) > 0.95
    assert sorting.excluded.tolist() == [[0, 40_000], [140_000, N]]
    rates = sorting.units["n_spikes"] / 5.0
    np.testing.assert_allclose(sorting.units["firing_rate"], rates)
    first = next(csv.DictReader((tmp_path / "part" / "spikes.csv").read_text().splitlines()))
    assert float(first["time_s"]) == pytest.approx(10.0 + int(first["sample"]) / FS)
    with h5py.File(tmp_path / "part" / "components.h5") as file:
        assert file["components"].shape[1] == N
        assert not file["components"][:, :39_000].any() and file["components"][:, 40_000:140_000].any()


def test_score_and_apply_know_the_range(simulation, whole, tmp_path):
    with h5py.File(whole, "r+") as file:
        for name, samples in simulation.truth.trains().items():
            file.require_dataset(f"truth/{name}/spike_samples", samples.shape, samples.dtype, data=samples)
    words = ("--start-s", 11.0, "--stop-s", 16.0, "--device", "cpu", "--quiet")
    assert spikecrsae("sort", whole, "-o", tmp_path / "part", *words).exit_code == 0
    result = spikecrsae("score", tmp_path / "part", "--truth", whole, "--json")
    assert "from 11 to 16 s" in result.stderr
    rows = json.loads(result.stdout)["one_to_one"]
    assert min(row["recall"] for row in rows) > 0.85
    inside = sum(int(((t >= 20_000) & (t < 120_000)).sum()) for t in simulation.truth.trains().values())
    assert sum(row["n_truth"] for row in rows) == inside
    assert spikecrsae("apply", tmp_path / "part", whole, "-o", tmp_path / "again", *words).exit_code == 0
    assert (tmp_path / "again" / "spikes.csv").read_bytes() == (tmp_path / "part" / "spikes.csv").read_bytes()
    assert spikecrsae("apply", tmp_path / "part", whole, "-o", tmp_path / "all", *words[4:]).exit_code == 0
    assert len(read_sorting(tmp_path / "all").spikes) > 1.3 * len(read_sorting(tmp_path / "part").spikes)


def test_a_range_is_sorted_as_the_part_alone(simulation):
    recording = replace(recording_from_array(simulation.traces, FS), start_time_s=3.0)
    part = recording_from_array(simulation.traces[30_000:130_000], FS)
    outcome = sort_group(recording.between(4.5, 9.5), CONFIG)
    alone = sort_group(part, CONFIG)
    np.testing.assert_array_equal(outcome.sorting.spikes["sample"], alone.sorting.spikes["sample"] + 30_000)
    assert outcome.input_checksum == alone.input_checksum
    assert outcome.sorting.example_start == alone.sorting.example_start + 30_000
    np.testing.assert_array_equal(outcome.sorting.example, alone.sorting.example)


def test_what_is_left_out_stands_on_the_same_clock(simulation):
    config = CONFIG.with_values({"preprocess": {"exclude_s": "0-1,4-4.5"}})
    recording = recording_from_array(simulation.traces, FS).between(2.0, 7.0)
    sorting = sort_group(recording, config).sorting
    assert sorting.excluded.tolist() == [[0, 40_000], [79_940, 90_060], [140_000, N]]
    assert not np.any((sorting.spikes["sample"] >= 80_000) & (sorting.spikes["sample"] < 90_000))
    with pytest.raises(UsageError, match="leaves nothing between"):
        sort_group(recording, CONFIG.with_values({"preprocess": {"exclude_s": "1-7.5"}}))


def test_a_range_reads_nothing_else(simulation):
    asked = []

    def read(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return simulation.traces[start:stop]

    recording = replace(recording_from_array(simulation.traces, FS), read_raw=read).between(1.0, 4.0)
    sort_group(recording, CONFIG)
    assert min(start for start, _ in asked) == 20_000 and max(stop for _, stop in asked) == 80_000


@pytest.mark.parametrize(
    ("start", "stop"), [(9.0, None), (18.0, None), (14.0, 14.0), (15.0, 12.0), (None, 10.0), (None, 19.0)]
)
def test_a_range_that_is_no_part(whole, start, stop):
    with pytest.raises(UsageError, match="lasts from 10 to 18 s"):
        open_recording(whole, start_s=start, stop_s=stop)


def test_a_range_of_a_session_goes_through_its_files(session):
    recording = open_session(session, start_s=12.0, stop_s=15.0)
    assert recording.time_range == (40_000, 100_000)
    part = recording.in_range()
    assert part.n_samples == 60_000 and part.start_time_s == 12.0
    assert [(p.first, p.n_samples, p.start_time_s) for p in part.parts] == [(0, 30_000, 12.0), (30_000, 30_000, 113.5)]
    np.testing.assert_array_equal(part.traces(29_000, 31_000), recording.traces(69_000, 71_000))
    assert gaps_from_the_start("", recording).tolist() == [[30_000, 30_000]]
    recording.close()
    recording = open_session(session, stop_s=13.0)
    assert len(recording.in_range().parts) == 1 and gaps_from_the_start("", recording).shape == (0, 2)
    recording.close()


def test_a_range_may_stand_in_the_side_file_but_not_of_one_file_among_several(tmp_path):
    paths = [write(tmp_path / name, np.zeros((20_000, 2), np.int16), 0.0) for name in ("a.h5", "b.h5")]
    (tmp_path / "b.h5.toml").write_text("start_s = 0.25\nstop_s = 0.5\n")
    recording = open_recording(paths[1])
    assert recording.time_range == (5000, 10_000)
    recording.close()
    with pytest.raises(UsageError, match=r"b\.h5\.toml"):
        open_session(paths)
    with pytest.raises(UsageError, match="start_s"):
        open_recording(paths[0], start_s=float("nan"))


def test_info_tells_the_range_and_the_files(session):
    document = json.loads(spikecrsae("info", session[0], "--start-s", 11, "--json").stdout)
    assert document["time_range_s"] == [11.0, 13.5] and document["parts"] == []
    assert "11 s, 13.5 s" in spikecrsae("info", session[0], "--start-s", 11).stdout


# ---- several segments of one file


def test_segments_follow_one_another(tmp_path):
    written = files.open_ephys(tmp_path, recordings=3)
    recording = open_recording(written.path, channels="0,2")
    assert recording.n_samples == 3 * files.N_SAMPLES
    assert [part.start_time_s for part in recording.parts] == pytest.approx([2.0, 4.0, 6.0])
    assert [part.first for part in recording.parts] == [0, files.N_SAMPLES, 2 * files.N_SAMPLES]
    assert [part.name for part in recording.parts] == [f"{written.path}, segment {i}" for i in range(3)]
    (note,) = [note for note in recording.notes if "3 segments" in note]
    assert "--segment" in note and "1 (3.000 s from 4.000 s)" in note
    seam = files.N_SAMPLES
    np.testing.assert_allclose(
        recording.traces(seam - 5, seam + 5), np.concatenate([written.traces[-5:], written.traces[:5]])[:, [0, 2]], rtol=1e-5
    )
    alone = open_recording(written.path, segment=2, stop_s=7.0)
    assert alone.parts == () and alone.time_range == (0, 20_000)


def test_segments_of_files_of_a_session_are_all_parts(tmp_path):
    paths = [files.open_ephys(tmp_path, recordings=2, name=name).path for name in ("one", "two")]
    recording = open_session(paths, start_s=3.0)
    assert [part.first for part in recording.parts] == [k * files.N_SAMPLES for k in range(4)]
    assert [part.name.split(",")[0] for part in recording.parts] == [str(paths[0])] * 2 + [str(paths[1])] * 2
    assert recording.time_range == (20_000, 4 * files.N_SAMPLES)
