"""A survey for people and for programs: a table by source, the reasons with examples, what to do, and the exit code."""

import json
from dataclasses import asdict

from data_prep.check.run import Survey
from data_prep.check.scan import Findings

_ADVICE = {
    "missing": "unpack the archive they come from, or name --image-root; python -m data_prep fetch gets what can be got",
    "outside_root": "paths must lead below the data's own folder; put the images there (links out of it do not count)",
    "not_a_file": "remove what is in the file's place, and unpack again",
    "broken": "download or unpack these again; they are cut off or damaged",
    "format": "download these again or convert them to JPEG or PNG (an error page saved as an image is common)",
    "too_large": "save these smaller",
    "pixels": "save these smaller",
    "aspect": "crop these, or leave the rows out",
    "too_long": "lower --max-pixels, raise --max-tokens, or leave the rows out",
    "placeholder_count": "every <image> in a question needs its image, and every image its <image>",
    "json": "mend these lines, or download the file again",
    "negatives": "texts and images of a row's negatives must be equally many",
    "empty_side": "the row has neither text nor image on that side",
}
_OTHERWISE = "mend these rows, or let them be set aside"


def exit_code(survey: Survey) -> int:
    """0: a job would set nothing aside, and everything was looked at. 1: it would, or a file cannot be used. 3: nothing wrong was seen,
    but rows were left unopened (--sample) or may be too long, which only a checkpoint can tell."""
    everything = [*survey.found.values(), *survey.evaluation.values()]
    if survey.unusable or any(found.aside or found.reasons for found in everything):
        return 1
    return 3 if any(found.unopened_rows or found.maybe_long for found in everything) else 0


def text(survey: Survey) -> str:
    """The report as lines."""
    lines = [_row("source", "rows", "images", "opened", "missing", "unreadable", "set aside")]
    lines += [_line(name, found) for name, found in survey.found.items()]
    lines += [f"{unusable.source[:40]:40} cannot be used" for unusable in survey.unusable]
    lines += [_line(name, found) for name, found in survey.evaluation.items()]
    for unusable in survey.unusable:
        lines += ["", f"{unusable.source}: {unusable.reason}"]
    for name, found in {**survey.found, **survey.evaluation}.items():
        for code, count in sorted(found.reasons.items(), key=lambda item: -item[1]):
            lines += ["", f"{name}: {code} x {count} -> {_ADVICE.get(code, _OTHERWISE)}"]
            lines += [f"    {example[:300]}" for example in found.examples[code]]
    return "\n".join([*lines, "", *_conclusion(survey)])


def as_json(survey: Survey) -> str:
    """The report as JSON: the same facts, and the exit code."""
    return json.dumps(
        {
            "exit_code": exit_code(survey),
            "rows": survey.rows,
            "set_aside": survey.aside,
            "sources": {name: asdict(found) for name, found in survey.found.items()},
            "evaluation": {name: asdict(found) for name, found in survey.evaluation.items()},
            "unusable": [{"source": u.source, "path": str(u.path), "reason": u.reason} for u in survey.unusable],
        },
        indent=1,
    )


def _line(name: str, found: Findings) -> str:
    return _row(name, found.rows, found.images, found.opened, found.missing, found.unreadable, found.aside)


def _row(name: str, *cells: object) -> str:
    return f"{name[:40]:40} " + " ".join(f"{cell:>10}" for cell in cells)


def _conclusion(survey: Survey) -> list[str]:
    lines = []
    if survey.unusable:
        lines.append(f"{len(survey.unusable)} files cannot be used; a job would stop at the first. Mend them, or move them away.")
    if survey.aside:
        share = survey.aside / survey.rows
        lines.append(f"A job would set aside {survey.aside} of {survey.rows} rows ({share:.2%}); it stops above --max-reject-share (2 %).")
    unopened = sum(found.unopened_rows for found in survey.found.values())
    if unopened:
        lines.append(f"{unopened} rows were not opened (--sample); their images are there, if nothing else is said above.")
    long = sum(found.maybe_long for found in survey.found.values())
    if long:
        lines.append(f"{long} rows may be longer than --max-tokens; name --checkpoint (and --max-pixels, as for prepare) to know.")
    if exit_code(survey) == 0:
        lines.append(
            f"A job over this would set aside none of {survey.rows} rows." if survey.found else "Evaluation data only: all usable."
        )
    return lines
