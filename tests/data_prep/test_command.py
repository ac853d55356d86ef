"""Whatever the command, bad input ends it with 2 and a line a fault on standard error; a bug is not taken for bad input."""

import pytest
from pydantic import BaseModel, Field, model_validator

from data_prep.command import exit_status
from data_prep.samples import DataError


class Options(BaseModel):
    max_pixels: int = Field(default=1, gt=0)
    sizes: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _agree(self) -> "Options":
        if self.max_pixels == 7:
            raise ValueError("max_pixels = 7: take 8")
        return self


def options(**given: object) -> int:
    Options(**given)
    return 0


def test_a_command_ends_as_it_says(capsys: pytest.CaptureFixture) -> None:
    assert [exit_status(lambda status: status, status) for status in (0, 1, 3)] == [0, 1, 3]
    assert exit_status(lambda: options(max_pixels=5)) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"max_pixels": -5}, ["error: --max-pixels -5: Input should be greater than 0"]),
        ({"max_pixels": 7}, ["error: Value error, max_pixels = 7: take 8"]),
        ({"sizes": (1, 2.5)}, ["error: --sizes 2.5: Input should be a valid integer, got a number with a fractional part"]),
        ({"max_pixels": 0, "sizes": ("x",)}, ["error: --max-pixels 0: Input should", "error: --sizes x: Input should"]),
    ],
)
def test_settings_are_named_by_their_option(given: dict, said: list[str], capsys: pytest.CaptureFixture) -> None:
    assert exit_status(lambda: options(**given)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line[: len(start)] for line, start in zip(lines, said, strict=True)] == said


def test_bad_data_is_said_and_a_bug_is_not_caught(capsys: pytest.CaptureFixture) -> None:
    def fail(error: Exception) -> int:
        raise error

    assert exit_status(fail, DataError("found a, expected b")) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "error: found a, expected b\n")
    assert exit_status(fail, PermissionError(13, "Permission denied", "/data/7")) == 2
    assert capsys.readouterr().err.startswith("error: /data/7: found no permission to use it (Permission denied); expected data")
    with pytest.raises(PermissionError):
        exit_status(fail, PermissionError(1, "Operation not permitted"))
    with pytest.raises(KeyError):
        exit_status(fail, KeyError("bug"))
