"""Values as what JSON can write."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """numpy numbers and arrays, paths, tuples and dataclass-free nests as what json can write; NaN and infinity as None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str | Path):
        # names of files that are no UTF-8 stay readable, and nothing that is written later fails at them
        return os.fsencode(value).decode("utf-8", "backslashreplace")
    return value
