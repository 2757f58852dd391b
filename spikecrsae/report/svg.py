"""Drawings: panels with axes, what is drawn in a panel, and the primitives that this makes: paths, rectangles, text, groups.

Nothing here knows of spikes. Colours and strokes are CSS classes (page.css). The page shows a drawing as inline SVG; figures.py
makes files of the same primitives. Text from outside passes through `escape`.
"""

from __future__ import annotations

import html
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, SupportsFloat

import numpy as np
from numpy.typing import ArrayLike

#: What XML does not allow in a text, not even escaped.
_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: Room around a panel for its axes: top, right, bottom, left.
MARGINS = (12, 14, 40, 54)


def escape(text: object) -> str:
    """Any value as text that is safe in HTML and XML, between tags and in quoted attributes."""
    return html.escape(_FORBIDDEN.sub("\ufffd", str(text)), quote=True)


def with_minus(number: str) -> str:
    """A number's text with a true minus sign, as wide as a plus, in place of the hyphen."""
    return number.replace("-", "\N{MINUS SIGN}")


def ticks(low: float, high: float, n_wanted: int = 5) -> np.ndarray:
    """Round numbers (steps of 1, 2 or 5 times a power of ten) from low to high, about n_wanted of them."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return np.array([low])
    rough = span / max(n_wanted, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = min((m * power for m in (1, 2, 5, 10)), key=lambda s: abs(math.log(s / rough)))
    return np.arange(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1) * step


def tick_labels(values: np.ndarray) -> list[str]:
    """Numbers with as many decimals as tell neighbours apart, and a true minus sign."""
    step = np.diff(values).min() if len(values) > 1 else abs(values[0]) if len(values) and values[0] else 1.0
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [with_minus(f"{value + 0.0:,.{decimals}f}") for value in np.round(values, decimals + 1)]


def round_length(length: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not above `length`; 1 where that is no length."""
    if not (math.isfinite(length) and length > 0):
        return 1.0
    power = 10.0 ** math.floor(math.log10(length))
    return max(step for step in (1, 2, 5) if step * power <= length * (1 + 1e-9)) * power


def span_of(*values: ArrayLike, room: float = 0.05, least: tuple[float, float] | None = None) -> tuple[float, float]:
    """(low, high) that covers all finite values, with some room; covers `least` too. Never empty."""
    flat = np.concatenate([np.ravel(np.asarray(v, float)) for v in values] or [np.zeros(0)])
    flat = flat[np.isfinite(flat)]
    edges = [*(least or ()), *([flat.min(), flat.max()] if len(flat) else [])] or [0.0, 1.0]
    low, high = float(min(edges)), float(max(edges))
    if high <= low:
        return low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    extra = room * (high - low)
    return (low if least and low == least[0] else low - extra), high + extra


class Path(NamedTuple):
    """Lines in the path language of SVG, of which M, L, H, V, h, v and z are used."""

    data: str
    classes: str


class Rect(NamedTuple):
    """A rectangle; opacity: of its fill, 1 if None."""

    x: float
    y: float
    width: float
    height: float
    classes: str
    opacity: float | None


class Text(NamedTuple):
    """Text at (x, y); classes t-left, t-middle, t-right say which part of it; turn: it reads upwards."""

    x: float
    y: float
    text: str
    classes: str
    turn: bool


class Group(NamedTuple):
    """Primitives together. classes: give them their colour; title: shown at a resting pointer; shift: (x, y) that moves them."""

    classes: str
    title: str
    parts: list[Primitive]
    shift: tuple[float, float] | None = None


Primitive = Path | Rect | Text | Group
#: The attributes of a primitive, given the classes of the innermost group around it that has some.
Look = Callable[[Primitive, str], str]


def class_of(part: Primitive, group: str) -> str:
    """The look that leaves colours and strokes to a style sheet."""
    return f'class="{part.classes}"' if part.classes else ""


def markup(part: Primitive, look: Look, group: str = "") -> str:
    """A primitive as SVG."""
    attributes = " " + found if (found := look(part, group)) else ""
    match part:
        case Path(data):
            return f'<path{attributes} d="{data}"/>'
        case Rect(x, y, width, height, _, opacity):
            shade = "" if opacity is None else f' fill-opacity="{opacity:.2f}"'
            return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{attributes}{shade}/>'
        case Text(x, y, text, _, turn):
            rotate = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turn else ""
            return f'<text x="{x:.1f}" y="{y:.1f}"{attributes}{rotate}>{escape(text)}</text>'
        case Group(classes, title, parts, shift):
            moved = f' transform="translate({shift[0]:g} {shift[1]:g})"' if shift else ""
            told = f"<title>{escape(title)}</title>" if title else ""
            return f"<g{attributes}{moved}>{told}{''.join(markup(p, look, classes or group) for p in parts)}</g>"


@dataclass(frozen=True)
class Picture:
    """A finished drawing with its title, a label for those who do not see it, and a note, all plain text. wide: it needs a row of
    its own, and is scrolled rather than made unreadable."""

    title: str
    drawing: Drawing
    label: str
    note: str = ""
    wide: bool = False

    @property
    def svg(self) -> str:
        return self.drawing.render(self.label)


class Drawing:
    """A list of primitives on an area of width x height, in pixels where there is room for them."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.parts: list[Primitive] = []
        self._open = [self.parts]

    def add(self, part: Primitive) -> None:
        self._open[-1].append(part)

    def text(self, x: SupportsFloat, y: SupportsFloat, text: object, classes: str = "", turn: bool = False) -> None:
        """Add a Text."""
        self.add(Text(float(x), float(y), str(text), classes, turn))

    def rect(self, x: float, y: float, width: float, height: float, classes: str, opacity: float | None = None) -> None:
        """Add a Rect."""
        self.add(Rect(float(x), float(y), float(width), float(height), classes, opacity))

    @contextmanager
    def group(self, classes: str, title: str = "") -> Iterator[None]:
        """What is added meanwhile is added to a Group."""
        parts: list[Primitive] = []
        self.add(Group(classes, title, parts))
        self._open.append(parts)
        yield
        self._open.pop()

    def place(self, other: Drawing, x: float, y: float, classes: str = "") -> None:
        """Add all of another drawing as a group, with its upper left corner at (x, y)."""
        self.add(Group(classes, "", other.parts, (x, y)))

    def panel(self, left: float, top: float, width: float, height: float, x: Sequence[float], y: Sequence[float]) -> Panel:
        """A panel whose inside is this rectangle, with data from x = (low, high) and y = (low, high)."""
        return Panel(self, left, top, width, height, x, y)

    def render(self, label: str, look: Look = class_of) -> str:
        """The <svg>, with a label for those who do not see it."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" width="{self.width:g}" '
            f'height="{self.height:g}" role="img" aria-label="{escape(label)}">'
        )
        return head + "".join(markup(part, look) for part in self.parts) + "</svg>"


class Panel:
    """A rectangle of a drawing with two linear scales."""

    def __init__(
        self, drawing: Drawing, left: float, top: float, width: float, height: float, x: Sequence[float], y: Sequence[float]
    ) -> None:
        self.drawing, self.left, self.top, self.width, self.height = drawing, left, top, width, height
        self.x, self.y = (float(x[0]), float(x[1])), (float(y[0]), float(y[1]))

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def right(self) -> float:
        return self.left + self.width

    def across(self, values: ArrayLike) -> np.ndarray:
        """Data along x in drawing units; beyond the scale they stay at its end."""
        share = (np.asarray(values, float) - self.x[0]) / (self.x[1] - self.x[0])
        return self.left + self.width * np.clip(share, 0, 1)

    def down(self, values: ArrayLike) -> np.ndarray:
        """Data along y in drawing units; beyond the scale they stay at its end."""
        share = (np.asarray(values, float) - self.y[0]) / (self.y[1] - self.y[0])
        return self.bottom - self.height * np.clip(share, 0, 1)

    def line(self, x: ArrayLike, y: ArrayLike, classes: str) -> None:
        """A line through the points, interrupted where y is NaN."""
        self._path(_through(self.across(x), self.down(y)), classes)

    def band(self, x: ArrayLike, low: ArrayLike, high: ArrayLike, classes: str) -> None:
        """The area between two curves."""
        across = self.across(x)
        outline = _through(np.r_[across, across[::-1]], np.r_[self.down(high), self.down(low)[::-1]])
        self._path(outline and outline + "z", classes)

    def bars(self, edges: ArrayLike, heights: ArrayLike, classes: str) -> None:
        """One bar per interval between the edges (n + 1,), from the lower end of the scale; empty ones are not drawn."""
        edges = self.across(edges)
        full = np.flatnonzero(np.asarray(heights) > 0)
        columns = edges[full].round(1).tolist(), edges[full + 1].round(1).tolist()
        tops, foot = self.down(np.asarray(heights)[full]).round(1).tolist(), f"{self.bottom:.1f}"
        self._path("".join(f"M{a} {foot}V{t}H{b}V{foot}z" for a, b, t in zip(*columns, tops, strict=True)), classes)

    def points(self, x: ArrayLike, y: ArrayLike, classes: str) -> None:
        """A dot at each point, where y is not NaN: a stroke of no length with round ends."""
        pairs = zip(self.across(x).round(1).tolist(), self.down(y).round(1).tolist(), strict=True)
        self._path("".join(f"M{a} {b}h0" for a, b in pairs if b == b), classes)

    def marks(self, x: ArrayLike, low: float, high: float, classes: str) -> None:
        """Upright strokes at x, from low to high in data."""
        top, foot = float(self.down(high)), float(self.down(low))
        self._path("".join(f"M{a} {foot:.1f}V{top:.1f}" for a in self.across(x).round(1).tolist()), classes)

    def upright(self, x: float, classes: str = "rule") -> None:
        """A line over the whole height at x."""
        at = f"{float(self.across(x)):.1f}"
        self._path(f"M{at} {self.top:.1f}V{self.bottom:.1f}", classes)

    def level(self, y: float, classes: str = "rule") -> None:
        """A line over the whole width at y."""
        at = f"{float(self.down(y)):.1f}"
        self._path(f"M{self.left:.1f} {at}H{self.right:.1f}", classes)

    def shade(self, low: float, high: float, classes: str) -> None:
        """The stretch from low to high along x, over the whole height."""
        a, b = self.across([low, high])
        self.drawing.rect(a, self.top, max(b - a, 0.5), self.height, classes)

    def x_axis(self, label: str = "", n_ticks: int = 6, at: ArrayLike | None = None) -> None:
        """The lower axis with round ticks (or those given) and its label with the unit."""
        values = ticks(*self.x, n_ticks) if at is None else np.asarray(at, float)
        self._path(f"M{self.left:.1f} {self.bottom:.1f}H{self.right:.1f}", "axis")
        for value, text in zip(self.across(values), tick_labels(values), strict=True):
            self._path(f"M{value:.1f} {self.bottom:.1f}v4", "axis")
            self.drawing.text(value, self.bottom + 15, text, "t-middle")
        if label:
            self.drawing.text(self.left + self.width / 2, self.bottom + 32, label, "t-middle label")

    def y_axis(self, label: str = "", n_ticks: int = 4, away: float = 42) -> None:
        """The left axis with round ticks, faint lines across, and its label with the unit, `away` from the axis."""
        values = ticks(*self.y, n_ticks)
        for value, text in zip(self.down(values), tick_labels(values), strict=True):
            self._path(f"M{self.left:.1f} {value:.1f}H{self.right:.1f}", "grid")
            self.drawing.text(self.left - 6, value + 3.5, text, "t-right")
        if label:
            self.drawing.text(self.left - away, self.top + self.height / 2, label, "t-middle label", turn=True)

    def scale_bar(self, length: float, text: str) -> None:
        """An upright bar of `length` in data at the lower right, where zero differs from curve to curve."""
        height = self.height * length / (self.y[1] - self.y[0])
        x = self.right + 6
        self._path(f"M{x:.1f} {self.bottom:.1f}v{-height:.1f}", "bar")
        self.drawing.text(x + 5, self.bottom - height / 2 + 3.5, text)

    def _path(self, path: str, classes: str) -> None:
        if path:
            self.drawing.add(Path(path, classes))


def axes(
    width: float, height: float, x: Sequence[float], y: Sequence[float], margins: tuple[float, float, float, float] = MARGINS
) -> tuple[Drawing, Panel]:
    """A drawing with one panel that leaves room for axes."""
    drawing = Drawing(width, height)
    top, right, bottom, left = margins
    return drawing, drawing.panel(left, top, width - left - right, height - top - bottom, x, y)


def _through(x: np.ndarray, y: np.ndarray) -> str:
    """Path data of a line through points in drawing units, to a tenth; a NaN lifts the pen."""
    parts, pen = [], "M"
    for a, b in zip(x.round(1).tolist(), y.round(1).tolist(), strict=True):
        if b != b:
            pen = "M"
        else:
            parts.append(f"{pen}{a} {b}")
            pen = "L"
    return "".join(parts)
