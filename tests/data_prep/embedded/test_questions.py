from hypothesis import given
from hypothesis import strategies as st

from data_prep.embedded.questions import Question, hint, is_there, options, questions, statement
from data_prep.embedded.sampling import sample, stream
from data_prep.embedded.scenes import Part, Scene, Thing, held_out, plural

SEEDS = st.integers(0, 10_000)
PAIR = Scene((Thing("small", "orange", "circle", 0), Thing("large", "blue", "square", 1)))


def asked(scene: Scene) -> dict[str, str]:
    return {question.text: question.answer for question in questions(scene)}


def test_questions_about_a_pair():
    assert asked(PAIR) == {
        "How many objects are there?": "two",
        "What is the color of the circle?": "orange",
        "What is the size of the circle?": "small",
        "Where is the circle?": "top left",
        "Which shape is orange?": "circle",
        "What is the color of the square?": "blue",
        "What is the size of the square?": "large",
        "Where is the square?": "top middle",
        "Which shape is blue?": "square",
    }


def test_questions_about_a_group_and_a_letter():
    group = Scene(tuple(Thing("small", "pink", "cross", place) for place in (0, 4, 8)))

    assert asked(group) == {
        "How many crosses are there?": "three",
        "What is the color of the crosses?": "pink",
        "What is the size of the crosses?": "small",
        "Which shape is shown?": "cross",
    }
    assert asked(Scene((Thing("large", "black", "letter K", 8),)))["Which letter is shown?"] == "K"
    assert asked(Scene((Thing("large", "black", "digit 7", 8),)))["Which digit is shown?"] == "7"
    assert asked(Scene((Thing("large", "black", "star", 8),)))["Which shape is shown?"] == "star"


def test_near_answers_are_those_of_the_other_thing():
    near = {question.text: question.near for question in questions(PAIR)}

    assert near["What is the color of the circle?"] == ("blue",)
    assert near["Which shape is blue?"] == ("circle",)
    assert near["Where is the circle?"] == ("top middle",)
    assert near["What is the size of the square?"] == ("small",)
    assert near["How many objects are there?"] == ()


@given(st.sampled_from(["single", "glyph", "group", "pair", "field"]), SEEDS)
def test_no_wrong_answer_is_right(kind, seed):
    for question in questions(sample(kind, Part.IND, stream(seed))):
        assert question.answer not in question.wrong
        assert len(set(question.wrong)) == len(question.wrong) > 0


@given(st.sampled_from(["A", "B", "C"]), st.integers(3, 4), SEEDS)
def test_options_hold_the_answer_once_at_the_letter_asked_for(right, count, seed):
    question = Question("color", "What is the color of the circle?", "red", near=("blue",))
    choices = options(question, stream(seed), right, count)

    assert list(choices) == list("ABCD")[:count]
    assert choices[right] == "red"
    assert "blue" in choices.values() and len(set(choices.values())) == count


def test_options_need_enough_answers():
    assert options(Question("size", "What is the size of the circle?", "small"), stream(0)) is None


def test_hints_count():
    assert (hint(PAIR), hint(Scene(PAIR.things[:1]))) == ("There are two objects.", "There is one object.")


def is_true(text: str, scene: Scene) -> bool:
    """An independent reading of a statement."""
    words = text.rstrip("?")
    if words.startswith("Are there "):
        number, shapes = words.removeprefix("Are there ").split(" ", 1)
        numbers = {"two": 2, "three": 3, "four": 4, "five": 5}
        return sum(plural(t.shape) == shapes for t in scene.things) == numbers[number]
    if words.startswith("Is there "):
        return words.removeprefix("Is there ").split(" ", 1)[1] in {t.label for t in scene.things}
    place = {t.shape: t.place for t in scene.things}
    for name, ahead, step in (("left of", True, 1), ("right of", False, 1), ("above", True, 3), ("below", False, 3)):
        if name in words:
            one, other = (place[shape] for shape in words.removeprefix("Is the ").split(f" {name} the "))
            return (one < other) == ahead and (one - other) % step == 0 and (step == 3 or one // 3 == other // 3)
    shape, color = words.removeprefix("Is the ").rsplit(" ", 1)
    return (shape, color) in {(t.shape, t.color) for t in scene.things}


@given(st.sampled_from(["single", "glyph", "group", "pair", "field"]), st.sampled_from(list(Part)), st.booleans(), SEEDS)
def test_statements_are_as_true_as_they_should_be(kind, part, truth, seed):
    scene = sample(kind, part, stream(seed))

    assert is_true(statement(scene, part, truth, stream(seed, "statement")), scene) == truth


@given(SEEDS)
def test_training_never_denies_a_held_out_pair(seed):
    words = statement(sample("single", Part.TRAIN, stream(seed)), Part.TRAIN, False, stream(seed, "statement")).rstrip("?")
    if words.startswith("Is there "):
        color, shape = words.split(" ", 3)[3].split(" ", 1)
    else:
        shape, color = words.removeprefix("Is the ").rsplit(" ", 1)

    assert not held_out(color, shape)


def test_articles():
    assert is_there(PAIR.things[0]) == "Is there an orange circle?"
    assert is_there(PAIR.things[1]) == "Is there a blue square?"
