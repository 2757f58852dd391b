"""Broken recordings for the command line: what is wrong with each, how it must be met, and whether it was.

cases() is the whole corpus; tests run a fixed part of it, benchmarks/reliability_corpus.py all of it. A case is met well
where it is refused in one line that names the file and the trouble, with the right exit code, or sorted with a warning that
names the trouble. Each has a word that the line must hold: some warning is not enough.
"""

from __future__ import annotations

import contextlib
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers import recording_files as files
from helpers import vendor_files as vendors
from helpers.command_line import spikecrsae

FS = files.FS
#: Seconds after which a command counts as hanging; the first sort of a process also compiles.
LIMIT_S = 120.0
#: What says that a file lacks a part, or that its parts contradict each other.
DAMAGED = r"cut off|truncated|damaged|empty|holds no sample|missing|does not exist|[12] samples on 4 channels"


class Hang(BaseException):
    """The time limit is over."""


@dataclass(frozen=True)
class Case:
    """make(folder) writes the input and returns the words after `sort`: its path first, then options.

    how: "refused" (exit code 2 or 3 as `codes` says) or "warned" (exit code 0, or 5 without a unit). words: a regular
    expression that the error or one of the warnings must match. named: the file that an error must name, the recording
    unless given.
    """

    name: str
    make: Callable[[Path], list]
    how: str
    words: str
    codes: tuple[int, ...] = (3,)
    named: str = ""


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
            result = spikecrsae("sort", *words, "-o", out)
    except Hang:
        return Verdict(case, "hung", "", time.perf_counter() - began)
    seconds = time.perf_counter() - began
    if isinstance(result.exception, Hang) or "Error: internal error, Hang" in result.stderr:
        return Verdict(case, "hung", result.stderr, seconds)
    kind = _judged(case, result, case.named or Path(words[0]).name, out)
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
    values = 20 * lfilter([1.0], [1.0, -0.85], white, axis=0) + (slow - slow.mean())[:, None] * 0.2
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
    """Every file of every format: emptied, cut in its first bytes, in the middle, before its last byte; and a companion
    gone."""
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
