"""The public functions give what the command line gives, from a file, a Recording or an array."""

from __future__ import annotations

import csv
import functools
import subprocess
import sys

import numpy as np
import pytest
from helpers.recordings import SAMPLE

import spikecrsae
from spikecrsae.errors import InputError, OutputError, ReadError, UsageError
from spikecrsae.run.rerun import Record

pytestmark = pytest.mark.slow

FS = 20_000.0


@functools.cache
def simulated():
    """Eight seconds of three units, and their true spikes."""
    return spikecrsae.simulate(duration_s=8.0, n_units=3, seed=1)


@functools.cache
def sorting():
    return spikecrsae.sort(simulated()[0], seed=1)


def samples_and_units(result):
    return result.data.spikes[["sample", "unit"]].tolist()


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_the_package_loads_nothing_but_the_standard_library():
    code = "import sys; before = set(sys.modules); import spikecrsae; print(*(set(sys.modules) - before))"
    loaded = {name.split(".")[0] for name in run_python(code).split()}
    assert loaded <= sys.stdlib_module_names | {"spikecrsae"}


@pytest.mark.parametrize("order", ["{use}; {load}; {use}", "{load}; {use}", "import spikecrsae; {load}; {use}"])
def test_functions_keep_their_names_when_folders_of_these_names_are_imported(order):
    names = ("score", "simulate")
    load = "; ".join(f"import spikecrsae.{name}; from spikecrsae.{name} import __all__" for name in names)
    use = "; ".join(f"import spikecrsae, types; assert isinstance(spikecrsae.{name}, types.FunctionType)" for name in names)
    run_python(order.format(load=load, use=use))


def test_every_public_name_is_there_and_no_other():
    assert dir(spikecrsae) == sorted(spikecrsae.__all__)
    for name in spikecrsae.__all__:
        assert getattr(spikecrsae, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'sorts'"):
        _ = spikecrsae.sorts


def test_sort_of_a_file_is_that_of_the_command_line(short_sort):
    result = spikecrsae.sort(short_sort.recording)
    with (short_sort.folder / "spikes.csv").open() as file:
        rows = [(int(row["sample"]), int(row["unit"])) for row in csv.DictReader(file)]
    assert samples_and_units(result) == rows
    again = spikecrsae.read_sorting(short_sort.folder)
    assert samples_and_units(again) == rows
    assert repr(again) == repr(result)


def test_a_file_a_recording_and_an_array_give_the_same_spikes(tmp_path):
    recording, truth = spikecrsae.simulate(duration_s=8.0, n_units=3, seed=1, path=tmp_path / "made.h5")
    traces = recording.traces(0, recording.n_samples)
    assert samples_and_units(spikecrsae.sort(tmp_path / "made.h5", seed=1)) == samples_and_units(sorting())
    assert samples_and_units(spikecrsae.sort(traces, sampling_frequency=FS, seed=1)) == samples_and_units(sorting())
    assert spikecrsae.score(sorting(), truth).mean("accuracy") > 0.95


def test_settings_win_over_the_configuration():
    config = spikecrsae.Config().with_settings(units=2, seed=7)
    result = spikecrsae.sort(simulated()[0], config=config, seed=3)
    assert (result.run["config"]["initialise"]["units"], result.run["seed"]) == (2, 3)
    assert result.n_units == 2


def test_apply_finds_the_same_spikes_with_a_sorting_as_with_its_folder(tmp_path):
    recording, _ = simulated()
    folder = sorting().save(tmp_path / "result")
    found = spikecrsae.apply(sorting(), recording)
    assert samples_and_units(found) == samples_and_units(spikecrsae.apply(folder, recording))
    assert spikecrsae.score(found, sorting()).mean("accuracy") > 0.99
    with pytest.raises(UsageError, match="highpass_hz: no effect here"):
        spikecrsae.apply(folder, recording, highpass_hz=300.0)
    with pytest.raises(UsageError, match="has no model"):
        spikecrsae.apply(simulated()[1], recording)


def test_a_saved_sorting_is_a_result_that_can_be_run_again(tmp_path):
    recording = tmp_path / "made.h5"
    spikecrsae.simulate(duration_s=2.0, n_units=2, seed=1, path=recording)
    result = spikecrsae.sort(recording, seed=4, channels="0-2", folder=tmp_path / "result")
    job = Record.read(tmp_path / "result").job(tmp_path / "again")
    assert (job.recordings, job.config.runtime.seed, job.reader["channels"]) == ((recording,), 4, [0, 1, 2])
    again = spikecrsae.read_sorting(tmp_path / "result")
    np.testing.assert_array_equal(again.data.spikes, result.data.spikes)
    with pytest.raises(OutputError, match=r"give overwrite=True, or another name with folder=\."):
        spikecrsae.sort(recording, folder=tmp_path / "result")
    again.save(tmp_path / "result", overwrite=True)
    assert (tmp_path / "result" / "report.html").is_file()


def test_score_takes_sortings_files_and_samples():
    _, truth = simulated()
    expected = spikecrsae.score(sorting(), truth)
    trains = {str(unit): truth.spike_samples(unit) for unit in truth.unit_ids}
    assert spikecrsae.score(sorting(), trains).to_dict() == expected.to_dict()
    mine = {str(unit): sorting().spike_samples(unit) for unit in sorting().unit_ids}
    assert spikecrsae.score(mine, truth, sampling_frequency=FS).to_dict() == expected.to_dict()
    assert spikecrsae.score(sorting(), truth, truth_unit="1").truth_names == ("1",)
    with pytest.raises(UsageError, match="unit '9' does not exist; the units are 0, 1, 2"):
        spikecrsae.score(sorting(), truth, truth_unit="9")
    with pytest.raises(UsageError, match="give sampling_frequency="):
        spikecrsae.score(mine, truth)
    with pytest.raises(UsageError, match="options have no effect without truth_channel="):
        spikecrsae.score(sorting(), truth, segment=1)


def test_spikes_of_another_program_need_a_rate(tmp_path):
    _, truth = simulated()
    table = "unit,sample\n" + "".join(f"{spike['unit']},{spike['sample']}\n" for spike in truth.data.spikes)
    (tmp_path / "other.csv").write_text(table)
    other = spikecrsae.score(tmp_path / "other.csv", truth, sampling_frequency=FS)
    assert other.mean("accuracy") == 1.0
    with pytest.raises(UsageError, match=r"other\.csv does not tell its sampling frequency"):
        spikecrsae.score(tmp_path / "other.csv", truth)
    with pytest.raises(InputError, match="missing does not exist"):
        spikecrsae.score(tmp_path / "missing", truth)


def test_only_known_spikes_in_the_sorted_part_count():
    part = spikecrsae.sort(SAMPLE, stop_s=6.0, units=3)
    comparison = spikecrsae.score(part, SAMPLE)
    known = spikecrsae.score(spikecrsae.sort(SAMPLE, stop_s=8.0, units=3), SAMPLE)
    assert 0 < sum(row.n_truth for row in comparison.rows) < sum(row.n_truth for row in known.rows)


def test_the_callback_is_told_every_stage_to_its_end():
    told: list[tuple[str, int, int | None]] = []
    spikecrsae.sort(simulated()[0], callback=lambda *course: told.append(course))
    last = {stage: (done, total) for stage, done, total in told}
    assert {"check", "curate", "train", "infer"} <= last.keys()
    assert all(done == total for done, total in last.values())
    for stage in last:
        done = [d for name, d, _ in told if name == stage]
        assert done == sorted(done)


def test_a_bar_is_drawn_only_when_asked_for(capfd):
    recording, _ = spikecrsae.simulate(duration_s=2.0, n_units=1)
    spikecrsae.sort(recording)
    assert capfd.readouterr() == ("", "")
    spikecrsae.sort(recording, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "curate" in err and "infer" in err


def test_what_looks_wrong_is_told_in_the_words_of_a_script(caplog):
    recording, _ = simulated()
    volts = recording.traces(0, recording.n_samples) * 1e-6
    result = spikecrsae.sort(volts, sampling_frequency=FS)
    assert any("check gain= (uV per stored number)" in text for text in result.warnings)
    assert any("check gain=" in record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    right = spikecrsae.sort(volts, sampling_frequency=FS, gain=1e6, seed=1)
    assert not right.warnings and spikecrsae.score(right, sorting()).mean("accuracy") == 1.0


def test_notes_of_the_recording_are_logged(tmp_path, caplog):
    path = tmp_path / "made.h5"
    spikecrsae.simulate(duration_s=1.0, n_units=1, path=path)
    with spikecrsae.open_recording(path, sampling_frequency=3e4) as recording:
        spikecrsae.sort(recording)
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert f"{path}: sampling frequency 30000 Hz as told, instead of the file's 20000 Hz" in warned


def test_a_recording_is_closed_at_the_end_of_with(tmp_path):
    path = tmp_path / "made.h5"
    spikecrsae.simulate(duration_s=1.0, n_units=1, path=path)
    with spikecrsae.open_recording(path) as recording:
        assert len(recording.raw(0, 10)) == 10
    with pytest.raises(ReadError, match="is damaged or closed"):
        recording.raw(0, 10)


def test_reprs_are_one_short_line(tmp_path):
    recording, truth = simulated()
    assert repr(recording) == f"<Recording: 4 channels, 8 s at 20000 Hz from {recording.source}>"
    part = spikecrsae.open_recording(recording.traces(0, 40_000), sampling_frequency=FS, stop_s=1.5)
    assert repr(part) == "<Recording: 4 channels, 1.5 s at 20000 Hz from array in memory>"
    assert (
        repr(spikecrsae.score(truth, truth))
        == "<Comparison: 3 units with 3 true units, 3 well detected, mean accuracy 1.000>"
    )
    assert " in 1.5 s on 4 channels>" in repr(spikecrsae.sort(part))


def test_an_array_has_the_options_of_a_file():
    recording, _ = simulated()
    stored = np.hstack([recording.raw(0, recording.n_samples)] * 2)
    opened = spikecrsae.open_recording(stored, sampling_frequency=FS, gain=0.195, groups="0-3,4-7", stop_s=4.0)
    assert (opened.n_channels, list(opened.groups), opened.time_range) == (8, ["0", "1"], (0, 80_000))
    result = spikecrsae.sort(opened)
    both = result.units["group"].tolist()
    assert both.count(0) == both.count(1) > 0
    with pytest.raises(
        UsageError, match="stop_s: no effect on a Recording, which is open already; give it to open_recording"
    ):
        spikecrsae.sort(opened, stop_s=2.0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda traces: spikecrsae.sort(traces), UsageError, r"give sampling_frequency=\."),
        (lambda traces: spikecrsae.sort(traces.T, sampling_frequency=FS), InputError, r"transposed.* give traces\.T"),
        (lambda traces: spikecrsae.sort(traces, sampling_frequency=FS, dtype="int16"), UsageError, "dtype= has no meaning for an array"),
        (lambda traces: spikecrsae.sort(traces, sampling_frequency=FS, lowpass_hz=500), UsageError, "change lowpass_hz= or"),
        (lambda traces: spikecrsae.sort(traces, sampling_frequency=FS, exclude_s="0-9"), UsageError, "^exclude_s='0-9' "),
        (lambda traces: spikecrsae.open_recording("missing.h5"), InputError, "missing.h5 does not exist"),
        (lambda traces: spikecrsae.open_recording(traces, rate=FS), UsageError, "^rate does not exist; options of a recording are axis"),
        (lambda traces: spikecrsae.sort(traces, zzqq=1), UsageError, r"^zzqq does not exist; print\(Config\(\)\.to_toml\(\)\) lists all settings\.$"),
        (lambda traces: spikecrsae.sort(traces, overwrit=True), UsageError, r"did you mean overwrite\?$"),
        (lambda traces: spikecrsae.sort(traces, n_channel=4), UsageError, "did you mean n_channels"),
        (lambda traces: spikecrsae.apply("model", traces, zzqq=1), UsageError, "^zzqq does not exist; print\\(Config"),
        (lambda traces: spikecrsae.score({}, {}, sampling_frequency=FS, tolerance=1), UsageError, r"did you mean tolerance_ms\?$"),
        (lambda traces: spikecrsae.score({}, {}, sampling_frequency=FS).mean("acuracy"), UsageError, "did you mean accuracy"),
        (lambda traces: spikecrsae.score({}, {}, sampling_frequency=FS).mean("truth"), UsageError, "truth does not exist; did you mean n_truth"),
        (lambda traces: spikecrsae.simulate(foo=0), UsageError, "^foo does not exist; a simulation has n_units, n_channels"),
        (lambda traces: spikecrsae.simulate(duration=1.0), UsageError, "did you mean duration_s"),
        (lambda traces: spikecrsae.read_sorting("missing"), InputError, "does not exist"),
        (lambda traces: spikecrsae.simulate(n_units=0), UsageError, "n_units = 0 must be at least 1"),
    ],
)  # fmt: skip
def test_an_error_names_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call(simulated()[0].traces(0, 4000))


FILES = r"a file, a list of the files of one session, or an array \(n_samples, n_channels\)\.$"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda truth: spikecrsae.sort([]), rf"^recording = \[\] must be a Recording, {FILES}"),
        (lambda truth: spikecrsae.sort(None), f"^recording = None must be a Recording, {FILES}"),
        (lambda truth: spikecrsae.apply("x.h5", truth), f"^recording = <Sorting.*must be a Recording, {FILES}"),
        (lambda truth: spikecrsae.open_recording(5), f"^source = 5 must be {FILES}"),
        (lambda truth: spikecrsae.apply(None, "x.h5"), "^model = None must be a Sorting, a result folder or a model file"),
        (lambda truth: spikecrsae.read_sorting(None), "^path = None must be the name of a file or folder"),
        (lambda truth: truth.save(None), "^folder = None must be the name of a folder"),
        (lambda truth: spikecrsae.score(None, truth), "^sorting = None must be a Sorting, the name of a file or folder"),
        (lambda truth: spikecrsae.score(truth, {"a": [2.0, np.inf]}), "^unit a: its spikes must be samples, a 1-D array of whole numbers"),
        (lambda truth: spikecrsae.score(truth, {"b": [0.25, 1.5]}), "^unit b: its spikes must be samples"),
        (lambda truth: spikecrsae.score(truth, {"a": ["x"]}), "^unit a: its spikes must be samples"),
        (lambda truth: spikecrsae.simulate(preset=[]), r"^preset = \[\] must be 'tetrode' or 'paper'"),
        (lambda truth: spikecrsae.score(truth, truth, tolerance_ms="1"), "^tolerance_ms = '1' must be a number of ms"),
        (lambda truth: spikecrsae.sort("x.h5", config={"a": 1}), r"^config = {'a': 1} must be a Config, such as"),
        (lambda truth: spikecrsae.sort("x.h5", callback=5), "^callback = 5 must be a function, called as callback"),
        (lambda truth: spikecrsae.sort("x.h5", folder=5), "^folder = 5 must be the name of a folder"),
        *((lambda truth, jobs=jobs: spikecrsae.sort("x.h5", jobs=jobs), f"^jobs = {jobs!r} must be a whole number of at least 1")
          for jobs in (0, -1, "2", 1.5, True, None)),
    ],
)  # fmt: skip
def test_an_argument_of_the_wrong_kind_is_named_with_what_is_allowed(call, message):
    with pytest.raises(UsageError, match=message):
        call(simulated()[1])


def test_a_sample_that_is_no_number_is_to_be_replaced_in_the_array():
    traces = simulated()[0].traces(0, 20_000)
    traces[0, 0] = np.nan
    with pytest.raises(
        InputError, match=r"is nan.*Replace such samples, leave the channel out with channels=, or check gain="
    ):
        spikecrsae.sort(traces, sampling_frequency=FS)


def test_a_numpy_file_is_a_recording_with_the_rate_that_is_given(tmp_path):
    traces = np.random.default_rng(0).normal(0, 10, (2000, 2))
    np.save(tmp_path / "traces.npy", traces)
    with pytest.raises(InputError, match=r"give it in Hz with sampling_frequency="):
        spikecrsae.sort(tmp_path / "traces.npy")
    opened = spikecrsae.open_recording(tmp_path / "traces.npy", sampling_frequency=FS)
    np.testing.assert_allclose(opened.traces(0, 2000), traces, rtol=1e-6)
    opened.close()


def test_masked_samples_and_uneven_rows_are_refused():
    masked = np.ma.masked_equal(np.arange(40.0).reshape(20, 2), 7.0)
    with pytest.raises(InputError, match=r"has 1 masked sample, .* leave those times out with exclude_s="):
        spikecrsae.open_recording(masked, sampling_frequency=FS)
    assert spikecrsae.open_recording(np.ma.asarray(masked.data), sampling_frequency=FS).n_samples == 20
    with pytest.raises(InputError, match="cannot be read as traces"):
        spikecrsae.open_recording([[1, 2], [3]], sampling_frequency=FS)
