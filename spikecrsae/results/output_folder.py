"""A folder with a manifest. What this program writes into it appears whole or not at all; other files are left alone."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, Self

from spikecrsae.errors import InputError, OutputError
from spikecrsae.system.files import is_partial, measured, reserved, write_atomic, writing
from spikecrsae.system.processes import delayed_signals
from spikecrsae.system.text import read_text, visible

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_MANIFEST_VERSION = 1
_MAX_MANIFEST_MB = 16


class OutputFolder:
    """A folder that is made in an unfinished one beside it and takes its name when it is whole.

    Only files that its manifest lists are ever replaced or removed. Every method that writes raises OutputError where the
    disk is full or not writable.
    """

    FORMAT: ClassVar[str]
    #: Names that are listed from the beginning: a killed run leaves nothing unlisted.
    RESERVED: ClassVar[tuple[str, ...]] = ()
    #: Folders that only an unfinished folder has.
    TEMPORARY: ClassVar[tuple[str, ...]] = ()

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def _home(self) -> Path:
        """The path with a name to which others can be added: no link, no dot."""
        return self.path.resolve() if self.path.is_symlink() or self.path.name in ("", "..") else self.path

    @property
    def unfinished(self) -> Path:
        """Where the folder is made: beside it, with .unfinished after its name."""
        return self._home.with_name(self._home.name + ".unfinished")

    @property
    def _replaced(self) -> Path:
        """Where an earlier folder is while the new one takes its name."""
        return self._home.with_name(f".{self._home.name}.replaced")

    # ---- manifest

    def files(self) -> dict[str, dict | None]:
        """Return size and sha256 of every listed file, None for a name that is reserved. Raises OutputError where the
        manifest is missing or damaged."""
        return self._manifest()["files"]

    def lists(self, name: str) -> bool:
        """Tell whether there is a manifest that lists a file. Raises OutputError where it is damaged; use another copy."""
        return self._has_manifest() and name in self.files()

    def changed_files(self) -> list[str]:
        """Return the names of listed files that are missing or were changed."""
        listed = [(name, entry, self.path / name) for name, entry in self.files().items()]
        return [name for name, entry, file in listed if not file.is_file() or measured(file) != entry]

    def add(self, names: Iterable[str | Path]) -> None:
        """List further files, or files that have grown, with size and checksum.

        names: relative to the folder, or absolute inside it; a folder stands for all files in it. Raises OutputError for one
        that is missing or lies elsewhere.
        """
        manifest, root = self._manifest(), self.path.resolve()
        with writing(self.path):
            for target in (self.path / name for name in names):
                for file in sorted(f for f in target.rglob("*") if f.is_file()) if target.is_dir() else [target]:
                    if not file.is_file() or not file.resolve().is_relative_to(root):
                        raise OutputError(
                            f"{file} is no file inside {self.path}, so the manifest cannot list it; write it there."
                        )
                    manifest["files"][file.resolve().relative_to(root).as_posix()] = measured(file)
            self._write_manifest(**manifest)

    def _has_manifest(self) -> bool:
        return (self.path / MANIFEST).is_file()

    def _manifest(self) -> dict[str, Any]:
        """Return `files`, and `complete`: whether all that was to be written is there."""
        file = self.path / MANIFEST
        try:
            if not file.is_file():
                raise ValueError("it is no file")
            manifest = json.loads(read_text(file, _MAX_MANIFEST_MB))
            if manifest["format"] != self.FORMAT or manifest["format_version"] != _MANIFEST_VERSION:
                raise ValueError("unknown format or version")
            files = dict(manifest["files"])
            if strange := [name for name in files if name != visible(name)]:
                raise ValueError(f"{strange[0]!r} is no name of a file")
            return {"files": files, "complete": bool(manifest["complete"])}
        except (InputError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise OutputError(f"{file} cannot be read ({error}); choose another folder with -o.") from error

    def _write_manifest(self, files: Mapping[str, dict | None], complete: bool) -> None:
        manifest = {
            "format": self.FORMAT,
            "format_version": _MANIFEST_VERSION,
            "complete": complete,
            "files": dict(sorted(files.items())),
        }
        write_atomic(self.path / MANIFEST, [(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()])

    # ---- making it

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other runs away, and complete what an earlier one was killed in. Raises OutputError where another run is at
        work in the folder."""
        with reserved(self.path):
            self._recover()
            yield

    def check(self, overwrite: bool = False) -> None:
        """Raise OutputError where the folder may not be written; nothing is touched.

        It exists (without overwrite), is a file or a link, is a folder of something else, or holds a foreign file under a name
        that is needed.
        """
        path = self.path
        refuse_link(path)
        with writing(path):
            if path.exists() and not path.is_dir():
                raise OutputError(f"{path} is a file, where a folder is to be written; choose another name with -o.")
            if path.exists() and not self._is_empty():
                self._removable()  # first: what is no result cannot be overwritten either
            if path.exists() and not overwrite:
                raise OutputError(f"{path} exists and is not overwritten; give --overwrite, or another name with -o.")
            if not path.exists() and not path.parent.is_dir():
                if file := next((above for above in path.parents if above.is_file()), None):
                    raise OutputError(f"{file} is a file, in which {path} cannot be made; choose another place with -o.")
                raise OutputError(f"the folder {path.parent} does not exist; create it, or choose another place with -o.")

    def prepare(self, overwrite: bool = False, keep: Collection[str] = ()) -> Path:
        """Make the folder with a manifest of the reserved names; returns its path. Of an earlier one the listed files and the temporary folders
        are removed, except the names in `keep`. Raises OutputError as `check` does."""
        self.check(overwrite)
        with writing(self.path):
            self.path.mkdir(exist_ok=True)
            if not self._is_empty():
                self._remove(keep)
            for name in self.TEMPORARY:
                if name not in keep and (self.path / name).exists():
                    shutil.rmtree(self.path / name)
            self._write_manifest(dict.fromkeys(self.RESERVED), complete=False)
        return self.path

    @contextmanager
    def replacing(self, overwrite: bool = False, keep: Collection[str] = ()) -> Iterator[Self]:
        """Make the folder anew: yields the unfinished folder, which takes the place of this one at the end.

        keep: names in an unfinished folder of an earlier run that stay. The caller holds the lock. Where an error passes
        through, an earlier folder stays as it was, and the unfinished one is removed. Raises OutputError as `check` does.
        """
        self.check(overwrite)
        work = type(self)(self.unfinished)
        work.check(overwrite=True)
        try:
            work.prepare(overwrite=True, keep=keep)
            yield work
            self._publish()
        except BaseException as error:
            work._discard(keep=work._kept_after(error))
            raise

    def _write_files(self, contents: Mapping[str, Iterable[bytes]]) -> None:
        """Write files, name -> pieces of content, and complete the manifest. Raises OutputError where a name is taken by a
        file that is not listed."""
        listed = self.files()
        foreign = [name for name in contents if name not in listed and is_occupied(self.path / name)]
        if foreign:
            raise OutputError(
                f"{self.path} holds {', '.join(foreign)}, which this program did not write and keeps; move them, or name another place."
            )
        with writing(self.path):
            self._write_manifest({**dict.fromkeys(contents), **listed}, complete=False)
            for name, content in contents.items():
                listed[name] = write_atomic(self.path / name, content)
            # what was reserved or added before stays listed if it came to exist
            written = {n: entry or measured(self.path / n) for n, entry in listed.items() if (self.path / n).is_file()}
            self._write_manifest(written, complete=True)

    def _kept_after(self, error: BaseException) -> Collection[str]:
        """Return the names in this unfinished folder that stay when an error ends the run."""
        return ()

    def _discard(self, keep: Collection[str]) -> None:
        """Remove what can be removed, except the names in `keep`."""
        with suppress(OSError):
            for entry in self.path.iterdir():
                if entry.name not in keep:
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            self.path.rmdir()

    # ---- replacing an earlier one

    def _publish(self) -> None:
        """Give the unfinished folder this name. Of an earlier one listed files are removed, and the rest stays.

        At every moment, and wherever the process is killed, the earlier folder or the new one is whole; `_recover` completes
        what is left to do. Raises OutputError where a foreign file bears a name that the new folder needs, or the place cannot
        be written; then everything is as it was.
        """
        path, new, old = self._home, self.unfinished, self._replaced
        with writing(path):
            if path.exists() and not self._is_empty():
                self._check_names(new)
            with delayed_signals():
                for name in self.TEMPORARY:
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
            self._recover()

    def _recover(self) -> None:
        """Complete a replacement that was interrupted. Raises OutputError where a folder of something else bears the name
        that an earlier folder has meanwhile."""
        path, old, new = self._home, type(self)(self._replaced), type(self)(self.unfinished)
        with writing(path):
            if not old.path.exists():
                return
            if not path.exists():
                # neither has its name: the new one was finished before the earlier one lost it
                is_complete = new._has_manifest() and new._manifest()["complete"]
                os.rename(new.path if is_complete else old.path, path)
            if not old.path.exists():
                return
            if not old._is_empty():
                old._remove()
            _move_into(old.path, path)

    def _check_names(self, new: Path) -> None:
        """Raise OutputError where a file of `new` would take the place of one here that is not listed."""
        own = {*self._removable(), *(self.path / name for name in (MANIFEST, *self.TEMPORARY))}
        needed = [
            self.path / entry.name for entry in new.iterdir() if not entry.is_dir() or (self.path / entry.name).is_file()
        ]
        if foreign := [file.name for file in needed if is_occupied(file) and file not in own]:
            raise OutputError(
                f"{self.path} holds {', '.join(foreign)}, which this program did not write and keeps; choose another -o."
            )

    def _is_empty(self) -> bool:
        """Whether the folder holds nothing but half-written files of a killed run."""
        return all(is_partial(entry) for entry in self.path.iterdir())

    def _removable(self) -> list[Path]:
        """Return the listed files, after everything that could forbid their removal has been looked at.

        A damaged manifest, or a link to a folder elsewhere, must not lead a removal out of the folder.
        """
        path, root = self.path, self.path.resolve()
        if not self._has_manifest():
            raise OutputError(f"{path} is not empty and has no {MANIFEST}, so it is no result; choose another name with -o.")
        listed = self.files()
        if foreign := [name for name in self.RESERVED if name not in listed and is_occupied(path / name)]:
            raise OutputError(
                f"{path} holds {', '.join(foreign)}, not listed in its {MANIFEST}; move that away, or choose another -o."
            )
        targets = [path / name for name in listed]
        for target in targets:
            if not target.parent.resolve().is_relative_to(root) or ".." in target.parts[len(path.parts) :]:
                raise OutputError(
                    f"{path / MANIFEST} lists {target}, outside the result; nothing was removed, choose another -o."
                )
        return targets

    def _remove(self, keep: Collection[str] = ()) -> None:
        """Remove listed and half-written files, and folders that are empty then."""
        targets = self._removable()
        half_written = [entry for entry in self.path.iterdir() if is_partial(entry)]
        for target in (*targets, *half_written):
            if target.name not in keep and (target.is_file() or target.is_symlink()):
                target.unlink()
        folders = {folder for target in targets for folder in target.parents if self.path in folder.parents}
        for folder in sorted(folders, reverse=True):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        logger.info("removed the files of an earlier run in %s", self.path)


def refuse_link(path: Path) -> None:
    """Raise OutputError where the name of an output is a symbolic link: what is written would go elsewhere."""
    if path.is_symlink():
        raise OutputError(
            f"{path} is a symbolic link, which is not written through; give the place it leads to, or another -o."
        )


def is_occupied(path: Path) -> bool:
    """Tell whether something is there; a dangling link counts."""
    return path.exists() or path.is_symlink()


def _move_into(source: Path, target: Path) -> None:
    """Move the content of a folder into another one, to names that are not there yet, and remove it; the manifest is last."""
    for entry in sorted(source.iterdir(), key=lambda entry: entry.name == MANIFEST):
        if entry.name == MANIFEST or is_partial(entry):
            entry.unlink()
        elif entry.is_dir() and not entry.is_symlink() and (target / entry.name).is_dir():
            _move_into(entry, target / entry.name)
        else:
            os.replace(entry, target / entry.name)
    source.rmdir()
