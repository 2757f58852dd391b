"""Processor time of a process and its children."""

from __future__ import annotations

import resource


def processor_s() -> float:
    """Processor seconds of this process and of those that it has started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)
