"""From a command line to a `RunConfig`: [RECIPE] [--resume [auto]] [--section.field value ...].

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
    """There must be a checkpoint, and the newest must be whole (with `fall_back`: it is looked for)."""
    config: RunConfig
    fall_back: bool = False
    """--resume auto: from the newest checkpoint that is whole, or afresh where there is none."""


def parse(argv: list[str]) -> Command:
    """Parse the words after the launcher's own. Exits with status 2 and a message where they make no sense."""
    words = [word for word in argv if not word.startswith("--local_rank") and not word.startswith("--local-rank")]
    recipe = words.pop(0) if words and not words[0].startswith("-") else "tiny"
    if recipe not in RECIPES:
        print(f"error: found the recipe {recipe!r}; expected one of {', '.join(RECIPES)} (options follow the recipe)", file=sys.stderr)
        raise SystemExit(2)
    fall_back = False
    if resume := "--resume" in words:
        place = words.index("--resume")
        fall_back = words[place + 1 : place + 2] == ["auto"]
        words[place : place + 1 + fall_back] = []
    config = tyro.cli(
        RunConfig,
        args=words,
        default=RECIPES[recipe](),
        prog="deepspeed launchers/train.sh [RECIPE] [--resume [auto]]",
        description=f"Train CREM. Recipes: {', '.join(RECIPES)}. --resume continues the run in --out from its newest checkpoint; "
        "--resume auto from the newest one that is whole, or starts where there is none.",
    )
    return Command(recipe, resume, RunConfig.model_validate(config.model_dump()), fall_back)
