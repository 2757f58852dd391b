"""Only neurons are sorted: what acquisition systems store beside the electrodes is left out, unless it is asked for."""

from __future__ import annotations

import json
import struct

import h5py
import numpy as np
import pytest
from helpers import other_vendors as others
from helpers import recording_files as files
from helpers import vendor_files as vendors
from helpers.command_line import refused, spikecrsae

from spikecrsae.errors import InputError, UsageError
from spikecrsae.readers import ReadOptions, open_recording, read_truth
from spikecrsae.readers.neural import is_other_input, natural_key

FS = files.FS
ELECTRODES = {f"CH{i + 1}": "uV" for i in range(4)}


def note_of(recording, word: str) -> str:
    (note,) = [note for note in recording.notes if word in note]
    return note


# Names, units, rates


@pytest.mark.parametrize(
    "name",
    ["AUX1", "A-AUX2", "ADC8", "AP_SYNC", "SY0", "XA0", "XD1", "MA0C0", "AI 01", "AI12", "ainp3", "ANALOG-IN-1", "DIGITAL-IN-02", "A-VDD1",
     "Signals AUX", "USB board ADC input channel", "DC Amplifier channel", "Accelerometer", "imec0.ap-SYNC", "TTL"],
)  # fmt: skip
def test_names_of_other_inputs(name):
    assert is_other_input(name)


@pytest.mark.parametrize(
    "name",
    ["CSC1", "CH12", "A-000", "AP383", "MN0C3", "RAW 01", "SPK 02", "Raw Analog", "elec17", "WB01", "SPKC03", "ACC1", "TEMP2", "Syd3",
     "RHD2000 amplifier channel", "Record Node 101#Rhythm_FPGA-100.0", "Daux", "PFC_dc_1", "0", "E3"],
)  # fmt: skip
def test_names_of_electrodes(name):
    assert not is_other_input(name)


def test_natural_order():
    names = ["CSC10", "CSC2", "CSC1", "RAW 01", "A-B-7", "7"]
    assert sorted(names, key=natural_key) == ["7", "A-B-7", "CSC1", "CSC2", "CSC10", "RAW 01"]


# Voltage clamp


@pytest.mark.parametrize("unit", ["pA", "nA"])
@pytest.mark.parametrize("kind", ["HDF5", "neo"])
def test_a_current_is_refused_with_the_reason_and_what_to_do(tmp_path, unit, kind):
    """It is sorted where the channel is named, as action currents from outside a cell; score takes its spikes as a truth."""
    raw = others.signal(1)
    raw[500::1000] = 20_000
    path = tmp_path / "clamp.h5"
    if kind == "HDF5":
        with h5py.File(path, "w") as file:
            file["traces"] = raw
            file["traces"].attrs.update(sampling_frequency=FS, units=unit)
    else:
        stream = {"Clamp-100.0": (FS, {"Im": unit}, raw)}
        path = others.open_ephys_streams(tmp_path / "experiment1" / "recording1", stream)
    refused(
        spikecrsae("sort", path), f"(in {unit}) is recorded under voltage clamp", "--truth-channel", "--channels", code=3
    )
    assert "voltage clamp" in spikecrsae("info", path).stdout
    assert open_recording(path, channels=[0]).amplitude_unit == "ADC"
    assert list(read_truth(path, FS, truth_channel=0)["intracellular"]) == list(range(500, len(raw), 1000))


def test_a_current_beside_electrodes_is_left_out(tmp_path):
    streams = {"Rig-100.0": (FS, {"CH1": "uV", "Im": "pA"}, others.signal(2))}
    recording = open_recording(others.open_ephys_streams(tmp_path / "experiment1" / "recording1", streams))
    assert recording.channel_ids == ("CH1",)
    assert "1 Im" in note_of(recording, "left out")


# Open Ephys


def test_auxiliary_channels_in_the_stream_of_the_electrodes(tmp_path):
    channels = {**ELECTRODES, "AUX1": "mV", "AUX2": "mV", "ADC1": "V"}
    raw = others.signal(7)
    path = others.open_ephys_streams(tmp_path / "experiment1" / "recording1", {"Rhythm-100.0": (FS, channels, raw)})
    recording = open_recording(path)
    assert (recording.channel_ids, recording.channels) == (tuple(ELECTRODES), (0, 1, 2, 3))
    np.testing.assert_allclose(recording.traces(0, 500), raw[:500, :4] * 0.195, rtol=1e-5)
    assert "4 AUX1, 5 AUX2" in note_of(recording, "left out")
    assert open_recording(path, stream=0).channel_ids == tuple(ELECTRODES)
    asked = open_recording(path, channels="AUX2,CH1")
    assert asked.channel_ids == ("AUX2", "CH1")
    np.testing.assert_allclose(asked.traces(0, 500), raw[:500, [5, 0]] * [195.0, 0.195], rtol=1e-5)
    assert note_of(asked, "taken") == "channels taken: 5 AUX2, 0 CH1"
    np.testing.assert_allclose(open_recording(path, channels="ADC1").traces(0, 500), raw[:500, 6:] * 195_000.0, rtol=1e-5)
    files.refused(UsageError, path, "no channel named CH9", "0 CH1", channels="CH9")


def test_sync_and_field_potentials_beside_the_electrodes(tmp_path):
    raw = others.signal(5)
    sync = {**ELECTRODES, "AP_SYNC": "uV"}
    streams = {
        "Probe-AP": (FS, sync, raw),
        "Probe-LFP": (2500.0, {**ELECTRODES, "LFP_SYNC": "uV"}, raw[::8]),
        "Board-ADC": (FS, {"ADC1": "V", "ADC2": "V"}, raw[:, :2]),
    }
    path = others.open_ephys_streams(tmp_path / "experiment1" / "recording1", streams)
    recording = open_recording(path)
    assert (recording.channel_ids, recording.sampling_frequency) == (tuple(ELECTRODES), FS)
    np.testing.assert_allclose(recording.traces(0, 500), raw[:500, :4] * 0.195, rtol=1e-5)
    assert "Probe-AP" in note_of(recording, "--stream") and "at 2500 Hz" in note_of(recording, "--stream")
    fields = open_recording(path, stream="Probe-LFP")
    assert (fields.sampling_frequency, fields.n_channels) == (2500.0, 4)
    (tmp_path / "lfp").mkdir()
    only = {"Probe-LFP": streams["Probe-LFP"]}
    path = others.open_ephys_streams(tmp_path / "lfp" / "experiment1" / "recording1", only)
    refused(spikecrsae("sort", path), "only field potentials (below 5000 Hz)", "5000 Hz", "--stream", code=3)
    shown = spikecrsae("info", path).stdout
    assert "2500" in shown and "sort refuses this" in shown and "only field potentials" in shown


def test_open_ephys_first_format_has_only_its_electrodes(tmp_path):
    kinds = ("CH1", "CH2", "CH10", "AUX1", "ADC1")
    raw = others.signal(5)
    for number, kind in enumerate(kinds):
        others.open_ephys_channel(tmp_path / f"100_{kind}.continuous", raw[:, number])
    recording = open_recording(tmp_path)
    assert recording.channel_ids == ("CH1", "CH2", "CH10")
    np.testing.assert_allclose(recording.traces(0, 500), raw[:500, :3] * 0.195, rtol=1e-5)
    assert open_recording(tmp_path, channels="AUX1").channel_ids == ("AUX1",)
    assert open_recording(tmp_path, stream="AUX").channel_ids == ("AUX1",)
    files.refused(InputError, tmp_path / "100_AUX1.continuous", "no signal of electrodes", "'Signals AUX'", "--channels")


# AlphaOmega, Neuralynx, SpikeGLX, Plexon, NeuroScope, Intan


def test_the_raw_stream_of_alpha_omega(tmp_path):
    raw, slow = others.signal(13), others.signal(2)[:640]
    channels = {f"RAW {i}": (FS, raw[:, i]) for i in (10, 2, 1)}
    channels |= {f"SPK {i}": (FS, raw[:, i + 2]) for i in (1, 2)}
    channels |= {"LFP 1": (1250.0, slow[:, 0]), "AI 1": (FS, raw[:, 6])}
    path = others.alpha_omega(tmp_path / "D1.000F0001.mpx", channels)
    recording = open_recording(path)
    assert (recording.channel_ids, recording.sampling_frequency) == (("RAW 1", "RAW 2", "RAW 10"), FS)
    np.testing.assert_array_equal(recording.raw(0, 500), raw[:500, [1, 2, 10]])
    assert "'Raw Analog'" in note_of(recording, "--stream")
    assert open_recording(path, stream="SPK").channel_ids == ("SPK 1", "SPK 2")
    assert open_recording(path, channels="LFP 1").sampling_frequency == 1250.0


def test_neuralynx_files_in_natural_order_whatever_their_range(tmp_path):
    """Tetrodes of one rat may have other input ranges; a field potential and an empty file stand beside them."""
    raw = others.signal(12)
    for i in range(12):
        others.neuralynx_channel(tmp_path / f"CSC{i + 1}.ncs", f"CSC{i + 1}", i, raw[:, i], gain_uv=0.1 if i < 6 else 0.2)
    recording = open_recording(tmp_path)
    assert recording.channel_ids == tuple(f"CSC{i + 1}" for i in range(12))
    np.testing.assert_allclose(recording.traces(0, 600), raw[:600] * np.repeat([0.1, 0.2], 6), rtol=1e-5)
    chosen = open_recording(tmp_path, channels="0-1,CSC10,CSC3", groups="CSC1+CSC2,9+CSC3")
    assert (chosen.channel_ids, chosen.channels) == (("CSC1", "CSC2", "CSC10", "CSC3"), (0, 1, 9, 2))
    assert chosen.groups == {"0": (0, 1), "1": (2, 3)}
    assert note_of(chosen, "taken") == "channels taken: 0 CSC1, 1 CSC2, 9 CSC10, 2 CSC3"
    probe = tmp_path / "map.prb"
    probe.write_text("channel_groups = {0: {'channels': [0, 9], 'geometry': {0: [0, 0], 9: [0, 25]}}}")
    placed = open_recording(tmp_path, channels="CSC10,CSC1", probe=probe)
    np.testing.assert_array_equal(placed.channel_positions, [[0, 25], [0, 0]])
    files.refused(UsageError, tmp_path, "no channel named CSC13", groups="CSC1,CSC13")


def test_a_field_potential_among_neuralynx_files(tmp_path):
    raw = others.signal(3)
    for i in range(2):
        others.neuralynx_channel(tmp_path / f"CSC{i + 1}.ncs", f"CSC{i + 1}", i, raw[:, i])
    others.neuralynx_channel(tmp_path / "A_LFP.ncs", "A_LFP", 2, raw[: 10_240 // 8, 2], rate=FS / 8)
    recording = open_recording(tmp_path)
    assert (recording.channel_ids, recording.sampling_frequency) == (("CSC1", "CSC2"), FS)
    np.testing.assert_allclose(recording.traces(0, 600), raw[:600, :2] * 0.1, rtol=1e-5)
    files.refused(InputError, tmp_path / "A_LFP.ncs", "only field potentials", "2500 Hz")
    assert open_recording(tmp_path / "A_LFP.ncs", channels="A_LFP").sampling_frequency == FS / 8


def test_phase_3a_of_spikeglx(tmp_path):
    """Its one probe has no number: imec.ap and imec.lf."""
    written = vendors.spikeglx(tmp_path)
    for file in sorted(written.path.iterdir()):
        if file.suffix == ".meta":
            text = file.read_text().replace("imec0", "imec").replace("imDatPrb_pn=NP1010\n", "imProbeOpt=3\n")
            file.write_text(text)
        file.rename(file.with_name(file.name.replace("imec0", "imec")))
    recording = open_recording(written.path)
    assert (recording.n_channels, recording.sampling_frequency) == (4, FS)
    np.testing.assert_allclose(recording.traces(0, 3000), written.traces[:3000], rtol=1e-5, atol=1e-4)


def test_plexon_with_field_potentials_and_detected_spikes_only(tmp_path):
    written = vendors.plexon(tmp_path, prefix="FP", rate=1000.0, spikes=50)
    refused(
        spikecrsae("sort", written.path), "only field potentials (below 5000 Hz) and detected spikes", "at 1000 Hz", code=3
    )
    assert open_recording(written.path, channels="FP02").sampling_frequency == 1000.0


def test_plexon_with_detected_spikes_only(tmp_path):
    written = vendors.plexon(tmp_path, spikes=50)
    content = written.path.read_bytes()
    slow = content.index(b"WB01".ljust(32, b"\0"))
    head = bytearray(content[:slow])
    head[4 + 4 + 128 + 12 : 4 + 4 + 128 + 16] = bytes(4)  # no continuous channel
    written.path.write_bytes(bytes(head) + content[-50 * (16 + 64) :])
    files.refused(InputError, written.path, "only detected spikes and no continuous recording")


def test_field_potentials_of_neuroscope_have_their_own_rate(tmp_path):
    """The .eeg or .lfp file beside a .dat; neo gives the rate of the .dat."""
    written = files.neuroscope(tmp_path)
    xml = tmp_path / "ns.xml"
    rate = "<fieldPotentials><lfpSamplingRate>1250</lfpSamplingRate></fieldPotentials></parameters>"
    xml.write_text(xml.read_text().replace("</parameters>", rate))
    assert open_recording(written.path).sampling_frequency == FS
    for ending in (".eeg", ".lfp"):
        others.signal(4).tofile(tmp_path / f"ns{ending}")
        files.refused(InputError, tmp_path / f"ns{ending}", "only field potentials", "1250 Hz")
        assert open_recording(tmp_path / f"ns{ending}", sampling_frequency=1250.0).n_samples == 10_240


def test_names_as_they_stand_on_the_file(tmp_path):
    for written, names in (
        (vendors.intan(tmp_path), ("A-000", "A-001", "A-002", "A-003")),
        (vendors.blackrock(tmp_path), ("elec1", "elec2", "elec3", "elec4")),
        (vendors.plexon(tmp_path), ("WB01", "WB02", "WB03", "WB04")),
        (files.brainvision(tmp_path), ("E0", "E1", "E2", "E3")),
        (vendors.spikeglx(tmp_path), ("AP0", "AP1", "AP2", "AP3")),
        (files.neuroscope(tmp_path), ("0", "1", "2", "3")),
    ):
        with open_recording(written.path) as recording:
            assert recording.channel_ids == names


# Other readers


def test_hdf5_with_field_potentials_only(tmp_path):
    path = files.hdf5(tmp_path / "slow.h5", traces=np.zeros((2000, 2)))
    with h5py.File(path, "r+") as file:
        file.attrs["fs"] = 1000.0
    files.refused(InputError, path, "only field potentials (2 channels at 1000 Hz)", "--sampling-frequency")
    assert open_recording(path, sampling_frequency=1000.0).sampling_frequency == 1000.0
    assert open_recording(path, dataset="traces").sampling_frequency == 1000.0


def test_the_fast_one_of_several_datasets_and_series(tmp_path):
    raw = files.stored()
    path = files.hdf5(tmp_path / "both.h5", **{"raw/data": raw, "lfp/data": raw[::10]})
    with h5py.File(path, "r+") as file:
        file["raw"].attrs["fs"], file["lfp"].attrs["fs"] = FS, FS / 10
    assert (open_recording(path).n_samples, open_recording(path).sampling_frequency) == (files.N_SAMPLES, FS)
    assert open_recording(path, dataset="lfp/data").sampling_frequency == FS / 10
    path = tmp_path / "both.nwb"
    files.write_nwb(path, raw, series=("ElectricalSeries", "LFP"))
    with h5py.File(path, "r+") as file:
        file["acquisition/LFP/starting_time"].attrs["rate"] = 1250.0
    with open_recording(path) as recording, open_recording(path, series="LFP") as fields:
        assert recording.sampling_frequency == FS and "/acquisition/ElectricalSeries of" in note_of(recording, "--series")
        assert fields.sampling_frequency == 1250.0
    with h5py.File(path, "r+") as file:
        del file["acquisition/ElectricalSeries"]
    files.refused(InputError, path, "only field potentials")


def test_blackrock_with_analog_inputs_and_field_potentials(tmp_path):
    written = vendors.blackrock(tmp_path)
    content = written.path.read_bytes()
    written.path.write_bytes(content.replace(b"elec4", b"ainp1"))
    with open_recording(written.path) as recording:
        assert recording.channel_ids == ("elec1", "elec2", "elec3")
        np.testing.assert_allclose(recording.traces(0, 99), written.traces[:99, :3], rtol=1e-5)
    slow = tmp_path / "utah.ns2"
    slow.write_bytes(content[:286] + (30).to_bytes(4, "little") + content[290:])
    files.refused(InputError, slow, "only field potentials", "1000 Hz")
    events = tmp_path / "utah.nev"
    clock = (2024, 1, 1, 1, 12, 0, 0, 0)
    events.write_bytes(
        struct.pack("<8sBBHIIII8H32s256sI", b"NEURALEV", 2, 3, 1, 336, 104, 30_000, 30_000, *clock, b"", b"", 0) + bytes(104)
    )
    files.refused(InputError, events, "no continuous signal")


def test_an_intracellular_channel_that_is_not_sorted_is_truth(tmp_path):
    """--truth-channel counts the channels of the file, those that are left out included."""
    raw = np.zeros((40_000, 3), "<i2")
    raw[:, :2] = others.signal(2, 40_000) // 30
    raw[4_000::4_000, 2] = 5_000
    channels = {"CH1": "uV", "AUX1": "mV", "CH2": "uV"}
    path = others.open_ephys_streams(tmp_path / "experiment1" / "recording1", {"A": (FS, channels, raw[:, [0, 2, 1]])})
    assert open_recording(path).channels == (0, 2)
    (found,) = read_truth(path, FS, truth_channel=1).values()
    np.testing.assert_array_equal(found, np.arange(4_000, 40_000, 4_000))


# What a run says


def test_channels_by_name_in_the_side_file_in_python_and_in_the_record(tmp_path):
    raw = others.signal(3, n_samples=61_440)
    for i in range(3):
        others.neuralynx_channel(tmp_path / f"CSC{i + 8}.ncs", f"CSC{i + 8}", i, raw[:, i])
    assert open_recording(tmp_path, channels=["CSC10", 0]).channel_ids == ("CSC10", "CSC8")
    assert ReadOptions(channels="CSC10,0").channels == ("CSC10", 0)
    side = tmp_path.parent / f"{tmp_path.name}.toml"
    side.write_text('channels = ["CSC9", "CSC10"]\ngroups = "CSC9,CSC10"\n')
    assert open_recording(tmp_path).groups == {"0": (0,), "1": (1,)}
    side.unlink()
    folder = tmp_path.parent / "result"
    result = spikecrsae("sort", tmp_path, "-o", folder, "--channels", "CSC10,0", "--epochs", 1, "--device", "cpu")
    assert result.exit_code in (0, 5), result.stderr
    assert "channels taken: 2 CSC10, 0 CSC8" in result.stderr
    recorded = json.loads((folder / "run.json").read_text())["recording"]
    assert (recorded["channels"], recorded["channel_numbers"]) == (["CSC10", "CSC8"], [2, 0])
    assert recorded["read_options"]["channels"] == ["CSC10", 0]
    again = spikecrsae("rerun", folder / "run.json", "-o", tmp_path.parent / "again", "--quiet")
    assert again.exit_code in (0, 5), again.stderr
