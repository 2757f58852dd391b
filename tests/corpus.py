"""Broken recordings for the command line: what is wrong with each, how it must be met, and whether it was.

cases() is the whole corpus; tests run a fixed part of it, benchmarks/reliability_corpus.py all of it. A case is met well
where it is refused in one line that names the file and the trouble, with the right exit code, or sorted with a warning that
names the trouble. Each has a word that the line must hold: some warning is not enough.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import recording_files as files
import vendor_files as vendors
from click.testing import CliRunner

from spikecrsae.cli.main import cli

FS = files.FS
#: Seconds after which a command counts as hanging; the first sort of a process also compiles.
LIMIT_S = 60.0
#: What says that a file lacks a part, or that its parts contradict each other.
DAMAGED = r"cut off|truncated|damaged|empty|holds no sample|missing|does not exist|[12] samples on 4 channels"


class Hang(BaseException):
    """The time limit is over."""


@dataclass(frozen=True)
class Case:
    """make(folder) writes the input and returns the words after `sort`: its path first, then options.

    how: "refused" (exit code 2 or 3 as `codes` says) or "warned" (exit code 0, or 5 without a unit). words: a regular expression
    that the error or one of the warnings must match.
    """

    name: str
    make: Callable[[Path], list]
    how: str
    words: str
    codes: tuple[int, ...] = (3,)


@dataclass(frozen=True)
class Verdict:
    """kind: refused, warned, silent, crashed, hung, or unclear where the message or the exit code is not what it should be."""

    case: Case
    kind: str
    said: str
    seconds: float

    @property
    def well(self) -> bool:
        return self.kind == self.case.how


@contextlib.contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise Hang in here when the time is over; compiled code ends first."""

    def over(*_) -> None:
        raise Hang

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(case: Case, folder: Path) -> Verdict:
    """Write the input of a case into the folder, sort it from the command line, and judge what came out. Main thread only."""
    assert threading.current_thread() is threading.main_thread()
    words = [str(word) for word in case.make(folder)]
    out = folder / "result"
    began = time.perf_counter()
    try:
        with _time_limit(LIMIT_S):
            result = CliRunner().invoke(cli, ["sort", *words, "-o", str(out)], prog_name="spikecrsae")
    except Hang:
        return Verdict(case, "hung", "", time.perf_counter() - began)
    seconds = time.perf_counter() - began
    if isinstance(result.exception, Hang) or "Error: internal error, Hang" in result.stderr:
        return Verdict(case, "hung", result.stderr, seconds)
    kind = _judged(case, result, Path(words[0]).name, out)
    return Verdict(case, kind, result.stderr, seconds)


def _judged(case: Case, result, name: str, out: Path) -> str:
    lines = result.stderr.splitlines()
    errors = [line for line in lines if line.startswith("Error: ")]
    if (
        result.exit_code in (1, 4)
        or "Traceback" in result.stderr
        or (result.exit_code and not errors and result.exit_code != 5)
    ):
        return "crashed"
    if result.exit_code in (0, 5):
        remarks = [line for line in lines if line.startswith(("Warning: ", "Note: "))]
        return "warned" if any(re.search(case.words, line, re.IGNORECASE) for line in remarks) else "silent"
    clear = (
        len(errors) == 1 and re.search(case.words, errors[0], re.IGNORECASE) and (name in errors[0] or result.exit_code == 2)
    )
    return "refused" if clear and result.exit_code in case.codes and not out.exists() else "unclear"


# ---- what is in the recordings


def content(n_samples: int = 40_960) -> np.ndarray:
    """Counts (n_samples, 4) like a tetrode's at 0.2 uV each: coloured noise of 8 uV, slow waves, spikes of two neurons."""
    from scipy.signal import lfilter

    rng = np.random.default_rng(11)
    white = rng.standard_normal((n_samples, files.N_CHANNELS))
    slow = np.cumsum(rng.standard_normal(n_samples)) * 0.5
    values = 30 * lfilter([1.0], [1.0, -0.6], white, axis=0) + (slow - slow.mean())[:, None] * 0.2
    time_ = np.arange(40.0)
    shape = -np.exp(-(((time_ - 12) / 3) ** 2)) + 0.4 * np.exp(-(((time_ - 20) / 6) ** 2))
    for heights in ([900, 500, 300, 100], [100, 300, 600, 950]):
        for start in np.cumsum(rng.integers(500, 2500, n_samples // 1000)):
            if start < n_samples - 40:
                values[start : start + 40] += shape[:, None] * np.array(heights)
    return np.round(values).astype(np.int16)


@contextlib.contextmanager
def holding(values: np.ndarray | None = None) -> Iterator[None]:
    """Meanwhile every writer of recording_files and vendor_files stores these counts."""
    counts = content() if values is None else values

    def stored(dtype: str = "int16") -> np.ndarray:
        return (counts.astype(np.int64) + 3000 * (np.dtype(dtype).kind == "u")).astype(dtype)

    before = files.stored, vendors.stored, files.N_SAMPLES
    files.stored = vendors.stored = stored
    files.N_SAMPLES = len(counts)
    try:
        yield
    finally:
        files.stored, vendors.stored, files.N_SAMPLES = before


def words_of(written: files.Written) -> list:
    """The path, and the options that say how it is read."""
    options = [word for name, value in written.options.items() for word in ("--" + name.replace("_", "-"), value)]
    return [written.path, *options]


#: The formats that are taken apart, by name: their writer, and the files that hold samples or facts.
FORMATS: dict[str, tuple[Callable[[Path], files.Written], tuple[str, ...]]] = {
    "HDF5": (files.hdf5_unsigned, ("adc.h5",)),
    "MEArec": (files.mearec, ("mearec.h5",)),
    "NWB": (files.nwb, ("raw.nwb",)),
    "raw binary": (files.raw_little, ("little.dat",)),
    "BrainVision": (files.brainvision, ("bv.vhdr", "bv.eeg")),
    "NeuroScope": (files.neuroscope, ("ns.xml", "ns.dat")),
    "Open Ephys": (files.open_ephys, ("structure.oebin", "continuous.dat", "sample_numbers.npy")),
    "Neuralynx": (files.neuralynx, ("CSC0.ncs", "CSC3.ncs")),
    "Intan": (vendors.intan, ("tetrode_240101_120000.rhd",)),
    "Intan folder": (vendors.intan_folder, ("info.rhd", "amplifier.dat", "time.dat")),
    "SpikeGLX": (vendors.spikeglx, ("run_g0_t0.imec0.ap.bin", "run_g0_t0.imec0.ap.meta")),
    "Blackrock": (vendors.blackrock, ("utah.ns5",)),
    "Plexon": (vendors.plexon, ("wires.plx",)),
}
_TEXT = (".vhdr", ".xml", ".oebin", ".meta")


def _cut(writer: Callable, name: str, to: Callable[[int], int]) -> Callable[[Path], list]:
    def make(folder: Path) -> list:
        with holding():
            written = writer(folder)
        target = next(folder.rglob(name))
        with target.open("r+b") as file:
            file.truncate(to(target.stat().st_size))
        return words_of(written)

    return make


def _gone(writer: Callable, name: str) -> Callable[[Path], list]:
    def make(folder: Path) -> list:
        with holding():
            written = writer(folder)
        next(folder.rglob(name)).unlink()
        return words_of(written)

    return make


def cut_cases() -> list[Case]:
    """Every file of every format: emptied, cut in its first bytes, in the middle, before its last byte; and a companion gone."""
    cases = []
    for format, (writer, names) in FORMATS.items():
        for name in names:
            places = {"emptied": lambda n: 0, "cut after 16 bytes": lambda n: 16, "cut in the middle": lambda n: n // 2 + 1}
            if not name.endswith(_TEXT):
                places["without its last byte"] = lambda n: n - 1
            for place, to in places.items():
                how = _CUT_WARNED.get((format, name, place), "refused")
                cases.append(Case(f"{format}: {name} {place}", _cut(writer, name, to), how, DAMAGED, (2, 3)))
            if len(names) > 1 and (format, name) not in _NOT_NEEDED:
                cases.append(
                    Case(f"{format}: {name} gone", _gone(writer, name), "refused", f"{DAMAGED}|no reader|raw binary", (2, 3))
                )
    return cases


#: Cut files of which the rest is sound and is sorted, with a warning.
_CUT_WARNED: dict[tuple[str, str, str], str] = {}
#: Without these a recording is another one, not a broken one.
_NOT_NEEDED = {("Neuralynx", "CSC0.ncs"), ("Neuralynx", "CSC3.ncs")}


# ---- facts and numbers


def _hdf5(change: Callable[[np.ndarray], np.ndarray], **attributes) -> Callable[[Path], list]:
    """Counts at 0.2 uV each, changed, as generic HDF5."""

    def make(folder: Path) -> list:
        path = folder / "traces.h5"
        with files.h5py.File(path, "w") as file:
            file["traces"] = change(content())
            facts = {"sampling_frequency": FS, "units": "uV", "gain": 0.2} | attributes
            file["traces"].attrs.update({name: value for name, value in facts.items() if value is not None})
        return [path]

    return make


def _nwb(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], list]:
    def make(folder: Path) -> list:
        files.write_nwb(folder / "raw.nwb", change(content()))
        return [folder / "raw.nwb"]

    return make


def _mearec(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], list]:
    def make(folder: Path) -> list:
        files._mearec(folder / "mearec.h5", change(content() * np.float32(0.2)), "1.9.0")
        return [folder / "mearec.h5"]

    return make


def _raw(
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
    "numbers beyond all voltages": (_with((MIDDLE,), 1e30), "refused", "1e\\+30"),
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
    "every second sample of another wire": (lambda x: x.reshape(-1, 2), "warned", "read as samples"),
}


def number_cases() -> list[Case]:
    """What can be wrong with the numbers, in four formats."""
    formats = {"HDF5": _hdf5, "NWB": _nwb, "MEArec": _mearec, "raw binary": None}
    cases = []
    for format, writer in formats.items():
        for name, (change, how, words) in NUMBERS.items():
            if writer is None:
                probe = change(content()[:20_000])
                made = _raw(change, str(probe.dtype), probe.shape[1])
            elif writer in (_nwb, _mearec) and name in ("every second sample of another wire", "more channels than samples"):
                continue
            else:
                made = writer(change)
            cases.append(Case(f"{format}: {name}", made, how, words, (2, 3)))
    return cases


def _same(counts: np.ndarray) -> np.ndarray:
    return counts


def type_cases() -> list[Case]:
    """Numbers read as what they are not; what is no number at all."""
    unsigned, wrong_type = (
        "cross half of the range",
        "check --dtype|sample .* is|no multiple|no noise at all|looks? like an artefact|read as samples",
    )
    views = {
        "int16 as uint16": (_raw(_same, "uint16"), unsigned),
        "uint16 about its middle as int16": (_raw(lambda x: (x.astype(int) + 32768).astype("<u2"), "int16"), unsigned),
        "big-endian as little-endian": (_raw(lambda x: x.astype(">i2"), "int16"), unsigned),
        "little-endian as big-endian": (_raw(_same, ">i2"), unsigned),
        "int16 as int32": (_raw(_same, "int32", 2), wrong_type),
        "int16 as int32, no gain": (_raw(_same, "int32", 2, None), wrong_type),
        "int16 as int8": (_raw(_same, "int8", 8), wrong_type),
        "int16 as uint8": (_raw(_same, "uint8", 4), wrong_type),
        "int16 as float32": (_raw(_same, "float32", 2), wrong_type),
        "int16 as float64": (_raw(_same, "float64", 4), wrong_type),
        "int32 as int16": (_raw(lambda x: x.astype("<i4"), "int16"), wrong_type),
        "float32 as int16": (_raw(lambda x: x.astype("<f4") * 1.37, "int16"), wrong_type),
        "float32 as int32": (_raw(lambda x: x.astype("<f4") * 1.37, "int32"), wrong_type),
        "float32 as float64": (_raw(lambda x: x.astype("<f4") * 1.37, "float64"), wrong_type),
        "float64 as float32": (_raw(lambda x: x.astype("<f8") * 1.37, "float32"), wrong_type),
        "float16 as int16": (_raw(lambda x: x.astype("<f2"), "int16"), wrong_type),
        "two channels too few": (_raw(_same, "int16", 2), "read as samples"),
        "one channel for four": (_raw(_same, "int16", 1), "read as samples"),
        "five channels for four": (_raw(_same, "int16", 5), "read as samples"),
        "planes instead of interleaved": (_raw(lambda x: x.T.copy(), "int16"), "read as samples|no other|artefact"),
    }
    cases = [Case(f"raw binary: {name}", made, "warned", words, (2, 3)) for name, (made, words) in views.items()]
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
        cases.append(Case(f"HDF5: {name}", _hdf5(change), "refused", "real numbers"))
    return cases


def fact_cases() -> list[Case]:
    """What a file or the user says about the numbers: rate, gain, offset, channels, time."""
    cases = []
    rates = {"0": 0.0, "negative": -FS, "NaN": np.nan, "infinite": np.inf, "text": "fast", "several": [FS, FS], "none": None}
    for name, rate in rates.items():
        cases.append(Case(f"HDF5: rate {name}", _hdf5(_same, sampling_frequency=rate), "refused", "sampling.frequency"))
    for name, rate in {"in kHz": 20.0, "absurd": 1e12, "beyond all": 1e300, "almost 0": 5e-324}.items():
        cases.append(
            Case(
                f"HDF5: rate {name}",
                _hdf5(_same, sampling_frequency=rate),
                "refused",
                "Nyquist|too short|sampling.frequency",
            )
        )
    for rate in (2000.0, 200_000.0):
        cases.append(Case(f"HDF5: rate {rate:g}", _hdf5(_same, sampling_frequency=rate), "warned", "unusual for spikes"))
        cases.append(
            Case(f"raw binary: rate {rate:g}", _raw(_same, **{"sampling-frequency": rate}), "warned", "unusual for spikes")
        )
    gains = {"0": 0.0, "NaN": np.nan, "infinite": np.inf, "text": "0,195", "too many": [0.2] * 3, "a matrix": np.eye(4)}
    for name, gain in gains.items():
        cases.append(Case(f"HDF5: gain {name}", _hdf5(_same, gain=gain), "refused", "gain", (2, 3)))
    for name, offset in {"NaN": np.nan, "text": "none", "too many": [1.0] * 5}.items():
        cases.append(Case(f"HDF5: offset {name}", _hdf5(_same, offset=offset), "refused", "offset", (2, 3)))
    for gain in (1e4, 1e-4, -1e5):
        cases.append(Case(f"HDF5: gain {gain:g}", _hdf5(_same, gain=gain), "warned", "outside 1 to 500 uV.*--gain"))
        cases.append(Case(f"raw binary: gain {gain:g}", _raw(_same, gain=gain), "warned", "outside 1 to 500 uV.*--gain"))
    volts = _hdf5(lambda x: x * 2e-7, gain=None, units=None)
    cases.append(Case("HDF5: volts that are called nothing", volts, "warned", "may be volts"))
    cases.append(Case("HDF5: microvolts that are called volts", _hdf5(_same, units="V"), "warned", "outside 1 to 500 uV"))
    words = {
        "channels beyond": (("--channels", "0,7"), "channels 0 to 3"), "channels twice": (("--channels", "1,1"), "twice"),
        "channels in words": (("--channels", "all"), "cannot be read"), "groups beyond": (("--groups", "0-1,2-9"), "not in use"),
        "a range beyond": (("--start-s", "100"), "no part of"), "a range reversed": (("--start-s", "1", "--stop-s", "0.5"), "no part of"),
        "a range of nothing": (("--start-s", "1", "--stop-s", "1"), "no part of"), "a rate of NaN": (("--sampling-frequency", "nan"), "above 0"),
        "an option of raw binary": (("--n-channels", "4"), "no meaning"), "a gain of 0": (("--gain", "0"), "not 0"),
        "a dataset that is not there": (("--dataset", "lfp"), "no dataset"), "an axis": (("--axis", "2"), "0 or 1"),
        "a probe that is not there": (("--probe", "none.prb"), "does not exist"), "everything left out": (("--exclude-s", "0-2.04"), "leaves nothing"),
    }  # fmt: skip
    for name, (options, said) in words.items():
        made = lambda folder, options=options: [*_hdf5(_same)(folder), *options]
        cases.append(Case(f"HDF5: {name}", made, "refused", said, (2, 3)))
    return cases
