"""Bad input on the command line: one clear line on standard error, its exit code, no traceback, nothing written."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.command_line import refused, spikecrsae

from spikecrsae import sort
from spikecrsae.errors import InputError
from spikecrsae.results.folder import read_sorting
from spikecrsae.simulate import preset_config, simulate, write_simulation

pytestmark = pytest.mark.slow

FS = 20000.0


def noise(n_samples: int = 40_000, n_channels: int = 4) -> np.ndarray:
    return (10 * np.random.default_rng(0).standard_normal((n_samples, n_channels))).astype(np.float32)


def write(path: Path, traces: np.ndarray | None = None, rate: float | None = FS, **datasets) -> Path:
    with h5py.File(path, "w") as file:
        for name, data in (({"traces": traces} if traces is not None else {}) | datasets).items():
            file[name] = data
        if rate is not None:
            file.attrs["sampling_frequency"] = rate
    return path


@pytest.fixture
def sorted_nothing(tmp_path):
    """Sort a file and check that the folder it lies in is as it was."""

    def run(path: Path, *words: str, **expected) -> None:
        before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
        refused(spikecrsae("sort", path), *words, **expected)
        assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before
        assert not (tmp_path / f"{path.name}.sorted").exists()

    return run


def test_a_missing_file(tmp_path, sorted_nothing):
    sorted_nothing(tmp_path / "nowhere.h5", "nowhere.h5")


@pytest.mark.parametrize("command", ["sort", "info"])
def test_the_current_folder_and_the_root(tmp_path, monkeypatch, command):
    (tmp_path / "data" / "deep").mkdir(parents=True)
    write(tmp_path / "data" / "x.h5", noise(100))
    for place, name in (("data", "."), ("data/deep", "..")):
        monkeypatch.chdir(tmp_path / place)
        refused(spikecrsae(command, name), f"{name} is a folder that no reader takes as a whole", "x.h5")
    refused(spikecrsae(command, "/"), "/ is the root of the file system")
    (tmp_path / "data.toml").write_text("nonsense = 1")
    monkeypatch.chdir(tmp_path / "data")
    refused(spikecrsae(command, "."), str(tmp_path / "data.toml"), "nonsense", code=2)


def test_a_name_that_is_not_utf8_is_refused_before_any_work(tmp_path):
    path = write(tmp_path / "bad\udcff.h5", noise())
    result = spikecrsae("sort", path)
    refused(result, r"bad\xff.h5: this path holds bytes that are not UTF-8; rename")
    assert "check" not in result.stderr
    good = path.rename(tmp_path / "good.h5")
    refused(spikecrsae("sort", good, "-o", tmp_path / "\udcff"), "not UTF-8", code=6)
    assert [p.name for p in tmp_path.iterdir()] == ["good.h5"]
    path = good.rename(path)
    assert spikecrsae("batch", path, "-o", tmp_path / "out").exit_code == 7
    assert r"bad\xff.h5" in (tmp_path / "out" / "batch.csv").read_text()
    with pytest.raises(InputError, match="not UTF-8"):
        sort(path)


def test_a_text_file_called_h5(tmp_path, sorted_nothing):
    path = tmp_path / "text.h5"
    path.write_text("these are no traces\n")
    sorted_nothing(path, "text.h5")


def test_an_hdf5_without_traces(tmp_path, sorted_nothing):
    sorted_nothing(write(tmp_path / "empty.h5"), "empty.h5")


def test_an_hdf5_with_two_candidates(tmp_path, sorted_nothing):
    path = write(tmp_path / "two.h5", first=noise(), second=noise())
    refused(spikecrsae("sort", path), "first", "second", "--dataset", code=2)
    sorted_nothing(path, "--dataset", code=2)


def test_no_sampling_rate(tmp_path, sorted_nothing):
    sorted_nothing(write(tmp_path / "rate.h5", noise(), rate=None), "--sampling-frequency")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sample_that_is_no_number(tmp_path, sorted_nothing, value):
    traces = noise()
    traces[31_234, 2] = value
    sorted_nothing(write(tmp_path / "nan.h5", traces), "sample 31234 of channel 2", "--channels")


def write_scaled(path: Path, traces: np.ndarray, **facts) -> Path:
    write(path, traces)
    with h5py.File(path, "r+") as file:
        file["traces"].attrs.update(units="uV", **facts)
    return path


@pytest.mark.parametrize("kind", ["int16", "int64", "float32"])
@pytest.mark.parametrize(("gain", "word"), [(1e300, "gain 1e+300"), (1e-300, "gain 1e-300"), (1e14, "a gain of 1e+14")])
def test_a_gain_that_makes_no_voltages(tmp_path, sorted_nothing, kind, gain, word):
    path = write_scaled(tmp_path / "gain.h5", noise().astype(kind), gain=gain)
    sorted_nothing(path, word, "--gain")
    shown = spikecrsae("info", path)
    assert shown.exit_code == (0 if gain == 1e14 else 3)
    assert "nan" not in shown.output


@pytest.mark.parametrize(("scale", "word"), [(1e-30, "no noise at all"), (1e14, "below 1e+15"), (1e300, "below 1e+15")])
def test_samples_of_no_scale(tmp_path, sorted_nothing, scale, word):
    sorted_nothing(write(tmp_path / "scale.h5", scale * noise().astype(np.float64)), word, "--gain")


@pytest.mark.parametrize("scale", [1e-12, 1e13])
def test_samples_of_a_strange_scale_are_sorted(tmp_path, scale):
    assert spikecrsae("sort", write(tmp_path / "scale.h5", (scale * noise()).astype(np.float32))).exit_code in (0, 5)


def test_whole_numbers_that_only_their_type_makes_large_are_read(tmp_path):
    shown = spikecrsae("info", write_scaled(tmp_path / "wide.h5", (1e6 * noise()).astype(np.int64), gain=1e-6))
    assert shown.exit_code == 0 and "unknown" not in shown.stdout


@pytest.mark.parametrize(("start", "word"), [(np.inf, "inf"), (np.nan, "nan"), (1e300, "1e+300"), ("12:00", "12:00")])
def test_a_start_time_that_is_no_time(tmp_path, sorted_nothing, start, word):
    sorted_nothing(write_scaled(tmp_path / "start.h5", noise(), start_time_s=start), word, "start", "orrect ")


def test_a_time_beyond_all_clocks(tmp_path):
    path = write(tmp_path / "noise.h5", noise())
    refused(spikecrsae("sort", path, "--stop-s", 1e308), "stop_s = 1e+308", "1e+12", code=2)


def test_no_usable_channel(tmp_path, sorted_nothing):
    traces = np.clip(noise(n_channels=2), -3, 3)
    traces[:, 0] = 5
    sorted_nothing(write(tmp_path / "dead.h5", traces), "channel 0 is flat", "channel 1 is saturated", "no usable channel")


def test_shorter_than_a_template(tmp_path, sorted_nothing):
    sorted_nothing(write(tmp_path / "short.h5", noise(30)), "30 samples", "too short")


def test_too_short_to_learn_its_noise(tmp_path, sorted_nothing):
    sorted_nothing(write(tmp_path / "short.h5", noise(300)), "short.h5", "longer recording")


def test_raw_binary_without_its_facts(tmp_path, sorted_nothing):
    path = tmp_path / "raw.dat"
    noise().astype(np.int16).tofile(path)
    sorted_nothing(path, "--n-channels", code=2)


def test_a_filter_above_nyquist(tmp_path):
    path = write(tmp_path / "slow.h5", noise(), rate=5000.0)
    refused(spikecrsae("sort", path, "--highpass-hz", 3000), "Nyquist", "--highpass-hz")
    assert not (tmp_path / "slow.h5.sorted").exists()


def test_an_earlier_result_survives_bad_input(tmp_path):
    path = write(tmp_path / "noise.h5", noise(100_000))
    assert spikecrsae("sort", path, "--quiet").exit_code == 5
    folder = tmp_path / "noise.h5.sorted"
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    refused(spikecrsae("sort", tmp_path / "other.h5", "-o", folder, "--overwrite"), "other.h5")
    refused(spikecrsae("sort", path), "exists and is not overwritten", code=6)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


def test_an_earlier_result_survives_a_run_that_fails_in_the_middle(folder, tmp_path):
    traces = noise()
    traces[-1, 2] = np.nan
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    refused(spikecrsae("sort", write(tmp_path / "bad.h5", traces), "-o", folder, "--overwrite"), "nan", "39999")
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    assert not folder.with_name(folder.name + ".unfinished").exists()


def test_a_common_reference_of_one_channel(tmp_path):
    path = write(tmp_path / "one.h5", noise(n_channels=1))
    refused(spikecrsae("sort", path, "--common-reference", "median"), "common_reference", "two")


def test_pure_noise_is_no_error_but_5(tmp_path):
    path = write(tmp_path / "noise.h5", noise(200_000))
    result = spikecrsae("sort", path)
    assert result.exit_code == 5
    assert "No unit was found" in result.stderr.splitlines()[-1]
    sorting = read_sorting(tmp_path / "noise.h5.sorted")
    assert sorting.n_units == 0
    assert sorting.n_samples == 200_000


# ---- with true spikes


@pytest.fixture(scope="module")
def simulation():
    values = {"n_units": 2, "n_bursting": 0, "duration_s": 8.0, "seed": 3, "snr_low": 12.0, "n_channels": 2}
    return simulate(preset_config("tetrode", **values))


@pytest.fixture(scope="module")
def folder(simulation, tmp_path_factory) -> Path:
    """A result folder with tetrode.h5 beside it."""
    place = tmp_path_factory.mktemp("truth")
    write_simulation(simulation, place / "pair.h5")
    assert spikecrsae("sort", place / "pair.h5", "--quiet", "--epochs", 3).exit_code == 0
    return place / "pair.h5.sorted"


@pytest.mark.parametrize(
    ("column", "factor"), [("spike_time_s", 1.0), ("sample", FS)], ids=["samples for seconds", "at another rate"]
)
def test_truth_in_the_wrong_unit(simulation, folder, tmp_path, column, factor):
    samples = simulation.truth.spike_samples(0)
    path = tmp_path / "truth.csv"
    path.write_text("\n".join([column, *(str(int(s * factor)) for s in samples)]) + "\n")
    refused(spikecrsae("score", folder, "--truth", path), "truth.csv")
    assert not (folder / "tradeoff.csv").exists()


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ("sample,unit\n5,1,2", "row 1 has 3 values for 2 columns"),
        ("sample\n9223372036854775808", "beyond the end"),
        ("sample\n" + "9" * 400, "beyond the end"),
        ("spike_time_s\n1e300", "1e+300 s, beyond the end"),
        ("spike_time_s\n-1e300", "before the recording starts"),
        ("spike_time_s\nnan\n1.0", "has 1 spike time without"),
        ("spike_time_s\nnan\ninf", "has 2 spike times without"),
    ],
)
def test_truth_with_times_that_are_none(folder, tmp_path, table, word):
    path = tmp_path / "truth.csv"
    path.write_text(table + "\n")
    refused(spikecrsae("score", folder, "--truth", path), "truth.csv", word)


def test_a_truth_that_is_no_group(folder, tmp_path):
    refused(spikecrsae("score", folder, "--truth", write(tmp_path / "t.h5", truth=np.arange(5))), "no truth/<name>")


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        (
            "p.json",
            '{"probes": [{"si_units": "lightyears", "contact_positions": [[0, 0]]}]}',
            "'lightyears'; they must be in",
        ),
        ("p.json", '{"probes": [{}]}', "it lacks 'contact_positions'"),
        ("p.json", '{"probes": [', "from line 1 on"),
        ("p.prb", "channel_groups = {0: 1", "from line 1 on"),
        ("p.prb", "x = 1", "it lacks 'channel_groups'"),
        ("p.prb", "channel_groups = {0: 5}", "nor a .prb with a literal channel_groups."),
    ],
)
def test_a_probe_file_that_is_none(tmp_path, name, text, word):
    (tmp_path / name).write_text(text)
    result = spikecrsae("info", write(tmp_path / "noise.h5", noise()), "--probe", tmp_path / name)
    refused(result, name, word)
    assert "Error:" not in result.stderr.removeprefix("Error: ")


def test_truth_that_is_missing(folder, tmp_path):
    refused(spikecrsae("score", folder, "--truth", tmp_path / "nowhere.csv"), "nowhere.csv")


def test_a_folder_without_a_sorting(tmp_path):
    refused(spikecrsae("score", tmp_path, "--truth", tmp_path / "x.csv", "--sampling-frequency", FS))


def test_dead_channels_are_said_and_the_others_sorted(simulation, tmp_path):
    """Two good channels, one flat, one saturated: a warning for each, and the result on the good ones."""
    traces = np.zeros((len(simulation.traces), 4), np.float32)
    traces[:, [0, 3]] = simulation.traces * simulation.gain
    traces[:, 1] = 100.0
    traces[:, 2] = np.clip(20 * traces[:, 0], -50, 50)
    result = spikecrsae("sort", write(tmp_path / "dead.h5", traces), "--epochs", 3, "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    warnings = [line for line in result.stderr.splitlines() if line.startswith("Warning: ")]
    assert len(warnings) == 2
    assert "channel 1 is flat" in warnings[0]
    assert "channel 2 is saturated" in warnings[1]
    sorting = read_sorting(tmp_path / "dead.h5.sorted")
    assert sorting.channels["masked"].tolist() == [False, True, True, False]
    assert not sorting.templates[:, [1, 2]].any()
    assert set(sorting.units["peak_channel"]) <= {0, 3}


def test_an_infinite_option(tmp_path):
    path = write(tmp_path / "noise.h5", noise())
    refused(spikecrsae("sort", path, "--chunk-s", "inf"), "chunk_s", "finite", code=2)
    assert not (tmp_path / "noise.h5.sorted").exists()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("[preprocess]\nlowpass_hz = 401.0", ("lowpass_hz = 401", "highpass_hz = 400")),
        ("[initialise]\nbefore_ms = 2.5", ("before_ms = 2.5", "template_ms = 2")),
        ("[initialise]\nmax_signal_s = 1e308", ("max_signal_s = 1e+308", "at most 1e+09")),
        ("[initialise]\nmax_events = 10000000000000000000", ("max_events", "at most")),
        ("[preprocess]\nquiet_margin_ms = 1e6", ("quiet_margin_ms", "at most 10000")),
    ],
)
def test_settings_that_cannot_be(tmp_path, table, words):
    path, config = write(tmp_path / "noise.h5", noise()), tmp_path / "my.toml"
    config.write_text(table)
    refused(spikecrsae("sort", path, "--config", config), *words, code=2)
    assert not (tmp_path / "noise.h5.sorted").exists()


def test_settings_may_agree_only_together(tmp_path):
    config = tmp_path / "my.toml"
    config.write_text("[preprocess]\nlowpass_hz = 500.0")
    assert spikecrsae("sort", "--config", config, "--highpass-hz", 250, "--dump-config").exit_code == 0


@pytest.mark.parametrize("value", ["1e300", "nan", "-1"])
def test_a_tolerance_that_is_none(folder, value):
    result = spikecrsae("score", folder, "--truth", folder.with_name("pair.h5"), "--tolerance-ms", value)
    assert result.exit_code == 2
    assert "--tolerance-ms" in result.stderr.splitlines()[0]


def test_an_empty_dataset(tmp_path, sorted_nothing):
    sorted_nothing(write(tmp_path / "none.h5", np.zeros((0, 4), np.float32)), "empty")


def test_score_of_a_sorting_that_is_missing(folder, tmp_path):
    truth = tmp_path / "truth.csv"
    truth.write_text("sample\n100\n")
    refused(spikecrsae("score", tmp_path / "nowhere", "--truth", truth), "nowhere", "does not exist")


def test_apply_on_another_scale(simulation, folder, tmp_path):
    path = tmp_path / "counts.h5"
    with h5py.File(path, "w") as file:
        file["traces"] = simulation.traces
        file["traces"].attrs.update(sampling_frequency=simulation.config.sampling_frequency, units="ADC")
    refused(spikecrsae("apply", folder, path, "-o", tmp_path / "out"), "ADC", "uV")
    assert not (tmp_path / "out").exists()
