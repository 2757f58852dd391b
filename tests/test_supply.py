"""What is installed: the pins, their hashes, and the image."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Its builds have one version and several hashes; docs/install.md says how it is checked.
WITHOUT_HASH = {"torch"}


def pins(text: str) -> dict[str, str]:
    """Name -> version of the lines name==version."""
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", text, re.MULTILINE))


def test_every_pin_has_hashes_and_the_two_files_agree():
    constraints = pins((ROOT / "constraints.txt").read_text())
    hashed = (ROOT / "requirements-hashed.txt").read_text()
    assert pins(hashed) == {name: version for name, version in constraints.items() if name not in WITHOUT_HASH}, (
        "requirements-hashed.txt is not that of constraints.txt; run make hashes"
    )
    for entry in re.split(r"\n(?=[a-z0-9])", re.sub(r"^#.*\n", "", hashed, flags=re.MULTILINE).strip()):
        found = re.findall(r"--hash=sha256:([0-9a-f]{64})(?= |$)", entry, re.MULTILINE)
        assert found, entry
        assert len(found) == len(set(found)) == entry.count("--hash=")


def test_no_index_is_named():
    for name in ("requirements-hashed.txt", "constraints.txt"):
        text = re.sub(r"^#.*\n", "", (ROOT / name).read_text(), flags=re.MULTILINE)
        assert "://" not in text
        assert "index" not in text


def test_the_image_runs_as_nobody_special_with_its_caches_where_it_may_write():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users and users[-1] not in ("root", "0")
    settings = dict(re.findall(r"(\w+)=(\S+)", " ".join(line for line in lines if line.startswith(("ENV", " ")))))
    for name in ("NUMBA_CACHE_DIR", "MPLCONFIGDIR", "HOME"):
        assert settings[name].startswith("/tmp"), name
    assert settings["PYTHONDONTWRITEBYTECODE"] == "1"


def test_the_version_is_the_same_everywhere():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f'version: "{version}"' in (ROOT / "CITATION.cff").read_text().splitlines()
    assert re.search(rf"^## \[{re.escape(version)}\] - ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_the_citation_has_what_its_format_demands():
    yaml = pytest.importorskip("yaml")
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    for reference in citation["references"]:
        assert {"type", "title", "authors"} <= reference.keys()
        assert all({"family-names", "given-names"} <= author.keys() for author in reference["authors"])


def test_what_is_checked_has_a_pin():
    assert {"ruff", "mypy"} <= pins((ROOT / "constraints.txt").read_text()).keys()
    makefile, ci = (ROOT / "Makefile").read_text(), (ROOT / ".ci" / "run").read_text()
    for command in ("ruff check .", "ruff format --check .", "mypy"):
        assert f"$(BIN)/{command}\n" in makefile
    assert ci.index("make check") < ci.index("make test")
