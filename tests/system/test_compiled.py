"""Compiled code: kept on disk in a folder of one's choice, loaded by the next process, done without where none can be
written."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PACKAGE = Path(__file__).parents[2] / "spikecrsae"
#: Codes one window and says how many functions came from the disk and how many were compiled.
PROGRAM = """
import json
import numpy as np
from spikecrsae.csc import coordinate
codes = coordinate.encode(np.eye(1, 30, 9)[None], np.full((1, 1, 4), 0.5), 0.1, True, 1e-6)
stats = coordinate._encode_windows.stats
print(json.dumps([float(codes.sum()), sum(stats.cache_hits.values()), sum(stats.cache_misses.values())]))
"""


def outcome(folder: Path, **environment: Path) -> list[float]:
    """Sum of the codes, functions loaded, functions compiled and kept, by the package in this folder."""
    words = {"PATH": os.environ["PATH"], "PYTHONPATH": folder, "PYTHONDONTWRITEBYTECODE": 1, **environment}
    environment = {name: str(word) for name, word in words.items()}
    # from that folder, because Python imports from where it is before anything else
    run = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.fixture
def copy(tmp_path) -> Path:
    """A folder with the package, and no cache."""
    target = tmp_path / "package"
    shutil.copytree(PACKAGE, target / "spikecrsae", ignore=shutil.ignore_patterns("__pycache__"))
    return target


def test_the_second_process_loads_what_the_first_compiled(copy, tmp_path):
    folder = tmp_path / "cache"
    first = outcome(copy, NUMBA_CACHE_DIR=folder)
    second = outcome(copy, NUMBA_CACHE_DIR=folder)
    assert first[1:] == [0, 1] and second[1:] == [1, 0]
    assert first[0] == second[0] > 0
    assert list(folder.rglob("*.nbc")) and not list(copy.rglob("*.nbc"))


def test_where_no_folder_can_be_written_it_runs_uncached(copy, tmp_path):
    """Folders below a file can be made by nobody, not even by an administrator."""
    file = tmp_path / "file"
    file.touch()
    (copy / "spikecrsae" / "csc" / "__pycache__").touch()
    result = outcome(copy, NUMBA_CACHE_DIR=file / "cache", HOME=file, XDG_CACHE_HOME=file)
    assert result[0] > 0 and result[1:] == [0, 1]
    assert not list(tmp_path.rglob("*.nbc"))


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_compiled_functions_call_none_of_another_file(path):
    """numba keeps compiled code until its own file changes: it would go on with an old version of the other one."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module.startswith("spikecrsae")]
    foreign = {alias.asname or alias.name for node in imports for alias in node.names}
    for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
        if any("compiled" in ast.unparse(decorator) for decorator in function.decorator_list):
            names = {node.id for body in function.body for node in ast.walk(body) if isinstance(node, ast.Name)}
            assert not names & foreign, f"{function.name} uses {names & foreign}"
