"""The commands and Python blocks of README and the manual do what they say: each page is run from top to bottom.

A page is run in a folder of its own, in which FILES lie. A block is run unless a comment `<!-- not run: reason -->` stands
before it.
"""

from __future__ import annotations

import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers import vendor_files
from helpers.command_line import spikecrsae
from helpers.recording_files import write_nwb
from helpers.recordings import SAMPLE, cut_recording

ROOT = Path(__file__).parents[1]
PAGES = (
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
)
SHELL = ("", "sh")
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->")
# SpikeInterface leaves the closing of files to the garbage collector, and says that a saved array has no origin
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:The extractor is not serializable:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*FileIO.*:pytest.PytestUnraisableExceptionWarning"),
]


@dataclass(frozen=True)
class Block:
    """What a page shows as code: its language, the title of a file that it holds, and why it is not run, if so."""

    language: str
    text: str
    line: int
    title: str = ""
    reason: str = ""


def blocks_of(text: str) -> list[Block]:
    """The fenced blocks, and those indented by four spaces after an empty line, in order."""
    found, lines, number, reason = [], text.split("\n"), 0, ""
    while number < len(lines):
        line, first = lines[number], number + 1
        if comment := NOT_RUN.match(line):
            reason = comment[1]
        if line.startswith("```"):
            end = next(i for i in range(number + 1, len(lines)) if lines[i].startswith("```"))
            title = re.search(r'title="([^"]+)"', line)
            content = "\n".join(lines[number + 1 : end])
            found.append(Block(line[3:].split(" ")[0], content, first, title[1] if title else "", reason))
            number, reason = end, ""
        elif line.startswith("    ") and not lines[number - 1].strip():
            end = number
            while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
                end += 1
            found.append(Block("", "\n".join(x[4:] for x in lines[number:end]).strip("\n"), first, reason=reason))
            number, reason = end - 1, ""
        number += 1
    return found


def commands_of(block: Block) -> list[list[str]]:
    """The words of each command; where some lines begin with a prompt, only those are commands and the rest is their output."""
    lines = [line for line in block.text.split("\n") if line.strip()]
    prompted = [line[2:] for line in lines if line.startswith("$ ")]
    return [words for line in prompted or lines if (words := shlex.split(line, comments=True))]


def _sample(start_s: float = 0, stop_s: float = 4) -> np.ndarray:
    with h5py.File(SAMPLE) as file:
        return file["traces"][int(start_s * 20_000) : int(stop_s * 20_000)]


def _cut(path: Path, start_s: float = 0, stop_s: float = 4) -> None:
    """A stretch of the sample recording with its known spikes."""
    cut_recording(path, start_s, stop_s)
    with h5py.File(SAMPLE) as source, h5py.File(path, "a") as file:
        for unit, group in source["truth"].items():
            samples = group["spike_samples"][:] - int(start_s * 20_000)
            file[f"truth/{unit}/spike_samples"] = samples[(samples >= 0) & (samples < len(file["traces"]))]


#: What lies in a page's folder where the page names it: from real-looking spikes, short, so that a sort takes two seconds.
FILES = {
    "sample_data/tetrode.h5": _cut,
    "recording.h5": _cut,
    "next.h5": lambda path: cut_recording(path, 6, 10),
    "next-recording.h5": lambda path: cut_recording(path, 6, 10),
    "recording.dat": lambda path: _sample().tofile(path),
    "wire.dat": lambda path: _sample()[:, 3].tofile(path),
    "data/*.nwb": lambda path: write_nwb(path.with_name("monday.nwb"), _sample()),
    "session.rhd": lambda path: shutil.move(vendor_files.intan(path.parent, _sample()).path, path),
}


def run_commands(block: Block) -> None:
    """Each command of the block, in this process; a word `>` leads its output into a file."""
    for words in commands_of(block):
        assert words[0].endswith("spikecrsae"), f"{words} is no command of ours: give the reason in a comment 'not run:'"
        words, into = (words[:-2], words[-1]) if ">" in words else (words, None)
        result = spikecrsae(*words[1:])
        assert result.exit_code == 0, f"{shlex.join(words)} ends with {result.exit_code}: {result.stderr}"
        if into:
            Path(into).write_text(result.stdout, encoding="utf-8")


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page.read_text("utf-8"))], ids=lambda page: page.stem)
def test_a_page_does_what_it_says(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPIKECRSAE_CORES", "1")  # groups are sorted in this process, which has loaded everything already
    text = page.read_text(encoding="utf-8")
    for name, make in FILES.items():
        if name in text:
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            make(path)
    names: dict = {}
    for block in blocks_of(text):
        if block.reason:
            continue
        if block.title:
            Path(block.title).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            exec(compile(block.text, f"{page.name}, line {block.line}", "exec"), names)
        elif block.language in SHELL:
            run_commands(block)


def test_blocks_and_commands_are_found_as_a_reader_sees_them():
    page = "Do\n\n    $ spikecrsae info 'a b.h5'\n    file   a b.h5\n\nor\n\n<!-- not run: no shell -->\n\n```sh\nls\n```\n\n```python title=\"x.py\"\n1\n```\n"
    first, second, third = blocks_of(page)
    assert commands_of(first) == [["spikecrsae", "info", "a b.h5"]]
    assert (second.language, second.text, second.reason) == ("sh", "ls", "no shell")
    assert (third.language, third.text, third.title, third.reason) == ("python", "1", "x.py", "")
