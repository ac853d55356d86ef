"""The MMEB tasks: what is shown and asked on the query side, and what the right target is.

One function makes a task's pairs for training and for evaluation alike, so that the two cannot differ in anything but the part
their scenes come from. Texts follow MMEB's conventions: the placeholder and a newline before the text of an image, a newline
after it; none of these around a label or a short answer, and no last newline after a grounding target.

Invariant: two targets of one task mean the same thing if and only if their `meaning` is the same.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, count, islice
from random import Random

from data_prep.embedded import scenes
from data_prep.embedded.draw import Picture, picture
from data_prep.embedded.questions import ANSWERS, questions
from data_prep.embedded.sampling import edits, random_edit, rearranged, sample, stream
from data_prep.embedded.scenes import Part, Scene, caption

PLACEHOLDER = "<|image_1|>\n"
REPRESENT = f"{PLACEHOLDER}Represent the given image.\n"
CROPPED = f"{PLACEHOLDER}Represent the given cropped image of the object"
PRICES = range(10, 100, 10)


@dataclass(frozen=True)
class Half:
    """One side of a pair: text as it stands in the file, a picture, and (of a target) what it means."""

    text: str
    picture: Picture | None = None
    meaning: str = ""


@dataclass(frozen=True)
class Pair:
    """A query, its target, and perhaps a hard negative: a wrong target made from the same scene."""

    query: Half
    target: Half
    negative: Half | None = None


@dataclass(frozen=True)
class Task:
    """One MMEB subset.

    Attributes:
        name: its folder.
        meta: classification, vqa, retrieval or grounding.
        make: the pairs of one scene.
        share: training rows, as a share of the `rows` asked for.
        pool: candidates per evaluation query.
        choices: all labels of a part, where the targets are a closed set; the pool then is all of them.
        negatives: whether training rows carry the columns of hard negatives.
        ood: whether it is also evaluated out of distribution.
    """

    name: str
    meta: str
    make: Callable[[Random, Part], list[Pair]]
    share: float
    pool: int = 100
    choices: Callable[[Part], list[str]] | None = None
    negatives: bool = False
    ood: bool = False


def train_pairs(task: Task, rows: int, seed: int) -> Iterator[Pair]:
    """The first `rows` training pairs; a longer run begins with the same pairs as a shorter one."""
    batches = (task.make(stream(seed, task.name, Part.TRAIN, index), Part.TRAIN) for index in count())
    return islice(chain.from_iterable(batches), rows)


def _retrieval_scene(rng: Random, part: Part) -> Scene:
    return sample(rng.choices(["pair", "single", "group"], [5, 3, 2])[0], part, rng)


def _told(scene: Scene, rng: Random) -> str:
    return caption(scene, backwards=rng.random() < 0.25)


def _image_to_text(rng: Random, part: Part) -> list[Pair]:
    scene = _retrieval_scene(rng, part)
    query = Half(f"{PLACEHOLDER}Find an image caption describing the given image.\n", picture(scene, part, rng))
    return [Pair(query, Half(f"{_told(scene, rng)}\n", meaning=caption(scene)))]


def _text_to_image(rng: Random, part: Part) -> list[Pair]:
    scene = _retrieval_scene(rng, part)
    query = Half(f"Find me an image that matches the given caption: {_told(scene, rng)}\n")
    target = Half(REPRESENT, picture(scene, part, rng), caption(scene))
    edit = random_edit(scene, part, rng) if scene.kind == "pair" and rng.random() < 0.4 else None
    if part != Part.TRAIN or edit is None:
        return [Pair(query, target)]
    # As in MMEB, whose negative images come with their text in some subsets and with an empty one in others.
    text = REPRESENT if rng.random() < 0.5 else ""
    return [Pair(query, target, Half(text, picture(edit.scene, part, rng), caption(edit.scene)))]


def _classify(kind: str, instruction: str, label: Callable[[scenes.Thing], str]) -> Callable[[Random, Part], list[Pair]]:
    def make(rng: Random, part: Part) -> list[Pair]:
        scene = sample(kind, part, rng)
        answer = label(scene.things[0])
        return [Pair(Half(f"{PLACEHOLDER}{instruction}\n", picture(scene, part, rng)), Half(answer, meaning=answer))]

    return make


def _answer(rng: Random, part: Part) -> list[Pair]:
    kind = rng.choices(["pair", "single", "group", "glyph"], [5, 1, 2, 2])[0]
    scene = sample(kind, part, rng)
    shown = picture(scene, part, rng)
    out = []
    for asked in rng.sample(questions(scene), 3):
        query = Half(f"{PLACEHOLDER}Represent the given image with the following question: {asked.text}\n", shown)
        near = rng.choice(asked.near) if asked.near and rng.random() < 0.7 else None
        negative = None if near is None else Half(near, meaning=near)
        out.append(Pair(query, Half(asked.answer, meaning=asked.answer), negative))
    return out


def _same_objects(rng: Random, part: Part) -> list[Pair]:
    other = None
    while other is None:
        scene = sample("pair", part, rng)
        other = rearranged(scene, part, rng)
    meaning = " and ".join(sorted(thing.label for thing in scene.things))
    text = f"{PLACEHOLDER}Find an image that shows the same objects as the given image.\n"
    target = Half(REPRESENT, picture(other, part, rng, wide=0.2), meaning)
    return [Pair(Half(text, picture(scene, part, rng, wide=0.2)), target)]


def _composed(rng: Random, part: Part) -> list[Pair]:
    """Two changes to one picture: who looks at the picture alone cannot tell their targets apart."""
    found = {}
    while len(found) < 2:
        scene = sample("pair", part, rng)
        found = edits(scene, part)
    shown = picture(scene, part, rng)
    out = []
    for verb in rng.sample(sorted(found), 2):
        edit = rng.choice(found[verb])
        text = f"{PLACEHOLDER}Given an image, find a similar image with the described changes: {edit.text}\n"
        target = Half(REPRESENT, picture(edit.scene, part, rng), caption(edit.scene))
        out.append(Pair(Half(text, shown), target))
    return out


def _ground(rng: Random, part: Part) -> list[Pair]:
    scene = sample("field", part, rng)
    shown = picture(scene, part, rng, wide=0.2)
    crops = [Half(CROPPED, Picture(scene, shown.look, i), thing.label) for i, thing in enumerate(scene.things)]
    rng.shuffle(crops)
    if part == Part.OOD:  # what is asked for is what was never trained on; the rest are distractors
        crops.sort(key=lambda crop: not scenes.held_out(*crop.meaning.split(" ", 1)))
    out = []
    for right, wrong in [crops[:2]] if part == Part.OOD else [crops[:2], crops[1:]]:
        text = f'{PLACEHOLDER}Select the portion of the image that isolates the object labeled as "{right.meaning}"\n'
        out.append(Pair(Half(text, shown), right, wrong))
    return out


def _catalog(rng: Random, part: Part) -> list[Pair]:
    scene = sample("single", part, rng)
    shown = picture(scene, part, rng)
    price, other = rng.sample(PRICES, 2)
    cards = [
        Half(
            f"{PLACEHOLDER}Represent the given image with related text information: {coins} coins\n",
            shown,
            f"{caption(scene)} for {coins}",
        )
        for coins in (price, other)
    ]
    # The placeholder without an image is WebQA's, in training and in evaluation.
    query = Half(f"{PLACEHOLDER}Find the card that answers this request: {caption(scene)} for {price} coins\n")
    return [Pair(query, *cards)]


def _all_answers(part: Part) -> list[str]:
    return [answer for answers in ANSWERS.values() for answer in answers]


def _glyph_labels(part: Part) -> list[str]:
    return list(scenes.GLYPHS)


TASKS = (
    Task("ShapesI2T", "retrieval", _image_to_text, 1.0, pool=500, ood=True),
    Task("ShapesT2I", "retrieval", _text_to_image, 1.0, pool=500, negatives=True, ood=True),
    Task(
        "ShapesCls",
        "classification",
        _classify("single", "Identify the object shown in the image", lambda thing: thing.label),
        0.5,
        choices=scenes.labels,
        ood=True,
    ),
    Task(
        "ShapesGlyph",
        "classification",
        _classify("glyph", "Identify the letter or digit shown in the image", lambda thing: thing.shape),
        0.3,
        choices=_glyph_labels,
    ),
    Task("ShapesVQA", "vqa", _answer, 0.6, choices=_all_answers, negatives=True, ood=True),
    Task("ShapesI2I", "retrieval", _same_objects, 0.3),
    Task("ShapesComposed", "retrieval", _composed, 0.3),
    Task("ShapesGround", "grounding", _ground, 0.4, pool=30, negatives=True, ood=True),
    Task("ShapesT2IT", "retrieval", _catalog, 0.3),
)
