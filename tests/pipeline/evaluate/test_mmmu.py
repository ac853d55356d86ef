"""MMMU's own reading of open answers, against the rules of its authors' code worked out by hand."""

import pytest

from pipeline.evaluate.mmmu import open_answer_right


@pytest.mark.parametrize(
    ("prediction", "reference", "right"),
    [
        ("8.36", "8.36", True),
        ("The result is 8.357", "8.36", True),  # two decimals
        ("so x = 8.3", "8.36", False),
        ("1,250", "1250", True),
        ("It costs 1,250 dollars", "1250", True),
        ("Therefore the total is 1.2e3", "1200", True),
        ("The answer is a hydrogen bond.", "hydrogen bond", True),
        ("Transformers", "transformer", True),  # the reference within the phrase
        ("transformer", "transformers", False),
        ("d", "D", True),
        ("Paris", "a", False),  # one character only counts beside a space
        ("It is a cat", "a", True),
        ("3.429", "['24/7', '3.429']", True),
        ("24/7", "['24/7', '3.429']", True),
        ("25", "['24/7', '3.429']", False),
        ("First I thought 5\nso it is 6", "6", True),
        ("", "5", False),
        ("nan", "nan", False),
    ],
)
def test_open_answers(prediction: str, reference: str, right: bool) -> None:
    assert open_answer_right(prediction, reference) == right


def test_an_equals_sign_is_a_cue_on_the_last_line_only() -> None:
    assert open_answer_right("x = 7", "7")
    assert not open_answer_right("a = b7\nso y", "b7"), "the first line has no cue, the last has another"
