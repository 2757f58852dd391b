"""How the loops of this room are compiled: once per machine, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from numba import njit


def compiled(function: Callable | None = None, **options: Any) -> Callable:
    """numba.njit without the interpreter's lock, as a decorator; options: numba's own, but never `fastmath`: sums in an
    order that the processor's vector length decides, and products that some processors add without rounding, differ from
    machine to machine.

    The machine code is kept in the folder that NUMBA_CACHE_DIR names, else beside the source, else in the user's cache
    folder, and the next process loads it from there. Where none of them can be written every process compiles anew.
    """
    if function is None:
        return partial(compiled, **options)
    try:
        return njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:
        # numba finds no folder that it may write to
        return njit(nogil=True, **options)(function)
