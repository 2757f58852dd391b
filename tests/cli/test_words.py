"""What the terminal says: wrong usage in plain words, the help pages, the course of a stage, tables on a narrow terminal."""

from __future__ import annotations

import io
import re
import subprocess
import sys

import pytest
from helpers.command_line import spikecrsae
from helpers.sortings import make_sorting, write_result
from rich.console import Console

from spikecrsae.cli import console
from spikecrsae.cli.main import cli


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sort"], "RECORDING is missing; give a file: spikecrsae sort RECORDING."),
        (["export"], "SORTING is missing. The form is spikecrsae export [OPTIONS] SORTING."),
        (["score", "x"], "--truth is missing; give --truth FILE."),
        (["sort", "x", "--units", "two"], "--units: 'two' is not a whole number; give a number, or auto."),
        (["sort", "x", "--highpass-hz", "low"], "--highpass-hz: 'low' is not a number."),
        (["sort", "x", "--prior", "gauss"], "--prior: 'gauss' is not one of 'spike-slab', 'laplace'."),
        (["sort", "x", "--highpas", "3"], "there is no option --highpas; did you mean --highpass-hz?"),
        (["sort", "x", "--seed"], "--seed needs a value after it: --seed N."),
        (["sort", "x", "--quiet=yes"], "--quiet takes no value; write --quiet alone."),
        (["show", "x", "y"], "too many arguments: y. The form is spikecrsae show [OPTIONS] SORTING."),
        (["sorte"], "there is no command sorte; did you mean score or sort?"),
    ],
)
def test_wrong_usage_names_value_rule_and_remedy(words, said):
    first, second = spikecrsae(*words).stderr.splitlines()
    assert first == f"Error: {said}"
    command = f"spikecrsae {words[0]}" if words[0] in cli.commands else "spikecrsae"
    assert second == f"Try '{command} --help' for help."


def test_help_shows_ten_options_and_three_examples_and_help_all_every_one():
    few, every = (spikecrsae("sort", word).stdout for word in ("--help", "--help-all"))
    words = {option for parameter in cli.commands["sort"].params for option in parameter.opts if option.startswith("--")}
    shown = {word for word in words if re.search(rf"^  (-\w, )?{word}\b", few, re.M)}
    assert len(re.findall(r"^  spikecrsae sort ", few, re.M)) == 3
    assert len(shown - {"--help", "--help-all"}) == 10
    assert all(word in every for word in words)
    assert max(map(len, few.splitlines())) <= 80


@pytest.mark.parametrize("name", ["sort", "apply", "batch"])
def test_everyday_options_are_options_of_the_command(name):
    command = cli.commands[name]
    assert set(command.everyday) <= {option for parameter in command.params for option in parameter.opts}


def test_commands_stand_in_the_order_of_work():
    listed = re.findall(r"^  ([a-z]+)  ", spikecrsae("--help").stdout.split("Commands:")[1], re.M)
    assert listed == list(cli.commands)
    assert [listed.index(name) for name in ("info", "sort", "show", "score", "export")] == sorted(
        listed.index(name) for name in ("info", "sort", "show", "score", "export")
    )


@pytest.mark.parametrize(
    ("done", "total", "words"),
    [(0, None, "8 s so far"), (3, None, "8 s so far"), (0, 10, "8 s so far"), (4, 10, " 40 %, 8 s so far, about 12 s left")],
)
def test_what_is_left_is_said_only_where_it_is_known(done, total, words):
    assert console._course(done, total, 8.0, estimates=True) == words
    assert console._course(done, total, 8.0, estimates=False) == words.partition(", about")[0]


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stage_of_unequal_parts_says_nothing_of_the_time_left(monkeypatch, terminal):
    written = io.StringIO()
    monkeypatch.setattr("spikecrsae.cli.console._LOG_EVERY_S", 0.0)
    narrator = console.Narrator()
    narrator.console = Console(file=written, force_terminal=terminal, width=120)
    narrator.live = terminal
    for stage, equal in (("infer", True), ("neighbourhoods", False)):
        narrator.start(stage, 4)
        if not equal:
            narrator.give_no_estimate()
        narrator.advance()
        if terminal:
            narrator._bar.refresh()
        narrator.finish()
        told = written.getvalue()
        assert "25 %" in told and ("s left" in told) == equal
        written.seek(0)
        written.truncate()


def test_interrupted_before_anything_was_learned(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("spikecrsae.run.job.run_job", interrupted)
    result = spikecrsae("sort", tmp_path / "x.h5")
    assert (result.exit_code, result.stderr) == (130, "Nothing was learned yet, so nothing is kept.\nInterrupted.\n")


@pytest.mark.slow
def test_sort_says_what_it_begins_before_anything_is_loaded(tmp_path):
    """On a terminal, by a process that may import nothing slow before its first line."""
    code = (
        "import sys; from spikecrsae.cli import console\n"
        "def begin(self, line):\n"
        "    print(line, [m for m in ('numpy', 'numba', 'scipy', 'h5py') if m in sys.modules]); sys.stdout.flush(); sys.exit(0)\n"
        "console.Narrator.begin = begin\n"
        "from spikecrsae.cli.main import cli\n"
        "cli(['sort', 'a.h5', 'b.h5'], prog_name='spikecrsae')"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert run.stdout == "sorting a.h5, b.h5 []\n", run.stderr


@pytest.fixture
def narrow(monkeypatch):
    """A terminal of 80 columns."""

    def terminal():
        return Console(highlight=False, force_terminal=True, color_system=None, width=80)

    monkeypatch.setattr(console, "_stdout_console", terminal)


def test_the_table_of_units_fits_80_columns_with_every_column_there_may_be(tmp_path, narrow):
    sorting = make_sorting()
    n = sorting.n_units
    sorting.units.update(
        label=["artefact"] * n, group=[15] * n, n_spikes=[1234567] * n, firing_rate=[123.4] * n, isi_violations=[12.5] * n,
        hybrid_recall=[0.5] * n, hybrid_precision=[0.25] * n, hybrid_injected=[200000] * n,
    )  # fmt: skip
    folder = write_result(tmp_path / "wide", sorting, {})
    text = spikecrsae("show", folder).stdout
    assert "hybrid recall" in text
    assert max(map(len, text.splitlines())) <= 80


def test_facts_of_many_channels_are_wrapped_and_lose_nothing(narrow, capsys):
    names = [f"CSC{number}" for number in range(64)]
    console.say_fact("channels", f"64 ({', '.join(names)})")
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 80
    assert re.findall(r"CSC\d+", text) == names
