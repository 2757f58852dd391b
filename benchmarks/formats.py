"""Formats: opened, compared with the programs that also read them, and two seconds sorted.

    SPIKECRSAE_DATA=DIR python benchmarks/formats.py [--only WORD ...] [--docs]

A row for every file that the tests write (WRITERS in tests/helpers) and, where there is a folder `faults` beside SPIKECRSAE_DATA, for
every input in it. What is compared: rate, channels and their names, samples, and the first second in uV, or in stored numbers
where no scale is known; with what was written, and with neo, SpikeInterface, scipy or NumPy where they open the file (REFERENCES,
one line each). `known` says what differs and why. Ends with 1 where a row is wrong.

--docs puts the table into benchmarks/notebook/formats.md.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from trials import markdown, publish

import spikecrsae
from spikecrsae.data.recording import Recording
from spikecrsae.errors import InputError
from spikecrsae.readers import open_session
from spikecrsae.system.text import counted

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from helpers import exchange_files, recording_files, vendor_files  # noqa: E402

PAGE = ROOT / "benchmarks" / "notebook" / "formats.md"
SORTED_S = 2.0
MICROVOLTS = {"uV": 1.0, "µV": 1.0, "mV": 1e3, "V": 1e6}


@dataclass(frozen=True)
class Reference:
    """What another program finds: rate in Hz, names (or ids) of the channels, samples, and traces(start, stop) in uV or, where
    it knows no scale, in stored numbers."""

    program: str
    rate: float
    names: list[list[str]]
    n_samples: int
    traces: Callable[[int, int], np.ndarray]


Read = Callable[[Path], Reference]


def neo(kind: str, stream: int = 0, unit: str = "", beside: str | None = None, **arguments: Any) -> Read:
    """By a reader of neo.rawio; unit: where it names none; beside: what it is given, seen from the path."""

    def read(path: Path) -> Reference:
        import neo.rawio

        reader_of = getattr(neo.rawio, kind)
        place = {
            "dirname" if reader_of.rawmode == "one-dir" else "filename": str(
                path if beside is None else (path.parent if beside == ".." else path / beside)
            )
        }
        reader = reader_of(**place, **arguments)
        reader.parse_header()
        channels = reader.header["signal_channels"]
        channels = channels[channels["stream_id"] == reader.header["signal_streams"][stream]["id"]]
        scale = np.array([MICROVOLTS.get(str(channel["units"]) or unit, 1.0) for channel in channels])

        def traces(start: int, stop: int) -> np.ndarray:
            chunk = reader.get_analogsignal_chunk(
                block_index=0, seg_index=0, i_start=start, i_stop=stop, stream_index=stream
            )
            return (chunk * channels["gain"] + channels["offset"]) * scale

        sizes = [
            reader.get_signal_size(b, s, stream) for b in range(reader.block_count()) for s in range(reader.segment_count(b))
        ]
        names = [channels["name"].tolist(), channels["id"].tolist()]
        return Reference("neo", float(channels["sampling_rate"][0]), names, sum(sizes), traces)

    return read


def si(function: str, **arguments: Any) -> Read:
    """By a function of SpikeInterface."""

    def read(path: Path) -> Reference:
        import spikeinterface
        import spikeinterface.extractors

        place = spikeinterface if hasattr(spikeinterface, function) else spikeinterface.extractors
        opened = getattr(place, function)(path, **arguments)
        is_scaled = opened.get_channel_gains() is not None

        def traces(start: int, stop: int) -> np.ndarray:
            return opened.get_traces(segment_index=0, start_frame=start, end_frame=stop, return_in_uV=is_scaled)

        names, labels = map(str, opened.get_channel_ids()), opened.get_property("electrode_labels")
        ids = [list(names), [] if labels is None else list(map(str, labels))]
        return Reference("SpikeInterface", opened.get_sampling_frequency(), ids, opened.get_total_samples(), traces)

    return read


def matrix(program: str, load: Callable[[Path], tuple[np.ndarray, float]]) -> Read:
    """By a program that loads a matrix (n_samples, n_channels), with its rate."""

    def read(path: Path) -> Reference:
        values, rate = load(path)
        return Reference(program, rate, [], len(values), lambda start, stop: values[start:stop])

    return read


def from_scipy(path: Path) -> tuple[np.ndarray, float]:
    import scipy.io

    loaded = scipy.io.loadmat(path)
    return loaded["data"].T, float(loaded["sr"].item())


def from_numpy(rate: float) -> Read:
    def load(path: Path) -> tuple[np.ndarray, float]:
        values = np.load(path)
        return values if values.shape[0] > values.shape[1] else values.T, rate

    return matrix("NumPy", load)


#: What else reads a file, by the name of its writer or the path of a fault.
REFERENCES: dict[str, Read] = {
    "brainvision": neo("BrainVisionRawIO"),
    "neuroscope": neo("NeuroScopeRawIO"),
    "open_ephys": neo("OpenEphysBinaryRawIO"),
    "neuralynx": neo("NeuralynxRawIO"),
    "nwb_pynwb": si("read_nwb_recording"),
    "intan": neo("IntanRawIO"),
    "intan_folder": neo("IntanRawIO", beside="info.rhd"),
    "raw_little": si("read_binary", num_channels=4, dtype="int16", sampling_frequency=recording_files.FS),
    "spikeglx": neo("SpikeGLXRawIO"),
    "spikeglx_nidq": neo("SpikeGLXRawIO", beside=".."),
    "blackrock": neo("BlackrockRawIO", nsx_to_load=5),
    "plexon": neo("PlexonRawIO", unit="mV", progress_bar=False),
    "maxwell": neo("MaxwellRawIO"),
    "mcs_hdf5": si("read_mcsh5", stream_id=1),
    "matlab": matrix("scipy", from_scipy),
    "npy": from_numpy(recording_files.FS),
    "npy_transposed": from_numpy(recording_files.FS),
    "mountainsort": si("read_mda_recording"),
    "spikeinterface_binary": si("load"),
    "matlab_npy/default_format.mat": matrix("scipy", from_scipy),
    "matlab_npy/recording.npy": from_numpy(15_000.0),
    "spikeinterface_folder/binfolder": si("load"),
    "mcs_hdf5/standard500.h5": si("read_mcsh5", stream_id=0),
    "neuralynx_order": neo("NeuralynxRawIO"),
    "neuralynx_order/CSC1.ncs ... CSC4.ncs": neo("NeuralynxRawIO", beside=".."),
    "openephys_binary_aux/Record Node 101": neo("OpenEphysBinaryRawIO"),
    "openephys_legacy_one_file": neo("OpenEphysRawIO"),
    "openephys_legacy_one_file/100_CH2.continuous": neo("OpenEphysRawIO", beside=".."),
    "openephys_legacy_one_file/100_CH1.continuous ... 100_CH4.continuous": neo("OpenEphysRawIO", beside=".."),
    "noisy_channel/tetrode4.dat": si(
        "read_binary", num_channels=4, dtype="int16", sampling_frequency=15_000.0, gain_to_uV=0.195, offset_to_uV=0.0
    ),
    "nwb_microsecond_stamps/us_stamps.nwb": si("read_nwb_recording"),
}  # fmt: skip

#: What differs from another program, and why; of a row, what is not compared with it.
KNOWN = {
    "plexon": ("samples", "neo gives zeros for the last block where its last sample is asked for"),
    "maxwell": ("names traces", "neo names rows in the order of the mapping, whichever channels they are"),
    "mcs_hdf5": ("names traces", "SpikeInterface takes rows for channels, whatever RowIndex says, and scales the zero"),
    "spikeglx_nidq": ("channels", "neo counts the digital word among the channels"),
    "nwb_microsecond_stamps/us_stamps.nwb": (
        "rate",
        "SpikeInterface takes the usual interval, rounded to 1 us, for the rate",
    ),
    "neuralynx_order": ("channels", "the first four"),
    "neuralynx_order/CSC1.ncs ... CSC4.ncs": ("channels", "those named"),
    "openephys_legacy_one_file/100_CH2.continuous": ("channels", "the one named"),
    "openephys_binary_aux/Record Node 101": ("channels", "neo counts AUX among the channels"),
}


@dataclass(frozen=True)
class Row:
    """One input; see Fault."""

    name: str
    writer: str
    paths: list[Path]
    options: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict)
    refused: str = ""
    written: recording_files.Written | None = None


_RAW = {"sampling_frequency": 15_000.0, "dtype": "int16", "gain": 0.195}
_LEGACY, _ORDER = "openephys_legacy_one_file", "neuralynx_order"


@dataclass(frozen=True)
class Fault:
    """An input that went wrong: files of the folder `faults` that are given together, options of open_recording, settings of the
    sort, and words of the refusal where it cannot be sorted."""

    paths: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    refused: str = ""


FAULTS = (
    Fault(("axona_old_set/rec.bin",), refused="Give a longer recording"),  # 25 ms
    Fault(("axona_old_set/rec.set",), refused="Give a longer recording"),
    Fault(("matlab_npy/default_format.mat",)),
    Fault(("matlab_npy/recording.npy",), {"sampling_frequency": 15_000.0}),
    Fault(("mcs_hdf5/standard500.h5",), {"stream": 0}, {"highpass_hz": 100.0}),
    Fault((_ORDER,), {"channels": "0-3"}),
    Fault(tuple(f"{_ORDER}/CSC{i}.ncs" for i in range(1, 5))),
    Fault(("noisy_channel/tetrode4.dat",), {**_RAW, "n_channels": 4}),
    Fault(("noisy_channel/tetrode_plus_noise5.dat",), {**_RAW, "n_channels": 5}),
    Fault(("nwb_microsecond_stamps/us_stamps.nwb",)),
    Fault(("openephys_binary_aux/Record Node 101",)),
    Fault((f"{_LEGACY}/100_CH2.continuous",)),
    Fault(tuple(f"{_LEGACY}/100_CH{i}.continuous" for i in range(1, 5))),
    Fault((_LEGACY,)),
    Fault(("spikeinterface_folder/binfolder",)),
)


def rows(folder: Path) -> Iterable[Row]:
    """Of every writer of the tests, and of every fault where there are any."""
    for writer in (*recording_files.WRITERS, *vendor_files.WRITERS, *exchange_files.WRITERS):
        place = folder / writer.__name__
        place.mkdir()
        written = writer(place)
        yield Row(writer.__name__, "tests", [written.path], written.options, written=written)
    faults = Path(os.environ["SPIKECRSAE_DATA"]).parent / "faults" if "SPIKECRSAE_DATA" in os.environ else None
    if faults is None or not faults.is_dir():
        print("skipped: the inputs that went wrong, which lie in a folder `faults` beside SPIKECRSAE_DATA", file=sys.stderr)
        return
    for fault in FAULTS:
        name = fault.paths[0] + (f" ... {Path(fault.paths[-1]).name}" if len(fault.paths) > 1 else "")
        yield Row(
            name, "real samples", [faults / path for path in fault.paths], fault.options, fault.settings, fault.refused
        )


def differences(row: Row, recording: Recording) -> list[str]:
    """What is not as it was written."""
    known = row.written
    if known is None:
        return []
    facts = [
        ("rate", np.isclose(recording.sampling_frequency, known.fs, rtol=1e-6)),
        ("shape", (recording.n_samples, recording.n_channels) == known.traces.shape),
        ("unit", recording.amplitude_unit == known.unit),
        ("type", np.dtype(recording.dtype) == np.dtype(known.dtype)),
        ("start", np.isclose(recording.start_time_s, known.start_time_s)),
    ]
    wrong = [f"{name} as written" for name, same in facts if not same]
    length = round(known.fs)
    if not wrong and not np.allclose(recording.traces(0, length), known.traces[:length], rtol=1e-5, atol=1e-4):
        wrong.append("traces as written")
    return wrong


def differences_to(reference: Reference, recording: Recording, known: str) -> list[str]:
    """What is not as another program has it, but for what is `known` to differ."""
    ours = list(recording.channel_ids)
    columns = next(([names.index(name) for name in ours] for names in reference.names if set(ours) <= set(names)), None)
    length = min(round(recording.sampling_frequency), recording.n_samples)
    theirs = np.asarray(reference.traces(0, length), np.float64)
    chosen = theirs if columns is None else theirs[:, columns]
    facts: list[tuple[str, Callable[[], bool]]] = [
        ("rate", lambda: bool(np.isclose(recording.sampling_frequency, reference.rate, rtol=1e-6))),
        ("names", lambda: columns is not None or not any(reference.names)),
        ("channels", lambda: theirs.shape[1] == len(ours)),
        ("samples", lambda: recording.n_samples == reference.n_samples),
        ("traces", lambda: np.allclose(recording.traces(0, length), chosen, rtol=1e-5, atol=1e-3)),
    ]
    return [f"{name} by {reference.program}" for name, same in facts if name not in known.split() and not same()]


def tried(row: Row) -> tuple[list[str], bool]:
    """The cells of a row, and whether it is right."""
    with open_session(row.paths, **row.options) as recording:
        read_as = f"{recording.format}, {recording.n_channels} x {recording.n_samples} at {recording.sampling_frequency:.6g} Hz, {recording.amplitude_unit}"
        wrong, equal = differences(row, recording), ["as written"] if row.written else []
        known, why = KNOWN.get(row.name, ("", ""))
        if read := REFERENCES.get(row.name):
            reference = read(row.paths[0])
            wrong += differences_to(reference, recording, known)
            equal.append(reference.program + (f" ({why})" if why else ""))
        begin = recording.start_time_s
        end = min(begin + SORTED_S, begin + recording.duration_s)
        try:
            n_units = spikecrsae.sort(recording.between(begin, end), progress=False, **row.settings).n_units
            units = counted(n_units, "unit")
            if row.written and n_units != 1:
                wrong.append("the one neuron")
        except InputError as error:
            if not row.refused or row.refused not in str(error):
                raise
            units = f"refused: {row.refused}"
    cells = [row.name, row.writer, read_as, ", ".join(equal) or "-", units]
    return [*cells[:3], f"no: {', '.join(wrong)}" if wrong else cells[3], cells[4]], not wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="rows with one of these words in their name")
    parser.add_argument("--docs", action="store_true")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    table, n_wrong = [], 0
    with tempfile.TemporaryDirectory() as name:
        for row in rows(Path(name)):
            if not any(word in row.name for word in given.only):
                continue
            try:
                cells, is_right = tried(row)
            except Exception as error:  # a row that fails is a wrong one
                cells, is_right = [row.name, row.writer, "-", f"no: {' '.join(str(error).split())}", "-"], False
            print(*cells, sep=" | ", file=sys.stderr)
            table.append(cells)
            n_wrong += not is_right
    programs = ", ".join(f"{package} {version(package)}" for package in ("neo", "spikeinterface", "scipy", "numpy"))
    lines = [
        *markdown(["format", "written by", "read as", "equal", "sorted"], table),
        "",
        f"{len(table)} rows, {n_wrong} wrong.",
    ]
    intro = (
        f"Compared with what was written and with {programs}: rate, channels, names, samples, and the first second in uV. Sorted: two seconds, "
        "or what there is; one neuron fires in what the tests write."
    )
    publish("formats", "Formats that were tried", intro, lines, given.docs, PAGE)
    return int(n_wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
