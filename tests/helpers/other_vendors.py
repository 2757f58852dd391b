"""More vendors' formats, with channels that are no electrodes and neighbours that were not named; see recording_files."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from helpers.recording_files import FS

LFP_FS = 1000.0


def signal(n_channels: int, n_samples: int = 10_240, seed: int = 5) -> np.ndarray:
    """Stored numbers (n_samples, n_channels), no two channels alike."""
    return np.random.default_rng(seed).integers(-300, 300, (n_samples, n_channels)).astype("<i2")


def neuralynx_channel(
    path: Path, name: str, channel: int, raw: np.ndarray, *, start_s: float = 1.0, rate: float = FS, gain_uv: float = 0.1
) -> Path:
    """One .ncs: a text header of 16 kB, records of 512 samples with the time of the first in microseconds."""
    raw = raw[: len(raw) // 512 * 512]
    layout = [("timestamp", "<u8"), ("channel", "<u4"), ("rate", "<u4"), ("valid", "<u4"), ("samples", "<i2", 512)]
    table = np.zeros(len(raw) // 512, layout)
    table["timestamp"] = round(start_s * 1e6) + np.round(np.arange(len(table)) * 512 / rate * 1e6)
    table["channel"], table["rate"], table["valid"] = channel, rate, 512
    table["samples"] = raw.reshape(-1, 512)
    header = (
        "######## Neuralynx Data File Header\r\n## File Name test.ncs\r\n## Time Opened (m/d/y): 1/2/2020  (h:m:s.ms) 1:2:3.4\r\n"
        "## Time Closed (m/d/y): 1/2/2020  (h:m:s.ms) 1:3:3.4\r\n-CheetahRev 5.7.4\r\n-FileType CSC\r\n-RecordSize 1044\r\n"
        f"-AcqEntName {name}\r\n-ADChannel {channel}\r\n-ADBitVolts {gain_uv * 1e-6:.12f}\r\n-SamplingFrequency {rate:g}\r\n"
        f"-InputRange {round(gain_uv * 32768)}\r\n-InputInverted False\r\n-HardwareSubSystemType DigitalLynxSX\r\n-NumADChannels 1\r\n"
    )
    path.write_bytes(header.encode("latin-1").ljust(16_384, b"\0") + table.tobytes())
    return path


def open_ephys_channel(path: Path, raw: np.ndarray, first: int = 0) -> Path:
    """One .continuous of Open Ephys' first format: a text header of 1 kB, records of 1024 samples, big-endian, with a sample number."""
    layout = [("first", "<i8"), ("n", "<u2"), ("number", "<u2"), ("samples", ">i2", 1024), ("marker", "u1", 10)]
    table = np.zeros(len(raw) // 1024, layout)
    table["first"], table["n"] = first + 1024 * np.arange(len(table)), 1024
    table["samples"] = raw[: len(table) * 1024].reshape(-1, 1024)
    table["marker"] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 255]
    name = path.stem.split("_")[1]
    facts = (
        f"header.format = 'Open Ephys Data Format'; \nheader.version = 0.4; \nheader.header_bytes = 1024;\nheader.description = 'x'; \n"
        f"header.date_created = '1-Jan-2020 120000'; \nheader.channel = '{name}';\nheader.channelType = 'Continuous'; \n"
        f"header.sampleRate = {FS:.0f};\nheader.blockLength = 1024;\nheader.bufferSize = 1024;\nheader.bitVolts = 0.195;\n"
    )
    path.write_bytes(facts.encode().ljust(1024) + table.tobytes())
    return path


def open_ephys_streams(place: Path, streams: dict[str, tuple[float, dict[str, str], np.ndarray]]) -> Path:
    """A recording of Open Ephys' binary format in the folder `place`: for each stream its rate, the unit of each channel by name, and
    stored numbers."""
    listing = []
    for name, (rate, channels, raw) in streams.items():
        folder = place / "continuous" / name
        folder.mkdir(parents=True)
        raw.tofile(folder / "continuous.dat")
        np.save(folder / "sample_numbers.npy", np.arange(len(raw)))
        facts = [{"channel_name": channel, "bit_volts": 0.195, "units": unit} for channel, unit in channels.items()]
        listing.append({"folder_name": f"{name}/", "sample_rate": rate, "num_channels": len(channels), "channels": facts})
    (place / "structure.oebin").write_text(json.dumps({"GUI version": "0.6.0", "continuous": listing, "events": []}))
    return place


def alpha_omega(path: Path, channels: dict[str, tuple[float, np.ndarray]], start_s: float = 0.0) -> Path:
    """AlphaOmega .mpx, map version 4: a header block, a definition of each channel (name: rate in Hz, stored numbers), data blocks."""

    def block(kind: bytes, content: bytes) -> bytes:
        return struct.pack("<Hc", len(content) + 3, kind) + content

    end_s = start_s + max(len(raw) / rate for rate, raw in channels.values())
    clock = (12, 0, int(start_s), 0, 1, 1, 2024, 1)
    content = block(b"h", struct.pack("<xlhBBBBBBHBxddlB10s4sxl", 0, 1, *clock, start_s, end_s, 0, 4, b"AlphaRS", b"", 0))
    for number, (name, (rate, _)) in enumerate(channels.items()):
        definition = struct.pack("<xlhhhxBBB", 0, 1, 1, number, 0, 0, 0) + struct.pack(
            "<hffhh", 0, 38.147, rate / 1000, 0, 0
        )
        content += block(b"2", definition + struct.pack("<fh", 1.0, 2000) + name.encode() + b"\0")
    for number, (rate, raw) in enumerate(channels.values()):
        for begin in range(0, len(raw), 1000):
            piece = raw[begin : begin + 1000].astype("<i2").tobytes()
            content += block(
                b"5", struct.pack("<ch", b"\0", number) + piece + struct.pack("<L", int(start_s * rate) + begin)
            )
    path.write_bytes(content + struct.pack("<Hc", 65_535, b"h"))
    return path


def tdt_block(folder: Path, stores: dict[str, tuple[float, np.ndarray]], in_files: bool = False) -> Path:
    """A block of a TDT tank: .Tbk names the stores (name: rate, stored numbers), .tsq lists their pieces, .tev holds them; or .sev files
    do, one for each channel."""
    folder.mkdir(parents=True)
    stem = f"{folder.parent.name}_{folder.name}"
    kinds, pieces, held = b"", [], {"": b""}
    stream = 0x8101
    for name, (rate, raw) in stores.items():
        facts = {"StoreName": ("S", name), "TankEvType": ("L", stream), "NumChan": ("L", raw.shape[1]), "StrobeMode": ("L", 0),
                 "SampleFreq": ("D", rate), "NumPoints": ("L", 256), "DataFormat": ("L", 0), "Enabled": ("L", 1),
                 "CircType": ("L", 0), "HeadName": ("S", name)}  # fmt: skip
        kinds += b"[STOREHDRITEM]" + "".join(f"NAME={k};TYPE={t};VALUE={v};\n" for k, (t, v) in facts.items()).encode()
        for begin in range(0, len(raw) // 256 * 256, 256):
            for channel in range(raw.shape[1]):
                content = raw[begin : begin + 256, channel].astype("<f4").tobytes()
                file = f"{stem}_{name}_Ch{channel + 1}.sev" if in_files else ""
                place = len(held.setdefault(file, b""))
                pieces.append((10 + len(content) // 4, stream, name, channel + 1, 0, 100.0 + begin / rate, place, 0, rate))
                held[file] += content
    kinds = kinds.removeprefix(b"[STOREHDRITEM]") + b"[STOREHDRITEM][USERNOTEDELIMITER]"
    layout = [("size", "<i4"), ("type", "<i4"), ("name", "S4"), ("channel", "<u2"), ("sort", "<u2"), ("time", "<f8"), ("place", "<i8"),
              ("format", "<i4"), ("rate", "<f4")]  # fmt: skip
    edges = [(10, 0x8801, chr(code), 0, 0, 100.0, 0, 0, 0.0) for code in (0, 1, 2)]
    np.array([*edges[:2], *pieces, edges[2]], layout).tofile(folder / f"{stem}.tsq")
    (folder / f"{stem}.Tbk").write_bytes(kinds)
    for file, content in held.items():
        (folder / (file or f"{stem}.tev")).write_bytes(content or b"\0" * 16)
    (folder / f"{stem}.tdx").write_bytes(b"")
    return folder
