"""Hostile names and links: outputs stay in their folder, and what is shown does nothing (tables, terminal, report, log)."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from helpers import hostile_files as hostile
from helpers import sortings as made_by_hand
from helpers.command_line import refused, spikecrsae

from spikecrsae.cli.main import cli
from spikecrsae.errors import OutputError
from spikecrsae.exports.export import FORMATS, default_place, export
from spikecrsae.exports.export_folder import ExportFolder
from spikecrsae.progress import Observer
from spikecrsae.report.figures import FORMATS as FIGURE_FORMATS
from spikecrsae.report.figures import figure_file, result_figures
from spikecrsae.report.html import Truth, report_html
from spikecrsae.results.components import ComponentWriter
from spikecrsae.results.folder import ResultFolder
from spikecrsae.results.tables import units_csv
from spikecrsae.run.batch import result_name
from spikecrsae.run.curated import open_sorting
from spikecrsae.score import best_match_curves, compare
from spikecrsae.system.files import reserved
from spikecrsae.system.logs import logging_to_file

#: Text that steers a terminal, begins a formula, ends an element and forges a line.
EVIL = "=1+1\x1b[2J<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\r\nunit,\u202e$\\frac{$"


# ---- what is written


def sentinels(place: Path) -> dict[Path, bytes]:
    """Precious files outside of every result."""
    place.mkdir()
    for name in ("run.log", "units.csv", "spikes.csv", "components.h5", "x.npy"):
        (place / name).write_text(f"precious {name}")
    return {path: path.read_bytes() for path in place.iterdir()}


def unharmed(before: dict[Path, bytes]) -> None:
    place = next(iter(before)).parent
    assert {path: path.read_bytes() for path in place.iterdir()} == before


def test_a_result_whose_name_is_a_link_is_not_written_through(tmp_path):
    before = sentinels(tmp_path / "precious")
    recording = hostile.traces(tmp_path / "x.h5")
    (tmp_path / "x.h5.sorted").symlink_to(tmp_path / "precious")
    for words in ((), ("--overwrite",)):
        refused(spikecrsae("sort", recording, *words, "--quiet"), "symbolic link", code=6)
    unharmed(before)
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".lock")]
    (tmp_path / "x.h5.sorted").unlink()
    (tmp_path / "x.h5.sorted.unfinished").symlink_to(tmp_path / "precious")
    (tmp_path / "x.h5.sorted").mkdir()
    refused(spikecrsae("sort", recording, "--overwrite", "--quiet"), "symbolic link", code=6)
    unharmed(before)


def test_links_in_an_earlier_result_are_replaced_and_not_followed(tmp_path):
    before = sentinels(tmp_path / "precious")
    made = made_by_hand.write_sorted(tmp_path)
    for name in ("run.log", "units.csv", "spikes.csv", "components.h5"):
        (made.folder / name).unlink(missing_ok=True)
        (made.folder / name).symlink_to(tmp_path / "precious" / name)
    manifest = json.loads((made.folder / "manifest.json").read_text())
    manifest["files"] |= dict.fromkeys(["run.log", "components.h5"])
    (made.folder / "manifest.json").write_text(json.dumps(manifest))
    ResultFolder(made.folder).prepare(overwrite=True)
    assert [path.name for path in made.folder.iterdir()] == ["manifest.json"]
    unharmed(before)


@pytest.mark.parametrize("name", ["../precious/x.npy", "absolute", "inside/x.npy", "a\nb", ".."])
def test_the_manifest_of_an_export_never_leads_outside(tmp_path, name):
    """With the right checksum, as somebody has who knows the file that is to be removed."""
    before = sentinels(tmp_path / "precious")
    ExportFolder(tmp_path / "csv").write({"a.csv": [b"a"]})
    (tmp_path / "csv" / "inside").symlink_to(tmp_path / "precious")
    entry = {"size": len(b"precious x.npy"), "sha256": hashlib.sha256(b"precious x.npy").hexdigest()}
    manifest = json.loads((tmp_path / "csv" / "manifest.json").read_text())
    manifest["files"][str(tmp_path / "precious" / "x.npy") if name == "absolute" else name] = entry
    (tmp_path / "csv" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(OutputError):
        ExportFolder(tmp_path / "csv").write({"a.csv": [b"b"]}, overwrite=True)
    unharmed(before)


@pytest.mark.parametrize("kind", ["phy", "csv", "nwb", "mat"])
def test_an_export_whose_name_is_a_link_is_not_written_through(tmp_path, kind):
    before = sentinels(tmp_path / "precious")
    made = made_by_hand.write_sorted(tmp_path)
    place = made.folder / {"phy": "phy", "csv": "csv", "nwb": "sorting.nwb", "mat": "sorting.mat"}[kind]
    place.symlink_to(tmp_path / "precious" / ("x.npy" if place.suffix else ""))
    result = spikecrsae("export", made.folder, "--to", kind, "--overwrite", "--quiet")
    refused(result, "symbolic link", code=6)
    unharmed(before)


def test_locks_and_partial_files_do_not_follow_a_link(tmp_path):
    before = sentinels(tmp_path / "precious")
    (tmp_path / ".out.lock").symlink_to(tmp_path / "precious" / "new")
    with pytest.raises(OutputError), reserved(tmp_path / "out"):
        pytest.fail("the lock went through a link")
    (tmp_path / "c.h5.partial").symlink_to(tmp_path / "precious" / "components.h5")
    ComponentWriter(made_by_hand.make_sorting()).write(tmp_path / "c.h5", Observer())
    assert (tmp_path / "c.h5").is_file()
    unharmed(before)


def test_names_of_recordings_do_not_lead_out_of_the_folder_of_a_batch():
    names = [result_name(Path(name)) for name in ("/a/...h5", "/b/..h5", "/c/batch.csv.h5", "/d/x\n.h5")]
    for name, stem in zip(names, ("..", ".", "batch.csv", "x\n"), strict=True):
        assert re.fullmatch(re.escape(stem) + "-[0-9a-f]{8}", name)


def test_exports_keep_hostile_names_in_their_folder(tmp_path):
    """A channel, a unit column, a label and a recording with such names, in every format."""
    sorting = made_by_hand.make_sorting()
    sorting.units["..\n\x1b[2J"] = np.array([EVIL] * sorting.n_units)
    sorting.units["t_start"] = np.zeros(sorting.n_units)
    sorting.units["label"] = np.array(["=cmd|' /C calc'!A0", "-1", "-a\tb\nc"])
    sorting.channels["ids"] = np.array(["../../x", "/etc/x", EVIL, "\n"])
    made = made_by_hand.write_sorted(tmp_path, sorting)
    outside = set(tmp_path.iterdir())
    stored, run = open_sorting(made.folder)
    run["recording"]["path"] = "/x/..\n\x1b[2J.h5"
    for kind in FORMATS:
        export(stored, run, kind, default_place(made.folder, kind))
    assert set(tmp_path.iterdir()) == outside
    names = [path.name for path in made.folder.rglob("*")]
    assert all(re.fullmatch(r"[\w.+ -]+", name) for name in names), names
    for table in (made.folder / "phy").glob("cluster_*.tsv"):
        lines = table.read_text().split("\n")
        n_tabs = 1 if table.name != "cluster_info.tsv" else lines[0].count("\t")
        assert all(line.count("\t") == n_tabs for line in lines[:-1]), table
    assert len(units_csv(sorting).splitlines()) == sorting.n_units + 1


def test_cells_are_no_formulas_and_numbers_stay_numbers():
    sorting = made_by_hand.make_sorting()
    sorting.units["label"] = np.array(["=1+1", "-1.5", "@x"])
    sorting.units["amplitude"] = np.array([-1.0, 2.0, np.nan])
    rows = [line.split(",") for line in units_csv(sorting).decode().splitlines()]
    column = {name: [row[k] for row in rows[1:]] for k, name in enumerate(rows[0])}
    assert column["label"] == ["'=1+1", "-1.5", "'@x"]
    assert column["amplitude_uV"] == ["-1", "2", ""]


# ---- what is shown


@pytest.mark.slow
def test_names_do_not_steer_the_terminal(tmp_path):
    path = tmp_path / "x\x1b[2J.h5"
    hostile.traces(path, units="\x1b]0;title\x07")
    sorting = made_by_hand.make_sorting(unit=EVIL)
    sorting.units["label"] = np.array([EVIL] * 3)
    sorting.channels["ids"] = np.array([EVIL] * 4)
    made = made_by_hand.write_sorted(tmp_path, sorting)
    out, err = io.StringIO(), io.StringIO()
    out.isatty = err.isatty = lambda: True
    with redirect_stdout(out), redirect_stderr(err):
        for words in (["info", path], ["show", made.folder], ["show", made.folder, "--unit", "0"], ["info", f"{path}\x9b2J"],
                      ["sort", path, "--channels", "\x1b[2J"], ["--\x1b[2J"], ["info", path, "--json"]):  # fmt: skip
            cli([str(word) for word in words], prog_name="spikecrsae", standalone_mode=False)
    said = out.getvalue() + err.getvalue()
    # rich colours its own tables
    left = re.sub(r"\x1b\[[\d;]*m", "", said)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", left), ascii(left)
    assert "\\x1b[2J" in left


class _Elements(HTMLParser):
    """Elements and attributes of a page, and the text of its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.scripts: list[str] = []
        self._inside = ""

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self._inside = tag

    def handle_data(self, data) -> None:
        if self._inside == "script":
            self.scripts.append(data)

    def handle_endtag(self, tag) -> None:
        self._inside = ""


def _elements(page: str) -> _Elements:
    parser = _Elements()
    parser.feed(page)
    return parser


def test_nothing_from_a_file_becomes_an_element_of_the_report():
    def page(text: str) -> _Elements:
        sorting = made_by_hand.make_sorting(unit=text)
        sorting.units["label"] = np.array([text] * 3)
        sorting.units[text] = np.array([text] * 3)
        sorting.channels["ids"] = np.array([text] * 4)
        decision = {"decision": text, "units": [10], "statistic": 1.0, "level": 0.5, "why": text, text: text, "more": [text]}
        sorting = replace(sorting, curation=(decision,))
        recording = {"path": f"/x/{text}", "format": text, "checksum": text, "notes": [text]}
        run = {"spikecrsae": text, "began": text, "seconds": 1.0, "device": text, "recording": recording,
               "warnings": [text], "config": {text: {text: text}}, "libraries": {text: text}}  # fmt: skip
        trains = {text: sorting.spike_samples(0)}
        comparison = compare(trains, sorting.trains(), hostile.FS)
        curves = best_match_curves(comparison, trains, sorting)
        assert curves
        return _elements(report_html(sorting, run, Truth(text, comparison, curves)))

    evil, plain = page(EVIL + "</title></style></svg></pre>"), page("plain")
    assert evil.tags == plain.tags
    assert evil.attributes == plain.attributes
    assert not [name for name in evil.attributes if name.startswith("on")]
    assert evil.scripts == plain.scripts
    assert len(evil.scripts) == 1


@pytest.mark.slow
def test_pictures_of_channels_with_formulas_in_their_names():
    sorting = made_by_hand.make_sorting(n_units=2)
    sorting.channels["ids"] = np.array([EVIL, "$\\frac{$", "$x$" * 10_000, "\x1b"])
    sorting = replace(sorting, example=np.zeros((100, 4), np.float32))
    for name, drawing in result_figures(sorting, {}).items():
        for kind, begin in zip(FIGURE_FORMATS, (b"\x89PNG", b"<svg", b"%PDF"), strict=True):
            assert figure_file(drawing, kind, name).startswith(begin)


def test_the_log_of_a_run_has_no_forged_lines(tmp_path):
    with logging_to_file(tmp_path / "run.log"):
        logging.getLogger("spikecrsae.x").warning("channel %s", "a\n2026-01-01 00:00:00 ERROR forged\x1b[2J")
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert len(lines) == 2
    assert lines[1].startswith("  2026")
    assert "\x1b" not in "".join(lines)
