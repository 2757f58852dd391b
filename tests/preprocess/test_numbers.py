"""Numbers that mean something: samples and seconds are the same in every file, and what is counted in other units is
noticed."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.command_line import spikecrsae
from helpers.corpus import FS, content

from spikecrsae.data.recording import recording_from_array
from spikecrsae.preprocess import sanity
from spikecrsae.results.folder import read_sorting

pytestmark = pytest.mark.slow

START_S, SECOND_START_S = 100.5, 7.25
#: First sample of the signal in the long file, and how many samples follow; the signal crosses sample 2**31.
LONG_FIRST, LONG_SAMPLES = 2**31 - 10_000, 40_960


def written(path: Path, counts: np.ndarray, start_time_s: float = 0.0) -> Path:
    with h5py.File(path, "w") as file:
        file["traces"] = counts
        facts = {"sampling_frequency": FS, "units": "uV", "gain": 0.2, "start_time_s": start_time_s}
        file["traces"].attrs.update(facts)
    return path


def times_of(folder: Path, start_time_s: float) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """(samples, units) in time order, as each file of the result and of its exports says them."""
    from pynwb import NWBHDF5IO

    sorting = read_sorting(folder)
    found = {"sorting.h5": (sorting.spikes["sample"], sorting.spikes["unit"])}
    with (folder / "spikes.csv").open() as file:
        rows = list(csv.DictReader(file))
    units = np.array([int(row["unit"]) for row in rows])
    found["spikes.csv, sample"] = np.array([int(row["sample"]) for row in rows]), units
    found["spikes.csv, time_s"] = _sampled([float(row["time_s"]) for row in rows], start_time_s), units
    phy = folder / "phy"
    found["phy"] = np.load(phy / "spike_times.npy").ravel(), np.load(phy / "spike_clusters.npy").ravel()
    with NWBHDF5IO(str(folder / "sorting.nwb"), "r") as io:
        table = io.read().units
        trains = [_sampled(table["spike_times"][i], start_time_s) for i in range(len(table))]
        names = [int(name) for name in table.id[:]]
    merged = np.concatenate(trains)
    order = np.lexsort((np.repeat(names, [len(train) for train in trains]), merged))
    found["nwb"] = merged[order], np.repeat(names, [len(train) for train in trains])[order]
    return found


def _sampled(seconds, start_time_s: float) -> np.ndarray:
    """Samples of times in seconds, which must be whole ones to a hundredth."""
    exact = (np.asarray(seconds, np.float64) - start_time_s) * FS
    np.testing.assert_allclose(exact, np.round(exact), atol=0.01)
    return np.round(exact).astype(np.int64)


def assert_all_alike(found: dict[str, tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """Samples and units in every file as in sorting.h5; returns the samples."""
    samples, units = found["sorting.h5"]
    assert len(samples) > 20
    expected = sorted(zip(samples.tolist(), units.tolist(), strict=True))
    for name, (other, whose) in found.items():
        assert sorted(zip(other.tolist(), whose.tolist(), strict=True)) == expected, name
    return samples


def assert_on_the_spikes(samples: np.ndarray, units: np.ndarray, counts: np.ndarray, first: int = 0) -> None:
    """The mean of the stored numbers around the spikes of each unit is largest at the spike; counts[0] is sample `first`."""
    for unit in np.unique(units):
        places = samples[units == unit] - first
        places = places[(places >= 30) & (places < len(counts) - 30)]
        mean = np.mean([counts[place - 20 : place + 21].astype(float) for place in places], axis=0)
        assert abs(int(np.abs(mean - np.median(mean, axis=0)).max(axis=1).argmax()) - 20) <= 1, unit


def test_a_session_with_a_range_and_a_gap_has_the_same_times_everywhere(tmp_path):
    """Two files with clocks of their own, from a time within the first, less an interval."""
    counts = content()
    files = [
        written(tmp_path / "a.h5", counts, START_S),
        written(tmp_path / "b.h5", counts[::-1].copy()[:30_000], SECOND_START_S),
    ]
    out = tmp_path / "day"
    options = (
        "--start-s",
        START_S + 0.25,
        "--exclude-s",
        f"{START_S + 1.0}-{START_S + 1.2}",
        "--export",
        "phy",
        "--export",
        "nwb",
    )
    result = spikecrsae("sort", *files, "-o", out, *options)
    assert result.exit_code == 0, result.stderr
    samples = assert_all_alike(times_of(out, START_S))
    assert samples.min() >= 0.25 * FS
    assert not np.any((samples >= 1.0 * FS) & (samples < 1.2 * FS))
    assert samples.max() >= len(counts), "the second file has spikes as well"
    both = np.concatenate([counts, counts[::-1][:30_000]])
    sorting = read_sorting(out)
    assert_on_the_spikes(samples, sorting.spikes["unit"], both)
    with (out / "spikes.csv").open() as file:
        for row in csv.DictReader(file):
            sample, second = int(row["sample"]), int(row["file"])
            expected = SECOND_START_S + (sample - len(counts)) / FS if second else START_S + sample / FS
            assert second == (sample >= len(counts))
            assert float(row["file_time_s"]) == pytest.approx(expected, abs=0.01 / FS)


def test_samples_beyond_2_to_the_31(tmp_path):
    """A sparse file of four gigabytes, of which the last two seconds hold signal."""
    path, counts = tmp_path / "long.dat", content(LONG_SAMPLES)[:, :1]
    with path.open("wb") as file:
        file.seek(2 * LONG_FIRST)
        file.write(counts.tobytes())
    if path.stat().st_blocks * 512 > 2**28:
        pytest.skip("this file system does not keep holes in files")
    raw = ("--sampling-frequency", FS, "--n-channels", 1, "--dtype", "int16", "--gain", 0.2)
    out = tmp_path / "out"
    options = ("--start-s", LONG_FIRST / FS, "--export", "phy", "--export", "nwb")
    result = spikecrsae("sort", path, *raw, *options, "-o", out)
    assert result.exit_code == 0, result.stderr
    samples = assert_all_alike(times_of(out, 0.0))
    assert samples.min() >= LONG_FIRST and samples.max() > 2**31
    sorting = read_sorting(out)
    assert sorting.n_samples == LONG_FIRST + LONG_SAMPLES
    assert_on_the_spikes(samples, sorting.spikes["unit"], counts, LONG_FIRST)
    truth = tmp_path / "truth.npy"
    np.save(truth, sorting.spike_samples(int(sorting.unit_ids[0])))
    scored = spikecrsae("score", out, "--truth", truth, "--json")
    assert json.loads(scored.stdout)["one_to_one"][0]["accuracy"] == 1.0
    facts = json.loads(spikecrsae("info", path, *raw, "--start-s", LONG_FIRST / FS, "--json").stdout)
    assert (facts["samples"], facts["time_range_s"][0]) == (LONG_FIRST + LONG_SAMPLES, pytest.approx(LONG_FIRST / FS))


# ---- truth in other units


@pytest.fixture(scope="module")
def truth_of(short_sort) -> tuple[Path, np.ndarray]:
    """A result folder, and the samples of its first unit."""
    sorting = read_sorting(short_sort.folder)
    return short_sort.folder, sorting.spike_samples(int(sorting.unit_ids[0]))


@pytest.mark.parametrize(
    ("column", "per_sample", "said"),
    [
        ("sample", "ms", "read as milliseconds"),
        ("sample", "10 kHz", "read as samples at 10000 Hz"),
        ("spike_time_s", "samples in 40 kHz", "read as samples at"),
        ("sample", "elsewhere", "does the truth belong to this recording"),
    ],
)
def test_truth_that_counts_in_something_else_is_noticed(truth_of, tmp_path, column, per_sample, said):
    folder, samples = truth_of
    fs = read_sorting(folder).sampling_frequency
    values = {
        "ms": np.round(samples / fs * 1000).astype(int),
        "10 kHz": np.round(samples / fs * 10_000).astype(int),
        "samples in 40 kHz": samples / 40_000,
        "elsewhere": np.unique(samples // 2 + 37 * np.arange(len(samples)) % 4001),
    }[per_sample]
    path = tmp_path / "truth.csv"
    path.write_text(f"{column}\n" + "\n".join(map(str, values)) + "\n")
    result = spikecrsae("score", folder, "--truth", path, "-o", tmp_path)
    assert result.exit_code == 0, result.stderr
    (warning,) = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    assert "no known unit agrees" in warning and said in warning
    document = json.loads(spikecrsae("score", folder, "--truth", path, "--json", "-o", tmp_path / "other").stdout)
    assert document["warnings"] == [warning.removeprefix("Warning: ").removesuffix(".")]


def test_truth_that_agrees_is_not_doubted(truth_of, tmp_path):
    folder, samples = truth_of
    path = tmp_path / "truth.npy"
    np.save(path, samples)
    result = spikecrsae("score", folder, "--truth", path, "-o", tmp_path)
    assert result.exit_code == 0 and "Warning" not in result.stderr


@pytest.mark.parametrize(
    "text",
    [
        "spike_time_s\n0,5\n0,75\n",
        "spike_time_s;unit\n0,5;A\n1,25;B\n",
        'unit,spike_time_s\nA,"0,5"\n',
        "unit,spike_time_s\nA,0,5\nA,0,7\n",
    ],
)
def test_a_decimal_comma_is_called_one(truth_of, tmp_path, text):
    path = tmp_path / "truth.csv"
    path.write_text(text)
    result = spikecrsae("score", truth_of[0], "--truth", path)
    assert result.exit_code == 3
    assert "'0,5' has a decimal comma" in result.stderr and "0.5" in result.stderr and str(path) in result.stderr


def test_unknown_words_of_phy_are_said(short_sort, tmp_path, caplog):
    folder = tmp_path / "phy"
    assert spikecrsae("export", short_sort.folder, "--to", "phy", "-o", folder).exit_code == 0
    clusters = np.unique(np.load(folder / "spike_clusters.npy"))
    rows = [
        f"{clusters[0]}\tgood ",
        f"{clusters[1]}\tgoood",
        "9999\tnonsense",
        *(f"{cluster}\tunsorted" for cluster in clusters[2:]),
    ]
    (folder / "cluster_group.tsv").write_text("cluster_id\tgroup\n" + "\n".join(rows) + "\n")
    with caplog.at_level(logging.WARNING):
        result = spikecrsae("show", folder)
    assert result.exit_code in (0, 3), result.stderr
    from spikecrsae.run.curated import read_curated

    caplog.clear()
    sorting, _ = read_curated(folder)
    (record,) = caplog.records
    assert f"cluster {clusters[1]} 'goood'" in record.getMessage() and "good, mua, noise, unsorted" in record.getMessage()
    assert sorting.units["label"][0] == "single"


# ---- doubts


def test_sound_recordings_are_not_doubted(data_dir):
    sample = Path(__file__).parents[2] / "sample_data" / "tetrode.h5"
    for path in (sample, *(data_dir / name for name in ("hc1_d533101_5s.h5", "mearec_tetrode6.h5", "synth_tetrode5.nwb"))):
        notes = json.loads(spikecrsae("info", path, "--json").stdout)["notes"]
        assert not [note for note in notes if "check" in note or "too short" in note or "header" in note], path


def test_large_pulses_are_no_signed_numbers_read_as_unsigned():
    rng = np.random.default_rng(0)
    counts = rng.normal(0, 50, (200_000, 2)).astype(np.int16)
    assert "unsigned" in " ".join(sanity.of_numbers(recording_from_array(counts.view(np.uint16), FS)))
    counts[::150] += 17_000
    counts[1::150] -= 17_000
    assert "unsigned" not in " ".join(sanity.of_numbers(recording_from_array(counts, FS)))


def test_a_wrong_number_of_real_channels_is_doubted(data_dir):
    facts = ("--sampling-frequency", 15_000, "--dtype", "int16", "--json")
    for n_channels, odd in ((4, False), (2, True), (1, True)):
        result = spikecrsae("info", data_dir / "locust_trial_01.raw", *facts, "--n-channels", n_channels)
        notes = json.loads(result.stdout)["notes"]
        assert any("read as samples" in note for note in notes) == odd, n_channels


@pytest.mark.parametrize("begin", ["header", "click"])
def test_what_stands_before_the_samples_is_doubted(tmp_path, begin):
    """A header that is a whole number of samples long cannot be told from the size of the file."""
    counts = content(round(6 * FS))
    first = (
        np.frombuffer(b"RECORDER" * 16, counts.dtype).reshape(-1, counts.shape[1])
        if begin == "header"
        else counts[:16] * 0 + 20_000
    )
    (tmp_path / "x.dat").write_bytes(np.concatenate([first, counts]).tobytes())
    facts = ("--sampling-frequency", FS, "--dtype", str(counts.dtype), "--n-channels", counts.shape[1], "--json")
    (note,) = json.loads(spikecrsae("info", tmp_path / "x.dat", *facts).stdout)["notes"]
    assert note.startswith("the first 16 samples reach") and "header" in note and "--start-s" in note
    later = json.loads(spikecrsae("info", tmp_path / "x.dat", *facts, "--start-s", 0.1).stdout)["notes"]
    assert not any("header" in note for note in later)


@pytest.mark.parametrize("unit", ["uV", "ADC"])
def test_doubts_name_the_channel_and_the_value(unit):
    recording = recording_from_array(np.zeros((10, 3)), FS, amplitude_unit=unit)
    low, high = sanity.NOISE_UV if unit == "uV" else sanity.NOISE_COUNTS
    assert sanity.of_noise(recording, np.array([low, high, 2 * low])) == ()
    (remark,) = sanity.of_noise(recording, np.array([low, 3.0 * high, 2 * low]))
    assert "channel 1 is" in remark and f"{3.0 * high:.3g} {unit}" in remark
    assert sanity.of_spikes(recording, np.full((1, 3, 5), 4000.0)) == ()
    assert ["9 mV" in remark for remark in sanity.of_spikes(recording, np.full((1, 3, 5), 9000.0))] == [True] * (
        unit == "uV"
    )
