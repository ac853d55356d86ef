"""What a scene is: coloured shapes, letters and digits on a grid of three by three places, and the sentence that states it.

A scene's *spec* is its canonical caption. Two scenes with one spec mean the same thing, however they are drawn; so the spec
alone decides whether a scene may be trained on.

Invariant: the three parts never share a spec. `Part.OOD` holds every scene with a held-out pair of colour and shape (about one
pair in seven); of the others, `Part.IND` holds those whose spec hashes into a reserved fifth, and `Part.TRAIN` the rest.
"""

from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

COLORS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "black")
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
# Without A-D, which would read as option letters, and without pairs that look alike (I and 1, O and 0, S and 5, Z and 2).
LETTERS = tuple(f"letter {char}" for char in "EFHKLMNPRTUVWXY")
DIGITS = tuple(f"digit {char}" for char in "23456789")
GLYPHS = LETTERS + DIGITS
SIZES = ("small", "large")
NUMBERS = ("one", "two", "three", "four", "five")
# No name contains another, so that a benchmark's answer can be told by the option text that it contains.
PLACES = (
    *("top left", "top middle", "top right"),
    *("middle left", "center", "middle right"),
    *("bottom left", "bottom middle", "bottom right"),
)
_DRAWABLE = SHAPES + GLYPHS


class Part(StrEnum):
    """Where a scene belongs: training, evaluation in distribution, or evaluation out of distribution."""

    TRAIN = "train"
    IND = "ind"
    OOD = "ood"


@dataclass(frozen=True)
class Thing:
    """One object. `shape` is a shape, or a glyph such as "letter K"; `place` counts 0-8 in reading order."""

    size: str
    color: str
    shape: str
    place: int

    @property
    def label(self) -> str:
        """Colour and shape: "red circle"."""
        return f"{self.color} {self.shape}"

    @property
    def phrase(self) -> str:
        """Size, colour and shape: "small red circle"."""
        return f"{self.size} {self.label}"

    @property
    def is_glyph(self) -> bool:
        """Whether this is a letter or a digit."""
        return self.shape in GLYPHS


@dataclass(frozen=True)
class Scene:
    """One to five things, each in its own place; kept in reading order.

    Kinds: "single"; "group" (several copies of one thing); "pair" (two different things in one row or column); "field" (three
    different things).
    """

    things: tuple[Thing, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "things", tuple(sorted(self.things, key=lambda thing: thing.place)))

    @property
    def kind(self) -> str:
        """single, group, pair or field."""
        if len(self.things) == 1:
            return "single"
        if len({thing.phrase for thing in self.things}) == 1:
            return "group"
        return "pair" if len(self.things) == 2 else "field"


def relation(first: Thing, second: Thing) -> str:
    """How `first` lies to `second`, which stands in the same row or column: "left of", "right of", "above" or "below"."""
    before = first.place < second.place
    if first.place // 3 == second.place // 3:
        return "left of" if before else "right of"
    assert first.place % 3 == second.place % 3, f"{first} and {second} share neither row nor column"
    return "above" if before else "below"


def plural(shape: str) -> str:
    """The shape's name for several of them."""
    return shape + ("es" if shape.endswith("s") else "s")


def caption(scene: Scene, backwards: bool = False) -> str:
    """The sentence that names all that is to be seen, and nothing else.

    `backwards` tells a pair from its second thing: "a large blue square right of a small red circle". No other kind can be
    told in two ways.
    """
    first = scene.things[0]
    if scene.kind == "single":
        return f"a {first.phrase} at the {PLACES[first.place]}"
    if scene.kind == "group":
        return f"{NUMBERS[len(scene.things) - 1]} {first.size} {first.color} {plural(first.shape)}"
    if scene.kind == "pair":
        one, other = reversed(scene.things) if backwards else scene.things
        return f"a {one.phrase} {relation(one, other)} a {other.phrase}"
    *most, last = (f"a {thing.phrase}" for thing in scene.things)
    return f"{', '.join(most)} and {last}"


def held_out(color: str, shape: str) -> bool:
    """Whether this pair is kept from training. Every colour and every shape, glyphs included, has at least one such pair."""
    return (3 * COLORS.index(color) + _DRAWABLE.index(shape)) % 7 == 0


def part_of(scene: Scene) -> Part:
    """The one part of the data in which this scene may occur."""
    if any(held_out(thing.color, thing.shape) for thing in scene.things):
        return Part.OOD
    bucket = int.from_bytes(blake2b(caption(scene).encode(), digest_size=4).digest()) % 5
    return Part.IND if bucket == 0 else Part.TRAIN


def allowed(color: str, shape: str, part: Part) -> bool:
    """Whether a text of `part` may speak of this pair, be it only to deny it."""
    return part != Part.TRAIN or not held_out(color, shape)


def labels(part: Part, shapes: tuple[str, ...] = SHAPES) -> list[str]:
    """Every "colour shape" label of a classification over `part`: the trained pairs, or all pairs out of distribution."""
    return [f"{c} {s}" for c in COLORS for s in shapes if part == Part.OOD or not held_out(c, s)]
