"""Small pictures in text: blocks and braille where the terminal's encoding has them, plain ASCII elsewhere.

Every function takes `fine`: whether the finer characters may be used (see can_show). None of them needs a terminal.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import TextIO

import numpy as np

BLOCKS, STEPS = "▁▂▃▄▅▆▇█", "_.-'"
_BRAILLE = 0x2800
#: Bit of each dot of a braille character, by row and column.
_DOTS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
#: Characters with a dot in neither, the upper, the lower or both halves.
_HALVES = " '.:"


def can_show(stream: TextIO | None = None) -> bool:
    """Whether a stream (standard output) can encode block and braille characters."""
    encoding = getattr(stream or sys.stdout, "encoding", None) or "ascii"
    try:
        (BLOCKS + chr(_BRAILLE + 255)).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def sparkline(values: np.ndarray, width: int, fine: bool) -> str:
    """A curve (n,) in one line of `width` characters, from its smallest to its largest value.

    Each character stands for a stretch of the curve and shows the value in it that is farthest from the median, so that a
    narrow spike is never skipped.
    """
    marks = BLOCKS if fine else STEPS
    heights = _extremes(np.asarray(values, float), width)
    low, high = heights.min(), heights.max()
    levels = (heights - low) / (high - low or 1.0) * (len(marks) - 1)
    return "".join(marks[round(level)] for level in levels)


def _extremes(values: np.ndarray, width: int) -> np.ndarray:
    """The value of each of `width` stretches that is farthest from the median of all, (width,)."""
    middle = np.median(values)
    edges = np.linspace(0, len(values), width + 1)
    parts = [values[int(a) : max(int(b), int(a) + 1)] for a, b in itertools.pairwise(edges)]
    return np.array([part[np.abs(part - middle).argmax()] for part in parts])


def curve(values: np.ndarray, width: int, height: int, low: float, high: float, fine: bool) -> list[str]:
    """A curve (n,) as a line drawing of `height` lines of `width` characters, for values between low and high."""
    rows, columns = (4, 2) if fine else (2, 1)
    dots = np.zeros((height * rows, width * columns), bool)
    places = np.linspace(0, len(values) - 1, width * columns)
    drawn = np.interp(places, np.arange(len(values)), values)
    level = (high - np.clip(drawn, low, high)) / (high - low or 1.0) * (len(dots) - 1)
    row = np.round(level).astype(int)
    for column, (here, before) in enumerate(zip(row, np.concatenate([row[:1], row[:-1]]), strict=True)):
        # joined to the point before it by a vertical stroke, half of it in either column
        middle = (here + before) // 2
        dots[min(here, middle) : max(here, middle) + 1, column] = True
        dots[min(before, middle) : max(before, middle) + 1, max(column - 1, 0)] = True
    return _characters(dots, fine)


def _characters(dots: np.ndarray, fine: bool) -> list[str]:
    rows, columns = (4, 2) if fine else (2, 1)
    cells = dots.reshape(len(dots) // rows, rows, -1, columns).transpose(0, 2, 1, 3)
    if fine:
        return ["".join(chr(_BRAILLE + code) for code in line) for line in (cells * _DOTS).sum(axis=(2, 3))]
    return ["".join(_HALVES[int(cell[0, 0]) + 2 * int(cell[1, 0])] for cell in line) for line in cells]


def histogram(counts: Sequence[int], height: int, fine: bool) -> list[str]:
    """Columns of the counts in `height` lines, one character each; any count above 0 shows."""
    steps = len(BLOCKS) if fine else 2
    largest = max(counts, default=0) or 1
    filled = [-(-int(count) * height * steps // largest) for count in counts]
    marks = " " + BLOCKS if fine else " .:"
    return ["".join(marks[min(max(level - line * steps, 0), steps)] for level in filled) for line in reversed(range(height))]
