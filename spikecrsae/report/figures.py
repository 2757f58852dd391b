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
from typing import TYPE_CHECKING

from spikecrsae.data.sorting import SortingData
from spikecrsae.report import svg
from spikecrsae.report.over_time import over_time_picture
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

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.path import Path as Outline
    from matplotlib.transforms import Transform

FORMATS = ("png", "svg", "pdf")
#: Templates side by side in templates.*; room between the pictures of a sheet, for a title, for a line of a note and its letters.
_COLUMNS, _GAP, _TITLE, _LINE, _PER_LETTER = 5, 16, 24, 15, 6.3
#: Pixels of CSS per inch, points per pixel, and pixels of a PNG per pixel of a drawing.
_PER_INCH, _POINTS, _ZOOM = 96, 0.75, 2
#: Letters of a text at most: a channel may have any name.
_LONGEST = 200
_FONTS = "DejaVu Sans, Helvetica, Arial, sans-serif"


def result_figures(sorting: SortingData, run: Mapping, tradeoffs: Mapping[str, Picture] | None = None) -> dict[str, Drawing]:
    """Return every figure of a sorting by its file name without ending: those of the report, a unit's on one sheet.

    run: what run.json holds. tradeoffs: a picture per truth unit. What the sorting does not hold is left out.
    """
    single = {
        "traces": traces_picture(sorting),
        "over_time": over_time_picture(sorting),
        "cross_correlograms": cross_correlogram_picture(sorting),
        "similarity": similarity_picture(sorting),
    }
    figures = {name: sheet([[picture]]) for name, picture in single.items() if picture}
    if training := training_pictures(sorting):
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
        look = lambda part, group: " ".join(f'{name}="{value}"' for name, value in _look(part, group).items())  # noqa: E731
        return drawing.render(label, look).encode()
    return _by_matplotlib(drawing, kind)


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


def _look(part: svg.Primitive, group: str) -> dict[str, str]:
    """Return the properties of a primitive in a group of this class, under their names in SVG; none for a group."""
    if isinstance(part, svg.Group):
        return {}
    colors, groups, rules = _style_sheet()
    own = colors | {"c": colors[groups.get(group, "soft")]}
    element, classes = type(part).__name__.lower(), set(part.classes.split())
    look = {"font-family": _FONTS} if element == "text" else {}
    for wanted, of_classes, properties in rules:
        if wanted in ("", element) and of_classes <= classes:
            look |= properties
    return {name: re.sub(r"var\(--(\w+)\)", lambda found: own[found[1]], value) for name, value in look.items()}


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
        for part in drawing.parts:
            _draw(axes, part, "", axes.transData)
        # no version and no time inside, so that the same drawing gives the same bytes
        without = {"Software": None} if kind == "png" else {"CreationDate": None}
        figure.savefig(file, format=kind, dpi=_PER_INCH * _ZOOM, metadata=without)
    return file.getvalue()


def _draw(axes: Axes, part: svg.Primitive, group: str, place: Transform) -> None:
    """Draw a primitive, or all of a group; place: the transform of its coordinates to those of the figure."""
    from matplotlib.transforms import Affine2D

    if isinstance(part, svg.Group):
        moved = Affine2D().translate(*part.shift) + place if part.shift else place
        for inner in part.parts:
            _draw(axes, inner, part.classes or group, moved)
    elif isinstance(part, svg.Text):
        _draw_text(axes, part, _look(part, group), place)
    else:
        _draw_shape(axes, part, _look(part, group), place)


def _draw_text(axes: Axes, part: svg.Text, look: Mapping[str, str], place: Transform) -> None:
    across = {"middle": "center", "end": "right"}.get(look.get("text-anchor", ""), "left")
    axes.text(
        part.x, part.y, visible(part.text)[:_LONGEST], transform=place, color=look["fill"], va="baseline", ha=across,
        fontsize=_POINTS * float(look["font-size"].removesuffix("px")), fontweight=int(look.get("font-weight", 400)),
        rotation=90 if part.turn else 0, rotation_mode="anchor", parse_math=False,
    )  # fmt: skip


def _draw_shape(axes: Axes, part: svg.Path | svg.Rect, look: Mapping[str, str], place: Transform) -> None:
    from matplotlib.patches import PathPatch

    width = float(look.get("stroke-width", 1))
    dashes = [float(length) / width for length in look.get("stroke-dasharray", "").split()]
    ends, opacity = look.get("stroke-linecap", "butt"), float(look.get("opacity", 1))
    if isinstance(part, svg.Rect):
        data = f"M{part.x} {part.y}h{part.width}v{part.height}h{-part.width}z"
        opacity *= 1.0 if part.opacity is None else part.opacity
    else:
        data = part.data
    patch = PathPatch(
        _outline(data), facecolor=look.get("fill", "none"), edgecolor=look.get("stroke", "none"), alpha=opacity, clip_on=False,
        linewidth=width * _POINTS, linestyle=(0, dashes) if dashes else "solid", capstyle=ends,
        joinstyle=look.get("stroke-linejoin", "miter"), snap=False if ends == "round" else None,  # a dot is no whole pixel
    )  # fmt: skip
    patch.set_transform(place)
    axes.add_artist(patch)


def _outline(data: str) -> Outline:
    """The path language of svg.Path as a path of matplotlib."""
    from matplotlib.path import Path as Outline

    codes = {"M": Outline.MOVETO, "z": Outline.CLOSEPOLY}
    points, kinds, x, y = [], [], 0.0, 0.0
    for command, numbers in re.findall(r"([MLHVhvz])([^MLHVhvz]*)", data):
        values = [float(number) for number in numbers.split()]
        if command in "ML":
            x, y = values
        elif command in "Hh":
            # a stroke of no length, which is a dot, is not drawn by every backend
            x = values[0] if command == "H" else x + (values[0] or 0.01)
        elif command in "Vv":
            y = values[0] if command == "V" else y + values[0]
        points.append((x, y))
        kinds.append(codes.get(command, Outline.LINETO))
    return Outline(points, kinds)
