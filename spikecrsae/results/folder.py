"""The result folder: its names, its manifest, and files that appear whole or not at all.

A result is written once. An existing one is replaced only on request, and then only the files that its own manifest
lists are removed. The inside of sorting.h5 is in exports/sorting_h5.py.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from spikecrsae.data.sorting import Sorting
from spikecrsae.errors import InputError, OutputError
from spikecrsae.results.sorting_h5 import sorting_from_hdf5, sorting_to_hdf5
from spikecrsae.results.tables import spikes_csv, units_csv
from spikecrsae.system.files import is_partial, measured, write_atomic, writing
from spikecrsae.system.json_values import to_json
from spikecrsae.system.text import read_text, visible

logger = logging.getLogger(__name__)

SORTING = "sorting.h5"
MODEL = "model.safetensors"
MANIFEST = "manifest.json"
MANIFEST_FORMAT = "spikecrsae result"
MANIFEST_VERSION = 1
_MOST_MANIFEST_MB = 16
#: Every name that a run may write into its folder by itself; reserved when the folder is prepared.
RESULT_FILES = (SORTING, "spikes.csv", "units.csv", "run.json", MODEL, "run.log", "report.html", "components.h5")


def default_result_path(recording_path: str | Path) -> Path:
    """The folder beside the recording: its name with its ending, and .sorted."""
    path = Path(os.path.abspath(recording_path))
    return path.with_name(path.name + ".sorted")


def check_folder(path: str | Path, overwrite: bool = False) -> None:
    """Whether a result may be written to `path`, without touching anything; raises OutputError as `prepare_folder` does."""
    path = Path(path)
    refuse_link(path)
    with writing(path):
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is a file, and the result is a folder; choose another name with -o.")
        if path.exists() and not overwrite:
            raise OutputError(f"{path} exists and is not overwritten; give --overwrite, or another name with -o.")
        if not path.exists() and not path.parent.is_dir():
            if file := next((above for above in path.parents if above.is_file()), None):
                raise OutputError(f"{file} is a file, in which {path} cannot be made; choose another place with -o.")
            raise OutputError(f"the folder {path.parent} does not exist; create it, or choose another place with -o.")
        if path.exists() and not is_empty(path):
            files_of_earlier_result(path)


def refuse_link(path: Path) -> None:
    """Raise OutputError where the name of an output is a symbolic link: what is written would go elsewhere."""
    if path.is_symlink():
        raise OutputError(
            f"{path} is a symbolic link, which is not written through; give the place it leads to, or another -o."
        )


def prepare_folder(path: str | Path, overwrite: bool = False, keep: Collection[str] = ()) -> Path:
    """Make the result folder, with a manifest that reserves the names of RESULT_FILES; returns its path.

    With overwrite, an earlier result's files are removed: those that its manifest lists, without those named in `keep`, and
    nothing else. Raises OutputError where the path exists (without overwrite), is a file, is a folder of something else,
    holds a foreign file under a name that the result needs, or cannot be written.
    """
    path = Path(path)
    check_folder(path, overwrite)
    with writing(path):
        path.mkdir(exist_ok=True)
        if not is_empty(path):
            remove_earlier_result(path, keep=keep)
        write_manifest(path, dict.fromkeys(RESULT_FILES), complete=False)
    return path


def is_empty(path: Path) -> bool:
    """Whether a folder holds nothing but what a killed run has not written to its end."""
    return all(is_partial(entry) for entry in path.iterdir())


def is_complete(path: Path, kind: str) -> bool:
    return (path / MANIFEST).is_file() and bool(_manifest(path, kind)["complete"])


def files_of_earlier_result(path: Path, kind: str = MANIFEST_FORMAT) -> list[Path]:
    """The files that the manifest lists, after everything that could forbid their removal has been looked at."""
    if not (path / MANIFEST).is_file():
        raise OutputError(f"{path} is not empty and has no {MANIFEST}, so it is no result; choose another name with -o.")
    listed = read_manifest(path, kind)
    names = RESULT_FILES if kind == MANIFEST_FORMAT else ()
    foreign = [name for name in names if name not in listed and is_occupied(path / name)]
    if foreign:
        raise OutputError(f"{path} holds {', '.join(foreign)}, not listed in its {MANIFEST}; move that away, or choose -o.")
    return _inside(path, listed)


def _inside(path: Path, listed: Iterable[str]) -> list[Path]:
    """The listed files of a folder. Raises OutputError where one lies elsewhere: a damaged manifest, or a link to a folder
    elsewhere, must not lead a removal out of the folder."""
    root, targets = path.resolve(), [path / name for name in listed]
    for target in targets:
        if not target.parent.resolve().is_relative_to(root) or ".." in target.parts[len(path.parts) :]:
            raise OutputError(
                f"{path / MANIFEST} lists {target}, outside the result; nothing was removed, choose another -o."
            )
    return targets


def remove_earlier_result(path: Path, kind: str = MANIFEST_FORMAT, keep: Collection[str] = ()) -> None:
    targets = files_of_earlier_result(path, kind)
    left_over = [entry for entry in path.iterdir() if is_partial(entry)]
    for target in (*targets, *left_over):
        if target.name not in keep and (target.is_file() or target.is_symlink()):
            target.unlink()
    folders = {folder for target in targets for folder in target.parents if path in folder.parents}
    for folder in sorted(folders, reverse=True):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    logger.info("removed the files of the earlier result in %s", path)


def write_result(
    path: str | Path,
    sorting: Sorting,
    run: Mapping,
    *,
    model_state: bytes | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write sorting.h5, spikes.csv, units.csv, run.json (and model.safetensors, and `files`: name -> content), then the manifest.

    path: a folder from prepare_folder. run: what run.json holds, JSON values, paths and NumPy scalars. Raises OutputError
    where a name is taken by a file that is not the result's own, or the disk is full or not writable.
    """
    path = Path(path)
    run_text = json.dumps(to_json(run), indent=2, ensure_ascii=False) + "\n"
    contents: dict[str, Iterable[bytes]] = {
        SORTING: [sorting_to_hdf5(sorting, run_text)],
        "spikes.csv": spikes_csv(sorting),
        "units.csv": [units_csv(sorting)],
        "run.json": [run_text.encode()],
    }
    if model_state is not None:
        contents[MODEL] = [model_state]
    contents.update({name: [content] for name, content in (files or {}).items()})
    listed = read_manifest(path)
    foreign = [name for name in contents if name not in listed and is_occupied(path / name)]
    if foreign:
        raise OutputError(f"{path} holds {', '.join(foreign)} of other origin, which is not overwritten; choose another -o.")
    with writing(path):
        # reserved first: a run that is killed leaves nothing that the next one takes for somebody else's
        write_manifest(path, {**dict.fromkeys(contents), **listed}, complete=False)
        for name, content in contents.items():
            listed[name] = write_atomic(path / name, content)
        # What else was reserved or added before (run.log, figures) stays listed if it came to exist.
        kept = {name: entry or measured(path / name) for name, entry in listed.items() if (path / name).is_file()}
        write_manifest(path, kept, complete=True)
    return path


def add_to_manifest(path: str | Path, names: Iterable[str | Path]) -> None:
    """List further files of the result (or files that have grown, as run.log), with size and checksum.

    names: relative to the folder, or absolute inside it; a folder stands for all files in it. Raises OutputError for
    one that is missing or lies elsewhere.
    """
    path = Path(path)
    listed = read_manifest(path)
    with writing(path):
        for name in names:
            target = path / name
            found = sorted(f for f in target.rglob("*") if f.is_file()) if target.is_dir() else [target]
            for file in found:
                if not file.is_file() or not file.resolve().is_relative_to(path.resolve()):
                    raise OutputError(f"{file} is no file inside {path}, so the manifest cannot list it.")
                listed[file.resolve().relative_to(path.resolve()).as_posix()] = measured(file)
        write_manifest(path, listed, complete=listed.get(SORTING) is not None)


def is_listed(file: Path) -> bool:
    """Whether the manifest beside a file lists it as part of a result. Raises OutputError where the manifest is damaged."""
    return (file.parent / MANIFEST).is_file() and file.name in read_manifest(file.parent)


def read_sorting(path: str | Path) -> Sorting:
    """The sorting of a result folder, or of a sorting.h5.

    Raises InputError where there is none, its format_version is unknown, or it is damaged (in a folder, also where its
    checksum differs from the manifest).
    """
    path = Path(path)
    file = _sorting_file(path)
    if path.is_dir():
        _check_sum(file)
    return sorting_from_hdf5(file)[0]


def read_run(path: str | Path) -> dict:
    """What run.json holds, from the provenance in sorting.h5. Raises InputError as read_sorting does."""
    return run_of(sorting_from_hdf5(_sorting_file(Path(path)))[1])


def run_of(provenance: str) -> dict:
    """What the provenance in a sorting.h5 says. Raises InputError where it is no run.json."""
    try:
        run = json.loads(provenance)
        if not isinstance(run, dict) or not isinstance(run.get("recording", {}), dict):
            raise ValueError("it is no object with an object `recording`")
        _check_told(run.get("recording", {}))
        return run
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"the provenance in {SORTING} is no run.json ({error or 'nested too deep'}); it is damaged."
        ) from error


def _check_told(recording: Mapping[str, Any]) -> None:
    """Raise ValueError where what leads back to the recording, as far as it is there, is not what it must be."""
    paths, time_range = recording.get("paths", []), recording.get("time_range")
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ValueError("recording.paths is no list of names")
    if not isinstance(recording.get("read_options", {}), dict):
        raise ValueError("recording.read_options is no object")
    if time_range is not None and not (
        isinstance(time_range, list) and len(time_range) == 2 and all(type(n) is int for n in time_range)
    ):
        raise ValueError("recording.time_range is no pair of samples")


def is_finished(path: str | Path) -> bool:
    """Whether a folder holds a result whose run came to its end: what is written last is listed."""
    try:
        manifest = _manifest(Path(path), MANIFEST_FORMAT)
    except OutputError:
        return False
    return bool(manifest["complete"]) and {MODEL, "run.log"} <= set(manifest["files"])


def _json(path: Path) -> Any:
    """What a manifest holds. Raises InputError, OSError or ValueError where it is none."""
    if not path.is_file():
        raise ValueError("it is no file")
    try:
        return json.loads(read_text(path, _MOST_MANIFEST_MB))
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _sorting_file(path: Path) -> Path:
    file = path / SORTING if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file} does not exist; give a result folder of spikecrsae, or its {SORTING}.")
    return file


def _check_sum(file: Path) -> None:
    """Compare with the manifest; a folder without one has nothing to compare with."""
    if not (file.parent / MANIFEST).is_file():
        return
    try:
        entry = read_manifest(file.parent).get(SORTING)
        if entry is not None and measured(file) != entry:
            raise InputError(f"{file} differs from its {MANIFEST}: it is damaged or was changed; sort the recording again.")
    except (OutputError, OSError) as error:
        raise InputError(str(error)) from error


def read_manifest(path: Path, kind: str = MANIFEST_FORMAT) -> dict[str, dict | None]:
    """Name -> size and sha256 (None: reserved by a run that did not finish). Raises OutputError where it is damaged."""
    return dict(_manifest(path, kind)["files"])


def _manifest(path: Path, kind: str) -> dict:
    try:
        manifest = _json(path / MANIFEST)
        if manifest["format"] != kind or manifest["format_version"] != MANIFEST_VERSION:
            raise ValueError("unknown format or version")
        files = dict(manifest["files"])
        if strange := [name for name in files if name != visible(name)]:
            raise ValueError(f"{strange[0]!r} is no name of a file")
        return {"complete": manifest["complete"], "files": files}
    except (InputError, OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{path / MANIFEST} cannot be read ({error}); choose another folder with -o.") from error


def write_manifest(path: Path, files: Mapping[str, dict | None], complete: bool, kind: str = MANIFEST_FORMAT) -> None:
    manifest = {
        "format": kind,
        "format_version": MANIFEST_VERSION,
        "complete": complete,
        "files": dict(sorted(files.items())),
    }
    write_atomic(path / MANIFEST, [(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()])


def is_occupied(path: Path) -> bool:
    """Something is there; a dangling link counts."""
    return path.exists() or path.is_symlink()
