"""What a prediction row says of its question: ranks, the best five, and a digest that notices any change."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep.samples import ImageRef, Side
from data_prep.sources.benchmarks import BenchmarkRow
from data_prep.sources.mmeb_eval import EvalRow
from pipeline.evaluate.record import asked, question_digest, ranked, retrieval_digest

ROW = EvalRow(Side("find", (ImageRef("q.png"),)), tuple(Side(f"t{i}", (ImageRef(f"{i}.png"),)) for i in range(6)))
QUESTION = BenchmarkRow("7", (ImageRef("x.tsv#7", data=b"bytes"),), "which?", "a hint", {"A": "ring"}, "A", "shapes", {"l2-category": "VD"})


def test_ranked() -> None:
    seen = ranked(ROW, np.array([0.5, 0.9, 0.5, 0.1, np.nan, 0.7]))
    assert seen["query"] == {"text": "find", "images": ["q.png"]} and seen["true"] == {"text": "t0", "images": ["0.png"]}
    assert seen["true_rank"] == 3, "a tie does not push the true one down; what is not finite scores below all"
    assert [(one["candidate"], one["score"], one["text"]) for one in seen["top"]] == [
        (1, 0.9, "t1"),
        (5, 0.7, "t5"),
        (0, 0.5, "t0"),
        (2, 0.5, "t2"),
        (3, 0.1, "t3"),
    ]


def test_fewer_candidates_than_five() -> None:
    seen = ranked(replace(ROW, candidates=ROW.candidates[:2]), np.array([0.1, 0.2]))
    assert [one["candidate"] for one in seen["top"]] == [1, 0] and seen["true_rank"] == 2


@pytest.mark.parametrize(
    "changed",
    [
        replace(ROW, query=Side("find", (ImageRef("other.png"),))),
        replace(ROW, query=Side("finds", ROW.query.images)),
        replace(ROW, candidates=ROW.candidates[::-1]),
        replace(ROW, candidates=ROW.candidates[:5]),
        replace(ROW, query=Side("find"), candidates=(ROW.query, *ROW.candidates)),
    ],
)
def test_the_digest_notices(changed) -> None:
    assert retrieval_digest(changed) != retrieval_digest(ROW) == retrieval_digest(replace(ROW))


@pytest.mark.parametrize(
    "change",
    [
        {"question": "?"},
        {"hint": ""},
        {"options": {"A": "star"}},
        {"answer": "B"},
        {"images": (ImageRef("x.tsv#7", data=b"others"),)},
        {"extra": {"l2-category": "VS"}},
        {"index": "8"},
    ],
)
def test_the_digest_of_a_question_notices(change) -> None:
    assert question_digest("open", replace(QUESTION, **change)) != question_digest("open", QUESTION)


def test_asked() -> None:
    renamed = replace(QUESTION, images=(ImageRef("elsewhere.tsv#7", data=b"bytes"),), category="other")
    assert asked("open", QUESTION) == {
        "digest": question_digest("open", renamed),
        "kind": "open",
        "images": ["x.tsv#7"],
        "options": {"A": "ring"},
        "category": "VD",
    }


def test_text_that_is_no_unicode_still_has_a_digest() -> None:
    assert len(retrieval_digest(replace(ROW, query=Side("\ud800")))) == 16
