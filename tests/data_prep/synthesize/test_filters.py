"""Every reason, with literal texts; the order of the data decides which duplicate stays."""

import pytest

from data_prep.synthesize.filters import REASONS, Candidate, FilterSettings, Judge, leaks_label

GOOD = {"image": "a.png", "question": "What colour is it?", "answer": "It is red.", "label": "a bus"}
SHORT = FilterSettings(max_question_chars=30, max_answer_chars=20, label_leak="drop")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"question": " ?! "}, "empty_question"),
        ({"answer": "\n..."}, "empty_answer"),
        ({"finished": False}, "unfinished"),
        ({"question": "What " * 7}, "too_long"),
        ({"answer": "red " * 5 + "."}, "too_long"),
        ({"answer": "red " * 5}, None),
        ({"answer": "re\N{REPLACEMENT CHARACTER}d"}, "unreadable"),
        ({"answer": "see <image>"}, "marker"),
        ({"question": "<|image_1|> what?"}, "marker"),
        ({"answer": "It is A BUS, red."}, "label_leak"),
        ({"question": "Where is a  bus?"}, "label_leak"),
        ({"answer": "It is a busy road"}, None),
        ({"answer": "Anything.", "label": ""}, None),
    ],
)
def test_reason(change: dict, reason: str | None) -> None:
    assert Judge(SHORT).reason(Candidate(**GOOD | change)) == reason
    assert reason is None or reason in REASONS


def test_the_first_of_two_that_ask_the_same_of_one_image_stays() -> None:
    judge = Judge(FilterSettings())
    asked = [("a.png", "What colour is it?"), ("a.png", "what COLOUR is it"), ("b.png", "What colour is it?"), ("a.png", "What is it?")]
    reasons = [judge.reason(Candidate(image, question, "Red.", "")) for image, question in asked]
    assert reasons == [None, "duplicate", None, None]


def test_what_was_dropped_for_another_reason_does_not_make_a_duplicate() -> None:
    judge = Judge(FilterSettings())
    assert judge.reason(Candidate("a.png", "What?", "", "")) == "empty_answer"
    assert judge.reason(Candidate("a.png", "What?", "Red.", "")) is None


def test_leaks_are_counted_where_they_are_kept() -> None:
    judge = Judge(FilterSettings())
    assert judge.reason(Candidate("a.png", "What?", "A bus.", "a bus")) is None
    assert judge.leaks == 1


def test_labels_are_found_as_whole_words_in_any_script() -> None:
    assert leaks_label(Candidate("", "", "Das ist die STRASSE.", "Straße"))
    assert not leaks_label(Candidate("", "", "Yesterday", "yes"))
