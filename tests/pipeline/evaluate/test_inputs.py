"""Bad input by kind: a clear error before any work, or a stated denominator; never a silently smaller set."""

from pathlib import Path

import numpy as np
import pytest

from data_prep.samples import DataError, ImageRef, Side
from data_prep.sources.benchmarks import Benchmark, BenchmarkRow
from data_prep.sources.mmeb_eval import EvalRow, EvalSet
from pipeline.evaluate.inputs import check
from pipeline.evaluate.metrics import precision_at_1


def eval_set(name: str, root: Path, *images: str) -> EvalSet:
    sides = [Side("text", (ImageRef(image, root),)) for image in images]
    return EvalSet(name, None, None, [EvalRow(Side("query"), tuple(sides) or (Side("a"),))])


def benchmark(name: str, images: tuple[ImageRef, ...] = (), answer: str = "yes") -> Benchmark:
    row = BenchmarkRow("1", images, "which?", "", {}, answer, "", {})
    return Benchmark(name, "yes_no" if answer == "yes" else "open", [row])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "there.png").write_bytes(b"not opened here")
    (tmp_path / "folder.png").mkdir()
    return tmp_path


def test_what_is_there_passes(root) -> None:
    shown = (ImageRef("there.png", root), ImageRef("in the file", data=b"x"))
    check([eval_set("A", root, "there.png"), eval_set("B", root)], [benchmark("Own", shown)])


@pytest.mark.parametrize(
    ("sets", "benchmarks", "message"),
    [
        ([("A", "there.png", "gone.png")], [], r"found 1 of 2 image files missing or unusable: missing: 'gone.png'.*--image-root"),
        ([("A", "1.png", "2.png"), ("B", "3.png", "4.png")], [], r"found 4 of 4 image files .*'1.png'.*'2.png'.*'3.png'.*; \.\.\."),
        ([("A", "folder.png")], [], "found 1 of 1 image files .*not_a_file"),
        ([("A", "../secret.png")], [], "outside_root"),
        ([], [("Own", "gone.png", "yes")], "found 1 of 1 image files .*gone.png"),
        ([("A", "there.png"), ("A", "there.png")], [], "found the set A 2 times; expected every name once"),
        ([], [("Own", "there.png", "yes"), ("Own", "there.png", "yes")], "found the benchmark Own 2 times"),
        ([], [("MMVet", "there.png", "yes")], "MMVet: found yes no questions; expected open ones"),
        ([], [("Own", "there.png", "<AND>")], "expected an answer with a word"),
    ],
)
def test_refused_before_any_work(root, sets, benchmarks, message) -> None:
    loaded = [eval_set(name, root, *images) for name, *images in sets]
    asked = [benchmark(name, (ImageRef(image, root),), answer) for name, image, answer in benchmarks]
    with pytest.raises(DataError, match=message):
        check(loaded, asked)


def test_a_query_that_is_not_finite_never_ranks_first() -> None:
    """Whatever a NaN touches is a miss, and the query stays in the denominator."""
    queries, candidates = np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)
    queries[1] = np.nan
    candidates[2, 2] = np.inf
    hits = []
    for i in range(4):
        order = [i, *(j for j in range(4) if j != i)]
        with np.errstate(invalid="ignore"):
            hits.append(precision_at_1(candidates[order] @ queries[i]).hit)
    assert hits == [True, False, False, True]
