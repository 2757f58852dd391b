"""Which functions of csc/ and detect/ numba compiles, for tests of what works without them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest

import spikecrsae.csc
import spikecrsae.detect
from spikecrsae.csc import local_search

#: Compiled functions of the local search that only the greedy search uses.
_GREEDY = {"search", "_is_largest"}


def compiled_functions() -> Iterator[tuple[Any, str]]:
    """Module or class, and name, of all that is compiled but for the local search (improve, compare and what they call)."""
    for package in (spikecrsae.csc, spikecrsae.detect):
        for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(found.name)
            for holder in (module, *(value for value in vars(module).values() if isinstance(value, type))):
                for name, value in list(vars(holder).items()):
                    function = getattr(getattr(value, "__func__", value), "py_func", None)
                    if function and not (function.__module__ == local_search.__name__ and function.__name__ not in _GREEDY):
                        yield holder, name


def refuse_compiled_code(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Make all of them raise; their names. What they call is compiled into the local search already if it has run before."""

    def refuse(*arguments: Any) -> None:
        raise AssertionError("compiled code is called")

    replaced = list(compiled_functions())
    for holder, name in replaced:
        monkeypatch.setattr(holder, name, refuse)
    return {name for _, name in replaced}
