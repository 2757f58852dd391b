"""Where the package's log goes: to a file while a run fills its folder, to whatever handler a caller attaches."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

from spikecrsae.texts import visible

#: The package's own log, and what libraries say through the warnings module.
LOGS = ("spikecrsae", "py.warnings")
#: The course of the stages, which the command line shows by other means.
STAGES = logging.getLogger("spikecrsae.stages")


class _Visible(logging.Formatter):
    """Records without control characters: a log is looked at in a terminal, and a line of it is not to be forged."""

    def format(self, record: logging.LogRecord) -> str:
        return "\n  ".join(map(visible, super().format(record).splitlines()))


@contextlib.contextmanager
def logging_to_file(path: Path) -> Iterator[None]:
    """Write the package's log to `path`; an error that passes through is written with its traceback and told where."""
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
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
    """Attach a handler to these loggers, and warnings of libraries to the log, for a while."""
    loggers = [logging.getLogger(name) for name in names]
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
