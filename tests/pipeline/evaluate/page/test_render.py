"""The page: complete, self-contained, and inert whatever the data says."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from data_prep.samples import ImageRef, Side
from data_prep.sources.mmeb_eval import EvalRow, EvalSet
from pipeline.evaluate.page import __main__ as command
from pipeline.evaluate.page.pictures import BUDGET
from pipeline.evaluate.page.render import write_report

HOSTILE = (
    "<script>alert(1)</script>",
    "</style><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "javascript:alert(1)",
    "\u202e\u2066gnp.exe\u200f",
    "{{ 7 * 7 }}{% raw %}",
    "</bdi></td></table><iframe src='//evil.example'>",
    "&lt;b&gt; & \x00\x1b[2J",
)


class Page(HTMLParser):
    """Elements with attributes, and the text between them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data) -> None:
        self.text += data

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _, attributes in self.tags if attribute in attributes]


@pytest.fixture
def page_of(written, make, picture):
    """The page of an evaluation whose every text is the given one."""

    def page(text: str, **options) -> str:
        name = re.sub(r"[/\x00]", "_", text)[:60]
        rows = [EvalRow(Side(text, (picture(i),)), tuple(Side(f"{text} {j}") for j in range(3))) for i in range(2)]
        own = EvalSet(name, "retrieval", "OOD", rows)
        benchmark = make.questions(name, "open", [text], (picture(5),), answer=text)
        begun = written("hostile", checkpoint=text, title=text).set(own, [True, False])
        begun.benchmark(benchmark, "native", [1.0], text).benchmark(benchmark, "compressed", [0.0], text)
        begun.facts[text] = text
        maps = begun.folder / "plots/attention"
        maps.mkdir(parents=True)
        Image.new("RGB", (40, 40), "blue").save(maps / "00.png")
        (maps / "00.json").write_text('{"image": "<script>", "image_mass": 0.5, "entropy": 0.9}')
        return write_report(begun.report(), begun.folder, [own], [benchmark], **options).read_text(encoding="utf-8")

    return page


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_from_data_is_active(page_of, text) -> None:
    html = page_of(text)
    page, tame = Page(html), {tag for tag, _ in Page(page_of_tags(html)).tags}
    assert not tame & {"script", "iframe", "object", "embed", "form", "base", "link", "foreignobject"}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "style"]
    assert all(address.startswith(("#", "./predictions/")) for address in page.values("href"))
    assert all(source.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")) for source in page.values("src"))
    assert not set("\u202e\u2066\u200f\x00\x1b") & set(html)
    assert "49" not in re.findall(r"<h1>.*?</h1>", html)[0]
    visible = "".join(c if c.isprintable() else " " for c in text)
    assert page.text.count(visible) >= 10, "escaped, not dropped: title, facts, sets, queries, candidates, answers"


def page_of_tags(html: str) -> str:
    """The page without its style sheet, whose text a parser may not mistake for tags."""
    return re.sub(r"<style>.*?</style>", "", html, flags=re.DOTALL)


def test_the_policy_allows_the_style_sheet_and_pictures_alone(page_of) -> None:
    html = page_of("plain")
    (policy,) = [a["content"] for tag, a in Page(html).tags if a.get("http-equiv") == "Content-Security-Policy"]
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "prefers-color-scheme: dark" in style and "url(" not in style.replace("url(#stripes)", "") and "@import" not in style


def test_everything_is_there(page_of) -> None:
    html = page_of("plain")
    page = Page(html)
    sections = {"retrieval", "answers", "chorus", "retrieved", "answered", "maps", "files"}
    assert sections <= set(page.values("id")) and {f"#{name}" for name in sections} <= set(page.values("href"))
    links = {"./predictions/plain.jsonl", "./predictions/plain.native.jsonl", "./predictions/plain.compressed.jsonl"}
    assert links <= set(page.values("href"))
    rows = re.findall(r"<tr[^>]*>(.*?)</tr>", html, re.DOTALL)
    theirs = [row for row in rows if any(name in row for name in ("mmE5", "CREM 7B", "Qwen2-VL-7B", "64 tokens"))]
    assert len(theirs) == 5 and all("published, not run" in row for row in theirs)
    assert len(page.values("src")) == 2 + 1 + 1, "two queries, the question of one outcome, one map"
    assert "this run" in page.text and "published, not run here" in page.text


def test_the_budget_and_missing_pictures_are_stated(page_of, written, tmp_path) -> None:
    page = Page(page_of("plain", budget=0))
    assert not page.values("src") and "room for pictures is used up" in page.text
    rows = [EvalRow(Side("q", (ImageRef("gone.png", tmp_path),)), (Side("a"), Side("b")))]
    own = EvalSet("Own", None, None, rows)
    begun = written("gone").set(own, [True])
    assert "no picture (missing)" in Page(write_report(begun.report(), begun.folder, [own]).read_text()).text


def test_many_large_pictures_keep_the_page_small(written, make, picture) -> None:
    """Two sets of noise, which no format makes small."""
    sets = [make.shown(f"Own{i}", [picture(10 * i + j, 560, 560) for j in range(3)]) for i in range(2)]
    begun = written()
    for own in sets:
        begun.set(own, [True, False, True])
    path = write_report(begun.report(), begun.folder, sets, budget=300_000)
    assert 100_000 < path.stat().st_size < 300_000 + 60_000 and BUDGET <= 4_000_000


def test_the_same_page_again_from_the_folder(written, make, capsys) -> None:
    begun = written().set(make.words("Own", 3), [True, False, True]).benchmark(make.questions("Open", "open", ["1"]), "native", [1.0])
    first = write_report(begun.report(), begun.done()).read_bytes()
    (begun.folder / "report.html").unlink()
    assert command.main([str(begun.folder)]) == 0
    assert capsys.readouterr().out.strip() == str(begun.folder / "report.html")
    assert (begun.folder / "report.html").read_bytes() == first
    assert command.main([str(begun.folder / "nowhere")]) == 2
    assert "error: " in capsys.readouterr().err
