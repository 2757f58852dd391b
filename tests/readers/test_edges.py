"""The command line at its edges: wrong words, two runs at once, Ctrl-C at any time, completion."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from helpers.command_line import PATIENCE_S, spikecrsae, start_command
from helpers.sortings import write_sorted

from spikecrsae.cli.main import cli
from spikecrsae.cli.signals import answered, asked_to_end, repeat
from spikecrsae.errors import OutputError, UsageError
from spikecrsae.results.folder import ResultFolder
from spikecrsae.system.files import reserved
from spikecrsae.system.threads import n_cores

pytestmark = pytest.mark.slow

# ---- wrong words


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (["--nonsense"], "spikecrsae"),
        (["nonsense"], "spikecrsae"),
        (["sort"], "spikecrsae sort"),
        (["sort", "x.h5", "--epoch", "3"], "spikecrsae sort"),
        (["sort", "x.h5", "--method", "magic"], "spikecrsae sort"),
        (["sort", "a.h5", "b.h5", "--files", "sideways"], "spikecrsae sort"),
        (["sort", "a.h5", "b.h5", "c.h5", "--jobs", "0"], "spikecrsae sort"),
        (["score", "x.sorted"], "spikecrsae score"),
        (["batch", "-o", "out"], "spikecrsae batch"),
        (["sort", "x.h5", "-o", ""], "spikecrsae sort"),
        (["sort", ""], "spikecrsae sort"),
        (["batch", "x.h5", "-o", " "], "spikecrsae batch"),
    ],
)
def test_wrong_usage_is_one_line_and_a_hint(words, command):
    result = spikecrsae(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    error, hint = result.stderr.splitlines()
    assert error.startswith("Error: ") and len(error) > 20
    assert hint == f"Try '{command} --help' for help."


def test_an_empty_name_is_refused_for_what_it_is():
    assert "the name is empty" in spikecrsae("sort", "x.h5", "-o", "").stderr


def test_without_words_it_shows_its_help():
    result = spikecrsae()
    assert result.exit_code == 2
    assert "Usage: spikecrsae" in result.stderr and "  sort " in result.stderr


# ---- standard streams and places that cannot be written


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_as_good_as_none(short_sort, closed):
    run = subprocess.run(
        f"exec {sys.executable} -m spikecrsae show {short_sort.folder} {closed}", shell=True, capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert ("units" in run.stdout) == (closed == "2>&-")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("words", [["--help"], ["sort", "--help"], ["--version"]])
def test_help_on_a_full_disk_is_refused_in_one_line(words):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "spikecrsae", *words]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 6
    assert run.stderr.startswith("Error: cannot write") and run.stderr.count("\n") == 1


@pytest.mark.parametrize("words", [["sort", "{recording}"], ["apply", "{folder}", "{recording}"]])
@pytest.mark.parametrize(("place", "reason"), [("/", "the root"), ("{recording}/below/out", "short.h5 is a file")])
def test_a_result_where_no_folder_can_be(short_sort, words, place, reason):
    names = {"recording": short_sort.recording, "folder": short_sort.folder}
    result = spikecrsae(*(word.format(**names) for word in (*words, "-o", place)))
    assert result.exit_code == 6
    assert reason in result.stderr and result.stderr.count("\n") == 1


def test_a_page_below_a_file(short_sort):
    result = spikecrsae("report", short_sort.folder, "-o", short_sort.recording / "page.html")
    assert result.exit_code == 6
    assert "a file stands where its folder would be" in result.stderr and result.stderr.count("\n") == 1


def test_a_page_takes_no_name_of_another_kind(short_sort):
    before = short_sort.recording.read_bytes()
    result = spikecrsae("report", short_sort.folder, "-o", short_sort.recording, "--overwrite")
    assert result.exit_code == 2
    assert "must end in .html" in result.stderr
    assert short_sort.recording.read_bytes() == before


# ---- two runs at once


def test_a_folder_is_reserved_for_one_and_free_again(tmp_path):
    folder = tmp_path / "out"
    with reserved(folder):
        with pytest.raises(OutputError, match="being written by another run"), reserved(tmp_path / "x" / ".." / "out"):
            raise AssertionError("the second came in")
        with reserved(tmp_path / "other"):
            pass
    with reserved(folder):
        pass
    assert list(tmp_path.iterdir()) == [], "no lock is left behind"


def test_a_lock_that_a_killed_run_left_does_not_count(tmp_path):
    code = f"from spikecrsae.system.files import reserved; import os\nwith reserved({str(tmp_path / 'out')!r}): os._exit(9)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    assert [path.name for path in tmp_path.iterdir()] == [".out.lock"]
    with reserved(tmp_path / "out"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [[], ["--overwrite"]])
def test_the_second_of_two_sorts_into_a_folder_is_refused(short_sort, tmp_path, words):
    folder = tmp_path / "out"
    with reserved(folder):
        if words:
            shutil.copytree(short_sort.folder, folder)
        result = spikecrsae("sort", short_sort.recording, "-o", folder, *words)
    assert result.exit_code == 6
    assert "another run" in result.stderr and result.stderr.count("\n") == 1
    assert folder.exists() == bool(words)


# ---- signals


@pytest.mark.parametrize("after_s", [0.06, 0.25, 0.5, 1.4])
def test_ctrl_c_is_130_from_the_first_moment(short_sort, tmp_path, after_s):
    process = start_command("sort", short_sort.recording, "-o", tmp_path / "out")
    time.sleep(after_s)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=PATIENCE_S)[1]
    # Before our first line, after which no interruption is dropped (below), Python may end in its own way, or drop it.
    ended = process.returncode in (-signal.SIGINT, 1) and "KeyboardInterrupt" in errors and "spikecrsae/cli" not in errors
    dropped = process.returncode == 0 and errors.startswith("Exception ignored in: <function _get_module_lock")
    if ended or dropped or "init_import_site" in errors:
        pytest.skip("it came before Python had started")
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1] == "Interrupted."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dropped", [True, False])
def test_ctrl_c_while_loading_counts_even_where_python_drops_it(dropped):
    """Python drops an exception in a destructor, which is where the import system's callbacks run; an import may also turn it
    into an error of its own."""
    code = textwrap.dedent(f"""
        import os, signal, sys

        class Finder:
            def find_spec(self, name, path=None, target=None):
                if name == "spikecrsae.cli.sort":
                    sys.meta_path.remove(self)
                    if {dropped}:
                        Falls()
                    else:
                        try:
                            os.kill(os.getpid(), signal.SIGINT)
                        except KeyboardInterrupt:
                            raise ImportError("broken off")

        class Falls:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGINT)

        sys.meta_path.insert(0, Finder())
        sys.argv = ["spikecrsae", "--help"]
        from spikecrsae.__main__ import main
        main()
    """)
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 130, run.stderr
    assert run.stderr.splitlines()[-1] == "Interrupted." and run.stdout == ""


def test_an_interruption_that_python_drops_counts_at_the_next_stage():
    with answered():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
        assert isinstance(asked_to_end(ImportError("numpy failed to import")), KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            repeat()
    with answered():
        repeat()
        assert isinstance(asked_to_end(ImportError()), ImportError)


# ---- cores


def test_the_cores_of_a_run_can_be_limited(monkeypatch):
    monkeypatch.delenv("SPIKECRSAE_CORES", raising=False)
    assert 1 <= n_cores() <= os.cpu_count()
    monkeypatch.setenv("SPIKECRSAE_CORES", "1")
    assert n_cores() == 1
    monkeypatch.setenv("SPIKECRSAE_CORES", "100000")
    assert n_cores() <= os.cpu_count()
    for wrong in ("0", "two", "-1"):
        monkeypatch.setenv("SPIKECRSAE_CORES", wrong)
        with pytest.raises(UsageError, match="SPIKECRSAE_CORES"):
            n_cores()


# ---- completion


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_completion_script_is_made_for_each_shell(shell):
    if shell == "bash" and not shutil.which("bash"):
        pytest.skip("click asks bash for its version, and there is no bash here")
    run = subprocess.run(
        [sys.executable, "-m", "spikecrsae"],
        env={**os.environ, "_SPIKECRSAE_COMPLETE": f"{shell}_source"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"_SPIKECRSAE_COMPLETE={shell}_complete" in run.stdout
    if shutil.which(shell):
        checked = subprocess.run([shell, "-n"], input=run.stdout, text=True, capture_output=True)
        assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("spikecrsae ba", {"batch"}),
        ("spikecrsae ", set(cli.commands)),
        ("spikecrsae sort --detect", {"--detection-threshold"}),
        ("spikecrsae sort --method ", {"em", "unrolled"}),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_words_are_completed(shell, words, expected):
    parts = words.split(" ")
    environment = {"_SPIKECRSAE_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(parts) - 1)}
    if shell == "fish":
        environment |= {"COMP_WORDS": words, "COMP_CWORD": parts[-1]}
    result = spikecrsae(env=environment)
    lines = result.stdout.splitlines()
    if shell == "bash":
        offered = {line.partition(",")[2] for line in lines}
    elif shell == "zsh":
        offered = set(lines[1::3])
    else:
        offered = {line.partition(",")[2].partition("\t")[0] for line in lines}
    assert offered == expected


def test_file_names_are_completed_by_the_shell():
    environment = {"_SPIKECRSAE_COMPLETE": "bash_complete", "COMP_WORDS": "spikecrsae sort ", "COMP_CWORD": "2"}
    assert spikecrsae(env=environment).stdout.startswith("file,")


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")
def test_a_name_that_is_no_utf_8_is_written_readably(tmp_path):
    strange = os.fsencode(tmp_path) + b"/m\xf6d.h5"
    with open(strange, "wb") as file:
        file.write(b"no HDF5")
    out = tmp_path / "out"
    words = [os.fsencode(word) for word in (sys.executable, "-m", "spikecrsae", "batch", "--quiet", "-o", str(out))]
    result = subprocess.run([*words, strange], capture_output=True)
    assert result.returncode == 7, result.stderr
    stored = json.loads((out / "batch.json").read_text(encoding="utf-8"))
    assert "not UTF-8" in stored["recordings"][0]["error"]
    assert "m\\xf6d.h5" in stored["recordings"][0]["recording"]


def test_a_kill_before_the_manifest_is_closed_leaves_nothing_unlisted(tmp_path):
    folder = ResultFolder(tmp_path / "out.new").prepare()
    for name in ("model.safetensors", "run.log", "components.h5", "sorting.h5"):
        (folder / name).write_bytes(b"half")
    ResultFolder(folder).prepare(overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["manifest.json"]


def test_apply_takes_no_groups_but_the_models(short_sort):
    result = spikecrsae("apply", short_sort.folder, short_sort.recording, "--groups", "0-1,2-3")
    assert result.exit_code == 2
    assert "those of the model" in result.stderr


def test_the_command_line_in_another_thread():
    """Where no signal can be answered."""
    code = (
        "import sys, threading; sys.argv = ['spikecrsae', '--version']; from spikecrsae.__main__ import main; "
        "thread = threading.Thread(target=main); thread.start(); thread.join()"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0 and "version" in run.stdout and run.stderr == ""


def test_a_wrong_backend_of_matplotlib_does_not_matter(tmp_path):
    """MPLBACKEND=nonsense, of another program's."""
    folder = write_sorted(tmp_path, n_units=1, n_spikes=20, n_channels=1).folder
    words = ["report", folder, "-o", tmp_path / "x.html", "--figures", tmp_path / "figures", "--quiet"]
    process = start_command(*words, env=os.environ | {"MPLBACKEND": "nonsense"})
    assert process.communicate()[1] == "" and process.returncode == 0
    assert list((tmp_path / "figures").glob("*.png"))
