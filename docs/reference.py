"""A hook of mkdocs: pages that are made when the site is built: every command's own help, every setting, and the pages of the
root folder. What needs mkdocs is imported where it is used, so that tests/test_docs.py reads the page of help without it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spikecrsae.cli.main import cli
from spikecrsae.cli.options import ALL_OPTIONS
from spikecrsae.config import Config

if TYPE_CHECKING:
    from mkdocs.structure.files import Files

#: Pages of the root folder, which the site shows under these names.
ROOT_PAGES = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def page() -> str:
    """The help of the program and of each command, and the settings of the configuration file, as Markdown."""
    top = click.Context(cli, info_name="spikecrsae", **cli.context_settings)
    parts = ["# Every command's help", _block(cli.get_help(top))]
    for name, command in cli.commands.items():
        parts += [f"## {name}", _block(help_of(name, command))]
    parts += ["## Every setting", _block(Config().to_toml(), "toml")]
    return "\n\n".join(parts) + "\n"


def help_of(name: str, command: click.Command) -> str:
    """The whole help of a command, as --help-all shows it."""
    context = click.Context(
        command, info_name=name, parent=click.Context(cli, info_name="spikecrsae"), **cli.context_settings
    )
    context.meta[ALL_OPTIONS] = True
    return command.get_help(context)


def _block(text: str, language: str = "text") -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def on_files(files: Files, config) -> Files:
    """Called by mkdocs when it has collected the pages."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "reference.md", content=page()))
    for name, shown in ROOT_PAGES.items():
        text = (Path(config.config_file_path).parent / name).read_text(encoding="utf-8")
        text = re.sub(r"\]\((\w+\.md)", lambda link: f"]({ROOT_PAGES[link[1]]}", text.replace("](docs/", "](./"))
        files.append(File.generated(config, shown, content=text))
    return files


def on_page_markdown(markdown: str, **_) -> str:
    """Tables write `a\\|b` for a bar within code, as GitHub reads it; Python's Markdown would show the backslash. Links to pages
    of the root folder lead to where the site shows them."""
    for name, shown in ROOT_PAGES.items():
        markdown = markdown.replace(f"../{name}", shown)
    return "\n".join(_unescaped(line) if line.startswith("|") else line for line in markdown.split("\n"))


def _unescaped(row: str) -> str:
    """Bars within code spans of a table's row without their backslashes."""
    return "`".join(part.replace("\\|", "|") if number % 2 else part for number, part in enumerate(row.split("`")))
