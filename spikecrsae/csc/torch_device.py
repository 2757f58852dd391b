"""Work on a torch device in parts that its memory holds."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar, cast

import numpy as np
import torch

log = logging.getLogger(__name__)
T = TypeVar("T")

#: Parts are never made shorter than this many samples when the memory is full.
_SHORTEST = 1 << 10
#: Settings of cudnn are the process's; one convolution at a time changes them.
_cudnn = threading.Lock()


class TorchDevice:
    """at_once: samples of a part; it is halved when the memory of the device is full."""

    def __init__(self, device: str, at_once: int) -> None:
        self.device, self.at_once = torch.device(device), at_once
        #: What sums over many values are computed in; mps has no float64.
        self.real = torch.float32 if self.device.type == "mps" else torch.float64

    def moved(self, values: np.ndarray) -> torch.Tensor:
        """Values on the device, in float32, or float64 where they are and the device has it; a copy."""
        dtype = torch.float64 if values.dtype == np.float64 and self.real == torch.float64 else torch.float32
        return torch.tensor(np.ascontiguousarray(values), dtype=dtype, device=self.device)

    def in_parts(self, n: int, work: Callable[[slice], T], each: int = 1) -> list[T]:
        """What `work` gives for slices of range(n), in order; each: samples that one of n stands for. A part that the memory
        cannot hold is halved."""
        done: list[T] = []
        first, size = 0, self.at_once
        while first < n:
            stop = min(first + max(1, size // each), n)
            result, full = self.unless_full(partial(work, slice(first, stop)), size)
            if full:
                size = self.at_once
            else:
                done.append(cast(T, result))
                first = stop
        return done

    def unless_full(self, work: Callable[[], T], size: int, least: int = 0) -> tuple[T | None, bool]:
        """What `work` gives, and False; or None and True where the memory is full: then parts of this size are halved, which is
        logged. Raises torch.cuda.OutOfMemoryError where that would make them shorter than `least`, or than is reasonable."""
        try:
            return work(), False
        except torch.cuda.OutOfMemoryError:
            if size // 2 < max(least, _SHORTEST):
                raise
        # only here, when the error no longer holds what was computed, can its memory be given back
        self.at_once = min(self.at_once, size // 2)
        log.warning("the memory of %s is full; going on with parts of %d samples", self.device, size // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None, True

    @contextmanager
    def exact(self) -> Iterator[None]:
        """Convolve in full precision and in an order of additions that is always the same."""
        if self.device.type != "cuda":
            yield
            return
        with _cudnn, torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
