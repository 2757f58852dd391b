"""The result folder: its files, how a run makes it, and how it is read back. The inside of sorting.h5 is in sorting_h5.py."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from spikecrsae.data.sorting import SortingData
from spikecrsae.errors import InputError, OutputError, SpikeCRsAEError
from spikecrsae.results.output_folder import MANIFEST, OutputFolder, is_occupied, refuse_link
from spikecrsae.results.sorting_h5 import sorting_from_hdf5, sorting_to_hdf5
from spikecrsae.results.tables import artefacts_csv, spikes_csv, units_csv
from spikecrsae.system.files import measured, write_atomic
from spikecrsae.system.json_values import to_json

SORTING, MODEL, LOG, COMPONENTS, REPORT = "sorting.h5", "model.safetensors", "run.log", "components.h5", "report.html"
#: Folder in an unfinished result: what its run has learned, from which --resume continues.
RESUME = "resume"


class ResultFolder(OutputFolder):
    """The folder of a run: an OutputFolder with the files of a sorting."""

    FORMAT = "spikecrsae result"
    RESERVED = (SORTING, "spikes.csv", "units.csv", "artefacts.csv", "run.json", MODEL, LOG, REPORT, COMPONENTS)
    TEMPORARY = (RESUME,)

    @property
    def learned(self) -> Path:
        """The folder for what an unfinished run has learned."""
        return self.unfinished / RESUME

    def has_learned(self) -> bool:
        """Tell whether an unfinished run has left what it has learned."""
        return _has_models(self.learned)

    def is_finished(self) -> bool:
        """Tell whether the run came to its end: the files that are written last are listed."""
        with suppress(OutputError):
            manifest = self._manifest()
            return manifest["complete"] and {MODEL, LOG} <= set(manifest["files"])
        return False

    def write(self, sorting: SortingData, run: Mapping, files: Mapping[str, bytes] | None = None) -> None:
        """Write sorting.h5, spikes.csv, units.csv, artefacts.csv where there are any, run.json and `files` (name -> content), then the manifest.

        run: what run.json holds, see to_json. Raises OutputError where a name is taken by a file that is not listed.
        """
        run_text = json.dumps(to_json(run), indent=2, ensure_ascii=False) + "\n"
        contents: dict[str, Iterable[bytes]] = {
            SORTING: [sorting_to_hdf5(sorting, run_text)],
            "spikes.csv": spikes_csv(sorting),
            "units.csv": [units_csv(sorting)],
            "run.json": [run_text.encode()],
        }
        if len(sorting.artefacts):
            contents["artefacts.csv"] = [artefacts_csv(sorting)]
        self._write_files(contents | {name: [content] for name, content in (files or {}).items()})

    def write_extra(self, folder: Path, contents: Mapping[str, bytes], overwrite: bool = False) -> list[Path]:
        """Write further files (name -> content) into `folder`: this one, one inside it, or one elsewhere; return their paths.

        A file in this result is listed in its manifest, and replaced if it is listed there. Another one is replaced with
        `overwrite` only. Raises OutputError as check_extra does, or if one cannot be written; then none is written.
        """
        inside = self._is_inside(folder)
        self.check_extra(folder, contents, overwrite)
        for name, content in contents.items():
            write_atomic(folder / name, [content])
        if inside:
            self.add(folder.absolute() / name for name in contents)
        return [folder / name for name in contents]

    def check_extra(
        self, folder: Path, names: Iterable[str], overwrite: bool = False, remedy: str = "choose another folder"
    ) -> None:
        """Raise OutputError where write_extra could not write these names into `folder`; remedy: what to do where some exist."""
        refuse_link(folder)
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} is a file, where a folder is to be written; choose another name.")
        listed = [self.path.resolve() / name for name in self.files()] if self._is_inside(folder) else []
        foreign = [n for n in names if is_occupied(folder / n) and folder.resolve() / n not in listed]
        if foreign and not overwrite:
            raise OutputError(f"{folder} holds {', '.join(foreign)} already; {remedy}.")

    def _is_inside(self, folder: Path) -> bool:
        return self.lists(SORTING) and folder.resolve().is_relative_to(self.path.resolve())

    def _kept_after(self, error: BaseException) -> Collection[str]:
        """Keep what was learned and the log; where nothing was learned, the log of an internal error only."""
        foreseen = isinstance(error, SpikeCRsAEError) or not isinstance(error, Exception)
        return (RESUME, LOG, MANIFEST) if _has_models(self.path / RESUME) or not foreseen else ()


def _has_models(folder: Path) -> bool:
    return any(folder.glob("*.safetensors"))


def default_result_path(*files: str | Path) -> Path:
    """Name the folder beside a recording: its name with its ending, and .sorted. Of several files: beside the first, with the names
    of the first and the last."""
    first, last = (Path(os.path.abspath(files[k])) for k in (0, -1))
    return first.parent / (f"{first.name}.sorted" if len(files) == 1 else f"{first.name}-{last.name}.sorted")


def read_sorting(path: str | Path) -> SortingData:
    """Read the sorting of a result folder, or of a sorting.h5.

    Raises InputError where there is none, its format_version is unknown, or it is damaged (in a folder, also where its
    checksum differs from the manifest).
    """
    return _read(path)[0]


def read_result(path: str | Path) -> tuple[SortingData, dict]:
    """Read the sorting and what run.json holds, and open sorting.h5 only once. Raises InputError as read_sorting does."""
    sorting, provenance = _read(path)
    return sorting, run_of(provenance)


def _read(path: str | Path) -> tuple[SortingData, str]:
    """Read the sorting and the provenance in its file, after a look at the checksum where `path` is a folder."""
    path = Path(path)
    file = _sorting_file(path)
    if path.is_dir():
        _check_sum(file)
    return sorting_from_hdf5(file)


def read_run(path: str | Path) -> dict:
    """Read what run.json holds, from the provenance in sorting.h5. Raises InputError as read_sorting does."""
    return run_of(sorting_from_hdf5(_sorting_file(Path(path)))[1])


def run_of(provenance: str) -> dict:
    """Parse the provenance in a sorting.h5. Raises InputError where it is no run.json."""
    try:
        run = json.loads(provenance)
        if not isinstance(run, dict) or not isinstance(run.get("recording", {}), dict):
            raise ValueError("it is no object with an object `recording`")
        _check_recording(run.get("recording", {}))
        return run
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"the provenance in {SORTING} is no run.json ({error or 'nested too deep'}); it is damaged; use another copy."
        ) from error


def _check_recording(recording: Mapping[str, Any]) -> None:
    """Raise ValueError where an entry that leads back to the recording is there and is of another kind than it must be."""
    paths, time_range = recording.get("paths", []), recording.get("time_range")
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ValueError("recording.paths is no list of names")
    if not isinstance(recording.get("read_options", {}), dict):
        raise ValueError("recording.read_options is no object")
    if time_range is not None and not (
        isinstance(time_range, list) and len(time_range) == 2 and all(type(n) is int for n in time_range)
    ):
        raise ValueError("recording.time_range is no pair of samples")


def _sorting_file(path: Path) -> Path:
    file = path / SORTING if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"{file} does not exist; give a result folder of spikecrsae, or its {SORTING}.")
    return file


def _check_sum(file: Path) -> None:
    """Raise InputError where the file differs from its manifest; without a manifest there is nothing to compare with."""
    folder = ResultFolder(file.parent)
    try:
        entry = folder.files()[file.name] if folder.lists(file.name) else None
        if entry is not None and measured(file) != entry:
            raise InputError(f"{file} differs from its {MANIFEST}: it is damaged or was changed; sort the recording again.")
    except (OutputError, OSError) as error:
        raise InputError(str(error)) from error
