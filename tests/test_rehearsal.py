"""Files on which the HDF5 library never returns or crashes: tried in a copy of the process before they are read."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import hostile_files as hostile
import pytest
from hostile_files import refused, spikecrsae

from spikecrsae import rehearsal
from spikecrsae.rehearsal import failure_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a copy of the process is made on Linux alone")


@pytest.fixture
def no_new_child():
    """Nothing that the test began is left, running or waited for by nobody; what other tests left is not its affair."""
    before = children()
    yield
    assert children() <= before


def children() -> set[str]:
    return {child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()}


def forever():
    while True:
        pass


def raises():
    raise KeyError("x")


@pytest.mark.parametrize(
    ("work", "failure"),
    [
        (lambda: None, None),
        (raises, None),
        (sys.exit, None),
        (lambda: os._exit(7), None),
        (lambda: os.write(2, b"said"), None),
        (os.abort, "crashes"),
        (lambda: ctypes.string_at(0), "crashes"),
        (forever, "does not come to an end"),
    ],
)
def test_how_work_would_end(work, failure, monkeypatch, capfd, no_new_child):
    monkeypatch.setattr(rehearsal, "MOST_CPU_S", 1)
    assert failure_of(work) == failure
    assert capfd.readouterr() == ("", "")


def test_work_that_waits_says_nothing(monkeypatch):
    """As for a lock that no thread of the copy holds."""
    monkeypatch.setattr(rehearsal, "_MOST_WAIT_S", 1)
    lock = threading.Lock()
    lock.acquire()
    assert failure_of(lock.acquire) is None


def test_nothing_is_tried_in_another_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(failure_of(os.abort)))
    thread.start()
    thread.join()
    assert found == [None]


def test_an_interruption_ends_the_copy_too(no_new_child):
    before = signal.signal(signal.SIGALRM, lambda *_: sys.exit("asked to end"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(SystemExit):
            failure_of(forever)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_file_on_which_the_hdf5_library_never_returns(tmp_path, monkeypatch):
    monkeypatch.setattr(rehearsal, "MOST_CPU_S", 1)
    path = hostile.heap_without_end(tmp_path / "x.h5")
    refused(spikecrsae("info", path), "the library that reads it does not come to an end")


def test_ctrl_c_ends_the_wait_for_such_a_file(tmp_path):
    path = hostile.heap_without_end(tmp_path / "x.h5")
    process = subprocess.Popen([sys.executable, "-m", "spikecrsae", "info", path], stderr=subprocess.PIPE, text=True)
    time.sleep(1.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    asked = time.monotonic()
    said = process.communicate(timeout=20)[1]
    assert (process.returncode, said) == (130, "Interrupted.\n")
    assert time.monotonic() - asked < 2
