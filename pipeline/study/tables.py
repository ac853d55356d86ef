"""A study as study.json and study.md: our figures, the paper's beside them under their own heading, and what reappears."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.evaluate import published
from pipeline.evaluate.percent import percent
from pipeline.evaluate.report import Table, piped, plain
from pipeline.study.arms import Arm, Kind
from pipeline.study.findings import MEASURES, Finding, Results, claims, judge
from pipeline.study.scores import Mean, Scores

MARK = "[published]"
NOTES = (
    "Figures in percent: P@1 is the mean over retrieval sets (IND, OOD: in and out of the training distribution); native and comp. are the "
    "mean over benchmarks; cache is the share of the key-value cache that compressed answers read; +- is one binomial standard error; "
    "guess is what guessing scores (open questions cannot be guessed and count as 0).",
    f"{MARK}: {published.LABEL}: MMEB, native and compressed of CREM on Qwen2-VL-2B. {published.CITATION}. Another model on other data: "
    "shapes may be compared, figures may not.",
    "A chorus of 0 is end-of-sequence pooling; it has nothing to answer from alone.",
)
FINDING_NOTES = (
    "One run per arm, one seed: the standard error is that of the questions asked, not of training again. "
    '"within noise": the difference does not exceed 1.96 of them (95 %).',
)


def results_table(kind: Kind, arms: Sequence[Arm], results: Results) -> Table:
    """A row per evaluation that is done."""
    head = ("arm", "chorus", "P@1", "+-", "guess", "IND", "OOD", "native", "+-", "guess", "comp.", "+-", "cache")
    head += tuple(f"{MARK} {name}" for name in ("row", "MMEB", "native", "comp."))
    rows = [
        (f"{arm.name}: {arm.title}", _chorus(arm, k), *_ours(results[arm.name][k]), *_paper(arm, k))
        for arm in arms
        for k in arm.evaluate_at
        if k in results.get(arm.name, {})
    ]
    return Table(f"Study: {kind}", head, rows, NOTES)


def findings_table(findings: Sequence[Finding]) -> Table:
    """A row per claim."""
    head = ("claim", "measure", "first", "second", "difference", "+-", "holds here", f"{MARK} first", f"{MARK} second")
    rows = []
    for claim, difference, verdict in findings:
        seen = ("-",) * 4
        if difference:
            seen = (percent(difference.a), percent(difference.b), f"{100 * difference.value:+.1f}", percent(difference.error))
        paper = tuple(f"{figure:.1f}" for figure in claim.paper) if claim.paper else ("-", "-")
        rows.append((claim.statement, MEASURES[claim.measure], *seen, verdict, *paper))
    return Table("What reappears", head, rows, FINDING_NOTES)


def markdown(kind: Kind, arms: Sequence[Arm], results: Results, facts: Mapping[str, str]) -> str:
    """GitHub-flavoured Markdown."""
    tables = [Table("What was run", ("setting", "value"), list(facts.items())), results_table(kind, arms, results)]
    tables += [table for table in [findings_table(judge(claims(arms), results))] if table.rows]
    lines = [f"# CREM study: {kind}"]
    for table in tables:
        lines += ["", f"## {table.title}", "", *piped(table), *(f"\n{note}" for note in table.notes)]
    return "\n".join(lines) + "\n"


def console(arms: Sequence[Arm], results: Results) -> str:
    """What a person wants to see at the end: the scores, narrow enough for a terminal, and the verdicts."""
    head = ("arm", "chorus", "P@1", "native", "comp.", "cache", *(f"{MARK} {name}" for name in ("MMEB", "native", "comp.")))
    rows = []
    for arm in arms:
        for k in arm.evaluate_at:
            if scores := results.get(arm.name, {}).get(k):
                ours = [percent(mean and mean.value) for mean in (scores.p_at_1, scores.native, scores.compressed)]
                rows.append((arm.name, _chorus(arm, k), *ours, percent(scores.cache, 2), *_paper(arm, k)[1:]))
    shown = [plain(Table("Scores in percent", head, rows))]
    findings = findings_table(judge(claims(arms), results))
    if findings.rows:
        few = [(row[0], row[2], row[3], row[4], row[6]) for row in findings.rows]
        shown.append(plain(Table(findings.title, ("claim", "1st", "2nd", "diff.", "holds here"), few)))
    return "\n\n".join(shown)


def as_json(kind: Kind, arms: Sequence[Arm], results: Results, facts: Mapping[str, str], digests: Mapping[str, str]) -> str:
    """Everything behind study.md; our figures are fractions, the published ones percent."""
    findings = [
        claim._asdict() | {"verdict": verdict, "difference": seen and seen._asdict() | {"value": seen.value}}
        for claim, seen, verdict in judge(claims(arms), results)
    ]
    payload = {
        "study": kind,
        "facts": dict(facts),
        "unit": "fraction",
        "arms": [
            arm.model_dump(mode="json")
            | {"settings_digest": digests[arm.name], "scores": {str(k): _scores_json(scores) for k, scores in results[arm.name].items()}}
            for arm in arms
            if arm.name in results
        ],
        "findings": findings,
        "published": {"label": published.LABEL, "unit": "percent", "source": published.CITATION},
    }
    return json.dumps(payload, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write(folder: Path, text: Mapping[str, str]) -> list[Path]:
    """Write each named text into `folder`, whole or not at all."""
    for name, content in text.items():
        partial = folder / f".{name}.partial"
        partial.write_text(content, encoding="utf-8")
        os.replace(partial, folder / name)
    return [folder / name for name in text]


def headline(results: Results) -> dict[str, float]:
    """The figures by dotted name, for the parent run: e.g. {"full/p_at_1": 0.4, "elastic/k2/native": 0.3}."""
    out = {}
    for name, by_k in results.items():
        for k, scores in by_k.items():
            place = name if len(by_k) == 1 else f"{name}/k{k}"
            out |= {f"{place}/{measure}": mean.value for measure in MEASURES if (mean := getattr(scores, measure))}
    return out


def _chorus(arm: Arm, k: int) -> str:
    return str(k) if k == arm.k else f"{k} of {arm.k}"


def _ours(scores: Scores) -> tuple[str, ...]:
    retrieval = [*_pair(scores.p_at_1), percent(scores.guess_p_at_1), _pair(scores.ind)[0], _pair(scores.ood)[0]]
    answers = [*_pair(scores.native), percent(scores.guess_answers), *_pair(scores.compressed)]
    return (*retrieval, *answers, percent(scores.cache, 2))


def _pair(mean: Mean | None) -> tuple[str, str]:
    return ("-", "-") if mean is None else (percent(mean.value), percent(mean.error))


def _paper(arm: Arm, k: int) -> tuple[str, ...]:
    if arm.published is None or k != arm.k:
        return ("-",) * 4
    row = arm.published
    return (row.row, f"{row.mmeb:.1f}", f"{row.native:.1f}", "-" if row.compressed is None else f"{row.compressed:.1f}")


def _scores_json(scores: Scores) -> dict:
    return {name: value._asdict() if isinstance(value, Mean) else value for name, value in scores._asdict().items()}
