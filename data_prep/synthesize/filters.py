"""Which questions and answers are kept. Pure: text in, a reason out.

Every candidate is judged in the order of the data, so that which of two duplicates stays does not depend on who wrote it first.
"""

import re
from dataclasses import dataclass, field
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from data_prep.sources.common import PLACEHOLDER, words
from data_prep.sources.sharegpt import MARKER

REASONS = ("empty_question", "empty_answer", "unfinished", "too_long", "unreadable", "marker", "label_leak", "duplicate")
"""Why a candidate is dropped; the first that applies, in this order."""


class FilterSettings(BaseModel):
    """Limits of what is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_question_chars: int = Field(default=400, gt=0)
    """Longer questions are dropped."""
    max_answer_chars: int = Field(default=2000, gt=0)
    """Longer answers are dropped."""
    label_leak: Literal["keep", "drop"] = "keep"
    """What becomes of a question or answer that spells the row's positive text. The paper does not say. Kept by default: questions and
    answers follow the chorus, so the embedding cannot read the label off them. Counted either way."""


@dataclass(frozen=True)
class Candidate:
    """A question and an answer as the model wrote them; `finished`: both ended by themselves, not at the length limit."""

    image: str
    question: str
    answer: str
    label: str
    finished: bool = True


@dataclass
class Judge:
    """Judges candidates one after the other; remembers what it has kept, and counts label leaks."""

    settings: FilterSettings
    leaks: int = 0
    _kept: set[tuple[str, str]] = field(default_factory=set)

    def reason(self, candidate: Candidate) -> str | None:
        """Why the candidate is dropped, one of `REASONS`; None: it is kept.

        A duplicate asks the same of the same image as one that was kept before.
        """
        if found := _unusable(candidate, self.settings):
            return found
        if leaks_label(candidate):
            self.leaks += 1
            if self.settings.label_leak == "drop":
                return "label_leak"
        key = (candidate.image, words(candidate.question))
        if key in self._kept:
            return "duplicate"
        self._kept.add(key)
        return None


def _unusable(candidate: Candidate, settings: FilterSettings) -> str | None:
    question, answer = candidate.question.strip(), candidate.answer.strip()
    both = question + answer
    checks = {
        "empty_question": not re.search(r"\w", question),
        "empty_answer": not re.search(r"\w", answer),
        "unfinished": not candidate.finished,
        "too_long": len(question) > settings.max_question_chars or len(answer) > settings.max_answer_chars,
        "unreadable": "\N{REPLACEMENT CHARACTER}" in both or "\0" in both,  # bytes that are no text
        "marker": MARKER in both or bool(PLACEHOLDER.search(both)),  # the reader would take it for an image
    }
    return next((reason for reason, applies in checks.items() if applies), None)


def leaks_label(candidate: Candidate) -> bool:
    """Whether question or answer spells the label as whole words, case and punctuation aside."""
    label = words(candidate.label)
    return bool(label) and any(f" {label} " in f" {words(text)} " for text in (candidate.question, candidate.answer))
