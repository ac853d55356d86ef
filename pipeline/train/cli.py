"""From a command line to a `RunConfig`: [RECIPE] [--resume] [--section.field value ...].

Values are checked twice: their types by tyro, the rules between fields by the config itself. Anything unknown is refused.
"""

import sys
from dataclasses import dataclass

import tyro

from pipeline.config import RunConfig
from pipeline.recipes import RECIPES


@dataclass(frozen=True)
class Command:
    """What the user asked for."""

    recipe: str
    resume: bool
    config: RunConfig


def parse(argv: list[str]) -> Command:
    """Parse the words after the launcher's own. Exits with status 2 and a message where they make no sense."""
    words = [word for word in argv if not word.startswith("--local_rank") and not word.startswith("--local-rank")]
    recipe = words.pop(0) if words and not words[0].startswith("-") else "tiny"
    if recipe not in RECIPES:
        print(f"error: found the recipe {recipe!r}; expected one of {', '.join(RECIPES)} (options follow the recipe)", file=sys.stderr)
        raise SystemExit(2)
    resume = "--resume" in words
    words = [word for word in words if word != "--resume"]
    config = tyro.cli(
        RunConfig,
        args=words,
        default=RECIPES[recipe](),
        prog="deepspeed launchers/train.sh [RECIPE] [--resume]",
        description=f"Train CREM. Recipes: {', '.join(RECIPES)}. --resume continues the run in --out.",
    )
    return Command(recipe, resume, RunConfig.model_validate(config.model_dump()))
