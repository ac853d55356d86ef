"""VLM benchmarks in VLMEvalKit's format, answered natively and from the chorus: prompts, image sizes, answers, and the file of predictions.

`protocols` says how a benchmark is asked, `readings` how its answers are scored, with a judge or without.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from data_prep.benchmark_prompts import multiple_choice_prompt, open_prompt, yes_no_prompt
from data_prep.encode import Encoder
from data_prep.samples import Side
from data_prep.shards import atomic_file
from data_prep.sources.benchmarks import Benchmark, BenchmarkRow
from pipeline.evaluate.generate import Answer, Mode
from pipeline.evaluate.judge import Judge
from pipeline.evaluate.kept import Kept
from pipeline.evaluate.protocols import protocol_of, selected
from pipeline.evaluate.readings import Reading, readings
from pipeline.evaluate.record import asked
from pipeline.evaluate.report import AnswerScore
from pipeline.evaluate.scoring import own_reading, total
from pipeline.evaluate.units import Item, Task, plan
from pipeline.evaluate.worker import answers as answers_of


def plan_benchmark(benchmark: Benchmark, mode: Mode, encoder: Encoder, identity: dict, max_new_tokens: int | None = None) -> Task:
    """The units of the rows of one benchmark that are scored, in one mode.

    Args:
        max_new_tokens: where an answer is cut off; None: where the benchmark's protocol does.

    Raises:
        DataError: the benchmark cannot be scored by its protocol, or an image cannot be used.
    """
    protocol = protocol_of(benchmark.name)
    sized = encoder.with_image_tokens(*protocol.image_tokens) if protocol.image_tokens else encoder
    rows = selected(benchmark)[0].rows
    items = [Item(Side(images=row.images), prompt(benchmark.kind, row, protocol.always_english)) for row in rows]
    return plan(benchmark.name, mode, items, sized, max_new_tokens or protocol.max_new_tokens, identity)


def score_benchmark(benchmark: Benchmark, mode: Mode, task: Task, kept: Kept, out: Path, judge: Judge | None = None) -> list[AnswerScore]:
    """Score a benchmark whose units are computed, in every way it can be; predictions go to `out/<benchmark>.<mode>.jsonl`."""
    benchmark, left_out = selected(benchmark)
    computed = [answers_of(kept.get(unit.key)) for unit in task.units]
    answers = [computed[unit][place] for unit, place in task.places]
    read = readings(benchmark, [answer.text for answer in answers], judge)
    _write(out / f"{benchmark.name}.{mode}.jsonl", benchmark, answers, read)
    return [_score(benchmark, mode, answers, reading, judge, left_out) for reading in read]


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
