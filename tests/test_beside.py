"""The second process: the same results as here, whatever becomes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from spikecrsae import beside
from spikecrsae.beside import begin, helped


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(beside, "n_cores", lambda: 2)


def who(*words) -> tuple:
    """A function of a module, of this one in both processes: (its process, what it was given)."""
    return os.getpid(), words


def test_work_is_done_there_and_its_results_come_in_any_order(two_cores):
    with helped("json"):
        results = [begin(os.getpid), begin(divmod, 7, 2), begin(bytes, 5_000_000)]
        assert results[1]() == (3, 1)
        assert results[0]() != os.getpid()
        assert results[2]() == bytes(5_000_000)
        assert results[1]() == (3, 1), "asked twice"


def test_without_a_second_process_it_is_done_here(monkeypatch):
    assert begin(os.getpid)() == os.getpid()
    monkeypatch.setattr(beside, "n_cores", lambda: 1)
    with helped("json"):
        assert begin(os.getpid)() == os.getpid()


def test_an_error_there_is_raised_here(two_cores):
    with helped():
        failing, after = begin(int, "x"), begin(divmod, 7, 2)
        with pytest.raises(ValueError, match="'x'"):
            failing()
        assert after() == (3, 1)


def test_what_cannot_be_sent_or_loaded_is_done_here(two_cores):
    with helped("no_such_library"):
        assert begin(lambda: os.getpid())() == os.getpid()
        assert begin(who, 1)() == (os.getpid(), (1,)), "the other process does not find this module"


def test_a_second_process_that_was_killed_is_done_without(two_cores):
    with helped():
        there = begin(os.getpid)()
        os.kill(there, signal.SIGKILL)
        assert begin(os.getpid)() == os.getpid()


@pytest.mark.skipif(not Path("/proc").exists(), reason="asks /proc which processes there are")
def test_it_ends_with_the_work_and_with_its_parent(two_cores):
    with helped():
        there = begin(os.getpid)()
    with pytest.raises(ProcessLookupError):
        os.kill(there, 0)
    code = (
        "import os, signal\nfrom spikecrsae import beside\nbeside.n_cores = lambda: 2\n"
        "with beside.helped():\n    print(beside.begin(os.getpid)(), flush=True)\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == -signal.SIGKILL
    place = Path("/proc", run.stdout.strip(), "stat")
    for _ in range(100):
        if not place.exists() or place.read_text().rsplit(")", 1)[1].split()[0] == "Z":  # ended, and not yet waited for
            return
        time.sleep(0.1)
    raise AssertionError("it outlives its parent")


def test_what_it_prints_is_no_answer(two_cores):
    with helped():
        assert begin(print, "said")() is None
        assert begin(os.system, "echo said")() == 0
        assert begin(divmod, 7, 2)() == (3, 1)
