"""What stands on disk: read back as a stranger would, without the functions that wrote it."""

import base64
import csv
import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.embedded import corpus, evaluation_rows, write_embedded
from data_prep.embedded.__main__ import main
from data_prep.embedded.scenes import COLORS, GLYPHS, PLACES, SHAPES, Part, held_out, labels
from data_prep.samples import DataError, Rejected
from data_prep.sources import discover, read
from data_prep.sources.benchmarks import load_benchmark
from data_prep.sources.mmeb_eval import load_sets

ROWS = 40
HELD_OUT = [(c, s) for c in COLORS for s in SHAPES + GLYPHS if held_out(c, s)]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("embedded") / "data"
    write_embedded(folder, ROWS)
    return folder


def train_rows(root: Path, name: str) -> list[dict]:
    return pq.read_table(root / f"MMEB-train/{name}/original-00000-of-00001.parquet").to_pylist()


def eval_rows(root: Path, name: str) -> list[dict]:
    return pq.read_table(root / f"MMEB-eval/{name}/test-00000-of-00001.parquet").to_pylist()


def eval_names(root: Path) -> list[str]:
    return sorted(path.parent.name for path in root.glob("MMEB-eval/*/*.parquet"))


def train_names(root: Path) -> list[str]:
    return sorted(path.parent.name for path in root.glob("MMEB-train/*/*.parquet"))


def tsv(root: Path, name: str) -> list[dict]:
    with open(root / f"benchmarks/{name}.tsv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def conversations(root: Path) -> list[dict]:
    return json.loads((root / "sharegpt4v/shapes_captions.json").read_text())


def synqa(root: Path) -> list[dict]:
    return [json.loads(line) for path in sorted((root / "synqa").glob("*.jsonl")) for line in path.read_text().splitlines()]


def digests(root: Path, *folders: str) -> list[str]:
    return [sha256(path.read_bytes()).hexdigest() for folder in folders for path in (root / folder).rglob("*.png")]


def strings(value: object) -> list[str]:
    """Every string in a nest of lists and dictionaries."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [text for item in value for text in strings(item)]
    return [value] if isinstance(value, str) else []


def training_texts(root: Path) -> list[str]:
    return strings([train_rows(root, name) for name in train_names(root)] + conversations(root) + synqa(root))


def test_the_tree(root):
    assert [name[6:] for name in train_names(root)] == ["Cls", "Composed", "Glyph", "Ground", "I2I", "I2T", "T2I", "T2IT", "VQA"]
    assert json.loads((root / "MMEB-eval/tasks.json").read_text()) == {
        "ShapesI2T": {"meta": "retrieval", "split": "IND"},
        "ShapesI2TOOD": {"meta": "retrieval", "split": "OOD"},
        "ShapesT2I": {"meta": "retrieval", "split": "IND"},
        "ShapesT2IOOD": {"meta": "retrieval", "split": "OOD"},
        "ShapesCls": {"meta": "classification", "split": "IND"},
        "ShapesClsOOD": {"meta": "classification", "split": "OOD"},
        "ShapesGlyph": {"meta": "classification", "split": "IND"},
        "ShapesVQA": {"meta": "vqa", "split": "IND"},
        "ShapesVQAOOD": {"meta": "vqa", "split": "OOD"},
        "ShapesI2I": {"meta": "retrieval", "split": "IND"},
        "ShapesComposed": {"meta": "retrieval", "split": "IND"},
        "ShapesGround": {"meta": "grounding", "split": "IND"},
        "ShapesGroundOOD": {"meta": "grounding", "split": "OOD"},
        "ShapesT2IT": {"meta": "retrieval", "split": "IND"},
    }
    assert set(json.loads((root / "MMEB-eval/tasks.json").read_text())) == set(eval_names(root))


def test_training_files(root):
    plain = ["qry", "qry_image_path", "pos_text", "pos_image_path"]

    assert list(train_rows(root, "ShapesI2T")[0]) == plain
    assert {n for n in train_names(root) if "neg_text" in train_rows(root, n)[0]} == {"ShapesGround", "ShapesT2I", "ShapesVQA"}
    rows = [row for name in train_names(root) for row in train_rows(root, name)]
    paths = [row[key] for row in rows for key in row if key.endswith("_path") and row[key]]
    assert all(isinstance(value, str) for row in rows for value in row.values())
    assert len(paths) > 250 and all((root / "MMEB-train" / path).is_file() for path in paths)
    assert paths[0].startswith("images/ShapesCls/Train/ShapesCls_image_")
    assert not any(row["pos_text"].endswith("\n") for row in train_rows(root, "ShapesGround"))


def test_evaluation_files(root):
    for name in eval_names(root):
        rows = eval_rows(root, name)
        assert list(rows[0]) == ["qry_text", "qry_img_path", "tgt_text", "tgt_img_path"] and len(rows) == 8
        for row in rows:
            candidates = list(zip(row["tgt_text"], row["tgt_img_path"], strict=True))
            assert len(set(candidates)) == len(candidates) >= 10
            images = [path for path in [row["qry_img_path"], *row["tgt_img_path"]] if path]
            assert all((root / "MMEB-eval/images" / path).is_file() for path in images)
    assert {len(row["tgt_text"]) for n in ("ShapesI2T", "ShapesT2IOOD") for row in eval_rows(root, n)} == {500}


def test_training_and_evaluation_share_no_image(root):
    seen = digests(root, "MMEB-train", "sharegpt4v")
    asked = digests(root, "MMEB-eval")
    inline = [
        sha256(base64.b64decode(row["image"])).hexdigest()
        for name in ("ShapesBench_MCQ", "ShapesBench_YN", "ShapesBench_VQA")
        for row in tsv(root, name)
        if len(row["image"]) > 64
    ]

    assert len(seen) > 250 and len(asked) > 1000 and len(inline) == 8 + 4 + 8
    assert not set(seen) & {*asked, *inline}


def canonical(caption: str) -> str:
    """One spelling for "X right of Y" and "Y left of X", and for "X below Y" and "Y above X"."""
    for name, other in ((" right of ", " left of "), (" below ", " above ")):
        if name in caption:
            return other.join(reversed(caption.split(name)))
    return caption


def queries(rows: list[dict], key: str) -> list[str]:
    return [canonical(row[key].split(": ", 1)[1].strip()) for row in rows]


def test_training_and_evaluation_share_no_caption(root):
    trained = {canonical(row["pos_text"].strip()) for row in train_rows(root, "ShapesI2T")}
    trained |= set(queries(train_rows(root, "ShapesT2I"), "qry"))
    trained |= {canonical(turn["value"]) for row in conversations(root) for turn in row["conversations"]}
    asked = {canonical(text.strip()) for n in ("ShapesI2T", "ShapesI2TOOD") for row in eval_rows(root, n) for text in row["tgt_text"]}
    asked |= {caption for n in ("ShapesT2I", "ShapesT2IOOD") for caption in queries(eval_rows(root, n), "qry_text")}
    cards = set(queries(train_rows(root, "ShapesT2IT"), "qry")) & set(queries(eval_rows(root, "ShapesT2IT"), "qry_text"))

    assert len(trained) > 100 and len(asked) > 1000
    assert not trained & asked and not cards


def test_held_out_pairs_are_never_spoken_of_in_training(root):
    texts = training_texts(root)

    spoken = "\n".join(texts)
    assert sum(label in spoken for label in labels(Part.IND)) > 40, "most of the other pairs are"
    for color, shape in HELD_OUT:
        forms = (f"{color} {shape}", f"the {shape} {color}")
        assert not [text for text in texts if any(form in text for form in forms)]


def test_what_is_asked_out_of_distribution_holds_such_a_pair(root):
    names = [f"{color} {shape}" for color, shape in HELD_OUT]
    texts = [row["tgt_text"][0] for row in eval_rows(root, "ShapesI2TOOD") + eval_rows(root, "ShapesClsOOD")]
    texts += [row["qry_text"] for row in eval_rows(root, "ShapesT2IOOD") + eval_rows(root, "ShapesGroundOOD")]
    # A group names its things in the plural, which begins like the singular.
    assert len(texts) == 32 and all(any(name in text for name in names) for text in texts)


NEAREST = {
    **{"red": (222, 30, 38), "orange": (255, 146, 0), "yellow": (245, 215, 10), "green": (20, 150, 50)},
    **{"blue": (35, 65, 225), "purple": (128, 40, 170), "pink": (255, 130, 190), "black": (25, 25, 25)},
}


def test_cards_show_what_their_request_says(root):
    """Colour, size and place, measured on the written picture."""
    for row in train_rows(root, "ShapesT2IT"):
        words = row["qry"].split(": ")[1].removeprefix("a ").split(" for ")[0]
        what, place = words.split(" at the ")
        size, color = what.split()[:2]
        pixels = np.asarray(Image.open(root / "MMEB-train" / row["pos_image_path"])).astype(int)
        background = np.median(pixels.reshape(-1, 3), axis=0)
        ys, xs = np.nonzero(abs(pixels - background).sum(-1) > 60)
        inks, counts = np.unique(pixels[ys, xs], axis=0, return_counts=True)
        ink = inks[counts.argmax()]
        assert min(NEAREST, key=lambda name: abs(ink - NEAREST[name]).sum()) == color
        assert PLACES[int((ys.min() + ys.max()) / 2 // 28) * 3 + int((xs.min() + xs.max()) / 2 // 28)] == place
        assert (max(np.ptp(ys), np.ptp(xs)) > 18) == (size == "large")


def test_conversations(root):
    rows = conversations(root)

    assert len(rows) == 3 * ROWS and rows[0]["id"] == "shapes_000000"
    for row in rows:
        values = [message["value"] for message in row["conversations"]]
        assert [message["from"] for message in row["conversations"]] == ["human", "gpt"] * (len(values) // 2)
        assert sum(value.count("<image>") for value in values) == values[0].count("<image>") == ("image" in row)
        assert "image" not in row or (root / "sharegpt4v" / row["image"]).is_file()
    ends = {row["conversations"][0]["value"].endswith("\n<image>") for row in rows if "image" in row}
    assert ends == {True, False}


def test_synqa_records_point_back_to_their_row(root):
    rows = synqa(root)

    assert [row["id"] for row in rows[:2]] == ["mmeb-syn/ShapesCls/0/0", "mmeb-syn/ShapesCls/1/0"]
    assert [path.name for path in sorted((root / "synqa").iterdir())] == ["ShapesCls.jsonl", "ShapesI2T.jsonl", "ShapesVQA.jsonl"]
    assert len(rows) == 20 + 40 + 24
    for row in rows:
        stored = train_rows(root, row["subset"])[row["row"]]
        assert row["contrast"] == {key: value for key, value in stored.items() if key != "qry_image_path"}
        assert row["image"] == stored["qry_image_path"]
        assert stored["qry"] == f"<|image_1|>\n{row['embed_text']}\n"
        assert row["conversations"][0]["value"].startswith(f"<image>\n{row['embed_text']}\n")


def test_our_own_readers_take_every_row(root):
    rows = [row for part in discover(root) for row in read(part, 0, part.rows)]

    assert len(rows) == 40 + 40 + 20 + 12 + 24 + 12 + 12 + 16 + 12 + 120 + 84
    assert not [row for row in rows if isinstance(row, Rejected)]
    assert sum(bool(row.positive and row.turns) for row in rows) == 84  # synqa: both losses
    assert {(found.name, len(found.rows)) for found in load_sets(root / "MMEB-eval")} == {(name, 8) for name in eval_names(root)}
    kinds = {load_benchmark(path).kind for path in (root / "benchmarks").glob("*.tsv")}
    assert kinds == {"multiple_choice", "yes_no", "open"}


def test_the_corpus_holds_every_word_of_every_text(root):
    lines = list(corpus())
    known = {word for line in lines for word in line.split()}
    texts = training_texts(root) + strings([eval_rows(root, name) for name in eval_names(root)])
    texts += [row["question"] for name in ("ShapesBench_MCQ", "ShapesBench_YN", "ShapesBench_VQA") for row in tsv(root, name)]
    words = {word for text in texts if "/" not in text for word in text.split()}

    assert 1000 < len(lines) == len(set(lines)) < 5000
    assert words - known <= {"<|image_1|>", "<image>", "mmeb_synqa", "original", "qry", "v1", "data_prep.embedded"} | {
        row["id"] for row in conversations(root)
    } | {"ShapesCls", "ShapesI2T", "ShapesVQA", "human", "gpt"}


def tree(root: Path) -> dict[str, str]:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): sha256(path.read_bytes()).hexdigest() for path in files}


def test_written_twice_it_is_the_same_byte_for_byte(tmp_path):
    write_embedded(tmp_path / "one", 4, seed=3)
    (tmp_path / "two").mkdir()
    assert main([str(tmp_path / "two"), "--rows", "4", "--seed", "3"]) == 0

    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_fewer_rows_are_the_first_of_more(root, tmp_path):
    write_embedded(tmp_path / "small", 4)

    for name in train_names(root):
        few = train_rows(tmp_path / "small", name)
        assert few == train_rows(root, name)[: len(few)]
    assert conversations(tmp_path / "small") == conversations(root)[:12]


def test_data_is_never_written_over(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(DataError, match="found data there, expected no folder or an empty one"):
        write_embedded(tmp_path)
    assert main([str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_rows_must_be_positive(tmp_path):
    with pytest.raises(DataError, match="rows: found 0, expected at least 1"):
        write_embedded(tmp_path / "data", 0)


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("data_prep.embedded.writers.write_train", fail)
    with pytest.raises(OSError, match="no space"):
        write_embedded(tmp_path / "data", 4)
    assert list(tmp_path.iterdir()) == []


def test_evaluation_grows_with_the_rows_up_to_mmebs_thousand():
    assert [evaluation_rows(rows) for rows in (1, 3000, 10**6)] == [8, 120, 1000]
