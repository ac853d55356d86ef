"""Evaluation folders as the evaluation leaves them, from chosen outcomes: scores counted by the project's own rules, no model."""

import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.samples import ImageRef, Side
from data_prep.sources.benchmarks import Benchmark, BenchmarkRow
from data_prep.sources.mmeb_eval import EvalRow, EvalSet
from pipeline.evaluate import identity, report
from pipeline.evaluate.crew import Crew
from pipeline.evaluate.kept import Kept
from pipeline.evaluate.mmeb import META_CODES
from pipeline.evaluate.readings import KINDS, WITH_JUDGE
from pipeline.evaluate.record import asked, ranked
from pipeline.evaluate.scoring import total
from pipeline.evaluate.worker import Job


class Written:
    """Collects sets and benchmarks with their outcomes, then writes the folder."""

    def __init__(self, folder: Path, checkpoint: str = "some/checkpoint", chorus: str = "4 of 4", title: str = "an evaluation") -> None:
        self.folder, self.facts, self.title = folder, {"checkpoint": checkpoint, "chorus tokens": chorus}, title
        self.retrieval: list[report.RetrievalScore] = []
        self.answers: list[report.AnswerScore] = []
        (folder / "predictions").mkdir(parents=True)

    def set(self, eval_set: EvalSet, hits: list[bool]) -> "Written":
        """A query that hits scores its candidates downwards from the first, any other upwards."""
        rows = []
        for number, (row, hit) in enumerate(zip(eval_set.rows, hits, strict=True)):
            scores = np.linspace(0.9, 0.1, len(row.candidates))[:: 1 if hit else -1]
            known = {"row": number, "hit": hit, "true_score": float(scores[0]), "candidates": len(scores)}
            rows.append(known | ranked(row, scores))
        self._write(eval_set.name, rows)
        share = sum(hits) / len(hits)
        meta = META_CODES.get(eval_set.meta)
        self.retrieval.append(report.RetrievalScore(eval_set.name, meta, eval_set.split, len(hits), 3.0, share, share, 0.25))
        return self

    def benchmark(self, benchmark: Benchmark, mode: str, points: list[float], said: str = "an answer", judge: str = "") -> "Written":
        """Rows with these points, read by `judge` where one is named."""
        rows = []
        for row, point in zip(benchmark.rows, points, strict=True):
            known = {"index": row.index, "question": row.question, "expected": row.answer, "points": point, "text": said}
            rows.append(known | asked(benchmark.kind, row))
        self._write(f"{benchmark.name}.{mode}", rows)
        score, chance, detail = total(benchmark, points)
        share = 1.0 if mode == "native" else 0.25
        kind = KINDS[benchmark.kind] + (WITH_JUDGE if judge else "")
        self.answers.append(report.AnswerScore(benchmark.name, kind, mode, len(rows), score, chance, 0.0, share, detail, judge))
        return self

    def done(self) -> Path:
        report.write(self.report(), self.folder)
        return self.folder

    def report(self) -> report.Report:
        return report.Report(self.title, tuple(self.retrieval), tuple(self.answers), self.facts)

    def _write(self, name: str, rows: list[dict]) -> None:
        (self.folder / "predictions" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def written(tmp_path):
    """Begins a folder below `tmp_path`: written("a").set(...).benchmark(...).done()."""
    return lambda name="eval", **facts: Written(tmp_path / name, **facts)


def words(name: str, count: int, meta: str = "retrieval", split: str = "IND", text: str = "target") -> EvalSet:
    """A set of text queries with seven text candidates each."""
    rows = [EvalRow(Side(f"query {i}"), tuple(Side(f"{text} {i} {j}") for j in range(7))) for i in range(count)]
    return EvalSet(name, meta, split, rows)


def shown(name: str, images: list[ImageRef], text: str = "which?") -> EvalSet:
    """A set of image queries whose three candidates are images."""
    rows = [EvalRow(Side(text, (image,)), tuple(Side("", (other,)) for other in (image, *images[:2]))) for image in images]
    return EvalSet(name, "retrieval", "IND", rows)


def questions(name: str, kind: str, indices: list[str], images: tuple[ImageRef, ...] = (), answer: str = "yes", **extra: str) -> Benchmark:
    """Questions with these indices, all about the same images."""
    options = {"A": "a ring", "B": "a star"} if kind == "multiple_choice" else {}
    rows = [BenchmarkRow(index, images, f"question {index}?", "", options, answer, "", extra) for index in indices]
    return Benchmark(name, kind, rows)


@pytest.fixture
def computed(tmp_path):
    """Has tasks computed by a checkpoint that is open already: computed(tasks, opened) are the kept results."""

    def compute(tasks, opened) -> Kept:
        kept = Kept(tmp_path / "kept")
        Crew(workers=1).compute(tasks, Job("none", None, identity.numerics()), kept, lambda: opened)
        return kept

    return compute


@pytest.fixture
def make():
    """The makers of data, for tests that lie in other folders."""
    return type("Make", (), {"words": staticmethod(words), "shown": staticmethod(shown), "questions": staticmethod(questions)})
