"""Further formats of a sorting: which there are, what they need, where they go."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from spikecrsae.config import Config
from spikecrsae.data.recording import Recording
from spikecrsae.data.sorting import SortingData
from spikecrsae.data.waveforms import Signal, used_channels
from spikecrsae.errors import InputError, OutputError, SpikeCRsAEError, UsageError
from spikecrsae.exports.export_folder import ExportFolder
from spikecrsae.exports.klusters import klusters_files
from spikecrsae.exports.mat import mat_file
from spikecrsae.exports.neo import neo_file
from spikecrsae.exports.nwb import nwb_file
from spikecrsae.exports.nwb_metadata import SessionMetadata, read_metadata
from spikecrsae.exports.nwb_source import source_metadata
from spikecrsae.exports.phy import phy_files
from spikecrsae.preprocess.filters import design_filter
from spikecrsae.preprocess.preprocessor import filtered
from spikecrsae.readers import open_session
from spikecrsae.readers.phy_names import is_phy_folder, phy_folder
from spikecrsae.results.folder import SORTING, ResultFolder
from spikecrsae.results.output_folder import MANIFEST, refuse_link
from spikecrsae.results.tables import spikes_csv, units_csv
from spikecrsae.system.files import write_atomic, writing

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Format:
    """Name of the file or folder that a format makes inside a result, and what it lacks without the recording."""

    name: str
    without_recording: str = ""

    @property
    def is_folder(self) -> bool:
        return not Path(self.name).suffix


FORMATS = {
    "phy": Format("phy", "no traces and waveforms (recording.dat) and no pc_features"),
    "nwb": Format("sorting.nwb", "no facts about the session that its files hold, such as its start"),
    "csv": Format("csv"),
    "mat": Format("sorting.mat"),
    "neo": Format("sorting_neo.mat"),
    "klusters": Format("klusters", "no features (.fet) and waveforms (.spk), which Klusters needs"),
}
_NEEDS_TEMPLATES = ("phy", "nwb", "klusters")


def place_of_exports(source: str | Path) -> Path:
    """The folder for what is made of the sorting at `source`: its result folder; for a curated Phy folder one of its own beside
    it, <name>-curated."""
    source = phy_folder(source).absolute()
    if is_phy_folder(source):
        return source.with_name(source.name + "-curated")
    return source if source.is_dir() else source.parent


def default_place(source: str | Path, kind: str, per_file: bool = False) -> Path:
    """Where a format of the sorting at `source` goes unless another place is given; per_file: the folder of all files."""
    return place_of_exports(source) / (f"{kind}_per_file" if per_file else FORMATS[kind].name)


def check_place(place: str | Path, kind: str, overwrite: bool = False) -> None:
    """Whether the format may be written to `place`, without touching anything; raises OutputError or UsageError if not."""
    place, suffix = Path(place), Path(FORMATS[kind].name).suffix
    if FORMATS[kind].is_folder:
        ExportFolder(place).check(overwrite)
        return
    if place.suffix.lower() != suffix:
        raise UsageError(f"{place} must end in {suffix}, as every {kind} file; change the name after -o.")
    refuse_link(place)
    if place.is_dir():
        raise OutputError(f"{place} is a folder, and {kind} is a file; choose another name with -o.")
    if place.exists() and not overwrite:
        raise OutputError(f"{place} exists and is not overwritten; give --overwrite, or another name with -o.")


def told_of_export(kinds: Iterable[str], metadata: Path | None, columns: str | None) -> tuple[SessionMetadata | None, bool]:
    """What --metadata and --columns (few or all) mean for `export`: the metadata in the file, and whether Phy's table has all
    columns. Raises UsageError for one that none of the formats takes, and what read_metadata raises."""
    written = " and ".join(kinds) or "no format"
    for value, name, kind in ((metadata, "--metadata", "nwb"), (columns, "--columns", "phy")):
        if value is not None and kind not in kinds:
            raise UsageError(f"{name} is for {kind} only, and {written} is written; leave it out, or write {kind} as well.")
    return None if metadata is None else read_metadata(metadata), columns == "all"


def find_recording(source: str | Path, sorting: SortingData, run: dict, kind: str, options: dict) -> Recording | None:
    """The recording that was sorted, for a format that takes something from it: where run.json says it was, or beside the
    sorting at `source`.

    `options` go before those that run.json holds. None, with a warning, where it is not there or cannot be opened.
    """
    told = run.get("recording", {})
    names = [Path(name) for name in told.get("paths") or [told.get("path")] if name]
    if not FORMATS[kind].without_recording or not names:
        return None
    folders, paths = list(Path(source).absolute().parents)[:2], []
    for name in names:
        path = next((place for place in (name, *(folder / name.name for folder in folders)) if place.exists()), None)
        if path is None:
            logger.warning("the recording %s is not there; give it with --recording", name)
            return None
        paths.append(path)
    try:
        recording = open_session(paths, **{**told.get("read_options", {}), **options})
        _check_recording(sorting, recording)
        return recording
    except SpikeCRsAEError as error:
        logger.warning("the recording cannot be used, give it with --recording: %s", error)
        return None


def export(
    sorting: SortingData,
    run: dict,
    kind: str,
    place: str | Path,
    recording: Recording | None = None,
    overwrite: bool = False,
    metadata: SessionMetadata | None = None,
    all_columns: bool = False,
) -> Path:
    """Write the sorting in the format `kind` (one of FORMATS) to `place`, whole or not at all; returns the path.

    run: what run.json holds. recording: the one that was sorted; without it phy and klusters lack what comes from its
    traces, and a warning says so. metadata: of the session, for nwb; it goes before what the recording says. all_columns: see phy_files. Raises
    InputError where the recording is another one or templates are missing, OutputError
    where the place is taken or cannot be written.
    """
    place = Path(place)
    check_place(place, kind, overwrite)
    if kind in _NEEDS_TEMPLATES and sorting.n_units and not sorting.templates.size:
        raise InputError(f"the sorting has no templates, which {kind} needs; choose another --to, such as csv.")
    if recording is not None:
        _check_recording(sorting, recording)
    elif FORMATS[kind].without_recording:
        logger.warning("without the recording: %s", FORMATS[kind].without_recording)
    if FORMATS[kind].is_folder:
        return ExportFolder(place).write(_files(sorting, run, kind, place, recording, all_columns), overwrite)
    if recording is not None and place.exists() and place.samefile(recording.source):
        raise OutputError(f"{place} is the recording, which is not overwritten; choose another name with -o.")
    write_atomic(place, [_file(sorting, run, kind, recording, metadata)])
    if all((place.parent / name).is_file() for name in (SORTING, MANIFEST)):
        ResultFolder(place.parent).add([place.name])
    return place


def _files(
    sorting: SortingData, run: dict, kind: str, place: Path, recording: Recording | None, all_columns: bool
) -> dict[str, Iterable[bytes]]:
    if kind == "csv":
        return {"spikes.csv": spikes_csv(sorting), "units.csv": [units_csv(sorting)]}
    signal = None if recording is None else _signal(sorting, run, recording)
    if kind == "phy":
        return phy_files(sorting, json.dumps(run, indent=2, ensure_ascii=False), place.absolute(), signal, all_columns)
    told = Path(str(run.get("recording", {}).get("path", ""))).stem
    return klusters_files(sorting, re.sub(r"[^\w.+ -]", "_", told).lstrip(".") or "sorting", signal)


def export_per_file(
    sorting: SortingData,
    run: dict,
    kind: str,
    place: str | Path,
    recording: Recording | None = None,
    overwrite: bool = False,
    metadata: SessionMetadata | None = None,
    all_columns: bool = False,
) -> Path:
    """Write one export of the format `kind` into the folder `place` for each file of a session, named after it and on its own
    clock; returns the path. Arguments and errors are those of `export`; UsageError also where there is only one file."""
    place, files = Path(place), sorting.by_clock()
    if len(files) < 2:
        raise UsageError("the recording is one file on one clock; leave --per-file out.")
    suffix = Path(FORMATS[kind].name).suffix
    stems = [re.sub(r"[^\w.+-]+", "_", Path(name).name).lstrip(".") or "file" for name, *_ in files]
    if len(set(stems)) < len(stems):
        stems = [f"{number}_{stem}" for number, stem in enumerate(stems)]
    targets = [place / f"{stem}{suffix}" for stem in stems]
    if place.exists() and not place.is_dir():
        raise OutputError(f"{place} is a file, and a folder is to be written there; choose another name with -o.")
    for target in targets:
        check_place(target, kind, overwrite)
    with writing(place):
        place.mkdir(parents=True, exist_ok=True)
    for number, (target, (name, first, part)) in enumerate(zip(targets, files, strict=True)):
        told = run | {"recording": run.get("recording", {}) | {"path": name, "file": number}}
        signal = None if recording is None else _file_of(recording, name, first, part.n_samples)
        export(part, told, kind, target, signal, overwrite, metadata, all_columns)
    return place


def _file_of(recording: Recording, name: str, first: int, n_samples: int) -> Recording:
    """One of the files of a recording, from sample `first` on."""
    source = Path(name) if Path(name).exists() else recording.source
    return replace(recording, time_range=(first, first + n_samples), source=source).in_range()


def _file(
    sorting: SortingData, run: dict, kind: str, recording: Recording | None, metadata: SessionMetadata | None
) -> bytes:
    provenance = json.dumps(run, indent=2, ensure_ascii=False)
    if kind == "nwb":
        told = metadata or SessionMetadata()
        names = list(map(str, sorting.channels.get("ids", range(sorting.n_channels))))
        if strange := [name for name in told.of_channel if name not in names]:
            raise UsageError(f"the metadata name channel {strange[0]}; there are {', '.join(names)}.")
        if recording is not None:
            told = told.over(source_metadata(recording, run.get("recording", {}).get("read_options", {}).get("series")))
        return nwb_file(sorting, provenance, told)
    return neo_file(sorting) if kind == "neo" else mat_file(sorting, provenance)


def _check_recording(sorting: SortingData, recording: Recording) -> None:
    facts = [(x.n_samples, x.n_channels, x.sampling_frequency) for x in (recording, sorting)]
    if facts[0] != facts[1]:
        here, sorted_ = (f"{n} samples on {c} channels at {fs:g} Hz" for n, c, fs in facts)
        raise InputError(
            f"{recording.source} has {here}, the recording that was sorted {sorted_}; give that one, with the options (such as "
            "--channels) that it was sorted with."
        )


def _signal(sorting: SortingData, run: dict, recording: Recording) -> Signal:
    """The recording with the high-pass filter and the common reference that it was sorted with."""
    config = Config().with_values(run.get("config", {}), origin="run.json").preprocess
    sos, margin = design_filter(config, recording.sampling_frequency)
    used = recording.select(used_channels(sorting).tolist())

    def highpassed(start: int, stop: int) -> np.ndarray:
        return filtered(used, sorting.excluded, start, stop, sos, margin, config.common_reference)

    return Signal(recording, highpassed)
