"""A report back from the scores.json that `report.write` made of it."""

from collections.abc import Mapping
from dataclasses import fields

from pipeline.evaluate.report import AnswerScore, Report, RetrievalScore


def stored_report(stored: Mapping) -> Report:
    """The report, the one of its base checkpoint included. Tables and figures among `stored` are not needed, unknown entries ignored.

    Raises:
        KeyError, TypeError, ValueError: not what `report.as_json` writes.
    """
    base = stored_report(stored["base"]) if stored.get("base") else None
    retrieval = tuple(_made(RetrievalScore, row) for row in stored["retrieval"])
    answers = tuple(_made(AnswerScore, row) for row in stored["answers"])
    return Report(str(stored["title"]), retrieval, answers, dict(stored["facts"]), dict(stored.get("attention", {})), base)


def _made(kind: type, row: Mapping) -> RetrievalScore | AnswerScore:
    known = {field.name for field in fields(kind)}
    return kind(**{name: value for name, value in row.items() if name in known})
