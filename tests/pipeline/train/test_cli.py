"""From words to a run; fields and their limits are in `test_config`."""

from pathlib import Path

import pytest

from pipeline.recipes import RECIPES
from pipeline.train.cli import parse


@pytest.mark.parametrize("recipe", list(RECIPES))
def test_a_recipe_alone(recipe: str) -> None:
    command = parse([recipe])
    assert (command.recipe, command.resume, command.config) == (recipe, False, RECIPES[recipe]())


def test_no_words_is_the_quickstart() -> None:
    assert parse([]) == parse(["tiny"])


def test_overrides_change_their_field_alone() -> None:
    config = parse(["crem_2b", "--optim.learning-rate", "3e-5", "--loss.symmetric", "--data.no-verify", "--out", "there"]).config
    base = RECIPES["crem_2b"]()
    expected = base.model_copy(
        update={
            "out": Path("there"),
            "optim": base.optim.model_copy(update={"learning_rate": 3e-5}),
            "loss": base.loss.model_copy(update={"symmetric": True}),
            "data": base.data.model_copy(update={"verify": False}),
        }
    )
    assert config == expected


def test_underscores_and_hyphens_are_the_same() -> None:
    assert parse(["--batch.sub_batch", "6"]) == parse(["--batch.sub-batch", "6"]) != parse([])


@pytest.mark.parametrize("words", [["tiny", "--resume", "--seed", "3"], ["--seed", "3", "--resume"]])
def test_resume(words: list[str]) -> None:
    command = parse(words)
    assert command.resume and not command.fall_back
    assert command.config.seed == 3


@pytest.mark.parametrize("words", [["tiny", "--resume", "auto", "--seed", "3"], ["--seed", "3", "--resume", "auto"]])
def test_resume_auto(words: list[str]) -> None:
    command = parse(words)
    assert command.resume and command.fall_back
    assert command.config.seed == 3


@pytest.mark.parametrize("word", ["--local_rank=1", "--local-rank=0"])
def test_the_launchers_own_word_is_dropped(word: str) -> None:
    assert parse([word, "crem_2b", "--seed", "3"]) == parse(["crem_2b", "--seed", "3"])


def test_weights_by_source() -> None:
    words = ["--data.weights", "mmeb_train/MSCOCO", "2", "sharegpt4v", "0.5"]
    assert parse(words).config.data.weights == {"mmeb_train/MSCOCO": 2.0, "sharegpt4v": 0.5}


def test_caps_and_epochs_by_source() -> None:
    data = parse(["--data.caps", "a", "50000", "b", "3", "--data.epochs", "a", "1.5"]).config.data
    assert data.caps == {"a": 50000, "b": 3} and data.epochs == {"a": 1.5}


def test_an_unknown_recipe_names_the_known_ones(capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(["crem-2b"])
    assert stop.value.code == 2
    assert "found the recipe 'crem-2b'; expected one of tiny, crem_2b, crem_7b" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        ["tiny", "crem_2b"],
        ["--seed", "3", "tiny"],
        ["--resum"],
        ["--resume=yes"],
        ["--resume", "yes"],
        ["--steps"],
        ["--steps", "few"],
        ["--steps", "1.5"],
        ["--seed", "-1"],
        ["--loss.temperature", "0"],
        ["--loss.temperature", "nan"],
        ["--optim.learning_rate", "inf"],
        ["--data.weights", "a"],
        ["--data.weights", "a", "-1"],
        ["--data.verify", "maybe"],
        ["--model.attention", "flash"],
        ["--train_batch_size", "8"],
    ],
    ids=" ".join,
)
def test_what_makes_no_sense_is_refused(words: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(words)
    assert stop.value.code == 2
    assert "".join(capsys.readouterr()).strip()
