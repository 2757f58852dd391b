"""Files that a command adds to a result, or writes elsewhere: curves and figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spikecrsae.errors import OutputError
from spikecrsae.results.folder import MANIFEST, SORTING, add_to_manifest, is_occupied, read_manifest, refuse_link
from spikecrsae.system.files import write_atomic


def write_added(folder: Path, contents: Mapping[str, bytes], result: Path, overwrite: bool = False) -> list[Path]:
    """Write files into `folder` by their names; return their paths.

    A file inside the result folder `result` is listed in its manifest, and replaced if it is listed there. Another file is
    replaced with `overwrite` only. Raises OutputError if one exists, or cannot be written; then none is written.
    """
    refuse_link(folder)
    is_result = (result / SORTING).is_file() and (result / MANIFEST).is_file()
    inside = is_result and folder.resolve().is_relative_to(result.resolve())
    listed = read_manifest(result) if inside else {}
    names = {name: (folder / name).resolve().relative_to(result.resolve()).as_posix() if inside else "" for name in contents}
    foreign = [name for name in contents if is_occupied(folder / name) and names[name] not in listed]
    if foreign and not overwrite:
        raise OutputError(f"{folder} holds {', '.join(foreign)}, which is not overwritten; choose another folder.")
    for name, content in contents.items():
        write_atomic(folder / name, [content])
    if inside:
        add_to_manifest(result, names.values())
    return [folder / name for name in contents]
