"""Show the progress of a run in a script or a notebook: by a callback, and by a bar that rich draws."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from spikecrsae.progress import Observer

if TYPE_CHECKING:
    from rich.progress import Progress

#: Called with the stage, the work done in it, and its total work (None if not known).
Callback = Callable[[str, int, int | None], None]


class Course(Observer):
    """Pass the progress of a run to a callback and to a bar; either may be None."""

    def __init__(self, callback: Callback | None, bar: Progress | None) -> None:
        self._callback, self._bar = callback, bar
        self._stage, self._done = "", 0
        self._total: int | None = None

    def start(self, stage: str, total: int | None = None) -> None:
        self._stage, self._done, self._total = stage, 0, total
        if self._bar is not None:
            self._task = self._bar.add_task(stage, total=total)
        self._tell()

    def advance(self, n: int = 1) -> None:
        self._done += n
        self._tell()

    def finish(self, summary: str = "") -> None:
        self._done = self._total = max(self._done, self._total or 1)
        if self._bar is not None:
            self._bar.update(self._task, total=self._total, description=f"{self._stage}: {summary}".removesuffix(": "))
        self._tell()

    def _tell(self) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done)
        if self._callback is not None:
            self._callback(self._stage, self._done, self._total)


@contextmanager
def followed(callback: Callback | None, progress: bool | None) -> Iterator[Observer]:
    """Yield an observer for a run. progress: whether to draw a bar; None draws one in a notebook only."""
    if not (_in_notebook() if progress is None else progress):
        yield Course(callback, None)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=30), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        yield Course(callback, bar)


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    from rich.console import Console

    return Console().is_jupyter
