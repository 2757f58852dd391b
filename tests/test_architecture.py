"""The order of the rooms: who may import whom, and what the command line may load before it is asked to work."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.recordings import cut_recording

PACKAGE = Path(__file__).parents[1] / "spikecrsae"

#: The rooms of the package in the order of the data. A module imports from its own room or an earlier one.
ORDER = (
    "errors", "units", "progress", "system", "data", "config", "csc", "readers", "preprocess", "detect", "crsae", "curate", "decode",
    "results", "score", "exports", "simulate", "pipeline", "report", "run", "spikeinterface", "api", "cli",
)  # fmt: skip
RANK = {room: rank for rank, room in enumerate(ORDER)}
#: The package itself shows public names of every floor; python -m spikecrsae starts the command line.
ABOVE_ALL = {"__init__", "__main__"}
#: Rooms that may know a package. rich draws on a person's screen, so only what a person calls may: a command or a notebook.
ROOMS_OF_PACKAGE = {"click": ("cli",), "rich": ("cli", "api"), "matplotlib": ("report",)}
#: Packages that errors, units and progress may import besides the standard library: none.
FIRST = ORDER[:3]


def module_name(path: Path) -> str:
    """csc/fista.py -> csc.fista; csc/__init__.py -> csc."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if len(parts) > 1 and parts[-1] == "__init__" else parts)


def imported(path: Path) -> set[str]:
    """Absolute names of all that a file imports, anywhere in it; `from a import b` gives a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: relative import; write spikecrsae.<module>"
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = {module_name(path): path for path in FILES}


def targets(path: Path) -> set[str]:
    """Modules of the package that a file imports."""
    found = set()
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "spikecrsae":
            continue
        dotted = ".".join(parts[1:])
        # from spikecrsae.a import b: b is a module spikecrsae.a.b, or a name in spikecrsae.a
        found.add(dotted if dotted in MODULES else ".".join(parts[1:-1]) or "__init__")
    return found


def room(module: str) -> str:
    return module.split(".")[0]


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_run_downward(module):
    if module in ABOVE_ALL:
        return
    assert room(module) in RANK, f"{module}: a new room; give it a place in ORDER and in docs/architecture.md"
    for target in targets(MODULES[module]):
        if target == "__init__":
            pytest.fail(f"{module} imports from the package's public face; import the module itself")
        assert RANK[room(target)] <= RANK[room(module)], f"{module} imports {target}, which comes later"


def test_the_root_holds_only_what_every_room_knows():
    allowed = {"__init__", "__main__", "errors", "units", "config", "progress", "spikeinterface"}
    assert {path.stem for path in PACKAGE.glob("*.py")} == allowed


def test_no_import_cycle():
    graph = {module: targets(path) - {module} for module, path in MODULES.items() if module not in ABOVE_ALL}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join((*trail[trail.index(module) :], module))
        if module not in done:
            for target in sorted(graph.get(module, ())):
                visit(target, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("module", sorted(MODULES))
def test_packages_stay_in_their_room(module):
    for name in imported(MODULES[module]):
        package = name.split(".")[0]
        if package in ROOMS_OF_PACKAGE and module not in ABOVE_ALL:
            assert room(module) in ROOMS_OF_PACKAGE[package], f"{module} imports {package}"
        if room(module) in FIRST:
            assert package in sys.stdlib_module_names | {"spikecrsae"}, f"{module} imports {package}"


#: How spikes are found is the model's business; rooms that only use the model do not reach around it.
BEHIND_THE_MODEL = {"csc.pursuit", "csc.coordinate", "csc.numba_backend", "csc.torch_backend"}


@pytest.mark.parametrize("module", sorted(m for m in MODULES if room(m) in ("curate", "decode", "pipeline")))
def test_curation_decoding_and_pipeline_find_spikes_by_the_model_alone(module):
    assert not targets(MODULES[module]) & BEHIND_THE_MODEL


@pytest.mark.parametrize("module", sorted(m for m in MODULES if room(m) not in ("cli", "__main__")))
def test_the_core_never_prints(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    lines = [node.lineno for node in calls if getattr(node.func, "id", "") == "print"]
    assert not lines, f"{module} prints in lines {lines}; use the log or the observer"


@pytest.mark.slow
def test_help_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from spikecrsae.cli.main import cli\n"
        "cli(['--help'], standalone_mode=False)\n"
        "print('LOADED', sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = ast.literal_eval(run.stdout.split("LOADED", 1)[1].strip())
    heavy = {"torch", "neo", "matplotlib", "h5py", "numpy", "scipy", "sklearn", "numba", "rich"}
    assert "click" in loaded
    assert not heavy & set(loaded)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["sort", "apply", "batch"])
def test_a_run_on_the_cpu_needs_neither_torch_nor_matplotlib(short_sort, tmp_path, command):
    """Their import fails, in helper processes too."""
    for name in ("torch", "matplotlib"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} is imported')\n")
    recording = cut_recording(tmp_path / "recording.h5", 0, 2)
    words = [*([short_sort.folder] if command == "apply" else []), recording, "-o", tmp_path / "out"]
    run = subprocess.run(
        [sys.executable, "-m", "spikecrsae", command, *map(str, words), "--device", "cpu", "--quiet"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(PACKAGE.parent)])},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr + run.stdout
    assert len(list((tmp_path / "out").rglob("spikes.csv"))) == 1
