"""Reword errors for scripts: arguments of a function in place of options of the command line."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from spikecrsae.errors import SpikeCRsAEError

P = ParamSpec("P")
T = TypeVar("T")

#: Options without a value, and the option -o, as arguments.
_FLAGS = {"overwrite": "overwrite=True", "exhaustive": "exhaustive=True", "estimate-errors": "estimate_errors=True"}
_OUTPUT = re.compile(r"(?<![\w-])-o\b")
#: An option, and its value where one follows: a number, an interval of numbers, or one of the words below.
_OPTION = re.compile(r"(?<![\w-])--(no-)?([a-z][a-z-]*[a-z])(?: (\d[\d.,-]*\d|\d|auto\b|cpu\b|cuda\b|all\b))?")


def in_python_words(text: str) -> str:
    """Return the text with options as arguments: --highpass-hz 300 becomes highpass_hz=300, -o becomes folder=."""
    return _OUTPUT.sub("folder=", _OPTION.sub(_argument, text))


def _argument(option: re.Match[str]) -> str:
    negated, name, value = option.groups()
    if not negated and not value and name in _FLAGS:
        return _FLAGS[name]
    if value:
        value = value if re.fullmatch(r"\d+(\.\d+)?", value) else repr(value)
    return f"{name.replace('-', '_')}={'False' if negated else value or ''}"


def speaks_python(function: Callable[P, T]) -> Callable[P, T]:
    """Decorate a public function: its SpikeCRsAEErrors name arguments in place of options."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except SpikeCRsAEError as error:
            error.args = (in_python_words(str(error)),)
            raise

    return call
