"""Groups of channels: each is sorted as it would be alone, in any number of processes, and all become one result."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import recording_files as files
from helpers.command_line import PATIENCE_S, spikecrsae, start_command, wait_until

from spikecrsae.config import Config
from spikecrsae.data.recording import Recording, recording_from_array
from spikecrsae.errors import InputError, UsageError
from spikecrsae.pipeline import groups
from spikecrsae.pipeline.outcome import Outcome
from spikecrsae.pipeline.sort import apply_to_group, sort_group
from spikecrsae.readers import open_recording
from spikecrsae.results.folder import read_sorting
from spikecrsae.results.model_file import save_checkpoint
from spikecrsae.simulate import preset_config, simulate

pytestmark = pytest.mark.slow

CONFIG = Config().with_values({"train": {"epochs": 2}, "runtime": {"device": "cpu"}})
PRB = "channel_groups = {'right': {'channels': [4, 5, 6, 7]}, 'left': {'channels': list(range(4))}}"


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """Two simulated tetrodes and a flat channel in one file."""
    tetrodes = [
        simulate(preset_config("tetrode", n_units=2, n_bursting=0, duration_s=8.0, seed=seed, snr_low=10.0)).traces
        for seed in (3, 4)
    ]
    flat = np.zeros((len(tetrodes[0]), 1), tetrodes[0].dtype)
    file = tmp_path_factory.mktemp("groups") / "two.h5"
    with h5py.File(file, "w") as stored:
        traces = stored.create_dataset("traces", data=np.concatenate([*tetrodes, flat], axis=1))
        traces.attrs.update(sampling_frequency=20000.0, units="uV")
    return file


@pytest.fixture(scope="module")
def outcome(path) -> Outcome:
    """The two tetrodes and the flat channel as three groups, one after the other."""
    recording = open_recording(path, groups="0-3,4-7,8")
    yield groups.sort(recording, CONFIG)
    recording.close()


@pytest.fixture(scope="module")
def alone(path) -> list[Outcome]:
    """Each tetrode sorted alone."""
    recordings = [open_recording(path, channels=channels) for channels in ("0-3", "4-7")]
    yield [sort_group(recording, CONFIG) for recording in recordings]
    for recording in recordings:
        recording.close()


def test_each_group_is_sorted_as_alone(outcome, alone):
    sorting = outcome.sorting
    assert sorting.n_units == sum(o.sorting.n_units for o in alone) >= 3
    offset = 0
    for number, single in enumerate(o.sorting for o in alone):
        units = np.arange(offset, offset + single.n_units)
        mine = sorting.spikes[np.isin(sorting.spikes["unit"], units)]
        mine["unit"] -= offset
        np.testing.assert_array_equal(mine, single.spikes)
        assert (sorting.units["group"][units] == number).all()
        channels = slice(4 * number, 4 * number + 4)
        for name in ("templates", "templates_whitened", "templates_std"):
            np.testing.assert_array_equal(getattr(sorting, name)[units][:, channels], getattr(single, name))
        np.testing.assert_array_equal(sorting.units["peak_channel"][units], single.units["peak_channel"] + 4 * number)
        for name in ("snr", "threshold", "label", "n_spikes"):
            np.testing.assert_array_equal(sorting.units[name][units], single.units[name])
        assert sorting.model["sigma"][number] == single.model["sigma"]
        for name in ("spread", "penalty", "whitened_norm"):
            np.testing.assert_array_equal(sorting.model[name][units], single.model[name])
        for name in ("spread_history", "penalty_history"):
            course = sorting.model[name][:, units]
            n_rounds = len(single.model[name])
            np.testing.assert_array_equal(course[:n_rounds], single.model[name])
            assert np.isnan(course[n_rounds:]).all()
        offset += single.n_units


def test_templates_are_zero_on_other_channels(outcome):
    own = outcome.sorting.channels["groups"][None] == outcome.sorting.units["group"][:, None]
    assert own.any(axis=1).all()
    assert not outcome.sorting.templates[~own].any()
    assert np.abs(outcome.sorting.templates[own]).max(axis=1).min() > 0


def test_units_have_names_of_their_own_in_the_decisions(outcome, alone):
    sorting = outcome.sorting
    names = sorting.units["curation_id"]
    assert len(np.unique(names)) == len(names)
    named = {group: set(names[sorting.units["group"] == group].tolist()) for group in np.unique(sorting.units["group"])}
    for row in sorting.curation:
        named[row["group"]] |= set(row["units"])
    assert sorting.curation and len(sorting.curation) == sum(len(o.sorting.curation) for o in alone)
    assert len(named) > 1 and not set.intersection(*named.values())


def test_a_group_that_cannot_be_sorted_is_a_warning(outcome):
    (text,) = [w for w in outcome.warnings if w.startswith("group 2: not sorted: ")]
    assert "flat" in text
    assert outcome.sorting.channels["groups"].tolist() == [0] * 4 + [1] * 4 + [2]
    assert outcome.sorting.channels["masked"].tolist() == [False] * 8 + [True]
    assert np.isnan(outcome.sorting.model["sigma"][2])


def test_no_group_at_all_is_an_error():
    recording = replace(recording_from_array(np.zeros((40_000, 2)), 20000.0), channel_groups=("a", "b"))
    with pytest.raises(InputError, match=r"group a: .*flat.*group b: .*flat"):
        groups.sort(recording, CONFIG)


def test_the_picture_shows_all_groups(outcome):
    sorting = outcome.sorting
    traces = sorting.example
    assert (traces[:, :8].std(axis=0) > 0).all() and not traces[:, 8].any()
    rest = traces - sorting.reconstruction(sorting.example_start, sorting.example_start + len(traces))
    assert (rest[:, :8].std(axis=0) < traces[:, :8].std(axis=0)).all()


def test_the_checksum_is_known_without_sorting(path, outcome, alone):
    for options, expected in (
        ({"groups": "0-3,4-7,8"}, outcome.input_checksum),
        ({"channels": "0-3"}, alone[0].input_checksum),
    ):
        recording = open_recording(path, **options)
        assert groups.input_checksum(recording, CONFIG) == expected
        assert groups.input_checksum(recording.between(0.0, 7.0), CONFIG) != expected
        recording.close()
    recording = open_recording(path, channels="8")
    with pytest.raises(InputError, match="flat"):
        groups.input_checksum(recording, CONFIG)
    recording.close()


def test_apply_takes_the_model_of_several_groups(path, outcome, tmp_path):
    save_checkpoint(outcome.checkpoint, tmp_path / "model.safetensors")
    recording = open_recording(path)
    again = groups.apply(tmp_path / "model.safetensors", recording, CONFIG)
    np.testing.assert_array_equal(again.sorting.spikes, outcome.sorting.spikes)
    np.testing.assert_array_equal(again.sorting.units["group"], outcome.sorting.units["group"])
    assert again.sorting.channels["groups"].tolist() == [0] * 4 + [1] * 4 + [-1]
    with pytest.raises(InputError, match=r"8 channels.*9"):
        groups.apply(tmp_path / "model.safetensors", recording.select(range(8)), CONFIG)
    with pytest.raises(InputError, match="several groups"):
        apply_to_group(tmp_path / "model.safetensors", recording, CONFIG)
    recording.close()


def test_the_self_test_is_done_in_each_group(path):
    recording = open_recording(path, groups="0-3", start_s=0.03, stop_s=4.0)
    sorting = groups.sort(recording, CONFIG, self_test=True).sorting
    recording.close()
    assert sorting.units["hybrid_injected"].sum() > 0 and np.nanmax(sorting.units["hybrid_recall"]) > 0.8
    assert 600 <= sorting.example_start <= 80_000 - len(sorting.example)
    assert sorting.example[:, :4].std(axis=0).min() > 0 and not sorting.example[:, 4:].any()


def test_on_the_command_line(path, outcome, tmp_path):
    """sort and apply with groups, in two processes; the folder holds what the library gives."""
    words = ("--jobs", 2, "--epochs", 2, "--device", "cpu")
    result = spikecrsae("sort", path, "--groups", "0-3,4-7,8", "-o", tmp_path / "out", *words)
    assert result.exit_code == 0, result.stderr
    assert "group 2: not sorted" in result.stderr
    assert "group" in result.stdout.splitlines()[0]
    sorting = read_sorting(tmp_path / "out")
    np.testing.assert_array_equal(sorting.spikes, outcome.sorting.spikes)
    np.testing.assert_array_equal(sorting.templates, outcome.sorting.templates)
    for name, values in outcome.sorting.units.items():
        np.testing.assert_array_equal(sorting.units[name], values)
    assert sorting.channels["group_names"].tolist() == ["0"] * 4 + ["1"] * 4 + ["2"]
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    assert run["warnings"] == list(outcome.warnings) and run["recording"]["checksum"] == outcome.input_checksum
    assert run["recording"]["groups"] == {"0": list("0123"), "1": list("4567"), "2": ["8"]}
    assert (tmp_path / "out" / "units.csv").read_text().startswith("unit,label,group,peak_channel")
    log = (tmp_path / "out" / "run.log").read_text()
    assert "group 0: channels 0, 1, 2, 3" in log and log.index("group 0: ") < log.index("group 1: ")
    assert "group 1: looking at " in log, "what a stage of a group says is under its name"
    result = spikecrsae("apply", tmp_path / "out", path, "-o", tmp_path / "applied", "--quiet", "--jobs", 1, *words[4:])
    assert result.exit_code == 0, result.stderr
    assert (tmp_path / "applied" / "spikes.csv").read_bytes() == (tmp_path / "out" / "spikes.csv").read_bytes()


# ---- what names groups


def grouped(path: Path, **options) -> dict[str, tuple[int, ...]]:
    recording = open_recording(path, **options)
    recording.close()
    return recording.groups


def test_groups_as_text(path):
    assert grouped(path, groups="0-3,4-7") == {"0": (0, 1, 2, 3), "1": (4, 5, 6, 7)}
    assert grouped(path, groups="0+2+4-5,1+3") == {"0": (0, 2, 4, 5), "1": (1, 3)}
    assert grouped(path, groups="8,5-6", channels="4-8") == {"1": (1, 2), "0": (4,)}
    assert grouped(path) == grouped(path, groups="all") == {}


@pytest.mark.parametrize("text", ["0-3,3-5", "a", "4-2", "0-3,", "0-9", "no-such-file.prb"])
def test_groups_that_cannot_be(path, text):
    with pytest.raises(UsageError, match="groups"):
        grouped(path, groups=text)


def test_a_probe_file_names_groups(path, tmp_path):
    probe = tmp_path / "two.prb"
    probe.write_text(PRB)
    expected = {"left": (0, 1, 2, 3), "right": (4, 5, 6, 7)}
    assert grouped(path, groups=probe) == expected
    assert grouped(path, groups=probe, channels="2-5") == {"left": (0, 1), "right": (2, 3)}
    with pytest.raises(InputError, match="none of the channels"):
        grouped(path, groups=probe, channels="8")
    side = path.with_name("side.h5")
    side.write_bytes(path.read_bytes())
    (path.parent / "beside.prb").write_text(PRB)
    side.with_name("side.h5.toml").write_text('groups = "beside.prb"\n')
    assert grouped(side) == expected


def test_the_shanks_of_a_probe_are_groups_unless_told_otherwise(path, tmp_path):
    contacts = [[float(20 * (i // 4)), float(10 * (i % 4))] for i in range(8)]
    probe = {
        "ndim": 2,
        "contact_positions": contacts,
        "shank_ids": list("aaaabbbb"),
        "device_channel_indices": list(range(8)),
    }
    (tmp_path / "probe.json").write_text(json.dumps({"specification": "probeinterface", "probes": [probe]}))
    recording = open_recording(path, channels="0-7", probe=tmp_path / "probe.json")
    assert recording.groups == {"0:a": (0, 1, 2, 3), "0:b": (4, 5, 6, 7)}
    assert any("2 groups" in note for note in recording.notes)
    recording.close()
    assert grouped(path, channels="0-7", probe=tmp_path / "probe.json", groups="all") == {}


def test_electrode_groups_of_nwb(tmp_path):
    file = tmp_path / "groups.nwb"
    files.write_nwb(file, files.stored())
    with h5py.File(file, "r+") as stored:
        table = stored["general/extracellular_ephys/electrodes"]
        table["group_name"] = [b"left", b"left", b"right", b"right"]
    assert grouped(file) == {"left": (0, 1), "right": (2, 3)}
    assert grouped(file, channels="0-1") == {}


def test_spike_groups_of_neuroscope(tmp_path):
    """Channels that lie in no spike group, such as a broken one, are in none here."""
    session = files.neuroscope(tmp_path).path.with_suffix(".xml")
    group = "<group><channels>{}</channels></group>".format
    groups_ = group("<channel>2</channel><channel>0</channel>") + group("<channel>3</channel>")
    detection = f"<spikeDetection><channelGroups>{groups_}</channelGroups></spikeDetection></parameters>"
    assert grouped(tmp_path / "ns.dat") == {}
    session.write_text(session.read_text().replace("</parameters>", detection))
    assert grouped(tmp_path / "ns.dat") == {"1": (0, 2), "2": (3,)}
    assert grouped(tmp_path / "ns.dat", groups="all") == {}


def test_info_shows_groups(path):
    result = spikecrsae("info", path, "--groups", "0-3,4-7", "--json")
    assert json.loads(result.stdout)["groups"] == {"0": list("0123"), "1": list("4567")}
    assert "group 1" in spikecrsae("info", path, "--groups", "0-3,4-7").stdout


# ---- processes


def test_a_recording_that_is_not_reopened_is_sorted_here():
    """An array in memory has no other process to be opened in; and an error of ours keeps its kind."""
    recording = replace(recording_from_array(np.zeros((50, 2)), 20000.0), channel_groups=("a", "b"))
    assert isinstance(recording, Recording)
    with pytest.raises(InputError, match="too short"):
        groups.sort(recording, CONFIG, jobs=4)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux lists a process's children")
@pytest.mark.parametrize(("signal_number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopping_the_sort_ends_its_processes(path, tmp_path, signal_number, code):
    """A signal to the sort alone, or, as Ctrl-C, to all of them."""
    folder = tmp_path / "stopped"
    words = ["sort", path, "--groups", "0-3,4-7", "--jobs", 2, "-o", folder, "--units", 40, "--epochs", 1000]
    process = start_command(*words, start_new_session=True)
    own = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: len(own.read_text().split()) >= 2, process)
    children = own.read_text().split()
    (os.killpg if signal_number == signal.SIGINT else os.kill)(process.pid, signal_number)
    errors = process.communicate(timeout=PATIENCE_S)[1]
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    wait_until(lambda: not any(map(_is_alive, children)))
    assert not folder.exists()


def _is_alive(process: str) -> bool:
    """A process that has ended may stand in the list until it is collected."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
