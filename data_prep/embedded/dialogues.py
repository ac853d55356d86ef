"""Conversations about scenes: a caption, or questions in the exact wording in which benchmarks put them.

A caption names everything in a few tokens, so captions teach a small model to look; questions teach it what is being asked for. They
stand in different conversations: after a caption, a question could be answered without the picture.

Invariant: an answer is what the evaluation can resolve without a judge: a short word, "Yes" or "No", or the text of one option
(now and then its letter). All conversations are training data.
"""

from dataclasses import dataclass
from random import Random

from data_prep.benchmark_prompts import multiple_choice_prompt, open_prompt, yes_no_prompt
from data_prep.embedded.draw import Picture, picture
from data_prep.embedded.questions import Question, hint, options, questions, statement
from data_prep.embedded.sampling import sample
from data_prep.embedded.scenes import Part, Scene, caption

REQUESTS = ("Describe the image.", "What is shown in the image?", "Write a caption for the image.")
_KINDS = {"single": 9, "group": 7, "pair": 3, "glyph": 1, "field": 0.5}
_FORMS = {"choice": 5, "yes or no": 1, "open": 2}
_CAPTIONED = 0.35
"""Share of the conversations that are a caption."""


@dataclass(frozen=True)
class Dialogue:
    """A picture, or None, and (question, answer) turns about it."""

    picture: Picture | None
    turns: tuple[tuple[str, str], ...]


def dialogue(rng: Random) -> Dialogue:
    """A caption of a new training scene or two to four questions about it; in one of 25 the scene is told in words instead of shown."""
    scene = sample(rng.choices(list(_KINDS), list(_KINDS.values()))[0], Part.TRAIN, rng)
    if rng.random() < 0.04:
        return Dialogue(None, (_told(scene, rng),))
    shown = picture(scene, Part.TRAIN, rng, wide=0.2)
    return Dialogue(shown, tuple(ask(scene, rng)))


def ask(scene: Scene, rng: Random) -> list[tuple[str, str]]:
    """A request for a caption, or two to four different questions about a training scene."""
    if rng.random() < _CAPTIONED:
        return [(rng.choice(REQUESTS), caption(scene))]
    turns, count = {}, rng.randint(2, 4)
    while len(turns) < count:
        form = rng.choices(list(_FORMS), list(_FORMS.values()))[0]
        question, answer = _turn(scene, form, rng)
        turns.setdefault(question, answer)
    return list(turns.items())


def _turn(scene: Scene, form: str, rng: Random) -> tuple[str, str]:
    if form == "yes or no":
        truth = rng.random() < 0.5
        return yes_no_prompt(statement(scene, Part.TRAIN, truth, rng)), "Yes" if truth else "No"
    asked = rng.choice(questions(scene))
    choices = options(asked, rng) if form == "choice" else None
    if choices is None:
        return open_prompt(asked.text), asked.answer
    return _choice(asked, choices, hint(scene) if asked.kind != "count" and rng.random() < 0.1 else "", rng)


def _choice(asked: Question, choices: dict[str, str], hinted: str, rng: Random) -> tuple[str, str]:
    letter = next(letter for letter, text in choices.items() if text == asked.answer)
    answer = letter if rng.random() < 0.1 else asked.answer
    return multiple_choice_prompt(asked.text, choices, hinted), answer


def _told(scene: Scene, rng: Random) -> tuple[str, str]:
    asked = rng.choice([asked for asked in questions(scene) if asked.kind in ("color", "size")])
    return f"The image shows {caption(scene)}. {asked.text}", asked.answer
