"""What --resume asks: whether a result, or what an unfinished run has learned, is of the same making."""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikecrsae.config import Config
from spikecrsae.errors import OutputError, SpikeCRsAEError
from spikecrsae.pipeline.device import resolve_device
from spikecrsae.pipeline.memory import within_limit
from spikecrsae.progress import Observer
from spikecrsae.results.folder import prepare_folder, read_run
from spikecrsae.results.placement import unfinished
from spikecrsae.run.record import check_record, library_versions
from spikecrsae.system.files import write_atomic, writing
from spikecrsae.system.json_values import to_json

if TYPE_CHECKING:
    from spikecrsae.pipeline.learned import LearnedCache

#: In an unfinished result: what was learned, and what it is tied to.
FOLDER, _TIES = "resume", "run.json"
_SHOWN = 3


def differences_to_result(folder: Path, request: Mapping[str, Any]) -> str:
    """In which respects a finished result is not what was requested (Job.request); empty where it is that."""
    try:
        run = read_run(folder)
        check_record(run)
    except (SpikeCRsAEError, OSError, ValueError) as error:
        return str(error)
    recording = run["recording"]
    n_channels = len(next(iter(recording["groups"].values()), recording["channels"]))
    config = Config().with_values(request["config"])
    limited = within_limit(config, n_channels, recording["sampling_frequency"]).to_dict()
    asked = _flat(to_json({**request, "config": limited}))
    return _told(asked, {name: value for name, value in _flat(run).items() if name in asked})


def ties(request: Mapping[str, Any], recorded: Mapping[str, Any]) -> dict[str, Any]:
    """All that what is learned depends on: settings, version of the program and of its libraries, device, and the recording
    as it was opened (recording_facts). Further formats and the like do not matter."""
    libraries = library_versions()
    del libraries["platform"]  # that of a kernel, which changes at a restart
    config = Config().with_values(request["config"])
    return to_json(
        {
            "spikecrsae": request["spikecrsae"],
            "config": request["config"],
            "device": resolve_device(config.runtime.device),
            "libraries": libraries,
            "recording": recorded,
        }
    )


def has_learned(folder: Path) -> bool:
    """Whether an unfinished run has left what it has learned, beside the result folder `folder`."""
    return any((unfinished(folder) / FOLDER).glob("*.safetensors"))


def goes_on(folder: Path, now: Mapping[str, Any], overwrite: bool, observer: Observer) -> bool:
    """Whether the unfinished run beside `folder` has the ties `now` and has learned something; what not, is said.

    Raises OutputError where it has other ties, unless it may be overwritten.
    """
    work = unfinished(folder)
    try:
        before = json.loads((work / FOLDER / _TIES).read_text(encoding="utf-8")) if has_learned(folder) else None
    except (OSError, ValueError):
        before = None
    if before is None:
        observer.say(f"nothing to resume for {folder}, it is sorted from the beginning")
        return False
    found = _told(_flat(now), _flat(before))
    if found and not overwrite:
        raise OutputError(
            f"--resume does not match: the unfinished run in {work} was made otherwise ({found}); leave --resume out to sort from "
            "the beginning."
        )
    if found:
        observer.say(f"the unfinished run in {work} was made otherwise ({found}), it is sorted from the beginning")
    else:
        observer.say(f"going on with what was learned before, in {work}")
    return not found


def cache_of(folder: Path, now: Mapping[str, Any]) -> LearnedCache:
    """Return the cache for what a run with the ties `now` learns, in the unfinished folder beside `folder`."""
    from spikecrsae.pipeline.learned import LearnedCache  # which loads all that sorts

    return LearnedCache(unfinished(folder) / FOLDER, hashlib.sha256(_text(now)).hexdigest())


def prepare(folder: Path, now: Mapping[str, Any], going_on: bool, log: str) -> None:
    """Make the unfinished folder beside `folder` ready for a run with the ties `now`.

    going_on: keep what was learned, and the file `log`. Raises OutputError where it cannot be written.
    """
    work = unfinished(folder)
    prepare_folder(work, overwrite=True, keep=(log,) if going_on else ())
    with writing(work):
        if not going_on and (work / FOLDER).exists():
            shutil.rmtree(work / FOLDER)
    write_atomic(work / FOLDER / _TIES, [_text(now)])


def _text(now: Mapping[str, Any]) -> bytes:
    return (json.dumps(now, indent=2, ensure_ascii=False) + "\n").encode()


def how_to_go_on(command: Sequence[str], what: str) -> str:
    """A sentence with the command that goes on where the run of `command` was stopped."""
    return f"To go on ({what}): {shlex.join(['spikecrsae', *map(str, command[1:]), '--resume'])}"


def _told(now: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """The first of the values that differ, in words; empty where none does."""
    names = [name for name in sorted(now.keys() | before.keys()) if now.get(name) != before.get(name)]
    told = [f"{name} {before.get(name, 'none')}, now {now.get(name, 'none')}" for name in names[:_SHOWN]]
    return "; ".join(told + [f"and {len(names) - _SHOWN} more"] * (len(names) > _SHOWN))


def _flat(values: Mapping[str, Any], under: str = "") -> dict[str, Any]:
    """A nest of dicts as one, the names joined by dots."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat |= _flat(value, f"{under}{name}.")
        else:
            flat[under + name] = value
    return flat
