"""VLM benchmarks in VLMEvalKit's format, answered natively and from the chorus, scored by its rules without a judge.

Multiple choice: circular where the file has rotations, answer extraction steps 1-5. Yes/no: HallusionBench's mean of aAcc, fAcc and qAcc
where the index names figures, plain accuracy otherwise. Open questions: string recall, which is not MMVet's judged score and
is labelled so.
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
from pipeline.evaluate import metrics
from pipeline.evaluate.generate import Answer, Answerer, Mode, by_length
from pipeline.evaluate.record import asked
from pipeline.evaluate.report import AnswerScore

BATCH = 32
KINDS = {
    "multiple_choice": "multiple choice",
    "yes_no": "yes/no",
    "open": "open, string recall (no judge)",
}


def score_benchmark(
    benchmark: Benchmark, mode: Mode, answerer: Answerer, encoder: Encoder, out: Path, max_new_tokens: int = 64
) -> AnswerScore:
    """Answer and score one benchmark in one mode; predictions go to `out/<benchmark>.<mode>.jsonl`."""
    answers = answer_rows(benchmark, mode, answerer, encoder, max_new_tokens)
    read = [read_answer(benchmark.kind, row, answer.text) for row, answer in zip(benchmark.rows, answers, strict=True)]
    out.mkdir(parents=True, exist_ok=True)
    with atomic_file(out / f"{benchmark.name}.{mode}.jsonl") as temporary, temporary.open("w") as file:
        for row, answer, (understood, points) in zip(benchmark.rows, answers, read, strict=True):
            known = {"index": row.index, "question": row.question, "expected": row.answer, "understood": understood, "points": points}
            file.write(json.dumps(known | asked(benchmark.kind, row) | asdict(answer)) + "\n")
    score, chance, detail = total(benchmark, [points for _, points in read])
    return AnswerScore(
        name=benchmark.name,
        kind=KINDS[benchmark.kind],
        mode=mode,
        rows=len(read),
        score=score,
        chance=chance,
        unresolved_share=sum(understood is None for understood, _ in read) / len(read),
        cache_share=sum(answer.cache_share for answer in answers) / len(answers),
        detail=detail,
    )


def answer_rows(benchmark: Benchmark, mode: Mode, answerer: Answerer, encoder: Encoder, max_new_tokens: int) -> list[Answer]:
    """Answers in row order; rows of similar length share a batch."""
    sequences = [encoder.sequence(Side(images=row.images), open_question=prompt(benchmark.kind, row)) for row in benchmark.rows]
    answers: dict[int, Answer] = {}
    for some in tqdm(list(by_length(sequences, BATCH)), desc=f"{benchmark.name} {mode}", disable=None, leave=False):
        answers |= dict(zip(some, answerer.answer([sequences[i] for i in some], mode, max_new_tokens), strict=True))
    return [answers[i] for i in range(len(sequences))]


def prompt(kind: str, row: BenchmarkRow) -> str:
    """The row's question in the benchmark's wording (VLMEvalKit's Qwen2-VL prompts)."""
    if kind == "multiple_choice":
        return multiple_choice_prompt(row.question, row.options, row.hint)
    return yes_no_prompt(row.question) if kind == "yes_no" else open_prompt(row.question)


def read_answer(kind: str, row: BenchmarkRow, text: str) -> tuple[str | None, float]:
    """What the answer was understood as (None: only a judge could tell), and its points in [0, 1]."""
    if kind == "multiple_choice":
        option = metrics.extract_option(text, row.options)
        return option, float(option == row.answer.strip())
    if kind == "yes_no":
        said = metrics.extract_yes_no(text)
        return said, float(said is not None and said.lower() == row.answer.strip().lower())
    return text, metrics.open_match(text, row.answer).recall


def total(benchmark: Benchmark, points: Sequence[float]) -> tuple[float, float | None, dict]:
    """Score, chance level (None for open questions) and further figures of a benchmark."""
    rows = benchmark.rows
    right = [point == 1.0 for point in points]
    if benchmark.kind == "multiple_choice":
        indices = [int(row.index) for row in rows]
        options = [len(row.options) for row in rows]
        return metrics.circular_groups(indices, right), metrics.chance_circular(indices, options), {}
    if benchmark.kind == "open":
        return sum(points) / len(points), None, {"exact_share": sum(right) / len(right)}
    accuracy = sum(right) / len(right)
    categories = [row.extra.get("l2-category", "") for row in rows]
    if all(row.index.count("_") >= 5 for row in rows):
        indices = [row.index for row in rows]
        hallusion = metrics.hallusion(indices, categories, right)
        return hallusion.mean, metrics.chance_hallusion(indices, categories), hallusion._asdict()
    return accuracy, 0.5, {}
