"""Search in blocks equals the whole matrix of scores, ties and all."""

import numpy as np
import pytest

from data_prep.samples import DataError
from pipeline.evaluate.metrics import precision_at_1
from pipeline.evaluate.search import NONE, search, top


def whole(queries: np.ndarray, vectors: np.ndarray, k: int, truth: np.ndarray) -> tuple:
    """What one would write with all scores in memory."""
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    order = np.argsort(-scores, axis=1, kind="stable")
    own = np.take_along_axis(scores, truth[:, None], axis=1)
    rank = 1 + (order == truth[:, None]).argmax(axis=1)
    strict = (scores >= own).sum(axis=1)
    kept = order[:, :k]
    return np.take_along_axis(scores, kept, axis=1), kept, rank, strict


@pytest.mark.parametrize("seed", range(120))
def test_equals_the_whole_matrix(seed: int) -> None:
    """Vectors of small whole numbers: scores are exact in float32 whatever the order of adding, and most of them tie."""
    random = np.random.default_rng(seed)
    n, d, q = (int(random.integers(1, high)) for high in (300, 20, 300))
    block, k = int(random.integers(1, n + 20)), int(random.integers(1, 12))
    spread = int(random.integers(1, 4))
    kind = (np.float16, np.float32)[seed % 2]
    vectors = random.integers(-spread, spread + 1, (n, d)).astype(kind)
    queries = random.integers(-spread, spread + 1, (q, d)).astype(np.float32)
    truth = random.integers(0, n, q)
    scores, numbers, rank, strict = whole(queries, vectors, k, truth)
    found = search(queries, vectors, k, truth, block)
    got = min(k, n)
    assert np.array_equal(found.scores[:, :got], scores) and np.array_equal(found.numbers[:, :got], numbers)
    assert np.isneginf(found.scores[:, got:]).all() and (found.numbers[:, got:] == NONE).all()
    assert np.array_equal(found.rank, rank) and np.array_equal(found.strict_rank, strict)
    assert np.array_equal(search(queries, vectors, k, block=block).numbers, found.numbers)


def test_the_numbers_by_hand() -> None:
    vectors = np.array([[1, 0], [2, 0], [2, 0], [0, 5], [2, 1]], np.float32)
    found = search(np.array([[1, 0], [0, 1]]), vectors, 3, np.array([2, 3]), block=2)
    assert found.numbers.tolist() == [[1, 2, 4], [3, 4, 0]]
    assert found.scores.tolist() == [[2, 2, 2], [5, 1, 0]]
    assert (found.rank.tolist(), found.strict_rank.tolist()) == ([2, 1], [3, 1])


def test_first_place_is_mmebs_rule() -> None:
    """Rank 1 and strict rank 1 are the hits of `precision_at_1`, whose true candidate is number 0."""
    random = np.random.default_rng(0)
    hits = set()
    for _ in range(300):
        vectors = random.integers(-1, 2, (4, 2)).astype(np.float32)
        query = random.integers(-1, 2, (1, 2)).astype(np.float32)
        ranking = precision_at_1(vectors @ query[0])
        found = search(query, vectors, 1, np.array([0]), block=3)
        assert (found.rank[0] == 1, found.strict_rank[0] == 1) == (ranking.hit, ranking.strict_hit)
        assert found.numbers[0, 0] == ranking.best
        hits.add((ranking.hit, ranking.strict_hit))
    assert hits == {(True, True), (True, False), (False, False)}


def test_unit_vectors_in_any_blocks() -> None:
    """Real numbers: scores to rounding, the same candidates, a truth that is the query itself comes first."""
    random = np.random.default_rng(1)
    vectors = random.normal(size=(3000, 48)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    truth = random.integers(0, 3000, 40)
    scores, numbers, _, _ = whole(vectors[truth], vectors, 5, truth)
    for block in (1, 64, 1000, 5000):
        found = search(vectors[truth], vectors, 5, truth, block)
        np.testing.assert_allclose(found.scores, scores, atol=1e-6)
        assert np.array_equal(found.numbers, numbers) and (found.rank == 1).all()


def test_a_mapped_file_stays_out_of_memory(tmp_path) -> None:
    """256 MiB in float16 are searched within 40 MiB of numpy's memory, and at most a quarter of the file stays resident."""
    import tracemalloc

    import psutil

    n, d = 2**18, 512
    mapped = np.lib.format.open_memmap(tmp_path / "v.npy", "w+", np.float16, (n, d))
    for start in range(0, n, 2**14):
        mapped[start : start + 2**14] = start // 2**14
    del mapped
    vectors = np.load(tmp_path / "v.npy", mmap_mode="r")
    queries = np.ones((2, d), np.float32)
    search(queries, vectors[: 2**14], 3)
    before = psutil.Process().memory_info().shared
    tracemalloc.start()
    found = search(queries, vectors, 3, np.array([0, n - 1]), block=4096)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.numbers.tolist() == [[n - 2**14, n - 2**14 + 1, n - 2**14 + 2]] * 2
    assert (found.rank.tolist(), found.strict_rank.tolist()) == ([n - 2**14 + 1, 2**14], [n, 2**14])
    assert peak < 40 * 2**20 and psutil.Process().memory_info().shared - before < 64 * 2**20


def test_top_takes_the_first_of_equal_scores() -> None:
    assert top(np.array([[1, 3, 3, 2, 3], [0, 0, 0, 0, 0]]), 2).tolist() == [[1, 2], [0, 1]]
    assert top(np.array([[5.0, 4.0]]), 3).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"queries_QD": np.ones((2, 4))}, r"found queries \(2, 4\) and candidates \(5, 3\); expected .* one D"),
        ({"vectors_ND": np.ones((0, 3))}, r"candidates \(0, 3\)"),
        ({"k": 0}, "found k = 0"),
        ({"truth_Q": np.array([0])}, "found 1 truths for 2 queries"),
        ({"truth_Q": np.array([0, 5])}, r"outside 0 \.\. 4"),
        ({"vectors_ND": np.full((5, 3), np.nan)}, "not finite .candidate 0.*Embed again what is NaN or infinite there"),
        ({"queries_QD": np.full((2, 3), np.inf)}, "in the queries"),
    ],
)
def test_what_cannot_be_ranked_is_refused(change: dict, message: str) -> None:
    good = {"queries_QD": np.ones((2, 3)), "vectors_ND": np.ones((5, 3), np.float32), "k": 2, "truth_Q": np.array([0, 1])}
    with pytest.raises(DataError, match=message):
        search(**good | change)
