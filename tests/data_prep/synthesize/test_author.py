"""What is written about rows: one turn a prompt, whoever the neighbours are; what cannot be shown is rejected in its place."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep import sources
from data_prep.synthesize.author import Author, Chunk, Job, chosen_side, first_question, side_text, turn_seed

FIXED = {"prompt_id": "fixed", "question": "what colour is the largest shape?", "finished": True, "answer": "red."}
ASKED = {"prompt_id": "asked", "question": "what colour is the circle?", "finished": True, "answer": "the circle is blue."}


@pytest.fixture(scope="module")
def part(corpus: Path) -> sources.Part:
    """Twelve text queries with images as positives."""
    return sources.discover(corpus / "MMEB-train")[0]


def test_a_turn_for_every_prompt(job: Job, part: sources.Part) -> None:
    [entry] = Author(job).work(Chunk(part, (5,), first=100))
    seeds = [turn_seed(0, "mmeb_train/Colours/original/5", name) for name in ("fixed", "asked")]
    assert entry == {"row": 105, "side": "pos", "turns": [FIXED | {"seed": seeds[0]}, ASKED | {"seed": seeds[1]}]}


def test_neighbours_do_not_matter(job: Job, part: sources.Part) -> None:
    author = Author(replace(job, write=job.write.model_copy(update={"temperature": 2.0, "max_new_tokens": 6})))
    together = author.work(Chunk(part, (1, 4, 6), first=0))
    alone = [author.work(Chunk(part, (row,), first=0))[0] for row in (1, 4, 6)]
    assert together == alone
    assert len({turn["answer"] for entry in alone for turn in entry["turns"] if "answer" in turn}) > 1


def test_rows_without_a_usable_image_are_rejected(job: Job, part: sources.Part, tmp_path: Path) -> None:
    author = Author(replace(job, side="qry"))
    assert author.work(Chunk(part, (0,), first=0)) == [{"row": 0, "reject": "no_image"}]
    [entry] = Author(job).work(Chunk(replace(part, root=tmp_path), (0,), first=0))
    assert entry["reject"].startswith("image_missing: 'images/0.png'")


def test_which_side_is_asked_about() -> None:
    both = {"qry": "<|image_1|>\nfind\n", "qry_image_path": "q", "pos_text": " it ", "pos_image_path": "p"}
    assert [chosen_side(both, side) for side in ("auto", "qry", "pos")] == ["qry", "qry", "pos"]
    assert chosen_side(both | {"qry_image_path": ""}, "auto") == "pos"
    assert chosen_side(both | {"qry_image_path": "", "pos_image_path": ""}, "auto") is None
    assert (side_text(both, "qry"), side_text(both, "pos")) == ("find", "it")


@pytest.mark.parametrize(
    ("said", "question"),
    [
        ("What is it?", "What is it?"),
        ('Question: "What is it?"\nAnswer: a cat', "What is it?"),
        ("**Question:** What is it?", "What is it?"),
        ("\n\n  Which? \nmore", "Which?"),
        ("Questions of taste?", "Questions of taste?"),
        ("...", ""),
        ("", ""),
    ],
)
def test_the_question_of_a_reply(said: str, question: str) -> None:
    assert first_question(said) == question


def test_seeds_are_stable_and_their_own() -> None:
    assert turn_seed(0, "a/1", "v1") == int(hashlib.sha256(b"0/a/1/v1").hexdigest()[:12], 16)
    assert len({turn_seed(s, row, p) for s in (0, 1) for row in ("a/1", "a/2") for p in ("x", "y")}) == 8
