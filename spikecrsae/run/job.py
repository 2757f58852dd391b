"""One recording and its result folder: what `sort`, `apply`, `batch`, `rerun` and the SpikeInterface sorter have in common."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikecrsae.config import OF_RECORDING, Config
from spikecrsae.data.recording import Recording
from spikecrsae.errors import OutputError, add_remedy
from spikecrsae.exports.export_folder import exports_in
from spikecrsae.progress import Observer
from spikecrsae.readers import open_session
from spikecrsae.results.folder import COMPONENTS, LOG, MODEL, REPORT, RESUME, ResultFolder
from spikecrsae.run import resume
from spikecrsae.run.record import file_state, given_files, model_facts, names_a_file, read_options, record, recording_facts
from spikecrsae.system.dask import Cluster
from spikecrsae.system.files import refuse_undecodable, write_atomic, writing
from spikecrsae.system.json_values import to_json
from spikecrsae.system.logs import logging_to_file

if TYPE_CHECKING:
    from spikecrsae.pipeline.outcome import Outcome


@dataclass(frozen=True)
class Job:
    """A recording, what is to be done with it, and the folder for the result.

    recordings: its file, or those of one session in order; none with an opener. reader: fields of ReadOptions. task: sort, or
    apply, which finds the units of `model` (a model file, or the result folder that holds it). opener: opens the recording in
    place of the readers; it is pickled where several processes work. exports: further formats that the result is written in
    (export.FORMATS); metadata and columns: as the command export takes them. jobs: groups of channels at the same time, None
    for as many as there are cores. scheduler: of a Dask cluster over which groups and blocks are spread. overwrite: replace an earlier result. resume: continue where an earlier run
    of the same job was stopped. keep_learned: keep for that what was learned if this run is stopped. command: the words that
    asked for it, for run.json.
    """

    recordings: tuple[Path, ...]
    folder: Path
    config: Config = field(default_factory=Config)
    reader: dict[str, Any] = field(default_factory=dict)
    task: str = "sort"
    model: Path | None = None
    opener: Callable[[], Recording] | None = None
    estimate_errors: bool = False
    save_components: bool = False
    exports: tuple[str, ...] = ()
    metadata: Path | None = None
    columns: str | None = None
    jobs: int | None = None
    scheduler: str | None = None
    overwrite: bool = False
    resume: bool = False
    keep_learned: bool = True
    command: tuple[str, ...] = field(default_factory=lambda: tuple(word for word in sys.argv if word != "--resume"))

    @property
    def recording(self) -> Path:
        """The recording, or the first file of it."""
        return self.recordings[0]

    @property
    def options(self) -> dict[str, Any]:
        """What was asked for besides the configuration, as JSON values."""
        told = {"metadata": self.metadata and str(self.metadata.absolute()), "columns": self.columns}
        return {
            "estimate_errors": self.estimate_errors,
            "save_components": self.save_components,
            "exports": list(self.exports),
            **{name: value for name, value in told.items() if value is not None},
        }

    def open(self) -> Recording:
        """Open the recording. Raises InputError or UsageError as the readers do."""
        return self.opener() if self.opener else open_session(self.recordings, **self.reader)

    def with_full_paths(self) -> Job:
        """Return the same job, which means the same files in any working folder."""
        reader = {
            name: os.path.abspath(value) if isinstance(value, Path) or names_a_file(name, value) else value
            for name, value in self.reader.items()
        }
        return replace(
            self,
            recordings=tuple(path.absolute() for path in self.recordings),
            folder=self.folder.absolute(),
            model=self.model and self.model.absolute(),
            metadata=self.metadata and self.metadata.absolute(),
            reader=reader,
        )

    @property
    def model_file(self) -> Path:
        """The file of the model that is applied."""
        model = (self.model or Path()).absolute()
        return model / MODEL if model.is_dir() else model

    @property
    def request(self) -> dict[str, Any]:
        """What decides about the result, as run.json records it. Raises InputError where the model cannot be read."""
        request: dict[str, Any] = {
            "task": self.task,
            "spikecrsae": version("spikecrsae"),
            "config": self.config.to_dict(),
            "options": self.options,
            "recording": {
                "paths": [os.path.abspath(path) for path in self.recordings],
                "read_options": read_options(self.recordings, self.reader),
                **file_state(self.recordings),
            },
        }
        if files := given_files(self.config):
            request["files"] = files
        if self.task == "apply":
            # the other settings are those of the model
            chosen = {
                "preprocess": OF_RECORDING,
                "infer": ("chunk_s", "adapt"),
                "runtime": ("seed", "device", "backend", "memory_limit"),
            }
            request["config"] = {s: {name: request["config"][s][name] for name in names} for s, names in chosen.items()}
            request["model"] = model_facts(self.model_file)
        return request


def run_job(job: Job, observer: Observer | None = None) -> Outcome:
    """Do a job and write its result folder. The outcome of a result that was finished before has no checkpoint.

    Raises UsageError, InputError or OutputError where the options, the recording, the model or the folder cannot be used, or
    job.resume does not match what is there; then nothing new is left behind, except what was learned, for job.resume.
    """
    observer, folder = observer or Observer(), ResultFolder(job.folder)
    for path in job.recordings:
        refuse_undecodable(path)
    refuse_undecodable(job.folder, OutputError)
    with contextlib.closing(job.open()) as recording, folder.lock():
        outcome = _finished_outcome(job, folder, observer) if job.resume else None
        if outcome is None:
            _check_exports(job)
            outcome = _run(job, folder, recording, observer)
        try:
            _export(job, observer)
        except BaseException as error:
            add_remedy(error, resume.resume_command(job.command, "the result is whole"))
            raise
    return outcome


def _finished_outcome(job: Job, folder: ResultFolder, observer: Observer) -> Outcome | None:
    """Return the outcome of an earlier run of this job that is finished; None where there is none, or another one may be
    replaced. Raises OutputError where it may not."""
    from spikecrsae.pipeline.outcome import Outcome
    from spikecrsae.results.folder import read_result

    if not folder.is_finished():
        return None
    if differences := resume.differences_to_result(job.folder, job.request):
        if job.overwrite:
            return None
        raise OutputError(
            f"--resume does not match: the result in {job.folder} is finished and differs ({differences}). Give "
            "--overwrite to replace it, or another name with -o."
        )
    observer.say(f"{job.folder} is finished already, nothing is computed again")
    sorting, run = read_result(job.folder)
    return Outcome(
        sorting=sorting,
        checkpoint={},
        stage_seconds=run["stage_seconds"],
        device=run["device"],
        warnings=tuple(run["warnings"]),
        input_checksum=run["recording"]["checksum"],
        config=job.config,
    )


def _run(job: Job, folder: ResultFolder, recording: Recording, observer: Observer) -> Outcome:
    """Compute the outcome and make the result folder of it."""
    for note in recording.notes:
        observer.say(f"Note: {note}")
    folder.check(job.overwrite)
    request, recorded = job.request, recording_facts(recording, job.recordings, job.reader)
    facts = {"command": job.command, "recording": recorded}
    facts |= {name: request[name] for name in ("task", "options", "model", "files") if name in request}
    fingerprint = resume.fingerprint(request, recorded) if job.keep_learned else ""
    continues = job.resume and resume.can_continue(folder, fingerprint, job.overwrite, observer)
    try:
        with folder.replacing(job.overwrite, keep=(LOG, RESUME) if continues else ()) as work:
            return _fill(job, work, recording, facts, fingerprint, observer)
    except BaseException as error:
        if fingerprint and folder.has_learned():
            add_remedy(error, resume.resume_command(job.command, "what was learned is kept"))
        raise


def _fill(
    job: Job, work: ResultFolder, recording: Recording, facts: dict[str, Any], fingerprint: str, observer: Observer
) -> Outcome:
    """Compute the outcome and write it, its page and its records into the unfinished folder `work`."""
    from spikecrsae.report.html import report_html
    from spikecrsae.results.components import ComponentWriter
    from spikecrsae.results.model_file import save_checkpoint

    with contextlib.ExitStack() as stack:
        with writing(work.path):
            stack.enter_context(logging_to_file(work.path / LOG))
        began = datetime.now(UTC)
        outcome = _compute(job, recording, work.path / RESUME, fingerprint, observer)
        if stale := _stale_exports(job):
            outcome = replace(outcome, warnings=(*outcome.warnings, stale))
        if job.save_components:
            ComponentWriter(outcome.sorting).write(work.path / COMPONENTS, observer)
        observer.start("write")
        told = to_json(record(facts, outcome, began))
        page = report_html(outcome.sorting, told).encode()
        # before the manifest is closed, so that a run that is killed in between leaves nothing unlisted
        save_checkpoint(outcome.checkpoint, work.path / MODEL)
        work.write(outcome.sorting, told, files={REPORT: page})
        observer.finish(str(job.folder))
    work.add([MODEL, LOG, *([COMPONENTS] if job.save_components else [])])
    return outcome


def _compute(job: Job, recording: Recording, learned: Path, fingerprint: str, observer: Observer) -> Outcome:
    """Sort or apply; what is learned goes into the folder `learned` where there is a fingerprint for it."""
    from spikecrsae.pipeline import groups
    from spikecrsae.pipeline.learned import LearnedCache

    cache = None
    if fingerprint:
        write_atomic(learned / resume.FINGERPRINT, [fingerprint.encode()])
        cache = LearnedCache(learned.absolute(), hashlib.sha256(fingerprint.encode()).hexdigest())
    workers: dict[str, Any] = {
        "reopen": job.with_full_paths().open,
        "jobs": job.jobs,
        "cluster": Cluster(job.scheduler) if job.scheduler else None,
    }
    if job.task == "apply":
        return groups.apply(job.model_file, recording, job.config, observer, **workers)
    return groups.sort(recording, job.config, observer, self_test=job.estimate_errors, cache=cache, **workers)


def _stale_exports(job: Job) -> str:
    """Return a warning that names the exports of an earlier result that stay in the folder; empty where none does.

    They are not removed: somebody may have curated them by hand.
    """
    from spikecrsae.exports.export import FORMATS

    renewed = {FORMATS[kind].name for kind in job.exports}
    names = [name for name in exports_in(job.folder) if name not in renewed]
    if not names:
        return ""
    return (
        f"{job.folder} still holds exports of the replaced result ({', '.join(names)}), with its spikes; export again with "
        "--overwrite, or move them away"
    )


def _check_exports(job: Job) -> None:
    """Raise OutputError or UsageError, before a run, where its result could not be written in the formats asked for."""
    if not (job.exports or job.metadata or job.columns):
        return
    from spikecrsae.exports.export import FORMATS, check_place, told_of_export

    told_of_export(job.exports, job.metadata, job.columns)
    for kind in job.exports:
        check_place(job.folder / FORMATS[kind].name, kind, job.overwrite)


def _export(job: Job, observer: Observer) -> None:
    """Write the finished result in further formats into its folder: all, or (without overwrite) those that are missing."""
    if not job.exports:
        return
    from spikecrsae.exports.export import default_place, export, told_of_export
    from spikecrsae.run.curated import open_sorting

    told = told_of_export(job.exports, job.metadata, job.columns)
    for kind in dict.fromkeys(job.exports):
        place = default_place(job.folder, kind)
        if place.exists() and not job.overwrite:
            continue
        observer.start("export")
        with contextlib.closing(job.open()) as recording:
            export(*open_sorting(job.folder), kind, place, recording, job.overwrite, *told)
        observer.finish(str(place))
