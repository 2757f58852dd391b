"""What `apply` needs of a sorting: filters, templates, priors. Plain numbers and tensors, so that weights_only=True loads it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from spikecrsae.errors import InputError
from spikecrsae.files import refuse_unreadable
from spikecrsae.results import write_atomic

FORMAT_VERSION = 1


def save_checkpoint(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a checkpoint (nested dict of arrays, numbers, text) under a temporary name, then rename. OutputError where the
    place cannot be written."""
    import torch

    file = io.BytesIO()
    torch.save(_to_tensors({"format_version": FORMAT_VERSION, **checkpoint}), file)
    write_atomic(path, [file.getvalue()])


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint back, tensors as arrays. Raises InputError for a missing file, another kind of file or version."""
    import torch

    refuse_unreadable(path, "the model.pt of a result folder")
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"model {path} cannot be read ({error.strerror}); give the model.pt of a result folder.") from error
    except Exception as error:  # what the unpickler meets in a foreign file can be anything
        raise InputError(f"{path} is not a model of this program; give the model.pt of a result folder.") from error
    if not isinstance(loaded, dict) or loaded.get("format_version") != FORMAT_VERSION:
        found = loaded.get("format_version") if isinstance(loaded, dict) else None
        raise InputError(f"{path} has model format {found}, this program reads {FORMAT_VERSION}; sort the recording again.")
    return _to_arrays(loaded)


def _to_tensors(value: Any) -> Any:
    import torch

    if isinstance(value, dict):
        return {str(k): _to_tensors(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return torch.from_numpy(np.ascontiguousarray(value))
    return value.item() if isinstance(value, np.generic) else value


def _to_arrays(value: Any) -> Any:
    import torch

    if isinstance(value, dict):
        return {k: _to_arrays(v) for k, v in value.items()}
    return value.numpy() if isinstance(value, torch.Tensor) else value
