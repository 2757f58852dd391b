"""Values as what JSON can write."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any


def to_json(value: Any) -> Any:
    """numpy numbers and arrays, paths, tuples and dataclass-free nests as what json can write; NaN and infinity as None."""
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if hasattr(value, "tolist"):
        return to_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str | Path):
        return _readable(str(value))
    return value


def _readable(text: str) -> str:
    """The text with escapes in place of what is no UTF-8, as in names of files: nothing that is written later fails at it."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode("utf-8")
