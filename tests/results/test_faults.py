"""Disks that are full or read-only, files that vanish, shrink or cannot be read: one line, the right code, nothing
half-made."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import Result
from helpers.command_line import refused, spikecrsae
from helpers.recordings import cut_recording
from helpers.sortings import files_of, modifies, write_sorted

from spikecrsae.cli.console import Narrator
from spikecrsae.config import Config
from spikecrsae.pipeline.sort import sort_group
from spikecrsae.readers import hdf5, open_recording
from spikecrsae.results.folder import ResultFolder

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def outcome(short_sort):
    """What the pipeline gives for the short recording: a run that only has to write it is quick."""
    return sort_group(open_recording(short_sort.recording), Config())


@pytest.fixture
def quick(monkeypatch, outcome):
    """Sorting that is done at once."""
    monkeypatch.setattr("spikecrsae.pipeline.groups.sort", lambda *arguments, **values: outcome)


@pytest.fixture
def small(monkeypatch, tmp_path):
    """A recording of two seconds and its result of one unit; a further sort of it is done at once."""
    recording, folder = cut_recording(tmp_path / "small.h5", 0, 2), tmp_path / "small.sorted"
    found = sort_group(open_recording(recording), Config().with_settings(units=1))
    monkeypatch.setattr("spikecrsae.pipeline.groups.sort", lambda *arguments, **values: found)
    assert spikecrsae("sort", recording, "-o", folder, "--quiet").exit_code == 0
    return recording, folder


# ---- the file layer fails at every place where something is changed


class _Layer:
    """An audit hook, which cannot be taken away again: below `place` the `left`-th change fails; of a full disk also whatever
    adds something after it."""

    place, left, number, hit = "", -1, 0, False

    def __call__(self, event: str, values: tuple) -> None:
        if not self.place or not modifies(event, values) or not str(values[0]).startswith(self.place):
            return
        if self.number == errno.ENOSPC and event in ("os.remove", "os.rmdir"):
            return
        self.left -= 1
        if self.left == -1 or (self.left < -1 and self.number == errno.ENOSPC):
            self.hit = True
            raise OSError(self.number, os.strerror(self.number), str(values[0]))


@pytest.fixture(scope="module")
def layer():
    found = _Layer()
    sys.addaudithook(found)
    return found


def each_fault(layer, place: Path, number: int, run, record_property):
    """Run a command again and again, the change that fails one later each time, until none does; yields what failed runs
    gave."""
    for change in range(300):
        layer.place, layer.left, layer.number, layer.hit = str(place), change, number, False
        try:
            result = run()
        finally:
            layer.place = ""
        if not layer.hit:
            assert result.exit_code == 0 and change >= 3, result.stderr
            record_property("faults", change)
            return
        yield result
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_sort_over_an_earlier_result_whatever_change_fails(small, layer, tmp_path, record_property, number):
    recording, finished = small
    folder = tmp_path / "place" / "out"
    shutil.copytree(finished, folder)
    (folder / "notes.txt").write_text("mine")
    run = lambda: spikecrsae("sort", recording, "-o", folder, "--overwrite", "--quiet")  # noqa: E731
    for result in each_fault(layer, folder.parent, number, run, record_property):
        if result.exit_code == 0:
            continue  # what failed was the removal of a lock
        refused(result, "cannot be written", code=6)
        replaced = folder.with_name(".out.replaced")
        assert ResultFolder(folder if folder.exists() else replaced).changed_files() == []
        assert any((place / "notes.txt").exists() for place in (folder, replaced))
        shutil.rmtree(folder.parent)
        shutil.copytree(finished, folder)
        (folder / "notes.txt").write_text("mine")
    assert (folder / "notes.txt").read_text() == "mine" and not ResultFolder(folder).unfinished.exists()


@pytest.mark.parametrize("kind", ["csv", "mat"])
def test_an_export_whatever_change_fails(layer, tmp_path, record_property, kind):
    folder = write_sorted(tmp_path, n_units=1, n_spikes=20, n_channels=1).folder
    place = tmp_path / "place" / {"csv": "csv", "mat": "s.mat"}[kind]
    assert spikecrsae("export", folder, "--to", kind, "-o", place).exit_code == 0
    before = files_of(place.parent)
    run = lambda: spikecrsae("export", folder, "--to", kind, "-o", place, "--overwrite", "--quiet")  # noqa: E731
    for result in each_fault(layer, place.parent, errno.ENOSPC, run, record_property):
        if result.exit_code:
            refused(result, "the disk is full", code=6)
        spikecrsae("export", folder, "--to", kind, "-o", place, "--overwrite", "--quiet")
        assert set(files_of(place.parent)) == set(before), "the next one leaves nothing over"


@pytest.mark.parametrize("command", ["report", "score", "simulate", "batch"])
def test_the_other_writers_whatever_change_fails(short_sort, quick, layer, tmp_path, record_property, command):
    place = tmp_path / "place"
    place.mkdir()
    words = {
        "report": ["report", short_sort.folder, "-o", place / "page.html", "--overwrite"],
        "score": ["score", short_sort.folder, "--truth", short_sort.folder / "spikes.csv", "--truth-unit", 0, "-o", place],
        "simulate": ["simulate", place / "s.h5", "--duration-s", 1, "--overwrite"],
        "batch": ["batch", tmp_path / "nowhere.h5", "-o", place / "out"],
    }[command]

    def run() -> Result:
        result = spikecrsae(*words, "--quiet")
        return replace_code(result) if command == "batch" else result

    for result in each_fault(layer, place, errno.ENOSPC, run, record_property):
        if result.exit_code:
            assert result.exit_code == 6 and "Traceback" not in result.stderr, result.stderr
            assert "the disk is full" in result.stderr.splitlines()[-1]
        assert not [path for path in place.rglob("*") if path.suffix == ".partial"]
        shutil.rmtree(place)
        place.mkdir()


def replace_code(result: Result) -> Result:
    """A batch over a file that is not there ends with 7, which counts as its end here."""
    if result.exit_code == 7:
        result.exit_code = 0
    return result


# ---- real limits


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 100 KB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = (
        shutil.which("mount")
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(place)], capture_output=True
        ).returncode
    )
    if not mounted:
        pytest.skip("a small file system cannot be mounted here: it takes the rights of root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_full(short_sort, quick, small_disk, tmp_path):
    refused(spikecrsae("sort", short_sort.recording, "-o", small_disk / "out"), "the disk is full", code=6)
    assert list(small_disk.iterdir()) == [], "nothing is left there"
    refused(spikecrsae("export", short_sort.folder, "--to", "phy", "-o", small_disk / "phy"), "the disk is full", code=6)
    refused(spikecrsae("report", short_sort.folder, "-o", small_disk / "page.html"), "the disk is full", code=6)
    assert list(small_disk.iterdir()) == []
    (small_disk / "filler").write_bytes(bytes(90_000))
    result = spikecrsae("batch", short_sort.recording, "-o", small_disk / "many")
    assert result.exit_code in (6, 7) and "disk is full" in result.stdout + result.stderr
    assert not (small_disk / "many" / "short").exists()


def test_a_disk_that_is_read_only(short_sort, quick, small_disk):
    (small_disk / "out").mkdir()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    for words in (
        ["sort", short_sort.recording, "-o", small_disk / "new"],
        ["export", short_sort.folder, "--to", "csv", "-o", small_disk / "csv"],
        ["export", short_sort.folder, "--to", "mat", "-o", small_disk / "a.mat"],
        ["report", short_sort.folder, "-o", small_disk / "a" / "page.html"],
        ["simulate", small_disk / "s.h5", "--duration-s", 1],
    ):
        refused(spikecrsae(*words, "--quiet"), "Read-only file system", code=6)
    assert spikecrsae("batch", short_sort.recording, "-o", small_disk / "many").exit_code == 6


def test_a_limit_on_the_size_of_files(short_sort, quick, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = shutil.copytree(short_sort.folder, tmp_path / "out")
    before = files_of(folder)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        results = [
            spikecrsae("sort", short_sort.recording, "-o", folder, "--overwrite"),
            spikecrsae("export", folder, "--to", "phy"),
        ]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for result in results:
        refused(result, "may not grow so large", code=6)
    assert files_of(tmp_path) == {f"out/{name}": content for name, content in before.items()}


# ---- a recording that fails while it is read


def _fail(path: Path) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


FAULTS = {"a read error": _fail, "cut off": _cut, "vanished": Path.unlink}
SAID = {"a read error": "Input/output error", "cut off": "has become shorter", "vanished": "has vanished"}


@pytest.fixture
def failing_reader(monkeypatch):
    """failing_reader(stage, act): from the moment on that a stage has begun, act(path) comes before every read."""
    begun: set[str] = set()
    slicer, narrate = hdf5.slicer, Narrator.start

    def install(stage: str, act) -> None:
        def faulty(dataset, axis):
            read, path = slicer(dataset, axis), Path(dataset.file.filename)

            def read_or_fail(first: int, stop: int):
                if stage in begun:
                    act(path)
                return read(first, stop)

            return read_or_fail

        monkeypatch.setattr(hdf5, "slicer", faulty)
        monkeypatch.setattr(Narrator, "start", lambda this, name, total=None: (begun.add(name), narrate(this, name, total)))

    yield install


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stage", ["check", "infer"])
def test_a_recording_that_fails_while_it_is_sorted(short_sort, failing_reader, monkeypatch, tmp_path, fault, stage):
    """The earlier result stays; what was learned by then too, from which the next run goes on when the disk is there again."""
    recording, folder = tmp_path / "short.h5", tmp_path / "out"
    shutil.copy2(short_sort.recording, recording)
    shutil.copytree(short_sort.folder, folder)
    before = files_of(folder)
    failing_reader(stage, FAULTS[fault])
    words = ["sort", recording, "-o", folder, "--overwrite"]
    refused(spikecrsae(*words), SAID[fault], *(["To go on (what was learned is kept)"] if stage == "infer" else []), code=3)
    assert files_of(folder) == before
    assert ResultFolder(folder).unfinished.exists() == (stage == "infer")
    if stage == "infer" and fault == "a read error":
        monkeypatch.undo()
        assert spikecrsae(*words, "--resume").exit_code == 0
        assert (folder / "spikes.csv").read_bytes() == before["spikes.csv"]
        assert "going on" in (folder / "run.log").read_text() and not ResultFolder(folder).unfinished.exists()


def test_a_read_error_in_one_group_is_no_warning(short_sort, failing_reader, tmp_path):
    failing_reader("groups", _fail)
    words = ["sort", short_sort.recording, "-o", tmp_path / "out", "--groups", "0-1,2-3", "--jobs", 1]
    refused(spikecrsae(*words), "Input/output error", code=3)
    assert list(tmp_path.iterdir()) == []


def test_an_export_whose_recording_fails(short_sort, failing_reader, tmp_path):
    failing_reader("export", _fail)
    folder = shutil.copytree(short_sort.folder, tmp_path / "out")
    refused(spikecrsae("export", folder, "--to", "phy"), "Input/output error", code=3)
    assert not list(tmp_path.rglob("phy*"))
