"""Run the command line, in this process or as a process of its own, and check how it refuses."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable

from click.testing import CliRunner, Result

from spikecrsae.cli.main import cli

#: Seconds that a test waits for a process, at most. The first run of a machine compiles for a while.
PATIENCE_S = 300
#: Begin a line of narration, which may stand before an error.
NARRATION = ("  ", "Note: ", "going on", "nothing to")


def spikecrsae(*arguments: object, **options) -> Result:
    """Run a command in this process; its result has exit_code, stdout and stderr."""
    return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="spikecrsae", **options)


def start_command(*arguments: object, **options) -> subprocess.Popen:
    """Start a command as a process of its own."""
    words = [sys.executable, "-m", "spikecrsae", *map(str, arguments)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


def refused(result: Result, *words: str, code: int = 3) -> None:
    """Check for an exit code, an empty standard output and one line of error that holds the words."""
    lines = [line for line in result.stderr.splitlines() if not line.startswith(NARRATION)]
    assert result.exit_code == code, result.stderr
    assert result.stdout == "" and len(lines) == 1, result.stderr
    assert lines[0].startswith("Error: ") and "internal error" not in lines[0]
    for word in words:
        assert word in lines[0], f"{word!r} is not in {lines[0]!r}"


def wait_until(condition: Callable[[], object], process: subprocess.Popen | None = None) -> None:
    """Wait until a condition holds; fail where it does not for long, or where the process ends before."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.02)


def group_is_alive(group: int) -> bool:
    """Whether a process of this group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
