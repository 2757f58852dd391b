"""Figures as files: PNG, PDF and SVG of the drawings that the report shows. Only this module knows matplotlib.

The looks of the primitives are those of page.css in its light colours, so that a file and the page agree.
"""

from __future__ import annotations

import functools
import io
import re
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from spikecrsae.data.sorting import Sorting
from spikecrsae.report import svg
from spikecrsae.report.pictures import (
    color_class,
    cross_correlogram_picture,
    similarity_picture,
    traces_picture,
    training_pictures,
)
from spikecrsae.report.svg import Drawing, Picture
from spikecrsae.report.unit_pictures import unit_pictures
from spikecrsae.system.text import visible

FORMATS = ("png", "svg", "pdf")
#: Templates side by side in templates.*; room between the pictures of a sheet, for a title, for a line of a note and its letters.
_COLUMNS, _GAP, _TITLE, _LINE, _PER_LETTER = 5, 16, 24, 15, 6.3
#: Pixels of CSS per inch, points per pixel, and pixels of a PNG per pixel of a drawing.
_PER_INCH, _POINTS, _ZOOM = 96, 0.75, 2
#: Letters of a text at most: a channel may have any name.
_LONGEST = 200
_FONTS = "DejaVu Sans, Helvetica, Arial, sans-serif"


def result_figures(sorting: Sorting, run: Mapping, tradeoffs: Mapping[str, Picture] | None = None) -> dict[str, Drawing]:
    """Return every figure of a sorting by its file name without ending: those of the report, a unit's on one sheet.

    run: what run.json holds. tradeoffs: a picture per truth unit. What the sorting does not hold is left out.
    """
    single = {
        "traces": traces_picture(sorting),
        "cross_correlograms": cross_correlogram_picture(sorting),
        "similarity": similarity_picture(sorting),
    }
    figures = {name: sheet([[picture]]) for name, picture in single.items() if picture}
    if training := training_pictures(sorting.model):
        figures["training"] = sheet([[picture] for picture in training])
    templates = []
    for row, unit in enumerate(sorting.unit_ids):
        pictures = [_of_unit(picture, unit, row) for picture in unit_pictures(sorting, row, run)]
        # the template comes first, as high as two others
        own = pictures[: 1 if len(sorting.templates) else 0]
        rest = pictures[len(own) :]
        figures[f"unit_{unit}"] = sheet([column for column in (own, rest[::2], rest[1::2]) if column])
        templates += own
    if templates:
        figures["templates"] = sheet([templates[k::_COLUMNS] for k in range(min(_COLUMNS, len(templates)))])
    return figures | tradeoff_figures(tradeoffs or {})


def _of_unit(picture: Picture, unit: int, row: int) -> Picture:
    """The picture with the unit's name and its colour, which on the page the unit's section gives to it."""
    colored = Drawing(picture.drawing.width, picture.drawing.height)
    colored.place(picture.drawing, 0, 0, color_class(row))
    return replace(picture, title=f"Unit {unit}: {picture.title}", drawing=colored)


def tradeoff_figures(pictures: Mapping[str, Picture]) -> dict[str, Drawing]:
    """Return the trade-off curve of each truth unit by its file name without ending."""
    names = {name: "" if len(pictures) == 1 else "_" + re.sub(r"[^\w.-]", "-", name) for name in pictures}
    return {f"tradeoff{names[name]}": sheet([[picture]]) for name, picture in pictures.items()}


def sheet(columns: Iterable[Sequence[Picture]]) -> Drawing:
    """Lay out pictures in columns from the left, each from the top, with their titles above and their notes below."""
    whole = Drawing(0, 0)
    for column in columns:
        left, top = whole.width + _GAP, 0.0
        for picture in column:
            drawing, notes = picture.drawing, textwrap.wrap(picture.note, int(picture.drawing.width / _PER_LETTER))
            whole.text(left, top + _TITLE - 8, picture.title, "t-left strong")
            whole.place(drawing, left, top + _TITLE)
            top += _TITLE + drawing.height
            for line in notes:
                top += _LINE
                whole.text(left, top, line, "t-left")
            top += _GAP
        whole.width, whole.height = left + max(picture.drawing.width for picture in column), max(whole.height, top)
    whole.width += _GAP
    return whole


def figure_file(drawing: Drawing, kind: str, label: str) -> bytes:
    """Return the content of a file of a kind of FORMATS; the same drawing gives the same bytes. label: for SVG, what it shows."""
    if kind == "svg":
        looks = _Looks()
        return drawing.render(label, lambda part: _attributes(looks.of(part))).encode()
    return _by_matplotlib(drawing, kind)


def _attributes(look: Mapping[str, str]) -> str:
    return " ".join(f'{name}="{value}"' for name, value in look.items())


@functools.cache
def _style_sheet() -> tuple[dict[str, str], dict[str, str], list[tuple[str, frozenset[str], dict[str, str]]]]:
    """Return what page.css says: the light colours, the colour of each class of groups, and the rules for primitives in order.

    A rule is (element or "", its classes, its properties).
    """
    css = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    colors = dict(re.findall(r"--(\w+): light-dark\((#\w+),", css))
    groups = dict(re.findall(r"\.(\w+) \{ --c: var\(--(\w+)\); \}", css))
    section = css[css.index("svg text {") : css.index("@media print")]
    rules = [
        (element, frozenset(classes.split(".")[1:]), dict(re.findall(r"([\w-]+): ([^;]+);", properties)))
        for element, classes, properties in re.findall(r"^(?:svg )?(text|path)?((?:\.[\w-]+)*) \{ (.+) \}$", section, re.M)
    ]
    return colors, groups, rules


class _Looks:
    """Gives the primitives of a drawing, one after the other, their looks; knows the groups that they are in."""

    def __init__(self) -> None:
        self._groups: list[tuple[str, float, float]] = [("soft", 0.0, 0.0)]

    @property
    def shift(self) -> tuple[float, float]:
        """(x, y) by which the groups that are open move their shapes."""
        return self._groups[-1][1:]

    def of(self, part: svg.Primitive) -> dict[str, str]:
        """Return the properties of a primitive under their names in SVG; none for a group."""
        colors, groups, rules = _style_sheet()
        color, x, y = self._groups[-1]
        if isinstance(part, svg.Group):
            dx, dy = part.shift or (0.0, 0.0)
            self._groups.append((groups.get(part.classes, color), x + dx, y + dy))
            return {}
        if isinstance(part, svg.GroupEnd):
            self._groups.pop()
            return {}
        element, classes = type(part).__name__.lower(), set(part.classes.split())
        look = {"font-family": _FONTS} if element == "text" else {}
        for wanted, of_classes, properties in rules:
            if wanted in ("", element) and of_classes <= classes:
                look |= properties
        own = {"c": color}
        return {
            name: re.sub(r"var\(--(\w+)\)", lambda found: colors[own.get(found[1], found[1])], value)
            for name, value in look.items()
        }


def _by_matplotlib(drawing: Drawing, kind: str) -> bytes:
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    file = io.BytesIO()
    # what the user has told matplotlib elsewhere does not matter here, nor the other way round
    with matplotlib.rc_context(), warnings.catch_warnings():
        matplotlib.rcdefaults()
        matplotlib.rcParams["pdf.fonttype"] = 42  # text that can be edited
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure = Figure(figsize=(drawing.width / _PER_INCH, drawing.height / _PER_INCH), facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1), xlim=(0, drawing.width), ylim=(drawing.height, 0))
        axes.set_axis_off()
        looks = _Looks()
        for part in drawing.parts:
            look = looks.of(part)
            if isinstance(part, svg.Text):
                _draw_text(axes, part, look, *looks.shift)
            elif look:
                _draw_shape(axes, part, look, *looks.shift)
        # no version and no time inside, so that the same drawing gives the same bytes
        without = {"Software": None} if kind == "png" else {"CreationDate": None}
        figure.savefig(file, format=kind, dpi=_PER_INCH * _ZOOM, metadata=without)
    return file.getvalue()


def _draw_text(axes, part: svg.Text, look: Mapping[str, str], x: float, y: float) -> None:
    across = {"middle": "center", "end": "right"}.get(look.get("text-anchor", ""), "left")
    axes.text(
        part.x + x, part.y + y, visible(part.text)[:_LONGEST], color=look["fill"], fontsize=_pixels(look["font-size"]) * _POINTS, ha=across,
        va="baseline", fontweight=int(look.get("font-weight", 400)), rotation=90 if part.turn else 0, rotation_mode="anchor",
        parse_math=False,
    )  # fmt: skip


def _draw_shape(axes, part: svg.Path | svg.Rect, look: Mapping[str, str], x: float, y: float) -> None:
    from matplotlib.patches import PathPatch

    width = _pixels(look.get("stroke-width", "1"))
    dashes = [float(length) / width for length in look.get("stroke-dasharray", "").split()]
    ends = look.get("stroke-linecap", "butt")
    shade = part.opacity if isinstance(part, svg.Rect) and part.opacity is not None else 1.0
    axes.add_artist(
        PathPatch(
            _outline(part, x, y), facecolor=look.get("fill", "none"), edgecolor=look.get("stroke", "none"),
            linewidth=width * _POINTS, linestyle=(0, dashes) if dashes else "solid", alpha=shade * float(look.get("opacity", 1)),
            capstyle=ends, joinstyle=look.get("stroke-linejoin", "miter"), clip_on=False,
            snap=False if ends == "round" else None,  # a dot is no whole number of pixels long
        )
    )  # fmt: skip


def _pixels(length: str) -> float:
    return float(length.removesuffix("px"))


def _outline(part: svg.Path | svg.Rect, x: float, y: float):
    """The shape, moved by (x, y), as a path of matplotlib."""
    from matplotlib.path import Path as Outline

    data = f"M{part.x} {part.y}h{part.width}v{part.height}h{-part.width}z" if isinstance(part, svg.Rect) else part.data
    codes = {"M": Outline.MOVETO, "z": Outline.CLOSEPOLY}
    points, kinds, at, begin = [], [], (x, y), (x, y)
    for command, numbers in re.findall(r"([MLHVhvz])([^MLHVhvz]*)", data):
        values = [float(number) for number in numbers.split()]
        if command in "ML":
            at = (values[0] + x, values[1] + y)
            begin = at if command == "M" else begin
        elif command == "z":
            at = begin
        elif command in "Hh":
            # a stroke of no length, which is a dot, is not drawn by every backend
            at = (values[0] + x if command == "H" else at[0] + (values[0] or 0.01), at[1])
        else:
            at = (at[0], values[0] + y if command == "V" else at[1] + values[0])
        points.append(at)
        kinds.append(codes.get(command, Outline.LINETO))
    return Outline(points, kinds)
