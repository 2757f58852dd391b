"""Where the package's log goes: to a file while a run fills its folder, to whatever handler a caller attaches."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from spikecrsae.system.text import visible

#: The package's own log, and what libraries say through the warnings module.
LOGS = ("spikecrsae", "py.warnings")
#: The course of the stages, which the command line shows by other means.
STAGES = logging.getLogger("spikecrsae.stages")
#: What this thread works for, where several tasks share a process.
_task: ContextVar[object | None] = ContextVar("task", default=None)


class _File(logging.FileHandler):
    """Raises what goes wrong when a record is written: a disk that is full concerns the run, not its console."""

    def handleError(self, record: logging.LogRecord) -> None:
        raise


class _Visible(logging.Formatter):
    """Records without control characters: a log is looked at in a terminal, and a line of it is not to be forged."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n  ".join(map(visible, super().format(record).splitlines()))


@contextlib.contextmanager
def logging_to_file(path: Path) -> Iterator[None]:
    """Append the package's log to `path`; an error that passes through is written with its traceback and told where."""
    handler = _File(path, encoding="utf-8")
    handler.setFormatter(_Visible("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    with contextlib.closing(handler), attached(handler, *LOGS):
        try:
            yield
        except Exception as error:
            STAGES.debug("the run ended with an error", exc_info=True)
            error.add_note(f"its traceback is in {path}")
            raise


@contextlib.contextmanager
def attached(handler: logging.Handler, *names: str) -> Iterator[None]:
    """Attach a handler to these loggers, and warnings of libraries to the log, for a while; not for what other tasks say."""
    loggers, task = [logging.getLogger(name) for name in names], _task.get()
    handler.addFilter(lambda _: task is None or _task.get() in (task, None))
    logging.captureWarnings(True)
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)
        logging.captureWarnings(False)


@contextlib.contextmanager
def task_of_its_own() -> Iterator[None]:
    """Meanwhile this thread works for a task of its own, beside others of this process, and their logs are kept apart."""
    token = _task.set(object())
    try:
        yield
    finally:
        _task.reset(token)


@contextlib.contextmanager
def collected(name: str = "") -> Iterator[list[logging.LogRecord]]:
    """The package's log meanwhile; its records begin with `name` and have their text made up, so that they can be pickled."""
    records: list[logging.LogRecord] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            prefix = name if record.name.startswith(LOGS[0]) else ""
            record.msg, record.args, record.exc_info = prefix + record.getMessage(), None, None
            records.append(record)

    with attached(Keeper(), *LOGS):
        yield records


def repeat(records: list[logging.LogRecord]) -> None:
    """Say here what was collected elsewhere."""
    for record in records:
        logger = logging.getLogger(record.name)
        if logger.isEnabledFor(record.levelno):
            logger.handle(record)
