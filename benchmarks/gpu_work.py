"""The work of encodings on a device: positions, peaks, candidates and spikes of every layer, counted as they are looked at."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from spikecrsae.csc import torch_backend
from spikecrsae.csc.layered_search import LayeredSearch, Peaks


class Counts:
    """Work of encodings, by torch. layers: of each number, what its searches looked at; rounds: layers of all encodings."""

    def __init__(self) -> None:
        self.encodings = self.positions = self.near = self.iterations = self.rounds = 0
        self.layers: list[Counter] = []
        self._lock = threading.Lock()

    def encode(self, n_positions: int) -> None:
        with self._lock:
            self.encodings += 1
            self.positions += n_positions

    def fista(self, near: int, n_iterations: int) -> None:
        with self._lock:
            self.near, self.iterations = self.near + near, n_iterations

    def layer(self, number: int, **more: int) -> None:
        with self._lock:
            while len(self.layers) <= number:
                self.layers.append(Counter())
            self.layers[number].update(more)
            self.rounds += "dense" in more


@contextlib.contextmanager
def counted() -> Iterator[Counts]:
    """Count the work of every encoding by torch meanwhile."""
    counts, fista = Counts(), torch_backend.fista_of_correlation

    class Counting(LayeredSearch):
        number = 0

        def run(self) -> np.ndarray:
            counts.encode(self.n_positions)
            return super().run()

        def _candidates(self, at: torch.Tensor) -> Peaks:
            counts.layer(self.number, positions=len(at))
            return super()._candidates(at)

        def _highest(self, unit: torch.Tensor, *more: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            counts.layer(self.number, peaks=len(unit))
            return super()._highest(unit, *more)

        def _largest(self, candidates: Peaks) -> torch.Tensor:
            counts.layer(self.number, candidates=len(candidates), dense=self.n_positions)
            return super()._largest(candidates)

        def _put(self, spikes: Peaks) -> None:
            super()._put(spikes)
            counts.layer(self.number, spikes=len(spikes))
            self.number += 1

    def counting_fista(correlation: torch.Tensor, gram: torch.Tensor, bias: Any, bound: float, n: int, *more: Any) -> Any:
        counts.fista(correlation.shape[2], n)
        return fista(correlation, gram, bias, bound, n, *more)

    with (
        patch.object(torch_backend, "LayeredSearch", Counting),
        patch.object(torch_backend, "fista_of_correlation", counting_fista),
    ):
        yield counts
