"""--resume: whether a finished result, or what an unfinished run has learned, was made in the same way."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from spikecrsae.config import Config
from spikecrsae.errors import OutputError, SpikeCRsAEError
from spikecrsae.pipeline.device import resolve_device
from spikecrsae.pipeline.memory import within_limit
from spikecrsae.progress import Observer
from spikecrsae.results.folder import ResultFolder, read_run
from spikecrsae.run.record import check_record, library_versions
from spikecrsae.system.json_values import to_json

#: In the folder of what was learned: all that it depends on.
FINGERPRINT = "run.json"
_MAX_SHOWN = 3
#: Entries of run.json that tell one recording from another, and how they are named in a message.
_FILE = {"recording.path", "recording.paths", "recording.bytes", "recording.changed_ns"}
_WORDS = {"recording.bytes": "size in bytes", "recording.changed_ns": "last change"}


def resume_command(command: Sequence[str], why: str) -> str:
    """Say with which command the run of `command` continues."""
    return f"To go on ({why}): {shlex.join(['spikecrsae', *map(str, command[1:]), '--resume'])}"


def fingerprint(request: Mapping[str, Any], recorded: Mapping[str, Any]) -> str:
    """Return, as JSON, all that the learned model depends on: settings, versions of the program and its libraries, device,
    and the recording as it was opened (recording_facts). Export formats and the like do not matter."""
    libraries = library_versions()
    del libraries["platform"]  # that of a kernel, which changes at a restart
    runtime = Config().with_values(request["config"]).runtime
    device = resolve_device(runtime.device, runtime.backend)
    same = {name: request[name] for name in ("task", "spikecrsae", "config", "model", "files") if name in request}
    values = same | {"device": device, "libraries": libraries, "recording": recorded}
    return json.dumps(to_json(values), indent=2, ensure_ascii=False) + "\n"


def can_continue(folder: ResultFolder, now: str, overwrite: bool, observer: Observer) -> bool:
    """Tell whether an unfinished run has learned something under the fingerprint `now`; if not, the observer hears why.

    Raises OutputError where its fingerprint is another, unless it may be overwritten.
    """
    try:
        before = json.loads((folder.learned / FINGERPRINT).read_text(encoding="utf-8")) if folder.has_learned() else None
    except (OSError, ValueError):
        before = None
    if before is None:
        observer.say(f"nothing to resume for {folder.path}, starting from the beginning")
        return False
    found = _differences(_flat(json.loads(now)), _flat(before))
    if found and not overwrite:
        raise OutputError(
            f"--resume does not match: the unfinished run in {folder.unfinished} differs ({found}); leave --resume out to start "
            "from the beginning."
        )
    if found:
        observer.say(f"the unfinished run in {folder.unfinished} differs ({found}), starting from the beginning")
    else:
        observer.say(f"going on with what was learned before, in {folder.unfinished}")
    return not found


def differences_to_result(folder: Path, request: Mapping[str, Any]) -> str:
    """Name the values in which a finished result differs from what was requested (Job.request); empty where none does."""
    try:
        run = read_run(folder)
        check_record(run)
    except (SpikeCRsAEError, OSError, ValueError) as error:
        return str(error)
    recording, config = run["recording"], request["config"]
    if request["task"] == "sort":
        n_channels = len(next(iter(recording["groups"].values()), recording["channels"]))
        config = within_limit(Config().with_values(config), n_channels, recording["sampling_frequency"]).to_dict()
    asked = _flat(to_json({**request, "config": config}))
    done = {name: value for name, value in _flat(run).items() if name in asked or name.startswith("recording.read_options.")}
    return _differences(asked, done)


def _differences(now: Mapping[str, Any], before: Mapping[str, Any]) -> str:
    """Name the first of the values that differ; empty where none does."""
    names = [name for name in sorted(now.keys() | before.keys()) if now.get(name) != before.get(name)]
    told = [f"{_WORDS.get(name, name)} {_value(name, before)}, now {_value(name, now)}" for name in names[:_MAX_SHOWN]]
    text = "; ".join(told + [f"and {len(names) - _MAX_SHOWN} more"] * (len(names) > _MAX_SHOWN))
    return f"the recording is another file or has changed: {text}" if _FILE & set(names) else text


def _value(name: str, values: Mapping[str, Any]) -> Any:
    value = values.get(name, "none")
    if name == "recording.changed_ns" and isinstance(value, int):
        with suppress(OverflowError, ValueError, OSError):
            return datetime.fromtimestamp(value / 1e9).isoformat(" ", "milliseconds")
    return value


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested dicts into one, the names joined by dots; an empty one has no names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
