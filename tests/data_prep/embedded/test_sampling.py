from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.embedded.sampling import edits, random_edit, rearranged, sample, stream
from data_prep.embedded.scenes import Part, Scene, Thing, caption, held_out, part_of

KINDS = st.sampled_from(["single", "glyph", "group", "pair", "field"])
PARTS = st.sampled_from(list(Part))
SEEDS = st.integers(0, 10_000)
PAIR = Scene((Thing("small", "orange", "circle", 0), Thing("large", "blue", "square", 1)))


def test_a_stream_depends_on_all_of_its_key():
    assert stream(0, "a", 1).random() == stream(0, "a", 1).random()
    assert len({stream(*key).random() for key in [(0, "a", 1), (1, "a", 1), (0, "b", 1), (0, "a", 2)]}) == 4


def test_a_stream_is_the_same_on_every_machine():
    assert stream("x").getrandbits(32) == 2709212627


@given(KINDS, PARTS, SEEDS)
def test_a_sample_is_of_its_kind_and_in_its_part(kind, part, seed):
    scene = sample(kind, part, stream(seed))

    assert part_of(scene) == part
    assert scene.kind == ("single" if kind == "glyph" else kind)
    assert any(held_out(thing.color, thing.shape) for thing in scene.things) == (part == Part.OOD)
    assert len({thing.place for thing in scene.things}) == len(scene.things)


@given(st.sampled_from(["pair", "field"]), SEEDS)
def test_different_things_share_neither_colour_nor_shape(kind, seed):
    things = sample(kind, Part.TRAIN, stream(seed)).things

    assert len({t.color for t in things}) == len({t.shape for t in things}) == len(things)


@given(SEEDS)
def test_what_a_pairs_caption_says_is_where_things_are(seed):
    scene = sample("pair", Part.TRAIN, stream(seed))
    (name,) = [name for name in (" left of ", " above ") if name in caption(scene)]
    first, second = (next(t for t in scene.things if f"a {t.phrase}" == said) for said in caption(scene).split(name))
    (row, column), (other_row, other_column) = divmod(first.place, 3), divmod(second.place, 3)

    assert (row == other_row and column < other_column) if name == " left of " else (column == other_column and row < other_row)


def test_edits_say_what_they_change():
    scenes = {edit.text: caption(edit.scene) for part in Part for some in edits(PAIR, part).values() for edit in some}

    assert scenes["swap the two objects"] == "a large blue square left of a small orange circle"
    assert scenes["make the circle large"] == "a large orange circle left of a large blue square"
    assert scenes["make the square green"] == "a small orange circle left of a large green square"
    assert scenes["turn the square into a star"] == "a small orange circle left of a large blue star"
    assert len(scenes) == 2 * (6 + 4 + 1) + 1
    assert "make the square orange" not in scenes  # the other thing has that colour


@given(PARTS, SEEDS)
def test_edits_stay_in_their_part(part, seed):
    found = edits(sample("pair", part, stream(seed)), part)

    assert {part_of(edit.scene) for some in found.values() for edit in some} <= {part}


@settings(max_examples=30)
@given(SEEDS)
def test_a_random_edit_is_one_of_the_edits(seed):
    scene = sample("pair", Part.IND, stream(seed))
    found = [edit for some in edits(scene, Part.IND).values() for edit in some]

    assert random_edit(scene, Part.IND, stream(seed, "edit")) in (found or [None])


@given(PARTS, SEEDS)
def test_a_rearrangement_keeps_the_objects_and_changes_the_scene(part, seed):
    scene = sample("pair", part, stream(seed))
    other = rearranged(scene, part, stream(seed, "moved"))

    if other is not None:
        assert sorted(t.label for t in other.things) == sorted(t.label for t in scene.things)
        assert caption(other) != caption(scene) and part_of(other) == part


def test_most_scenes_can_be_rearranged():
    found = [rearranged(sample("pair", Part.TRAIN, stream(n)), Part.TRAIN, stream(n, "moved")) for n in range(50)]

    assert sum(other is not None for other in found) > 45
