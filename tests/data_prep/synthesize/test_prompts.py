"""The default file, and files that are refused before any work."""

from pathlib import Path

import pytest

from data_prep.samples import DataError
from data_prep.synthesize.prompts import Prompt, load_prompts


def test_the_default_file() -> None:
    prompts = load_prompts()
    assert [prompt.id for prompt in prompts] == ["v1-describe", "v1-ask"]
    assert prompts[0].filled("x") == "Describe the image in detail."
    text = 'Represent {"a": 1} {text}'  # braces of the data mean nothing
    assert f"matters for it: {text}\nReply" in prompts[1].filled(text)


def test_only_the_placeholder_is_filled() -> None:
    assert Prompt(id="a", ask=" say {text}, {this} ").filled("{that}") == "say {that}, {this}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "prompt: Field required"),
        ("[[prompt]]\nid = 'a'", "expected either question or ask, and not both"),
        ("[[prompt]]\nid = 'a'\nask = 'b'\nquestion = 'c'", "expected either question or ask, and not both"),
        ("[[prompt]]\nid = 'a'\nask = 'b'\nextra = 1", "extra: Extra inputs are not permitted"),
        ("[[prompt]]\nid = 'a'\nask = 'b'\n" * 2, "found a more than once"),
        ("prompt = ", "not TOML"),
    ],
)
def test_a_bad_file_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "prompts.toml"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        load_prompts(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="found no readable prompt file"):
        load_prompts(tmp_path / "none.toml")
