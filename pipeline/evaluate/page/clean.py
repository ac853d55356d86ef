"""Text from data and models on a page. Everything that a template prints passes `clean`, and is HTML-escaped after that."""

from typing import Any
from urllib.parse import quote

from markupsafe import Markup

LONGEST, BRIEF = 700, 240
"""Characters of one text that are shown, and of one in a gallery; the whole stands in the prediction files."""


def clean(value: Any) -> Any:
    """One line without control, direction or other invisible characters, at most LONGEST long; the project's own markup stays as it is."""
    if isinstance(value, Markup):
        return value
    text = "".join(c if c.isprintable() else " " for c in str(value)[: 2 * LONGEST])
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def brief(text: str) -> str:
    """A text for a gallery, at most BRIEF long."""
    return text if len(text) <= BRIEF else text[: BRIEF - 1] + "…"


def link(folder: str, name: str) -> Markup:
    """The address of a file in a folder beside the page; percent-encoded, so that no scheme, host or markup can come out of a name."""
    return Markup(f"./{quote(folder, safe='')}/{quote(name, safe='', errors='surrogateescape')}")
