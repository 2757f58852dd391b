"""Files on which the HDF5 library never returns or crashes: a child process reads them first."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from helpers import hostile_files as hostile
from helpers.command_line import PATIENCE_S, refused, spikecrsae, start_command

from spikecrsae.errors import InputError
from spikecrsae.readers.truth import read_truth
from spikecrsae.system import safe_hdf5
from spikecrsae.system.safe_hdf5 import read_guarded

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="a child reads first on Linux alone")
PATH = Path("x.h5")


@pytest.fixture
def no_new_child():
    """Nothing that the test began is left, running or waited for by nobody; what other tests left is not its affair."""
    before = children()
    yield
    assert children() <= before


def children() -> set[str]:
    found: set[str] = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended since
            found.update((task / "children").read_text().split())
    return found


def forever():
    while True:
        pass


def raises():
    raise KeyError("x")


@pytest.mark.slow
@pytest.mark.parametrize("read", [os.abort, lambda: ctypes.string_at(0), lambda: os._exit(0), forever])
def test_what_ends_or_holds_the_child_is_refused(read, monkeypatch, capfd, no_new_child):
    monkeypatch.setattr(safe_hdf5, "MOST_CPU_S", 1)
    with pytest.raises(InputError, match=r"x\.h5: the HDF5 library crashes on it or does not finish"):
        read_guarded(PATH, read)
    assert capfd.readouterr() == ("", "")


def test_what_the_child_reads_or_refuses_is_read_here(capfd, no_new_child):
    parent, said = os.getpid(), []

    def read() -> str:
        said.append(os.getpid())
        if os.getpid() != parent:
            os.write(2, b"said")
        return "read"

    assert read_guarded(PATH, read) == "read" and said == [parent]
    assert capfd.readouterr() == ("", "")
    for work, error in ((raises, KeyError), (sys.exit, SystemExit)):
        with pytest.raises(error):
            read_guarded(PATH, work)


def test_a_child_within_a_child_is_not_made(no_new_child):
    """Readers read through each other: known spikes may be a sorting."""
    parent = os.getpid()

    def outer() -> int:
        first = os.getpid()
        second = read_guarded(PATH, os.getpid)
        return os.abort() if first not in (second, parent) else second

    assert read_guarded(PATH, outer) == parent


def test_a_child_that_waits_says_nothing(monkeypatch, no_new_child):
    """As for a lock that no thread of the child holds."""
    monkeypatch.setattr(safe_hdf5, "MOST_WAIT_S", 0.2)
    parent, lock = os.getpid(), threading.Lock()
    lock.acquire()
    assert read_guarded(PATH, lambda: os.getpid() == parent or lock.acquire())


@pytest.mark.parametrize("crashes", [False, True])
def test_where_the_system_waits_for_children_itself(crashes):
    before, parent = signal.signal(signal.SIGCHLD, signal.SIG_IGN), os.getpid()
    try:
        if crashes:
            with pytest.raises(InputError, match="crashes"):
                read_guarded(PATH, os.abort)
        else:
            assert read_guarded(PATH, os.getpid) == parent
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.slow
def test_the_child_ends_with_its_parent():
    code = (
        "import os, sys\nfrom spikecrsae.system.safe_hdf5 import read_guarded\n"
        "def read():\n    os.write(int(sys.argv[1]), b'begun')\n    while True:\n        pass\n"
        "read_guarded('x.h5', read)"
    )
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code, str(writing)], pass_fds=[writing])
    os.close(writing)
    assert os.read(reading, 100)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert os.read(reading, 100) == b"", "nobody has the pipe open any more"
    os.close(reading)


def test_tables_are_read_without_a_child(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a child is made"))
    (tmp_path / "x.csv").write_text("sample\n1\n")
    np.save(tmp_path / "x.npy", np.arange(3))
    for name in ("x.csv", "x.npy"):
        assert read_truth(tmp_path / name, 10000.0)


def test_no_child_is_made_in_another_thread(monkeypatch):
    monkeypatch.setattr(os, "fork", lambda: pytest.fail("a child is made"))
    found = []
    thread = threading.Thread(target=lambda: found.append(read_guarded(PATH, lambda: "read")))
    thread.start()
    thread.join()
    assert found == ["read"]


def test_an_interruption_ends_the_child_too(no_new_child):
    before = signal.signal(signal.SIGALRM, lambda *_: sys.exit("asked to end"))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(SystemExit):
            read_guarded(PATH, forever)
    finally:
        signal.signal(signal.SIGALRM, before)


@pytest.mark.slow
def test_a_file_on_which_the_hdf5_library_never_returns(tmp_path, monkeypatch):
    monkeypatch.setattr(safe_hdf5, "MOST_CPU_S", 1)
    path = hostile.heap_without_end(tmp_path / "x.h5")
    refused(spikecrsae("info", path), "x.h5: the HDF5 library crashes on it or does not finish")


@pytest.mark.slow
def test_ctrl_c_ends_the_wait_for_such_a_file(tmp_path):
    process = start_command("info", hostile.heap_without_end(tmp_path / "x.h5"))
    own = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while not own.read_text():
        assert process.poll() is None, "the file is read for ever"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE_S)[1] == "Interrupted.\n"
    assert process.returncode == 130
