"""report.html in a browser: every figure is drawn, nothing is wrong on the console, and the keyboard reaches everything."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from helpers import browser
from helpers.sortings import HOSTILE, RUN, make_full_sorting, make_truth

from spikecrsae.report.html import report_html

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    program = browser.find_chromium()
    if not program:
        pytest.skip("no Chromium on the path, and the environment variable CHROMIUM names none")
    with browser.Browser(program, tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    sorting = make_full_sorting(4, 4, channels={"ids": np.array([HOSTILE] * 4, dtype=object)})
    file.write_text(report_html(sorting, RUN, make_truth(sorting)), encoding="utf-8")
    return file


BOXES = """[...document.querySelectorAll("svg")].map((svg) => {
  const inner = svg.getBBox(), outer = svg.getBoundingClientRect();
  const shapes = [...svg.querySelectorAll("path, rect")];
  const bare = shapes.filter((shape) => {
    const style = getComputedStyle(shape);
    return style.stroke === "none" && style.fill === "none";
  });
  const wrong = [...svg.querySelectorAll("rect")].filter((rect) => {
    return Math.abs(rect.getBBox().width - rect.getAttribute("width")) > 0.1;
  });
  const shown = shapes.filter((shape) => shape.getBBox().width > 0 || shape.getBBox().height > 0);
  return [inner.width, inner.height, outer.width, outer.height, shown.length, bare.length, wrong.length, svg.getAttribute("aria-label")];
})"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1320, 390])
def test_every_figure_is_drawn_and_the_console_is_silent(chromium, page, tmp_path, width, dark):
    chromium.open(page, width, dark)
    boxes = chromium.evaluate(BOXES)
    assert len(boxes) == text_count(page)
    for *sizes, n_shown, n_bare, n_wrong, label in boxes:
        assert min(sizes) > 50 and n_shown > 0, label
        assert n_bare == 0, f"{label}: shapes without a colour"
        assert n_wrong == 0, f"{label}: shapes of another width than was drawn"
    assert chromium.errors == []
    assert chromium.evaluate("document.documentElement.scrollWidth") <= width, "only frames within the page scroll sideways"
    back = chromium.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", back)[:3])) < 200) is dark
    picture = chromium.screenshot(tmp_path / "page.png")
    assert picture.startswith(b"\x89PNG") and len(picture) > 50_000


def text_count(page: Path) -> int:
    return page.read_text(encoding="utf-8").count("<svg")


def test_units_tables_and_theme_answer_to_the_keyboard(chromium, page):
    chromium.open(page)
    shown = (
        '[...document.querySelectorAll("article.unit")].filter((u) => u.checkVisibility()).map((u) => u.dataset.unit).join()'
    )
    focused = "document.activeElement.textContent"
    assert chromium.evaluate(shown) == "0,1,2,3"
    for _ in range(200):
        chromium.press("Tab")
        if chromium.evaluate(focused) == "none":
            break
    assert chromium.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid", "the focus is seen"
    chromium.press("Enter", "\r")
    assert chromium.evaluate(shown) == ""
    chromium.press("ArrowRight")
    chromium.press("Enter", "\r")
    assert chromium.evaluate(shown) == "0,3", "the single units"
    chromium.evaluate("""document.querySelector('td a[href="#unit-2"]').focus()""")
    chromium.press("Enter", "\r")
    assert chromium.evaluate(shown) == "0,2,3" and chromium.evaluate("document.activeElement.id") == "unit-2"

    order = '[...document.querySelectorAll(".units tbody tr")].map((r) => r.cells[0].textContent).join()'
    heading = """[...document.querySelectorAll(".units .order")].find((b) => b.textContent === "{}").focus()"""
    chromium.evaluate(heading.format("SNR"))
    chromium.press("Enter", "\r")
    assert chromium.evaluate(order) == "0,2,1,3", "what is not known comes last"
    chromium.evaluate(heading.format("amplitude (µV)"))
    chromium.press("Enter", "\r")
    assert chromium.evaluate(order) == "0,1,2,3"
    assert chromium.evaluate("document.activeElement.closest('th').ariaSort") == "ascending"

    chromium.evaluate("document.getElementById('theme').focus()")
    schemes = []
    for _ in range(3):
        chromium.press("Enter", "\r")
        schemes.append(chromium.evaluate("getComputedStyle(document.documentElement).colorScheme"))
    assert schemes == ["light", "dark", "light dark"]
    unreachable = """[...document.querySelectorAll("button, a, summary, .scroll")].filter((e) => e.tabIndex < 0).length"""
    assert chromium.evaluate(unreachable) == 0
    assert chromium.errors == []
