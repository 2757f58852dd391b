"""Small recordings in vendors' own formats, written after their public specifications; see recording_files."""

from __future__ import annotations

import itertools
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from helpers.recording_files import FS, N_CHANNELS, Written, stored

#: Samples of an Intan data block (RHD2000 data file formats, version 2.0 and later).
INTAN_BLOCK = 128


def _qstring(text: str) -> bytes:
    """Qt's string: number of bytes, then UTF-16."""
    return struct.pack("<I", 2 * len(text)) + text.encode("utf-16-le")


def _intan_channel(name: str, order: int, kind: int) -> bytes:
    numbers = (order, order, kind, 1, order, 0, 0, 0, 0, 0)
    return _qstring(name) + _qstring(name) + struct.pack("<10h2f", *numbers, 1e6, 0.0)


def intan(folder: Path, raw: np.ndarray | None = None) -> Written:
    """Intan RHD2000, all in one file: four amplifier channels, three auxiliary ones at a quarter of the rate, the supply
    voltage."""
    raw = stored("<i2") if raw is None else raw
    raw = raw[: len(raw) // INTAN_BLOCK * INTAN_BLOCK]
    header = struct.pack(
        "<IhhfhffffffhffIIIhh", 0xC6912702, 2, 0, FS, 1, 1.0, 0.1, 7500.0, 1.0, 0.1, 7500.0, 0, 1e3, 1e3, *[0] * 3, 0, 0
    )
    kinds = [0] * N_CHANNELS + [1] * 3 + [2]
    names = [f"A-{i:03d}" for i in range(N_CHANNELS)] + ["A-AUX1", "A-AUX2", "A-AUX3", "A-VDD1"]
    header += _qstring("n/a") + struct.pack("<h", 1) + _qstring("Port A") + _qstring("A")
    header += struct.pack("<3h", 1, len(names), N_CHANNELS)
    header += b"".join(_intan_channel(name, i, kind) for i, (name, kind) in enumerate(zip(names, kinds, strict=True)))
    block = np.dtype(
        [("time", "<i4", INTAN_BLOCK), ("amplifier", "<u2", (N_CHANNELS, INTAN_BLOCK)), ("auxiliary", "<u2", (3, INTAN_BLOCK // 4)),
         ("supply", "<u2", 1)]
    )  # fmt: skip
    blocks = np.zeros(len(raw) // INTAN_BLOCK, block)
    blocks["time"] = np.arange(len(raw)).reshape(-1, INTAN_BLOCK)
    blocks["amplifier"] = (raw.astype(int) + 32768).reshape(-1, INTAN_BLOCK, N_CHANNELS).transpose(0, 2, 1)
    path = folder / "tetrode_240101_120000.rhd"
    path.write_bytes(header + blocks.tobytes())
    return Written(path, raw * 0.195, "uV", "uint16")


def intan_folder(folder: Path) -> Written:
    """Intan, one file per signal type: info.rhd with the header, amplifier.dat, time.dat."""
    raw = stored("<i2")
    place = folder / "intan_folder"
    place.mkdir()
    header = struct.pack(
        "<IhhfhffffffhffIIIhh", 0xC6912702, 2, 0, FS, 1, 1.0, 0.1, 7500.0, 1.0, 0.1, 7500.0, 0, 1e3, 1e3, *[0] * 3, 0, 0
    )
    header += _qstring("n/a") + struct.pack("<h", 1) + _qstring("Port A") + _qstring("A")
    header += struct.pack("<3h", 1, N_CHANNELS, N_CHANNELS)
    (place / "info.rhd").write_bytes(header + b"".join(_intan_channel(f"A-{i:03d}", i, 0) for i in range(N_CHANNELS)))
    raw.tofile(place / "amplifier.dat")
    np.arange(len(raw), dtype="<i4").tofile(place / "time.dat")
    return Written(place, raw * 0.195, "uV", "int16")


def _spikeglx_stream(path: Path, raw: np.ndarray, rate: float, first: int) -> None:
    """The .bin and .meta of one stream of a Neuropixels 1.0 probe, of which four channels are saved, and its sync channel."""
    kind = path.name.split(".")[-2]
    counts = f"{N_CHANNELS},0,1" if kind == "ap" else f"0,{N_CHANNELS},1"
    np.concatenate([raw, np.full((len(raw), 1), 64, "<i2")], axis=1).tofile(path)
    gains = "".join(f"({i} 0 0 500 250 1)" for i in range(N_CHANNELS))
    names = "".join(f"({kind.upper()}{i};{i}:{i})" for i in range(N_CHANNELS)) + f"(SY0;{N_CHANNELS}:{N_CHANNELS})"
    path.with_suffix(".meta").write_text(
        f"fileName=D:/data/{path.name}\nfileSizeBytes={path.stat().st_size}\nfirstSample={first}\nimAiRangeMax=0.6\n"
        f"imAiRangeMin=-0.6\nimDatPrb_pn=NP1010\nimDatPrb_type=0\nimSampRate={rate:g}\nnSavedChans={N_CHANNELS + 1}\n"
        f"snsApLfSy={counts}\ntypeThis=imec\n~imroTbl=(0,384){gains}\n~snsChanMap=(4,4,1){names}\n"
    )


def spikeglx(folder: Path, triggers: int = 1) -> Written:
    """SpikeGLX: a folder with .bin and .meta for the action-potential and the field-potential band of a probe."""
    raw, place = stored("<i2"), folder / "run_g0"
    place.mkdir()
    for trigger in range(triggers):
        first = int(FS) * (1 + 5 * trigger)
        _spikeglx_stream(place / f"run_g0_t{trigger}.imec0.ap.bin", raw, FS, first)
        _spikeglx_stream(place / f"run_g0_t{trigger}.imec0.lf.bin", raw[::12], FS / 12, first // 12)
    return Written(place, raw * (0.6 / 512 / 500 * 1e6), "uV", "int16", start_time_s=1.0)


def spikeglx_packed(folder: Path) -> Written:
    """SpikeGLX as the International Brain Laboratory keeps it: .cbin (mtscomp 1.0) and .ch in place of .bin."""
    written = spikeglx(folder)
    for path in list(written.path.glob("*.bin")):
        pack(path, int(written.fs if ".ap." in path.name else written.fs / 12), N_CHANNELS + 1)
        path.unlink()
    return written


def pack(path: Path, per_chunk: int, n_channels: int) -> None:
    """A .bin as .cbin and .ch: chunks of differences in time, deflated."""
    raw = np.fromfile(path, "<i2").reshape(-1, n_channels)
    bounds = [*range(0, len(raw), per_chunk), len(raw)]
    chunks = [
        zlib.compress(np.diff(raw[first:last], axis=0, prepend=np.zeros((1, n_channels), "<i2")).tobytes(order="F"))
        for first, last in itertools.pairwise(bounds)
    ]
    path.with_suffix(".cbin").write_bytes(b"".join(chunks))
    facts = {"version": "1.0", "algorithm": "zlib", "do_time_diff": True, "do_spatial_diff": False, "chunk_order": "F"}
    facts |= {"dtype": "int16", "n_channels": n_channels, "sample_rate": per_chunk, "chunk_bounds": bounds}
    facts |= {"chunk_offsets": np.cumsum([0, *map(len, chunks)]).tolist()}
    path.with_suffix(".ch").write_text(json.dumps(facts))


def spikeglx_stream(folder: Path, name: str, columns: np.ndarray, **facts) -> Path:
    """A .bin of these columns (n_samples, n_channels) and a .meta with these facts, tables by a name that begins with "~"."""
    path = folder / f"{name}.bin"
    columns.astype("<i2").tofile(path)
    facts = {
        "fileName": f"D:/{path.name}",
        "fileSizeBytes": path.stat().st_size,
        "nSavedChans": columns.shape[1],
        "firstSample": int(2 * FS),
        **facts,
    }
    path.with_suffix(".meta").write_text("".join(f"{name}={value}\n" for name, value in facts.items()))
    return path


def spikeglx_nidq(folder: Path) -> Written:
    """An NI device of SpikeGLX: four multiplexed channels of a headstage, and a digital word."""
    raw = stored("<i2")
    words = (np.arange(len(raw)) // 1000 % 2)[:, None]
    names = "".join(f"(MN0C{i};{i}:{i})" for i in range(4)) + "(XD0;4:4)"
    facts = {
        "typeThis": "nidq",
        "niSampRate": FS,
        "niAiRangeMax": 5,
        "niMNGain": 200,
        "niMAGain": 10,
        "snsMnMaXaDw": "4,0,0,1",
    }
    path = spikeglx_stream(
        folder, "run_g0_t0.nidq", np.hstack([raw, words]), **facts, **{"~snsChanMap": f"(4,0,0,1){names}"}
    )
    return Written(path, raw * (5 / 32768 / 200 * 1e6), "uV", "int16", start_time_s=2.0)


def axona(folder: Path, tetrodes: tuple[int, ...] = (3,)) -> Written:
    """Axona dacqUSB: packets of three samples of 64 channels, in their own order, of which some tetrodes were recorded; a .set
    without facts about the tetrode file beside it."""
    raw, path = stored("<i2"), folder / "open_field.bin"
    order = [
        *range(32, 40),
        *range(8),
        *range(40, 48),
        *range(8, 16),
        *range(48, 56),
        *range(16, 24),
        *range(56, 64),
        *range(24, 32),
    ]
    signal = np.random.default_rng(3).integers(-3000, 3000, (len(raw), 64)).astype("<i2")
    signal[:, [order[4 * (tetrodes[0] - 1) + wire] for wire in range(4)]] = raw
    packets = np.zeros((len(raw) // 3, 216), "<i2")
    packets[:, 16:208] = signal.reshape(-1, 192)
    path.write_bytes(packets.tobytes())
    facts = ["trial_date Thursday, 31 Oct 2013", "trial_time 17:20:11", "ADC_fullscale_mv 1500", "rawRate 20000"]
    facts += [f"gain_ch_{i} {5000 + 1000 * (i % 4)}" for i in range(64)]
    facts += [f"collectMask_{k} {int(k in tetrodes)}" for k in range(1, 17)]
    path.with_suffix(".set").write_text("\r\n".join([*facts, "data_start"]))
    path.with_suffix(".1").write_bytes(b"num_chans 4\r\nnum_spikes 1\r\nsample_rate 48000 hz\r\ndata_start" + bytes(216))
    gains = 1.5e6 / (2**15 * np.array([5000, 6000, 7000, 8000]))
    return Written(path, raw * gains, "uV", "int16")


#: Bytes of a block of a Spike2 file that hold one channel's samples, and of the unit in which its places are given.
SPIKE2_BLOCK, SPIKE2_PLACE = 16_384, 512


def spike2(folder: Path, more: tuple[tuple[str, str, float, np.ndarray], ...] = ()) -> Written:
    """CED Spike2 .smr, version 9: channels with gains of their own, in chained blocks. more: name, unit, rate and samples of
    further channels."""
    raw, path = stored("<i2"), folder / "tetrode.smr"
    text, short, number = "S{}".format, "<i2", "<i4"
    head = [("system", short), ("copyright", text(10)), ("creator", text(8)), ("us_per_time", short), ("time_per_adc", short), ("state", short),
            ("first", number), ("channels", short), ("size", short), ("extra", short), ("buffer", short), ("format", short),
            ("last", number), ("time_base", "<f8"), ("rest", text(455))]  # fmt: skip
    channel = [("deleted", short), ("next", number), ("first", number), ("last", number), ("blocks", short), ("extra", short),
               ("before", short), ("free", short), ("size", short), ("most", short), ("comment", text(72)), ("end", number),
               ("divide", number), ("physical", short), ("title", text(10)), ("ideal", "<f4"), ("kind", "u1"), ("unused", "i1"),
               ("scale", "<f4"), ("offset", "<f4"), ("unit", text(6)), ("interleave", short)]  # fmt: skip
    channels = [(f"tet {i + 1}", "uV", FS, raw[:, i], (0.5, 0.5, 0.25, 1.0)[i]) for i in range(N_CHANNELS)]
    channels += [(*other, 1.0) for other in more]
    rows, blocks = np.zeros(len(channels), channel), b""
    place = -(-(512 + 140 * len(channels)) // SPIKE2_PLACE)
    per_block, step = (SPIKE2_BLOCK - 20) // 2, SPIKE2_BLOCK // SPIKE2_PLACE
    for row, (title, unit, rate, values, scale) in zip(rows, channels, strict=True):
        divide, count = round(1e5 / rate), -(-len(values) // per_block)
        row["first"], row["last"], row["blocks"] = place, place + step * (count - 1), count
        row["divide"], row["title"], row["kind"], row["scale"], row["unit"] = (
            divide,
            bytes([len(title)]) + title.encode(),
            1,
            scale,
            unit,
        )
        row["ideal"], row["unit"] = rate, bytes([len(unit)]) + unit.encode()
        for k in range(count):
            part = values[k * per_block : (k + 1) * per_block]
            start, following = k * per_block * divide, place + step if k < count - 1 else -1
            blocks += (
                struct.pack("<4i2h", -1, following, start, start + (len(part) - 1) * divide, 0, len(part)) + part.tobytes()
            )
            blocks += bytes(-len(blocks) % SPIKE2_BLOCK)
            place += step
    header = _plexon_header(head, system=9, us_per_time=10, time_per_adc=1, channels=len(channels), time_base=1e-6)
    content = header.ljust(512, b"\0") + b"".join(row.tobytes() for row in rows)
    path.write_bytes(content + bytes(-len(content) % SPIKE2_PLACE) + blocks)
    return Written(path, raw * np.array([0.5, 0.5, 0.25, 1.0]) / 6553.6, "uV", "int16")


def maxwell(
    folder: Path, recordings: tuple[str, ...] = ("rec0000",), electrodes: tuple[tuple[int, ...], ...] = ()
) -> Written:
    """MaxTwo of MaxWell Biosystems: a well with recordings of some routed electrodes, whose mapping is in another order."""
    raw, path = stored("<u2"), folder / "maxtwo.raw.h5"
    with h5py.File(path, "w") as file:
        file["version"] = np.array([b"20190530"])
        for k, name in enumerate(recordings):
            group = file.create_group(f"wells/well000/{name}")
            group["start_time"], group["groups/routed/raw"] = np.array([5000 + 10_000 * k]), raw.T
            group["groups/routed/channels"] = np.array([7, 3, 11, 5])
            group["settings/lsb"], group["settings/sampling"] = np.array([6.3e-6]), np.array([FS])
            row = [("channel", "<i4"), ("electrode", "<i4"), ("x", "<f8"), ("y", "<f8")]
            wires = electrodes[k] if electrodes else (3, 5, 7, 11)
            group["settings/mapping"] = np.array([(c, 100 * c, 17.5 * c, 35.0) for c in (*wires, -1)], row)
    # in the order of the mapping
    return Written(path, raw[:, [1, 3, 0, 2]] * 6.3, "uV", "uint16")


def blackrock(folder: Path, blocks: int = 1) -> Written:
    """Blackrock NSx 2.3: header, one extended header per channel, data blocks with the time stamp at which each begins."""
    raw, path = stored("<i2"), folder / "utah.ns5"
    channel = "<2sH16sBBhhhh16sIIHIIH"
    size = 314 + N_CHANNELS * struct.calcsize(channel)
    clock = (2024, 1, 1, 1, 12, 0, 0, 0)
    content = struct.pack("<8sBBI16s256sII8HI", b"NEURALCD", 2, 3, size, b"30 kS/s", b"", 1, 30_000, *clock, N_CHANNELS)
    for i in range(N_CHANNELS):
        scale = (-32764, 32764, -8191, 8191)
        content += struct.pack(channel, b"CC", i + 1, b"elec%d" % (i + 1), 0, i, *scale, b"uV", 300, 1, 1, 7_500_000, 3, 1)
    for number in range(blocks):
        content += struct.pack("<BII", 1, 30_000 * (1 + 4 * number), len(raw)) + raw.tobytes()
    path.write_bytes(content)
    return Written(path, raw * 0.25, "uV", "int16", start_time_s=1.0, fs=30_000.0)


def _plexon_header(dtype: list, **values) -> bytes:
    row = np.zeros(1, dtype)
    for name, value in values.items():
        row[name] = value
    return row.tobytes()


def plexon(folder: Path, pause_s: float = 0.0, prefix: str = "WB", rate: float = FS, spikes: int = 0) -> Written:
    """Plexon PLX 105: file header, one header per slow (continuous) channel, data blocks of 500 samples of one channel each,
    with a pause before the second half; blocks of detected spikes of one wire where there are any."""
    raw, path = stored("<i2"), folder / "wires.plx"
    text, number, short = "S{}".format, "<i4", "<u2"
    head = [("magic", "<u4"), ("version", number), ("comment", text(128)), ("frequency", number), ("dsp", number), ("events", number),
            ("slow", number), ("points", number, 2), ("date", number, 6), ("fast", number), ("waveform_rate", number),
            ("last", "<f8"), ("trodes", "u1", 2), ("spike_bits", "u1"), ("slow_bits", "u1"), ("spike_mv", short), ("slow_mv", short),
            ("preamp", short), ("padding", text(46)), ("counts", number, 650 + 650 + 512)]  # fmt: skip
    slow = [("name", text(32)), ("channel", number), ("rate", number), ("gain", number), ("enabled", number), ("preamp", number),
            ("spike_channel", number), ("comment", text(128)), ("padding", number, 28)]  # fmt: skip
    parts = [
        _plexon_header(
            head, magic=0x58454C50, version=105, frequency=40_000, dsp=int(spikes > 0), slow=N_CHANNELS, date=(2024, 1, 1, 12, 0, 0), waveform_rate=40_000,
            trodes=1, spike_bits=16, slow_bits=16, spike_mv=5000, slow_mv=5000, preamp=1000,
        )
    ]  # fmt: skip
    if spikes:
        wire = [("name", text(32)), ("signal", text(32)), ("channel", number), ("rest", number, 238)]
        parts.append(_plexon_header(wire, name=b"sig001", channel=1, rest=1))
    for i in range(N_CHANNELS):
        facts = {
            "name": b"%s%02d" % (prefix.encode(), i + 1),
            "channel": i,
            "rate": int(rate),
            "gain": 10,
            "enabled": 1,
            "preamp": 100,
        }
        parts.append(_plexon_header(slow, **facts))
    for first in range(0, len(raw), 500):
        ticks = int((first / rate + pause_s * (first >= len(raw) // 2)) * 40_000)
        for i in range(N_CHANNELS):
            words = raw[first : first + 500, i]
            parts.append(struct.pack("<HHIHHHH", 5, 0, ticks, i, 0, 1, len(words)) + words.tobytes())
    for spike in range(spikes):
        parts.append(struct.pack("<HHIHHHH", 1, 0, 1000 * spike, 1, 1, 1, 32) + raw[:32, 0].tobytes())
    path.write_bytes(b"".join(parts))
    # the last sample is left out: docs/formats.md
    return Written(path, raw[:-1] * (5000 / (0.5 * 2**16 * 10 * 100) * 1000), "uV", "int16")


WRITERS: tuple[Callable[[Path], Written], ...] = (
    intan, intan_folder, spikeglx, spikeglx_packed, spikeglx_nidq, axona, spike2, maxwell, blackrock, plexon,
)  # fmt: skip
