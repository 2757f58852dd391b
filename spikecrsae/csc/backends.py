"""Which backend does the encoder's and the M-step's heavy work: numba on a CPU, torch on a GPU or wherever it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from spikecrsae.csc.numba_backend import NUMBA, NumbaBackend

if TYPE_CHECKING:
    from spikecrsae.csc.torch_backend import TorchBackend

Backend: TypeAlias = "NumbaBackend | TorchBackend"


def backend_of(name: str, device: str) -> Backend:
    """The backend of a name (auto, numba or torch) on a torch device; auto is numba on a CPU and torch elsewhere."""
    if name == "numba" or (name == "auto" and device == "cpu"):
        return NUMBA
    from spikecrsae.csc.torch_backend import TorchBackend

    return TorchBackend(device)
