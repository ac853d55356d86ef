"""Benchmark questions as rows of VLMEvalKit's TSV files: multiple choice, yes/no and open questions.

Invariant: every scene comes from an evaluation part. Right letters are dealt in turn, and every yes/no question is true of one
figure of its set and false of the other, so that nothing can be won without looking at the picture.
"""

import base64
from itertools import count
from random import Random

from data_prep.embedded.draw import Picture, picture, png
from data_prep.embedded.questions import Question, are_there, hint, is_color, is_so, is_there, options, questions
from data_prep.embedded.sampling import edits, sample, stream
from data_prep.embedded.scenes import Part, Scene, relation

_INSTANCE = "finegrained_perception (instance-level)"
_BETWEEN = "finegrained_perception (cross-instance)"
_CATEGORY = {
    "color": ("attribute_recognition", _INSTANCE),
    "shape": ("object_recognition", _INSTANCE),
    "place": ("object_localization", _INSTANCE),
    "count": ("object_counting", _BETWEEN),
    "letter": ("ocr", _INSTANCE),
    "digit": ("ocr", _INSTANCE),
}
_SKILL = {"place": "rec,spat", "count": "rec,math", "letter": "ocr", "digit": "ocr"}
_THEMES = ("spatial", "color", "object", "count")
Row = dict[str, str]


def multiple_choice(rows: int, seed: int) -> list[Row]:
    """MMBench's columns; `split` tells IND from OOD (every fourth row). One row in eight has three options."""
    return [_choice_row(index, stream(seed, "mcq", index)) for index in range(rows)]


def yes_no(rows: int, seed: int) -> list[Row]:
    """HallusionBench's columns, in sets of two figures and two questions: `rows` rounded up to a multiple of four.

    `index` is shapes_VD_<l2-category>_<set>_<figure>_<question>; the second question on a figure names in `image` the row that
    holds it.
    """
    sets = -(-rows // 4)
    return [row for index in range(sets) for row in _set_rows(index, stream(seed, "yes or no", index))]


def open_ended(rows: int, seed: int) -> list[Row]:
    """MM-Vet's columns; in `answer`, <AND> joins what is all needed and <OR> what will do alone."""
    return [_open_row(index, stream(seed, "open", index)) for index in range(rows)]


def _choice_row(index: int, rng: Random) -> Row:
    part = Part.OOD if index % 4 == 3 else Part.IND
    kind = rng.choices(["single", "group", "pair", "glyph"], [4, 3, 2, 1])[0]
    letter = "ABCD"[(index + index // 4) % 4]  # moved on by one after each four, or all OOD rows would have one letter
    number = 3 if index % 8 == 5 and letter != "D" else 4
    for _ in count():
        scene = sample(kind, part, rng)
        asked = rng.choice(questions(scene))
        choices = options(asked, rng, letter, number)
        if choices:
            break
    category, l2 = _CATEGORY[asked.kind]
    hinted = hint(scene) if index % 10 == 9 and asked.kind != "count" else ""
    head = {"index": str(index), "question": asked.text, "hint": hinted}
    filled = {name: choices.get(name, "") for name in "ABCD"}
    tail = {"answer": letter, "category": category, "image": encoded(picture(scene, part, rng))}
    return head | filled | tail | {"source": "shapes", "l2-category": l2, "comment": "", "split": part.upper()}


def _open_row(index: int, rng: Random) -> Row:
    part = Part.OOD if index % 4 == 3 else Part.IND
    scene = sample(rng.choices(["pair", "single", "group", "glyph"], [5, 2, 2, 1])[0], part, rng)
    listing = Question("shape", "Which objects are in the image?", "<AND>".join(t.label for t in scene.things))
    asked = listing if scene.kind == "pair" and rng.random() < 0.15 else rng.choice(questions(scene))
    answer = asked.answer
    if asked.kind == "count":
        answer = f"{answer}<OR>{len(scene.things)}"
    image = encoded(picture(scene, part, rng))
    category = _SKILL.get(asked.kind, "rec")
    return {"index": str(index), "image": image, "question": asked.text, "answer": answer, "category": category}


def _set_rows(number: int, rng: Random) -> list[Row]:
    theme = _THEMES[number % len(_THEMES)]
    figures, asked = _THEME[theme](rng)
    if rng.random() < 0.5:
        figures.reverse()
        asked.reverse()
    if rng.random() < 0.5:
        asked.reverse()
    rows = []
    for figure, (scene, true_of) in enumerate(figures):
        first = f"shapes_VD_{theme}_{number}_{figure}_0"
        for question, (text, true_in) in enumerate(asked):
            truth = true_in == true_of
            row = {"index": f"shapes_VD_{theme}_{number}_{figure}_{question}", "category": "VD", "l2-category": theme}
            row |= {"visual_input": "1", "set_id": str(number), "figure_id": str(figure), "sample_note": "shapes"}
            row |= {"question_id": str(question), "question": text, "gt_answer_details": "", "answer": _yes(truth)}
            rows.append(row | {"image": first if question else encoded(picture(scene, Part.IND, rng))})
    return rows


def _yes(truth: bool) -> str:
    return "Yes" if truth else "No"


_Set = tuple[list[tuple[Scene, int]], list[tuple[str, int]]]
"""Two figures, and two questions of which each is true of the figure with its number."""


def _count_set(rng: Random) -> _Set:
    one = sample("group", Part.IND, rng)
    other = one
    while len(other.things) == len(one.things) or other.things[0].shape != one.things[0].shape:
        other = sample("group", Part.IND, rng)
    scenes = (one, other)
    asked = [(are_there(len(scene.things), one.things[0].shape), number) for number, scene in enumerate(scenes)]
    return [(one, 0), (other, 1)], asked


def _changed(verb: str, rng: Random):
    found = {}
    while verb not in found:
        scene = sample("pair", Part.IND, rng)
        found = edits(scene, Part.IND)
    return scene, rng.choice(found[verb])


def _spatial_set(rng: Random) -> _Set:
    scene, edit = _changed("swap", rng)
    one, two = scene.things
    name = relation(one, two)
    return [(scene, 0), (edit.scene, 1)], [(is_so(one, name, two), 0), (is_so(two, name, one), 1)]


def _thing_set(verb: str, words):
    def make(rng: Random) -> _Set:
        scene, edit = _changed(verb, rng)
        things = scene.things[edit.index], edit.scene.things[edit.index]
        return [(scene, 0), (edit.scene, 1)], [(words(thing), number) for number, thing in enumerate(things)]

    return make


_THEME = {
    "spatial": _spatial_set,
    "color": _thing_set("recolor", is_color),
    "object": _thing_set("reshape", is_there),
    "count": _count_set,
}


def encoded(shown: Picture) -> str:
    """The picture as base64 of a PNG file."""
    return base64.b64encode(png(shown)).decode()
