"""List every error message of the program with its three parts: value, rule and remedy: python .ci/messages.py [PART]

A message is what a `raise` of a SpikeCRsAEError says, as it stands in the source: {...} is what was found. Its remedy is the clause
that tells what to do; the rest is the rule. --bare lists those of which a part is not to be seen: there a reader has to judge.
"""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "spikecrsae"
ERRORS = re.compile(r"(Usage|Input|Output|Read|OutOfMemory|SpikeCRsAE|Folder\w*)Error$")
#: Words with which a remedy begins.
DO = """
    add allow ask blank change check choose close compare copy correct cut delete divide do end export free fit get give h5repack install
    join keep leave let lower make move multiply name open pass pick pip put raise read record reduce remove rename repeat replace resave
    run save say score see set shorten shut sort split start store swap take transpose try unpack update use wait wire write
"""
#: Words that say what is allowed, which is then what to give.
_ALLOWED = re.compile(
    r"\b(must|needs?|there (is|are)|(units|channels) (are|of)|has (the units|channels)|(it|which) (has|holds) \{|may hold|belongs to)"
)
#: Names of texts that tell the remedy, or are a message themselves.
_CARRIERS = re.compile(r"\{(remedy|look|listed|rule|looks|error|WHY_NO_SNIPPETS|reason|unknown_name\()")
_REMEDY = re.compile(rf"(?:^|[.;:,(]\s+|\b(?:or|and|then|please|to|can)\s+)(?:{'|'.join(DO.split())})\b.*", re.I | re.S)


@dataclass(frozen=True)
class Message:
    """One message: where it is raised, and its text."""

    place: str
    text: str

    @property
    def values(self) -> list[str]:
        """What was found, as the source names it."""
        return re.findall(r"\{[^}]*\}|'[^']+'|--[a-z-]+", self.text)

    @property
    def remedy(self) -> str:
        """What to do; empty where no clause says it."""
        if carriers := _CARRIERS.findall(self.text):
            return "{" + carriers[-1] + "}"
        clauses = [part for part in re.split(r"(?<=[.;])\s+", self.text) if _REMEDY.search(part)]
        if not clauses and _ALLOWED.search(self.text):
            return "(give what is allowed)"
        return clauses[-1].strip() if clauses else ""

    @property
    def rule(self) -> str:
        """The rest."""
        return self.text.replace(self.remedy, "").strip() if self.remedy else self.text

    @property
    def is_bare(self) -> bool:
        return not (self.values and self.remedy)


def _text(node: ast.expr) -> str | None:
    """The words of an expression: text as it is, everything else in braces; None where there are no words in it."""
    if isinstance(node, ast.Constant):
        return str(node.value) if isinstance(node.value, str) else None
    if isinstance(node, ast.JoinedStr):
        parts = [v.value if isinstance(v, ast.Constant) else "{" + ast.unparse(v.value) + "}" for v in node.values]  # type: ignore[attr-defined]
        return "".join(map(str, parts))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        sides = [_text(side) or "{" + ast.unparse(side) + "}" for side in (node.left, node.right)]
        return "".join(sides)
    if isinstance(node, ast.IfExp):
        return " | ".join(filter(None, (_text(node.body), _text(node.orelse))))
    return None


def messages() -> list[Message]:
    """Return every message, by file and line."""
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and node.args
                and ERRORS.search(ast.unparse(node.func))
                and (text := _text(node.args[0]))
            ):
                found.append(Message(f"{path.relative_to(PACKAGE)}:{node.lineno}", " ".join(text.split())))
    return found


def main() -> None:
    words = sys.argv[1:]
    bare = "--bare" in words
    shown = [m for m in messages() if (m.is_bare or not bare) and all(w in m.place + m.text for w in words if w != "--bare")]
    for message in shown:
        print(
            f"{message.place}\n  value   {', '.join(message.values) or '-'}\n  rule    {message.rule}\n  remedy  {message.remedy or '-'}"
        )
    print(f"{len(shown)} messages")


if __name__ == "__main__":
    main()
