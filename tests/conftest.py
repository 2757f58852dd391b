"""Fixtures that several test files share."""

from __future__ import annotations

import os
import signal
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
