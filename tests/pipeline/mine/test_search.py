"""The search against brute force in numpy, however the candidates are cut into blocks."""

import numpy as np
import pytest

from pipeline.mine.search import NONE, nearest


def brute_force(queries: np.ndarray, numbers: np.ndarray, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    order = np.stack([np.lexsort((numbers, -row)) for row in scores])[:, :k]
    return np.take_along_axis(scores, order, axis=1), numbers[order]


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
@pytest.mark.parametrize("k", [1, 13, 500])
def test_exactly_the_nearest(block: int, k: int) -> None:
    """Scores to rounding, and the same numbers, since random scores are further apart than that."""
    random = np.random.default_rng(block * 1000 + k)
    queries, vectors = (random.normal(size=(n, 24)).astype(np.float32) for n in (40, 500))
    numbers = random.permutation(10_000)[:500]
    expected_scores, expected = brute_force(queries, numbers, vectors, k)
    blocks = ((numbers[start : start + block], vectors[start : start + block]) for start in range(0, 500, block))
    scores, found = nearest(queries, blocks, k)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-5, atol=1e-5)
    assert (found == expected).mean() > 0.999
    assert (np.sort(found, axis=1) == np.sort(expected, axis=1)).mean() > 0.999


def test_fewer_candidates_than_asked_for() -> None:
    blocks = [(np.array([], np.int64), np.zeros((0, 2), np.float32)), (np.array([5, 3]), np.array([[1, 0], [0, 1]], np.float32))]
    scores, found = nearest(np.array([[2, 1]], np.float32), blocks, 4)
    assert scores.tolist() == [[2, 1, -np.inf, -np.inf]]
    assert found.tolist() == [[5, 3, NONE, NONE]]


def test_of_equal_scores_the_lower_number_comes_first() -> None:
    same = np.ones((3, 2), np.float32)
    blocks = [(np.array([9, 4, 8]), same), (np.array([2, 7, 1]), same)]
    _, found = nearest(same[:1], blocks, 6)
    assert found.tolist() == [[1, 2, 4, 7, 8, 9]]


def test_a_block_is_forgotten_before_the_next_is_read() -> None:
    """Candidates far beyond what is in memory at a time: blocks of 4 MiB, 64 of them, within 40 MiB of Python's and numpy's memory."""
    import tracemalloc

    def blocks():
        for number in range(64):
            yield np.arange(number * 16384, (number + 1) * 16384), np.full((16384, 64), number, np.float32)

    tracemalloc.start()
    _, found = nearest(np.ones((256, 64), np.float32), blocks(), 50)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found // 16384 == 63).all()
    assert peak < 40 * 2**20 < 64 * 4 * 2**20
