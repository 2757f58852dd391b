"""The content of run.json: the recording, how it was read, and with what it was sorted."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spikecrsae.config import Config
from spikecrsae.data.artefacts import summary
from spikecrsae.data.recording import Recording
from spikecrsae.data.sorting import SortingData
from spikecrsae.errors import UsageError
from spikecrsae.readers.read_options import ReadOptions, with_side_file
from spikecrsae.results.model_file import load_checkpoint
from spikecrsae.system.files import measured
from spikecrsae.system.json_values import to_json

if TYPE_CHECKING:
    from spikecrsae.pipeline.outcome import Outcome

#: What every run.json holds at least, with its type; that of `apply` also names the model.
_LAYOUT: dict[str, Any] = {
    "task": str,
    "config": dict,
    "device": str,
    "stage_seconds": dict,
    "warnings": list,
    "libraries": dict,
    "options": {"estimate_errors": bool, "save_components": bool, "exports": list},
    "recording": {
        "checksum": str,
        "paths": list,
        "read_options": dict,
        "n_samples": int,
        "sampling_frequency": (int, float),
        "start_time_s": (int, float),
        "channels": list,
        "groups": dict,
        "time_range": (list, type(None)),
        "gain": object,
        "offset": object,
        "amplitude_unit": str,
    },
}
_MODEL_LAYOUT = {"model": {"path": str, "sha256": str}}
_LIBRARIES = ("torch", "numpy", "scipy", "h5py", "neo", "scikit-learn", "numba", "safetensors", "matplotlib")


def record(facts: dict[str, Any], outcome: Outcome, began: datetime) -> dict[str, Any]:
    """Return what run.json holds. facts: what is known before the run: task, command, options, and `recording`, see
    recording_facts."""
    sorting = outcome.sorting
    return facts | {
        "spikecrsae": version("spikecrsae"),
        "began": began.isoformat(timespec="seconds"),
        "seconds": (datetime.now(UTC) - began).total_seconds(),
        "recording": facts["recording"] | {"checksum": outcome.input_checksum},
        "config": outcome.config.to_dict(),
        "seed": outcome.config.runtime.seed,
        "device": outcome.device,
        "stage_seconds": outcome.stage_seconds,
        "warnings": outcome.warnings,
        "excluded_s": sorting.timeline.intervals_s(sorting.excluded).tolist(),
        "artefacts": summary(sorting.artefacts, sorting.timeline),
        "libraries": library_versions(),
        "spikes_sha256": spikes_digest(sorting),
    }


def recording_facts(recording: Recording, paths: Sequence[Path], reader: dict[str, Any]) -> dict[str, Any]:
    """Describe a recording for run.json: where it is, how it was read, and what was read of it. paths: its files, if any."""
    return {
        "path": os.path.abspath(paths[0]) if paths else str(recording.source),
        "paths": [os.path.abspath(path) for path in paths],
        "read_options": read_options(paths, reader),
        **file_state(paths),
        "format": recording.format,
        "n_samples": recording.n_samples,
        "sampling_frequency": recording.sampling_frequency,
        "start_time_s": recording.start_time_s,
        "channels": recording.channel_ids,
        "channel_numbers": recording.channels,
        "groups": {name: [recording.channel_ids[c] for c in members] for name, members in recording.groups.items()},
        "time_range": recording.time_range,
        "files": [asdict(part) for part in recording.parts],
        "dtype": recording.dtype,
        "gain": recording.gain,
        "offset": recording.offset,
        "amplitude_unit": recording.amplitude_unit,
        "notes": recording.notes,
    }


def model_facts(file: Path) -> dict[str, str]:
    """Describe the file of a model for run.json. Raises InputError where it is none."""
    load_checkpoint(file)
    return {"path": str(file.absolute()), "sha256": measured(file)["sha256"]}


def given_files(config: Config) -> dict[str, str]:
    """The SHA-256 of each file of times that the configuration names, by its path. Raises InputError where one cannot be read."""
    words = [
        *config.preprocess.exclude_s.split(","),
        config.preprocess.triggers,
        config.preprocess.triggers.rpartition(":")[0],
    ]
    files = [Path(word) for word in words if word and os.path.isfile(word)]
    return {str(file): measured(file)["sha256"] for file in files}


def check_record(values: Any) -> None:
    """Raise ValueError, naming the entry, where a run.json is incomplete or was changed so that the run cannot be
    understood."""
    from spikecrsae.exports.export import FORMATS

    _check(values, _LAYOUT, "it")
    if values["task"] not in ("sort", "apply"):
        raise ValueError(f"task is {values['task']!r:.60}, must be sort or apply")
    if values["task"] == "apply":
        _check(values, _MODEL_LAYOUT, "it")
    recording, exports = values["recording"], values["options"]["exports"]
    if not recording["paths"] or not all(isinstance(path, str) and path for path in recording["paths"]):
        raise ValueError(f"recording.paths is {recording['paths']!r:.60}, must be names of files")
    if not all(isinstance(kind, str) and kind in FORMATS for kind in exports):
        raise ValueError(f"options.exports is {exports!r:.60}, must be of {', '.join(FORMATS)}")
    for name in ("metadata", "columns"):
        if not isinstance(values["options"].get(name, ""), str):
            raise ValueError(f"options.{name} is {values['options'][name]!r:.60}, must be a text")
    for name, channels in {"channels": recording["channels"], **recording["groups"]}.items():
        if not isinstance(channels, list) or not channels:
            raise ValueError(f"recording.{name} is {channels!r:.60}, must be a list of channels")
    if recording["sampling_frequency"] <= 0:
        raise ValueError(f"recording.sampling_frequency is {recording['sampling_frequency']}, must be above 0")
    try:
        ReadOptions(**recording["read_options"])
        Config().with_values(values["config"], origin="config")
    except (TypeError, UsageError) as error:
        raise ValueError(f"recording.read_options or config: {error}") from error


def _check(values: Any, layout: Mapping[str, Any], place: str) -> None:
    if not isinstance(values, dict):
        raise ValueError(f"{place} is {values!r:.60}, must be an object")
    for name, kind in layout.items():
        where = name if place == "it" else f"{place}.{name}"
        if name not in values:
            raise ValueError(f"{where} is missing")
        if isinstance(kind, dict):
            _check(values[name], kind, where)
        elif not isinstance(values[name], kind):
            raise ValueError(f"{where} is {values[name]!r:.60}, which is of another type than it must have")


def read_options(paths: Sequence[Path], reader: dict[str, Any]) -> dict[str, Any]:
    """Return the options with which a recording is opened, as JSON values; files with their full path. Those of the side file are
    included where the recording is one file; each file of a session has its own."""
    options = ReadOptions(**reader)
    if len(paths) == 1:
        options = with_side_file(Path(paths[0]), options)
    given = {
        name: os.path.abspath(str(value)) if names_a_file(name, value) else value for name, value in options.given().items()
    }
    return to_json(given)


def names_a_file(option: str, value: Any) -> bool:
    """Tell whether the value of an option is the name of a file; --groups takes a list of channels as well."""
    return option == "probe" or (option == "groups" and os.path.isfile(value))


def file_state(paths: Sequence[Path]) -> dict[str, int]:
    """Return size and time of the last change of files, or of all files in folders: cheap to compare."""
    files = [file for path in map(Path, paths) for file in (path, *(path.rglob("*") if path.is_dir() else ()))]
    states = [file.stat() for file in files if file.is_file()]
    return {
        "bytes": sum(state.st_size for state in states),
        "changed_ns": max((state.st_mtime_ns for state in states), default=0),
    }


def spikes_digest(sorting: SortingData) -> str:
    """Return the SHA-256 of the sorting's spikes.csv."""
    from spikecrsae.results.tables import spikes_csv

    digest = hashlib.sha256()
    for piece in spikes_csv(sorting):
        digest.update(piece)
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Return the versions of everything that has a part in the numbers."""
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions
