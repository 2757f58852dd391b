"""Which backend does the encoder's and the M-step's heavy work: numba on a CPU, torch on a GPU or wherever it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from spikecrsae.csc.numba_backend import NUMBA
from spikecrsae.csc.pursuit import L1, Effort, Tables
from spikecrsae.data.spikes import Spikes


class Backend(Protocol):
    """What CRsAE and detection ask of a backend; see NumbaBackend for shapes and units.

    `seen` gives a signal made ready (with its array as `signal`, and the `dtype` of its correlation), `correlation` an array on
    the backend's device. Both are only handed back to the backend; a correlation can be indexed by units (numpy indices or mask).
    """

    name: str

    def seen(self, signal: np.ndarray, n_times: int, keep: bool = False) -> Any: ...

    def correlation(self, seen: Any, templates: np.ndarray) -> Any: ...

    def active(
        self, signal: np.ndarray, templates: np.ndarray, needed: np.ndarray, much: float
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def pursue_correlation(
        self, signal: np.ndarray, correlation: Any, tables: Tables, enough: np.ndarray, gap: int,
        effort: Effort, doubtful: Callable[[np.ndarray, Spikes], np.ndarray], l1: L1 | None = None,
        level: np.ndarray | None = None,
    ) -> Spikes: ...  # fmt: skip

    def pursue(
        self, seen: Any, templates: np.ndarray, tables: Tables, enough: np.ndarray, gap: int,
        effort: Effort, doubtful: Callable[[np.ndarray, Spikes], np.ndarray], l1: L1 | None = None,
        level: np.ndarray | None = None, near: np.ndarray | None = None,
    ) -> Spikes: ...  # fmt: skip

    def subtract(
        self, signal: np.ndarray, copies: np.ndarray, row: np.ndarray, sample: np.ndarray, amplitude: np.ndarray,
        out: np.ndarray | None = None,
    ) -> np.ndarray: ...  # fmt: skip

    def misfits(
        self, signal: np.ndarray, templates: np.ndarray, row: np.ndarray, sample: np.ndarray, amplitude: np.ndarray,
        weights: np.ndarray, unit: np.ndarray,
    ) -> np.ndarray: ...  # fmt: skip

    def code_statistics(
        self, signal: np.ndarray, unit: np.ndarray, sample: np.ndarray, amplitude: np.ndarray, n_units: int, n_times: int
    ) -> tuple[np.ndarray, np.ndarray]: ...

    def l1_codes(
        self,
        windows: np.ndarray,
        atoms: np.ndarray,
        bias: float | np.ndarray,
        one_sided: bool,
        start: np.ndarray | None = None,
    ) -> np.ndarray: ...

    def energy_in_span(self, signal: np.ndarray, shapes: np.ndarray) -> np.ndarray: ...


def backend_of(name: str, device: str, n_iterations: int = 180) -> Backend:
    """The backend of a name (auto, numba or torch) on a torch device; auto is numba on a CPU and torch elsewhere."""
    if name == "numba" or (name == "auto" and device == "cpu"):
        return NUMBA
    from spikecrsae.csc.torch_backend import TorchBackend

    return TorchBackend(device, n_iterations)
