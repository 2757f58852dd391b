"""One recording, sorted into a result folder: what `sort`, `batch` and `rerun` share."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import io
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from spikecrsae.cluster import Cluster
from spikecrsae.config import Config
from spikecrsae.cores import n_cores
from spikecrsae.errors import SpikeCRsAEError
from spikecrsae.intervals import seconds
from spikecrsae.locks import reserved
from spikecrsae.logs import logging_to_file
from spikecrsae.plain import plain
from spikecrsae.progress import Observer
from spikecrsae.readers import open_session
from spikecrsae.readers.options import ReadOptions, with_side_file
from spikecrsae.results import (
    MANIFEST,
    add_to_manifest,
    check_folder,
    prepare_folder,
    replace_result,
    write_result,
)

LOG, MODEL, COMPONENTS = "run.log", "model.pt", "components.h5"
_LIBRARIES = ("torch", "numpy", "scipy", "h5py", "neo", "scikit-learn", "numba", "isosplit6", "matplotlib")


@dataclass(frozen=True)
class Job:
    """A recording to sort, how, and the folder for the result.

    recordings: its file, or those of one session in order. reader: fields of ReadOptions. exports: further formats that the
    result is written in (export.FORMATS). jobs: groups of channels sorted at the same time, None for as many as there are
    cores. scheduler: of a Dask cluster over which groups and blocks are spread. overwrite: replace an earlier result. command: the
    words that asked for it, for run.json.
    """

    recordings: tuple[Path, ...]
    folder: Path
    config: Config = field(default_factory=Config)
    reader: dict[str, Any] = field(default_factory=dict)
    estimate_errors: bool = False
    save_components: bool = False
    exports: tuple[str, ...] = ()
    jobs: int | None = None
    scheduler: str | None = None
    overwrite: bool = False
    command: tuple[str, ...] = field(default_factory=lambda: tuple(sys.argv))

    @property
    def recording(self) -> Path:
        """The recording, or the first file of it."""
        return self.recordings[0]

    @property
    def choices(self) -> dict[str, Any]:
        """What was asked for besides the configuration, as JSON values."""
        return {
            "estimate_errors": self.estimate_errors,
            "save_components": self.save_components,
            "exports": list(self.exports),
        }

    def with_full_paths(self) -> Job:
        """The same job, which means the same files in any working folder."""
        reader = {
            name: os.path.abspath(value) if isinstance(value, Path) or _is_file(name, value) else value
            for name, value in self.reader.items()
        }
        return replace(
            self,
            recordings=tuple(path.absolute() for path in self.recordings),
            folder=self.folder.absolute(),
            reader=reader,
        )


def run_job(job: Job, observer: Observer | None = None):
    """Sort a recording into its folder; returns the pipeline's Outcome.

    Raises UsageError, InputError or OutputError where the options, the recording or the folder cannot be used; then nothing
    new is left behind.
    """
    from spikecrsae import groups

    # beside the first stages, which use all cores, it would only be in the way
    observer = _Loading(observer or Observer())
    reopen = functools.partial(open_session, job.recordings, **job.reader)
    opened = reopen()
    anywhere = job.with_full_paths()
    work = functools.partial(
        groups.sort, opened, job.config, observer, reopen=functools.partial(open_session, anywhere.recordings, **anywhere.reader),
        jobs=job.jobs or n_cores(), cluster=job.scheduler and Cluster(job.scheduler), self_test=job.estimate_errors,
    )  # fmt: skip
    try:
        _check_exports(job)
        for note in opened.notes:
            observer.say(f"Note: {note}")
        facts = {"task": "sort", "command": job.command, "options": job.choices}
        outcome = run_into_folder(
            work, opened, job.recordings, job.folder, job.overwrite, observer, job.reader, facts, job.save_components
        )
    finally:
        opened.close()
    _export(job, reopen, observer)
    return outcome


def _check_exports(job: Job) -> None:
    """Before a run: whether its result could be written in the formats asked for. Raises OutputError as export does."""
    from spikecrsae.export import FORMATS, check_place

    for kind in job.exports:
        check_place(job.folder / FORMATS[kind].name, kind, job.overwrite)


def _export(job: Job, reopen: Callable, observer: Observer) -> None:
    """Write the finished result in further formats into its folder; reopen() gives the recording."""
    from spikecrsae.curated import open_sorting
    from spikecrsae.export import default_place, export

    for kind in dict.fromkeys(job.exports):
        observer.start("export")
        with contextlib.closing(reopen()) as opened:
            place = export(*open_sorting(job.folder), kind, default_place(job.folder, kind), opened, job.overwrite)
        observer.finish(str(place))


def run_into_folder(
    run: Callable[[Path | None], Any],
    recording,
    paths: Sequence[Path],
    folder: Path,
    overwrite: bool,
    observer: Observer,
    reader: dict[str, Any],
    facts: dict[str, Any],
    components: bool = False,
):
    """Call run(components_path) and write its Outcome, the pictures and the records into `folder`; returns the Outcome.

    paths, reader: the files and options that the recording was opened with. facts: what the caller adds to run.json. Raises
    OutputError where the folder cannot be used. A run that ends early leaves nothing behind, and an earlier result as it was:
    the new one is made beside it and takes its place at the end. After an internal error run.log stays, with the traceback.
    """
    from spikecrsae.checkpoint import save_checkpoint

    with reserved(folder):
        check_folder(folder, overwrite)
        work = folder.with_name(folder.name + ".new") if folder.exists() else folder
        prepare_folder(work, overwrite=True)
        with _discarded_on_failure(work), logging_to_file(work / LOG):
            began = datetime.now(UTC)
            outcome = run(work / COMPONENTS if components else None)
            observer.start("write")
            record = plain(facts | _record(recording, paths, reader, outcome, began))
            # before the manifest is closed, so that a run that is killed in between leaves nothing unlisted
            save_checkpoint(outcome.checkpoint, work / MODEL)
            write_result(work, outcome.sorting, record, files=_pictures(outcome.sorting, record))
            observer.finish(str(folder))
        add_to_manifest(work, [MODEL, LOG, *([COMPONENTS] if components else [])])
        if work != folder:
            replace_result(folder, work)
    return outcome


class _Loading(Observer):
    """Passes on what it is told; from curation on (or from that of groups) libraries that are needed later are loaded beside the
    computation, which takes seconds. What is missing is told where it is used."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def start(self, stage: str, total: int | None = None) -> None:
        if stage in ("curate", "groups"):
            threading.Thread(target=_load_libraries, daemon=True).start()
        self._observer.start(stage, total)

    def advance(self, n: int = 1) -> None:
        self._observer.advance(n)

    def finish(self, summary: str = "") -> None:
        self._observer.finish(summary)

    def say(self, line: str) -> None:
        self._observer.say(line)


def _load_libraries() -> None:
    for name in ("matplotlib.backends.backend_agg", "torch"):
        with contextlib.suppress(Exception):
            importlib.import_module(name)


@contextlib.contextmanager
def _discarded_on_failure(folder: Path) -> Iterator[None]:
    """Take back what the run has put into the folder when it does not end well; what was there before stays."""
    before = {path.name for path in folder.iterdir()} - {MANIFEST}
    try:
        yield
    except BaseException as error:
        foreseen = isinstance(error, SpikeCRsAEError) or not isinstance(error, Exception)
        for path in folder.iterdir():
            if path.name not in before and (foreseen or path.name not in (LOG, MANIFEST)):
                path.unlink()
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise


def _record(recording, paths: Sequence[Path], reader: dict[str, Any], outcome, began: datetime) -> dict[str, Any]:
    """What every run.json holds."""
    sorting = outcome.sorting
    return {
        "spikecrsae": version("spikecrsae"),
        "began": began.isoformat(timespec="seconds"),
        "seconds": (datetime.now(UTC) - began).total_seconds(),
        "recording": recording_facts(recording, paths, reader) | {"checksum": outcome.input_checksum},
        "config": outcome.config.to_dict(),
        "seed": outcome.config.runtime.seed,
        "device": outcome.device,
        "stage_seconds": outcome.stage_seconds,
        "warnings": outcome.warnings,
        "excluded_s": seconds(sorting.excluded, sorting.sampling_frequency, sorting.start_time_s),
        "libraries": library_versions(),
        "spikes_sha256": spikes_digest(sorting),
    }


def recording_facts(recording, paths: Sequence[Path], reader: dict[str, Any]) -> dict[str, Any]:
    """What run.json says about a recording: where it is, how it was read, and what was read of it."""
    return {
        "path": os.path.abspath(paths[0]),
        "paths": [os.path.abspath(path) for path in paths],
        "read_options": read_options(paths, reader),
        **file_state(paths),
        "format": recording.format,
        "n_samples": recording.n_samples,
        "sampling_frequency": recording.sampling_frequency,
        "start_time_s": recording.start_time_s,
        "channels": recording.channel_ids,
        "groups": {name: [recording.channel_ids[c] for c in members] for name, members in recording.groups.items()},
        "time_range": recording.time_range,
        "files": [asdict(part) for part in recording.parts],
        "dtype": recording.dtype,
        "gain": recording.gain,
        "offset": recording.offset,
        "amplitude_unit": recording.amplitude_unit,
        "notes": recording.notes,
    }


def read_options(paths: Sequence[Path], reader: dict[str, Any]) -> dict[str, Any]:
    """The options with which a recording is opened, as JSON values; files with their full path. Those of the side file are
    included where the recording is one file; each file of a session has its own."""
    options = ReadOptions(**reader)
    if len(paths) == 1:
        options = with_side_file(Path(paths[0]), options)
    given = {name: os.path.abspath(value) if _is_file(name, value) else value for name, value in options.given().items()}
    return plain(given)


def _is_file(option: str, value: Any) -> bool:
    """Whether the value of an option is the name of a file; --groups takes a list of channels as well."""
    return option == "probe" or (option == "groups" and os.path.isfile(value))


def file_state(paths: Sequence[Path]) -> dict[str, int]:
    """Size and time of the last change of files, or of all files in folders: cheap to compare."""
    files = [file for path in map(Path, paths) for file in (path, *(path.rglob("*") if path.is_dir() else ()))]
    states = [file.stat() for file in files if file.is_file()]
    return {
        "bytes": sum(state.st_size for state in states),
        "changed_ns": max((state.st_mtime_ns for state in states), default=0),
    }


def spikes_digest(sorting) -> str:
    """SHA-256 of the sorting's spikes.csv."""
    from spikecrsae.exports.csv import spikes_csv

    digest = hashlib.sha256()
    for piece in spikes_csv(sorting):
        digest.update(piece)
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of everything that has a part in the numbers."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _pictures(sorting, record: dict[str, Any]) -> dict[str, bytes]:
    """The figures of a sorting as PNG, and the page with all of them, by file name."""
    from spikecrsae.report.figures import plot_templates, plot_traces, plot_training
    from spikecrsae.report.html import report_html

    start, traces = sorting.example_start, sorting.example
    reconstruction = sorting.reconstruction(start, start + len(traces))
    drawings = {
        "templates.png": lambda file: plot_templates(sorting, file),
        "traces.png": lambda file: plot_traces(traces, start, sorting, file, reconstruction),
        "training.png": lambda file: plot_training(sorting.model, file),
    }
    pictures = {"report.html": report_html(sorting, record).encode()}
    for name, draw in drawings.items():
        file = io.BytesIO()
        draw(file)
        pictures[name] = file.getvalue()
    return pictures
