"""MMEB: every query against its own candidates, Precision@1 (formats: `data_prep.sources.mmeb_eval`).

Each distinct query or target is embedded once, over all sets. Every prediction is written down; nothing is dropped, so a score always has
the denominator it claims.
"""

import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from data_prep.encode import Encoder
from data_prep.samples import DataError, Side
from data_prep.shards import atomic_file
from data_prep.sources.mmeb_eval import EvalRow, EvalSet
from pipeline.batches.collate import Collator
from pipeline.evaluate.embed import embed
from pipeline.evaluate.metrics import Ranking, chance, precision_at_1
from pipeline.evaluate.record import ranked
from pipeline.evaluate.report import RetrievalScore
from pipeline.model.crem import Crem

WINDOW = 2048
"""Sides whose images are in memory at a time."""
META_CODES = {"classification": "CLS", "vqa": "VQA", "retrieval": "RET", "grounding": "GD"}


def score_sets(sets: list[EvalSet], model: Crem, encoder: Encoder, collator: Collator, out: Path) -> list[RetrievalScore]:
    """Score every set; predictions go to `out/<set>.jsonl`.

    Raises:
        DataError: a query or candidate cannot be encoded (named with its set).
    """
    sides = list(dict.fromkeys(side for eval_set in sets for row in eval_set.rows for side in (row.query, *row.candidates)))
    embeddings = np.concatenate(
        [
            embed(model, collator, [_encode(encoder, side) for side in sides[start : start + WINDOW]]).numpy()
            for start in tqdm(range(0, len(sides), WINDOW), desc="embed", disable=None, leave=False)
        ]
    )
    place = {side: i for i, side in enumerate(sides)}
    out.mkdir(parents=True, exist_ok=True)
    return [_score(eval_set, embeddings, place, out / f"{eval_set.name}.jsonl") for eval_set in sets]


def _score(eval_set: EvalSet, embeddings: np.ndarray, place: dict[Side, int], path: Path) -> RetrievalScore:
    rankings: list[Ranking] = []
    with atomic_file(path) as temporary, temporary.open("w") as file:
        for number, row in enumerate(eval_set.rows):
            scores = embeddings[[place[side] for side in row.candidates]] @ embeddings[place[row.query]]
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


def _encode(encoder: Encoder, side: Side):
    try:
        return encoder.sequence(side)
    except DataError as error:
        shown = ", ".join(image.name for image in side.images) or repr(side.text[:60])
        raise DataError(f"evaluation side {shown}: {error}. Scores need every row: mend the data") from error
