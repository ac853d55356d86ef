"""A corpus without a fault, and one with many."""

import json
from pathlib import Path

import pytest

from tests.data_prep.check.corpora import FILE, pair, talk, write_pairs


@pytest.fixture
def good(tmp_path: Path, picture_56: bytes) -> Path:
    """Three pairs and two conversations without a fault."""
    root = tmp_path / "data"
    write_pairs(
        root / "MMEB-train" / "Good" / FILE, [pair("q", "images/a.png"), pair("r", ""), pair("s", "images/a.png", "no", "images/a.png")]
    )
    (root / "chats" / "images").mkdir(parents=True)
    (root / "MMEB-train" / "images").mkdir()
    for folder in ("chats", "MMEB-train"):
        (root / folder / "images" / "a.png").write_bytes(picture_56)
    (root / "chats" / "talk.json").write_text(json.dumps([talk("images/a.png", "<image>\nq"), talk("", "q")]))
    return root


@pytest.fixture
def bad(good: Path, picture_56: bytes) -> Path:
    """The same, and ten rows with a fault each among twelve."""
    images = good / "MMEB-train" / "images"
    (images / "cut.png").write_bytes(picture_56[: len(picture_56) // 2])
    (images / "page.jpg").write_text("<html>404</html>")
    (images / "empty.png").touch()
    (images / "folder.png").mkdir()
    rows = [pair("q", "images/a.png"), pair("q", "images/lost.png"), pair("q", "images/cut.png"), pair("q", "images/page.jpg")]
    rows += [pair("q", "../../../etc/passwd"), pair("q", "images/folder.png"), pair("q", ""), pair("q", "", "<|image_1|>\n")]
    rows += [pair("q", "images/a.png", "p", "images/empty.png"), pair("word " * 5000, "")]
    write_pairs(good / "MMEB-train" / "Bad" / FILE, rows)
    talks = [talk("images/a.png", "q"), talk("", "lone \ud800")]
    (good / "chats" / "bad.jsonl").write_text("\n".join(map(json.dumps, talks)))
    return good
