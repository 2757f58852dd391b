"""Fixtures that several test files share."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import h5py
import pytest
from click.testing import CliRunner

from spikecrsae.cli.main import cli

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


def group_is_alive(group: int) -> bool:
    """Whether a process of this group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


SAMPLE = Path(__file__).parents[1] / "sample_data" / "tetrode.h5"


def cut_recording(path: Path, start_s: float, stop_s: float) -> Path:
    """Write a stretch of the sample recording as a recording of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(SAMPLE) as source, h5py.File(path, "w") as file:
        stored = source["traces"]
        fs = stored.attrs.get("sampling_frequency", source.attrs.get("sampling_frequency"))
        file["traces"] = stored[int(start_s * fs) : int(stop_s * fs)]
        file["traces"].attrs.update(dict(stored.attrs))
        file.attrs.update(dict(source.attrs))
    return path


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
    result = CliRunner().invoke(cli, ["sort", str(recording), "-o", str(folder), "--quiet"], prog_name="spikecrsae")
    assert result.exit_code == 0, result.stderr
    return Sorted(recording, folder, result.stdout)
