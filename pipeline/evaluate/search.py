"""The best candidates of a query among millions, and the rank of its true one, in bounded memory. Pure numpy.

    vectors = np.load("library.npy", mmap_mode="r")         # float32 or float16 [N, D], as `CremModel.embed` made them
    found = search(model.embed(texts=["a red circle"]).numpy(), vectors, k=10)
    found.numbers[0], found.scores[0]                       # rows of `vectors`, best first

Brute force, block by block: what comes out is what the whole matrix of scores would give, whichever way it is cut. (A matrix product may
round one pair of vectors differently at another place of a block, so copies of one candidate tie exactly only where its library says so;
evaluation avoids the question by embedding equal candidates once.)

Shapes: Q queries, N candidates, n of a block, k best, D dimensions.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data_prep.samples import DataError

NONE = -1
"""Stands for a candidate where there are fewer than k."""
BLOCK = 8192
"""Candidates that are in memory at a time."""
QUERIES = 256
"""Queries whose scores against a block are in memory at a time."""


@dataclass(frozen=True)
class Found:
    """The k best candidates of each query, best first; of equal ones the lower number first, as `argmax` has it."""

    scores: np.ndarray
    """float32 [Q, k], -inf where there are fewer candidates than k."""
    numbers: np.ndarray
    """int64 [Q, k] rows of the candidates, `NONE` where there are fewer."""
    rank: np.ndarray | None = None
    """int64 [Q] place of the true candidate among all N, from 1; those that tie with it and have a lower number stand before it."""
    strict_rank: np.ndarray | None = None
    """int64 [Q] the same, where all that tie with it stand before it."""


def search(queries_QD: np.ndarray, vectors_ND: np.ndarray, k: int, truth_Q: np.ndarray | None = None, block: int = BLOCK) -> Found:
    """Inner products of all queries with all candidates.

    Memory: a block in float32, and min(Q, 256) x block scores a few times over. Of an array that numpy mapped read-only from a file no more
    than a block stays resident.

    Args:
        queries_QD: floats.
        vectors_ND: float16 or float32, in memory or mapped.
        truth_Q: number of each query's true candidate; ranks are counted where it is given, which reads the blocks that hold truths twice.

    Raises:
        DataError: shapes that do not fit, a truth that is no candidate, scores that are not finite.
    """
    queries_QD = np.ascontiguousarray(queries_QD, np.float32)
    _check(queries_QD, vectors_ND, k, truth_Q, block)
    own_Q = None if truth_Q is None else _own_scores(queries_QD, vectors_ND, truth_Q, block)
    best_Qk = np.full((len(queries_QD), k), -np.inf, np.float32)
    found_Qk = np.full((len(queries_QD), k), NONE, np.int64)
    better_Q, before_Q, tied_Q = np.zeros((3, len(queries_QD)), np.int64)
    for start, block_nD in _blocks(vectors_ND, range(0, len(vectors_ND), block), block):
        for some in _groups(len(queries_QD)):
            scores_Qn = _scores(queries_QD[some], block_nD, start)
            places_Qk = top(scores_Qn, k)
            best = np.take_along_axis(scores_Qn, places_Qk, axis=1)
            best_Qk[some], found_Qk[some] = merge(best_Qk[some], found_Qk[some], best, places_Qk + start, k)
            if own_Q is not None:
                tie_Qn = scores_Qn == own_Q[some, None]
                earlier_Qn = np.arange(start, start + len(block_nD)) < truth_Q[some, None]
                better_Q[some] += (scores_Qn > own_Q[some, None]).sum(axis=1)
                before_Q[some] += (tie_Qn & earlier_Qn).sum(axis=1)
                tied_Q[some] += tie_Qn.sum(axis=1)
    if own_Q is None:
        return Found(best_Qk, found_Qk)
    return Found(best_Qk, found_Qk, 1 + better_Q + before_Q, better_Q + tied_Q)  # the truth ties with itself: that is the one


def top(scores_Qn: np.ndarray, k: int) -> np.ndarray:
    """Places of the k highest scores of each row (all, where there are fewer), in rising order; of equal ones the first: int64 [Q, k]."""
    queries, n = scores_Qn.shape
    if n <= k:
        return np.tile(np.arange(n), (queries, 1))
    least_Q1 = np.partition(scores_Qn, n - k, axis=1)[:, n - k, None]
    above_Qn, tie_Qn = scores_Qn > least_Q1, scores_Qn == least_Q1
    room_Q1 = k - above_Qn.sum(axis=1, keepdims=True)
    kept_Qn = above_Qn | (tie_Qn & (tie_Qn.cumsum(axis=1) <= room_Q1))
    return kept_Qn.nonzero()[1].reshape(queries, k)


def merge(scores_Qa: np.ndarray, numbers_Qa: np.ndarray, scores_Qb: np.ndarray, numbers_Qb: np.ndarray, k: int) -> tuple:
    """The k best of two lists, best first, of equal ones the lower number first: scores and numbers [Q, k]."""
    scores, numbers = np.concatenate([scores_Qa, scores_Qb], axis=1), np.concatenate([numbers_Qa, numbers_Qb], axis=1)
    order = np.lexsort((numbers, -scores))[:, :k]
    return np.take_along_axis(scores, order, axis=1), np.take_along_axis(numbers, order, axis=1)


def _own_scores(queries_QD: np.ndarray, vectors_ND: np.ndarray, truth_Q: np.ndarray, block: int) -> np.ndarray:
    """float32 [Q] each query's score with its truth, read off the same products as all others, so that it equals itself."""
    own_Q = np.empty(len(queries_QD), np.float32)
    block_of_Q = truth_Q // block
    for start, block_nD in _blocks(vectors_ND, (np.unique(block_of_Q) * block).tolist(), block):
        for some in _groups(len(queries_QD)):
            here = np.flatnonzero(block_of_Q[some] == start // block)
            if len(here):
                # the group whole, because a product of fewer rows may round otherwise
                scores_Qn = _scores(queries_QD[some], block_nD, start)
                own_Q[some][here] = scores_Qn[here, truth_Q[some][here] - start]
    return own_Q


def _blocks(vectors_ND: np.ndarray, starts: range | list[int], block: int) -> Iterator[tuple[int, np.ndarray]]:
    """(number of the first, candidates float32 [n, D])."""
    for start in starts:
        yield start, np.array(vectors_ND[start : start + block], np.float32)
        if isinstance(vectors_ND, np.memmap) and vectors_ND.mode == "r" and isinstance(vectors_ND.base, mmap.mmap):
            vectors_ND.base.madvise(mmap.MADV_DONTNEED)  # else pages stay while the system has room; the file's cache is left alone


def _groups(queries: int) -> Iterator[slice]:
    return (slice(start, start + QUERIES) for start in range(0, queries, QUERIES))


def _scores(queries_QD: np.ndarray, block_nD: np.ndarray, start: int) -> np.ndarray:
    scores_Qn = queries_QD @ block_nD.T
    if not np.isfinite(scores_Qn).all():
        query, place = np.argwhere(~np.isfinite(scores_Qn))[0]
        raise DataError(
            f"search: found a score that is not finite (candidate {start + place}); expected finite vectors: ranks would mean nothing. "
            f"Embed again what is {'NaN or infinite there' if np.isfinite(queries_QD[query]).all() else 'NaN or infinite in the queries'}"
        )
    return scores_Qn


def _check(queries_QD: np.ndarray, vectors_ND: np.ndarray, k: int, truth_Q: np.ndarray | None, block: int) -> None:
    if queries_QD.ndim != 2 or vectors_ND.ndim != 2 or queries_QD.shape[1] != vectors_ND.shape[1] or not len(vectors_ND):
        raise DataError(
            f"search: found queries {queries_QD.shape} and candidates {vectors_ND.shape}; expected [Q, D] and [N, D] with one D and "
            "N >= 1. Embed both with the same checkpoint"
        )
    if k < 1 or block < 1:
        raise DataError(f"search: found k = {k}, block = {block}; expected 1 at least")
    if truth_Q is not None and (len(truth_Q) != len(queries_QD) or np.any((truth_Q < 0) | (truth_Q >= len(vectors_ND)))):
        raise DataError(
            f"search: found {len(truth_Q)} truths for {len(queries_QD)} queries, some may lie outside 0 .. {len(vectors_ND) - 1}; "
            "expected the number of a candidate for every query"
        )
