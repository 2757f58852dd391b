"""Count the words of the user's manual: python .ci/words.py

Prints, for every page of docs/, the words of its running text and those of its tables. Both count. Code, comments and the targets of
links do not, nor does the help of the commands, which the program prints. The manual is what a user reads: everything but the pages on
what was measured.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
#: Pages on what was measured, of ours and of others.
MEASURED = {"paper.md", "benchmarks.md", "ecosystem.md"}
#: Words that the manual may have, with its tables.
MOST = 18_000


def words(text: str) -> tuple[int, int]:
    """Return the words of the running text of a page, and of its tables."""
    text = re.sub(r"^```.*?^```|<!--.*?-->|^    .*?$", "", text, flags=re.M | re.S)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    rows = re.findall(r"^\|.*$", text, flags=re.M)
    in_tables, in_all = (len(re.findall(r"\S*\w\S*", part)) for part in ("\n".join(rows), text))
    return in_all - in_tables, in_tables


def manual() -> dict[str, tuple[int, int]]:
    """Return the words of every page of the manual, by its name."""
    pages = sorted(DOCS.rglob("*.md"))
    return {page.relative_to(DOCS).as_posix(): words(page.read_text("utf-8")) for page in pages if page.name not in MEASURED}


def main() -> None:
    counted = manual()
    for name, (text, tables) in counted.items():
        print(f"{text:6} {tables:6}  {name}")
    text, tables = (sum(column) for column in zip(*counted.values(), strict=True))
    print(f"{text:6} {tables:6}  in all: {text + tables} words of at most {MOST}")
    sys.exit(text + tables > MOST)


if __name__ == "__main__":
    main()
