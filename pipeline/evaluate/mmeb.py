"""MMEB: every query against its own candidates, Precision@1 (formats: `data_prep.sources.mmeb_eval`).

Each distinct query or target of a set is embedded once. Every prediction is written down; nothing is dropped, so a score always has the
denominator it claims.
"""

import json
from pathlib import Path

import numpy as np

from data_prep.encode import Encoder
from data_prep.samples import Side
from data_prep.shards import atomic_file
from data_prep.sources.mmeb_eval import EvalRow, EvalSet
from pipeline.evaluate.kept import Kept
from pipeline.evaluate.metrics import Ranking, chance, precision_at_1
from pipeline.evaluate.record import ranked
from pipeline.evaluate.report import RetrievalScore
from pipeline.evaluate.units import Item, Task, plan
from pipeline.evaluate.worker import vectors

META_CODES = {"classification": "CLS", "vqa": "VQA", "retrieval": "RET", "grounding": "GD"}


def plan_set(eval_set: EvalSet, encoder: Encoder, identity: dict) -> Task:
    """The units of a set's distinct sides, in order of first appearance.

    Raises:
        DataError: a query or candidate cannot be encoded (named).
    """
    return plan(eval_set.name, "embed", [Item(side) for side in _sides(eval_set)], encoder, 0, identity)


def score_set(eval_set: EvalSet, task: Task, kept: Kept, out: Path) -> RetrievalScore:
    """Score a set whose units are computed; predictions go to `out/<set>.jsonl`."""
    computed = [vectors(kept.get(unit.key)) for unit in task.units]
    embeddings = np.stack([computed[unit][place] for unit, place in task.places])
    out.mkdir(parents=True, exist_ok=True)
    return _score(eval_set, embeddings, {side: i for i, side in enumerate(_sides(eval_set))}, out / f"{eval_set.name}.jsonl")


def _sides(eval_set: EvalSet) -> list[Side]:
    return list(dict.fromkeys(side for row in eval_set.rows for side in (row.query, *row.candidates)))


def _score(eval_set: EvalSet, embeddings: np.ndarray, place: dict[Side, int], path: Path) -> RetrievalScore:
    rankings: list[Ranking] = []
    with atomic_file(path) as temporary, temporary.open("w") as file:
        for number, row in enumerate(eval_set.rows):
            # not BLAS, whose sums depend on a row's place in the matrix and on threads: equal candidates must score alike
            scores = np.einsum("nd,d->n", embeddings[[place[side] for side in row.candidates]], embeddings[place[row.query]])
            rankings.append(precision_at_1(scores))
            file.write(json.dumps(_prediction(number, row, scores, rankings[-1]) | ranked(row, scores)) + "\n")
    sizes = [len(row.candidates) for row in eval_set.rows]
    return RetrievalScore(
        name=eval_set.name,
        meta=META_CODES.get(eval_set.meta),
        split=eval_set.split,
        queries=len(rankings),
        candidates_mean=float(np.mean(sizes)),
        p_at_1=float(np.mean([ranking.hit for ranking in rankings])),
        p_at_1_strict=float(np.mean([ranking.strict_hit for ranking in rankings])),
        chance=chance(sizes),
    )


def _prediction(number: int, row: EvalRow, scores: np.ndarray, ranking: Ranking) -> dict:
    best = row.candidates[ranking.best]
    return {
        "row": number,
        "hit": ranking.hit,
        "strict_hit": ranking.strict_hit,
        "predicted": ranking.best,
        "predicted_text": best.text,
        "predicted_images": [image.name for image in best.images],
        "score": float(scores[ranking.best]),
        "true_score": float(scores[0]),
        "candidates": len(scores),
    }
