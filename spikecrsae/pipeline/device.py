"""The device that torch computes on. torch is imported only where a GPU may be there: that takes seconds."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version

from spikecrsae.errors import UsageError

#: Files of GPU drivers (NVIDIA, its forms under Windows and WSL, AMD). Without one of them torch finds no GPU for `auto`.
_GPU_DRIVERS = {
    "linux": ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd"),
    "win32": (os.path.join(os.environ.get("SYSTEMROOT", r"C:\Windows"), "System32", "nvcuda.dll"),),
}


def resolve_device(name: str, backend: str = "auto") -> str:
    """Return the torch device for a name or `auto`, which is CUDA if it works and the CPU otherwise (never mps); that of the
    backend numba is the CPU.

    Raises UsageError if this machine does not have the device.
    """
    if name == "cpu" or (name == "auto" and backend == "numba") or (name == "auto" and not _cuda_is_possible()):
        return "cpu"
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return "cuda" if available["cuda"] else "cpu"
    if not available[name]:
        raise UsageError(
            f"device {name} is not available here; choose --device auto or cpu, or install a torch build for it."
        )
    return name


def _cuda_is_possible() -> bool:
    """Whether there is a GPU driver, no GPU is hidden, and torch is not a build for the CPU alone; without importing torch."""
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    try:
        for_cpu_alone = version("torch").endswith("+cpu")
    except PackageNotFoundError:
        return False
    return not for_cpu_alone and any(map(os.path.exists, _GPU_DRIVERS.get(sys.platform, ())))
