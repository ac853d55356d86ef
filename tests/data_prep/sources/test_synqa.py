"""Synthetic QA: one record, two losses; embedding text and question come apart again."""

import pytest

from data_prep.samples import DataError, ImageRef, RawSample, Side, Turn
from data_prep.sources import discover, read

EMBED = "Answer the following question with the given image: Find"
IMAGE = "images/S/a.png"


def record(human: str = f"<image>\n{EMBED}\nWhat colour?", **fields) -> dict:
    turns = [{"from": "human", "value": human}, {"from": "gpt", "value": "Red."}]
    contrast = {"qry": EMBED, "pos_text": "red", "pos_image_path": ""}
    base = {"id": "x", "side": "qry", "image": IMAGE, "embed_text": EMBED, "conversations": turns, "contrast": contrast}
    return {**base, **fields}


@pytest.fixture
def load(tmp_path, write_image, write_json):
    """Records of synqa/shapes_synqa.jsonl beside MMEB-train -> what is read from it."""
    write_image(tmp_path / "MMEB-train" / IMAGE)

    def run(*items: dict) -> list:
        write_json(tmp_path / "synqa" / "shapes_synqa.jsonl", list(items))
        (part,) = discover(tmp_path)
        assert part.root == tmp_path / "MMEB-train"
        return list(read(part, 0, part.rows))

    return run


def test_a_record_serves_both_losses(load, tmp_path):
    (sample,) = load(record())
    source = "synqa/shapes_synqa"
    query = Side(EMBED, (ImageRef(IMAGE, tmp_path / "MMEB-train"),))
    assert sample == RawSample(f"{source}/0", source, query, (Turn("What colour?", "Red."),), Side("red"), ())


@pytest.mark.parametrize(
    "human, question",
    [
        (f"<image>\n{EMBED}\nWhat colour?", "What colour?"),
        (f"<image>\n{EMBED}\n\nWhat colour?\n", "What colour?"),
        ("<image>\nWhat colour?", "What colour?"),
        ("What colour?", "What colour?"),
        (f"{EMBED}ing colours, what is left?", f"{EMBED}ing colours, what is left?"),
        (f"Is this right: {EMBED}?", f"Is this right: {EMBED}?"),
    ],
)
def test_marker_and_embedding_text_leave_the_question(load, human, question):
    (sample,) = load(record(human))
    assert sample.turns == (Turn(question, "Red."),)


def test_placeholders_in_the_embedding_text_are_stripped(load):
    (sample,) = load(record("<image>\nIt\nWhy?", embed_text="<|image_1|>\nIt\n"))
    assert (sample.query.text, sample.turns) == ("It", (Turn("Why?", "Red."),))


def test_negatives_and_image_positive(load, tmp_path):
    contrast = {
        "pos_text": "<|image_1|>\nx\n",
        "pos_image_path": "images/p.png",
        "neg_text": "['n', '']",
        "neg_image_path": "",
    }
    (sample,) = load(record(contrast=contrast))
    assert sample.positive == Side("x", (ImageRef("images/p.png", tmp_path / "MMEB-train"),))
    assert sample.negatives == (Side("n"),)


@pytest.mark.parametrize("fields", [{"contrast": None}, {"contrast": {}}, {"side": "pos"}])
def test_without_a_pair_about_the_query_only_the_turns_stay(load, fields):
    (sample,) = load(record(**fields))
    assert (sample.positive, sample.negatives) == (None, ())
    assert sample.turns == (Turn("What colour?", "Red."),)


@pytest.mark.parametrize(
    "fields, reason",
    [
        ({"human": f"<image>\n{EMBED}"}, "empty_question: question 0 is empty"),
        ({"human": "<image><image>\nq"}, "placeholder_count: 2 <image> markers but 1 images"),
        ({"contrast": {"pos_text": "<|image_1|>\n"}}, "empty_side: positive has neither text nor image"),
        ({"contrast": {"pos_text": 5}}, "pos_text: found int, expected text"),
        ({"contrast": "red"}, "contrast: found str, expected an object"),
        ({"embed_text": ["x"]}, "embed_text: found list, expected text"),
        ({"embed_text": "", "image": None, "human": "q"}, "empty_side: query has neither text nor image"),
        ({"conversations": []}, "conversations: found no list of turns"),
    ],
)
def test_unusable_records_are_rejected(load, fields, reason):
    good, bad = load(record(), record(**fields))
    assert good.id == "synqa/shapes_synqa/0"
    assert (bad.id, bad.reason) == ("synqa/shapes_synqa/1", reason)


@pytest.mark.parametrize("place", ["disk", "synqa", "synqa/MMEB-train", "MMEB-train"])
def test_where_images_are_looked_up(tmp_path, write_image, write_json, place):
    write_image(tmp_path / place / IMAGE)
    (tmp_path / "disk").mkdir(exist_ok=True)
    write_json(tmp_path / "synqa" / "s.jsonl", [record()])
    (part,) = discover(tmp_path / "synqa", image_root=tmp_path / "disk")
    assert part.root == tmp_path / place


def test_missing_image_names_every_path_tried(tmp_path, write_json):
    write_json(tmp_path / "synqa" / "s.jsonl", [record()])
    with pytest.raises(DataError) as caught:
        discover(tmp_path / "synqa")
    for folder in ("synqa", "synqa/MMEB-train", "MMEB-train"):
        assert f"{tmp_path / folder / IMAGE} (missing)" in str(caught.value)


def test_records_without_conversations(tmp_path, write_json):
    write_json(tmp_path / "s.jsonl", [{"embed_text": "x", "image": IMAGE}])
    with pytest.raises(
        DataError, match=r"s.jsonl: found keys embed_text, image; expected conversations beside embed_text"
    ):
        discover(tmp_path)
