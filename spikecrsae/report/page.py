"""The frame of a page that holds everything it shows, readable without network and without the program.

Looks and behaviour are in page.css and page.js, which are copied into the page. The page may load nothing and run no other
script than its own (its Content-Security-Policy says so).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path

from spikecrsae.report.svg import escape


def page(name: str, subtitle: str, sections: Mapping[str, str]) -> str:
    """The whole page under this name. subtitle, and sections by their titles, are HTML; an empty section is left out."""
    present = {title: content for title, content in sections.items() if content}
    first = next(iter(present), "").lower()
    links = "".join(f'<a href="#{title.lower()}">{title}</a>' for title in present)
    body = "".join(
        f'<section id="{title.lower()}"><h2>{title}</h2>{content}</section>' for title, content in present.items()
    )
    style, script = (Path(__file__).with_name(file).read_text(encoding="utf-8") for file in ("page.css", "page.js"))
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{own}'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">'
        f"<title>{escape(name)} - spikecrsae</title><style>{style}</style></head><body>"
        f'<a class="skip" href="#{first}">Skip to the content</a>'
        f"<header><h1>{escape(name)}</h1><p>{subtitle}</p></header>"
        f'<nav aria-label="Sections">{links}<button type="button" id="theme" hidden>Theme: auto</button></nav>'
        f"<main>{body}</main><script>{script}</script></body></html>\n"
    )
