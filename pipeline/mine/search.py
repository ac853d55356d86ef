"""Exact nearest neighbours by inner product, in bounded memory; the only file that imports faiss.

Shapes: Q queries, N candidates in blocks, k neighbours, D dimensions.
"""

from collections.abc import Iterable

import faiss
import numpy as np

NONE = -1
"""Stands for a neighbour where there are fewer than k candidates."""


def nearest(queries_QD: np.ndarray, blocks: Iterable[tuple[np.ndarray, np.ndarray]], k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k candidates of highest inner product for each query, best first; of equal ones the lower number first.

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
        scores = np.concatenate([best_Qk, scores], axis=1)
        found = np.concatenate([found_Qk, np.asarray(numbers_n, np.int64)[places]], axis=1)
        order = np.lexsort((found, -scores))[:, :k]
        best_Qk, found_Qk = (np.take_along_axis(values, order, axis=1) for values in (scores, found))
    return best_Qk, found_Qk
