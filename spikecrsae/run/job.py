"""One recording, sorted into a result folder: what `sort`, `batch` and `rerun` share."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from spikecrsae.config import Config
from spikecrsae.errors import OutputError, SpikeCRsAEError, add_remedy
from spikecrsae.progress import Observer
from spikecrsae.readers import open_session
from spikecrsae.results.folder import (
    MANIFEST,
    MODEL,
    add_to_manifest,
    check_folder,
    is_finished,
    prepare_folder,
    write_result,
)
from spikecrsae.results.placement import put_in_place, settle, unfinished
from spikecrsae.run import resume
from spikecrsae.run.record import file_state, names_a_file, read_options, record, recording_facts
from spikecrsae.system.dask import Cluster
from spikecrsae.system.files import reserved, writing
from spikecrsae.system.json_values import to_json
from spikecrsae.system.logs import logging_to_file
from spikecrsae.system.threads import n_cores

LOG, COMPONENTS = "run.log", "components.h5"


@dataclass(frozen=True)
class Job:
    """A recording to sort, how, and the folder for the result.

    recordings: its file, or those of one session in order. reader: fields of ReadOptions. exports: further formats that the
    result is written in (export.FORMATS). jobs: groups of channels sorted at the same time, None for as many as there are
    cores. scheduler: of a Dask cluster over which groups and blocks are spread. overwrite: replace an earlier result.
    resume: go on where an earlier run of the same job was stopped. stays: keep what was learned for that, where this run is
    stopped. command: the words that asked for it, for run.json.
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
    resume: bool = False
    stays: bool = True
    command: tuple[str, ...] = field(default_factory=lambda: tuple(word for word in sys.argv if word != "--resume"))

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
            name: os.path.abspath(value) if isinstance(value, Path) or names_a_file(name, value) else value
            for name, value in self.reader.items()
        }
        return replace(
            self,
            recordings=tuple(path.absolute() for path in self.recordings),
            folder=self.folder.absolute(),
            reader=reader,
        )

    @property
    def request(self) -> dict[str, Any]:
        """What decides about the result, as run.json records it: how it is to be made, and of which files."""
        return {
            "task": "sort",
            "spikecrsae": version("spikecrsae"),
            "config": self.config.to_dict(),
            "options": self.choices,
            "recording": {
                "paths": [os.path.abspath(path) for path in self.recordings],
                "read_options": read_options(self.recordings, self.reader),
                **file_state(self.recordings),
            },
        }


def run_job(job: Job, observer: Observer | None = None):
    """Sort a recording into its folder; returns the pipeline's Outcome, of a result that was there already without its
    checkpoint.

    Raises UsageError, InputError or OutputError where the options, the recording or the folder cannot be used, or job.resume
    does not match what is there; then nothing new is left behind, but what was learned, for job.resume.
    """
    observer = observer or Observer()
    reopen = functools.partial(open_session, job.recordings, **job.reader)
    with contextlib.closing(reopen()) as opened, reserved(job.folder):
        settle(job.folder)
        outcome = _found(job, observer) if job.resume else None
        if outcome is None:
            _check_exports(job)
            outcome = _sorted(job, opened, reopen, observer)
        try:
            _export(job, reopen, observer)
        except BaseException as error:
            add_remedy(error, resume.how_to_go_on(job.command, "the result is whole"))
            raise
    return outcome


def _found(job: Job, observer: Observer):
    """The Outcome of an earlier run of this job that is finished; None where the folder has none, or another one may be
    replaced. Raises OutputError where it may not."""
    from spikecrsae.pipeline.sort import Outcome
    from spikecrsae.results.folder import read_run, read_sorting

    if not is_finished(job.folder):
        return None
    if differences := resume.differences_to_result(job.folder, job.request):
        if job.overwrite:
            return None
        raise OutputError(
            f"--resume does not match: the result in {job.folder} is finished and was made otherwise ({differences}); give "
            "--overwrite to replace it, or another name with -o."
        )
    observer.say(f"{job.folder} is finished already, nothing is sorted again")
    run = read_run(job.folder)
    return Outcome(
        sorting=read_sorting(job.folder),
        checkpoint={},
        stage_seconds=run["stage_seconds"],
        device=run["device"],
        warnings=tuple(run["warnings"]),
        input_checksum=run["recording"]["checksum"],
        config=job.config,
    )


def _sorted(job: Job, opened, reopen: Callable, observer: Observer):
    """The Outcome of sorting the opened recording, written into the job's folder."""
    from spikecrsae.pipeline import groups

    for note in opened.notes:
        observer.say(f"Note: {note}")
    recorded = recording_facts(opened, job.recordings, job.reader)
    facts = {"task": "sort", "command": job.command, "options": job.choices}
    anywhere = job.with_full_paths()
    work = functools.partial(
        groups.sort, opened, job.config, observer, reopen=functools.partial(open_session, anywhere.recordings, **anywhere.reader),
        jobs=job.jobs or n_cores(), cluster=job.scheduler and Cluster(job.scheduler), self_test=job.estimate_errors,
    )  # fmt: skip
    write = functools.partial(
        run_into_folder, recorded=recorded, folder=job.folder, overwrite=job.overwrite, observer=observer, facts=facts,
        components=job.save_components,
    )  # fmt: skip
    check_folder(job.folder, job.overwrite)
    if not job.stays:
        return write(work)
    ties = resume.ties(job.request, recorded)
    going_on = job.resume and resume.goes_on(job.folder, ties, job.overwrite, observer)
    try:
        return write(
            functools.partial(work, cache=resume.cache_of(anywhere.folder, ties)),
            prepare=functools.partial(resume.prepare, job.folder, ties, going_on, LOG),
        )
    except BaseException as error:
        if resume.has_learned(job.folder):
            add_remedy(error, resume.how_to_go_on(job.command, "what was learned is kept"))
        raise


def _check_exports(job: Job) -> None:
    """Before a run: whether its result could be written in the formats asked for. Raises OutputError as export does."""
    if not job.exports:
        return
    from spikecrsae.exports.export import FORMATS, check_place

    for kind in job.exports:
        check_place(job.folder / FORMATS[kind].name, kind, job.overwrite)


def _export(job: Job, reopen: Callable, observer: Observer) -> None:
    """Write the finished result in further formats into its folder, all or those that are missing; reopen() gives the
    recording."""
    if not job.exports:
        return
    from spikecrsae.exports.export import default_place, export
    from spikecrsae.run.curated import open_sorting

    for kind in dict.fromkeys(job.exports):
        place = default_place(job.folder, kind)
        if place.exists() and not job.overwrite:
            continue
        observer.start("export")
        with contextlib.closing(reopen()) as opened:
            export(*open_sorting(job.folder), kind, place, opened, job.overwrite)
        observer.finish(str(place))


def run_into_folder(
    run: Callable[[Path | None], Any],
    recorded: dict[str, Any],
    folder: Path,
    overwrite: bool,
    observer: Observer,
    facts: dict[str, Any],
    components: bool = False,
    prepare: Callable[[], None] | None = None,
):
    """Call run(components_path) and write its Outcome, the page and the records into `folder`; returns the Outcome.

    recorded: recording_facts. facts: what the caller adds to run.json. prepare: makes unfinished(folder), if not as usual.
    The caller has reserved the folder. Raises OutputError where it cannot be used. The result is made beside the folder, in
    unfinished(folder), and takes its name at the end: a run that ends early leaves an earlier result as it was, and nothing
    else but what it has learned; after an internal error also run.log, with the traceback.
    """
    from spikecrsae.report.html import report_html
    from spikecrsae.results.model_file import save_checkpoint

    settle(folder)
    check_folder(folder, overwrite)
    work = unfinished(folder)
    check_folder(work, overwrite=True)
    with _discarded_on_failure(work):
        prepare() if prepare else prepare_folder(work, overwrite=True)
        with contextlib.ExitStack() as stack:
            with writing(work / LOG):
                stack.enter_context(logging_to_file(work / LOG))
            began = datetime.now(UTC)
            outcome = run(work / COMPONENTS if components else None)
            observer.start("write")
            told = to_json(facts | record(recorded, outcome, began))
            page = report_html(outcome.sorting, told).encode()
            # before the manifest is closed, so that a run that is killed in between leaves nothing unlisted
            save_checkpoint(outcome.checkpoint, work / MODEL)
            write_result(work, outcome.sorting, told, files={"report.html": page})
            observer.finish(str(folder))
        add_to_manifest(work, [MODEL, LOG, *([COMPONENTS] if components else [])])
        put_in_place(folder, without=(resume.FOLDER,))
    return outcome


@contextlib.contextmanager
def _discarded_on_failure(work: Path) -> Iterator[None]:
    """Take back what the run has put into the folder when it does not end well, but what it has learned."""
    try:
        yield
    except BaseException as error:
        foreseen = isinstance(error, SpikeCRsAEError) or not isinstance(error, Exception)
        learned = work / resume.FOLDER
        stays = {LOG, MANIFEST} if not foreseen or any(learned.glob("*.safetensors")) else set()
        with contextlib.suppress(OSError):
            for path in work.iterdir():
                if path == learned and LOG in stays:
                    continue
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name not in stays:
                    path.unlink()
            work.rmdir()
        raise
