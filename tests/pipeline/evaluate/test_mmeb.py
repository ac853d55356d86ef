"""MMEB from files to scores: every prediction written, every score recounted from them."""

import copy
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from data_prep.encode import Encoder
from data_prep.samples import DataError
from data_prep.sources.mmeb_eval import EvalSet, load_sets
from pipeline.evaluate.embed import embed
from pipeline.evaluate.mmeb import plan_set, score_set
from pipeline.evaluate.open import assemble


class CountingEncoder(Encoder):
    """Counts the sides it encodes."""

    count = 0

    def sequence(self, *args, **kwargs):
        CountingEncoder.count += 1  # of all copies, which have other limits
        return super().sequence(*args, **kwargs)


@pytest.fixture
def root(tmp_path: Path, picture) -> Path:
    """Two sets: a known one that ranks words for images, and one of our own that ranks images for words."""
    root = tmp_path / "eval"
    (root / "images").mkdir(parents=True)
    for i in range(4):
        (root / "images" / f"{i}.png").write_bytes(picture(i).data)
    words = ["red circle", "blue square", "grey ring", "blue square"]
    sets = {
        "VOC2007": [
            dict(qry_text="what is it?", qry_img_path=f"{i}.png", tgt_text=words[i:] + words[:i], tgt_img_path=[""] * 4) for i in range(4)
        ],
        "Own": [
            dict(qry_text=words[i], qry_img_path="", tgt_text=[""] * n, tgt_img_path=[f"{(i + j) % 4}.png" for j in range(n)])
            for i, n in enumerate((2, 4, 1))
        ],
    }
    for name, rows in sets.items():
        (root / name).mkdir()
        pq.write_table(pa.Table.from_pylist(rows), root / name / "test-00000.parquet")
    return root


def score_sets(sets, model, encoder, computed, out) -> list:
    """Plan, compute and score, with a model that is open already."""
    tasks = [plan_set(eval_set, encoder, {}) for eval_set in sets]
    kept = computed(tasks, assemble(encoder, model))
    return [score_set(eval_set, task, kept, out) for eval_set, task in zip(sets, tasks, strict=True)]


@pytest.fixture
def sets(root: Path) -> list[EvalSet]:
    return load_sets(root)


def test_end_to_end(sets, model, collator, checkpoint, computed, tmp_path, monkeypatch) -> None:
    encoder = CountingEncoder(checkpoint)
    monkeypatch.setattr(CountingEncoder, "count", 0)
    scores = {score.name: score for score in score_sets(sets, model, encoder, computed, tmp_path / "out")}
    # per set, not over all sets together (11): what is computed with a side follows from its own set alone, whatever else is scored beside
    # it (`units`), so the three words that both sets have are encoded for each
    assert CountingEncoder.count == (4 + 3) + (3 + 4), "each distinct side of a set once: 4 queries and 3 words, 3 words and 4 images"
    assert [(scores[n].meta, scores[n].split, scores[n].queries) for n in ("VOC2007", "Own")] == [("CLS", "IND", 4), (None, None, 3)]
    assert scores["VOC2007"].chance == 0.25
    assert scores["Own"].chance == pytest.approx((1 / 2 + 1 / 4 + 1) / 3)
    assert scores["Own"].candidates_mean == pytest.approx(7 / 3)

    for eval_set in sets:
        lines = (tmp_path / "out" / f"{eval_set.name}.jsonl").read_text().splitlines()
        predictions = [json.loads(line) for line in lines]
        assert [p["row"] for p in predictions] == list(range(len(eval_set.rows)))
        hits = 0
        for prediction, row in zip(predictions, eval_set.rows, strict=True):
            vectors = embed(model, collator, [encoder.sequence(side) for side in (row.query, *row.candidates)])
            cosines = (vectors[1:] @ vectors[0]).tolist()
            assert prediction["candidates"] == len(cosines)
            assert prediction["score"] == pytest.approx(max(cosines), abs=1e-5)
            assert prediction["true_score"] == pytest.approx(cosines[0], abs=1e-5)
            best = row.candidates[prediction["predicted"]]
            assert cosines[prediction["predicted"]] == pytest.approx(max(cosines), abs=1e-5)
            assert prediction["predicted_text"] == best.text
            assert prediction["predicted_images"] == [image.name for image in best.images]
            hits += prediction["hit"]
            assert prediction["hit"] == (prediction["predicted"] == 0)
        assert scores[eval_set.name].p_at_1 == pytest.approx(hits / len(predictions))
        assert scores[eval_set.name].p_at_1_strict == pytest.approx(sum(p["strict_hit"] for p in predictions) / len(predictions))


def test_a_collapsed_model_scores_nothing_strictly(sets, model, encoder, computed, tmp_path) -> None:
    """All embeddings alike: by MMEB's rule every query is a hit, strictly none is (but where there is no choice)."""
    flat = copy.deepcopy(model)
    with torch.no_grad():
        flat.backbone.model.language_model.norm.weight.zero_()
        flat.backbone.model.language_model.norm.register_forward_hook(lambda module, args, out: torch.ones_like(out))
    for score in score_sets(sets, flat, encoder, computed, tmp_path / "out"):
        assert score.p_at_1 == 1.0
        assert score.p_at_1_strict == pytest.approx(1 / 3 if score.name == "Own" else 0.0)


@pytest.mark.parametrize("damage", ["cut", "gone", "text"])
def test_an_unreadable_image_is_an_error(root, sets, model, encoder, computed, tmp_path, damage: str) -> None:
    path = root / "images" / "2.png"
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:200] if damage == "cut" else b"not an image")
    with pytest.raises(DataError, match=r"evaluation side .*2\.png.*Scores need every row"):
        score_sets(sets, model, encoder, computed, tmp_path / "out")
    assert not (tmp_path / "out").exists()
