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

import h5py
import numpy as np
import pytest
from helpers import hostile_files as hostile
from helpers.command_line import refused, spikecrsae

from spikecrsae.readers import open_recording
from spikecrsae.readers.truth import read_truth
from spikecrsae.system import rehearsal
from spikecrsae.system.rehearsal import failure_of, step

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


def test_work_that_computes_for_long_on_a_busy_machine(monkeypatch):
    """Its processor time stays below the limit as long as it may last: it has not waited, though."""
    monkeypatch.setattr(rehearsal, "_MOST_WAIT_S", 1)
    monkeypatch.setattr(rehearsal, "_LITTLE_CPU_S", 0.2)
    assert failure_of(forever) == "does not come to an end"


def test_work_that_comes_on_may_take_long(monkeypatch):
    monkeypatch.setattr(rehearsal, "MOST_CPU_S", 1)
    monkeypatch.setattr(rehearsal, "_MOST_WAIT_S", 1)

    def steps(n: int) -> None:
        for _ in range(n):
            begun = time.process_time()
            while time.process_time() - begun < 0.3:
                pass
            step()
        os.abort()  # tells that it came so far

    assert failure_of(lambda: steps(8)) == "crashes"


@pytest.mark.parametrize(("work", "failure"), [(raises, None), (os.abort, "crashes, or does not come to an end")])
def test_where_the_system_waits_for_children_itself(work, failure):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert failure_of(work) == failure
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_the_copy_ends_with_its_original():
    code = (
        "import os, sys\nfrom spikecrsae.system.rehearsal import failure_of\n"
        "def work():\n    os.write(int(sys.argv[1]), b'begun')\n    while True:\n        pass\n"
        "failure_of(work)"
    )
    reading, writing = os.pipe()
    process = subprocess.Popen([sys.executable, "-c", code, str(writing)], pass_fds=[writing])
    os.close(writing)
    assert os.read(reading, 100)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert os.read(reading, 100) == b"", "nobody has the pipe open any more"
    os.close(reading)


def test_every_object_of_a_file_is_a_step(tmp_path, monkeypatch):
    """So that a sound file of many objects is read, however long that takes."""
    steps = []
    monkeypatch.setattr("spikecrsae.system.safe_hdf5.step", lambda: steps.append(1))
    path = tmp_path / "many.h5"
    with h5py.File(path, "w") as file:
        for number in range(100):
            file.create_dataset(f"d{number}", data=0.0)
        file.create_dataset("truth/a/spike_samples", data=np.arange(10) * 100)
        file.create_dataset("traces", data=np.zeros((1000, 2), np.int16)).attrs["sampling_frequency"] = 10000.0
    for read in (open_recording, lambda path: read_truth(path, 10000.0)):
        steps.clear()
        read(path)
        assert len(steps) > 100


def test_tables_are_not_tried(tmp_path, monkeypatch):
    monkeypatch.setattr("spikecrsae.readers.truth.rehearsed", lambda *_: pytest.fail("tried"))
    (tmp_path / "x.csv").write_text("sample\n1\n")
    np.save(tmp_path / "x.npy", np.arange(3))
    for name in ("x.csv", "x.npy"):
        assert read_truth(tmp_path / name, 10000.0)


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
