"""A folder in the format of another program, in which people go on working."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from spikecrsae.errors import OutputError
from spikecrsae.results.output_folder import OutputFolder
from spikecrsae.system.files import writing


class ExportFolder(OutputFolder):
    """An OutputFolder that is not replaced after somebody has worked in it: curation by hand is never lost."""

    FORMAT = "spikecrsae export"

    def check(self, overwrite: bool = False) -> None:
        """As for any OutputFolder; raises OutputError also where a file was changed since this program wrote it."""
        if not self.path.parent.is_dir():
            return  # `write` makes it
        super().check(overwrite)
        with writing(self.path):
            whole = self._has_manifest() and self._manifest()["complete"]
            changed = [name for name in self.changed_files() if (self.path / name).is_file()] if whole else []
        if changed:
            raise OutputError(
                f"{self.path} was changed after it was written ({', '.join(changed)}) and is not overwritten; choose "
                "another -o, "
                "or move it away."
            )

    def is_export(self) -> bool:
        """Tell whether an export was written here."""
        with suppress(OutputError):
            return self._has_manifest() and bool(self._manifest())
        return False

    def write(self, files: Mapping[str, Iterable[bytes]], overwrite: bool = False) -> Path:
        """Write the folder, name -> pieces of content, whole or not at all; returns its path. Raises OutputError as `check`
        does."""
        with writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.lock(), self.replacing(overwrite) as work:
            work._write_files(files)
        return self.path


def exports_in(folder: Path) -> list[str]:
    """Return the names of the exports that are folders inside `folder`, or inside a folder of it."""
    if not folder.is_dir():
        return []
    with writing(folder):
        places = [*folder.glob("*/manifest.json"), *folder.glob("*/*/manifest.json")]
        return sorted({f.parent.relative_to(folder).parts[0] for f in places if ExportFolder(f.parent).is_export()})
