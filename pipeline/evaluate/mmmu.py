"""MMMU's own reading of open answers: numbers and key phrases, compared with the reference. Pure; stands beside VLMEvalKit's rule.

VLMEvalKit turns an open question of MMMU into a choice between the reference and "Other Answers"; the benchmark's authors look for numbers
and for what follows words such as "is" or "answer" (MMMU-Benchmark/MMMU, `eval/eval_utils.py`, as lmms-eval keeps it). The two differ, so
both are reported, each under its name.
"""

import ast
import re

_CUES = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = set(":,.!?;'")
_NUMBERS = (
    r"-?\b\d{1,3}(?:,\d{3})+\b",
    r"-?\d+(?:\.\d+)?[eE][+-]?\d+",
    r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])",
)


def open_answer_right(prediction: str, reference: str) -> bool:
    """Whether an open answer is right by MMMU's rule.

    A number is right where it equals the reference rounded to two decimals; a phrase where the reference stands anywhere in it. `reference`
    may spell a list of references, as VLMEvalKit's file does ("['24/7', '3.429']"): any will do.
    """
    wanted = {form for text in _references(reference) for form in _normal(text)}
    said = {form for phrase in _said(prediction) for form in _normal(phrase)}
    texts = [text for text in wanted if isinstance(text, str)]
    return any(any(text in form for text in texts) if isinstance(form, str) else form in wanted for form in said)


def _references(reference: str) -> list[str]:
    if reference.strip().startswith("["):
        try:
            value = ast.literal_eval(reference.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            value = None
        if isinstance(value, list) and value:
            return [str(item) for item in value]
    return [reference]


def _said(prediction: str) -> list[str]:
    """The phrases that may hold the answer, and every number in them."""
    phrases = _key_phrases(prediction)
    return phrases + [number for phrase in phrases for pattern in _NUMBERS for number in re.findall(pattern, phrase)]


def _key_phrases(prediction: str) -> list[str]:
    # The text is lower-cased before it is cut where a capital follows a full stop, as the authors' code does: only lines are cut.
    whole = prediction.strip().strip(".").lower()
    lines = whole.split("\n")
    phrases = []
    for number, line in enumerate(lines):
        cues = (*_CUES, "=") if number == len(lines) - 1 else _CUES
        tails = [line.split(cue)[-1].strip() for cue in cues if cue in line]
        shortest = min(filter(None, tails), key=len, default="")
        if shortest and shortest not in _TRIVIAL:
            phrases.append(shortest)
    return phrases or [whole]


def _normal(text: str) -> list[str | float]:
    """A number rounded to two decimals, or lower-case text; a single character only counts beside a space."""
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]
