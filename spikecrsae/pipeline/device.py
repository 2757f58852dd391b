"""What torch computes on."""

from __future__ import annotations

import os
import sys

from spikecrsae.errors import UsageError

#: Without one of these Linux has no GPU that torch could use.
_GPU_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


def resolve_device(name: str) -> str:
    """The torch device for 'auto' or a name; UsageError where this machine does not have it."""
    # to load torch takes as long as to sort half a minute: not only to learn that there is no GPU
    if name == "cpu" or (name == "auto" and sys.platform == "linux" and not any(map(os.path.exists, _GPU_DRIVERS))):
        return "cpu"
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return "cuda" if available["cuda"] else "cpu"
    if not available[name]:
        raise UsageError(
            f"device {name} is not available here; choose --device auto or cpu, or install a torch build for it."
        )
    return name
