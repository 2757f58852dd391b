"""No option of the command line is left in what a script is told."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import spikecrsae
from spikecrsae.api.messages import in_python_words, speaks_python
from spikecrsae.errors import InputError

pytestmark = pytest.mark.slow

PACKAGE = Path(spikecrsae.__file__).parent
#: An option of the command line; variables of style sheets, as in var(--line), are none.
OPTION = re.compile(r"(?<![\w(-])--[a-z]{2}|(?<![\w-])-o\b")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("give the true one with --sampling-frequency.", "give the true one with sampling_frequency=."),
        ("Look at the file, or give --no-find-artefacts.", "Look at the file, or give find_artefacts=False."),
        ("choose --device auto or cpu", "choose device='auto' or cpu"),
        ("with --axis 0 or --axis 1.", "with axis=0 or axis=1."),
        ("--exclude-s 12.5-13.1 reaches out of it", "exclude_s='12.5-13.1' reaches out of it"),
        ("give --overwrite, or another name with -o.", "give overwrite=True, or another name with folder=."),
        ("a file my--file-o.h5 -- or two", "a file my--file-o.h5 -- or two"),
    ],
)
def test_options_become_arguments(told, expected):
    assert in_python_words(told) == expected


def test_an_error_keeps_its_type_cause_and_traceback():
    cause = ValueError("why")

    @speaks_python
    def fail():
        raise InputError("give --gain") from cause

    with pytest.raises(InputError, match=r"^give gain=$") as caught:
        fail()
    assert caught.value.__cause__ is cause
    assert fail.__name__ == "fail"


def test_no_text_of_the_program_keeps_an_option():
    texts = [
        node.value
        for path in PACKAGE.rglob("*.py")
        if "cli" not in path.relative_to(PACKAGE).parts
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and OPTION.search(node.value)
    ]
    assert len(texts) > 50
    for text in texts:
        assert not OPTION.search(in_python_words(text)), text
