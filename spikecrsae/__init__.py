"""Spike sorting for single wires and tetrodes: `import spikecrsae`, then spikecrsae.sort("recording.h5").

These are the public names; each is loaded when it is first used. docs/howto/from-python.md shows how to use them.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

__all__ = [
    "CRsAE",
    "Config",
    "Recording",
    "Sorting",
    "__version__",
    "apply",
    "calibration",
    "open_recording",
    "read_sorting",
    "score",
    "simulate",
    "sort",
]

if TYPE_CHECKING:
    from spikecrsae.api.functions import apply, open_recording, read_sorting, score, simulate, sort
    from spikecrsae.api.sorting import Sorting
    from spikecrsae.config import Config
    from spikecrsae.crsae.model import CRsAE
    from spikecrsae.data.recording import Recording
    from spikecrsae.score import calibration

    __version__: str
else:

    def __getattr__(name: str) -> Any:
        if name not in __all__:
            raise AttributeError(f"module 'spikecrsae' has no attribute {name!r}")
        value = globals()[name] = _version() if name == "__version__" else _loaded(name)
        return value

    def __dir__() -> list[str]:
        return sorted(__all__)


def _loaded(name: str) -> Any:
    from importlib import import_module

    if name == "calibration":
        return import_module("spikecrsae.score.calibration")
    home = {"Sorting": "api.sorting", "Config": "config", "CRsAE": "crsae.model", "Recording": "data.recording"}
    return getattr(import_module(f"spikecrsae.{home.get(name, 'api.functions')}"), name)


def _version() -> str:
    """Return the installed version; 0+unknown for a source tree that was never installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("spikecrsae")
    except PackageNotFoundError:
        return "0+unknown"


class _Package(ModuleType):
    """This module. Importing the subpackage score or simulate does not replace the function of that name."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
