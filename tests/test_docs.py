"""docs/cli.md and the command line say the same: every command, option, default, setting and exit code, both ways. What
pages name exists: links and their anchors, the tests of docs/ecosystem.md."""

from __future__ import annotations

import re
import runpy
from dataclasses import fields
from operator import attrgetter
from pathlib import Path

import click
import pytest

from spikecrsae import errors
from spikecrsae.cli.main import cli
from spikecrsae.config import Config

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
SECTIONS = {part.split("\n", 1)[0].strip("` "): part for part in re.split(r"^## ", PAGE, flags=re.M)[1:]}
READING = "Reading a recording"
SHARED, SETTINGS = "Shared options", "The configuration file"


def rows(section: str) -> dict[str, list[str]]:
    """Table rows of a section by what stands in backticks in their first cell: `--name X` -> --name."""
    found = {}
    for line in SECTIONS[section].splitlines():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and cells[0].startswith("`"):
            for word in re.findall(r"`([^`]+)`", cells[0]):
                found[word.split()[0]] = cells[1:]
    return found


def options_of(command: click.Command) -> dict[str, click.Option]:
    return {p.opts[-1]: p for p in command.params if isinstance(p, click.Option)}


def documented_options(name: str) -> dict[str, str]:
    """The default of each option: in the command's own section, in the section on reading where it points there, and in the tables
    of shared options and of settings, which name the commands."""
    own = {word: cells[0] for word, cells in rows(name).items() if word.startswith("--")}
    reading = {word: cells[0] for word, cells in rows(READING).items()} if "[Reading a" in SECTIONS[name] else {}
    shared = {
        word: cells[1] for word, cells in rows(SHARED).items() if name in cells[0].split(", ") and word.startswith("--")
    }
    # what is no value in the file is auto on the command line, as the page says
    settings = {
        "--" + setting.split(".")[1].replace("_", "-"): "auto" if attrgetter(setting)(Config()) is None else cells[1]
        for setting, cells in rows(SETTINGS).items()
        if name in cells[0].split(", ")
    }
    return reading | shared | settings | own


def test_every_command_has_a_section_and_the_other_way_round():
    named = [name for name in SECTIONS if re.fullmatch(r"[a-z]+", name)]
    assert named == list(cli.commands), "in the order of work"
    shared = [cells[0].split(", ") for cells in (rows(SHARED) | rows(SETTINGS)).values() if cells[0]]
    assert {name for names in shared for name in names} <= set(named)


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_option_is_documented_and_exists(name):
    assert set(documented_options(name)) == set(options_of(cli.commands[name]))


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_documented_defaults_are_true(name):
    documented = documented_options(name)
    for word, parameter in options_of(cli.commands[name]).items():
        if parameter.show_default:
            assert documented[word].strip("`") == str(parameter.default), word


def test_every_setting_of_the_file_is_documented_with_its_default():
    documented = {name: cells[1].strip("`") for name, cells in rows(SETTINGS).items()}
    config = Config()
    actual = {}
    for stage in fields(config):
        section = getattr(config, stage.name)
        actual |= {f"{stage.name}.{f.name}": f.default for f in fields(section)}
    assert documented == {name: "none" if value is None else str(value) for name, value in actual.items()}


def test_every_exit_code_is_documented():
    kinds = [errors.SpikeCRsAEError, *errors.SpikeCRsAEError.__subclasses__()]
    codes = {0, *(kind.exit_code for kind in kinds)}
    codes |= {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    assert {int(code) for code in rows("Exit codes")} == codes


NOTEBOOK = ROOT / "benchmarks" / "notebook"
PAGES = sorted(
    [*ROOT.glob("*.md"), ROOT / "sample_data" / "README.md", *NOTEBOOK.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
)


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in links, as GitHub and the built pages make it."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#{1,6} (.+)$", text, flags=re.M)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", page.read_text(encoding="utf-8")):
        place = page.parent / target if target else page
        assert place.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(place), f"{page.name} links to {target}#{anchor}"


def test_modules_that_pages_name_exist():
    package = ROOT / "spikecrsae"
    rooms = "|".join(path.name for path in package.iterdir() if (path / "__init__.py").exists())
    for page in set(PAGES) - {NOTEBOOK / "log.md"}:  # the log speaks of what was
        text = page.read_text(encoding="utf-8")
        for room, module, name in re.findall(rf"`({rooms})\.([a-z_]+)\.([A-Za-z_]+)", text):
            file = package / room / f"{module}.py"
            assert file.exists(), f"{page.name} names {room}.{module}"
            assert re.search(rf"^(def|class) {name}\b|^{name}\b", file.read_text(encoding="utf-8"), flags=re.M), (
                f"{page.name}: {name}"
            )
        for file in re.findall(rf"`((?:{rooms})/\w+\.py)`", text):
            assert (package / file).exists(), f"{page.name} names {file}"


def test_every_feature_names_a_test_that_exists():
    text = (ROOT / "docs" / "ecosystem.md").read_text(encoding="utf-8")
    tables = text.split("## What spikecrsae does not have")[0]
    for row in re.findall(r"^\| (?!\|)(.+)$", tables, flags=re.M):
        feature, ours = row.split(" | ")[:2]
        if feature.startswith("spikecrsae"):
            continue
        named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", ours)
        assert named or ours.startswith("**no**") or feature == "Containers", f"{feature}: no test is named"
        for file, test in named:
            assert f"\ndef {test}(" in next((ROOT / "tests").rglob(file)).read_text(encoding="utf-8"), (
                f"{feature}: {file}::{test}"
            )


def test_the_manual_stays_short():
    counting = runpy.run_path(str(ROOT / ".ci" / "words.py"))
    text, tables = counting["words"]("Two words.\n\n    code is none\n\n| of | tables |\n|---|---|\n| one | [two](x.md) |\n")
    assert (text, tables) == (2, 4)
    assert sum(text for text, _ in counting["manual"]().values()) <= counting["MOST"]


def test_a_message_names_value_rule_and_remedy():
    found = runpy.run_path(str(ROOT / ".ci" / "messages.py"))["messages"]()
    assert len(found) > 300
    assert not [m.place for m in found if not m.values and not m.remedy]
    assert sum(m.is_bare for m in found) <= 25, "python .ci/messages.py --bare lists them"
