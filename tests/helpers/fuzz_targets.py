"""What is fuzzed: one function for each thing that the program reads, and a small sound input for each to begin with.

A target takes any bytes. It may raise SpikeCRsAEError, which a person sees as one line, and nothing else.
benchmarks/reliability_fuzz.py drives the targets by coverage; tests replay what was found and is kept in
tests/fuzz_corpus/<target>/.
"""

from __future__ import annotations

import functools
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from helpers import recording_files as files
from helpers import vendor_files as vendors
from helpers.corpus import content, holding
from spikecrsae.config import load_config
from spikecrsae.data.intervals import parse_intervals
from spikecrsae.data.recording import recording_from_array
from spikecrsae.errors import SpikeCRsAEError
from spikecrsae.readers import open_recording, parse_channels, read_probe, read_truth
from spikecrsae.readers.read_options import parse_groups, with_side_file
from spikecrsae.results.folder import read_sorting

#: Samples in the seeds: small files are mutated where it matters.
SEED_SAMPLES = 512
#: Samples that a target reads from both ends of what it could open.
LOOK = 100


@dataclass(frozen=True)
class Target:
    """run(data, folder) reads the bytes, with what stands in the folder; seeds are sound inputs; prepare(folder) puts
    companions there.

    neo: the module of neo that reads it, which a fuzzer then has to see into as well; empty where neo does not.
    """

    run: Callable[[bytes, Path], None]
    seeds: tuple[bytes, ...]
    prepare: Callable[[Path], object] = lambda folder: None
    neo: str = ""


def _text(read: Callable[[str], object]) -> Callable[[bytes, Path], None]:
    """Every reader of words gets them as UTF-8, with what is none replaced, as from a shell."""
    return lambda data, folder: _allowed(read, data.decode("utf-8", "replace"))


def _allowed(read: Callable, *arguments) -> None:
    try:
        read(*arguments)
    except SpikeCRsAEError as error:
        assert str(error).strip(), "an error without a message"


def _file(name: str, *reads: Callable[[Path], object]) -> Callable[[bytes, Path], None]:
    """Each of the reads on the bytes as a file of that name in the folder."""

    def run(data: bytes, folder: Path) -> None:
        path = folder / name
        path.write_bytes(data)
        for read in reads:
            _allowed(read, path)

    return run


def look(path: Path, **options) -> None:
    """Open a recording and read its two ends, as far as that is no more than a moment's work."""
    recording = open_recording(path, **options)
    try:
        recording.traces(0, LOOK)
        recording.traces(recording.n_samples - LOOK, recording.n_samples)
    finally:
        recording.close()


def _folder(path: Path) -> None:
    look(path.parent)


def _channels(text: str) -> None:
    for read in (parse_channels, parse_groups):
        _allowed(read, text)


def _intervals(text: str) -> None:
    parse_intervals(text, recording_from_array(np.zeros((1000, 1)), 100.0, start_time_s=-3.0))


def _truth(path: Path) -> None:
    read_truth(path, 20_000.0)


def _truth_folder(path: Path) -> None:
    read_truth(path.parent, 20_000.0)


def _side(path: Path) -> None:
    with_side_file(path.with_name("session.dat"), files_options())


def files_options():
    """No options at all."""
    from spikecrsae.readers import ReadOptions

    return ReadOptions()


def _written(writer: Callable[[Path], files.Written], folder: Path) -> Path:
    """What the writer makes of a few samples, in the folder."""
    with holding(content(SEED_SAMPLES)):
        return writer(folder).path


@functools.cache
def _seed(writer: Callable[[Path], files.Written], name: str) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        _written(writer, Path(folder))
        return next(Path(folder).rglob(name)).read_bytes()


def _of_writer(
    writer: Callable, name: str, read: Callable[[Path], object] = look, neo: str = "", whole: bool = False
) -> Target:
    """A target on one file of what a writer makes, the others staying as they are; whole: the reader is given the folder."""

    def run(data: bytes, folder: Path) -> None:
        path = next(folder.rglob(name))
        path.write_bytes(data)
        # the folder that the writer has made, below the one that it was given
        _allowed(read, folder / path.relative_to(folder).parts[0] if whole else path)

    return Target(run, (_seed(writer, name),), functools.partial(_written, writer), neo)


def _npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def _phy(folder: Path) -> None:
    np.save(folder / "spike_times.npy", np.array([10, 20, 30]))
    np.save(folder / "spike_clusters.npy", np.array([1, 2, 1]))


_SIMPLE: dict[str, Target] = {
    "channels": Target(_text(_channels), (b"0,2-5", b"0-1+4,2-3+5", b" 3 , 1 - 2 ")),
    "intervals": Target(_text(_intervals), (b"1.5-2.25,3-4", b"-1-1e0")),
    "config": Target(_file("settings.toml", load_config), (b"[preprocess]\nhighpass_hz = 300.0\n[initialise]\nunits = 'auto'\n",)),
    "side_file": Target(_file("session.dat.toml", _side), (b"sampling_frequency = 2e4\nn_channels = 4\ndtype = '>i2'\ngain = [0.1, 0.2]\n",)),
    "probe_prb": Target(_file("tetrode.prb", read_probe), (b"channel_groups = {0: {'channels': list(range(4)), 'geometry': {0: (0, 1)}}}",)),
    "probe_json": Target(
        _file("tetrode.json", read_probe),
        (b'{"probes": [{"ndim": 2, "si_units": "um", "contact_positions": [[0, 1], [2, 3]], "device_channel_indices": [1, 0]}]}',),
    ),
    "truth_csv": Target(_file("truth.csv", _truth), (b"unit,spike_time_s\nA,0.5\nB,0.25\n", b"sample;unit\n3;1\n7;2\n")),
    "truth_npy": Target(_file("truth.npy", _truth), (_npy(np.array([3, 8])), _npy(np.array([[0.5], [1.5]])))),
    "phy_params": Target(_file("params.py", _truth_folder), (b"dat_path = 'x.dat'\nsample_rate = 20000.\n",), _phy),
}  # fmt: skip


def targets() -> dict[str, Target]:
    """Every target by its name."""
    sorting = Path(__file__).parents[1] / "fuzz_corpus" / "sorting_h5"
    results = tuple(path.read_bytes() for path in sorted(sorting.glob("seed*"))) if sorting.is_dir() else ()
    return _SIMPLE | {
        "sorting_h5": Target(_file("sorting.h5", read_sorting, _truth), results or (_seed(files.hdf5_unsigned, "adc.h5"),)),
        "hdf5": _of_writer(files.hdf5_unsigned, "adc.h5"),
        "mearec": _of_writer(files.mearec, "mearec.h5"),
        "nwb": _of_writer(files.nwb, "raw.nwb"),
        "brainvision": _of_writer(files.brainvision, "bv.vhdr", neo="brainvisionrawio"),
        "neuroscope": _of_writer(files.neuroscope, "ns.xml", neo="neuroscoperawio"),
        "open_ephys": _of_writer(files.open_ephys, "structure.oebin", neo="openephysbinaryrawio", whole=True),
        "neuralynx": _of_writer(files.neuralynx, "CSC0.ncs", neo="neuralynxrawio.neuralynxrawio", whole=True),
        "intan": _of_writer(vendors.intan, "tetrode_240101_120000.rhd", neo="intanrawio"),
        "intan_folder": _of_writer(vendors.intan_folder, "info.rhd", neo="intanrawio", whole=True),
        "spikeglx": _of_writer(vendors.spikeglx, "run_g0_t0.imec0.ap.meta", whole=True),
        "blackrock": _of_writer(vendors.blackrock, "utah.ns5", neo="blackrockrawio"),
        "plexon": _of_writer(vendors.plexon, "wires.plx", neo="plexonrawio"),
    }


def clean(folder: Path) -> Path:
    """The folder, empty."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
