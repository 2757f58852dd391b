"""Cases of the corpus: what is done to the numbers of a recording, to their type, and to what is said about them."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from helpers import recording_files as files
from helpers.corpus import FS, Case, content

# ---- facts and numbers


def as_hdf5(change: Callable[[np.ndarray], np.ndarray], **attributes) -> Callable[[Path], list]:
    """Counts at 0.2 uV each, changed, as generic HDF5."""

    def make(folder: Path) -> list:
        path = folder / "traces.h5"
        with files.h5py.File(path, "w") as file:
            file["traces"] = change(content())
            facts = {"sampling_frequency": FS, "units": "uV", "gain": 0.2} | attributes
            file["traces"].attrs.update({name: value for name, value in facts.items() if value is not None})
        return [path]

    return make


def as_nwb(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], list]:
    def make(folder: Path) -> list:
        files.write_nwb(folder / "raw.nwb", change(content()))
        return [folder / "raw.nwb"]

    return make


def as_mearec(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], list]:
    def make(folder: Path) -> list:
        files.write_mearec(folder / "mearec.h5", change(content() * np.float32(0.2)), "1.9.0")
        return [folder / "mearec.h5"]

    return make


def as_raw(
    change: Callable[[np.ndarray], np.ndarray], dtype: str = "int16", channels: int = 4, gain: float | None = 0.2, **more
):
    def make(folder: Path) -> list:
        path = folder / "session.dat"
        np.ascontiguousarray(change(content())).tofile(path)
        options = {"sampling-frequency": FS, "n-channels": channels, "dtype": dtype, "gain": gain} | more
        return [path, *(word for name, value in options.items() if value is not None for word in (f"--{name}", value))]

    return make


def _with(place: tuple, value) -> Callable[[np.ndarray], np.ndarray]:
    def change(counts: np.ndarray) -> np.ndarray:
        changed = counts.copy() if value in (0, 3) else counts.astype(np.float32)
        changed[place] = value
        return changed

    return change


def _held(counts: np.ndarray) -> np.ndarray:
    changed = counts.copy()
    changed[10_000:14_000] = changed[10_000]
    return changed


MIDDLE = slice(10_000, 14_000)
#: What is done to the numbers: name -> (change, how it must be met, with which words).
NUMBERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str, str]] = {
    "a block of NaN": (_with((MIDDLE,), np.nan), "refused", "sample 10000 .* nan"),
    "one NaN": (_with((12_345, 2), np.nan), "refused", "sample 12345 .* nan"),
    "a channel of NaN": (_with((slice(None), 1), np.nan), "refused", "nan"),
    "a block of infinities": (_with((MIDDLE,), -np.inf), "refused", "sample 10000 .* -inf"),
    "numbers beyond all voltages": (_with((MIDDLE,), 1e30), "refused", "e\\+30"),
    "constant": (lambda x: np.full_like(x, 7), "refused", "is flat"),
    "one channel constant": (_with((slice(None), 1), 3), "warned", "channel (1|11) is flat"),
    "saturated": (lambda x: np.clip(x, -8, 8), "refused", "is saturated"),
    "one channel saturated": (
        lambda x: np.concatenate([x[:, :3], np.clip(x[:, 3:], -8, 8)], axis=1),
        "warned",
        "is saturated",
    ),
    "dropped samples as zeros": (_with((MIDDLE,), 0), "warned", "artefact"),
    "dropped samples as the last value": (_held, "warned", "artefact"),
    "a channel twice": (lambda x: x[:, [0, 1, 2, 2]], "warned", "linearly dependent"),
    "all channels the same": (lambda x: np.repeat(x[:, :1], 4, axis=1), "warned", "linearly dependent"),
    "copies at other scales": (
        lambda x: (x[:, :1] * np.array([1, 2, 3, 20])).astype(x.dtype),
        "warned",
        "linearly dependent",
    ),
    "no sample": (lambda x: x[:0], "refused", "empty|no sample|no multiple"),
    "one sample": (lambda x: x[:1], "refused", "samples"),
    "thirty samples": (lambda x: x[:30], "refused", "too short"),
    "half a second": (lambda x: x[: int(FS / 2)], "warned", "too short to learn"),
    "more channels than samples": (
        lambda x: x[:4].repeat(500, axis=1),
        "refused",
        "samples on|more channels|samples .* too short",
    ),
    "huge": (lambda x: x.astype(np.float32) * 1e5, "warned", "outside 1 to 500 uV"),
    "tiny": (lambda x: x.astype(np.float32) * 1e-4, "warned", "outside 1 to 500 uV"),
    "a channel 3000 times as loud": (
        lambda x: x * np.array([1, 1, 3000, 1], np.float32),
        "warned",
        "channel (2|12) is .* outside 1 to 500",
    ),
    "copies at scales far apart": (
        lambda x: x[:, :1] * np.array([1, 2, 3, 1000], np.float32),
        "warned",
        "linearly dependent",
    ),
    "every second sample of another wire": (lambda x: x.reshape(-1, 2), "warned", "read as samples"),
}


def number_cases() -> list[Case]:
    """What can be wrong with the numbers, in four formats."""
    formats = {"HDF5": as_hdf5, "NWB": as_nwb, "MEArec": as_mearec, "raw binary": None}
    cases = []
    for format, writer in formats.items():
        for name, (change, how, words) in NUMBERS.items():
            if writer is None:
                probe = change(content()[:20_000])
                made = as_raw(change, str(probe.dtype), probe.shape[1])
            elif writer in (as_nwb, as_mearec) and name in (
                "every second sample of another wire",
                "more channels than samples",
            ):
                continue
            else:
                made = writer(change)
            cases.append(Case(f"{format}: {name}", made, how, words, (2, 3)))
    return cases


def same(counts: np.ndarray) -> np.ndarray:
    return counts


def type_cases() -> list[Case]:
    """Numbers read as what they are not; what is no number at all."""
    unsigned, wrong_type = (
        "cross half of the range",
        "--dtype",
    )
    views = {
        "int16 as uint16": (as_raw(same, "uint16"), unsigned),
        "uint16 about its middle as int16": (as_raw(lambda x: (x.astype(int) + 32768).astype("<u2"), "int16"), unsigned),
        "big-endian as little-endian": (as_raw(lambda x: x.astype(">i2"), "int16"), unsigned),
        "little-endian as big-endian": (as_raw(same, ">i2"), unsigned),
        "int16 as int32": (as_raw(same, "int32", 2), wrong_type),
        "int16 as int32, no gain": (as_raw(same, "int32", 2, None), wrong_type),
        "int16 as int8": (as_raw(same, "int8", 8), wrong_type),
        "int16 as uint8": (as_raw(same, "uint8", 4), wrong_type),
        "int16 as float32": (as_raw(same, "float32", 2), wrong_type),
        "int16 as float64": (as_raw(same, "float64", 4), wrong_type),
        "int32 as int16": (as_raw(lambda x: x.astype("<i4"), "int16"), wrong_type),
        "float32 as int16": (as_raw(lambda x: x.astype("<f4") * 1.37, "int16"), wrong_type),
        "float32 as int32": (as_raw(lambda x: x.astype("<f4") * 1.37, "int32"), wrong_type),
        "float32 as float64": (as_raw(lambda x: x.astype("<f4") * 1.37, "float64"), wrong_type),
        "float64 as float32": (as_raw(lambda x: x.astype("<f8") * 1.37, "float32"), wrong_type),
        "float16 as int16": (as_raw(lambda x: x.astype("<f2"), "int16"), wrong_type),
        "two channels too few": (as_raw(same, "int16", 2), "read as samples"),
        "one channel for four": (as_raw(same, "int16", 1), "read as samples"),
        "three channels for four": (as_raw(lambda x: x[:40_959], "int16", 3), "read as samples"),
    }
    refused = [name for name in views if re.search(r"as float|float64 as float32", name)]
    cases = [
        Case(f"raw binary: {name}", made, "refused" if name in refused else "warned", words)
        for name, (made, words) in views.items()
    ]
    kinds = {
        "complex": "complex64",
        "text": "S4",
        "Boolean": "bool",
        "objects": None,
        "compound": [("a", "i2"), ("b", "i2")],
    }
    for name, kind in kinds.items():
        change = (
            (lambda x, kind=kind: np.zeros((1000, 4), kind))
            if kind
            else (lambda x: np.full((1000, 4), "x", files.h5py.string_dtype()))
        )
        cases.append(Case(f"HDF5: {name}", as_hdf5(change), "refused", "real numbers"))
    return cases


def _with_words(folder: Path, words: tuple[str, ...]) -> list:
    return [*as_hdf5(same)(folder), *words]


def fact_cases() -> list[Case]:
    """What a file or the user says about the numbers: rate, gain, offset, channels, time."""
    cases = []
    rates = {"0": 0.0, "negative": -FS, "NaN": np.nan, "infinite": np.inf, "text": "fast", "several": [FS, FS], "none": None}
    for name, rate in rates.items():
        cases.append(Case(f"HDF5: rate {name}", as_hdf5(same, sampling_frequency=rate), "refused", "sampling.frequency"))
    for name, rate in {"in kHz": 20.0, "absurd": 1e12, "beyond all": 1e300, "almost 0": 5e-324}.items():
        cases.append(
            Case(
                f"HDF5: rate {name}",
                as_hdf5(same, sampling_frequency=rate),
                "refused",
                "Nyquist|too short|sampling.frequency",
            )
        )
    for rate in (2000.0, 200_000.0):
        cases.append(Case(f"HDF5: rate {rate:g}", as_hdf5(same, sampling_frequency=rate), "warned", "unusual for spikes"))
        cases.append(
            Case(f"raw binary: rate {rate:g}", as_raw(same, **{"sampling-frequency": rate}), "warned", "unusual for spikes")
        )
    gains = {"0": 0.0, "NaN": np.nan, "infinite": np.inf, "text": "0,195", "too many": [0.2] * 3, "a matrix": np.eye(4)}
    for name, gain in gains.items():
        cases.append(Case(f"HDF5: gain {name}", as_hdf5(same, gain=gain), "refused", "gain", (2, 3)))
    for name, offset in {"NaN": np.nan, "text": "none", "too many": [1.0] * 5}.items():
        cases.append(Case(f"HDF5: offset {name}", as_hdf5(same, offset=offset), "refused", "offset", (2, 3)))
    for gain in (1e4, 1e-4, -1e5):
        cases.append(Case(f"HDF5: gain {gain:g}", as_hdf5(same, gain=gain), "warned", "outside 1 to 500 uV.*--gain"))
        cases.append(Case(f"raw binary: gain {gain:g}", as_raw(same, gain=gain), "warned", "outside 1 to 500 uV.*--gain"))
    volts = as_hdf5(lambda x: x * 2e-7, gain=None, units=None)
    cases.append(Case("HDF5: volts that are called nothing", volts, "warned", "may be volts"))
    cases.append(Case("HDF5: microvolts that are called volts", as_hdf5(same, units="V"), "warned", "outside 1 to 500 uV"))
    words = {
        "channels beyond": (("--channels", "0,7"), "channels 0 to 3"), "channels twice": (("--channels", "1,1"), "twice"),
        "channels in words": (("--channels", "all"), "cannot be read"), "groups beyond": (("--groups", "0-1,2-9"), "not in use"),
        "a range beyond": (("--start-s", "100"), "no part of"), "a range reversed": (("--start-s", "1", "--stop-s", "0.5"), "no part of"),
        "a range of nothing": (("--start-s", "1", "--stop-s", "1"), "no part of"), "a rate of NaN": (("--sampling-frequency", "nan"), "above 0"),
        "an option of raw binary": (("--n-channels", "4"), "no meaning"), "a gain of 0": (("--gain", "0"), "magnitude"),
        "a dataset that is not there": (("--dataset", "lfp"), "no dataset"), "an axis": (("--axis", "2"), "0 or 1"), "everything left out": (("--exclude-s", "0-2.048"), "leaves nothing"),
    }  # fmt: skip
    for name, (options, said) in words.items():
        made = functools.partial(_with_words, words=options)
        cases.append(Case(f"HDF5: {name}", made, "refused", said, (2, 3)))
    return cases
