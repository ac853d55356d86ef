"""All ways in which a benchmark's answers are scored: exactly, and by a judge where there is one. What stays unread is counted.

Without a judge, MM-Vet has no score at all: the share of reference words that an answer holds is listed under a name of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.sources.benchmarks import Benchmark, BenchmarkRow
from pipeline.evaluate import judge_prompts, metrics, scoring
from pipeline.evaluate.judge import Judge
from pipeline.evaluate.judge_prompts import Inquiry
from pipeline.evaluate.protocols import protocol_of

KINDS = {
    "multiple_choice": "multiple choice",
    "yes_no": "yes/no",
    "open": f"open, {metrics.OPEN_LABEL}",
}
GRADED = "open, graded by a judge"
NOT_SCORED = "not scored: needs a judge"
WITH_JUDGE = " + judge"


@dataclass(frozen=True)
class Reading:
    """One way to score the rows of a benchmark.

    kind: what the score must be called
    understood: what each answer was taken to say; None: unread, and wrong
    points: in [0, 1] each; None where this benchmark has no score of this kind
    asked: rows that a judge was asked about
    unread: rows that (another) judge alone could have read
    """

    kind: str
    understood: list[str | None]
    points: list[float] | None
    asked: int = 0
    unread: int = 0

    @property
    def judged(self) -> bool:
        """Whether a judge had a say."""
        return self.kind == GRADED or self.kind.endswith(WITH_JUDGE)


def readings(benchmark: Benchmark, texts: Sequence[str], judge: Judge | None) -> list[Reading]:
    """The readings of one benchmark's answers, the one that counts first."""
    if benchmark.kind != "open":
        return [_matched(benchmark, texts, judge)]
    recall = Reading(
        KINDS["open"], list(texts), [scoring.read_answer("open", row, text)[1] for row, text in zip(benchmark.rows, texts, strict=True)]
    )
    if judge is not None:
        return [_graded(benchmark, texts, judge), recall]
    if protocol_of(benchmark.name).needs_judge:
        return [Reading(NOT_SCORED, [None] * len(texts), None, unread=len(texts)), recall]
    return [recall]


def _matched(benchmark: Benchmark, texts: Sequence[str], judge: Judge | None) -> Reading:
    read = [scoring.read_answer(benchmark.kind, row, text) for row, text in zip(benchmark.rows, texts, strict=True)]
    unread = scoring.undecided(benchmark, read)
    kind = KINDS[benchmark.kind]
    if judge is None:
        return Reading(kind, [u for u, _ in read], [p for _, p in read], unread=len(unread))
    inquiries = [_inquiry(benchmark.kind, benchmark.rows[i], texts[i]) for i in unread]
    verdicts = judge.verdicts(inquiries, f"judge {benchmark.name}")
    for i, verdict in zip(unread, verdicts, strict=True):
        read[i] = (verdict, float(verdict is not None and _right(benchmark.kind, benchmark.rows[i], verdict)))
    return Reading(kind + WITH_JUDGE, [u for u, _ in read], [p for _, p in read], len(unread), verdicts.count(None))


def _inquiry(kind: str, row: BenchmarkRow, text: str) -> Inquiry:
    if kind == "yes_no":
        return judge_prompts.match_yes_no(row.question, text)
    return judge_prompts.match_option(row.question, scoring.choices(row), text)


def _right(kind: str, row: BenchmarkRow, verdict: str) -> bool:
    return verdict.lower() == row.answer.strip().lower() if kind == "yes_no" else verdict == scoring.gold(row)


def _graded(benchmark: Benchmark, texts: Sequence[str], judge: Judge) -> Reading:
    inquiries = [judge_prompts.grade(row.question, row.answer, text) for row, text in zip(benchmark.rows, texts, strict=True)]
    grades = judge.verdicts(inquiries, f"judge {benchmark.name}")
    understood = [None if grade is None else text for grade, text in zip(grades, texts, strict=True)]
    return Reading(GRADED, understood, [grade or 0.0 for grade in grades], len(grades), grades.count(None))
