"""A hook of mkdocs: the page reference.md, every command's own help, written anew whenever the site is built."""

from __future__ import annotations

import click
from mkdocs.structure.files import File, Files

from spikecrsae.cli.main import cli


def page() -> str:
    """The help of the program and of each command, as Markdown."""
    top = click.Context(cli, info_name="spikecrsae", **cli.context_settings)
    parts = ["# Every command's help", _block(cli.get_help(top))]
    for name, command in cli.commands.items():
        parts += [f"## {name}", _block(command.get_help(click.Context(command, info_name=name, parent=top)))]
    return "\n\n".join(parts) + "\n"


def _block(text: str) -> str:
    return f"```text\n{text}\n```"


def on_files(files: Files, config) -> Files:
    """Called by mkdocs when it has collected the pages."""
    files.append(File.generated(config, "reference.md", content=page()))
    return files


def on_page_markdown(markdown: str, **_) -> str:
    """Tables write `a\\|b` for a bar within code, as GitHub reads it; Python's Markdown would show the backslash."""
    return "\n".join(_unescaped(line) if line.startswith("|") else line for line in markdown.split("\n"))


def _unescaped(row: str) -> str:
    """Bars within code spans of a table's row without their backslashes."""
    return "`".join(part.replace("\\|", "|") if number % 2 else part for number, part in enumerate(row.split("`")))
