"""What a person sees: progress and log on standard error, tables and JSON on standard output."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import textwrap
import time
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from spikecrsae.cli import signals
from spikecrsae.errors import SpikeCRsAEError
from spikecrsae.progress import Observer
from spikecrsae.system.json_values import to_json
from spikecrsae.system.logs import LOGS, STAGES, attached
from spikecrsae.system.text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

_LOG_EVERY_S = 5.0


class Narrator(Observer):
    """Shows the stages on standard error: a bar with a time estimate on a terminal, else a line every few seconds."""

    def __init__(self, quiet: bool = False) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)
        self._quiet = quiet
        self.live = self.console.is_terminal and not self.console.is_dumb_terminal and not quiet
        self._bar: Progress | None = None

    def start(self, stage: str, total: int | None = None) -> None:
        signals.repeat()
        self._stage, self._total, self._done = stage, total, 0
        self._estimates = True
        self._began = self._said = time.monotonic()
        STAGES.debug("%s starts", stage)
        if self.live:
            self.close()
            self._bar = _progress_bar(self.console)
            self._task = self._bar.add_task(stage, total=total, estimates=True)
            self._bar.start()

    def give_no_estimate(self) -> None:
        self._estimates = False
        if self._bar is not None:
            self._bar.update(self._task, estimates=False)

    def advance(self, n: int = 1) -> None:
        self._done += n
        if self._bar is not None:
            self._bar.advance(self._task, n)
        elif time.monotonic() - self._said >= _LOG_EVERY_S:
            self._said = time.monotonic()
            self._line(f"  {self._stage:<12} {_course(self._done, self._total, self._said - self._began, self._estimates)}")

    def finish(self, summary: str = "") -> None:
        self.close()
        seconds = time.monotonic() - self._began
        STAGES.debug("%s ended after %.2f s: %s", self._stage, seconds, summary)
        self._line(f"  {self._stage:<12} {seconds:6.1f} s  {summary}".rstrip())

    def begin(self, line: str) -> None:
        """Say what begins, before what it needs is loaded; on a terminal only."""
        if self.live:
            self.console.print(visible(line), markup=False, soft_wrap=True)

    def say(self, line: str) -> None:
        STAGES.debug(line)
        self._line(line)

    def close(self) -> None:
        """Take a bar off the screen, also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _line(self, text: str) -> None:
        if not self._quiet:
            self.console.print(visible(text), markup=False, soft_wrap=True)


class Board:
    """What is at work just now, a line each, below the narration; on a terminal only."""

    def __init__(self, narrator: Narrator) -> None:
        self._live = None
        if narrator.live:
            from rich.live import Live

            self._live = Live(console=narrator.console, transient=True, auto_refresh=False)
            self._live.start()

    def show(self, lines: list[str]) -> None:
        if self._live is not None:
            from rich.text import Text

            self._live.update(Text("\n".join(f"    {visible(line)}" for line in lines)), refresh=True)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()


def _progress_bar(console: Console) -> Progress:
    from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
    from rich.text import Text

    class Course(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text(_course(task.completed, task.total, task.elapsed or 0.0, task.fields["estimates"]))

    columns = (TextColumn("  {task.description:<12}"), BarColumn(bar_width=20), Course())
    return Progress(*columns, console=console, transient=True)


def _course(done: float, total: float | None, seconds: float, estimates: bool) -> str:
    """How far a stage has come; an estimate of the rest, if there shall be one, where its total is known."""
    if not total or not done:
        return f"{seconds:.0f} s so far"
    so_far = f"{100 * done / total:3.0f} %, {seconds:.0f} s so far"
    rest = seconds * (total - done) / done
    return f"{so_far}, about {max(rest, 0):.0f} s left" if estimates else so_far


class _StderrHandler(logging.Handler):
    """Log records as lines on the narrator's console, which keeps a running bar whole; the stages show themselves."""

    def __init__(self, console: Console, level: int) -> None:
        super().__init__(level)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != STAGES.name:
            word = "" if record.levelno < logging.WARNING else f"{record.levelname.capitalize()}: "
            for line in record.getMessage().splitlines():
                self._console.print(word + visible(line), markup=False, soft_wrap=True)


def narrated(function: Callable) -> Callable:
    """Turn --quiet and --verbose into a Narrator, handed to the command as `narrator`, and into log lines on stderr."""

    @functools.wraps(function)
    def command(*, quiet: bool = False, verbose: bool = False, **values: Any) -> Any:
        level = logging.ERROR if quiet else logging.DEBUG if verbose else logging.WARNING
        with (
            contextlib.closing(Narrator(quiet)) as narrator,
            attached(_StderrHandler(narrator.console, level), *LOGS[: 1 + verbose]),
        ):
            try:
                return function(narrator=narrator, **values)
            except (SpikeCRsAEError, click.ClickException):
                raise
            except Exception as error:
                if verbose:
                    narrator.close()
                    for line in "".join(traceback.format_exception(error)).splitlines():
                        say(line, err=True)
                    error.add_note("its traceback stands above")
                raise

    return command


def say(line: object, err: bool = False) -> None:
    """One line on standard output, or standard error; what a file has named cannot steer the terminal."""
    click.echo(visible(line), err=err)


def say_fact(label: str, text: str) -> None:
    """A fact on standard output; a terminal's lines are filled and no longer than it is wide."""
    first, rest = f"{label:<20} ", " " * 21
    room = _stdout_console().width if _stdout_console().is_terminal else len(first + text)
    lines = textwrap.wrap(text, max(room - len(rest), 20), break_long_words=False, break_on_hyphens=False) or [""]
    for number, line in enumerate(lines):
        say((rest if number else first) + line)


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on standard output; NaN and infinity become null, as JSON has neither."""
    click.echo(json.dumps(to_json(document), indent=2, allow_nan=False))


def print_table(columns: list[str], rows: list[list[Any]], title: str = "", left: tuple[str, ...] = ()) -> None:
    """A table on standard output; nothing cut off, numbers to the right and the columns named in `left` to the left."""
    console, table = _table(columns, rows, title, left)
    if _natural_width(console, table) > console.width:  # columns move closer together
        table.padding = 0
    # a terminal that is too narrow even so breaks the lines, which loses nothing
    console.width = max(console.width, _natural_width(console, table))
    with console.capture() as capture:
        console.print(table)
    lines = (line.rstrip() for line in capture.get().splitlines())
    click.echo("\n".join(line for line in lines if line))


def fits(columns: list[str], rows: list[list[Any]]) -> bool:
    """Whether standard output has room for a table, its columns close together if need be, without breaking its lines."""
    console, table = _table(columns, rows)
    table.padding = 0
    return _natural_width(console, table) <= console.width


def _natural_width(console: Console, table: Table) -> int:
    """What a table takes where there is no limit."""
    return console.measure(table, options=console.options.update(width=100_000)).maximum


def width() -> int:
    """Characters in a line of standard output; where it is no terminal, as many as fit well into a file."""
    return _stdout_console().width


def _stdout_console() -> Console:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 160
    return console


def _table(columns: list[str], rows: list[list[Any]], title: str = "", left: tuple[str, ...] = ()) -> tuple:
    """A console on standard output, and the table for it."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(visible(title)) if title else None,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for column in columns:
        table.add_column(Text(visible(column)), justify="left" if column in left else "right", no_wrap=True)
    for row in zip(*(_cells(column) for column in zip(*rows, strict=True)), strict=True):
        table.add_row(*(Text(visible(cell)) for cell in row))
    return _stdout_console(), table


def _cells(column: tuple) -> list[str]:
    """A column as text; its fractions share as many decimals as give the largest three digits, - stands for nothing."""
    values = [to_json(value) for value in column]
    largest = max((abs(value) for value in values if isinstance(value, float)), default=0.0)
    decimals = max(0, 2 - math.floor(math.log10(largest))) if largest else 0
    return ["-" if v is None else f"{v:.{decimals}f}" if isinstance(v, float) else str(v) for v in values]
