"""Mining in about 200 drawn rows with a real checkpoint, held against brute force over the embeddings of the inference API."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from data_prep import sources
from data_prep.embedded.pairs import TASKS
from data_prep.embedded.writers import write_train
from data_prep.samples import DataError, RawSample
from pipeline.inference import CremModel
from pipeline.mine.__main__ import main, summary
from pipeline.mine.choose import ChooseSettings
from pipeline.mine.job import MineSettings, mine

ROWS = {"ShapesI2T": 90, "ShapesCls": 60, "ShapesT2I": 50}
CHOOSE = ChooseSettings(negatives=2, first_rank=2, last_rank=12, margin=0.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 pairs: pictures to captions, pictures to labels, captions to pictures (of which some have a negative already)."""
    folder = tmp_path_factory.mktemp("mining")
    for task in TASKS:
        if task.name in ROWS:
            write_train(folder, task, ROWS[task.name], seed=0)
    return folder / "MMEB-train"


@pytest.fixture(scope="module")
def settings(root: Path, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> MineSettings:
    return MineSettings(root=root, checkpoint=str(checkpoint), out=tmp_path_factory.mktemp("mined") / "out", choose=CHOOSE)


@pytest.fixture(scope="module")
def report(settings: MineSettings) -> dict:
    """Of the undisturbed run; its folder is not to be changed."""
    return mine(settings)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def rows_of(folder: Path, images: Path) -> dict[str, list[RawSample]]:
    """What `data_prep` reads in a folder, by subset."""
    parts = sources.discover(folder, images)
    return {part.source.rpartition("/")[2]: list(sources.read(part, 0, part.rows)) for part in parts}


def test_brute_force_agrees(settings: MineSettings, report: dict) -> None:
    """Every negative is in the window of ranks, below the positive, and another meaning; as many were dropped as there should be."""
    model = CremModel.open(settings.checkpoint)
    before = rows_of(settings.root, settings.root)
    for name, rows in rows_of(settings.out, settings.root).items():
        sides = list(dict.fromkeys(side for row in rows for side in (row.positive, row.query)))
        images = [[image.root / image.name for image in side.images] for side in sides]
        vectors = model.embed(images, [side.text for side in sides]).numpy()
        place = {side: i for i, side in enumerate(sides)}
        targets = list(dict.fromkeys(row.positive for row in rows))
        dropped = mined = 0
        for row, old in zip(rows, before[name], strict=True):
            query, own = vectors[place[row.query]], float(vectors[place[row.query]] @ vectors[place[row.positive]])
            never = {other.positive for other in rows if other.query == row.query} | set(old.negatives)
            ranked = sorted((-float(query @ vectors[place[t]]), i) for i, t in enumerate(targets) if t not in never)
            window = ranked[CHOOSE.first_rank - 1 : CHOOSE.last_rank]
            allowed = {targets[i] for score, i in window if -score <= own - CHOOSE.margin + 1e-5}
            assert row.negatives[: len(old.negatives)] == old.negatives
            assert set(row.negatives[len(old.negatives) :]) <= allowed, row.id
            dropped += sum(-score > own - CHOOSE.margin for score, _ in window)
            mined += min(CHOOSE.negatives, len(allowed))
        assert abs(report[name]["dropped as probable false negatives"] - dropped) <= 1  # a tie within rounding
        assert abs(report[name]["mined negatives"] - mined) <= 1
        assert report[name]["ranks considered"] == 11 * len(rows)
    assert 0 < sum(bool(old.negatives) for old in before["ShapesT2I"]) < 50


def test_the_report(report: dict) -> None:
    assert {name: of["rows"] for name, of in report.items()} == ROWS
    for of in report.values():
        assert 0 < of["rows with mined negatives"] <= of["rows"] and of["unusable rows"] == 0
        assert of["share with mined negatives"] == round(of["rows with mined negatives"] / of["rows"], 4)
        assert of["dropped as probable false negatives"] > 0
    assert summary(report).count("\n") == 4


def test_the_columns_are_mmebs(settings: MineSettings, report: dict) -> None:
    """Every other column is untouched, and targets are stated as the data states them."""
    for name in ROWS:
        file = f"{name}/original-00000-of-00001.parquet"
        before, after = (pq.read_table(folder / file) for folder in (settings.root, settings.out))
        assert after.schema.names[-2:] == ["neg_text", "neg_image_path"]
        kept = [column for column in before.column_names if not column.startswith("neg")]
        assert after.select(kept).equals(before.select(kept))
    assert json.loads((settings.out / "report.json").read_text()) == report
    assert not settings.out.with_name(".out.work").exists()


def test_an_interrupted_run_goes_on_to_the_same_bytes(settings: MineSettings, report: dict, tmp_path: Path, monkeypatch) -> None:
    """Ended after its embeddings; then one window is lost. The second run makes that one only."""
    again = settings.model_copy(update={"out": tmp_path / "out"})
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.mine.job._mine_subset", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            mine(again)
    work = tmp_path / ".out.work"
    assert not again.out.exists() and len(list(work.glob("windows/*/*.npy"))) == 3
    with pytest.raises(DataError, match="found an unfinished run with another choose; expected the same"):
        mine(again.model_copy(update={"choose": ChooseSettings(seed=1)}))
    (work / "windows" / "ShapesCls" / "000000.npy").unlink()
    kept = work / "windows" / "ShapesI2T" / "000000.npy"
    vectors = np.load(kept)
    said: list[str] = []
    assert mine(again, say=said.append) == report
    assert said == ["2 windows of embeddings are there already: skipped"]
    assert len(vectors) > 90 and contents(again.out) == contents(settings.out)


def test_unusable_rows_get_no_negatives_and_are_none(settings: MineSettings, root: Path, tmp_path: Path) -> None:
    data = tmp_path / "MMEB-train"
    for part in ("ShapesI2T", "images/ShapesI2T"):
        shutil.copytree(root / part, data / part)
    file = data / "ShapesI2T" / "original-00000-of-00001.parquet"
    shown = pq.read_table(file)["qry_image_path"].to_pylist()
    (data / shown[7]).write_bytes(b"no picture")
    report = mine(settings.model_copy(update={"root": data, "out": tmp_path / "out"}))["ShapesI2T"]
    assert report["unusable rows"] == shown.count(shown[7]) >= 1
    [broken] = set(shown[7:8])
    rows = pq.read_table(tmp_path / "out" / "ShapesI2T" / file.name).to_pylist()
    assert all(row["neg_text"] == "" for row in rows if row["qry_image_path"] == broken)


def test_refusals(settings: MineSettings, report: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(DataError, match="found it there, expected no such folder"):
        mine(settings)
    (work := tmp_path / ".out.work").mkdir()
    with (work / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another mine job is writing here"):
            mine(settings.model_copy(update={"out": tmp_path / "out"}))
    words = [str(settings.root), "--checkpoint", settings.checkpoint, "--out", str(tmp_path / "x")]
    assert main([*words, "--first-rank", "9", "--last-rank", "3"]) == 2
    assert main([*words, "--margin", "7"]) == 2
    assert "last_rank = 3: expected at least first_rank = 9" in (said := capsys.readouterr().err) and "error: --margin 7.0: " in said


@pytest.mark.slow
def test_two_ranks_write_the_same_bytes(settings: MineSettings, report: dict, tmp_path: Path) -> None:
    """Through torchrun, as the command line says; three windows of one subset each, shared out."""
    out = tmp_path / "out"
    options = ["--negatives", "2", "--first-rank", "2", "--last-rank", "12", "--margin", "0"]
    words = [str(settings.root), "--checkpoint", settings.checkpoint, "--out", str(out), *options]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "pipeline.mine", *words]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("mined for") == 1
    assert contents(out) == contents(settings.out)
    broken = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert broken.returncode != 0 and "found it there, expected no such folder" in broken.stderr
