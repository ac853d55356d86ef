"""From an answer's text to points, and from points to a benchmark's score. Pure: what a judge has said comes in as values.

Multiple choice: extraction steps 1-5, circular where the file has rotations; an open question of MMMU is a choice between its reference and
"Other Answers" (VLMEvalKit `MMMU_preproc`). Yes/no: HallusionBench's mean of aAcc, fAcc and qAcc where the index names figures, plain
accuracy otherwise. Open questions: string recall, a rule of our own, or the grades of a judge (MM-Vet).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from data_prep.sources.benchmarks import Benchmark, BenchmarkRow
from pipeline.evaluate import metrics
from pipeline.evaluate.mmmu import open_answer_right

OTHER_ANSWERS = "Other Answers"
_ABILITIES = {
    "coarse_perception": "CP",
    "finegrained_perception (instance-level)": "FP-S",
    "finegrained_perception (cross-instance)": "FP-C",
    "logic_reasoning": "LR",
    "relation_reasoning": "RR",
    "attribute_reasoning": "AR",
}
"""MMBench's abilities as the field abbreviates them."""


def choices(row: BenchmarkRow) -> Mapping[str, str]:
    """The options an answer is matched with; an open question's are its reference and `OTHER_ANSWERS`."""
    return row.options or {"A": row.answer, "B": OTHER_ANSWERS}


def gold(row: BenchmarkRow) -> str:
    """The right letter of `choices`."""
    return row.answer.strip() if row.options else "A"


def read_answer(kind: str, row: BenchmarkRow, text: str) -> tuple[str | None, float]:
    """What the answer was understood as (None: only a judge could tell), and its points in [0, 1]."""
    if kind == "multiple_choice":
        option = metrics.extract_option(text, choices(row))
        return option, float(option == gold(row))
    if kind == "yes_no":
        said = metrics.extract_yes_no(text)
        return said, float(said is not None and said.lower() == row.answer.strip().lower())
    return text, metrics.open_match(text, row.answer).recall


def undecided(benchmark: Benchmark, read: Sequence[tuple[str | None, float]]) -> list[int]:
    """Rows that a judge would be asked about: unread ones, but for those whose question is lost by another rotation already.

    That is VLMEvalKit's order: one answer that was read and is wrong ends the group, and nobody is asked about the others.
    """
    unread = [i for i, (understood, _) in enumerate(read) if understood is None]
    if benchmark.kind != "multiple_choice":
        return unread
    groups = _groups(benchmark)
    lost = {groups[i] for i, (understood, points) in enumerate(read) if understood is not None and points < 1}
    return [i for i in unread if groups[i] not in lost]


def total(benchmark: Benchmark, points: Sequence[float]) -> tuple[float, float | None, dict]:
    """Score, chance level (None for open questions) and further figures of a benchmark, by category among them."""
    rows = benchmark.rows
    right = [point == 1.0 for point in points]
    if benchmark.kind == "multiple_choice":
        groups = _groups(benchmark)
        options = [len(row.options) for row in rows]
        detail = _by_category(rows, lambda some: metrics.circular_groups([groups[i] for i in some], [right[i] for i in some]))
        return metrics.circular_groups(groups, right), metrics.chance_circular(groups, options), detail
    if benchmark.kind == "open":
        detail = _by_category(rows, lambda some: sum(points[i] for i in some) / len(some))
        return sum(points) / len(points), None, {"exact_share": sum(right) / len(right)} | detail
    if all(row.index.count("_") >= 5 for row in rows):
        indices, categories = [row.index for row in rows], [row.extra.get("l2-category", "") for row in rows]

        def rate(some: Sequence[int]) -> metrics.Hallusion:
            return metrics.hallusion([indices[i] for i in some], [categories[i] for i in some], [right[i] for i in some])

        hallusion = rate(range(len(rows)))
        detail = hallusion._asdict() | _by_category(rows, lambda some: rate(some)._asdict())
        return hallusion.mean, metrics.chance_hallusion(indices, categories), detail
    return sum(right) / len(right), metrics.CHANCE_YES_NO, {}


def own_reading(benchmark: Benchmark, texts: Sequence[str], points: Sequence[float]) -> dict[str, float]:
    """Open questions among multiple-choice ones by MMMU's own reading: the share of them that is right, and of all rows; {} without any."""
    opens = [i for i, row in enumerate(benchmark.rows) if benchmark.kind == "multiple_choice" and not row.options]
    if not opens:
        return {}
    right = {i: open_answer_right(texts[i], benchmark.rows[i].answer) for i in opens}
    return {
        "open_rows": len(opens),
        "open_by_mmmus_own_reading": sum(right.values()) / len(opens),
        "all_with_mmmus_own_reading": sum(right.get(i, point) for i, point in enumerate(points)) / len(points),
    }


def _groups(benchmark: Benchmark) -> list[int]:
    """Each row's question: rotations share it. Rows whose index is no number are questions of their own, below zero."""
    return [int(row.index) % metrics.ROTATION if row.index.isdecimal() else -1 - i for i, row in enumerate(benchmark.rows)]


def _by_category(rows: Sequence[BenchmarkRow], rate: Callable[[list[int]], object]) -> dict[str, dict]:
    """`rate` of the rows of each category, and of each l2-category; MM-Vet's "ocr,math" counts for both. {} where there is but one."""
    out = {}
    for name, values in (("category", [row.category for row in rows]), ("l2-category", [row.extra.get("l2-category", "") for row in rows])):
        members: dict[str, list[int]] = defaultdict(list)
        for i, value in enumerate(values):
            for part in _parts(value):
                members[_ABILITIES.get(part, part)].append(i)
        if len(members) > 1:
            out[f"by_{name}"] = {part: rate(members[part]) for part in sorted(members)}
    return out


def _parts(value: str) -> Iterable[str]:
    skills = {"rec", "ocr", "know", "gen", "spat", "math"}
    parts = [part.strip() for part in value.split(",")]
    return parts if set(parts) <= skills else filter(None, [value.strip()])
