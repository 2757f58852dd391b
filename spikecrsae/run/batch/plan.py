"""Which recordings a batch has, where their results go, and which of them are there already."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from spikecrsae.errors import InputError, OutputError
from spikecrsae.exports.export import FORMATS
from spikecrsae.results.folder import MANIFEST, check_folder, is_finished
from spikecrsae.run.batch.result import SUMMARY_CSV, SUMMARY_JSON
from spikecrsae.run.job import Job
from spikecrsae.run.resume import differences_to_result
from spikecrsae.system.safe_hdf5 import folders_below

#: Names in the folder of a batch that no recording's result can have.
_TAKEN = (".", "..", SUMMARY_CSV, SUMMARY_JSON)


def find_recordings(words: Sequence[str]) -> list[Path]:
    """The recordings that file names and patterns (`data/*.nwb`, `**` for folders at any depth) name, each once.

    A word that exists is taken as it is; what a pattern finds is sorted, without side files (.toml) and results.
    Raises InputError for a pattern that finds nothing; a missing file stays, and fails by itself.
    """
    found: dict[str, Path] = {}
    for word in words:
        matches = [word]
        if not os.path.exists(word) and glob.has_magic(word):
            matches = [path for path in sorted(set(_matching(word))) if _may_be_recording(path)]
            if not matches:
                raise InputError(
                    f"{word} finds no recording; correct the pattern, and quote it so that it comes here whole."
                )
        for match in matches:
            found.setdefault(os.path.realpath(match), Path(match))
    return list(found.values())


def _matching(pattern: str) -> Iterator[str]:
    """What a pattern finds. `**` is every folder below, each once: links that go round in a circle would make no end of it."""
    before, stars, after = pattern.partition("**")
    whole_part = (not before or before.endswith("/")) and (not after or after.startswith("/"))
    if not stars or not whole_part:
        yield from glob.glob(pattern)
        return
    for place in glob.glob(before) if before else ["."]:
        for folder in folders_below(place):
            yield from _matching(os.path.join(glob.escape(folder), after.lstrip("/") or "*"))


def _may_be_recording(path: str) -> bool:
    """False for a side file and for a result, which patterns meet as well."""
    return not path.endswith(".toml") and not os.path.exists(os.path.join(path, MANIFEST))


def result_names(recordings: Sequence[Path]) -> list[str]:
    """A folder name for each recording: its own without its ending; where several share that, with the ending, or with as
    many of the folders above it as tell them apart."""
    full = [Path(os.path.abspath(path)) for path in recordings]
    # the stem of "...h5" is "..", and names of the summary are taken
    plain_names = [path.name if path.is_dir() or path.stem in _TAKEN else path.stem for path in full]
    depth = max((len(path.parts) for path in full), default=0)
    ways = [plain_names, [path.name for path in full]]
    ways += [
        ["_".join((*p.parts[1:-1][-n:], name)) for p, name in zip(full, plain_names, strict=True)] for n in range(1, depth)
    ]
    names = ways[0]
    for way in ways[1:]:
        shared = {name for name, count in Counter(names).items() if count > 1}
        names = [other if name in shared else name for name, other in zip(names, way, strict=True)]
    again = [names[:k].count(name) for k, name in enumerate(names)]
    return [f"{name}-{count + 1}" if count else name for name, count in zip(names, again, strict=True)]


def plan_jobs(jobs: Sequence[Job], *, resume: bool) -> tuple[list[Job], list[Job]]:
    """The jobs that are to be done, and those whose result is there already (with resume).

    With resume a finished result stays where the same recording (path, size, time of change) was sorted with the same
    options and settings by the same version, and an unfinished one goes on; what a killed run left otherwise is replaced.
    Raises OutputError where a result would have to be overwritten and overwrite is not set in its job; nothing has been done
    by then.
    """
    todo, kept, in_the_way = [], [], []
    for job in jobs:
        if is_finished(job.folder):
            alike = resume and not differences_to_result(job.folder, job.request)
            if alike and all((job.folder / FORMATS[kind].name).exists() for kind in job.exports):
                kept.append(job)
                continue
            if not job.overwrite and not alike:
                in_the_way.append(job.folder)
        else:
            job = replace(job, overwrite=True)
            check_folder(job.folder, overwrite=True)
        todo.append(replace(job, resume=resume))
    if in_the_way:
        many = f"{len(in_the_way)} results are" if len(in_the_way) > 1 else "1 result is"
        why = "made otherwise (recording, settings or version)" if resume else "there already"
        remedy = "--overwrite" if resume else "--resume to keep what was made alike, --overwrite to make all anew"
        raise OutputError(f"{many} {why}: {in_the_way[0]}{' ...' * (len(in_the_way) > 1)}; give {remedy}, or another -o.")
    return todo, kept
