"""What `apply` needs of a sorting: filters, templates, priors. Plain numbers and tensors, so that weights_only=True loads
it."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.errors import InputError
from spikecrsae.system.files import refuse_unreadable, write_atomic

FORMAT_VERSION = 1


def save_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint (nest of dicts and lists of arrays, numbers, text) under a temporary name, then rename. OutputError
    where the place cannot be written."""
    write_atomic(path, [_stored({"format_version": FORMAT_VERSION, **checkpoint})])


def _stored(checkpoint: dict[str, Any]) -> bytes:
    import torch

    file = io.BytesIO()
    torch.save(_to_tensors(checkpoint), file)
    return file.getvalue()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint back, tensors as arrays, tuples as lists. Raises InputError for a missing file, another kind of file
    or version."""
    import torch

    refuse_unreadable(path, "the model.pt of a result folder")
    try:
        _refuse_packed(path)
        loaded = _to_arrays(torch.load(path, map_location="cpu", weights_only=True))
    except OSError as error:
        raise InputError(f"model {path} cannot be read ({error.strerror}); give the model.pt of a result folder.") from error
    except Exception as error:  # what the unpickler meets in a foreign file can be anything
        raise InputError(f"{path} is not a model of this program; give the model.pt of a result folder.") from error
    found = loaded.get("format_version") if isinstance(loaded, dict) else None
    if type(found) is not int or found != FORMAT_VERSION:
        raise InputError(
            f"{path} has model format {found!r:.40}, this program reads {FORMAT_VERSION}; sort the recording again."
        )
    return loaded


def _refuse_packed(path: Path) -> None:
    """Raise ValueError where a file is not what torch.save writes, a zip archive whose members are stored as they are:
    packed ones could unpack to any size."""
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    if any(member.compress_type != zipfile.ZIP_STORED for member in members) or sum(
        member.file_size for member in members
    ) > os.path.getsize(path):
        raise ValueError("its members are packed")


def _to_tensors(value: Any) -> Any:
    import torch

    if isinstance(value, dict):
        return {sys.intern(str(k)): _to_tensors(v) for k, v in value.items()}
    if isinstance(value, str):
        return sys.intern(value)  # pickle writes a text that it has met before otherwise: the same model, the same bytes
    if isinstance(value, list | tuple):
        return [_to_tensors(item) for item in value]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.array(value, order="C"))
    return value.item() if isinstance(value, np.generic) else value


def _to_arrays(value: Any) -> Any:
    import torch

    if isinstance(value, dict):
        return {k: _to_arrays(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_to_arrays(item) for item in value]
    if not isinstance(value, torch.Tensor):
        return value
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        raise ValueError("a tensor is larger than what is stored of it")
    return value.numpy()
