"""The paper's tables with our rows beside the published ones, and scores by number of chorus tokens.

A row whose first cell begins with `MARK` is from the literature; whatever shows it says so. Our figures stand under the paper's columns
only where they were scored by the paper's protocol on the paper's data: a benchmark of another name, or one scored without the judge that
its protocol asks for, is not put there.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from data_prep.samples import DataError
from pipeline.evaluate import published
from pipeline.evaluate.comprehension import PUBLISHED_NATIVE, six
from pipeline.evaluate.metrics import average
from pipeline.evaluate.page.charts import Curve
from pipeline.evaluate.percent import percent
from pipeline.evaluate.report import Report, Table, counted, set_scores
from pipeline.evaluate.stored_report import stored_report

MARK = "[published] "


class ChorusPoint(NamedTuple):
    """Scores at one number of chorus tokens, as fractions; None where not measured. `source` says where they come from."""

    k: int
    source: str
    p_at_1: float | None
    native: float | None
    compressed: float | None
    cache: float | None


def read_report(folder: Path) -> Report:
    """A report as `report.write` left it.

    Raises:
        DataError: no scores.json, or not one of this project's.
    """
    path = folder / "scores.json"
    try:
        return stored_report(json.loads(path.read_bytes()))
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; expected a finished evaluation; check the path") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: found {error!r}; expected what this version's evaluation writes. Evaluate again") from error


def chorus_point(report: Report, source: str) -> ChorusPoint | None:
    """The means of one evaluation; None where it does not say how many chorus tokens it used."""
    stated = re.match(r"(\d+) of \d+$", report.facts.get("chorus tokens", ""))
    if not stated or stated[1] == "0":
        return None
    by_mode = {mode: [one for one in counted(report.answers) if one.mode == mode] for mode in ("native", "compressed")}
    native, compressed = (_mean(one.score for one in by_mode[mode]) for mode in ("native", "compressed"))
    cache = _mean(one.cache_share for one in by_mode["compressed"])
    return ChorusPoint(int(stated[1]), source, average(set_scores(report.retrieval))["all"], native, compressed, cache)


def other_sizes(report: Report, folder: Path) -> list[ChorusPoint]:
    """Evaluations of the same checkpoint with other numbers of chorus tokens, which lie beside this one as `<name>-k<k>`."""
    stem = re.sub(r"-k\d+$", "", folder.resolve().name)
    found = []
    for path in sorted(folder.resolve().parent.iterdir()):
        named = path.name.startswith(stem) and re.fullmatch(r"(-k\d+)?", path.name[len(stem) :])
        if named and path != folder.resolve() and (path / "scores.json").is_file():
            other = read_report(path)
            same = other.facts.get("checkpoint") == report.facts.get("checkpoint")
            asked = [(row.name, row.queries) for row in other.retrieval] == [(row.name, row.queries) for row in report.retrieval]
            if same and asked and (point := chorus_point(other, path.name)):
                found.append(point)
    return found


def study_points(path: Path) -> list[ChorusPoint]:
    """What a study measured, from its study.json: an arm's name is the source.

    Raises:
        DataError: not a study's file.
    """
    try:
        arms: Sequence[Mapping] = json.loads(path.read_bytes())["arms"]
        measured = [(arm["name"], int(k), scores) for arm in arms for k, scores in arm["scores"].items()]
        return [
            ChorusPoint(k, name, *(scores[m] and scores[m]["value"] for m in ("p_at_1", "native", "compressed")), scores["cache"])
            for name, k, scores in measured
            if k and name in ("elastic", "full", f"k{k}")
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: found {error!r}; expected the study.json that launchers/study.sh writes") from error


def vlm_table(report: Report) -> Table:
    """The paper's Table 2."""
    title, head, rows, notes = six(report.answers)
    return Table(title, head, [(row[0].replace(PUBLISHED_NATIVE, MARK), *row[1:]) for row in rows], notes)


def chorus_table(points: Iterable[ChorusPoint]) -> Table:
    """The paper's Table 4."""
    rows = [
        (f"{_tokens(point.k)}, {point.source}", *map(percent, (point.p_at_1, point.native, point.compressed)), percent(point.cache, 2))
        for point in sorted(points)
    ]
    for row in published.CHORUS:
        name = _tokens(row.chorus) if row.chorus else "end-of-sequence pooling"
        theirs = (row.mmeb, row.native, row.compressed)
        rows.append((f"{MARK}CREM 2B, {name}", *("-" if value is None else f"{value:.1f}" for value in theirs), f"{row.cache:.2f}"))
    notes = (
        f"{MARK.strip()} = {published.LABEL}: MMEB and the mean of six VLM benchmarks. {published.CITATION}",
        "Ours: the mean over the sets and benchmarks of this evaluation, whichever they are: shapes may be compared, figures may not.",
    )
    return Table("Scores by number of chorus tokens, in percent", ("chorus", "P@1", "native", "compressed", "cache kept"), rows, notes)


def chorus_curves(points: Iterable[ChorusPoint]) -> list[Curve]:
    """Our lines over the published ones; none where fewer than two sizes were measured. Of two runs of one size the first counts."""
    points = sorted(points, key=lambda point: point.k)
    if len({point.k for point in points}) < 2:
        return []
    theirs = [(name, {row.chorus: getattr(row, field) / 100 for row in published.CHORUS if row.chorus}) for name, field in _PUBLISHED]
    ours = []
    for name, field in _OURS:
        values: dict[int, float] = {}
        for point in points:
            if (value := getattr(point, field)) is not None:
                values.setdefault(point.k, value)
        if values:
            ours.append(Curve(name, values))
    return [Curve(name, values, published=True) for name, values in theirs] + ours


_OURS = (("P@1", "p_at_1"), ("native", "native"), ("compressed", "compressed"))
_PUBLISHED = (("P@1", "mmeb"), ("native", "native"), ("compressed", "compressed"))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _tokens(k: int) -> str:
    return f"{k} token{'s' * (k > 1)}"
