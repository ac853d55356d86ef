from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.embedded.questions import ANSWERS
from data_prep.embedded.scenes import (
    COLORS,
    GLYPHS,
    SHAPES,
    SIZES,
    Part,
    Scene,
    Thing,
    allowed,
    caption,
    held_out,
    labels,
    part_of,
    plural,
    relation,
)

CIRCLE = Thing("small", "red", "circle", 4)
SQUARE = Thing("large", "blue", "square", 5)


@pytest.mark.parametrize(
    ("things", "kind", "sentence"),
    [
        ((CIRCLE,), "single", "a small red circle at the center"),
        ((Thing("large", "black", "letter K", 0),), "single", "a large black letter K at the top left"),
        ((SQUARE, CIRCLE), "pair", "a small red circle left of a large blue square"),
        ((CIRCLE, Thing("large", "blue", "square", 1)), "pair", "a large blue square above a small red circle"),
        (tuple(Thing("small", "pink", "cross", p) for p in (0, 4, 8)), "group", "three small pink crosses"),
        (
            (CIRCLE, SQUARE, Thing("small", "green", "star", 0)),
            "field",
            "a small green star, a small red circle and a large blue square",
        ),
    ],
)
def test_captions(things, kind, sentence):
    scene = Scene(things)

    assert (scene.kind, caption(scene)) == (kind, sentence)


def test_a_pair_can_be_told_backwards():
    assert caption(Scene((CIRCLE, SQUARE)), backwards=True) == "a large blue square right of a small red circle"
    assert caption(Scene((CIRCLE,)), backwards=True) == "a small red circle at the center"


@pytest.mark.parametrize(("place", "expected"), [(3, "right of"), (5, "left of"), (1, "below"), (7, "above")])
def test_relation_of_the_center_to_its_neighbours(place, expected):
    assert relation(CIRCLE, Thing("small", "blue", "star", place)) == expected


def test_a_relation_needs_a_common_row_or_column():
    with pytest.raises(AssertionError, match="neither row nor column"):
        relation(CIRCLE, Thing("small", "blue", "star", 0))


def test_plurals():
    assert (plural("star"), plural("cross")) == ("stars", "crosses")


def test_held_out_pairs_are_one_in_seven_and_touch_every_colour_and_every_shape():
    pairs = {(c, s) for c in COLORS for s in SHAPES if held_out(c, s)}

    assert len(pairs) == 7
    assert ("red", "circle") in pairs and ("orange", "circle") not in pairs
    assert {s for _, s in pairs} == set(SHAPES)
    assert all(any(held_out(color, shape) for shape in SHAPES + GLYPHS) for color in COLORS)
    assert all(any(held_out(c, glyph) for c in COLORS) for glyph in GLYPHS)


def test_what_may_be_said_in_training():
    assert not allowed("red", "circle", Part.TRAIN)
    assert allowed("red", "square", Part.TRAIN)
    assert allowed("red", "circle", Part.IND)


def test_labels_of_a_classification():
    assert (len(labels(Part.IND)), len(labels(Part.OOD))) == (41, 48)
    assert "red circle" not in labels(Part.IND)


def test_every_part_holds_its_share_of_single_shapes():
    """A change of these counts is a change of the split: old training data would meet new evaluation data."""
    every = [Scene((Thing(z, c, s, p),)) for z in SIZES for c in COLORS for s in SHAPES for p in range(9)]

    assert Counter(map(part_of, every)) == {Part.TRAIN: 592, Part.IND: 146, Part.OOD: 126}


@given(st.permutations([CIRCLE, SQUARE, Thing("small", "green", "star", 0)]))
def test_neither_meaning_nor_part_depends_on_the_order_of_things(things):
    scene = Scene(tuple(things))

    assert caption(scene) == "a small green star, a small red circle and a large blue square"
    assert part_of(scene) == Part.OOD  # (red, circle) is held out


@pytest.mark.parametrize("kind", sorted(ANSWERS))
def test_no_answer_contains_another_of_its_kind(kind):
    assert not [(one, other) for one, other in permutations(ANSWERS[kind], 2) if one in other]
