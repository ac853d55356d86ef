"""What a judge model is asked, and what its reply means. Pure. The wording is ours, the protocol the field's.

A judge matches an answer that could not be read with the options (3 tries), with Yes or No (5 tries, each warmer), or grades an open answer
from 0 to 1 in tenths beside the reference (MM-Vet; 5 tries, each warmer). Protocol: VLMEvalKit, dataset/utils/{multiple_choice,yorn,mmvet}.
There a reply that cannot be read ends in a random choice (multiple choice) or in 0; here it stays unread, and is counted.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pipeline.evaluate.metrics import extract_option, extract_yes_no

_MATCH = """Somebody answered a multiple-choice question in free words. Say which of the options the answer means.
Reply with the letter of that option and nothing else. Reply Z if the answer means none of them, or several.

Example. Question: "What stands on the table?" Options: {"A": "a jug", "B": "a clock"} Answer: "It looks like an old alarm clock." Reply: B
Example. Question: "What stands on the table?" Options: {"A": "a jug", "B": "a clock"} Answer: "A bowl of fruit." Reply: Z

Question: %s
Options: %s
Answer: %s
Reply:"""
_DECIDE = """Somebody answered a yes-or-no question in free words. Say which of the two the answer means.
Reply with one word: Yes, No, or Unknown if it means neither.

Example. Question: "Is the door open?" Answer: "One can see that somebody left it ajar." Reply: Yes
Example. Question: "Is the door open?" Answer: "The door in the picture is shut." Reply: No

Question: %s
Answer: %s
Reply:"""
_GRADE = """Grade an answer about a picture by comparing it with the reference. Reply with the grade alone: one of 0.0, 0.1, 0.2, ... 1.0.
1.0 is an answer that is wholly right, 0.0 one that is wholly wrong; an answer that is right in part gets its part.
Parts joined by <AND> in the reference must all be in the answer for 1.0; of those joined by <OR> one is enough.

Example. Question: "What do the two signs say?" Reference: "exit <AND> closed" Answer: "One of them says exit." Grade: 0.5
Example. Question: "What do the two signs say?" Reference: "exit <AND> closed" Answer: "Exit, and closed." Grade: 1.0
Example. Question: "How many birds are there?" Reference: "3 <OR> three" Answer: "I count four of them." Grade: 0.0
Example. Question: "How many birds are there?" Reference: "3 <OR> three" Answer: "There are three birds." Grade: 1.0
Example. Question: "Why is this funny?" Reference: "A cat wears glasses and reads a newspaper, as people do at breakfast." \
Answer: "Because the cat has glasses on." Grade: 0.4

Question: %s
Reference: %s
Answer: %s
Grade:"""


@dataclass(frozen=True)
class Inquiry:
    """One question to a judge. `read` gives what a reply means, None where it means nothing; try t asks at temperature `warmer` x t."""

    prompt: str
    read: Callable[[str], object | None]
    tries: int
    warmer: float = 0.0


def match_option(question: str, options: Mapping[str, str], answer: str) -> Inquiry:
    """Which option an answer means: its letter, or 'Z' for none."""
    options = dict(options)

    def read(reply: str) -> str | None:
        return extract_option(reply, options)

    return Inquiry(_MATCH % (_quoted(question), json.dumps(options, ensure_ascii=False), _quoted(answer)), read, tries=3)


def match_yes_no(question: str, answer: str) -> Inquiry:
    """'Yes' or 'No'."""
    return Inquiry(_DECIDE % (_quoted(question), _quoted(answer)), extract_yes_no, tries=5, warmer=0.5)


def grade(question: str, reference: str, answer: str) -> Inquiry:
    """Points from 0 to 1."""
    spaced = reference.replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    return Inquiry(_GRADE % (_quoted(question), _quoted(spaced), _quoted(answer)), read_grade, tries=5, warmer=0.5)


def read_grade(reply: str) -> float | None:
    """The reply as a grade, if it is a number from 0 to 1 and nothing else."""
    text = reply.strip().rstrip(".")
    if not re.fullmatch(r"\d+(\.\d+)?|\.\d+", text, re.ASCII):
        return None
    value = float(text)
    return value if math.isfinite(value) and 0 <= value <= 1 else None


def _quoted(text: str) -> str:
    """Text between quotes, on one line: an answer cannot pose as the prompt's next line."""
    return json.dumps(text, ensure_ascii=False)
