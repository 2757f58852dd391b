"""How a stage tells what it is doing: an observer handed in, never a print."""

from __future__ import annotations


class Observer:
    """Receives the course of a run. This one ignores everything; the command line shows it.

    A stage calls start(name, total) once, advance(n) as units of work finish, finish(summary) at its end.
    """

    def start(self, stage: str, total: int | None = None) -> None:
        """A stage begins; total is its amount of work in units of its own, None where unknown."""

    def give_no_estimate(self) -> None:
        """The units of work of the running stage take very different times, so nothing can be said of the time left."""

    def advance(self, n: int = 1) -> None:
        """n units of work of the running stage are done."""

    def finish(self, summary: str = "") -> None:
        """The running stage has ended; summary is one short sentence for the reader."""

    def say(self, line: str) -> None:
        """One line of narration that belongs to no stage."""
