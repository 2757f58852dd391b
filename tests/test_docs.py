"""The pages and the command line say the same: every command, option, default, setting and exit code, both ways. What pages
name exists: links and their anchors, the tests of docs/ecosystem.md."""

from __future__ import annotations

import re
import runpy
import tomllib
from dataclasses import fields
from pathlib import Path

import click
import pytest

from spikecrsae import errors
from spikecrsae.cli.main import cli
from spikecrsae.config import Config

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
SECTIONS = {part.split("\n", 1)[0].strip("` "): part for part in re.split(r"^## ", PAGE, flags=re.M)[1:]}
REFERENCE = runpy.run_path(str(ROOT / "docs" / "reference.py"))
#: Options that pages name and that belong to docker, pip and a benchmark.
OTHERS = {"--build-arg", "--no-deps", "--read-only", "--sporco-python"}


def rows(section: str) -> dict[str, list[str]]:
    """Table rows of a section by what stands in backticks in their first cell."""
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
    """What the help of a command, which is also the page of the site, says of each option: its meaning and default."""
    text = REFERENCE["help_of"](name, cli.commands[name])
    found: dict[str, list[str]] = {}
    first = re.search(r"^(Options|Reading the recording):$", text, flags=re.M)
    assert first
    for line in text[first.end() :].splitlines():
        if start := re.match(r"  (?:-\w, )?(--[a-z-]+)(.*)", line):
            words = found.setdefault(start[1], [start[2]])
        elif line.startswith("   "):
            words.append(line)
    return {option: " ".join(" ".join(words).split()) for option, words in found.items()}


def test_every_command_has_a_section_and_the_other_way_round():
    named = [name for name in SECTIONS if re.fullmatch(r"[a-z]+", name)]
    assert named == list(cli.commands), "in the order of work"
    page = REFERENCE["page"]()
    assert re.findall(r"^## (.+)$", page, flags=re.M) == [*cli.commands, "Every setting"]


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_option_is_documented_and_exists(name):
    documented = documented_options(name)
    assert set(documented) - {"--help"} == set(options_of(cli.commands[name])) - {"--help"}
    for option, said in documented.items():
        meaning = options_of(cli.commands[name])[option].help if option != "--help" else "Show this message and exit."
        assert len(meaning.split()) >= 3 and meaning.endswith("."), f"{name} {option}: {meaning!r}"
        assert "".join(meaning.split()) in "".join(said.split()), f"{name} {option}: {said!r}"


def test_every_option_that_a_page_names_exists():
    known = {word for command in cli.commands.values() for p in command.params for word in (*p.opts, *p.secondary_opts)}
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        text = page.read_text(encoding="utf-8")
        named = set(re.findall(r"`(--[a-z][a-z-]+)", text))
        for line in re.findall(r"spikecrsae(?: [a-z]+)? [^`\n]*", text):
            if not re.search(r"python|pip|docker", line):
                named |= set(re.findall(r"(?<=\s)(--[a-z][a-z-]+)", line.split(" #")[0]))
        assert not (strange := named - known - {"--help", "--version"} - OTHERS), f"{page.name}: {sorted(strange)}"


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_documented_defaults_are_true(name):
    documented = documented_options(name)
    for word, parameter in options_of(cli.commands[name]).items():
        if parameter.show_default:
            default = parameter.default
            if isinstance(default, bool):
                default = (parameter.opts if default else parameter.secondary_opts)[-1].lstrip("-")
            assert f"[default: {default}" in documented[word], word


def test_the_options_of_settings_have_the_defaults_of_the_configuration():
    settings = {f.name: f.default for stage in fields(Config()) for f in fields(getattr(Config(), stage.name))}
    for name in ("sort", "batch", "apply"):
        for parameter in options_of(cli.commands[name]).values():
            if parameter.name in settings and parameter.show_default:
                default = settings[parameter.name]
                assert parameter.default == ("auto" if default is None else default), f"{name} {parameter.name}"


def test_every_setting_of_the_file_is_documented_with_its_default():
    config, lines = Config(), Config().to_toml().splitlines()
    for stage in fields(config):
        place = lines.index(f"[{stage.name}]")
        for f in fields(getattr(config, stage.name)):
            end = next(i for i in range(place + 1, len(lines)) if not lines[i].startswith("#"))
            said = " ".join(line.lstrip("# ") for line in lines[place + 1 : end])
            value = tomllib.loads(lines[end])
            assert list(value) == [f.name]
            assert value[f.name] == ("auto" if f.default is None else f.default)
            assert said == f"{f.metadata['help']} (default: {lines[end].split(' = ', 1)[1]})"
            place = end


def test_settings_that_pages_name_exist():
    config = Config()
    stages = "|".join(stage.name for stage in fields(config))
    for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]:
        for stage, name in re.findall(rf"`({stages})\.([a-z_]+)", page.read_text(encoding="utf-8")):
            package = ROOT / "spikecrsae" / stage
            assert hasattr(getattr(config, stage), name) or (package / f"{name}.py").exists(), f"{page.name}: {stage}.{name}"


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
    assert sum(text + tables for text, tables in counting["manual"]().values()) <= counting["MOST"] == 18_000


def test_a_message_names_value_rule_and_remedy():
    found = runpy.run_path(str(ROOT / ".ci" / "messages.py"))["messages"]()
    assert len(found) > 300
    assert not [m.place for m in found if not m.values and not m.remedy]
    assert sum(m.is_bare for m in found) <= 25, "python .ci/messages.py --bare lists them"
