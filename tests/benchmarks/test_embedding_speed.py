"""The benchmark of embeddings compares like with like: every way gives every side the same vector."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from data_prep.encode import Encoder
from data_prep.samples import ImageRef, Side
from data_prep.sources.mmeb_eval import EvalRow, EvalSet
from pipeline.evaluate.open import open_checkpoint
from pipeline.inference import CremModel
from tests.benchmarks import candidate_scoring
from tests.benchmarks.embedding_speed.__main__ import EQUAL, best_batch, rounds, table, told
from tests.benchmarks.embedding_speed.sentence import item, open_sentence
from tests.benchmarks.embedding_speed.task import Task, duplication, make_task
from tests.benchmarks.embedding_speed.ways import ALL, EVERY, GIVEN, LIBRARY, LIBRARY_ROWS, NO_HEAD, OURS, as_given, encodings, ways


def picture(seed: int, width: int = 56, height: int = 56) -> ImageRef:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "PNG")
    return ImageRef(f"noise-{seed}", data=file.getvalue())


@pytest.fixture(scope="module")
def sets() -> list[EvalSet]:
    """Three rows whose candidates repeat: words, pictures, and both."""
    words = [Side("a ring"), Side("three blue stars"), Side("one circle")]
    shown = [Side(images=(picture(0),)), Side("look", (picture(1, 84, 56),)), Side(images=(picture(2, 56, 112),))]
    rows = [EvalRow(shown[0], tuple(words)), EvalRow(words[1], tuple(shown)), EvalRow(shown[1], tuple(words[:2]))]
    return [EvalSet("Own", None, None, rows)]


@pytest.fixture(scope="module")
def task(sets, tmp_path_factory) -> Task:
    return make_task(sets, 8, 15, tmp_path_factory.mktemp("pictures"))


def test_the_task_is_what_the_rows_name(sets, task, tmp_path) -> None:
    assert [side.text for side in task.sides[:5]] == ["", "a ring", "three blue stars", "one circle", "three blue stars"]
    assert (task.ends, len(task.distinct), duplication(sets)) == ([4, 8, 11], 6, (11, 6))
    assert [task.distinct[place] for place in task.place] == task.sides
    assert [len(task.sides[row]) for row in task.rows] == [4, 4, 3]
    assert len(make_task(sets, 2, 1, tmp_path).sides) == 4


def test_all_ways_give_the_same_vectors(task, checkpoint, tmp_path) -> None:
    encoder = Encoder(checkpoint)
    library = open_sentence(checkpoint, encoder, tmp_path / "library")
    opened = open_checkpoint(checkpoint, encoder, "cpu")
    assert best_batch(library, task, [4], lambda: 0.0) == 4
    found, apart = rounds(ways(opened, encoder, library, 2, task), 1, iter(range(99)).__next__)
    assert set(found[0]) == {LIBRARY_ROWS, LIBRARY, GIVEN, NO_HEAD, EVERY, ALL, OURS} and apart <= EQUAL
    vectors = ways(opened, encoder, library, 2, task)[LIBRARY_ROWS]()
    sides = [(side.images[0].root / side.images[0].name if side.images else None, side.text) for side in task.sides]
    own = CremModel(opened, checkpoint).embed([path for path, _ in sides], [text for _, text in sides]).numpy()
    np.testing.assert_allclose(vectors, own, atol=EQUAL)
    assert np.linalg.norm(vectors[0] - vectors[1]) > 1e-2


def test_an_item_of_the_library_has_one_picture(task) -> None:
    assert item(Side("a ring")) == "a ring"
    with pytest.raises(ValueError, match="found a side with 2 pictures, expected one at most"):
        item(Side(images=tuple(side.images[0] for side in task.distinct if side.images)[:2]))


def test_batches_as_given_stay_within_the_budget() -> None:
    assert as_given([5, 3, 4, 9, 20, 1], 12) == [[[0], [1]], [[2]], [[3]], [[4]], [[5]]]


def test_ratios_and_goal(task) -> None:
    rates = {LIBRARY_ROWS: 1.0, LIBRARY: 2.0, GIVEN: 2.0, NO_HEAD: 2.0, EVERY: 2.0, ALL: 2.4, OURS: 2.4}
    found = [{way: {"seconds": 1 / rate, "rate": rate, "others": 0.0} for way, rate in rates.items()}]
    lines = {line[:30].strip(): line[30:].split() for line in table(found, task)[1:]}
    assert lines[OURS] == ["6", "26.4", "(26.4", "-", "26.4)", "14.4", "2.40x", "1.20x", "0.00"]
    assert (encodings(EVERY, task), encodings(OURS, task)) == (11, 6)
    worth, called, distinct = told(found)
    assert worth.count("1.20x") == 3 and called.startswith("met") and distinct.startswith("MISSED")


def test_scoring_finds_what_the_plain_product_finds(tmp_path) -> None:
    path = tmp_path / "vectors.npy"
    candidate_scoring.write(path, 3000, 32, "float16")
    runs = [candidate_scoring.measure(path, way, 5) for way in (candidate_scoring.PLAIN, candidate_scoring.OURS)]
    assert json.dumps(runs[0]["found"]) == json.dumps(runs[1]["found"])
    numbers, rank, strict = runs[1]["found"]
    assert rank == strict and len({tuple(row) for row in numbers}) == 5
