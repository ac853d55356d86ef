import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.embedded.pairs import CROPPED, PLACEHOLDER, REPRESENT, TASKS, train_pairs
from data_prep.embedded.sampling import stream
from data_prep.embedded.scenes import Part, caption, part_of

BY_NAME = {task.name: task for task in TASKS}
PARTS = st.sampled_from(list(Part))


def made(name: str, count: int = 200, seed: int = 0):
    return list(train_pairs(BY_NAME[name], count, seed))


def test_the_four_meta_tasks_and_six_directions():
    sides = {(bool(p.query.picture), bool(p.target.picture)) for task in TASKS for p in train_pairs(task, 1, 0)}

    assert {task.meta for task in TASKS} == {"classification", "vqa", "retrieval", "grounding"}
    assert {task.meta for task in TASKS if task.ood} == {"classification", "vqa", "retrieval", "grounding"}
    assert sides == {(True, False), (False, True), (True, True)}


def test_image_to_text():
    for pair in made("ShapesI2T"):
        scene = pair.query.picture.scene
        assert pair.query.text == "<|image_1|>\nFind an image caption describing the given image.\n"
        assert pair.target.text in (caption(scene) + "\n", caption(scene, backwards=True) + "\n")
        assert pair.target.meaning == caption(scene)


def test_text_to_image_and_its_negative():
    pairs = made("ShapesT2I")
    negatives = [pair.negative for pair in pairs if pair.negative]

    for pair in pairs:
        said = pair.query.text.removeprefix("Find me an image that matches the given caption: ").removesuffix("\n")
        assert said in (caption(pair.target.picture.scene), caption(pair.target.picture.scene, backwards=True))
        assert pair.target.text == REPRESENT == "<|image_1|>\nRepresent the given image.\n"
    assert 25 < len(negatives) < 75
    assert {half.text for half in negatives} == {"", REPRESENT}
    assert not [p for p in pairs if p.negative and p.negative.meaning == p.target.meaning]


@pytest.mark.parametrize(("name", "attribute"), [("ShapesCls", "label"), ("ShapesGlyph", "shape")])
def test_labels_stand_bare(name, attribute):
    for pair in made(name):
        assert pair.target.text == getattr(pair.query.picture.scene.things[0], attribute)
        assert pair.target.text in BY_NAME[name].choices(Part.IND)


def test_questions_keep_their_picture_and_have_answers_among_the_choices():
    pairs = made("ShapesVQA", 300)
    choices = BY_NAME["ShapesVQA"].choices(Part.IND)

    assert all(pairs[i].query.picture is pairs[i + 1].query.picture is pairs[i + 2].query.picture for i in range(0, 300, 3))
    assert len(choices) == len(set(choices)) == 53
    assert {pair.target.text for pair in pairs} <= set(choices)
    assert sum(pair.negative is not None for pair in pairs) > 50
    assert not [pair for pair in pairs if pair.negative and pair.negative.text == pair.target.text]


def test_the_same_objects_elsewhere():
    for pair in made("ShapesI2I"):
        one, other = pair.query.picture.scene, pair.target.picture.scene
        assert {t.label for t in one.things} == {t.label for t in other.things}
        assert caption(one) != caption(other)


def test_two_changes_to_each_picture():
    pairs = made("ShapesComposed")

    for one, other in zip(pairs[::2], pairs[1::2], strict=True):
        assert one.query.picture is other.query.picture
        assert len({caption(one.query.picture.scene), one.target.meaning, other.target.meaning}) == 3
        assert one.query.text != other.query.text


def test_grounding_crops_the_labelled_thing():
    for pair in made("ShapesGround"):
        shown, crop = pair.query.picture, pair.target.picture
        label = shown.scene.things[crop.crop].label
        assert pair.query.text == f'{PLACEHOLDER}Select the portion of the image that isolates the object labeled as "{label}"\n'
        assert pair.target.text == CROPPED == "<|image_1|>\nRepresent the given cropped image of the object"
        assert (crop.scene, crop.look) == (shown.scene, shown.look)
        assert pair.negative.picture.scene == shown.scene and pair.negative.meaning != label


def test_cards_have_a_placeholder_without_image_on_the_query_side():
    for pair in made("ShapesT2IT"):
        price = pair.target.text.removeprefix(f"{PLACEHOLDER}Represent the given image with related text information: ")
        scene = caption(pair.target.picture.scene)
        assert pair.query.picture is None
        assert pair.query.text == f"<|image_1|>\nFind the card that answers this request: {scene} for {price}"
        assert pair.negative.picture == pair.target.picture and pair.negative.text != pair.target.text


@settings(max_examples=60)
@given(st.sampled_from(TASKS), PARTS, st.integers(0, 1000))
def test_every_picture_of_a_part_is_in_that_part(task, part, index):
    pairs = task.make(stream(7, index), part)
    shown = [half.picture for p in pairs for half in (p.query, p.target, p.negative) if half and half.picture]

    assert {part_of(picture.scene) for picture in shown} == {part}
    assert {picture.look.tint[0] % 2 for picture in shown} == {0 if part == Part.TRAIN else 1}


def test_more_rows_begin_like_fewer_and_another_seed_does_not():
    assert made("ShapesVQA", 10) == made("ShapesVQA", 25)[:10]
    assert made("ShapesVQA", 10) != made("ShapesVQA", 10, seed=1)
