"""MMEB-train: text conventions, negatives, slices, and what is refused."""

from pathlib import Path

import pyarrow as pa
import pytest

from data_prep.samples import DataError, ImageRef, Rejected, Side
from data_prep.sources import discover, read
from data_prep.sources.mmeb_train import negatives

FILE = "original-00000-of-00001.parquet"
SIX = ("qry", "qry_image_path", "pos_text", "pos_image_path", "neg_text", "neg_image_path")


def pair(*values, columns=SIX) -> dict:
    return dict(zip(columns, values, strict=False))


@pytest.fixture
def root(tmp_path, write_image) -> Path:
    write_image(tmp_path / "images" / "S" / "a b.png")
    return tmp_path


@pytest.fixture
def load(root, write_parquet):
    """Rows of one subset -> what is read from it."""

    def run(*rows: dict, schema: pa.Schema | None = None) -> list:
        write_parquet(root / "Shapes" / FILE, list(rows), schema)
        (part,) = discover(root)
        return list(read(part, 0, part.rows))

    return run


def test_a_row_becomes_a_sample(load, root):
    (sample,) = load(
        pair("<|image_1|>\nWhat is it?\n", "images/S/a b.png", "a square ", "", "<|image_1|>\nx\n", "images/S/n.png")
    )
    assert sample.id == "mmeb_train/Shapes/original/0"
    assert sample.source == "mmeb_train/Shapes"
    assert sample.query == Side("What is it?", (ImageRef("images/S/a b.png", root),))
    assert sample.positive == Side("a square")
    assert sample.negatives == (Side("x", (ImageRef("images/S/n.png", root),)),)
    assert sample.turns == ()


@pytest.mark.parametrize(
    "stored, expected",
    [
        ("<|image_1|>\nRepresent the given image.\n", "Represent the given image."),
        ("Select the portion", "Select the portion"),
        ("Q: is it?\nA: yes\n\n", "Q: is it?\nA: yes"),
        ("1234  ", "1234"),
        ("<|image_1|>", ""),
        ("<|image_1|>\nFind a page: a < b | c\n", "Find a page: a < b | c"),
    ],
)
@pytest.mark.parametrize("path", ["", "images/S/a b.png"])
def test_placeholder_and_space_are_stripped_with_and_without_image(load, stored, expected, path):
    (result,) = load(pair(stored, path, "yes", ""))
    if not expected and not path:
        assert result.reason == "empty_side: query has neither text nor image"
    else:
        assert result.query.text == expected
        assert [image.name for image in result.query.images] == ([path] if path else [])


def test_empty_sides_are_rejected_in_their_place(load):
    results = load(
        pair("q0", "", "p", ""), pair(" \n", "", "p", ""), pair("q2", "", "<|image_1|>\n", ""), pair("q3", "", "p", "")
    )
    assert [getattr(result, "reason", result.id) for result in results] == [
        "mmeb_train/Shapes/original/0",
        "empty_side: query has neither text nor image",
        "empty_side: positive has neither text nor image",
        "mmeb_train/Shapes/original/3",
    ]
    assert results[1] == Rejected("mmeb_train/Shapes/original/1", "mmeb_train/Shapes", results[1].reason)


def test_null_and_missing_negative_columns(load, root):
    assert load(pair("q", "", "p", "", columns=SIX[:4]))[0].negatives == ()
    assert load(pair("q", "", "p", "", None, None))[0].negatives == ()
    assert load(pair("q", "", "p", "", "", ""))[0].negatives == ()
    assert load(pair("q", "", "p", "", "n", None))[0].negatives == (Side("n"),)
    assert load(pair("q", "", "p", "", "", "images/S/n.png"))[0].negatives == (
        Side("", (ImageRef("images/S/n.png", root),)),
    )


def test_other_string_types_are_read(load):
    types = [
        pa.large_string(),
        pa.dictionary(pa.int32(), pa.string()),
        pa.string(),
        pa.null(),
        pa.list_(pa.string()),
        pa.null(),
    ]
    schema = pa.schema(list(zip(SIX, types, strict=True)))
    (sample,) = load(pair("q", "", "p", None, ["a", "b"], None), schema=schema)
    assert (sample.query, sample.positive, sample.negatives) == (Side("q"), Side("p"), (Side("a"), Side("b")))


R = Path("/r")
A, B = (ImageRef("a.png", R),), (ImageRef("b.png", R),)


@pytest.mark.parametrize(
    "texts, paths, expected",
    [
        ("['x', 'y']", "['', 'b.png']", (Side("x"), Side("y", B))),
        ("['x', '']", "['', '']", (Side("x"),)),
        ("['x', 'y']", "", (Side("x"), Side("y"))),
        ("", "['a.png', 'b.png']", (Side("", A), Side("", B))),
        ("['<|image_1|>\\nx\\n']", "['a.png']", (Side("x", A),)),
        ("""["it's", 'y']""", None, (Side("it's"), Side("y"))),
        (["x", None], None, (Side("x"),)),
        ("[]", "[]", ()),
        ("[sic]", "", (Side("[sic]"),)),
        ("[1, 2]", "", (Side("[1, 2]"),)),
        ("[__import__('os').getcwd()]", "", (Side("[__import__('os').getcwd()]"),)),
        ("[" * 9000 + "]" * 9000, "", (Side("[" * 9000 + "]" * 9000),)),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_lists_written_as_strings(texts, paths, expected):
    assert negatives(texts, paths, R) == expected


def test_negatives_of_unequal_length_are_rejected(load):
    good, bad = load(pair("q", "", "p", "", "['a']", "['']"), pair("q", "", "p", "", "['a', 'b']", "['']"))
    assert good.negatives == (Side("a"),)
    assert bad.reason == "negatives: 2 texts but 1 images"


def test_slices_join_to_the_whole_over_row_groups_and_files(root, write_parquet):
    rows = [pair(f"q{i}", "", "p", "") for i in range(700)]
    write_parquet(root / "Shapes" / "original-00000-of-00002.parquet", rows[:601], row_group_size=300)
    write_parquet(root / "Shapes" / "original-00001-of-00002.parquet", rows[601:])
    first, second = discover(root)
    assert [(part.rows, part.first) for part in (first, second)] == [(601, 0), (99, 601)]
    whole = [sample for part in (first, second) for sample in read(part, 0, part.rows)]
    assert [sample.id for sample in whole] == [f"mmeb_train/Shapes/original/{i}" for i in range(700)]
    assert [sample.query.text for sample in whole] == [f"q{i}" for i in range(700)]
    for start, stop in [(0, 1), (255, 257), (299, 301), (300, 600), (600, 601), (5, 5), (601, 601)]:
        assert list(read(first, start, stop)) == whole[start:stop]
    with pytest.raises(ValueError, match=r"slice \[0, 602\) of 601 rows"):
        list(read(first, 0, 602))


def test_old_train_files_are_a_split(root, write_parquet):
    write_parquet(root / "Shapes" / "train-00000-of-00001.parquet", [pair("q", "", "p", "")])
    (part,) = discover(root, split="train")
    assert next(read(part, 0, 1)).id == "mmeb_train/Shapes/train/0"


def test_split_missing_in_some_subsets_is_refused(root, write_parquet):
    write_parquet(root / "Shapes" / FILE, [pair("q", "", "p", "")])
    write_parquet(root / "Colors" / "train-00000-of-00001.parquet", [pair("q", "", "p", "")])
    with pytest.raises(DataError, match=r"split 'original' found in 1 subsets but not in Colors; download it"):
        discover(root)


def test_wrong_columns_are_named(root, write_parquet):
    path = write_parquet(root / "Shapes" / FILE, [{"query": "q", "qry_image_path": "", "pos_text": "p"}])
    with pytest.raises(DataError) as caught:
        discover(root)
    assert str(caught.value) == (
        f"{path}: wrong columns: found query, qry_image_path, pos_text; missing qry, pos_image_path; "
        "expected qry, qry_image_path, pos_text, pos_image_path and optionally neg_text, neg_image_path"
    )


@pytest.mark.parametrize(
    "value, found", [(7, "int64"), ([["x"]], "list<element: list<element: string>>"), (["x"], "list<element: string>")]
)
def test_wrong_column_types_are_named(root, write_parquet, value, found):
    write_parquet(root / "Shapes" / FILE, [pair(value, "", "p", "")])
    with pytest.raises(DataError, match=f"column qry: found {found}; expected string"):
        discover(root)


def test_extension_types_are_refused(root, write_parquet):
    schema = pa.schema([("qry", pa.uuid()), *((name, pa.string()) for name in SIX[1:4])])
    write_parquet(root / "Shapes" / FILE, [pair(b"0" * 16, "", "p", "")], schema)
    with pytest.raises(DataError, match=r"column qry: found .*uuid.*; expected string"):
        discover(root)


def test_no_rows(root, write_parquet):
    write_parquet(root / "Shapes" / FILE, [], pa.schema([(name, pa.string()) for name in SIX]))
    with pytest.raises(
        DataError, match=r"original-00000-of-00001\.parquet: found 0 rows, expected at least one; download"
    ):
        discover(root)


def test_not_parquet(root):
    (root / "Shapes").mkdir()
    (root / "Shapes" / FILE).write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(DataError, match=r"Shapes/original-00000-of-00001.parquet: not a readable parquet file"):
        discover(root)


def test_damaged_page_is_found_while_reading(root, write_parquet):
    path = write_parquet(
        root / "Shapes" / FILE,
        [pair("q" * 5000, "", "p", "")],
        compression="none",
        use_dictionary=False,
        write_page_checksum=True,
    )
    (part,) = discover(root)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"q" * 5000, b"q" * 4000 + b"r" + b"q" * 999))
    with pytest.raises(DataError, match=r"original-00000-of-00001.parquet: damaged data in row group 0"):
        list(read(part, 0, 1))


def test_file_that_grew_since_discovery_is_refused(root, write_parquet):
    path = write_parquet(root / "Shapes" / FILE, [pair("q", "", "p", "")])
    (part,) = discover(root)
    write_parquet(path, [pair("q", "", "p", "")] * 2)
    with pytest.raises(DataError, match=r"found 2 rows, expected 1 as when it was discovered; run discovery again"):
        list(read(part, 0, 1))


def test_first_image_must_exist(root, write_parquet):
    path = write_parquet(root / "Shapes" / FILE, [pair("q", "", "p", ""), pair("q", "", "p", "images/S/no.png")])
    with pytest.raises(DataError) as caught:
        discover(root)
    message = str(caught.value)
    assert message.startswith(
        f"{path}: its first image 'images/S/no.png' was not found; tried {root}/images/S/no.png (missing)"
    )
    assert "image root" in message


def test_image_root_comes_first(root, tmp_path_factory, write_image, write_parquet):
    elsewhere = tmp_path_factory.mktemp("disk")
    write_image(elsewhere / "images" / "S" / "far.png")
    write_parquet(root / "Far" / FILE, [pair("q", "images/S/far.png", "p", "")])
    write_parquet(root / "Near" / FILE, [pair("q", "images/S/a b.png", "p", "")])
    assert [part.root for part in discover(root, image_root=elsewhere)] == [elsewhere, root]
    with pytest.raises(DataError, match=r"tried .*images/S/far.png"):
        discover(root)
