"""Text that comes from elsewhere, read within bounds and shown without what a terminal or a table program would act upon; and
numbers of things in words."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from spikecrsae.errors import InputError

#: Control characters (the escape that begins a terminal's commands among them), line and paragraph separators, those that
#: turn the direction of writing, and the surrogates for bytes of a file name that are not UTF-8.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
#: A configuration or a side file is a page of text.
MOST_TOML_MB = 1
#: With these a table program begins a formula.
_FORMULA = ("=", "+", "-", "@")


def counted(number: int, noun: str, form: str = "") -> str:
    """A number of things, such as "1 unit" or "3 units"; form: the number's format, such as "," for 1,037."""
    return f"{number:{form}} {noun}{'' if number == 1 else 's'}"


def unknown_name(name: object, known: Iterable[str], listed: str) -> str:
    """Say that a name does not exist: with the known ones that resemble it, else with `listed`, where to find them."""
    near = difflib.get_close_matches(str(name), known, n=2)
    remedy = f"did you mean {' or '.join(near)}?" if near else f"{listed}."
    return f"{name} does not exist; {remedy}"


def visible(text: object) -> str:
    """Text on one line, with an escape such as \\x1b in place of every character that does something and shows nothing."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], str(text))


def cell_text(text: object) -> str:
    """Visible text for a cell of a table; what a table program would take for a formula has an apostrophe before it."""
    shown = visible(text)
    return f"'{shown}" if shown.startswith(_FORMULA) and not is_number(shown) else shown


def is_number(text: str) -> bool:
    """Whether text is a number as Python writes one."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_text(path: Path, most_mb: float) -> str:
    """A text file of at most so many MB, a byte order mark taken off. Raises InputError for a longer one, a folder and what is no UTF-8,
    OSError where it cannot be opened."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a text file.")
    content = bytearray()
    with path.open("rb") as file:
        # piece by piece: asked for all at once, Python takes the memory beforehand
        while len(content) <= most_mb * 2**20 and (piece := file.read(2**16)):
            content += piece
    if len(content) > most_mb * 2**20:
        raise InputError(f"{path} is longer than {most_mb:g} MB, the most for a file of its kind; give a shorter one.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file in UTF-8; save it as one.") from error
