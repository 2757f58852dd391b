"""Everything that neo.rawio reads (Intan, Open Ephys, SpikeGLX, Blackrock, Neuralynx, Plexon, Spike2, ...), lazily."""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from spikecrsae.data.recording import Recording
from spikecrsae.errors import InputError
from spikecrsae.readers.assemble import missing_package, one_line
from spikecrsae.readers.axona import read_axona
from spikecrsae.readers.hdf5 import WHY_NO_SNIPPETS
from spikecrsae.readers.neo_checks import check_files, refuse_depths, why_unreadable
from spikecrsae.readers.neo_mended import group_spike2, read_endings_in_capitals, read_rates_as_numbers
from spikecrsae.readers.neo_signals import close_reader, recording_over
from spikecrsae.readers.neo_stamps import reader_arguments
from spikecrsae.readers.open_ephys_legacy import read_open_ephys_legacy
from spikecrsae.readers.read_options import ReadOptions
from spikecrsae.readers.spikeglx import read_spikeglx
from spikecrsae.system.safe_hdf5 import folders_below

logger = logging.getLogger(__name__)

#: Files by which a folder is known, and the reader it then belongs to.
_FOLDER_MARKS = {
    "structure.oebin": "OpenEphysBinaryRawIO",
    "*.continuous": "OpenEphysRawIO",
    "*.ncs": "NeuralynxRawIO",
    "*.meta": "SpikeGLXRawIO",
    "*.tsq": "TdtRawIO",
    "*.tbk": "TdtRawIO",
    "*.lsx": "AlphaOmegaRawIO",
    "*.mpx": "AlphaOmegaRawIO",
    "*.timd": "MedRawIO",
}
_DEPTH = 5
#: Readers that look into one folder and not into those below it.
_ONE_FOLDER = ("OpenEphysRawIO", "NeuralynxRawIO", "AlphaOmegaRawIO")
#: What readers of neo import besides neo.
_PACKAGES = {"EDFRawIO": "pyedflib", "NIXRawIO": "nixio", "CedRawIO": "sonpy", "MedRawIO": "dhn_med_py"}
#: First bytes of every EDF file.
_EDF_VERSION = b"0       "
#: Not asked: the raw reader assumes a rate and a channel count, MEArec and Maxwell have readers of ours,
#: Phy is no recording, and Plexon2 fetches a Windows library from the network and runs it.
_LEFT_OUT = ("RawBinarySignalRawIO", "MEArecRawIO", "MaxwellRawIO", "PhyRawIO", "Plexon2RawIO")
#: Endings that say nothing by themselves; a companion file or the content decides.
_AMBIGUOUS = (
    "", ".bin", ".cbin", ".meta", ".dat", ".raw", ".xml", ".json", ".txt", ".npy", ".mat", ".tsv", ".h5", ".eeg", ".set",
)  # fmt: skip

#: Endings that readers of ours know.
_OTHER_READERS = (".h5", ".hdf5", ".nwb", ".mat", ".npy", ".mda", ".dat", ".bin", ".cbin", ".raw")
_OF_TDT = (".tbk", ".tdx", ".tev", ".tsq", ".sev")
#: The .mpx files that are read. neo 0.14 can name none, and reads all in the folder whose ending has small letters.
_ONLY_MPX = "only_mpx"
#: Readers by their arguments, while several files are opened.
_SHARED: ContextVar[dict[str, Any] | None] = ContextVar("shared readers", default=None)

Candidate = tuple[str, dict[str, Any]]


def read_neo(path: Path, options: ReadOptions) -> Recording:
    """A Recording over one signal stream of what neo finds at `path` (a file or a folder): one segment, or all of them as
    parts.

    Raises InputError where no reader of neo opens it, or only detected waveforms are in it; UsageError where there are
    several streams and no choice, or the segment does not exist.
    """
    possible = neo_candidates(path)
    if not possible:
        raise InputError(_unknown(path))
    if path.is_symlink() and not _candidates(Path(os.path.abspath(path))):
        return replace(read_neo(path.resolve(), options), source=path)
    options.refuse_others(path, "a format read by neo", ("stream", "segment"))
    if path.suffix.lower() == ".spikes":
        raise InputError(f"{path} holds only detected spikes: {WHY_NO_SNIPPETS}.")
    failures = []
    lacking = {name: _PACKAGES[name] for name, _ in possible if _lacks_package(name, path)}
    if len(lacking) == len(possible):
        name, package = next(iter(lacking.items()))
        raise missing_package(path, name.removesuffix("RawIO"), package)
    for name, arguments in possible:
        if name in lacking:
            failures.append(f"{name.removesuffix('RawIO')}: needs pip install {lacking[name]}")
            continue
        check_files(name, path, arguments)
        try:
            reader = open_reader(name, arguments)
        except InputError:
            raise
        # Third-party parsers raise anything on files that are not theirs or are damaged.
        except Exception as error:
            failures.append(f"{name.removesuffix('RawIO')}: {why_unreadable(path) or one_line(error)}")
            continue
        try:
            recording = recording_over(reader, name.removesuffix("RawIO"), path, options)
            place = Path(arguments.get("dirname", path))
            if name in _ONE_FOLDER and path.is_dir() and place.resolve() != path.resolve():
                recording = replace(
                    recording, notes=(*recording.notes, f"the recording in {place} is read, the only one there")
                )
            if empty := [Path(file).name for file in getattr(reader, "_empty_ncs", ())]:
                note = f"files left out, which hold a header and no sample: {', '.join(empty)}"
                recording = replace(recording, notes=(*recording.notes, note))
            return recording
        except BaseException:
            close_reader(reader)
            raise
    raise InputError(
        f"{path} cannot be read by neo ({'; '.join(failures)}): it has the wrong ending; or it, or a file that belongs to "
        "it, is damaged, "
        "cut off or missing. Copy all of them again, or correct the name."
    )


def _lacks_package(name: str, path: Path) -> bool:
    """Whether a reader needs a package that is not installed, and the file may be one of its format."""
    may_be = name != "EDFRawIO" or _starts_with(path, _EDF_VERSION)
    return find_spec(_PACKAGES.get(name, "neo")) is None and may_be


def _unknown(path: Path) -> str:
    """Why nothing reads `path`, and what to do."""
    if path.is_dir():
        files = [p for p in sorted(path.iterdir()) if p.is_file()]
        inside = [p.name for p in files if _may_be_recording(p)]
        if inside:
            return (
                f"{path} is a folder that no reader takes as a whole; give one file of it, such as {', '.join(inside[:5])}."
            )
        return f"{path}: no reader knows this folder; give the recording in it, or the folder that its program wrote."
    if path.suffix.lower() == ".pl2":
        return f"{path}: PL2 files need Plexon's own Windows library; convert to .plx or NWB with Plexon's tools."
    if path.suffix.lower() == ".npz":
        return f"{path} holds several arrays; write the traces into a file of their own with numpy.save, and give that .npy."
    return (
        f"{path}: no reader knows this file; there are readers for HDF5, MEArec, NWB, raw binary "
        "(with --sampling-frequency, --n-channels and --dtype) and the formats of neo."
    )


def _may_be_recording(file: Path) -> bool:
    if (
        file.suffix.lower() in (".json", ".xml")
        and not file.name.lower().endswith(".xdat.json")
        and not file.with_suffix(".dat").is_file()
    ):
        return False  # settings and lists of other programs
    return file.suffix.lower() in _OTHER_READERS or bool(neo_candidates(file))


def neo_candidates(path: Path) -> list[Candidate]:
    """Readers of neo that may know `path`, each with its arguments; empty where none does. What belongs to the target of a link lies
    beside that."""
    path = Path(os.path.abspath(path))  # some take facts from the names of the folders above
    return _candidates(path) or (_candidates(path.resolve()) if path.is_symlink() else [])


def _candidates(path: Path) -> list[Candidate]:
    if path.is_dir():
        return _folder_candidates(path)
    suffix = path.suffix.lower()
    if suffix in _AMBIGUOUS:
        return _companion_candidates(path, suffix)
    if suffix in _OF_TDT:
        return _tdt(path.parent, path)
    import neo.rawio

    found: list[Candidate] = []
    for kind in neo.rawio.rawiolist:
        if kind.__name__ in _LEFT_OUT or suffix[1:] not in [e.lower() for e in kind.extensions]:
            continue
        arguments: dict[str, Any] = {"dirname": str(path.parent)} if kind.rawmode == "one-dir" else {"filename": str(path)}
        if suffix == ".continuous":
            arguments = {"filename": str(path)}
        if kind.__name__ == "NeuralynxRawIO":
            arguments |= {"include_filenames": [path.name]}
        if kind.__name__ == "Spike2RawIO":
            arguments["try_signal_grouping"] = False
        if kind.__name__ == "AlphaOmegaRawIO":
            arguments |= {"lsx_files": [path.name]} if suffix == ".lsx" else {_ONLY_MPX: [path]}
        if kind.__name__ == "PlexonRawIO":
            arguments["progress_bar"] = False
        if kind.__name__ == "BlackrockRawIO" and suffix[1:3] == "ns":
            arguments["nsx_to_load"] = int(suffix[3:])
        found.append((kind.__name__, arguments))
    return found


def _folder_candidates(folder: Path) -> list[Candidate]:
    for name in ("info.rhd", "info.rhs"):
        if (folder / name).is_file():
            return [("IntanRawIO", {"filename": str(folder / name)})]
    places = list(folders_below(folder, _DEPTH - 1))
    for mark, reader in _FOLDER_MARKS.items():
        if found := [file for place in places for file in _matching(Path(place), mark)]:
            if reader == "TdtRawIO":
                return _tdt(folder, found[0])
            if reader in _ONE_FOLDER:
                return [(reader, _in_one_folder(folder, found))]
            return [(reader, {"dirname": str(folder)})]
    return _open_ephys_above(folder)


def _matching(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder whose name, in small letters, is of this pattern."""
    return sorted(file for file in folder.iterdir() if fnmatch.fnmatchcase(file.name.lower(), pattern))


def _in_one_folder(folder: Path, found: Sequence[Path]) -> dict[str, Any]:
    """Arguments for a reader of the files that were found in a folder or below it. Raises InputError where several folders have some, or
    one below a folder that has another recording."""
    places = list(dict.fromkeys(file.parent for file in found))
    if places[0] != folder:
        places = [file for file in sorted(folder.iterdir()) if file.is_file() and _may_be_recording(file)] + places
    if len(places) > 1:
        shown = ", ".join(str(place) for place in places[:5]) + (f" and {len(places) - 5} more" if len(places) > 5 else "")
        raise InputError(f"{folder} holds several recordings, in {shown}; give one of them.")
    suffix = found[0].suffix.lower()
    if suffix == ".ncs":  # events and detected spikes beside them may be of another program
        return {"dirname": str(places[0]), "include_filenames": [file.name for file in found]}
    return {"dirname": str(places[0])} | ({_ONLY_MPX: list(found)} if suffix == ".mpx" else {})


def _open_ephys_above(path: Path) -> list[Candidate]:
    """The reader of the Open Ephys recording that has `path` in the folder of one of its streams."""
    for folder in path.parents[:3]:
        if (folder / "structure.oebin").is_file():
            return [("OpenEphysBinaryRawIO", {"dirname": str(folder)})]
    return []


def _tdt(folder: Path, file: Path) -> list[Candidate]:
    """The reader of a TDT tank, a folder of blocks; or of one block, which neo wants to be named by one of its files."""
    index = next(iter(sorted(file.parent.glob("*.[tT][sS][qQ]"))), file)
    is_tank = file.parent != folder
    return [("TdtRawIO", {"dirname": str(folder if is_tank else index)})]


def _companion_candidates(path: Path, suffix: str) -> list[Candidate]:
    """Readers for an ending that many formats share, where a second file or the first bytes say which it is."""
    name = str(path)
    if suffix in (".bin", ".cbin", ".meta") and path.with_suffix(".meta").is_file():
        return [("SpikeGLXRawIO", {"dirname": name})]
    if suffix in (".bin", ".set") and path.with_suffix(".set").is_file():
        return [("AxonaRawIO", {"filename": name})]
    if suffix == ".xml":
        return [("NeuroScopeRawIO", {"filename": name})]
    if suffix in (".dat", ".eeg") and path.with_suffix(".xml").is_file():
        return [("NeuroScopeRawIO", {"filename": str(path.with_suffix(".xml")), "binary_file": name})]
    if suffix == ".eeg" and path.with_suffix(".vhdr").is_file():
        return [("BrainVisionRawIO", {"filename": str(path.with_suffix(".vhdr"))})]
    if suffix == ".eeg" and path.with_name(path.name + ".ent").is_file():
        return [("ElanRawIO", {"filename": name})]
    if suffix == ".json":
        return [("NeuroNexusRawIO", {"filename": name})]
    if suffix == ".raw" and _starts_with(path, b"MCS_DATA_TOOLS"):
        return [("RawMCSRawIO", {"filename": name})]
    for header in ("info.rhd", "info.rhs"):
        if suffix == ".dat" and path.with_name(header).is_file():
            return [("IntanRawIO", {"filename": str(path.with_name(header))})]
    return _open_ephys_above(path)


def _starts_with(path: Path, mark: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(mark)) == mark


@contextlib.contextmanager
def shared_readers() -> Iterator[None]:
    """Parse a folder once while several files of it are opened: a reader may go through all of them for its header."""
    token = _SHARED.set({})
    try:
        yield
    finally:
        _SHARED.reset(token)


def open_reader(name: str, arguments: dict[str, Any]) -> Any:
    """The reader with its header parsed; what neo warns of goes to the log."""
    shared = _SHARED.get()
    key = f"{name} {arguments}"
    if shared is None or key not in shared:
        reader = _parsed(name, arguments)
        if shared is None:
            return reader
        shared[key] = reader
    return shared[key]


def _parsed(name: str, arguments: dict[str, Any]) -> Any:
    if name == "SpikeGLXRawIO":
        return read_spikeglx(Path(arguments["dirname"]))
    if name == "AxonaRawIO":
        return read_axona(Path(arguments["filename"]))
    if name == "OpenEphysRawIO":
        return read_open_ephys_legacy(Path(arguments.get("filename") or arguments["dirname"]))
    import neo.rawio

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if name == "OpenEphysBinaryRawIO":
            read_rates_as_numbers()
        if name == "IntanRawIO":
            read_endings_in_capitals()
        known = {key: value for key, value in arguments.items() if key != _ONLY_MPX}
        reader = getattr(neo.rawio, name)(**reader_arguments(name, known))
        if _ONLY_MPX in arguments:
            reader._mpx_files = arguments[_ONLY_MPX]
        if name == "AlphaOmegaRawIO":
            index = [Path(arguments["dirname"], file) for file in arguments.get("lsx_files", ())]
            refuse_depths(reader._mpx_files or [], *index or [Path(arguments["dirname"])])
        reader.parse_header()
        if name == "Spike2RawIO":
            group_spike2(reader)
    for warning in caught:
        logger.info("neo: %s", warning.message)
    return reader
