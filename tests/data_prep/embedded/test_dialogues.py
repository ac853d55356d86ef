from collections import Counter

from data_prep.embedded.dialogues import REQUESTS, ask, dialogue
from data_prep.embedded.sampling import stream
from data_prep.embedded.scenes import Part, Scene, Thing, caption, part_of

MADE = [dialogue(stream(0, "test", number)) for number in range(1500)]
TURNS = [turn for made in MADE for turn in made.turns]


def test_a_caption_alone_or_two_to_four_questions_none_asked_twice():
    assert {len(made.turns) for made in MADE} == {1, 2, 3, 4}
    assert all(len(dict(made.turns)) == len(made.turns) for made in MADE)
    assert all((len(made.turns) == 1) == (made.turns[0][0] in REQUESTS) for made in MADE if made.picture)
    assert not [turn for made in MADE for turn in made.turns[1:] if turn[0] in REQUESTS], "a caption would give the answers away"


def test_only_training_scenes_are_shown():
    assert {part_of(made.picture.scene) for made in MADE if made.picture} == {Part.TRAIN}


def test_some_are_told_in_words_only():
    without = [made.turns[0] for made in MADE if made.picture is None]

    assert 25 <= len(without) <= 112
    assert all(question.startswith("The image shows ") for question, _ in without)


def test_a_request_for_a_caption_is_answered_with_it():
    captioned = [made for made in MADE if made.picture and made.turns[0][0] in REQUESTS]

    assert 0.3 < len(captioned) / len(MADE) < 0.4
    assert all(made.turns[0][1] == caption(made.picture.scene) for made in captioned)


def test_choices_are_answered_by_an_options_text_and_now_and_then_by_its_letter():
    found = Counter()
    for question, answer in TURNS:
        if "\nOptions:\n" in question:
            options = dict(line.split(". ") for line in question.splitlines() if line[1:3] == ". ")
            found["letter" if answer in options else "text" if answer in options.values() else "neither"] += 1

    assert found["neither"] == 0
    assert 0.05 < found["letter"] / found["text"] < 0.2


def test_yes_and_no_are_balanced():
    answers = Counter(answer for question, answer in TURNS if question.endswith(" Please answer yes or no."))

    assert set(answers) == {"Yes", "No"}
    assert 0.8 < answers["Yes"] / answers["No"] < 1.25


def test_ask_is_a_pure_function_of_scene_and_stream():
    scene = Scene((Thing("small", "orange", "circle", 0),))
    asked = [ask(scene, stream(number)) for number in range(40)]

    assert asked == [ask(scene, stream(number)) for number in range(40)]
    assert {tuple(turns) for turns in asked if turns[0][0] in REQUESTS} <= {
        ((request, "a small orange circle at the top left"),) for request in REQUESTS
    }
