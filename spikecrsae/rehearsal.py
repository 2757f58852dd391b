"""Work that may crash or never end is tried in a copy of the process first: libhdf5 does either with some damaged files, and
neither can be caught or interrupted in the process itself."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable

#: Processor time that the copy may take. Opening a file takes about 0.1 ms per object in it.
MOST_CPU_S = 30
#: The copy may also wait for a lock that another thread held when it was made: then nothing is known of the work.
_MOST_WAIT_S = 120
#: Whether this process is a copy.
_is_copy = False


def failure_of(work: Callable[[], object]) -> str | None:
    """How `work` ends a copy of this process: "crashes" or "does not come to an end"; None where it returns or raises.

    None also where no copy can be made: elsewhere than on Linux, and in other threads than the main one; and within a copy.
    """
    if _is_copy or sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of a process with threads: the copy calls none of theirs
        try:
            child = os.fork()
        except OSError:  # no room for another process
            return None
    if child == 0:
        _try(work)
    try:
        status = os.waitpid(child, 0)[1]
    except ChildProcessError:  # the caller has asked the system to wait for children itself
        return None
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    if ended_by == signal.SIGXCPU:
        return "does not come to an end"
    return "crashes" if ended_by in (signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL) else None


def _try(work: Callable[[], object]) -> None:
    """Do it in the copy, in silence, and end the copy; nothing of what the original has open is touched."""
    import resource

    global _is_copy
    try:
        _is_copy = True
        logging.disable()  # a log file is open here as well
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGXCPU):
            signal.signal(number, signal.SIG_DFL)
        faulthandler.disable()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S + 1))
        signal.alarm(_MOST_WAIT_S)
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        with contextlib.suppress(BaseException):
            work()
    finally:
        os._exit(0)
