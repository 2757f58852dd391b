"""What run.json says of a run: the recording, how it was read, and with what it was sorted."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from spikecrsae.intervals import seconds
from spikecrsae.plain import plain
from spikecrsae.readers.options import ReadOptions, with_side_file

_LIBRARIES = ("torch", "numpy", "scipy", "h5py", "neo", "scikit-learn", "numba", "isosplit6", "matplotlib")


def record(facts: dict[str, Any], outcome, began: datetime) -> dict[str, Any]:
    """What every run.json holds; facts: those of the recording, see recording_facts."""
    sorting = outcome.sorting
    return {
        "spikecrsae": version("spikecrsae"),
        "began": began.isoformat(timespec="seconds"),
        "seconds": (datetime.now(UTC) - began).total_seconds(),
        "recording": facts | {"checksum": outcome.input_checksum},
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
    given = {name: os.path.abspath(value) if names_a_file(name, value) else value for name, value in options.given().items()}
    return plain(given)


def names_a_file(option: str, value: Any) -> bool:
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
