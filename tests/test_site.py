"""The pages that `make docs` builds: without a warning, with every command's help, and loading nothing from the network."""

from __future__ import annotations

import html
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from spikecrsae.cli.main import cli

pytestmark = pytest.mark.slow

pytest.importorskip("material", reason="mkdocs-material is not installed; pip install 'spikecrsae[docs]'")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(folder)]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


def test_every_page_is_built_and_loads_nothing(site):
    pages = {page.relative_to(site).with_suffix("").as_posix() for page in site.rglob("*.html")}
    sources = {page.relative_to(ROOT / "docs").with_suffix("").as_posix() for page in (ROOT / "docs").rglob("*.md")}
    assert pages == sources | {"reference", "404", "contributing", "changelog"}
    for page in site.rglob("*.html"):
        loading = re.findall(
            r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"']?(?:https?:)?//[^>]*>", page.read_text("utf-8")
        )
        assert not loading, f"{page.name}: {loading}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)[\s\"']*(https?:)?//", sheet.read_text("utf-8")), sheet.name


def test_the_reference_has_every_command_and_option(site):
    text = html.unescape(re.sub(r"<[^>]+>", "", (site / "reference.html").read_text("utf-8")))
    for name, command in cli.commands.items():
        assert f"Usage: spikecrsae {name}" in text
        assert all(option in text for parameter in command.params for option in parameter.opts if option.startswith("--"))


def test_bars_in_tables_are_shown_without_backslashes():
    hook = runpy.run_path(str(ROOT / "docs" / "reference.py"))["on_page_markdown"]
    assert hook("| `a\\|b` | c\\|d |") == "| `a|b` | c\\|d |", "within code only"
    assert hook("`a\\|b`") == "`a\\|b`", "and only in tables"
