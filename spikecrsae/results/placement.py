"""Folders with a manifest that take their name when they are whole: results, and what is written for other programs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from spikecrsae.errors import OutputError
from spikecrsae.results.folder import (
    MANIFEST,
    MANIFEST_FORMAT,
    files_of_earlier_result,
    is_complete,
    is_empty,
    is_occupied,
    read_manifest,
    refuse_link,
    remove_earlier_result,
    write_manifest,
)
from spikecrsae.system.files import is_partial, measured, reserved, write_atomic, writing
from spikecrsae.system.processes import signals_later

#: Format of the manifest of a folder in another program's format, which people go on working in.
EXPORT_FORMAT = "spikecrsae export"


def unfinished(path: str | Path) -> Path:
    """Where the folder `path` is made until it is whole: beside it, with .unfinished after its name."""
    path = _home(path)
    return path.with_name(path.name + ".unfinished")


def _replaced(path: Path) -> Path:
    """Where an earlier folder is while the new one takes its place; no name that people give."""
    path = _home(path)
    return path.with_name(f".{path.name}.replaced")


def _home(path: str | Path) -> Path:
    """A folder by a name that others can be made from: not a link to it, not a dot."""
    path = Path(path)
    return path.resolve() if path.is_symlink() or path.name in ("", "..") else path


def put_in_place(path: str | Path, kind: str = MANIFEST_FORMAT, without: Collection[str] = ()) -> None:
    """Give the finished folder unfinished(path) its name; of an earlier one there, what its manifest lists goes, the rest
    stays. Folders named in `without`, in the new one, are removed.

    At every moment, and wherever the process is killed, the earlier folder or the new one is whole; where it is not under its
    name, or has not all files of other origin yet, `settle` puts that right. Raises OutputError where a file of other origin
    bears a name that the new folder needs, or the place cannot be written; then everything is as it was.
    """
    path = _home(path)
    new, old = unfinished(path), _replaced(path)
    with writing(path):
        if path.exists() and not is_empty(path):
            listed = files_of_earlier_result(path, kind)
            _check_names(path, new, {*listed, path / MANIFEST, *(path / name for name in without)})
        with signals_later():
            for name in without:
                if (new / name).exists():
                    shutil.rmtree(new / name)
            if path.exists():
                os.rename(path, old)
            try:
                os.rename(new, path)
            except OSError:
                if old.exists():
                    os.rename(old, path)
                raise
        settle(path, kind)


def settle(path: str | Path, kind: str = MANIFEST_FORMAT) -> None:
    """Complete what a run was killed in while it put a folder in the place of an earlier one at `path`.

    Raises OutputError where a folder of something else bears the name that the earlier one has meanwhile.
    """
    path = _home(path)
    old = _replaced(path)
    with writing(path):
        if not old.exists():
            return
        if not path.exists():
            # neither has its name: the new one was finished before the earlier one lost it
            os.rename(unfinished(path) if is_complete(unfinished(path), kind) else old, path)
        if not old.exists():
            return
        if not is_empty(old):
            remove_earlier_result(old, kind)
        _move_into(old, path)


def _check_names(path: Path, new: Path, listed: Collection[Path]) -> None:
    """Raise OutputError where a file of `new` would take the place of one at `path` that is not listed."""
    wanted = [file.relative_to(new) for file in new.iterdir() if not file.is_dir() or (path / file.name).is_file()]
    foreign = [str(name) for name in wanted if is_occupied(path / name) and path / name not in listed]
    if foreign:
        raise OutputError(f"{path} holds {', '.join(foreign)} of other origin, which is not overwritten; choose another -o.")


def _move_into(source: Path, target: Path) -> None:
    """Move what is in a folder into another one, names that are not there yet, and remove it; the manifest goes last."""
    for entry in sorted(source.iterdir(), key=lambda entry: entry.name == MANIFEST):
        if entry.name == MANIFEST or is_partial(entry):
            entry.unlink()
        elif entry.is_dir() and not entry.is_symlink() and (target / entry.name).is_dir():
            _move_into(entry, target / entry.name)
        else:
            os.replace(entry, target / entry.name)
    source.rmdir()


def changed_files(path: str | Path, kind: str = MANIFEST_FORMAT) -> list[str]:
    """What the manifest lists and is not there as it was written, by name. Raises OutputError where the manifest is damaged."""
    path = Path(path)
    return [n for n, entry in read_manifest(path, kind).items() if not (path / n).is_file() or measured(path / n) != entry]


def check_export(path: str | Path, overwrite: bool = False) -> None:
    """Whether a folder in another program's format may be written to `path`, without touching anything.

    Raises OutputError where it exists (without overwrite), is a file, is a folder of something else, or holds a file that was
    changed since this program wrote it: hand-made curation is never overwritten.
    """
    path = Path(path)
    refuse_link(path)
    if is_occupied(path) and not path.is_dir():
        raise OutputError(f"{path} is a file, and this format is a folder; choose another name with -o.")
    if not path.exists():
        return
    if not overwrite:
        raise OutputError(f"{path} exists and is not overwritten; give --overwrite, or another name with -o.")
    with writing(path):
        if not is_empty(path):
            files_of_earlier_result(path, EXPORT_FORMAT)
        found = [] if is_empty(path) else changed_files(path, EXPORT_FORMAT)
        changed = [name for name in found if (path / name).is_file()]
    if changed:
        raise OutputError(
            f"{path} was worked on since it was written ({', '.join(changed)}) and is not overwritten; choose another -o, or "
            "move it away."
        )


def write_export(path: str | Path, files: Mapping[str, Iterable[bytes]], overwrite: bool = False) -> Path:
    """Write a folder in another program's format, name -> pieces of content, which appears whole or not at all.

    With overwrite, of an earlier one the files that its manifest lists are replaced, and nothing else. Raises OutputError as
    check_export does, and where the disk is full or not writable.
    """
    path = Path(path)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with reserved(path), writing(path):
        settle(path, EXPORT_FORMAT)
        check_export(path, overwrite)
        work = unfinished(path)
        if work.exists():
            _check_left_over(work, EXPORT_FORMAT)
            shutil.rmtree(work)
        try:
            work.mkdir()
            write_manifest(work, dict.fromkeys(files), complete=False, kind=EXPORT_FORMAT)
            listed = {name: write_atomic(work / name, content) for name, content in files.items()}
            write_manifest(work, listed, complete=True, kind=EXPORT_FORMAT)
            put_in_place(path, EXPORT_FORMAT)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return path


def _check_left_over(work: Path, kind: str) -> None:
    """Raise OutputError for a folder that bears the name of an unfinished one and is none that a killed run has left."""
    if not work.is_dir() or not (is_empty(work) or ((work / MANIFEST).is_file() and read_manifest(work, kind))):
        raise OutputError(f"{work} is in the way, it is needed while {work.with_suffix('').name} is written; move it away.")
