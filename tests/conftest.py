"""Fixtures that several test files share."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

# Before numpy and torch are loaded: idle threads of their libraries spin, which costs more than they gain on short signals.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from helpers.command_line import spikecrsae
from helpers.recordings import cut_recording

# A shell lets what it starts with & ignore Ctrl-C, and what that starts inherits it; the tests are about what a terminal does.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


#: Fixtures that sort a recording: a test that asks for one of them is slow.
SORTED = {"analyzer", "data_dir", "outcome", "short_sort", "sorted_folder"}
#: What a test that is not slow may not do.
PROCESSES = {"subprocess.Popen", "os.posix_spawn"}
_forbidden: set[str] = set()


def pytest_collection_modifyitems(items) -> None:
    for item in items:
        if SORTED & set(item.fixturenames):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Fail a test that starts a process and is not marked as slow; `make test-fast` would not be fast with it."""
    _forbidden.update(() if item.get_closest_marker("slow") else PROCESSES)
    try:
        return (yield)
    finally:
        _forbidden.clear()


def _refuse(event: str, arguments: tuple) -> None:
    assert event not in _forbidden, "this test starts a process: mark it with pytest.mark.slow"


sys.addaudithook(_refuse)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the development recordings, which are not part of the project."""
    folder = os.environ.get("SPIKECRSAE_DATA")
    if not folder:
        pytest.skip("SPIKECRSAE_DATA is not set; it names the folder with the development recordings")
    return Path(folder)


@dataclass(frozen=True)
class Sorted:
    """A short recording, the folder that `sort` has made of it, and what it printed."""

    recording: Path
    folder: Path
    stdout: str


@pytest.fixture(scope="session")
def short_sort(tmp_path_factory) -> Sorted:
    """Eight seconds of the sample recording, sorted once; not to be changed."""
    recording = cut_recording(tmp_path_factory.mktemp("short") / "short.h5", 0, 8)
    folder = recording.with_name("short.sorted")
    result = spikecrsae("sort", recording, "-o", folder, "--quiet")
    assert result.exit_code == 0, result.stderr
    return Sorted(recording, folder, result.stdout)
