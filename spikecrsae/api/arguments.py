"""Rules for the arguments of the public functions, and the check with which each of them begins."""

from __future__ import annotations

import functools
import inspect
import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from spikecrsae.config import Config
from spikecrsae.data.recording import Recording
from spikecrsae.errors import UsageError

P = ParamSpec("P")
T = TypeVar("T")

#: A test whether a value is allowed, and a text that says what is allowed.
Rule = tuple[Callable[[Any], bool], str]


def one_of(*kinds: type) -> Callable[[Any], bool]:
    """Return a check for values of these types; True and False do not count as numbers."""
    return lambda value: isinstance(value, kinds) and not isinstance(value, bool)


def _is_readable(value: Any) -> bool:
    return isinstance(value, str | Path) or hasattr(value, "__array__") or (isinstance(value, Sequence) and len(value) > 0)


_READABLE = "a file, a list of the files of one session, or an array (n_samples, n_channels)"
#: Rules by the names of arguments. None is allowed where it is the default.
RULES: dict[str, Rule] = {
    "source": (_is_readable, _READABLE),
    "recording": (lambda value: isinstance(value, Recording) or _is_readable(value), f"a Recording, {_READABLE}"),
    "config": (one_of(Config), "a Config, such as Config().with_settings(highpass_hz=300.0)"),
    "folder": (one_of(str, os.PathLike), "the name of a folder"),
    "path": (one_of(str, os.PathLike), "the name of a file or folder"),
    "sampling_frequency": (one_of(Real), "a number of Hz"),
    "tolerance_ms": (one_of(Real), "a number of ms"),
    "preset": (one_of(str), "'tetrode' or 'paper'"),
    "jobs": (lambda value: one_of(Integral)(value) and value >= 1, "a whole number of at least 1"),
    "callback": (callable, "a function, called as callback(stage, done, total)"),
}


def checked(more: Mapping[str, Rule] | None = None) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Decorate a public function: it raises UsageError for an argument that breaks its rule in RULES or `more`."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        parameters = inspect.signature(function).parameters
        rules = {name: rule for name, rule in {**RULES, **(more or {})}.items() if name in parameters}

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            given = {**dict(zip(parameters, args, strict=False)), **kwargs}
            for name, (allowed, words) in rules.items():
                value = given.get(name, parameters[name].default)
                if value is not parameters[name].default and not allowed(value):
                    raise UsageError(f"{name} = {reprlib.repr(value)} must be {words}.")
            return function(*args, **kwargs)

        return call

    return decorate
