"""Known spikes in every form, the detection on an intracellular channel, and what is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from helpers import exchange_files as exchange
from helpers import recording_files as files

from spikecrsae.data.recording import recording_from_array
from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers import open_recording, read_truth

FS = 10_000.0


def assert_trains(trains: dict, expected: dict) -> None:
    assert list(trains) == list(expected)
    for name, samples in expected.items():
        assert trains[name].dtype == np.int64
        np.testing.assert_array_equal(trains[name], samples)


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def refused(path: Path, *words: str, fs: float | None = FS, **options) -> None:
    with pytest.raises(InputError) as caught:
        read_truth(path, fs, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


@pytest.fixture
def recording():
    """One second at FS, with its own start time."""
    return recording_from_array(np.zeros((10_000, 1)), FS, start_time_s=5.0)


# MATLAB


def write_mat(path: Path, version: str, **variables) -> Path:
    """Vectors, matrices, texts, structs (dict) and cells (list) as MATLAB 5 or 7.3 stores them."""
    if version == "5":
        scipy.io.savemat(path, {name: as_cell(value) for name, value in variables.items()})
        return path
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in variables.items():
            for field, inner in value.items() if isinstance(value, dict) else [("", value)]:
                place = f"{name}/{field}".rstrip("/")
                if not isinstance(inner, list):
                    exchange.matlab_variable(file, place, inner)
                    continue
                stored = [file.create_dataset(f"#refs#/{place}{k}", data=np.atleast_2d(v).T) for k, v in enumerate(inner)]
                file.create_dataset(place, data=np.array([[x.ref] for x in stored], h5py.ref_dtype))
                file[place].attrs["MATLAB_class"] = np.bytes_("cell")
    return path


def as_cell(value):
    if not isinstance(value, list):
        return value
    cell = np.empty((1, len(value)), object)
    for k, one in enumerate(value):
        cell[0, k] = one
    return cell


SPIKES, NEURONS = np.array([10.0, 30.0, 500.0]), np.array([2.0, 1.0, 2.0])


TWO = {"1": [30], "2": [10, 500]}


@pytest.mark.parametrize("version", ["5", "7.3"])
@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"cluster_class": np.c_[[0, 1, 2, 2], [0.5, 3.0, 1.0, 50.0]], "spikes": np.zeros((4, 64))}, TWO),
        (
            {
                "data": np.zeros(9999),
                "samplingInterval": np.array(0.05),
                "spike_times": [2 * SPIKES],
                "spike_class": [NEURONS, 0 * NEURONS, 0 * NEURONS],
            },
            TWO,
        ),
        (
            {
                "spikes": {"spiketimes": np.float32(SPIKES / FS), "assigns": NEURONS, "trials": np.ones(3)},
                "time": np.arange(9.0),
            },
            TWO,
        ),
        ({"spikeTimes": [np.array([30.0]), np.array([10.0, 500.0])], "t": np.arange(9.0) / FS}, TWO),
        ({"spt": SPIKES, "text": "words"}, {"spt": [10, 30, 500]}),
        ({"spike_times_ms": SPIKES / 10, "unit": NEURONS}, TWO),
        ({"sample": SPIKES, "time_s": SPIKES / FS, "unit": NEURONS, "sampling_frequency": np.array(FS)}, TWO),
    ],
    ids=["wave_clus", "Quiroga's simulation", "UltraMegaSort", "a cell of neurons", "spt", "ms by the name", "our export"],
)
def test_matlab(tmp_path, version, variables, expected):
    assert_trains(read_truth(write_mat(tmp_path / "truth.mat", version, **variables), FS), expected)


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_what_a_matlab_file_does_not_say_is_told(tmp_path, version, caplog, recording):
    path = write_mat(tmp_path / "truth.mat", version, time=np.arange(9.0), gtTimes=SPIKES, odd="x")
    refused(path, "no known spikes", "--truth-column", "gtTimes")
    assert_trains(read_truth(path, FS, column="GTTIMES", time_unit="ms"), {"gtTimes": [100, 300, 5000]})
    assert not caplog.text
    read_truth(path, FS, column="gtTimes")
    assert "does not say in what gtTimes counts; its whole numbers are read as samples" in caplog.text
    with pytest.raises(UsageError, match="has no such variable; it has"):
        read_truth(path, FS, column="none")
    refused(write_mat(path, version, spike_times=SPIKES + 0.5), "--truth-unit ms", recording=recording)
    refused(written(path, "no MATLAB"), "cannot be read")


# Files of simulations and sortings


def test_hdf5_truth(tmp_path):
    path = tmp_path / "truth.h5"
    with h5py.File(path, "w") as file:
        file["truth/b/spike_samples"] = np.array([30, 10])
        file["truth/a/spike_samples"] = np.array([5])
        file["traces"] = np.zeros((100, 1))
        file["traces"].attrs["sampling_frequency"] = FS
    assert_trains(read_truth(path, FS), {"a": [5], "b": [10, 30]})
    assert_trains(read_truth(path, 3 * FS, unit="b"), {"b": [30, 90]})
    refused(path, "no unit 'c'", "a, b", unit="c")


def test_mearec_truth(tmp_path):
    path = files.mearec(tmp_path).path
    assert_trains(read_truth(path, files.FS), {"0": [2000, 10_000], "1": [5000]})


def test_nwb_units_count_from_the_recordings_start(tmp_path):
    path = files.nwb(tmp_path).path
    recording = open_recording(path)
    trains = read_truth(path, files.FS, recording=recording)
    recording.close()
    assert_trains(trains, {"5": [2000, 4000, 6000], "9": [3000]})


@pytest.mark.parametrize(
    ("name", "values", "told"),
    [
        ("id", [5, 5], "several units of its Units table have the id 5"),
        ("id", [5], "spike_times_index does not divide 4 spikes among 1 units"),
        ("spike_times_index", [3, 1], "the file is damaged"),
        ("spike_times_index", [3, 9], "the file is damaged"),
        ("spike_times_index", [3, 3], "the file is damaged"),
        ("spike_times_index", [1.5, 4.0], "the file is damaged"),
        ("spike_times_index", [-1, 4], "the file is damaged"),
    ],
)
def test_nwb_units_that_cannot_be_told_apart_are_refused(tmp_path, name, values, told):
    path = files.nwb(tmp_path).path
    with h5py.File(path, "r+") as file:
        del file["units"][name]
        file["units"][name] = values
    refused(path, told, fs=files.FS)


def test_an_nwb_index_of_any_whole_numbers_is_read(tmp_path):
    path = files.nwb(tmp_path).path
    expected = read_truth(path, files.FS)
    with h5py.File(path, "r+") as file:
        ends = file["units/spike_times_index"][()]
        del file["units/spike_times_index"]
        file["units/spike_times_index"] = ends.astype(np.uint64)
    assert_trains(read_truth(path, files.FS), expected)


def test_spikes_of_a_unit_must_be_one_list(tmp_path):
    path = tmp_path / "truth.h5"
    with h5py.File(path, "w") as file:
        file["truth/a/spike_samples"] = np.arange(6).reshape(2, 3)
    refused(path, "shape (2, 3)", "one list")


def test_phy_folder(tmp_path):
    np.save(tmp_path / "spike_times.npy", np.array([[10], [20], [30]], np.uint64))
    refused(tmp_path, "spike_clusters.npy")
    np.save(tmp_path / "spike_clusters.npy", np.array([7, 3, 7], np.int32))
    assert_trains(read_truth(tmp_path, FS), {"3": [20], "7": [10, 30]})
    written(tmp_path / "params.py", f"dat_path = 'x.dat'\nsample_rate = {FS / 2}\nhp_filtered = True\n")
    for path in (tmp_path, tmp_path / "params.py"):
        assert_trains(read_truth(path, FS), {"3": [40], "7": [20, 60]})
    np.save(tmp_path / "spike_clusters.npy", np.array([7, 3], np.int32))
    refused(tmp_path, "3 spike times and 2 cluster labels")


def test_our_own_results(tmp_path):
    table = "unit,sample,time_s,amplitude\n2,100,5.01,80.5\n1,250,5.025,60.0\n2,300,5.03,81.0\n"
    written(tmp_path / "spikes.csv", table)
    expected = {"1": [250], "2": [100, 300]}
    assert_trains(read_truth(tmp_path, FS), expected)
    assert_trains(read_truth(tmp_path / "spikes.csv", FS), expected)
    (tmp_path / "spikes.csv").unlink()
    with h5py.File(tmp_path / "sorting.h5", "w") as file:
        rows = [(100, 2, 80.5, 0.1), (250, 1, 60.0, 0.0), (300, 2, 81.0, 0.2)]
        file["spikes"] = np.array(rows, [("sample", "i8"), ("unit", "i4"), ("amplitude", "f4"), ("shift", "f4")])
        file.attrs.update({"format_version": 1, "sampling_frequency": FS})
    assert_trains(read_truth(tmp_path, FS), expected)
    assert_trains(read_truth(tmp_path / "sorting.h5", FS), expected)
    with pytest.raises(InputError, match="is a sorting"):
        open_recording(tmp_path / "sorting.h5")


# Tables and arrays


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("spike_time_s\n0.2\n0.1\n", {"spikes": [1000, 2000]}),
        ("sample\n7\n9\n", {"spikes": [7, 9]}),
        ("\ufeff# a remark\nunit,spike_time_s\nB,0.00124\nA,0.5\nB,0.3\n", {"A": [5000], "B": [12, 3000]}),
        ("sample\tunit\n3\t1\n", {"1": [3]}),
        ("sample;unit\n3.0;1\n", {"1": [3]}),
        ("Time_S\n0.2\n", {"spikes": [2000]}),
        ("times\n0.2\n0.3\n", {"spikes": [2000, 3000]}),
        ("TIME_MS,Neuron\n0.2,b\n1000,a\n", {"a": [10_000], "b": [2]}),
        ("Cluster,Spike Time (s)\n4,0.2\n", {"4": [2000]}),
        ("spikeTimes [ms]\n20\n", {"spikes": [200]}),
        ("width_ms,time_s,sample\n0.3,5.2,2000\n", {"spikes": [2000]}),
        ("0.2\n0.5\n", {"spikes": [2000, 5000]}),
        ("2000\n5000\n", {"spikes": [2000, 5000]}),
        ("% MATLAB\n 2.0000000e-01\n 5.0000000e-01\n", {"spikes": [2000, 5000]}),
        ("unit time_s\n1 0.2\n2 0.5\n", {"1": [2000], "2": [5000]}),
    ],
)
def test_tables(tmp_path, text, expected):
    path = tmp_path / "spikes.csv"
    path.write_text(text, encoding="utf-8")
    assert_trains(read_truth(path, FS), expected)


@pytest.mark.parametrize(
    ("text", "asked", "expected"),
    [
        ("a,b\n1.5,x\n", {"column": "A", "time_unit": "ms"}, {"spikes": [15]}),
        ("a,b\nx,0.5\n", {"column": "1"}, {"spikes": [5000]}),
        ("time\n20\n", {"time_unit": "ms"}, {"spikes": [200]}),
        ("time_s\n20\n", {"time_unit": "samples"}, {"spikes": [20]}),
        ("7,0.2\n3,0.5\n", {"column": "1"}, {"3": [5000], "7": [2000]}),
        ("0.2 7\n0.5 3\n", {"column": "0"}, {"3": [5000], "7": [2000]}),
        ("20\n", {"time_unit": "ms"}, {"spikes": [200]}),
    ],
)
def test_the_column_and_the_unit_can_be_given(tmp_path, text, asked, expected):
    assert_trains(read_truth(written(tmp_path / "spikes.csv", text), FS, **asked), expected)


def test_whole_numbers_without_a_header_are_samples_and_that_is_said(tmp_path, caplog):
    read_truth(written(tmp_path / "spikes.txt", "7\n9\n"), FS)
    assert "no header; its whole numbers are read as samples" in caplog.text


def test_a_column_or_unit_that_is_not_there_or_not_asked_for_is_refused(tmp_path):
    table, folder = written(tmp_path / "spikes.csv", "time_s\n0.2\n"), tmp_path / "truth.h5"
    with h5py.File(folder, "w") as file:
        file["truth/a/spike_samples"] = np.array([5])
    for path, asked, words in (
        (table, {"column": "when"}, "--truth-column when does not exist; .* has the columns time_s"),
        (table, {"column": "1"}, "--truth-column 1 does not exist"),
        (written(tmp_path / "bare.csv", "1,2\n"), {"column": "2"}, "number of a column, from 0 to 1"),
        (folder, {"time_unit": "ms"}, "--truth-unit is for tables of spike times"),
        (folder, {"column": "a"}, "--truth-column is for tables of spike times"),
    ):
        with pytest.raises(UsageError, match=words):
            read_truth(path, FS, **asked)


def test_arrays(tmp_path):
    path = tmp_path / "cell.npy"
    np.save(path, np.array([3, 8]))
    assert_trains(read_truth(path, FS), {"cell": [3, 8]})
    np.save(path, np.array([[0.1], [0.2]]))
    assert_trains(read_truth(path, FS), {"cell": [1000, 2000]})
    assert_trains(read_truth(path, FS, time_unit="ms"), {"cell": [1, 2]})
    np.save(path, np.zeros((3, 3)))
    refused(path, "(3, 3)")
    np.save(path, np.array(["a"]))
    refused(path, "dtype")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["empty"]),
        ("sample\n", ["no spike"]),
        ("time,cluster\n1,2\n", ["time, cluster", "spike_time_s"]),
        ("sample\n0.25\n", ["seconds"]),
        ("sample\n-4\n", ["sample -4"]),
        ("spike_time_s\nnan\n", ["without a finite value"]),
        ("spike_time_s\ninf\n", ["without a finite value"]),
        ("spike_time_s\nsoon\n", ["soon"]),
        ("sample,unit\n1,2\n3\n", ["row 2"]),
        ("sample\n10000\n", ["beyond", "seconds or samples"]),
        ("spike_time_s\n2.5\n", ["25000", "seconds or samples", "give --truth-unit ms."]),
        ("times\n900.5\n", ["beyond", "give --truth-unit ms."]),
        ("time_s\n900\n", ["beyond", "give --truth-unit ms or samples."]),
        ("1.5,2\n", ["2 columns and no header", "--truth-column"]),
        ("amplitude,start_time_s\n1.5,0.2\n", ["amplitude, start_time_s", "--truth-column"]),
    ],
)
def test_tables_that_are_refused(tmp_path, recording, text, words):
    refused(written(tmp_path / "bad.csv", text), *words, recording=recording)


def test_paths_that_hold_no_truth(tmp_path):
    refused(tmp_path / "missing.csv", "does not exist")
    refused(tmp_path, "no known spikes")
    refused(written(tmp_path / "a.pdf", "x"), "no known spikes")
    refused(files.hdf5_unsigned(tmp_path).path, "truth/<name>/spike_samples", "traces")


def test_seconds_need_a_sampling_frequency(tmp_path):
    refused(written(tmp_path / "t.csv", "spike_time_s\n1\n"), "sampling frequency", fs=None)
    assert_trains(read_truth(written(tmp_path / "s.csv", "sample\n1\n"), None), {"s": [1]})


# Real files


def test_real_truth(data_dir):
    hc1 = read_truth(data_dir / "hc1_d533101_5s.h5", FS)["intracellular"]
    table = read_truth(data_dir / "hc1_d533101_5s_truth.csv", FS)["hc1_d533101_5s_truth"]
    np.testing.assert_array_equal(hc1, table)
    assert len(read_truth(data_dir / "hc1_tetrode_dev.h5", FS)["intracellular"]) == 425
    assert len(read_truth(data_dir / "mearec_tetrode6.h5", 32_000.0)) == 6


def test_real_nwb_units_sit_on_the_spikes(data_dir):
    """The mean of each unit's waveforms has its largest deflection near the spike's time."""
    recording = open_recording(data_dir / "synth_tetrode5.nwb")
    for name, samples in read_truth(data_dir / "synth_tetrode5.nwb", 30_000.0, recording=recording).items():
        mean = np.mean([recording.traces(s - 60, s + 60) for s in samples[5:105]], axis=0)
        assert abs(np.argmax(np.abs(mean).max(axis=1)) - 60) <= 10, name
    recording.close()
