"""What can be asked about a scene: open questions with short answers, the same as multiple choice, and yes/no statements.

Invariant: every question has one right answer that can be seen in the picture, and none of its wrong answers is right. In
training, no text speaks of a held-out pair of colour and shape, not even to deny it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from data_prep.embedded.scenes import (
    COLORS,
    DIGITS,
    LETTERS,
    NUMBERS,
    PLACES,
    SHAPES,
    SIZES,
    Part,
    Scene,
    Thing,
    allowed,
    plural,
    relation,
)

ANSWERS = {
    "color": COLORS,
    "shape": SHAPES,
    "place": PLACES,
    "count": NUMBERS,
    "size": SIZES,
    "letter": tuple(name.split()[1] for name in LETTERS),
    "digit": tuple(name.split()[1] for name in DIGITS),
}
"""Every answer to an open question, by kind of question."""
OPTION_LETTERS = "ABCD"


@dataclass(frozen=True)
class Question:
    """An open question. `near` are those wrong answers of its kind that are true of something else in the picture."""

    kind: str
    text: str
    answer: str
    near: tuple[str, ...] = ()

    @property
    def wrong(self) -> tuple[str, ...]:
        """All wrong answers of the kind, the near ones first."""
        return self.near + tuple(a for a in ANSWERS[self.kind] if a != self.answer and a not in self.near)


def questions(scene: Scene) -> list[Question]:
    """Every open question about the scene."""
    if scene.kind == "group":
        return list(_about_group(scene))
    number = NUMBERS[len(scene.things) - 1]
    asked = [Question("count", "How many objects are there?", number)]
    for thing in scene.things:
        asked += _about_thing(thing, [other for other in scene.things if other != thing])
    return asked


def _about_thing(thing: Thing, others: Sequence[Thing]) -> Iterator[Question]:
    near = {name: tuple(getattr(other, name) for other in others) for name in ("color", "shape", "size")}
    yield Question("color", f"What is the color of the {thing.shape}?", thing.color, near["color"])
    yield Question("size", f"What is the size of the {thing.shape}?", thing.size, _other(near["size"], thing.size))
    yield Question("place", f"Where is the {thing.shape}?", PLACES[thing.place], tuple(PLACES[o.place] for o in others))
    if thing.is_glyph:
        kind, name = thing.shape.split()
        yield Question(kind, f"Which {kind} is shown?", name)
    elif others:
        yield Question("shape", f"Which shape is {thing.color}?", thing.shape, _shapes(near["shape"]))
    else:
        yield Question("shape", "Which shape is shown?", thing.shape)


def _about_group(scene: Scene) -> Iterator[Question]:
    thing, many = scene.things[0], plural(scene.things[0].shape)
    yield Question("count", f"How many {many} are there?", NUMBERS[len(scene.things) - 1])
    yield Question("color", f"What is the color of the {many}?", thing.color)
    yield Question("size", f"What is the size of the {many}?", thing.size)
    yield Question("shape", "Which shape is shown?", thing.shape)


def _other(found: Sequence[str], answer: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(value for value in found if value != answer))


def _shapes(found: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in found if name in SHAPES)


def options(question: Question, rng: Random, right: str | None = None, count: int = 4) -> dict[str, str] | None:
    """Letter -> text of a multiple-choice version: the answer, a near wrong one where there is one, and others at random.

    Args:
        right: the letter that is to be right; drawn where it is None.
        count: how many options, at most four.

    Returns:
        None where the kind of question has too few answers.
    """
    if len(question.wrong) < count - 1:
        return None
    near = question.near[:1]
    texts = [*near, *rng.sample([wrong for wrong in question.wrong if wrong not in near], count - 1 - len(near))]
    rng.shuffle(texts)
    texts.insert(rng.randrange(count) if right is None else OPTION_LETTERS.index(right), question.answer)
    return dict(zip(OPTION_LETTERS, texts, strict=False))


def hint(scene: Scene) -> str:
    """A true and harmless hint."""
    count = len(scene.things)
    return "There is one object." if count == 1 else f"There are {NUMBERS[count - 1]} objects."


def statement(scene: Scene, part: Part, truth: bool, rng: Random) -> str:
    """A yes/no question whose answer is `truth`, in words fit for `part`."""
    if scene.kind == "group":
        right = len(scene.things)
        count = right if truth else rng.choice([n for n in range(2, 6) if n != right])
        return are_there(count, scene.things[0].shape)
    forms = [_of_color, _of_presence] + ([_of_order] if scene.kind == "pair" else [])
    return rng.choice(forms)(scene, part, truth, rng)


def is_color(thing: Thing) -> str:
    """Asks whether the thing has its colour."""
    return f"Is the {thing.shape} {thing.color}?"


def is_there(thing: Thing) -> str:
    """Asks whether a thing of this colour and shape is in the picture."""
    return f"Is there {'an' if thing.color == 'orange' else 'a'} {thing.label}?"


def is_so(first: Thing, relation_name: str, second: Thing) -> str:
    """Asks whether `first` lies so to `second`."""
    return f"Is the {first.shape} {relation_name} the {second.shape}?"


def are_there(count: int, shape: str) -> str:
    """Asks whether there are so many (two to five) of a shape."""
    return f"Are there {NUMBERS[count - 1]} {plural(shape)}?"


def _of_color(scene: Scene, part: Part, truth: bool, rng: Random) -> str:
    thing = rng.choice(scene.things)
    return is_color(thing if truth else _recolored(thing, part, rng))


def _of_presence(scene: Scene, part: Part, truth: bool, rng: Random) -> str:
    thing = rng.choice(scene.things)
    return is_there(thing if truth else _recolored(thing, part, rng))


def _of_order(scene: Scene, part: Part, truth: bool, rng: Random) -> str:
    first, second = rng.sample(scene.things, 2)
    name = relation(first, second) if truth else relation(second, first)
    return is_so(first, name, second)


def _recolored(thing: Thing, part: Part, rng: Random) -> Thing:
    colors = [c for c in COLORS if c != thing.color and allowed(c, thing.shape, part)]
    return Thing(thing.size, rng.choice(colors), thing.shape, thing.place)
