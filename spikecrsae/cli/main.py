"""The entry point: the group of commands, and the one place that turns errors into exit codes."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from importlib.metadata import version
from typing import Any

import click

from spikecrsae.cli import signals
from spikecrsae.cli.apply import apply
from spikecrsae.cli.batch import batch
from spikecrsae.cli.compare import compare
from spikecrsae.cli.export import export
from spikecrsae.cli.info import info
from spikecrsae.cli.report import report
from spikecrsae.cli.rerun import rerun
from spikecrsae.cli.score import score
from spikecrsae.cli.show import show
from spikecrsae.cli.simulate import simulate
from spikecrsae.cli.sort import sort
from spikecrsae.cli.usage import plain_words
from spikecrsae.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, described, remedy_of
from spikecrsae.system.text import visible


class Commands(click.Group):
    """The group. A command returns its exit code; whatever it raises leaves here as one line and an exit code."""

    def main(self, *arguments: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        """As click does it, but for Ctrl-C before a command has begun, which is 130 and not 1 there."""
        try:
            code = super().main(*arguments, standalone_mode=False, **extra)  # type: ignore[call-overload]
            if not standalone_mode:
                return code
        except click.ClickException as error:
            if not standalone_mode:
                raise
            error.show()
            code = error.exit_code
        except click.Abort:
            code = _say("Interrupted.", EXIT_INTERRUPTED)
        except OSError as error:  # the help page, which is shown before a command begins, cannot be written
            code = _report(error)
        sys.exit(code)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of work."""
        return list(self.commands)

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **extra)
        except click.UsageError as error:
            raise _told(error) from error

    def invoke(self, ctx: click.Context) -> None:
        with signals.answered():
            try:
                code = super().invoke(ctx)
                sys.stdout.flush()  # a reader that has gone away shows here, not in the interpreter's last breath
            except click.UsageError as error:
                raise _told(error) from error
            except (click.exceptions.Exit, click.ClickException):
                raise
            except BaseException as error:
                code = _report(signals.asked_to_end(error))
        ctx.exit(code or 0)


def _told(error: click.UsageError) -> Exception:
    """Say what is wrong with the words of a command, and where to read on; returns what ends the command."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return error
    _say(f"Error: {plain_words(error)}", error.exit_code)
    where = error.ctx.command_path if error.ctx else "spikecrsae"
    click.echo(f"Try '{where} --help' for help.", err=True)
    return click.exceptions.Exit(error.exit_code)


def _report(error: BaseException) -> int:
    """Say on standard error, in one line, what ended the command; the exit code it has."""
    if isinstance(error, BrokenPipeError):
        # The reader of our output has gone: nothing to tell, and nothing may be flushed into the pipe any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, KeyboardInterrupt):
        return _say(f"Interrupted. {remedy_of(error)}", EXIT_INTERRUPTED)
    if isinstance(error, signals.Terminated):
        return _say(f"Terminated. {remedy_of(error)}", EXIT_TERMINATED)
    line, code = described(error)
    return _say(f"Error: {line}", code)


def _say(line: str, code: int) -> int:
    click.echo(visible(" ".join(line.split())), err=True)
    return code


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("spikecrsae"), prog_name="spikecrsae")
def cli() -> None:
    """Sort the spikes of single wires and tetrodes.

    Results go to standard output, narration to standard error.

    \b
    Exit codes:
      0  done                            6  the output cannot be written
      1  internal error                  7  batch: a recording failed
      2  wrong usage                     8  rerun: other spikes than before
      3  the input cannot be used        130  interrupted
      4  out of memory                   143  terminated
      5  finished, but no unit was found
    """


for command in (info, sort, show, report, score, compare, export, apply, batch, rerun, simulate):
    cli.add_command(command)


def main() -> None:
    """The console script. Everything is written by the end, so it leaves at once: to take torch and compiled code apart, which
    nobody needs any more, costs the interpreter one to two seconds."""
    os.environ.pop("MPLBACKEND", None)  # nothing is drawn in windows; a wrong name would end a run where it draws
    try:
        cli(prog_name="spikecrsae")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
