"""Training data compared with evaluation data by the job itself, on a real Ray: planted rows are dropped and listed, others are not."""

import base64
import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from data_prep.__main__ import main
from data_prep.cluster import cluster
from data_prep.evaluation import read_evaluation
from data_prep.job import PrepareSettings, prepare
from data_prep.samples import DataError
from data_prep.shards import load_manifest, verify_shards

CAPTION = "a red ring between two yellow stars"


@pytest.fixture(scope="module", autouse=True)
def ray_of_two() -> Iterator[None]:
    """One Ray of two workers for all tests here, started as the job itself starts it."""
    with cluster(2):
        yield


def picture(seed: int) -> Image.Image:
    """Large coloured places, so that a resized copy looks the same."""
    places = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(places).resize((84, 84), Image.Resampling.BICUBIC)


def data_of(image: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MMEB-eval (a retrieval and a classification set) and a benchmark."""
    root = tmp_path_factory.mktemp("evaluation")
    images = root / "MMEB-eval" / "images"
    images.mkdir(parents=True)
    for seed in range(3):
        (images / f"{seed}.png").write_bytes(data_of(picture(1000 + seed)))
    find = "Find the caption of this picture."
    rows = {
        "Captions": [
            {"qry_text": find, "qry_img_path": "0.png", "tgt_text": [CAPTION, "a blue cross"], "tgt_img_path": ["", ""]},
            {"qry_text": f"Find it: {CAPTION}", "qry_img_path": "", "tgt_text": ["", ""], "tgt_img_path": ["1.png", "2.png"]},
        ],
        "Labels": [
            {"qry_text": "Class?", "qry_img_path": "0.png", "tgt_text": ["great white shark, white shark, man-eating shark", "ray"]}
            | {"tgt_img_path": ["", ""]}
        ],
    }
    for name, own in rows.items():
        (root / "MMEB-eval" / name).mkdir()
        pq.write_table(pa.Table.from_pylist(own), root / "MMEB-eval" / name / "test-00000-of-00001.parquet")
    (root / "MMEB-eval" / "tasks.json").write_text(
        json.dumps({"Captions": {"meta": "retrieval", "split": "IND"}, "Labels": {"meta": "classification", "split": "IND"}})
    )
    (root / "benchmarks").mkdir()
    with open(root / "benchmarks" / "Bench.tsv", "w", newline="") as file:
        writer = csv.writer(file, delimiter="\t")
        image = base64.b64encode(data_of(picture(2000))).decode()
        writer.writerows([("index", "question", "answer", "image"), ("5", "how many rings can be seen in this picture?", "two", image)])
    return root


@pytest.fixture(scope="module")
def planted(write_corpus: Callable[[Path], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus with evaluation data in it, and with near misses."""
    root = write_corpus(tmp_path_factory.mktemp("planted") / "data")
    images = root / "MMEB-train" / "images"
    (images / "3.png").write_bytes(data_of(picture(1001)))
    (images / "13.png").write_bytes(data_of(picture(1002).resize((112, 112)), "JPEG"))
    (root / "chats" / "images" / "4.png").write_bytes(data_of(picture(2000), "BMP"))
    path = root / "MMEB-train" / "Colours" / "original-00000-of-00002.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[7]["qry"] = f"Some other instruction: {CAPTION.upper()}!"
    rows[8]["qry"] = f"{CAPTION} and more"
    rows[9]["qry"] = "great white shark, white shark, man-eating shark"
    rows[10]["qry"] = "how many rings can be seen in this picture?"
    pq.write_table(pa.Table.from_pylist(rows), path)
    return root


PLANTED = {
    "mmeb_train/Colours/original/3": "eval_image: 'images/3.png' has the pixels of Captions, row 1, candidate 0",
    "mmeb_train/Colours/original/7": "eval_text: its query is a text of Captions, row 0, candidate 0",
    "mmeb_train/Colours/original/13": "eval_image_near: 'images/13.png' looks like Captions, row 1, candidate 1",
    "sharegpt4v/chats/4": "eval_image: 'images/4.png' has the pixels of Bench, index 5",
}


@pytest.fixture
def settings(planted: Path, evaluation: Path, checkpoint: Path, tmp_path: Path) -> PrepareSettings:
    return PrepareSettings(
        roots=(planted,), checkpoint=str(checkpoint), out=tmp_path / "shards", rows_per_shard=4, workers=2, against=(evaluation,)
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


def test_planted_rows_are_dropped_and_listed(settings: PrepareSettings, tmp_path: Path) -> None:
    """Without a share of rejects allowed; and the same bytes from one worker."""
    said: list[str] = []
    manifest = prepare(settings.model_copy(update={"max_reject_share": 0.0}), said.append)
    assert said == ["compared with 4 images and 3 texts of evaluation data"]
    assert {row.id: row.reason for row in manifest.dropped} == PLANTED
    assert json.loads((settings.out / "decontaminated.json").read_text()) == PLANTED
    assert (manifest.rows, manifest.rejected, len(manifest.fingerprint["against"])) == (26, [], 16)
    verify_shards(settings.out, manifest)
    tables = [pa.ipc.open_file(str(settings.out / shard.name)).read_all() for shard in manifest.shards]
    kept = {value for table in tables for value in table["id"].to_pylist()}
    assert len(kept) == 26 and kept.isdisjoint(PLANTED)
    assert prepare(settings, said.append) == manifest
    assert said[2:] == ["8 of 8 shards are there already and intact: skipped"]
    one = settings.model_copy(update={"workers": 1, "out": tmp_path / "one"})
    prepare(one)
    assert contents(one.out) == contents(settings.out)


def test_without_hits_the_shards_are_those_made_without_comparing(
    settings: PrepareSettings, corpus: Path, tmp_path: Path
) -> None:
    compared = settings.model_copy(update={"roots": (corpus,)})
    plain = compared.model_copy(update={"against": (), "out": tmp_path / "plain"})
    assert prepare(compared).dropped == [] == prepare(plain).dropped
    for path in plain.out.glob("*.arrow"):
        assert (compared.out / path.name).read_bytes() == path.read_bytes()
    assert json.loads((compared.out / "decontaminated.json").read_text()) == {}
    assert "against" not in load_manifest(plain.out).fingerprint and not (plain.out / "decontaminated.json").exists()


def test_other_evaluation_data_on_the_same_folder_is_refused(settings: PrepareSettings, evaluation: Path) -> None:
    prepare(settings)
    before = contents(settings.out)
    for against in ((), (evaluation / "MMEB-eval",)):
        with pytest.raises(DataError, match="found shards made from other data, another tokenizer or other settings"):
            prepare(settings.model_copy(update={"against": against}))
    assert contents(settings.out) == before
    both = (evaluation / "benchmarks" / "Bench.tsv", evaluation / "MMEB-eval")  # the same data, named otherwise
    assert prepare(settings.model_copy(update={"against": both})).rows == 26


def test_an_unusable_row_is_rejected_as_without_comparing(settings: PrepareSettings, write_corpus, tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "data")
    (root / "MMEB-train" / "images" / "3.png").write_bytes(b"no picture")
    manifest = prepare(settings.model_copy(update={"roots": (root,), "max_reject_share": 0.1}))
    assert [(row.id, row.reason.split(":")[0]) for row in manifest.rejected] == [("mmeb_train/Colours/original/3", "format")]
    assert manifest.dropped == []


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: None, r"nowhere: found no folder there; expected one with evaluation data \(--against\)"),
        (lambda root: (root / "nowhere" / "x").mkdir(parents=True), "no evaluation data recognised, here or one folder down"),
    ],
)
def test_nothing_to_compare_with_is_an_error(settings: PrepareSettings, tmp_path: Path, spoil: Callable, message: str) -> None:
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        prepare(settings.model_copy(update={"against": (tmp_path / "nowhere",)}))
    assert not settings.out.exists()


def test_an_evaluation_image_that_cannot_be_read_is_an_error(evaluation: Path, tmp_path: Path) -> None:
    with open(tmp_path / "Bad.tsv", "w") as file:
        file.write(f"index\tquestion\tanswer\timage\n0\twhat?\tno\t{base64.b64encode(bytes(90)).decode()}\n")
    with pytest.raises(DataError, match=r"^evaluation data: format: 'Bad.tsv#0'.*copies among the training images would go unnoticed"):
        read_evaluation((tmp_path / "Bad.tsv",), 2)


def test_the_command(settings: PrepareSettings, evaluation: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["prepare", str(settings.roots[0]), "--checkpoint", settings.checkpoint, "--out", str(settings.out)]
    assert main([*command, "--against", str(evaluation / "MMEB-eval"), str(evaluation / "benchmarks")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "dropped" in line] == [
        "  dropped, eval_image: 2",
        "  dropped, eval_text: 1",
        "  dropped, eval_image_near: 1",
    ]
