"""VLMEvalKit TSVs: images in cells, in other rows and in files; quoting; kinds; refusals."""

import base64
import csv
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from data_prep.images import open_image
from data_prep.samples import DataError, ImageRef
from data_prep.sources.benchmarks import load_benchmark


def picture(red: int) -> bytes:
    out = BytesIO()
    Image.new("RGB", (3, 2), (red, 0, 0)).save(out, "PNG")
    return out.getvalue()


def b64(red: int) -> str:
    return base64.b64encode(picture(red)).decode()


@pytest.fixture
def load(tmp_path):
    """Rows of one TSV, written as pandas does -> the benchmark."""

    def run(*rows: dict):
        path = tmp_path / "Bench.tsv"
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        return load_benchmark(path)

    return run


def item(index="0", image=None, question="q", answer="a", **more) -> dict:
    return {"index": index, "image": b64(1) if image is None else image, "question": question, "answer": answer, **more}


def reds(row) -> list[int]:
    return [open_image(image).getpixel((0, 0))[0] for image in row.images]


def test_multiple_choice(load):
    rows = (
        item(
            "7",
            hint="h",
            A="cat",
            B="dog",
            C="",
            D=" ",
            answer="B",
            category="animals",
            split="dev",
            **{"l2-category": "x"},
        ),
        item("8", hint="", A="1", B="2", C="3", D="None", answer="D", category="", split="dev", **{"l2-category": "y"}),
    )
    found = load(*rows)
    assert (found.name, found.kind, len(found.rows), found.without_image) == ("Bench", "multiple_choice", 2, 0)
    first, second = found.rows
    assert (first.index, first.question, first.hint, first.answer, first.category) == ("7", "q", "h", "B", "animals")
    assert first.options == {"A": "cat", "B": "dog"}
    assert second.options == {"A": "1", "B": "2", "C": "3", "D": "None"}
    assert first.extra == {"split": "dev", "l2-category": "x"}
    assert first.images == (ImageRef("Bench.tsv#7", data=picture(1)),)


@pytest.mark.parametrize(
    "answers, kind", [(("Yes", "No"), "yes_no"), (("yes", "NO "), "yes_no"), (("Yes", "Maybe"), "open")]
)
def test_kind_without_options(load, answers, kind):
    assert load(*(item(str(i), answer=answer) for i, answer in enumerate(answers))).kind == kind


def test_references_share_the_bytes_of_the_row_they_name(load):
    rows = load(item("a", "b"), item("b", b64(2)), item("c", b64(3)), item("d", "b")).rows
    assert [reds(row) for row in rows] == [[2], [2], [3], [2]]
    assert rows[0].images[0].data is rows[1].images[0].data is rows[3].images[0].data


def test_lists_of_images_and_of_references(load):
    rows = load(
        item("0", b64(5)),
        item("1", str([b64(6), b64(7)])),
        item("2", "['0', '1']"),
        item("3", "[0]"),
        item("4", str([b64(8), "0"])),
    ).rows
    assert [reds(row) for row in rows] == [[5], [6, 7], [5, 6, 7], [5], [8, 5]]


def test_image_files_where_the_cell_is_empty(load, tmp_path):
    (tmp_path / "pics").mkdir()
    for red in (9, 10):
        (tmp_path / "pics" / f"{red}.png").write_bytes(picture(red))
    rows = load(
        item("0", b64(5), image_path="pics/9.png"),
        item("1", "", image_path="pics/9.png"),
        item("2", "", image_path="['pics/9.png', 'pics/10.png']"),
    ).rows
    assert [reds(row) for row in rows] == [[5], [9], [9, 10]]
    assert rows[1].images == (ImageRef("pics/9.png", tmp_path),)


def test_quoted_cells_keep_tabs_newlines_and_quotes(load):
    text = 'He said "hi"\tand\nleft, "ok"'
    assert load(item(question=text, answer="x", A='"', B="b\tc")).rows[0].question == text


def test_cells_beyond_the_csv_default_limit(load):
    noise = base64.b64encode(picture(4) + bytes(200_000)).decode()
    before = csv.field_size_limit(1000)
    try:
        assert reds(load(item(image=noise)).rows[0]) == [4]
        assert csv.field_size_limit() == 1000  # left as it was found
    finally:
        csv.field_size_limit(before)


def test_byte_order_mark(load, tmp_path):
    load(item())
    path = tmp_path / "Bench.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert load_benchmark(path).rows[0].index == "0"


def test_rows_without_image_are_left_out_and_counted(load):
    found = load(item("0", ""), item("1"), item("2", ""))
    assert ([row.index for row in found.rows], found.without_image) == (["1"], 2)
    with pytest.raises(
        DataError, match=r"found no row with an image; expected base64 in image, or files in image_path"
    ):
        load(item("0", ""))


@pytest.mark.parametrize(
    "rows, message",
    [
        ([item("0", "9")], "row 0: image refers to row '9', but there is no such row; expected base64 there"),
        ([item("0", "1"), item("1", "0")], "row 0: image refers to row '1', but that row has no image of its own"),
        ([item("0", "0")], "row 0: image refers to row '0', but that row has no image of its own"),
        ([item("0", "1"), item("1", "")], "row 0: image refers to row '1', but that row has no image of its own"),
        ([item("0", "!" * 80)], "row 0: image is not base64: .*; found '!!!!!!!!!!!!!!!!!!!!'"),
        ([item("0", "A" * 81)], "row 0: image is not base64"),
        ([item("x"), item("y"), item("x")], "found index 'x' twice; expected every index once"),
    ],
)
def test_unusable_images_and_indices(load, rows, message):
    with pytest.raises(DataError, match=rf"Bench\.tsv: {message}"):
        load(*rows)


@pytest.mark.parametrize(
    "header, message",
    [
        ("index\tquestion\timage", "missing answer;"),
        ("id\tquestion\tanswer", "missing index, image or image_path;"),
        ("index,question,answer,image", "missing index, question, answer, image or image_path;"),
        ("index\tquestion\tanswer\timage\tanswer", "a column twice;"),
    ],
)
def test_wrong_columns(tmp_path, header, message):
    path = tmp_path / "b.tsv"
    path.write_text(header + "\n")
    with pytest.raises(
        DataError, match=rf"b\.tsv: found columns .*: {message} expected index, question, answer, and image"
    ):
        load_benchmark(path)


HEADER = "index\tquestion\tanswer\timage\n"


@pytest.mark.parametrize(
    "content, message",
    [
        (HEADER.encode(), "found 0 rows, expected at least one question"),
        (b"", "missing index, question, answer, image or image_path"),
        (f"{HEADER}0\tq\ta\n".encode(), "row 0: found more or fewer cells than the 4 columns of the header"),
        (f"{HEADER}0\tq\ta\t\t\tx\n".encode(), "row 0: found more or fewer cells than the 4 columns"),
        (f'{HEADER}0\t"q\ta\n'.encode(), "not tab-separated UTF-8 text"),
        (HEADER.encode() + b"0\t\xff\ta\t\n", "not tab-separated UTF-8 text"),
    ],
)
def test_damaged_files(tmp_path, content, message):
    path = tmp_path / "b.tsv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"b\.tsv.*{message}"):
        load_benchmark(path)


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match=r"no.tsv: cannot be read: No such file or directory; expected a TSV file"):
        load_benchmark(Path(tmp_path / "no.tsv"))


def test_a_test_file_without_answers_is_told_as_one(tmp_path):
    path = tmp_path / "MMBench_TEST_EN.tsv"
    path.write_text("index\tquestion\timage\tA\tB\n")
    with pytest.raises(DataError, match=r"missing answer; .* only its makers' server can score it: take the DEV file"):
        load_benchmark(path)
