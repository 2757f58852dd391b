"""The second process: the same results as here, whatever becomes of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import types
import warnings
from pathlib import Path

import pytest
from conftest import group_is_alive

from spikecrsae import beside
from spikecrsae.beside import begin, helped, load
from spikecrsae.simulate import preset_config, simulate, write_simulation


@pytest.fixture
def two_cores(monkeypatch):
    monkeypatch.setattr(beside, "n_cores", lambda: 2)


def test_work_is_done_there_and_its_results_come_in_any_order(two_cores):
    with helped():
        results = [begin(os.getpid), begin(divmod, 7, 2), begin(bytes, 5_000_000)]
        assert results[1]() == (3, 1)
        assert results[0]() != os.getpid()
        assert results[2]() == bytes(5_000_000)
        assert results[1]() == (3, 1), "asked twice"


def test_without_a_second_process_it_is_done_here(two_cores, monkeypatch):
    assert begin(os.getpid)() == os.getpid()
    with helped("json", "os"):
        assert begin(os.getpid)() == os.getpid(), "they are loaded here already"
    with helped("json", "poplib"):
        assert begin(os.getpid)() != os.getpid()
    monkeypatch.setattr(beside, "n_cores", lambda: 1)
    with helped():
        assert begin(os.getpid)() == os.getpid()


def test_a_process_of_many_runs_stays_alone(two_cores, monkeypatch):
    monkeypatch.setattr(beside, "_alone", False)
    beside.stay_alone()
    with helped("poplib"):
        assert begin(os.getpid)() == os.getpid()


def test_an_error_there_is_raised_here(two_cores):
    with helped():
        failing, after = begin(int, "x"), begin(divmod, 7, 2)
        with pytest.raises(ValueError, match="'x'"):
            failing()
        assert after() == (3, 1)


def test_what_cannot_be_sent_or_loaded_is_done_here(two_cores, monkeypatch):
    only_here = types.ModuleType("only_here")
    exec("import os\ndef who(): return os.getpid()", vars(only_here))
    monkeypatch.setitem(sys.modules, "only_here", only_here)
    with helped():
        begin(load, "no_such_library")
        assert begin(lambda: os.getpid())() == os.getpid()
        assert begin(os.getpid)() != os.getpid()
        assert begin(only_here.who)() == os.getpid()


def test_libraries_are_loaded_there_in_turn(two_cores):
    with helped():
        before, _, after = begin(_is_loaded, "poplib"), begin(load, "poplib"), begin(_is_loaded, "poplib")
        assert not before() and after()
        assert not _is_loaded("poplib")


def _is_loaded(name: str) -> bool:
    return name in sys.modules


def test_the_filter_is_designed_there_and_is_the_same(two_cores):
    """The library that designs it is not loaded here; where that fails it is, and a filter that cannot be is said when asked for."""
    design = (
        "import sys\nfrom spikecrsae.beside import helped, stay_alone\nfrom spikecrsae.config import PreprocessConfig\n"
        "from spikecrsae.preprocess.filters import begin_design, design_filter\nimport spikecrsae.beside as beside\n"
        "beside.n_cores = lambda: int(sys.argv[1])\nconfig = PreprocessConfig(highpass_hz=300.0, lowpass_hz=6000.0)\n"
        "with helped():\n    begin_design(config, 1000.0)\n    begin_design(config, 30000.0)\n"
        "    sos, margin = design_filter(config, 30000.0)\nprint('scipy.signal' in sys.modules, margin, sos.tobytes().hex())"
    )
    told = [subprocess.run([sys.executable, "-c", design, n], capture_output=True, text=True, check=True) for n in "21"]
    (there, *same), (here, *again) = (run.stdout.split() for run in told)
    assert (there, here) == ("False", "True")
    assert same == again


def test_a_filter_that_a_run_asked_for_in_vain_is_asked_for_again(two_cores):
    """In the same process: the first run ends before it is designed, and its second process with it."""
    script = (
        "import sys\nimport spikecrsae.beside as beside\nfrom spikecrsae.config import PreprocessConfig\n"
        "from spikecrsae.preprocess.filters import begin_design, design_filter\nbeside.n_cores = lambda: 2\n"
        "for _ in range(2):\n    with beside.helped():\n        begin_design(PreprocessConfig(), 30000.0)\n"
        "        if _: design_filter(PreprocessConfig(), 30000.0)\nprint('scipy.signal' in sys.modules)"
    )
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def _two_pids() -> tuple[int, int, int]:
    return os.getpid(), *beside.both(os.getpid, _pid_with_warning)


def _pid_with_warning() -> int:
    warnings.warn("a glyph is missing", stacklevel=1)
    return os.getpid()


def _second_dies_in_a_copy() -> tuple[int, int]:
    here = os.getpid()
    return beside.both(os.getpid, lambda: os.getpid() if os.getpid() == here else os.kill(os.getpid(), signal.SIGKILL))


def _second_fails() -> None:
    beside.both(os.getpid, lambda: int("x"))


def test_two_pieces_of_work_are_done_side_by_side_there_and_in_turn_here(two_cores):
    with helped():
        asked = begin(_two_pids), begin(_second_dies_in_a_copy), begin(_second_fails)
        with pytest.warns(UserWarning, match="a glyph is missing"):
            there, first, second = asked[0]()
        assert os.getpid() != there == first != second
        assert asked[1]() == (there, there), "a copy that dies is done without"
        with pytest.raises(ValueError, match="'x'"):
            asked[2]()
    with pytest.warns(UserWarning, match="a glyph is missing"):
        assert _two_pids() == (os.getpid(),) * 3


def _much() -> bytes:
    """More than a pipe holds."""
    return bytes(1_000_000)


@pytest.mark.skipif(not Path("/proc").exists(), reason="asks /proc which processes there are")
def test_a_second_process_that_dies_leaves_no_copy_and_is_not_waited_for(two_cores):
    with helped():
        there = begin(os.getpid)()
        began = time.monotonic()
        assert begin(_copy_that_answers_much)() == (0, 1_000_000)
        assert time.monotonic() - began < 20
    deadline = time.monotonic() + 10
    while group_is_alive(there):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _copy_that_answers_much() -> tuple[int, int]:
    def die() -> int:
        if beside._serves:
            time.sleep(0.3)  # the copy writes by now
            os.kill(os.getpid(), signal.SIGKILL)
        return 0

    mine, much = beside.both(die, _much)
    return mine, len(much)


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


def test_questions_and_answers_larger_than_a_pipe(two_cores):
    """Each end would wait for the other if one asked while the other answers."""
    big = os.urandom(3_000_000)
    with helped():
        results = [begin(bytes, big) for _ in range(4)]
        assert all(result() == big for result in results)


def test_one_that_is_stopped_is_done_without(two_cores, monkeypatch):
    monkeypatch.setattr(beside, "_MOST_WAIT_S", 0.5)
    with helped():
        there = begin(os.getpid)()
        os.kill(there, signal.SIGSTOP)
        waiting = begin(os.getpid), begin(bytes, bytes(3_000_000))
        assert waiting[0]() == os.getpid()
        assert len(waiting[1]()) == 3_000_000
        assert begin(os.getpid)() == os.getpid()


def test_runs_that_overlap_have_their_own(two_cores):
    """As in the threads of one program: what one ends is not the other's."""
    met, left, found = threading.Barrier(2), threading.Event(), {}

    def first():
        with helped():
            met.wait()
            found["first"] = begin(os.getpid)()
        left.set()

    def second():
        with helped():
            met.wait()
            left.wait()
            found["second"] = begin(os.getpid)()

    threads = [threading.Thread(target=run) for run in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({os.getpid(), *found.values()}) == 3
    assert begin(os.getpid)() == os.getpid()
    for pid in found.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_what_it_warns_of_is_heard_here(two_cores):
    with helped(), pytest.warns(UserWarning, match="a glyph is missing"):
        assert begin(warnings.warn, "a glyph is missing")() is None


def test_it_has_its_share_of_the_cores_and_the_same_modules(two_cores, monkeypatch, tmp_path):
    (tmp_path / "found_only_here.py").write_text("def nine():\n    return 9\n")
    (tmp_path / "cwd").mkdir()
    (tmp_path / "cwd" / "pickle.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.syspath_prepend(str(tmp_path / "cwd"))
    monkeypatch.syspath_prepend(str(tmp_path))
    from found_only_here import nine

    with helped():
        assert begin(os.getenv, "OMP_NUM_THREADS")() == "1"
        assert begin(os.getpid)() != os.getpid()
        assert begin(nine)() == 9
        assert begin(os.getpid)() != os.getpid(), "the question before was answered there"


def test_a_sort_whose_model_is_larger_than_a_pipe(tmp_path):
    """Sixteen channels: while the pictures come out of the second process the model goes in."""
    path = tmp_path / "shank.h5"
    write_simulation(
        simulate(preset_config("tetrode", n_channels=16, n_units=8, duration_s=5.0, sampling_frequency=30000.0)), path
    )
    subprocess.run(
        [sys.executable, "-m", "spikecrsae", "sort", path, "--quiet", "-o", tmp_path / "out"], check=True, timeout=300
    )
    assert (tmp_path / "out" / "model.pt").stat().st_size > 2**16
    assert (tmp_path / "out" / "templates.png").stat().st_size > 2**16
