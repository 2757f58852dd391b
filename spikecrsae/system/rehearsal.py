"""Work that may crash or never end is tried in a copy of the process first: libhdf5 does either with some damaged files, and
neither can be caught or interrupted in the process itself."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import mmap
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

#: Processor time that the copy may take between two of its steps, each of which is one object in a file.
MOST_CPU_S = 30
#: The copy may also wait, for a lock that another thread held when it was made, or a disk. What has taken less processor time
#: than this since its last step has waited, and nothing is known of the work.
_MOST_WAIT_S, _LITTLE_CPU_S = 120, 2.0
_CRASHES = (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL, signal.SIGBUS)
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class _Course:
    """How far the copy has come, in memory that it shares with the original: [processor time at its last step, 1 at the end]."""

    numbers: np.ndarray

    @classmethod
    def new(cls) -> _Course:
        return cls(np.frombuffer(mmap.mmap(-1, 16), np.float64))

    def step(self) -> None:
        """The copy has come on, and may take as long again."""
        import resource

        self.numbers[0] = used = time.process_time()
        most = resource.getrlimit(resource.RLIMIT_CPU)[1]
        soft = int(used) + 1 + MOST_CPU_S  # whole seconds
        resource.setrlimit(resource.RLIMIT_CPU, (soft if most == resource.RLIM_INFINITY else min(soft, most), most))
        signal.alarm(_MOST_WAIT_S)


#: In a copy of the process, its own.
_course: _Course | None = None


def step() -> None:
    """Said by work that is tried, wherever it comes on: how long it takes in all does not matter."""
    if _course is not None:
        _course.step()


def failure_of(work: Callable[[], object]) -> str | None:
    """How `work` ends a copy of this process: "crashes" or "does not come to an end"; None where it returns or raises.

    None also where no copy can be made: elsewhere than on Linux, and in other threads than the main one; and within a copy.
    """
    if _course is not None or sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    course = _Course.new()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a process with threads: the copy calls none of theirs
        try:
            child = os.fork()
        except OSError:  # no room for another process
            return None
    if child == 0:
        _try(work, course)
    try:
        _, status, used = os.wait4(child, 0)
    except ChildProcessError:  # the system was asked to wait for children itself, by this program's own parent perhaps
        return None if course.numbers[1] else "crashes, or does not come to an end"
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    computed = used.ru_utime + used.ru_stime - course.numbers[0] > _LITTLE_CPU_S
    if ended_by == signal.SIGXCPU or (ended_by == signal.SIGALRM and computed):
        return "does not come to an end"
    return "crashes" if ended_by in _CRASHES else None


def _try(work: Callable[[], object], course: _Course) -> None:
    """Do it in the copy, in silence, and end the copy."""
    import resource

    global _course
    try:
        _course = course
        # the copy holds the locks of the original, which a run that is killed shall not leave behind
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        logging.disable()  # a log file is open here as well
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGXCPU):
            signal.signal(number, signal.SIG_DFL)
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        course.step()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        with contextlib.suppress(BaseException):
            work()
        course.numbers[1] = 1
    finally:
        os._exit(0)
