"""The entry point: the group of commands, and the one place that turns errors into exit codes."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import sys
import threading
from importlib.metadata import version

import click

from spikecrsae.cli.apply import apply
from spikecrsae.cli.export import export
from spikecrsae.cli.info import info
from spikecrsae.cli.report import report
from spikecrsae.cli.score import score
from spikecrsae.cli.simulate import simulate
from spikecrsae.cli.sort import sort
from spikecrsae.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, OutOfMemoryError, OutputError, SpikeCRsAEError

_UNWRITABLE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


class Terminated(BaseException):
    """SIGTERM arrived; an exception, so that every `with` and `finally` on the way tidies up."""


class Commands(click.Group):
    """The group. A command returns its exit code; whatever it raises leaves here as one line and an exit code."""

    def invoke(self, ctx: click.Context):
        in_main_thread = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGTERM, _terminate) if in_main_thread else None
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()  # a reader that has gone away shows here, not in the interpreter's last breath
        except (click.exceptions.Exit, click.ClickException):
            raise
        except BaseException as error:
            code = _report(error)
        finally:
            if in_main_thread:
                signal.signal(signal.SIGTERM, before)
        ctx.exit(code or 0)


def _terminate(signum, frame) -> None:
    raise Terminated


def _report(error: BaseException) -> int:
    """Say on standard error, in one line, what ended the command; the exit code it has."""
    if isinstance(error, BrokenPipeError):
        # The reader of our output has gone: nothing to tell, and nothing may be flushed into the pipe any more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, KeyboardInterrupt):
        return _say("Interrupted.", EXIT_INTERRUPTED)
    if isinstance(error, Terminated):
        return _say("Terminated.", EXIT_TERMINATED)
    if isinstance(error, SpikeCRsAEError):
        return _say(f"Error: {error}", error.exit_code)
    if _is_out_of_memory(error):
        remedy = "close other programs, lower --chunk-s or train.max_training_s, or use --device cpu"
        return _say(f"Error: out of memory ({error or 'no details'}); {remedy}.", OutOfMemoryError.exit_code)
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        return _say(f"Error: cannot write {error.filename or 'the result'} ({error.strerror}).", OutputError.exit_code)
    where = next(iter(getattr(error, "__notes__", ())), "run again with --verbose for the traceback")
    return _say(f"Error: internal error, {type(error).__name__}: {error}; {where}.", 1)


def _is_out_of_memory(error: BaseException) -> bool:
    """MemoryError, or torch's own on a GPU (a class) or on the CPU (a message), without importing torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _say(line: str, code: int) -> int:
    click.echo(" ".join(line.split()), err=True)
    return code


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version("spikecrsae"), prog_name="spikecrsae")
def cli() -> None:
    """Sort the spikes of single wires and tetrodes.

    Results go to standard output, narration to standard error.

    \b
    Exit codes:
      0  done                            5  finished, but no unit was found
      1  internal error                  6  the output cannot be written
      2  wrong usage                     130  interrupted
      3  the input cannot be used        143  terminated
      4  out of memory
    """


for command in (sort, score, report, export, simulate, info, apply):
    cli.add_command(command)


def main() -> None:
    """The console script. Everything is written by the end, so it leaves at once: to take torch and compiled code apart, which
    nobody needs any more, costs the interpreter one to two seconds."""
    try:
        cli(prog_name="spikecrsae")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
