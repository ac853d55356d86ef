"""Drawing scenes at random: by kind, within one part, and as changed versions of another scene.

Invariant: everything here is a pure function of the random stream passed in, and a scene asked for in a part is in that part.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from data_prep.embedded.scenes import COLORS, GLYPHS, SHAPES, SIZES, Part, Scene, Thing, caption, part_of

_LINES = [[3 * row + col for col in range(3)] for row in range(3)] + [[3 * row + col for row in range(3)] for col in range(3)]


def stream(*key: object) -> Random:
    """A random stream of its own for each key, the same on every machine (strings are seeded by SHA-512)."""
    return Random("/".join(map(str, key)))


def sample(kind: str, part: Part, rng: Random) -> Scene:
    """A random scene of a kind ("single", "glyph", "group", "pair", "field") in a part."""
    while True:
        scene = _ANY[kind](rng)
        if part_of(scene) == part:
            return scene


def _thing(rng: Random, place: int, shapes: Sequence[str] = SHAPES) -> Thing:
    return Thing(rng.choice(SIZES), rng.choice(COLORS), rng.choice(shapes), place)


def _single(rng: Random) -> Scene:
    return Scene((_thing(rng, rng.randrange(9)),))


def _glyph(rng: Random) -> Scene:
    return Scene((_thing(rng, rng.randrange(9), GLYPHS),))


def _group(rng: Random) -> Scene:
    thing = _thing(rng, 0)
    return Scene(tuple(replace(thing, place=place) for place in rng.sample(range(9), rng.randint(2, 5))))


def _pair(rng: Random) -> Scene:
    return Scene(_different(rng, rng.sample(rng.choice(_LINES), 2), with_glyph=rng.random() < 0.125))


def _field(rng: Random) -> Scene:
    return Scene(_different(rng, rng.sample(range(9), 3)))


def _different(rng: Random, places: Sequence[int], with_glyph: bool = False) -> tuple[Thing, ...]:
    """Things of which no two share a colour or a shape: each can be named by either."""
    colors, shapes = rng.sample(COLORS, len(places)), rng.sample(SHAPES, len(places))
    if with_glyph:
        shapes[0] = rng.choice(GLYPHS)
    return tuple(Thing(rng.choice(SIZES), *rest) for rest in zip(colors, shapes, places, strict=True))


_ANY = {"single": _single, "glyph": _glyph, "group": _group, "pair": _pair, "field": _field}


@dataclass(frozen=True)
class Edit:
    """A changed version of a scene, the change in words, and which thing it changed (None: both, or their order)."""

    verb: str
    text: str
    scene: Scene
    index: int | None


def edits(scene: Scene, part: Part) -> dict[str, list[Edit]]:
    """Every single change to a pair that leaves it in `part`, by verb: recolor, reshape, resize, swap."""
    found: dict[str, list[Edit]] = {}
    for edit in _all_edits(scene):
        if part_of(edit.scene) == part:
            found.setdefault(edit.verb, []).append(edit)
    return found


def random_edit(scene: Scene, part: Part, rng: Random) -> Edit | None:
    """One change, its verb drawn first so that the rarer verbs are seen too; None where the part holds no changed version."""
    found = edits(scene, part)
    return rng.choice(found[rng.choice(sorted(found))]) if found else None


def _all_edits(scene: Scene) -> list[Edit]:
    out = []
    for index, thing in enumerate(scene.things):
        other = scene.things[1 - index]
        for color in COLORS:
            if color not in (thing.color, other.color):
                text = f"make the {thing.shape} {color}"
                out.append(Edit("recolor", text, _with(scene, index, color=color), index))
        for shape in SHAPES:
            if shape not in (thing.shape, other.shape):
                text = f"turn the {thing.shape} into a {shape}"
                out.append(Edit("reshape", text, _with(scene, index, shape=shape), index))
        size = SIZES[1 - SIZES.index(thing.size)]
        out.append(Edit("resize", f"make the {thing.shape} {size}", _with(scene, index, size=size), index))
    one, two = scene.things
    swapped = Scene((replace(one, place=two.place), replace(two, place=one.place)))
    return [*out, Edit("swap", "swap the two objects", swapped, None)]


def _with(scene: Scene, index: int, **changes: str) -> Scene:
    things = list(scene.things)
    things[index] = replace(things[index], **changes)
    return Scene(tuple(things))


def rearranged(scene: Scene, part: Part, rng: Random) -> Scene | None:
    """The same coloured shapes in other sizes and places, with another spec in the same part; None where luck runs out."""
    for _ in range(50):
        places = rng.sample(rng.choice(_LINES), 2)
        moved = zip(scene.things, places, strict=True)
        other = Scene(tuple(replace(thing, size=rng.choice(SIZES), place=place) for thing, place in moved))
        if part_of(other) == part and caption(other) != caption(scene):
            return other
    return None
