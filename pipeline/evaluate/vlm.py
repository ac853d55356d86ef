"""VLM benchmarks in VLMEvalKit's format, answered natively and from the chorus: prompts, image sizes, answers, and the file of predictions.

`protocols` says how a benchmark is asked, `readings` how its answers are scored, with a judge or without.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from data_prep.benchmark_prompts import multiple_choice_prompt, open_prompt, yes_no_prompt
from data_prep.encode import Encoder
from data_prep.samples import Side
from data_prep.shards import atomic_file
from data_prep.sources.benchmarks import Benchmark, BenchmarkRow
from pipeline.evaluate.generate import Answer, Answerer, Mode, by_length
from pipeline.evaluate.judge import Judge
from pipeline.evaluate.protocols import protocol_of, selected
from pipeline.evaluate.readings import Reading, readings
from pipeline.evaluate.record import asked
from pipeline.evaluate.report import AnswerScore
from pipeline.evaluate.scoring import own_reading, total

BATCH = 32


def score_benchmark(
    benchmark: Benchmark,
    mode: Mode,
    answerer: Answerer,
    encoder: Encoder,
    out: Path,
    max_new_tokens: int | None = None,
    judge: Judge | None = None,
) -> list[AnswerScore]:
    """Answer one benchmark in one mode, and score it in every way it can be; predictions go to `out/<benchmark>.<mode>.jsonl`.

    Args:
        max_new_tokens: where an answer is cut off; None: where the benchmark's protocol does.

    Raises:
        DataError: the benchmark cannot be scored by its protocol, or an image cannot be used.
    """
    benchmark, left_out = selected(benchmark)
    protocol = protocol_of(benchmark.name)
    sized = encoder.with_image_tokens(*protocol.image_tokens) if protocol.image_tokens else encoder
    answers = answer_rows(benchmark, mode, answerer, sized, max_new_tokens or protocol.max_new_tokens)
    read = readings(benchmark, [answer.text for answer in answers], judge)
    _write(out / f"{benchmark.name}.{mode}.jsonl", benchmark, answers, read)
    return [_score(benchmark, mode, answers, reading, judge, left_out) for reading in read]


def answer_rows(benchmark: Benchmark, mode: Mode, answerer: Answerer, encoder: Encoder, max_new_tokens: int) -> list[Answer]:
    """Answers in row order; rows of similar length share a batch."""
    english = protocol_of(benchmark.name).always_english
    sequences = [encoder.sequence(Side(images=row.images), open_question=prompt(benchmark.kind, row, english)) for row in benchmark.rows]
    answers: dict[int, Answer] = {}
    for some in tqdm(list(by_length(sequences, BATCH)), desc=f"{benchmark.name} {mode}", disable=None, leave=False):
        answers |= dict(zip(some, answerer.answer([sequences[i] for i in some], mode, max_new_tokens), strict=True))
    return [answers[i] for i in range(len(sequences))]


def prompt(kind: str, row: BenchmarkRow, always_english: bool = False) -> str:
    """The row's question in the benchmark's wording (VLMEvalKit's Qwen2-VL prompts)."""
    if kind == "multiple_choice":
        return multiple_choice_prompt(row.question, row.options, row.hint, always_english)
    return yes_no_prompt(row.question) if kind == "yes_no" else open_prompt(row.question)


def _write(path: Path, benchmark: Benchmark, answers: Sequence[Answer], read: Sequence[Reading]) -> None:
    """One line a row: what was asked, said and understood, and its points; `grade` where a judge graded (null: unread)."""
    first, scored = read[0], next(reading for reading in reversed(read) if reading.points is not None)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary, temporary.open("w") as file:
        for i, (row, answer) in enumerate(zip(benchmark.rows, answers, strict=True)):
            known = {"index": row.index, "question": row.question, "expected": row.answer}
            known |= {"understood": scored.understood[i], "points": scored.points[i]}
            if first is not scored:
                known["grade"] = None if first.points is None or first.understood[i] is None else first.points[i]
            file.write(json.dumps(known | asked(benchmark.kind, row) | asdict(answer)) + "\n")


def _score(
    benchmark: Benchmark, mode: Mode, answers: Sequence[Answer], reading: Reading, judge: Judge | None, left_out: dict[str, int]
) -> AnswerScore:
    score, chance, detail = (None, None, {}) if reading.points is None else total(benchmark, reading.points)
    rows = len(answers)
    own = {} if reading.points is None else own_reading(benchmark, [answer.text for answer in answers], reading.points)
    return AnswerScore(
        name=benchmark.name,
        kind=reading.kind,
        mode=mode,
        rows=rows,
        score=score,
        chance=chance,
        unresolved_share=reading.unread / rows,
        cache_share=sum(answer.cache_share for answer in answers) / rows,
        detail=detail | own,
        judge=judge.name if judge and reading.judged else "",
        judged_share=reading.asked / rows,
        cut_share=sum(not answer.finished for answer in answers) / rows,
        left_out=left_out,
    )
