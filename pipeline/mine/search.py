"""Exact nearest neighbours of very many queries by inner product, in bounded memory; the only file that imports faiss.

Where the rank of a true candidate is asked for, or equal scores must come in order, `pipeline.evaluate.search` is the door.

Shapes: Q queries, N candidates in blocks, k neighbours, D dimensions.
"""

from collections.abc import Iterable

import faiss
import numpy as np

from pipeline.evaluate.search import NONE, merge


def nearest(queries_QD: np.ndarray, blocks: Iterable[tuple[np.ndarray, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k candidates of highest inner product for each query, best first; of equal ones the lower number first (of those that
    tie for the last place in a block faiss keeps any).

    Only one block and the k best so far are in memory. Brute force: no index is trained, nothing is approximate.

    Args:
        queries_QD: float32.
        blocks: (candidate numbers int64 [n], vectors float32 [n, D]) as often as needed.

    Returns:
        scores float32 [Q, k] and candidate numbers int64 [Q, k]; -inf and `NONE` where there are fewer than k.
    """
    queries_QD = np.ascontiguousarray(queries_QD, np.float32)
    best_Qk = np.full((len(queries_QD), k), -np.inf, np.float32)
    found_Qk = np.full((len(queries_QD), k), NONE, np.int64)
    for numbers_n, vectors_nD in blocks:
        if not len(numbers_n):
            continue
        scores, places = faiss.knn(
            queries_QD, np.ascontiguousarray(vectors_nD, np.float32), min(k, len(numbers_n)), metric=faiss.METRIC_INNER_PRODUCT
        )
        best_Qk, found_Qk = merge(best_Qk, found_Qk, scores, np.asarray(numbers_n, np.int64)[places], k)
    return best_Qk, found_Qk
