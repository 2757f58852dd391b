"""Figures as files: they show what the page shows, in the looks of page.css, in every format."""

from __future__ import annotations

import io
import json
import re
import sys
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from helpers.command_line import refused, spikecrsae
from helpers.sortings import RUN, make_full_sorting, make_truth, write_result
from matplotlib.image import imread

from spikecrsae.cli.report import _FORMATS
from spikecrsae.report.figures import FORMATS, figure_file, result_figures, sheet, tradeoff_figures
from spikecrsae.report.html import report_html
from spikecrsae.report.pictures import tradeoff_pictures
from spikecrsae.report.svg import Drawing, Path, Picture, Rect

NOTHING = np.zeros((1, 0, 0), np.float32)
COLOR = re.compile("#[0-9a-f]{6}")


def all_figures(sorting) -> dict[str, Drawing]:
    truth = make_truth(sorting) if len(sorting.spikes) else None
    tradeoffs = tradeoff_pictures(truth.curves, truth.comparison, sorting) if truth else {}
    return result_figures(sorting, RUN, tradeoffs)


def pixels(drawing: Drawing) -> np.ndarray:
    """The PNG of a drawing as (height, width, 3) of 0 to 255, twice as large as the drawing."""
    return np.round(255 * imread(io.BytesIO(figure_file(drawing, "png", "x")))[:, :, :3]).astype(int)


def hexed(color: np.ndarray) -> str:
    return "#" + "".join(f"{value:02x}" for value in color)


# ---- which figures there are


def test_a_sorting_has_the_figures_of_its_page():
    names = set(all_figures(make_full_sorting(3, 4)))
    truths = {"tradeoff_n0", "tradeoff_n1", "tradeoff_n2"}
    assert names == truths | {
        "traces", "cross_correlograms", "similarity", "training", "templates", "unit_0", "unit_1", "unit_2",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("sorting", "missing"),
    [
        (make_full_sorting(0, 4, model={}), {"cross_correlograms", "similarity", "training", "templates"}),
        (make_full_sorting(1, 1), {"cross_correlograms", "similarity"}),
        (make_full_sorting(14, 2), set()),
        (make_full_sorting(2, 1, templates=NOTHING[:0], templates_std=NOTHING[:0], example=NOTHING[0]), {"similarity", "templates", "traces"}),
        (make_full_sorting(2, 2, example=NOTHING[0]), {"traces"}),
    ],
    ids=["no-units", "one-unit", "many-units", "no-templates", "no-example"],
)  # fmt: skip
def test_what_a_sorting_does_not_hold_is_left_out(sorting, missing):
    figures = result_figures(sorting, RUN)
    assert {"traces", "cross_correlograms", "similarity", "training", "templates"} - set(figures) == missing
    assert sum(name.startswith("unit_") for name in figures) == sorting.n_units
    for name, drawing in figures.items():
        ElementTree.fromstring(figure_file(drawing, "svg", name))


def test_a_figure_holds_the_paths_of_the_page():
    sorting = make_full_sorting(3, 4)
    page = set(re.findall(r' d="([^"]*)"', report_html(sorting, RUN, make_truth(sorting))))
    figures = [figure_file(drawing, "svg", name).decode() for name, drawing in all_figures(sorting).items()]
    assert page == {path for text in figures for path in re.findall(r' d="([^"]*)"', text)}


def test_the_names_of_truths_do_not_leave_the_folder():
    sorting = make_full_sorting(2, 2)
    truth = make_truth(sorting)
    pictures = tradeoff_pictures(truth.curves, truth.comparison, sorting)
    odd = dict(zip(("../x y", "b"), pictures.values(), strict=True))
    assert list(tradeoff_figures(odd)) == ["tradeoff_..-x-y", "tradeoff_b"]
    assert list(tradeoff_figures({"../x": pictures["n0"]})) == ["tradeoff"]


def test_a_sheet_has_every_picture_with_its_title_and_note():
    small, large = Drawing(100, 50), Drawing(200, 80)
    small.rect(0, 0, 1, 1, "cell")
    large.rect(5, 6, 1, 1, "heat")
    whole = sheet([[Picture("a", small, "")], [Picture("b", small, ""), Picture("c", large, "", "word " * 20)]])
    root = ElementTree.fromstring(figure_file(whole, "svg", "label"))
    assert root.get("aria-label") == "label" and float(root.get("width")) > 300 and float(root.get("height")) > 130
    texts = [text.text for text in root.iter() if text.tag.endswith("text")]
    assert texts[:3] == ["a", "b", "c"] and " ".join(texts[3:]) == ("word " * 20).strip() and len(texts) > 5
    moved = [group.get("transform") for group in root.iter() if group.tag.endswith("}g")]
    assert len(set(moved)) == 3


# ---- looks


@pytest.mark.parametrize("sorting", [make_full_sorting(3, 4), make_full_sorting(14, 2), make_full_sorting(1, 16)])
def test_every_shape_has_a_colour_and_no_look_is_left_open(sorting):
    for name, drawing in all_figures(sorting).items():
        text = figure_file(drawing, "svg", name).decode()
        assert "var(" not in text and "class=" not in text
        for element in ElementTree.fromstring(text).iter():
            kind = element.tag.rpartition("}")[2]
            if kind in ("path", "rect"):
                painted = [element.get(name, "none") for name in ("stroke", "fill")]
                assert any(COLOR.fullmatch(color) for color in painted), element.attrib
            elif kind == "text":
                assert COLOR.fullmatch(element.get("fill")) and element.get("font-size") == "11px"


def test_a_unit_has_the_colour_that_it_has_on_the_page():
    figures = all_figures(make_full_sorting(3, 4))
    for name, color in (("unit_0", "#0072b2"), ("unit_1", "#d55e00"), ("unit_2", "#009e73")):
        bands = re.findall(r'<path fill="(#\w+)"[^>]*opacity="0.22"', figure_file(figures[name], "svg", name).decode())
        assert bands == [color] * 4, "the bands of the template on four channels"


def test_png_shows_each_kind_of_primitive_in_its_place():
    drawing = Drawing(100, 60)
    inner = Drawing(50, 50)
    inner.rect(10, 10, 10, 10, "cell")
    inner.add(Path("M30.0 20.0h0", "here"))
    with inner.group("u1"):
        inner.add(Path("M5.0 45.0V40.0H25.0V45.0z", "bars"))
    inner.add(Path("M0.0 2.0H50.0", "axis"))
    drawing.place(inner, 40, 5)
    drawing.text(10, 40, "$x$", "t-left strong")
    image = pixels(drawing)
    assert image.shape == (120, 200, 3)
    at = lambda x, y: hexed(image[2 * y, 2 * x])  # noqa: E731
    assert at(55, 20) == "#f1f3f6" and at(48, 20) == "#ffffff", "a rectangle, moved by its group"
    assert at(70, 25) == at(67, 25) == "#1b1f24" and at(76, 25) == "#ffffff", "a dot of 9 pixels"
    assert at(50, 47) == "#d55e00" and at(50, 51) == "#ffffff", "a bar in the unit's colour"
    assert (image[13:15, 90:170] < 200).all(axis=2).any(axis=0).all(), "a line"
    written = np.argwhere((image[:, :60] < 150).all(axis=2))
    assert len(written) > 30 and written.min(axis=0)[1] >= 18 and written.max(axis=0)[0] <= 86, "text, no formula"


def test_opacity_and_dashes_are_those_of_the_style_sheet():
    drawing = Drawing(100, 40)
    drawing.rect(0, 0, 50, 20, "heat", 0.5)
    drawing.add(Path("M0.0 30.0H100.0", "rule"))
    image = pixels(drawing)
    np.testing.assert_allclose(image[10, 10], (255 + np.array([0x6C, 0xB8, 0xEC])) / 2, atol=1)
    dark = (image[59:62].min(axis=(0, 2)) < 200).astype(int)
    assert np.sum(np.diff(dark) == 1) == pytest.approx(100 / 7, abs=1.5), "4 on, 3 off"


@pytest.mark.slow
@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_sorting_gives_the_same_bytes_whatever_matplotlib_was_told(kind):
    drawing = all_figures(make_full_sorting(2, 4))["unit_0"]
    content = figure_file(drawing, kind, "x")
    assert content.startswith({"png": b"\x89PNG\r\n\x1a\n", "svg": b"<svg ", "pdf": b"%PDF-"}[kind])
    with matplotlib.rc_context({"font.size": 20.0, "lines.linewidth": 5.0, "savefig.dpi": 40.0}):
        assert figure_file(drawing, kind, "x") == content
        assert matplotlib.rcParams["font.size"] == 20.0
    if "matplotlib.pyplot" in sys.modules:
        assert sys.modules["matplotlib.pyplot"].get_fignums() == []


@pytest.mark.slow
def test_letters_that_the_font_lacks_are_no_warning():
    drawing = Drawing(50, 50)
    drawing.text(0, 10, "\u4e2d\U0001f9e0", "t-left")
    drawing.add(Rect(0, 0, 1, 1, "cell", None))
    for kind in FORMATS:
        assert figure_file(drawing, kind, "x")


# ---- the command


@pytest.fixture
def result(tmp_path):
    return write_result(tmp_path / "one.sorted", make_full_sorting(1, 2), RUN)


def test_report_writes_figures_into_the_result_and_its_manifest(result):
    assert _FORMATS == FORMATS
    for _ in range(2):
        run = spikecrsae("report", result, "--figures", result / "figures", "--figure-format", "svg")
        assert run.exit_code == 0, run.stderr
        assert run.stdout.strip() == str(result / "report.html")
        assert f"wrote 4 figures into {result / 'figures'}" in run.stderr
    names = {"traces.svg", "training.svg", "templates.svg", "unit_0.svg"}
    assert {path.name for path in (result / "figures").iterdir()} == names
    assert {f"figures/{name}" for name in names} <= set(json.loads((result / "manifest.json").read_text())["files"])


@pytest.mark.slow
def test_report_writes_figures_in_several_formats_elsewhere(result, tmp_path):
    words = ("report", result, "--truth", result / "spikes.csv", "--figures", tmp_path / "out", "--json")
    run = spikecrsae(*words, "--figure-format", "pdf", "--figure-format", "svg")
    assert run.exit_code == 0, run.stderr
    names = {
        f"{name}.{kind}" for name in ("traces", "training", "templates", "unit_0", "tradeoff") for kind in ("pdf", "svg")
    }
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert sorted(json.loads(run.stdout)["figures"]) == sorted(str(tmp_path / "out" / name) for name in names)
    assert not any("traces" in name for name in json.loads((result / "manifest.json").read_text())["files"])
    run = spikecrsae("report", result, "--figures", tmp_path / "png")
    assert {path.suffix for path in (tmp_path / "png").iterdir()} == {".png"}


@pytest.mark.slow
def test_figures_take_the_place_of_nothing_else(result, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "traces.svg").write_text("mine")
    words = ("report", result, "--figures", tmp_path / "out", "--figure-format", "svg")
    refused(spikecrsae(*words), "holds traces.svg already; give --overwrite", code=6)
    assert "  figures" not in spikecrsae(*words).stderr, "nothing is drawn before the place is known to be free"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["traces.svg"]
    assert (tmp_path / "out" / "traces.svg").read_text() == "mine" and not (result / "report.html").exists()
    assert spikecrsae(*words, "--overwrite").exit_code == 0
    assert (tmp_path / "out" / "traces.svg").read_text().startswith("<svg")
    refused(spikecrsae("report", result, "--figure-format", "svg"), "--figure-format says how", code=2)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    refused(spikecrsae("report", result, "--figures", tmp_path / "link"), "is a symbolic link", code=6)
