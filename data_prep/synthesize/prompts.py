"""The prompt file: TOML with one `[[prompt]]` per record that a row gets."""

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_prep.samples import DataError

DEFAULT = Path(__file__).with_name("prompts.toml")


class Prompt(BaseModel):
    """One thing to ask about every row: either a fixed question, or an instruction that makes the model write one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(min_length=1)
    """Recorded with every record; change it with the wording."""
    question: str = ""
    """A fixed question."""
    ask: str = ""
    """Makes the model write a question. {text} stands for the row's MMEB text."""

    @model_validator(mode="after")
    def _one_of_two(self) -> "Prompt":
        if bool(self.question.strip()) == bool(self.ask.strip()):
            raise ValueError("expected either question or ask, and not both")
        return self

    def filled(self, text: str) -> str:
        """The question or instruction for a row with this MMEB text."""
        return (self.question or self.ask).replace("{text}", text).strip()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    prompt: tuple[Prompt, ...] = Field(min_length=1)


def load_prompts(path: Path = DEFAULT) -> tuple[Prompt, ...]:
    """The prompts of a file, in its order.

    Raises:
        DataError: no such file, not TOML, other keys than `Prompt` has, or two prompts of one id.
    """
    try:
        prompts = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).prompt
    except OSError as error:
        raise DataError(f"{path}: found no readable prompt file ({error.strerror}); expected TOML like {DEFAULT}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not TOML: {error}; expected a file like {DEFAULT}") from error
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise DataError(f"{path}: {wrong}. Expected [[prompt]] tables with id and question or ask, as in {DEFAULT}") from error
    twice = {prompt.id for prompt in prompts if [other.id for other in prompts].count(prompt.id) > 1}
    if twice:
        raise DataError(f"{path}: found {', '.join(sorted(twice))} more than once; expected every id once, to tell records apart")
    return prompts
