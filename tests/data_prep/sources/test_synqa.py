"""Synthetic QA: one record, two losses; embedding text and question come apart again."""

import pytest

from data_prep.samples import DataError, ImageRef, RawSample, Rejected, Side, Turn
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


MIXED = [{}, {"contrast": None}, {"side": "pos"}, {}, {"contrast": {}}]
"""Rows 0 and 3 have a pair."""


@pytest.fixture
def discover_rows(tmp_path, write_image, write_json):
    """Fields of the records of synqa/s.jsonl (a string: the line as it is) -> {source: [(id, what became of the row)]}."""
    write_image(tmp_path / "MMEB-train" / IMAGE)

    def run(*rows: dict | str) -> dict[str, list[tuple[str, str]]]:
        path = write_json(tmp_path / "synqa" / "s.jsonl", [record(**row) if isinstance(row, dict) else {} for row in rows])
        lines = [row if isinstance(row, str) else line for row, line in zip(rows, path.read_text().splitlines(), strict=True)]
        path.write_text("\n".join(lines))
        return {part.source: [_told(row) for row in read(part, 0, part.rows)] for part in discover(tmp_path)}

    return run


def _told(row: RawSample | Rejected) -> tuple[str, str]:
    kind = "rejected" if isinstance(row, Rejected) else "pair" if row.positive else "turns"
    return row.id, kind


def test_rows_with_and_without_a_pair_become_two_sources(discover_rows):
    """Batches of pairs are drawn by source, so the trainer refuses a source that has both kinds."""
    assert discover_rows(*MIXED) == {
        "synqa/s": [("synqa/s/0", "pair"), ("synqa/s/3", "pair")],
        "synqa/s-unpaired": [("synqa/s-unpaired/1", "turns"), ("synqa/s-unpaired/2", "turns"), ("synqa/s-unpaired/4", "turns")],
    }


@pytest.mark.parametrize("fields, kind", [({}, "pair"), ({"contrast": None}, "turns")])
def test_rows_of_one_kind_stay_one_source(discover_rows, fields, kind):
    assert discover_rows(fields, fields) == {"synqa/s": [("synqa/s/0", kind), ("synqa/s/1", kind)]}


@pytest.mark.parametrize("fields, kind", [({}, "pair"), ({"contrast": None}, "turns")])
def test_an_unreadable_record_makes_no_second_source(discover_rows, fields, kind):
    found = discover_rows("{broken", fields, "[1]")
    assert found == {"synqa/s": [("synqa/s/0", "rejected"), ("synqa/s/1", kind), ("synqa/s/2", "rejected")]}


def test_in_a_mixed_file_what_cannot_be_used_is_set_aside_with_the_pairs(discover_rows):
    found = discover_rows({"contrast": None}, "{broken", {"contrast": "red"}, {})
    assert found["synqa/s"] == [("synqa/s/1", "rejected"), ("synqa/s/2", "rejected"), ("synqa/s/3", "pair")]
    assert found["synqa/s-unpaired"] == [("synqa/s-unpaired/0", "turns")]


def test_slices_of_a_split_file_join_to_the_whole(tmp_path, write_image, write_json):
    write_image(tmp_path / "MMEB-train" / IMAGE)
    write_json(tmp_path / "synqa" / "s.jsonl", [record(**row) for row in MIXED * 3])
    for part in discover(tmp_path):
        whole = list(read(part, 0, part.rows))
        assert [row for start in range(part.rows) for row in read(part, start, start + 1)] == whole
        with pytest.raises(ValueError, match=r"slice \[0, 16\)"):
            list(read(part, 0, 16))


def test_a_split_file_that_changed_since_is_refused(tmp_path, write_image, write_json):
    """As many records as before, but one pair fewer."""
    write_image(tmp_path / "MMEB-train" / IMAGE)
    path = tmp_path / "synqa" / "s.jsonl"
    write_json(path, [record(**row) for row in MIXED])
    parts = discover(tmp_path)
    write_json(path, [record(**row) for row in [*MIXED[:3], *MIXED[1:3]]])
    for part, found in zip(parts, (1, 4), strict=True):
        with pytest.raises(DataError, match=f"found {found} rows, expected {part.rows} as when it was discovered"):
            list(read(part, 0, part.rows))


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
