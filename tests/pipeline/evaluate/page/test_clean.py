"""Text on a page: one line, nothing invisible, and addresses that lead nowhere else."""

import pytest
from jinja2 import Environment
from markupsafe import Markup

from pipeline.evaluate.page.clean import BRIEF, LONGEST, brief, clean, link


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\tand\x00nothing\x1b[31m", "two lines and nothing [31m"),
        ("a\u202eb\u2066c\u200fd\ufeffe", "a b c d e"),
        ("عربي 環 é", "عربي 環 é"),
        (0.5, "0.5"),
        ("\ud800", " "),
    ],
)
def test_clean(text, shown) -> None:
    assert clean(text) == shown


def test_long_texts_end() -> None:
    assert clean("x" * 10_000) == "x" * (LONGEST - 1) + "…" and len(brief("y" * 1000)) == BRIEF
    assert clean(Markup("<b>" + "x" * 5000)) == Markup("<b>" + "x" * 5000), "the project's own markup is whole"


@pytest.mark.parametrize(
    ("name", "address"),
    [
        ("a.jsonl", "./predictions/a.jsonl"),
        ("../../etc/passwd", "./predictions/..%2F..%2Fetc%2Fpasswd"),
        ("javascript:alert(1)", "./predictions/javascript%3Aalert%281%29"),
        ('"><script>', "./predictions/%22%3E%3Cscript%3E"),
        ("\udcff", "./predictions/%FF"),
    ],
)
def test_link(name, address) -> None:
    assert link("predictions", name) == address
    assert Environment(autoescape=True).from_string("{{ a }}").render(a=link("predictions", name)) == address
