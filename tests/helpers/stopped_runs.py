"""Runs of the command line in processes of their own that a test stops: forked from a server that has loaded everything."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from pathlib import Path

from helpers.command_line import PATIENCE_S

_LOADED = [
    "spikecrsae.cli.main", "spikecrsae.run.job", "spikecrsae.pipeline.groups", "spikecrsae.exports.export",
    "spikecrsae.report.html", "sklearn.decomposition",
]  # fmt: skip
_context = multiprocessing.get_context("forkserver")


def start(*words: object, errors: Path | None = None):
    """`spikecrsae WORDS` in a process of its own; what it says on standard error goes to the file `errors`."""
    _context.set_forkserver_preload(_LOADED)
    process = _context.Process(target=_command, args=([str(word) for word in words], errors))
    process.start()
    return process


def finished(*words: object, errors: Path | None = None) -> int:
    """The exit code of `spikecrsae WORDS`."""
    process = start(*words, errors=errors)
    process.join(PATIENCE_S)
    assert process.exitcode is not None, f"{words} has not ended within {PATIENCE_S} s"
    return process.exitcode


def wait_for_stage(process, folder: Path, stage: str) -> None:
    """Until the run that sorts into `folder` has come to a stage; fails where it ends before."""
    log, end = folder.with_name(folder.name + ".unfinished") / "run.log", time.monotonic() + PATIENCE_S
    while process.is_alive() and time.monotonic() < end:
        if log.exists() and f"{stage} starts" in log.read_text(encoding="utf-8"):
            return
        time.sleep(0.002)
    raise AssertionError(f"the run ended with {process.exitcode} before it came to {stage}")


def _command(words: list[str], errors: Path | None) -> None:
    from spikecrsae.__main__ import main

    with open(errors or os.devnull, "wb") as stderr, open(os.devnull, "wb") as stdout:
        os.dup2(stderr.fileno(), 2)
        os.dup2(stdout.fileno(), 1)
    sys.argv = ["spikecrsae", *words]
    main()
