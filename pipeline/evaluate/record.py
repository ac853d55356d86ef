"""What a prediction row says of its question, so that it can be shown later and compared with another checkpoint's.

Every row carries a digest of what was asked: two evaluations with equal digests answered the same question among the same candidates, in
the same order. Files count by their name below the image root, images inside a benchmark by their bytes; pixel limits do not count, for
they belong to what is compared.
"""

import hashlib
import json

import numpy as np

from data_prep.samples import ImageRef, Side
from data_prep.sources.benchmarks import BenchmarkRow
from data_prep.sources.mmeb_eval import EvalRow

TOP = 5
"""Candidates that a retrieval prediction lists."""


def ranked(row: EvalRow, scores: np.ndarray) -> dict:
    """The query, its true target, the rank of that (1: nothing scores higher) and the best candidates.

    Args:
        scores: similarities of the row's candidates, the true one first, shape [candidates]; what is not finite ranks last.
    """
    usable = np.where(np.isfinite(scores), scores, -np.inf)
    top = np.argsort(-usable, kind="stable")[:TOP]
    return {
        "digest": retrieval_digest(row),
        "query": _shown(row.query),
        "true": _shown(row.candidates[0]),
        "true_rank": 1 + int((usable > usable[0]).sum()),
        "top": [{"candidate": int(i), "score": float(scores[i])} | _shown(row.candidates[i]) for i in top],
    }


def asked(kind: str, row: BenchmarkRow) -> dict:
    """The question's digest, images, options, and what its protocol groups rows by."""
    return {
        "digest": question_digest(kind, row),
        "kind": kind,
        "images": [image.name for image in row.images],
        "options": row.options,
        "category": _category(row),
    }


def retrieval_digest(row: EvalRow) -> str:
    """Of a query and its candidates, in order."""
    return _digest(["retrieval", *map(_side, (row.query, *row.candidates))])


def question_digest(kind: str, row: BenchmarkRow) -> str:
    """Of a question with all that it is asked and scored by."""
    images = [_image(image) for image in row.images]
    return _digest([kind, row.index, row.question, row.hint, row.options, row.answer, _category(row), images])


def _category(row: BenchmarkRow) -> str:
    return row.extra.get("l2-category", "")


def _shown(side: Side) -> dict:
    return {"text": side.text, "images": [image.name for image in side.images]}


def _side(side: Side) -> list:
    return [side.text, [_image(image) for image in side.images]]


def _image(image: ImageRef) -> str:
    return image.name if image.data is None else hashlib.sha256(image.data).hexdigest()


def _digest(known: list) -> str:
    text = json.dumps(known, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
