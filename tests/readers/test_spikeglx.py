"""SpikeGLX: the facts of .meta, which the probe decides, and samples that are packed."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import recording_files as files
from helpers import vendor_files as vendors

from spikecrsae.errors import InputError
from spikecrsae.readers import open_recording

N, FS = files.N_CHANNELS, files.FS
RAW = files.stored("<i2")
WITH_SYNC = np.hstack([RAW, np.full((len(RAW), 1), 64)])
IMEC = {"typeThis": "imec", "imSampRate": FS, "imAiRangeMax": 0.6, "acqApLfSy": "8,8,1", "snsApLfSy": f"{N},0,1"}


@pytest.mark.parametrize(
    ("facts", "gain"),
    [
        # one gain for the probe, in the header of its table: no row has one
        ({"imDatPrb_pn": "NP1110", "imDatPrb_type": 1110, "~imroTbl": "(1110,2,0,250,125,1)" + "(0 0 0)" * 24}, 0.6 / 512 / 250),
        # the same from later versions, which name it
        ({"imDatPrb_type": 1110, "imChan0apGain": 500, "imMaxInt": 512, "~imroTbl": "(1110,2,0,500,250,1)"}, 0.6 / 512 / 500),
        # the first probes 2.0 with four shanks, whose gain is fixed, without a part number
        ({"imDatPrb_type": 24, "imMaxInt": 8192, "~imroTbl": "(24,8)" + "(0 0 0 500 0)(1 0 0 0 1)"}, 0.6 / 8192 / 80),
        ({"imDatPrb_pn": "NP2013", "imChan0apGain": 100, "imMaxInt": 2048}, 0.6 / 2048 / 100),
    ],
    ids=["NP1110", "NP1110 later", "NP2.4", "NP2013"],
)  # fmt: skip
def test_the_gain_of_a_probe(tmp_path, facts, gain):
    path = vendors.spikeglx_stream(tmp_path, "a_g0_t0.imec0.ap", WITH_SYNC, **IMEC, **facts)
    recording = open_recording(path)
    np.testing.assert_allclose(recording.gain, gain * 1e6)
    assert (recording.amplitude_unit, recording.start_time_s) == ("uV", 2.0)
    assert recording.channel_ids == ("AP0", "AP1", "AP2", "AP3")
    np.testing.assert_array_equal(recording.raw(100, 200), RAW[100:200])


def test_a_probe_that_does_not_say_its_gain_stays_in_stored_numbers(tmp_path):
    path = vendors.spikeglx_stream(tmp_path, "a_g0_t0.imec0.ap", WITH_SYNC, **IMEC)
    assert open_recording(path).amplitude_unit == "ADC"
    assert open_recording(path, gain=0.5).amplitude_unit == "uV"


def test_saved_channels_have_the_gain_and_the_place_of_their_own_rows(tmp_path):
    table = "(0,8)" + "".join(f"({i} 0 0 {500 if i < 4 else 1000} 250 1)" for i in range(8))
    places = "(NP2014,2,250,70)" + "".join(f"({i % 2}:{i}:{20 * i}:1)" for i in range(8))
    facts = {"imDatPrb_type": 0, "snsSaveChanSubset": "2:3,5,7,16", "~imroTbl": table, "~snsGeomMap": places}
    recording = open_recording(vendors.spikeglx_stream(tmp_path, "a_g0_t0.imec0.ap", WITH_SYNC, **IMEC, **facts))
    np.testing.assert_allclose(recording.gain, 0.6 / 512 / np.array([500, 500, 1000, 1000]) * 1e6)
    assert recording.channel_ids == ("AP2", "AP3", "AP5", "AP7")
    np.testing.assert_array_equal(recording.channel_positions, [[2, 40], [253, 60], [255, 100], [257, 140]])


def test_digital_words_are_no_channels(tmp_path):
    written = vendors.spikeglx_nidq(tmp_path)
    assert open_recording(written.path).channel_ids == ("MN0C0", "MN0C1", "MN0C2", "MN0C3")
    words = open_recording(written.path, stream="nidq-SYNC")
    assert (words.channel_ids, words.amplitude_unit) == (("XD0",), "ADC")
    np.testing.assert_array_equal(words.raw(999, 1001), [[0], [1]])


def test_channels_of_an_ni_device_have_the_gain_of_their_kind(tmp_path):
    counts, names = {"snsMnMaXaDw": "2,1,1,1"}, "(2,1,1,1,0)(MN0C0;0:0)(MN0C1;1:1)(MA0C0;2:2)(XA0;3:3)(XD0;4:4)"
    facts = {"typeThis": "nidq", "niSampRate": FS, "niAiRangeMax": 5, "niMNGain": 200, "niMAGain": 10, "~snsChanMap": names}
    path = vendors.spikeglx_stream(tmp_path, "a_g0_t0.nidq", WITH_SYNC, **facts, **counts)
    recording = open_recording(path, channels="0-3")
    assert recording.channel_ids == ("MN0C0", "MN0C1", "MA0C0", "XA0")
    np.testing.assert_allclose(recording.gain, 5 / 32768 / np.array([200, 200, 10, 1]) * 1e6)
    np.testing.assert_array_equal(recording.raw(0, 100), RAW[:100])


def test_a_probe_goes_before_an_ni_device(tmp_path):
    place = vendors.spikeglx(tmp_path).path
    vendors.spikeglx_nidq(place)
    assert "imec0.ap" in open_recording(place).notes[0]
    assert open_recording(place, stream="nidq").channel_ids[0] == "MN0C0"


def test_the_file_of_a_stream_decides_and_not_the_name_it_once_had(tmp_path):
    path = vendors.spikeglx_stream(
        tmp_path, "mouse7", WITH_SYNC, **IMEC, imDatPrb_type=24, fileName="D:/a/b_g3_t0.imec1.ap.bin"
    )
    assert open_recording(path, stream="imec1.ap").n_channels == N
    vendors.spikeglx_stream(
        tmp_path, "c_g0_t0.imec0.ap", WITH_SYNC, **IMEC, imDatPrb_type=24, fileName="D:/b_g3_t0.imec1.ap.bin"
    )
    assert open_recording(tmp_path, stream="imec0.ap").n_channels == N


def test_metadata_that_lack_what_is_needed(tmp_path):
    path = vendors.spikeglx_stream(tmp_path, "a_g0_t0.imec0.ap", WITH_SYNC, typeThis="imec")
    files.refused(InputError, path.with_suffix(".meta"), "imSampRate", "snsApLfSy", "--n-channels")
    other = vendors.spikeglx_stream(tmp_path, "b_g0_t0.imec0.ap", WITH_SYNC, **{**IMEC, "snsApLfSy": "384,0,1"})
    files.refused(InputError, other.with_suffix(".meta"), "384,0,1", "nSavedChans=5")


def test_the_same_part_of_a_stream_twice(tmp_path):
    for name in ("a_g0_t0", "b_g0_t0"):
        vendors.spikeglx_stream(tmp_path, f"{name}.imec0.ap", WITH_SYNC, **IMEC, imDatPrb_type=24)
    files.refused(InputError, tmp_path, "a_g0_t0.imec0.ap.meta", "b_g0_t0.imec0.ap.meta", "same gate and trigger")


def test_packed_samples_agree_with_mtscomp(tmp_path):
    mtscomp = pytest.importorskip("mtscomp")
    path = vendors.spikeglx_stream(tmp_path, "a_g0_t0.imec0.ap", WITH_SYNC, **IMEC, imDatPrb_type=24)
    for spatial in (False, True):
        packed = [path.with_suffix(".cbin"), path.with_suffix(".ch")]
        facts = {"sample_rate": FS, "n_channels": N + 1, "dtype": "int16", "n_threads": 1, "check_after_compress": False}
        mtscomp.compress(path, *packed, **facts, do_spatial_diff=spatial)
        whole = path.rename(tmp_path / "whole")
        np.testing.assert_array_equal(open_recording(packed[0]).raw(0, len(RAW)), RAW)
        np.testing.assert_array_equal(open_recording(packed[0]).raw(19_990, 40_010), RAW[19_990:40_010])
        whole.rename(path)


@pytest.mark.parametrize("fault", ["cut", "missing", "other"])
def test_packed_samples_that_do_not_fit_their_index(tmp_path, fault):
    path = vendors.spikeglx_packed(tmp_path).path / "run_g0_t0.imec0.ap.cbin"
    if fault == "cut":
        path.write_bytes(path.read_bytes()[:-9])
    elif fault == "missing":
        path.with_suffix(".ch").unlink()
    else:
        path.with_suffix(".ch").write_text(path.with_suffix(".ch").read_text().replace('"n_channels": 5', '"n_channels": 4'))
    files.refused(InputError, path, "run_g0_t0.imec0.ap.", "again")
